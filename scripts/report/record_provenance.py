"""Record where a run comes from: hashes of all that went in and came out, versions, code, machine and settings."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from scripts.console import UserError, run_cli
from scripts.data.fetch_archive import read_record
from scripts.files import sha256_of, write_json, write_text
from scripts.report import html
from scripts.report.train_log import read_train_log
from scripts.train.config_file import read_config

logger = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
#: What the set-up leaves in .venv (envs/install.py).
STAMP = Path(sys.prefix) / "mimflow-environment.json"
#: Packages that have a say in the result; the lock's hash stands for all of them.
PACKAGES = (
    "torch", "torchvision", "mmcls", "mmcv", "openmim", "numpy", "opencv-python-headless", "pillow", "scikit-learn",
    "scipy", "pandas", "matplotlib", "snakemake", "snakemake-executor-plugin-slurm", "pydantic",
)  # fmt: skip
#: Files of a run that are hashed where they are there.
PRODUCTS = ("init.pth", "best.pth", "last.pth", "train_log.csv", "predictions.csv", "metrics.json", "per_class.csv")
VARIABLES = ("SLURM_JOB_ID", "SLURM_JOB_PARTITION", "SLURM_JOB_NODELIST", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.report.record_provenance", description=__doc__)
    parser.add_argument("--run-dir", type=Path, required=True, metavar="DIR", help="results/<dataset>/<run>/seed<k>")
    parser.add_argument("--archive", type=Path, required=True, metavar="FILE", help="the data set's archive")
    parser.add_argument("--archive-record", type=Path, metavar="FILE", help="archive.sha256; without it: computed")
    parser.add_argument("--splits", type=Path, required=True, metavar="DIR", help="folder of train, val and test.txt")
    parser.add_argument("--classes", type=Path, required=True, metavar="FILE", help="classes.txt")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="the pretrained weights, where there are some")
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the run's config.py")
    parser.add_argument("--settings", default="{}", metavar="JSON", help="the settings that the user gave")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="provenance.json")
    parser.add_argument("--html", type=Path, metavar="FILE", help="the same as a page for the report, if wanted")
    return parser


def hash_files(files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Return path, size in bytes and sha256 of each of *files*; for a .pth the hash of its tensors too.

    A .pth holds more than weights (a torch version, a zip's layout): equal models are told by ``weights_sha256``.
    """
    result: dict[str, dict[str, Any]] = {}
    for name, path in files.items():
        entry: dict[str, Any] = {"path": str(path), "bytes": path.stat().st_size, "sha256": sha256_of(path)}
        if path.suffix == ".pth":
            entry["weights_sha256"] = hash_weights(path)
        result[name] = entry
    return result


def hash_weights(path: Path) -> str:
    """Return the sha256 over the tensors of a checkpoint (name, type, shape, bytes; sorted by name)."""
    import torch

    from scripts.mmcls_plugins.checkpoints import tensors_sha256

    content = torch.load(path, map_location="cpu", weights_only=True)
    weights = content.get("state_dict", content)
    return tensors_sha256({name: tensor for name, tensor in weights.items() if isinstance(tensor, torch.Tensor)})


def describe_archive(archive: Path, record: Path | None) -> dict[str, Any]:
    """Return path, size, sha256 and source of the archive; the hash from its record, so that it is not read again.

    Raises
    ------
    UserError : there is neither the archive nor its record.
    """
    known = read_record(record) if record else None
    if not known and not archive.is_file():
        raise UserError(f"{archive}: no such archive, nor a record of it; fetch the data first")
    return {
        "path": str(archive),
        "bytes": archive.stat().st_size if archive.is_file() else None,
        "sha256": known.sha256 if known else sha256_of(archive),
        "source": known.source if known else None,
    }


def describe_software() -> dict[str, Any]:
    """Return the versions of Python and the main packages, and which lock they came from."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    stamp = json.loads(STAMP.read_text(encoding="utf-8")) if STAMP.is_file() else {}
    env = stamp.get("env")
    lock = ROOT / "envs" / f"{env}.lock"
    return {
        "versions": versions,
        "environment": {"name": env, "lock_sha256": sha256_of(lock) if lock.is_file() else None, "setup": stamp},
    }


def describe_code(root: Path = ROOT) -> dict[str, Any]:
    """Return the commit of the code and whether tracked files differ from it; None for both where git cannot tell."""
    commit = _output_of(["git", "-C", str(root), "rev-parse", "HEAD"])
    changes = _output_of(["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"])
    return {"commit": commit or None, "dirty": None if commit is None or changes is None else bool(changes)}


def describe_machine() -> dict[str, Any]:
    """Return host, processor, cores and GPUs of the machine that this runs on (in the DAG: the one that trained)."""
    import torch

    driver = Path("/proc/driver/nvidia/version")
    found = re.search(r"(\d+\.\d+(?:\.\d+)?)", driver.read_text()) if driver.is_file() else None
    gpus = [
        torch.cuda.get_device_properties(number)
        for number in range(torch.cuda.device_count() * torch.cuda.is_available())
    ]
    return {
        "host": socket.gethostname(),
        "system": platform.platform(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpus": [
            {"name": gpu.name, "memory_bytes": gpu.total_memory, "architecture": f"sm_{gpu.major}{gpu.minor}"}
            for gpu in gpus
        ],
        "driver": found.group(1) if found else None,
        "cuda": torch.version.cuda,
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def describe_run(run_dir: Path, config_file: Path) -> dict[str, Any]:
    """Return seed, device, threads, command and times of a run, as config.py and train_log.csv say."""
    config = read_config(config_file)
    first = config_file.read_text(encoding="utf-8").split("\n", 1)[0]
    runner = config.get("runner", {})
    run: dict[str, Any] = {
        "folder": str(run_dir),
        "seed": config.get("seed"),
        "device": runner.get("device"),
        "threads": runner.get("threads"),
        "deterministic": runner.get("deterministic"),
        "command": first.removeprefix("# ") if first.startswith("# ") else None,
    }
    path = run_dir / "train_log.csv"
    if path.is_file():
        log = read_train_log(path)
        run |= {
            "epochs": len(log),
            "train_seconds": round(float(log["train_seconds"].sum()), 3),
            "val_seconds": round(float(log["val_seconds"].sum()), 3),
            "training_ended": _utc(path.stat().st_mtime),
        }
    return run


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.is_file() else None
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _output_of(command: list[str]) -> str | None:
    """Return what *command* prints, None where it fails or is not installed."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def render_html(provenance: Mapping[str, Any], config_text: str) -> str:
    """Return the record as a self-contained page: tables of it all, and config.py's text."""
    files = [
        (name, str(entry["path"]), f"{entry['bytes']:,}" if entry["bytes"] is not None else "-", entry["sha256"])
        for name, entry in provenance["files"].items()
    ]
    weights = [(f"{name}: weights_sha256", entry["weights_sha256"])
               for name, entry in provenance["files"].items() if "weights_sha256" in entry]  # fmt: skip
    parts = []
    for title in ("run", "settings", "code", "environment", "versions", "machine"):
        parts += [html.section(title.capitalize()), html.table((), _flatten(provenance[title]))]
    parts += [
        html.section("Files"),
        html.table(("file", "path", "bytes", "sha256"), files, numbers=(2,)),
        html.table((), weights, caption="Hashes over the tensors: equal for equal models"),
        html.section("config.py"),
        html.preformatted(config_text),
    ]
    return html.page(f"Config and environment: {provenance['run']['folder']}", parts)


def _flatten(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Return nested mappings and lists as (dotted name, text) rows."""
    if isinstance(value, Mapping):
        items = [(f"{name}.{key}" if name else str(key), entry) for key, entry in value.items()]
    elif isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        items = [(f"{name}[{place}]", entry) for place, entry in enumerate(value)]
    else:
        return [(name, "-" if value is None else value if isinstance(value, str) else json.dumps(value))]
    return [row for key, entry in items for row in _flatten(entry, key)]


def main(args: argparse.Namespace) -> None:
    try:
        settings = json.loads(args.settings)
    except ValueError as error:
        raise UserError(f"--settings: not JSON ({error})") from error
    files = {"config.py": args.config, "classes.txt": args.classes}
    files |= {f"splits/{path.name}": path for path in sorted(args.splits.glob("*.txt"))}
    if args.checkpoint:
        files["checkpoint"] = args.checkpoint
    files |= {name: args.run_dir / name for name in PRODUCTS if (args.run_dir / name).is_file()}
    provenance = {
        "run": describe_run(args.run_dir, args.config),
        "settings": settings,
        "files": {"archive": describe_archive(args.archive, args.archive_record), **hash_files(files)},
        "code": describe_code(),
        **describe_software(),
        "machine": describe_machine(),
        "recorded": _utc(datetime.now(UTC).timestamp()),
    }
    if args.html:
        write_text(args.html, render_html(provenance, args.config.read_text(encoding="utf-8")))
    write_json(args.output, provenance)
    logger.info("%s: %d files hashed", args.output, len(provenance["files"]))


if __name__ == "__main__":
    run_cli(build_parser, main)
