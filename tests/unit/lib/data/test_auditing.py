"""Images are checked in processes, known ones not at all, and a crash costs one file; checks once made are known."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from planted_images import encoded, photograph

from scripts.lib.base.problems import PassingError, UserError
from scripts.lib.data import auditing
from scripts.lib.data.auditing import HEADER_BYTES, RECORD, AuditCache, Outcome, check_files, decode, encode
from scripts.lib.data.image_checks import Checked, Oddity, Status
from scripts.lib.data.reading import Reading

ROOT = Path(__file__).resolve().parents[4]
NONE_KNOWN = np.zeros((0, 32), np.uint8)


def outcomes(folder: Path, names: list[str], known: np.ndarray, processes: int) -> list[Outcome]:
    results = [outcome for batch in check_files(folder, names, known, processes) for outcome in batch]
    return sorted(results, key=lambda outcome: outcome.index)


def test_each_file_is_checked_once_and_known_ones_are_not(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(70)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(encoded(photograph(number % 50, (40, 40))))
    digests = [hashlib.sha256((tmp_path / name).read_bytes()).digest() for name in names]
    known = np.frombuffer(b"".join(digests[:20]), np.uint8).reshape(-1, 32)
    results = outcomes(tmp_path, names, known, 2)
    assert [outcome.index for outcome in results] == list(range(70))
    assert [outcome.digest for outcome in results] == digests
    assert [bool(outcome.record) for outcome in results] == [not (n < 20 or n >= 50) for n in range(70)]
    assert all(len(outcome.record) == RECORD.itemsize for outcome in results if outcome.record)


def plant_deadly_file(path: Path, how: signal.Signals) -> threading.Thread:
    """Make a file whose reader is ended by *how*: with other files before it at first, then alone."""
    os.mkfifo(path)

    def kill_readers() -> None:
        for _ in range(2):
            with open(path, "wb"):  # waits for a reader
                for process in psutil.Process().children():
                    os.kill(process.pid, how)
                    # Not join(), which would take the exit status away from the one who checks the files.
                    with contextlib.suppress(ChildProcessError):  # it has been taken already
                        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    killer = threading.Thread(target=kill_readers, daemon=True)
    killer.start()
    return killer


@pytest.mark.long
@pytest.mark.parametrize(
    ("how", "failure"),
    [
        (signal.SIGSEGV, "its decoder crashed (SIGSEGV)"),
        (signal.SIGXCPU, "it takes more than 60 s of a processor to decode"),
    ],
)
def test_a_file_that_kills_its_process_costs_that_file_only(tmp_path: Path, how: signal.Signals, failure: str) -> None:
    names = ["a.jpg", "deadly.jpg", "b.jpg"]
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(encoded(photograph(1, (40, 40))))
    killer = plant_deadly_file(tmp_path / "deadly.jpg", how)
    results = outcomes(tmp_path, names, NONE_KNOWN, 1)
    killer.join(timeout=60)
    assert [outcome.failure for outcome in results] == ["", failure, ""]
    assert [bool(outcome.record) for outcome in results] == [True, False, True]


def test_a_process_killed_from_outside_is_no_fault_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(photograph(1, (40, 40))))
    plant_deadly_file(tmp_path / "deadly.jpg", signal.SIGKILL)
    with pytest.raises(UserError, match=r"deadly\.jpg: .* killed \(SIGKILL\), most likely for want of memory"):
        outcomes(tmp_path, ["a.jpg", "deadly.jpg"], NONE_KNOWN, 1)
    assert not psutil.Process().children()


def test_processes_that_cannot_start_are_no_fault_of_the_files(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(photograph(1, (40, 40))))
    unusable = np.zeros((1, 32), object)  # no array of bytes: a process ends as it looks at it
    with pytest.raises(UserError, match="a process that checks images could not start"):
        outcomes(tmp_path, ["a.jpg"], unusable, 2)
    assert not psutil.Process().children()


def test_a_process_that_is_killed_as_it_starts_is_told_as_killed(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded(photograph(1, (40, 40))))

    def kill_first() -> None:
        while not (children := psutil.Process().children()):
            time.sleep(0.001)
        os.kill(children[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_first)
    killer.start()
    with pytest.raises(PassingError, match="a process that checks images was killed"):
        outcomes(tmp_path, ["a.jpg"], NONE_KNOWN, 1)
    killer.join()


def test_a_process_that_computes_for_too_long_is_ended() -> None:
    code = "from scripts.lib.data.auditing import limit_time\nlimit_time(0)\nwhile True: pass"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=300, check=False)
    assert ended.returncode == -signal.SIGXCPU


def test_what_lies_before_a_killed_process_is_checked_by_the_next(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(100)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(encoded(photograph(number, (40, 40))))
    seen: list[int] = []
    for number, batch in enumerate(check_files(tmp_path, names, NONE_KNOWN, 1)):
        seen += [outcome.index for outcome in batch if outcome.record]
        if not number:
            for process in psutil.Process().children():
                process.kill()
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert sorted(seen) == list(range(100))


def test_a_file_that_cannot_be_opened_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (results,) = outcomes(tmp_path, ["gone.jpg"], NONE_KNOWN, 1)
    assert results.failure == "No such file or directory"


READ = Checked(
    Status.READABLE, "JPEG", 320, 200, Oddity.CMYK | Oddity.BLANK, 6, "", 4 * bytes(range(256)), bytes(range(128)),
    sharpness=0.5, roughness=0.25,
)  # fmt: skip
BAD = Checked(Status.TRUNCATED, "PNG", detail="图像 " * 12)
DIGESTS = [b"\0" * 31 + b"\1", b"\2" * 31 + b"\0"]


def filled(path: Path) -> AuditCache:
    cache = AuditCache(path)
    cache.append([encode(DIGESTS[0], READ), encode(DIGESTS[1], BAD)])
    return cache


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    filled(tmp_path / "cache")
    records = AuditCache(tmp_path / "cache").records()
    assert [record["sha256"].tobytes() for record in records] == DIGESTS
    assert decode(records) == [
        Checked(**{**vars(READ), **dict.fromkeys(("grey", "colour"), b""), "sharpness": 0, "roughness": 0}),
        BAD,
    ]
    assert (records[0]["sharpness"], records[0]["roughness"]) == (READ.sharpness, READ.roughness)
    assert records[0]["grey"].tobytes() == READ.grey
    assert records[0]["colour"].tobytes() == READ.colour


def test_a_torn_record_is_dropped_and_the_next_stands_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    filled(path)
    path.write_bytes(path.read_bytes()[:-5])
    cache = AuditCache(path)
    assert len(cache.records()) == 1
    cache.append([encode(DIGESTS[1], BAD)])
    assert [record["sha256"].tobytes() for record in AuditCache(path).records()] == DIGESTS


def test_a_record_of_zeros_after_a_power_cut_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    filled(path)
    with open(path, "ab") as file:
        file.write(bytes(RECORD.itemsize))
    assert len(AuditCache(path).records()) == 2


def test_another_version_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    filled(path)
    filled_cache = path.read_bytes()
    path.write_bytes(filled_cache.replace(f"audit {auditing.VERSION}".encode(), b"audit 0", 1))
    assert len(AuditCache(path).records()) == 0
    assert path.read_bytes() == filled_cache[:HEADER_BYTES]


@pytest.mark.parametrize("other", [Reading(12), Reading(background=(0, 0, 0))])
def test_what_was_read_in_another_way_is_not_read(other: Reading, tmp_path: Path) -> None:
    path = tmp_path / "cache"
    filled(path)
    assert len(AuditCache(path, other).records()) == 0
    assert len(AuditCache(path, other).records()) == 0
