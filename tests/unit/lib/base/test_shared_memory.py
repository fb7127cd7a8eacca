"""Small shared memory: fewer data-loader workers, or none; and its own words where it is full all the same."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from scripts.lib.base.shared_memory import FULL, LONGEST_FOLDER, fitting_workers, free_shared_memory

BATCH = 32 * 3 * 224 * 224 * 4


@pytest.mark.parametrize(
    ("free", "loaders", "workers"),
    [(1e6, 1, 0), (64e6, 1, 0), (64e6, 2, 0), (130e6, 1, 2), (250e6, 2, 2), (1e9, 2, 8), (8e9, 2, 8)],
)
def test_workers_fit_shared_memory(free: float, loaders: int, workers: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert fitting_workers(8, BATCH, loaders, free) == workers
    assert ("shared memory (/dev/shm)" in caplog.text and "--shm-size" in caplog.text) == (workers < 8)


def test_no_workers_need_no_shared_memory() -> None:
    assert fitting_workers(0, BATCH, 2, free=0) == 0
    assert free_shared_memory() > 0


@pytest.mark.parametrize("folder", ["/nonexistent", "/proc/self/fd", "/sys"])
def test_shared_memory_that_is_not_there_or_takes_nothing_has_no_workers(folder: str) -> None:
    assert free_shared_memory(Path(folder)) == 0


@pytest.mark.parametrize(("length", "workers"), [(75, 2), (76, 0), (150, 0)])
def test_a_folder_for_temporary_files_whose_name_leaves_no_room_for_sockets_has_no_workers(
    length: int, workers: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/" + "x" * (length - 1))
    assert fitting_workers(2, BATCH, free=1e9) == workers
    assert ("set TMPDIR to one of 75 bytes" in caplog.text) == (workers == 0)


@pytest.mark.parametrize(("length", "status"), [(LONGEST_FOLDER, 0), (LONGEST_FOLDER + 1, 1)])
def test_the_longest_folder_is_the_one_in_which_a_worker_has_a_socket(length: int, status: int) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as parent:
        folder = Path(parent, "x" * (length - len(parent) - 1))
        folder.mkdir()
        code = "from multiprocessing.connection import Listener; Listener(family='AF_UNIX')"
        result = subprocess.run([sys.executable, "-c", code], env={"TMPDIR": str(folder)}, capture_output=True)
    assert result.returncode == status, result.stderr


@pytest.mark.parametrize(
    "line",
    [
        "RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that its workers"
        " are out of shared memory. Please try to raise your limit.",
        "RuntimeError: unable to write to file </torch_123_4567_0>: No space left on device (28)",
        "RuntimeError: unable to open shared memory object </torch_1_2> in read-write mode: No space left on device",
        "RuntimeError: unable to resize file </torch_1_2_3> to the right size: No space left on device (28)",
        "RuntimeError: unable to allocate shared memory(shm) for file </torch_1_2>: No space left on device (28)",
    ],
)
def test_what_torch_says_of_full_shared_memory_is_known(line: str) -> None:
    assert FULL.search(line)


@pytest.mark.parametrize("line", ["OSError: [Errno 28] No space left on device: 'x/state.pth'", "CUDA out of memory"])
def test_a_full_disk_is_something_else(line: str) -> None:
    assert not FULL.search(line)
