"""What holds for every test: waiting threads do not spin; tests of a file, or of one long fixture, share a process.

pyproject.toml puts the repository, tests/helpers/ and tests/slurm/ on the path, so that a test imports what several of
them share by its name (dag, tiny_run, cluster, ...). Not a package ``tests``: mmcls's dependencies install one of that
name into site-packages.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

# Before torch is loaded, and for every process that a test starts: threads of libgomp that wait for each other take the
# processor from the threads that they wait for, wherever more threads run than there are cores. The bits are the same.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
# Images of machines set it; each of the hundreds of processes that tests start would compile mimflow anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Lines of commands are in the language of the shell's locale; what `make` kept of another one would come before it.
os.environ["LC_ALL"] = "C.UTF-8"
os.environ.pop("MIMFLOW_SHELL", None)
# Of the make that runs the tests: those that tests start would say more than they do when people start them.
for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
    os.environ.pop(name, None)


#: Tests that look at one finished run, which takes a minute or more to make.
FINISHED = tuple(
    f"tests/workflow/test_{name}.py"
    for name in ("chinese_commands", "dag", "damaged_results", "openmmlab", "report_pages", "serve", "verify")
)
#: Tests in a fresh clone, which is made once and has finished runs.
CLONE = tuple(f"tests/workflow/test_{name}.py" for name in ("docs_site", "fresh_clone", "habits", "notebook", "track"))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep together, where two processes run the tests, those that share what takes long to make.

    Not by xdist's marks of groups: pytest 9.2 takes no notice of the names that xdist 3.8 gives to marked tests.
    """
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "finished" if file in FINISHED else "clone" if file in CLONE else file

    return Scheduling(config, log)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name a parameter of bytes by its argument: its content may hold the time at which it was made (gzip).

    The processes of ``-n 2`` refuse to begin when a test has not the same name in both.
    """
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no process waits for the other at the end."""
    slow = tuple(f"tests/workflow/test_{name}.py" for name in ("base_configs", "fast", "folds"))
    first = ("tests/faults/", "tests/grid/", FINISHED, CLONE, slow, "tests/workflow/")
    items.sort(key=lambda item: next((i for i, start in enumerate(first) if item.nodeid.startswith(start)), len(first)))
