"""The first set-up chooses the environment that fits the GPU, and a run says of a GPU that it leaves unused.

There is no GPU here: a program of the name nvidia-smi stands for one, and prints what the real one prints.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dag import ROOT
from gpu_program import nvidia_smi

from scripts.lib.workflow.machine_check import TorchBuild, look_at_gpus, unused_gpu

CHOOSE = "import runpy, sys; print(runpy.run_path(sys.argv[1])['fitting_env']())"


@pytest.mark.parametrize(
    ("name", "driver", "capability", "env"),
    [
        ("NVIDIA GeForce RTX 3090", "580.95.05", "8.6", "cuda13"),
        ("NVIDIA GeForce RTX 3090", "470.82.01", "", "cuda11"),
        ("NVIDIA GeForce RTX 3090", "535.183.01", "8.6", "cuda11"),
        ("Tesla P100-PCIE-16GB", "580.95.05", "6.0", "cuda11"),  # CUDA 13 has no kernels for it
        ("NVIDIA H100 80GB HBM3", "580.95.05", "9.0", "cuda13"),
        ("NVIDIA H100 80GB HBM3", "535.183.01", "9.0", "cpu"),  # torch 2.0.1 has no kernels for it
        ("Tesla K80", "390.46", "", "cpu"),
    ],
)
def test_the_first_set_up_takes_what_fits_the_gpu_and_says_so(
    name: str, driver: str, capability: str, env: str, tmp_path: Path
) -> None:
    variables = os.environ | {"PATH": nvidia_smi(tmp_path, name, driver, capability)}
    command = [sys.executable, "-I", "-c", CHOOSE, str(ROOT / "envs" / "install.py")]
    result = subprocess.run(command, env=variables, text=True, capture_output=True, check=True)
    assert result.stdout.strip() == env
    assert result.stderr.startswith(f"setup: this machine has a GPU ({name}, driver {driver})") and env in result.stderr


def test_without_a_gpu_it_is_cpu_and_nothing_is_said(tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-c", CHOOSE, str(ROOT / "envs" / "install.py")]
    variables = os.environ | {"PATH": str(tmp_path)}
    result = subprocess.run(command, env=variables, text=True, capture_output=True, check=True)
    assert (result.stdout, result.stderr) == ("cpu\n", "")


@pytest.mark.parametrize(
    ("driver", "torch", "words"),
    [
        ("580.95.05", TorchBuild("2.13.0+cpu"), "CPU build: make setup ENV=cuda13"),
        ("535.183.01", TorchBuild("2.13.0+cpu"), "CPU build: make setup ENV=cuda11"),
        ("535.183.01", TorchBuild("2.13.0", "13.0"), "too old for torch built with CUDA 13.0"),
        ("580.95.05", TorchBuild("2.13.0", "13.0"), ""),
        ("535.183.01", TorchBuild("2.0.1+cu117", "11.7"), ""),
        ("535.183.01", None, ""),
    ],
)
def test_a_gpu_that_is_left_unused_is_named_with_what_to_do(
    driver: str, torch: TorchBuild | None, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", nvidia_smi(tmp_path, "NVIDIA GeForce RTX 3090", driver, "8.6"))
    note = unused_gpu(torch, look_at_gpus())
    assert words in note and bool(note) == bool(words) and ("RTX 3090" in note or not note)
