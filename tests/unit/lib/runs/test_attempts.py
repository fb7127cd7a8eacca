"""The record of attempts to train: start, end, host, job and outcome of each, whatever ended it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.lib.base.problems import UserError
from scripts.lib.runs.attempts import NAME, NO_END, read_attempts, recorded


def test_each_attempt_has_start_end_host_job_and_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with pytest.raises(UserError), recorded(tmp_path):
        raise UserError("the loss became nan\nin epoch 1")
    with pytest.raises(KeyboardInterrupt), recorded(tmp_path):
        raise KeyboardInterrupt
    monkeypatch.delenv("SLURM_JOB_ID")
    with recorded(tmp_path):
        pass
    attempts = read_attempts(tmp_path)
    assert [(attempt["outcome"], attempt.get("reason")) for attempt in attempts] == [
        ("failed", "the loss became nan in epoch 1"),
        ("stopped", "KeyboardInterrupt"),
        ("finished", None),
    ]
    assert [attempt["slurm_job_id"] for attempt in attempts] == ["4711", "4711", None]
    assert all(attempt["host"] == socket.gethostname() and attempt["end"] >= attempt["start"] for attempt in attempts)


def test_a_killed_attempt_has_no_end_and_the_next_one_is_read_all_the_same(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from scripts.lib.runs.attempts import recorded\n"
        "with recorded(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    root = Path(__file__).resolve().parents[4]
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root).returncode == -9
    with open(tmp_path / NAME, "a") as file:
        file.write('\n{"attempt": "cut sho')
    with recorded(tmp_path):
        pass
    first, second = read_attempts(tmp_path)
    assert (first["outcome"], first["reason"], first["end"]) == ("killed", NO_END, None)
    assert second["outcome"] == "finished" and second["end"] is not None and "reason" not in second


def test_a_record_that_cannot_be_written_does_not_end_a_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / NAME).mkdir()
    trained = []
    with recorded(tmp_path):
        trained.append(1)
    assert trained and "could not be recorded" in caplog.text


def test_without_a_record_there_are_no_attempts(tmp_path: Path) -> None:
    assert read_attempts(tmp_path) == []
    (tmp_path / NAME).write_text(json.dumps(["no", "object"]) + "\n3\n")
    assert read_attempts(tmp_path) == []
