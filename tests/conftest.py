"""What holds for every test: waiting threads do not spin; tests of a file, or of one long fixture, share a process.

pyproject.toml puts the repository, tests/helpers/ and tests/slurm/ on the path, so that a test imports what several of
them share by its name (dag, tiny_run, cluster, ...). Not a package ``tests``: mmcls's dependencies install one of that
name into site-packages.
"""

from __future__ import annotations

import os

import pytest

# Before torch is loaded, and for every process that a test starts: threads of libgomp that wait for each other take the
# processor from the threads that they wait for, wherever more threads run than there are cores. The bits are the same.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
# Images of machines set it; each of the hundreds of processes that tests start would compile mimflow anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together, where two processes run the tests, those that share what takes long to make; they come first."""
    for item in items:
        shared = "finished" if "finished" in getattr(item, "fixturenames", ()) else str(item.path)
        item.add_marker(pytest.mark.xdist_group(shared))
    items.sort(key=lambda item: "finished" not in getattr(item, "fixturenames", ()))
