"""Stand-ins for Slurm's programs, and lines as they print them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.lib.cluster.slurm import SEPARATOR, SQUEUE_FIELDS

Program = Callable[[str, str], Path]
RUNNING = {
    "JobID": "11", "Name": "mimflow_1111", "State": "RUNNING", "Reason": "None", "NodeList": "g1", "TimeUsed": "0:02",
    "TimeLimit": "5:00", "tres-alloc": "cpu=1,mem=500M,node=1,billing=1,gres/gpu=1", "tres-per-job": "gres:gpu:1",
    "tres-per-node": "N/A", "NumNodes": "1", "Partition": "gpu", "SubmitTime": "1795426921",
    "StartTime": "1795426921", "EndTime": "1795427221", "Comment": "rule_run_demo_a_0_train_model 中文",
    "WorkDir": "/home/a user/mimflow",
}  # fmt: skip
PENDING = {
    "JobID": "12", "State": "PENDING", "Reason": "PartitionTimeLimit", "NodeList": "", "TimeUsed": "0:00",
    "TimeLimit": "1-02:00:00", "StartTime": "N/A", "EndTime": "N/A", "Comment": "(null)",
}  # fmt: skip


def squeue_line(**fields: str) -> str:
    """A line as squeue 22.05 prints it: each field filled up to its width, then the separator."""
    row = RUNNING | {name.replace("_", "-"): value for name, value in fields.items()}
    return "".join(row[name].ljust(width) + SEPARATOR for name, width in SQUEUE_FIELDS.items())


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Makes a program of Slurm's: a shell script of that name. A real Slurm of this machine is not on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("cat", "sleep"):
        (folder / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(folder))

    def make(name: str, body: str) -> Path:
        file = folder / name
        file.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        file.chmod(0o755)
        return file

    return make


def printing(program: Program, name: str, *lines: str) -> None:
    """Make a program that prints *lines*, whatever it is asked."""
    file = program(name, "").parent / f"{name}.txt"
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    program(name, f"cat '{file}'")
