"""The lease on a work_dir: one holder, who loses it only when dead."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.lib.base.problems import UserError
from scripts.lib.runs.lease import EXPIRY_SECONDS, Holder, Lease

STRANGER = {"token": "x", "host": "elsewhere", "pid": 1, "started": 0.0, "job": "17"}


def write_holder(folder: Path, age: float = 0.0, **changes: object) -> None:
    path = folder / "lease.json"
    path.write_text(json.dumps({**STRANGER, **changes}))
    os.utime(path, (time.time() - age, time.time() - age))


def test_a_second_trainer_on_this_machine_stops_with_a_clear_line(tmp_path: Path) -> None:
    Lease(tmp_path).acquire()
    with pytest.raises(UserError, match=rf"process {os.getpid()} on .* is training here"):
        Lease(tmp_path).acquire()


def test_after_release_the_next_one_may_train_and_nothing_is_left(tmp_path: Path) -> None:
    first = Lease(tmp_path)
    first.acquire()
    first.release()
    assert list(tmp_path.iterdir()) == []
    Lease(tmp_path).acquire()


def test_a_dead_process_of_this_machine_loses_it_at_once(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write_holder(tmp_path, host=socket.gethostname(), pid=ended.pid)
    Lease(tmp_path).acquire(patience=0)


@pytest.mark.long
def test_a_trainer_that_outlives_its_parent_still_holds_it(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    trainer = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1.5)"], start_new_session=True)
    write_holder(tmp_path, host=socket.gethostname(), pid=ended.pid, group=trainer.pid)
    with pytest.raises(UserError, match="is training here"):
        Lease(tmp_path).acquire(patience=0)
    Lease(tmp_path).acquire(patience=20)
    assert trainer.poll() is not None or trainer.wait(1) == 0


def test_a_process_id_that_was_used_again_is_not_the_holder(tmp_path: Path) -> None:
    write_holder(tmp_path, host=socket.gethostname(), pid=os.getpid(), started=1.0)
    Lease(tmp_path).acquire(patience=0)


def test_a_holder_elsewhere_keeps_it_while_its_heart_beats(tmp_path: Path) -> None:
    write_holder(tmp_path, age=5)
    with pytest.raises(UserError, match="process 1 on elsewhere, Slurm job 17"):
        Lease(tmp_path).acquire(patience=0)


def test_a_silent_holder_elsewhere_loses_it(tmp_path: Path) -> None:
    write_holder(tmp_path, age=EXPIRY_SECONDS + 5)
    lease = Lease(tmp_path)
    lease.acquire(patience=0)
    assert json.loads(lease.path.read_text())["token"] == lease.me.token


def test_a_heartbeat_renews_it_and_notices_a_take_over(tmp_path: Path) -> None:
    lease = Lease(tmp_path)
    lease.acquire()
    os.utime(lease.path, (1, 1))
    lease._beaten_at = -1e9
    lease.heartbeat()
    assert time.time() - lease.path.stat().st_mtime < 30
    write_holder(tmp_path)
    lease._beaten_at = -1e9
    with pytest.raises(UserError, match="taken over"):
        lease.heartbeat()
    lease.release()
    assert json.loads(lease.path.read_text())["token"] == "x", "another's lease is not removed"


def test_of_two_that_find_a_dead_holder_one_gets_it(tmp_path: Path) -> None:
    write_holder(tmp_path, age=EXPIRY_SECONDS + 5)
    dead = Holder(**STRANGER)  # type: ignore[arg-type]
    first, second = Lease(tmp_path), Lease(tmp_path)
    first.acquire(patience=0)
    second._remove(dead)  # it had read the dead holder before the first one took over
    assert json.loads(first.path.read_text())["token"] == first.me.token
    with pytest.raises(UserError):
        second.acquire(patience=0)
