"""Snakemake as it is started inside a Slurm job: what it submits is no part of that job, and finds Slurm."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from dag import ROOT, archive_bytes, settings, snakemake

pytestmark = pytest.mark.long


@pytest.mark.parametrize("accounts", ["echo lab", "exit 1"])
def test_a_job_is_submitted_from_within_a_job_or_a_line_says_why_not(tmp_path: Path, accounts: str) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("squeue", "sacct", "sacctmgr", "sshare", "scontrol", "sinfo", "scancel"):
        (programs / name).write_text(f"#!/bin/sh\n{accounts if name in ('sacctmgr', 'sshare') else 'exit 0'}\n")
    (programs / "sbatch").write_text(f"#!/bin/sh\nenv > '{tmp_path}/environment'\necho refused >&2\nexit 1\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    (tmp_path / "data.zip").write_bytes(archive_bytes(["apple", "pear"]))
    job = {"SLURM_CONF": "/etc/hosts", "SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "4", "CUDA_VISIBLE_DEVICES": "3"}
    shell = {**job, "MPLBACKEND": "module://x", "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    result = snakemake(
        tmp_path,
        settings({"path": str(tmp_path / "data.zip")}),
        *("--profile", str(ROOT / "profiles" / "slurm"), "--retries", "0", "--until", "unpack_archive"),
        *("--default-resources", "slurm_account=lab", "slurm_partition=gpu"),
        environment=shell,
        seconds=150,
    )
    assert result.returncode != 0 and "SLURM job context" not in result.stdout
    if accounts == "exit 1":  # an error in the thread that submits, after which the plugin would wait for ever
        assert "error: job data_small_unpack_archive could not be submitted: " in result.stdout
        return
    seen = dict(line.split("=", 1) for line in (tmp_path / "environment").read_text().splitlines() if "=" in line)
    assert seen["SLURM_CONF"] == "/etc/hosts" and seen["MPLBACKEND"] == "Agg"
    assert not {"SLURM_JOB_ID", "SLURM_CPUS_ON_NODE", "CUDA_VISIBLE_DEVICES"} & seen.keys()
