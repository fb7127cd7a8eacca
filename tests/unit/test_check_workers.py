"""Processes that check files: each file once, known ones not at all, and a crash costs one file."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import threading
from pathlib import Path

import numpy as np
from planted_images import encoded, photograph

from scripts.data.audit_cache import RECORD
from scripts.data.check_workers import Outcome, check_files

NONE_KNOWN = np.zeros((0, 32), np.uint8)


def outcomes(folder: Path, names: list[str], known: np.ndarray, processes: int) -> list[Outcome]:
    found = [one for batch in check_files(folder, names, known, processes) for one in batch]
    return sorted(found, key=lambda one: one.place)


def test_each_file_is_checked_once_and_known_ones_are_not(tmp_path: Path) -> None:
    names = [f"{number}.jpg" for number in range(70)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(encoded(photograph(number % 50, (40, 40))))
    digests = [hashlib.sha256((tmp_path / name).read_bytes()).digest() for name in names]
    known = np.frombuffer(b"".join(digests[:20]), np.uint8).reshape(-1, 32)
    found = outcomes(tmp_path, names, known, 2)
    assert [one.place for one in found] == list(range(70))
    assert [one.digest for one in found] == digests
    assert [bool(one.record) for one in found] == [not (n < 20 or n >= 50) for n in range(70)]
    assert all(len(one.record) == RECORD.itemsize for one in found if one.record)


def test_a_file_that_kills_its_process_costs_that_file_only(tmp_path: Path) -> None:
    names = ["a.jpg", "deadly.jpg", "b.jpg"]
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(encoded(photograph(1, (40, 40))))
    os.mkfifo(tmp_path / "deadly.jpg")  # whoever reads it is killed: with the others at first, then alone

    def kill_readers() -> None:
        for _ in range(2):
            with open(tmp_path / "deadly.jpg", "wb"):  # waits for a reader
                for process in multiprocessing.active_children():
                    process.kill()
                    process.join()

    killer = threading.Thread(target=kill_readers, daemon=True)
    killer.start()
    found = outcomes(tmp_path, names, NONE_KNOWN, 1)
    killer.join(timeout=60)
    assert [one.failure for one in found] == ["", "its decoder crashed (SIGKILL)", ""]
    assert [bool(one.record) for one in found] == [True, False, True]


def test_a_file_that_cannot_be_opened_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (found,) = outcomes(tmp_path, ["gone.jpg"], NONE_KNOWN, 1)
    assert found.failure == "No such file or directory"
