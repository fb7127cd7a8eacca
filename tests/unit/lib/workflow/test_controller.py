"""One Snakemake controls a folder; a dead one is noticed, and its lock is taken away only when it is surely dead."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.lib.base.problems import UserError
from scripts.lib.cluster import slurm
from scripts.lib.workflow import controller as module
from scripts.lib.workflow.controller import LOCKS, RECORD, Controller, clear_the_way, will_run
from scripts.lib.workflow.profile_check import check_path

TAKE = """
import sys, time
from scripts.lib.workflow.controller import Controller
Controller().take(slurm=False)
print("taken", flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def other() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", TAKE], stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "taken\n"
    yield process
    process.kill()
    process.communicate()


def lock() -> None:
    LOCKS.mkdir(parents=True)
    (LOCKS / "0.input.lock").write_text("x")


def test_a_living_controller_stops_the_next(other: subprocess.Popen[str]) -> None:
    lock()
    with pytest.raises(UserError, match=rf"another snakemake .* \(process {other.pid} on {socket.gethostname()}\)"):
        clear_the_way({})
    assert LOCKS.exists() and RECORD.exists()


def test_a_killed_controller_leaves_a_lock_that_is_taken_away(
    other: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    lock()
    other.kill()
    other.wait()
    clear_the_way({})
    assert not LOCKS.exists() and not RECORD.exists()
    assert f"process {other.pid} on" in capsys.readouterr().err


def on_another_machine(age: float, job: str | None = None) -> None:
    Controller().take(slurm=False)
    content = json.loads(RECORD.read_text())
    content["holder"] |= {"host": "login02", "job": job}
    RECORD.write_text(json.dumps(content))
    os.utime(RECORD, (time.time() - age, time.time() - age))


def test_a_controller_elsewhere_lives_by_its_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.threading.Thread, "start", lambda self: None)  # type: ignore[attr-defined]
    on_another_machine(age=0)
    with pytest.raises(UserError, match="on login02"):
        clear_the_way({})


def test_the_lock_of_a_silent_controller_elsewhere_is_left_to_the_user(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module.threading.Thread, "start", lambda self: None)  # type: ignore[attr-defined]
    monkeypatch.setattr(sys, "argv", ["snakemake", "--configfile", "configs/mine.yaml"])
    on_another_machine(age=3600)
    lock()
    clear_the_way({})
    assert LOCKS.exists()
    assert "unlock it: snakemake --unlock --configfile configs/mine.yaml" in capsys.readouterr().err


def test_a_slurm_job_that_is_over_tells_that_its_controller_is_dead(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module.threading.Thread, "start", lambda self: None)  # type: ignore[attr-defined]
    monkeypatch.setattr(module.slurm, "is_here", lambda: True)
    monkeypatch.setattr(module.slurm, "job", lambda job_id: None)
    on_another_machine(age=0, job="123")
    lock()
    clear_the_way({})
    assert not LOCKS.exists() and "Slurm job 123) was killed: unlocking" in capsys.readouterr().err


def test_where_slurm_says_nothing_the_heartbeat_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(job_id: str) -> None:
        raise UserError("squeue: timed out")

    monkeypatch.setattr(module.threading.Thread, "start", lambda self: None)  # type: ignore[attr-defined]
    monkeypatch.setattr(module.slurm, "is_here", lambda: True)
    monkeypatch.setattr(module.slurm, "job", silent)
    on_another_machine(age=0, job="123")
    with pytest.raises(UserError, match="on login02, Slurm job 123"):
        clear_the_way({})


def test_a_job_that_was_queued_again_knows_its_own_past(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.threading.Thread, "start", lambda self: None)  # type: ignore[attr-defined]
    monkeypatch.setattr(module.slurm, "is_here", lambda: True)
    on_another_machine(age=0, job="123")
    record = Controller().record()
    assert record is not None
    assert module.is_surely_dead(record.holder, {"SLURM_JOB_ID": "123"})


@pytest.mark.parametrize(
    "error", [slurm.SlurmAbsent("squeue: no Slurm", "log in"), slurm.SlurmSilent("squeue: timed out")]
)
def test_jobs_that_slurm_cannot_be_asked_about_stop_a_start_until_the_user_unlocks(
    other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, error: UserError
) -> None:
    def no_answer(folder: Path) -> None:
        raise error

    content = json.loads(RECORD.read_text())
    RECORD.write_text(json.dumps(content | {"slurm": True}))
    other.kill()
    other.wait()
    monkeypatch.setattr(sys, "argv", ["snakemake", "--configfile=configs/my own.yaml"])
    monkeypatch.setattr(slurm, "my_jobs", no_answer)
    with pytest.raises(UserError, match=r"may still run .*`snakemake --unlock --configfile 'configs/my own.yaml'`"):
        clear_the_way({})
    monkeypatch.setattr(sys, "argv", ["scripts/lib/workflow/start.py", "--configfile=configs/my own.yaml"])
    with pytest.raises(UserError, match=r"`make run CONFIG='configs/my own.yaml' ARGS=--unlock`"):
        clear_the_way({})
    module.unlock()
    clear_the_way({})
    assert not RECORD.exists()


@pytest.mark.parametrize(("words", "mode"), [("exit 0", 0o644), ("no interpreter", 0o755), ("exit 127", 0o755)])
def test_a_squeue_that_cannot_be_started_does_not_keep_the_folder_locked_for_ever(
    other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, words: str, mode: int
) -> None:
    RECORD.write_text(json.dumps(json.loads(RECORD.read_text()) | {"slurm": True}))
    other.kill()
    other.wait()
    squeue = Path("bin/squeue")
    squeue.parent.mkdir()
    squeue.write_text(words if "interpreter" in words else f"#!/bin/sh\n{words}\n")
    squeue.chmod(mode)
    monkeypatch.setenv("PATH", str(squeue.parent.absolute()))
    with pytest.raises(UserError, match=r"may still run \(.*squeue: it cannot be started .*--unlock`"):
        clear_the_way({})
    module.unlock()
    clear_the_way({})
    assert not RECORD.exists()


def test_unlocking_forgets_no_jobs_that_slurm_knows_and_no_living_controller(
    other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = json.loads(RECORD.read_text())
    RECORD.write_text(json.dumps(content | {"slurm": True}))
    monkeypatch.setenv("PATH", "/nonexistent")
    module.unlock()
    assert RECORD.exists()
    other.kill()
    other.wait()
    monkeypatch.setattr(slurm, "my_jobs", lambda folder: [])
    module.unlock()
    assert RECORD.exists()


def test_a_controller_in_a_slurm_job_is_known_by_it_after_leaving_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.threading.Thread, "start", lambda self: None)  # type: ignore[attr-defined]
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    controller = Controller()
    slurm.leave_job(os.environ)
    controller.take(slurm=True)
    record = controller.record()
    assert record is not None and record.holder.job == "123" and "SLURM_JOB_ID" not in os.environ


def test_nothing_there_is_nothing_to_say(capsys: pytest.CaptureFixture[str]) -> None:
    clear_the_way({})
    assert capsys.readouterr().err == ""


def test_release_is_for_the_own_record_only(other: subprocess.Popen[str]) -> None:
    Controller().release()
    assert RECORD.exists()
    RECORD.unlink()
    ours = Controller()
    ours.take(slurm=True)
    record = Controller().record()
    assert record is not None and record.slurm and record.holder.pid == os.getpid()
    ours.release()
    assert not RECORD.exists()


def test_a_released_record_is_touched_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.05)
    ours = Controller()
    ours.take(slurm=False)
    theirs = RECORD.read_text()
    (heartbeat,) = (thread for thread in threading.enumerate() if thread.name == f"heartbeat of {RECORD}")
    os.utime(RECORD, (0, 0))
    deadline = time.monotonic() + 5
    while RECORD.stat().st_mtime == 0:
        assert time.monotonic() < deadline, "no heartbeat"
        time.sleep(0.01)
    ours.release()
    RECORD.write_text(theirs)  # the next controller's
    os.utime(RECORD, (0, 0))
    heartbeat.join(5)
    assert not heartbeat.is_alive() and RECORD.stat().st_mtime == 0


def test_a_record_cut_short_is_none() -> None:
    RECORD.parent.mkdir()
    RECORD.write_text('{"holder": {"to')
    assert Controller().record() is None and not Controller().is_alive()


def test_what_runs_nothing_needs_no_control() -> None:
    assert will_run(["--profile", "slurm"], dryrun=False)
    assert not will_run(["--profile", "slurm"], dryrun=True)
    for words in (["--unlock"], ["--report", "x.html"], ["--report=x.html"], ["-l"], ["--summary"]):
        assert not will_run(words, dryrun=False)


def test_a_path_that_snakemake_does_not_quote_is_refused() -> None:
    check_path("/home/me/mimflow-1.0/.venv/bin/python")
    with pytest.raises(UserError, match=r"/my data/.venv/bin/python: Slurm jobs cannot start .*: move the project"):
        check_path("/my data/.venv/bin/python")
