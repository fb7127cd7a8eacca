"""Check many image files in several processes: a file whose decoder crashes costs that file, not the run."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from scripts.data.audit_cache import encode
from scripts.data.image_checks import Checked, Status, check_image, prepare_process

#: Files that a process is given at a time.
BATCH = 32


@dataclass(frozen=True)
class Outcome:
    """What came of one file.

    ``place``: in the list of files; ``digest``: sha256, 32 bytes, b"" where the file could not be read or the decoder
    crashed; ``record``: for the cache, b"" where it is known already; ``failure``: why there is no digest.
    """

    place: int
    digest: bytes
    record: bytes
    failure: str = ""


def check_files(folder: Path, names: Sequence[str], known: np.ndarray, processes: int) -> Iterator[list[Outcome]]:
    """Yield what came of the files, in any order, a batch at a time.

    Parameters
    ----------
    folder, names : the files, *names* relative to *folder*.
    known : digests that need no check, uint8 of shape (files, 32).
    processes : how many work at a time.
    """
    waiting = [list(range(start, min(start + BATCH, len(names)))) for start in range(0, len(names), BATCH)][::-1]
    workers = [_Worker(folder, known) for _ in range(min(processes, len(waiting)))]
    try:
        while waiting or any(worker.batch for worker in workers):
            for worker in workers:
                if waiting and not worker.batch:
                    worker.give(waiting.pop(), names)
            ready = wait([worker.connection for worker in workers if worker.batch])
            for worker in [worker for worker in workers if worker.connection in ready]:
                batch, outcomes = worker.take()
                if outcomes is not None:
                    yield outcomes
                    continue
                how = worker.describe_end()
                workers[workers.index(worker)] = _Worker(folder, known)
                if len(batch) == 1:
                    yield [Outcome(batch[0], b"", b"", f"its decoder crashed ({how})")]
                else:
                    waiting += [[place] for place in reversed(batch)]
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A process that checks files, and the batch that it is at."""

    def __init__(self, folder: Path, known: np.ndarray) -> None:
        # spawn: a forked copy of a process whose libraries run threads may hang.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.batch: list[int] = []
        self.process = context.Process(target=_work, args=(theirs, folder, known), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, batch: list[int], names: Sequence[str]) -> None:
        self.batch = batch
        with contextlib.suppress(OSError):  # it has ended: take() will tell
            self.connection.send([names[place] for place in batch])

    def take(self) -> tuple[list[int], list[Outcome] | None]:
        """Return the batch and what came of it; None where the process ended."""
        batch, self.batch = self.batch, []
        try:
            found: list[tuple[bytes, bytes, str]] = self.connection.recv()
        except (EOFError, OSError):
            return batch, None
        return batch, [Outcome(place, *one) for place, one in zip(batch, found, strict=True)]

    def describe_end(self) -> str:
        self.process.join()
        self.connection.close()
        code = self.process.exitcode or 0
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
        return f"exit status {code}"

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()


def _work(connection: Connection[Any, Any], folder: Path, known: np.ndarray) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    messages = prepare_process()
    digests = np.sort(np.ascontiguousarray(known).view("S32").ravel())
    with contextlib.suppress(EOFError, OSError):  # the parent has ended
        while True:
            connection.send([_check(folder / name, digests, messages) for name in connection.recv()])


def _check(path: Path, known: np.ndarray, messages: Any) -> tuple[bytes, bytes, str]:
    try:
        content = path.read_bytes()
    except OSError as error:
        return b"", b"", error.strerror or str(error)
    digest = hashlib.sha256(content).digest()
    place = int(np.searchsorted(known, digest)) if len(known) else 0
    if place < len(known) and known[place] == digest.rstrip(b"\0"):
        return digest, b"", ""
    try:
        checked = check_image(content, messages)
    except Exception as error:  # a parser that hostile bytes reached in a new way
        checked = Checked(Status.UNREADABLE, detail=f"{type(error).__name__} while it was decoded")
    return digest, encode(digest, checked), ""
