"""Check many image files in several processes: a file whose decoder crashes or hangs costs that file, not the run."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import resource
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from scripts.lib.base.problems import UserError
from scripts.lib.data.audit_cache import encode
from scripts.lib.data.image_checks import Checked, Status, check_image, prepare_process

#: Files that a process is given at a time, and how many such batches it has before it: it need not wait for the next.
BATCH, AHEAD = 32, 2
#: Seconds of a processor that one file may take: what needs more would hold up every epoch of training as well.
PATIENCE = 60


@dataclass(frozen=True)
class Outcome:
    """What came of one file.

    ``index``: in the list of files; ``digest``: sha256, 32 bytes, b"" where the file could not be read or the decoder
    crashed; ``record``: for the cache, b"" where it is known already; ``failure``: why there is no digest.
    """

    index: int
    digest: bytes
    record: bytes
    failure: str = ""


def check_files(
    folder: Path, names: Sequence[str], known: np.ndarray, processes: int, patience: int = PATIENCE
) -> Iterator[list[Outcome]]:
    """Yield what came of the files, in any order, a batch at a time.

    Parameters
    ----------
    folder, names : the files, *names* relative to *folder*.
    known : digests that need no check, uint8 of shape (files, 32).
    processes : how many work at a time.
    patience : seconds of a processor that one file may take, about.

    Raises
    ------
    UserError : a process could not start, or was killed from outside: what becomes of a file must not depend on that.
    """
    waiting = [list(range(start, min(start + BATCH, len(names)))) for start in range(0, len(names), BATCH)][::-1]
    workers = [_Worker(folder, known, patience) for _ in range(min(processes, len(waiting)))]
    try:
        while waiting or any(worker.batches for worker in workers):
            for ahead in range(AHEAD):
                for worker in workers:
                    if waiting and len(worker.batches) <= ahead:
                        worker.give(waiting.pop(), names)
            ready = wait([worker.connection for worker in workers if worker.batches])
            for worker in [worker for worker in workers if worker.connection in ready]:
                if not worker.started:
                    worker.confirm_start()
                    continue
                batch, outcomes = worker.take()
                if outcomes is not None:
                    yield outcomes
                    continue
                failure = worker.describe_end()
                waiting += worker.batches
                workers[workers.index(worker)] = _Worker(folder, known, patience)
                if len(batch) > 1:
                    waiting += [[index] for index in reversed(batch)]
                    continue
                if worker.was_killed():
                    raise UserError(
                        f"{folder / names[batch[0]]}: the process that decoded it was killed (SIGKILL), most likely for"
                        " want of memory: give it more, or take the file away; the same command goes on from here"
                    )
                yield [Outcome(batch[0], b"", b"", failure)]
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A process that checks files, and the batches that it has before it, the first one first."""

    def __init__(self, folder: Path, known: np.ndarray, patience: int) -> None:
        # spawn: a forked copy of a process whose libraries run threads may hang.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.batches: list[list[int]] = []
        self.started = False
        self.patience = patience
        self.process = context.Process(target=_work, args=(theirs, folder, known, patience), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, batch: list[int], names: Sequence[str]) -> None:
        self.batches.append(batch)
        with contextlib.suppress(OSError):  # it has ended: take() will tell
            self.connection.send([names[index] for index in batch])

    def confirm_start(self) -> None:
        """Take the first message, which says that the process runs.

        Raises
        ------
        UserError : it ended before: that is no fault of the files.
        """
        try:
            self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            raise UserError(
                f"a process that checks images could not start (exit status {self.process.exitcode}):"
                " see the lines above, and try `make doctor`"
            ) from None
        self.started = True

    def was_killed(self) -> bool:
        """Tell whether it was ended by SIGKILL, which no decoder sends, but who is short of memory does."""
        return self.process.exitcode == -signal.SIGKILL

    def take(self) -> tuple[list[int], list[Outcome] | None]:
        """Return the first batch and what came of it; None where the process ended."""
        batch = self.batches.pop(0)
        try:
            results: list[tuple[bytes, bytes, str]] = self.connection.recv()
        except (EOFError, OSError):
            return batch, None
        return batch, [Outcome(index, *result) for index, result in zip(batch, results, strict=True)]

    def describe_end(self) -> str:
        self.process.join()
        self.connection.close()
        code = self.process.exitcode or 0
        if code == -signal.SIGXCPU:
            return f"it takes more than {self.patience} s of a processor to decode"
        with contextlib.suppress(ValueError):
            return f"its decoder crashed ({signal.Signals(-code).name})"
        return f"its decoder crashed (exit status {code})"

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join()


def _work(connection: Connection[Any, Any], folder: Path, known: np.ndarray, patience: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    messages = prepare_process()
    digests = np.sort(np.ascontiguousarray(known).view("S32").ravel())
    with contextlib.suppress(EOFError, OSError):  # the parent has ended
        connection.send("started")
        while True:
            results = []
            for name in connection.recv():
                limit_time(patience)
                results.append(_check(f"{folder}/{name}", digests, messages))
            connection.send(results)


def limit_time(seconds: int) -> None:
    """Have the kernel end this process by SIGXCPU once it has computed for *seconds* more, waiting for disks aside."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    limit = int(time.process_time()) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))


def _check(path: str, known: np.ndarray, messages: Any) -> tuple[bytes, bytes, str]:
    try:
        with open(path, "rb", buffering=0) as file:
            content = file.read()
    except OSError as error:
        return b"", b"", error.strerror or str(error)
    digest = hashlib.sha256(content).digest()
    index = int(np.searchsorted(known, digest)) if len(known) else 0
    if index < len(known) and known[index] == digest.rstrip(b"\0"):
        return digest, b"", ""
    try:
        checked = check_image(content, messages)
    except Exception as error:  # a parser that hostile bytes reached in a new way
        checked = Checked(Status.UNREADABLE, detail=f"{type(error).__name__} while it was decoded")
    return digest, encode(digest, checked), ""
