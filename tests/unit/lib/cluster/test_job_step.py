"""A job's Snakemake is the one step of its Slurm job, with what the job has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.lib.cluster import job_step

OF_A_JOB = {
    "PATH": "/bin",
    "SLURM_JOB_ID": "7",
    "SLURM_CONF": "/etc/slurm/slurm.conf",
    "SLURM_MEM_PER_NODE": "4000",
    "SLURM_NTASKS": "2",
    "SRUN_CPUS_PER_TASK": "3",
    "SBATCH_ACCOUNT": "lab",
}


@pytest.mark.parametrize(
    ("arguments", "gpus", "words"),
    [
        (["-n1 -c 2", "-n1 --gpus=1", "python", "a b"], {}, ["srun", "-n1", "-c", "2", "python", "a b"]),
        (["-n1 -c 2", "-n1 --gpus=1", "python"], {"SLURM_GPUS": "1"}, ["srun", "-n1", "--gpus=1", "python"]),
        (["", "", "python", "-m", "snakemake"], {"SLURM_GPUS": "4"}, ["python", "-m", "snakemake"]),
    ],
)
def test_a_step_has_the_options_of_its_kind_of_job(
    arguments: list[str], gpus: dict[str, str], words: list[str]
) -> None:
    command, environment = job_step.step(arguments, OF_A_JOB | gpus)
    assert command == words
    assert environment == {name: OF_A_JOB[name] for name in ("PATH", "SLURM_JOB_ID", "SLURM_CONF")}


def test_a_step_hands_on_its_words_and_its_status(tmp_path: Path) -> None:
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\nprintf "%s|" "$@" "${SLURM_NTASKS-none}"\nexit 3\n', encoding="utf-8")
    srun.chmod(0o755)
    words = [sys.executable, "-I", "-S", job_step.__file__, "-n1 --nodes=1", "", "python", "$a 'b'"]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_NTASKS": "2"}
    result = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (3, "-n1|--nodes=1|python|$a 'b'|none|")


def test_a_node_without_srun_says_so_in_one_line(tmp_path: Path) -> None:
    words = [sys.executable, "-I", "-S", job_step.__file__, "-n1", "", "python"]
    result = subprocess.run(words, env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert result.stderr.startswith("error: srun: No such file or directory: the job cannot start on ")
    assert len(result.stderr.splitlines()) == 1
