"""Two processes that train together on the CPU (gloo), on which the tests of multi-GPU training look."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

from training import EXPERIMENT

#: 42 training images: 21 a process, in batches of 4 and a last one of 1, which is left out. The augmentation draws
#: from every generator.
PAIR: dict[str, Any] = {
    **EXPERIMENT,
    "gpus": 2,
    "batch_size": 4,
    "epochs": 4,
    "overrides": {
        **EXPERIMENT["overrides"],
        "custom_imports.imports": ["scripts.mmcls_plugins", "fault_plugin", "recorded_order"],
        "data.train.pipeline.2": {"type": "RecordedNoise"},
    },
}


def processes_of(work_dir: Path) -> dict[int, int]:
    """Return the processes that train in *work_dir*, data-loader workers included: id to parent's id."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            status = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        trains = "scripts.mmcls_plugins.distributed_process" in command and any(
            str(work_dir) in word for word in command
        )
        if trains and status[0] != "Z":
            parents[int(entry.name)] = int(status[1])
    return parents


def ranks_of(work_dir: Path) -> list[int]:
    """Return the ids of the processes, by rank, without their data-loader workers."""
    parents = processes_of(work_dir)
    ranks = {}
    for process, parent in parents.items():
        if parent not in parents:
            variables = (Path("/proc") / str(process) / "environ").read_bytes().split(b"\0")
            ranks[next(int(word[5:]) for word in variables if word.startswith(b"RANK="))] = process
    return [ranks[rank] for rank in sorted(ranks)]


def wait_until_none_is_left(work_dir: Path, seconds: float = 15) -> dict[int, int]:
    """Wait for the end of all processes in *work_dir*; return those that are left."""
    deadline = time.monotonic() + seconds
    while (left := processes_of(work_dir)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def run_command(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of training in *folder*, with the plug-ins of the tests on the path."""
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
