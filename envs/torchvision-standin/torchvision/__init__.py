"""Stand-in of mimflow's cpu environment: mmcv's `import torchvision` passes, any use says what is missing."""

__version__ = "0.0.0+mimflow"


def __getattr__(name: str) -> object:
    """Refuse every name, with the remedy."""
    # AttributeError and not ImportError: mmcv asks every loaded module with hasattr (mmcv/device/npu/data_parallel.py).
    raise AttributeError(
        f"torchvision.{name}: mimflow's cpu environment has only a stand-in for torchvision: PyPI serves none for a "
        "CPU-only torch; use `make setup ENV=cuda11` (it runs on a CPU too), or install a CPU build of it into .venv"
    )
