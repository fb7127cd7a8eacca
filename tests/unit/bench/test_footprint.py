"""The bench that counts calls to Slurm, and files: what the scripts write down, and what is made of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bench.footprint import Call, busiest_minute, kind_of, read_calls, table_of_calls, table_of_files, write_scripts
from scripts.lib.base.problems import UserError


def test_a_call_is_written_down_and_is_the_program_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "sbatch").write_text('#!/bin/sh\necho "submitted $2"\nexit 3\n')
    (real / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{real}:/usr/bin:/bin")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    folder, calls = tmp_path / "the scripts", tmp_path / "it's calls.txt"
    write_scripts(folder, calls)
    for job in ({}, {"SLURM_JOB_ID": "7"}):
        command = [str(folder / "sbatch"), "--x", "a b"]
        result = subprocess.run(command, env={**os.environ, **job}, capture_output=True, text=True)
        assert (result.returncode, result.stdout) == (3, "submitted a b\n")
    assert [(call.program, call.is_in_job) for call in read_calls(calls)] == [("sbatch", False), ("sbatch", True)]


def test_without_slurm_there_is_nothing_to_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no Slurm"):
        write_scripts(tmp_path / "scripts", tmp_path / "calls")


def test_calls_are_counted_by_program_and_the_busiest_minute_is_any_sixty_seconds() -> None:
    calls = [Call(when, "squeue", False) for when in (0, 59, 60, 118, 300)] + [Call(5, "squeue", True)]
    assert busiest_minute(call for call in calls if not call.is_in_job) == 3
    assert busiest_minute([]) == 0
    table = table_of_calls([*calls, Call(1, "sbatch", False)], 120)
    assert "| squeue | 5 | 2.5 | 3 | 1 |" in table and "| all | 6 | 3.0 | 3 | 1 |" in table


def test_files_are_counted_by_what_they_belong_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("results/d/a/seed0/best.pth", "results/d/a/seed1/work/x/log", "results/d/audit.csv", "logs/d/a.log"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"0" * 500_000)
    assert kind_of(Path("results/d/a/seed0/best.pth")) == "runs" and kind_of(Path("logs/x")) == "logs/"
    table = table_of_files(({}, {}), 2)
    assert "| runs (2) | 6 | 1.0 | 3 | 0.5 |" in table
    assert "| data set and report | 3 | 0.5 |  |  |" in table and "| logs/ | 2 | 0.5 |  |  |" in table
