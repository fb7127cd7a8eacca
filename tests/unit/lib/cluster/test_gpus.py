"""GPUs of an allocation: which were given, and one process on each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.lib.base.problems import UserError
from scripts.lib.cluster import gpus
from scripts.lib.cluster.gpus import Gpus, claimed_gpus, gpus_of_machine

HOLD = """
import os, sys, time
from scripts.lib.cluster.gpus import claimed_gpus
with claimed_gpus(int(sys.argv[1]), os.environ) as mine:
    print(",".join(mine), flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("SLURM_JOB_ID", "7")


def hold(count: int, visible: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": visible},
    )
    assert process.stdout
    return process, process.stdout.readline().strip()


def test_the_given_gpus_are_those_of_the_variable_or_of_the_machine(tmp_path: Path) -> None:
    assert Gpus.of({"CUDA_VISIBLE_DEVICES": "2,0"}).names == ("2", "0")
    assert Gpus.of({"CUDA_VISIBLE_DEVICES": "GPU-1a,MIG-2"}).names == ("GPU-1a", "MIG-2")
    assert Gpus.of({"CUDA_VISIBLE_DEVICES": ""}).names == ()
    for name in ("nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert Gpus.of({}, tmp_path).names == gpus_of_machine(tmp_path) == ("2", "10")


def test_processes_take_different_gpus_and_a_killed_one_gives_its_gpu_back(monkeypatch: pytest.MonkeyPatch) -> None:
    holders = [hold(1, "4,5,6") for _ in range(3)]
    try:
        assert sorted(gpu for _, gpu in holders) == ["4", "5", "6"]
        monkeypatch.setattr(gpus, "PATIENCE_SECONDS", 1.0)
        environment = {"CUDA_VISIBLE_DEVICES": "4,5,6", "SLURM_JOB_ID": "7"}
        with pytest.raises(UserError, match="none of the GPUs 4, 5, 6 got free"), claimed_gpus(1, environment):
            pass
        process, gpu = holders[1]
        process.send_signal(signal.SIGKILL)
        process.wait()
        began = time.monotonic()
        with claimed_gpus(1, environment) as mine:
            assert mine == (gpu,) and time.monotonic() - began < 1
    finally:
        for process, _ in holders:
            process.kill()
            process.communicate()


def test_several_gpus_and_too_few() -> None:
    environment = {"CUDA_VISIBLE_DEVICES": "0,1,2", "SLURM_JOB_ID": "7"}
    with claimed_gpus(2, environment) as two, claimed_gpus(1, environment) as single:
        assert sorted([*two, *single]) == ["0", "1", "2"]
    with pytest.raises(UserError, match="wants 4 GPUs, and 3 were given"), claimed_gpus(4, environment):
        pass


def test_one_gpu_needs_no_claim(tmp_path: Path) -> None:
    with claimed_gpus(1, {"CUDA_VISIBLE_DEVICES": "3"}) as mine:
        assert mine == ("3",)
    with claimed_gpus(0, {"CUDA_VISIBLE_DEVICES": "3,4"}) as mine:
        assert mine == ()
    with claimed_gpus(1, {"CUDA_VISIBLE_DEVICES": ""}) as mine:
        assert mine == ()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("environment", "devices", "noticed"),
    [
        ({}, [], False),
        ({}, ["nvidia0"], True),
        ({"CUDA_VISIBLE_DEVICES": ""}, ["nvidia0"], False),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ["nvidia0"], False),
        ({"CUDA_VISIBLE_DEVICES": "2"}, [], True),
        ({"SLURM_JOB_GPUS": "0"}, [], True),
    ],
)
def test_a_given_gpu_is_noticed(environment: dict[str, str], devices: list[str], noticed: bool, tmp_path: Path) -> None:
    for name in devices:
        (tmp_path / name).touch()
    assert bool(Gpus.of(environment, tmp_path)) is noticed
