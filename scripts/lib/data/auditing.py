"""Check all images of a data set, each content once and in several processes, and tell how far it is.

A file whose decoder crashes or hangs costs that file, not the run. What is known of files by their content is kept in
a file of records of one size, so that checks are not made again, also after a kill: torn records at its end are
dropped, those of another version are not read.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import resource
import signal
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
from tqdm import tqdm

from scripts.lib.base import ranges
from scripts.lib.base.console import can_rewrite
from scripts.lib.base.files import atomic_path
from scripts.lib.base.problems import PassingError, UserError
from scripts.lib.base.subprocesses import memory_ran_out, was_killed
from scripts.lib.base.workers import Worker
from scripts.lib.data import image_checks
from scripts.lib.data.image_checks import COLOUR_EDGE, DETAIL_BYTES, GREY_EDGE, Checked, Oddity, Status
from scripts.lib.data.reading import USUAL, Reading
from scripts.lib.data.shards import shards_of
from scripts.lib.data.splits import Image

logger = logging.getLogger(__name__)

#: To be raised when checks change; another decoder may read other files, so that their versions count as well.
VERSION = 5
READER = f"mimflow audit {VERSION}, OpenCV {cv2.__version__}, Pillow {PIL.__version__}"
HEADER_BYTES = 128
GREY, COLOUR = GREY_EDGE**2, 2 * COLOUR_EDGE**2
#: One record; ``checksum`` is the CRC-32 of what stands before it.
RECORD = np.dtype(
    [
        ("sha256", "u1", (32,)), ("status", "u1"), ("oddities", "u1"), ("orientation", "u1"), ("format", "S9"),
        ("width", "<u4"), ("height", "<u4"), ("detail", f"S{DETAIL_BYTES}"),
        ("peak", "<u2"), ("sharpness", "<f4"), ("roughness", "<f4"),
        ("grey", "u1", (GREY,)), ("colour", "u1", (COLOUR,)), ("checksum", "<u4"),
    ]
)  # fmt: skip
_BODY = struct.Struct(f"<32sBBB9sII{DETAIL_BYTES}sHff{GREY}s{COLOUR}s")


def encode(digest: bytes, checked: Checked) -> bytes:
    """Return the record of a file with this sha256 (32 bytes)."""
    body = _BODY.pack(
        digest, checked.status, checked.oddities, checked.orientation, checked.format.encode(),
        min(checked.width, 0xFFFFFFFF), min(checked.height, 0xFFFFFFFF), checked.detail.encode(),
        checked.peak, checked.sharpness, checked.roughness, checked.grey, checked.colour,
    )  # fmt: skip
    return body + struct.pack("<I", zlib.crc32(body))


def decode(records: np.ndarray) -> list[Checked]:
    """Return the checks in records, without what is read as arrays: thumbnails, sharpness and roughness."""
    names = ("status", "format", "width", "height", "oddities", "orientation", "detail", "peak")
    kinds, oddities = {kind.value: kind for kind in Status}, functools.cache(Oddity)
    columns = zip(*(records[name].tolist() for name in names), strict=True)
    return [
        Checked(
            kinds[status], name.decode(), width, height, oddities(odd), turn, text.decode(errors="ignore"), peak=peak
        )
        for status, name, width, height, odd, turn, text, peak in columns
    ]


class AuditCache:
    """The records of one file, which is made, or made anew, where it is absent or of another version.

    Parameters
    ----------
    reading : bits that images of 16 bits a channel are taken to use: their thumbnails depend on it.
    """

    def __init__(self, path: Path, reading: Reading = USUAL) -> None:
        self.path, self.reading = path, reading
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as file:
            file.seek(0)
            known = file.read(HEADER_BYTES) == header_of(reading)
        if not known:
            path.write_bytes(header_of(reading))
        os.truncate(path, HEADER_BYTES + self._sound() * RECORD.itemsize)

    def _sound(self) -> int:
        """Return how many records stand before the first one that was not written whole."""
        sound = 0
        with open(self.path, "rb") as file:
            file.seek(HEADER_BYTES)
            while len(record := file.read(RECORD.itemsize)) == RECORD.itemsize:
                if zlib.crc32(record[:-4]) != int.from_bytes(record[-4:], "little"):
                    break
                sound += 1
        return sound

    def append(self, records: Iterable[bytes]) -> None:
        """Add records; they are there even if this process is killed right after it."""
        with open(self.path, "ab") as file:
            file.write(b"".join(records))

    def records(self) -> np.ndarray:
        """Return all records, of type RECORD, from the file itself: only those that are looked at take memory."""
        return _map_records(self.path)


def header_of(reading: Reading) -> bytes:
    """Return what a file of records begins with: they are worth nothing to another version or reading."""
    return f"{READER}, {reading.bit_depth} bits on #{bytes(reading.background).hex()}\n".encode().ljust(HEADER_BYTES)


def _map_records(path: Path) -> np.ndarray:
    if path.stat().st_size == HEADER_BYTES:
        return np.zeros(0, RECORD)
    return np.memmap(path, RECORD, mode="r", offset=HEADER_BYTES)


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
    folder: Path,
    names: Sequence[str],
    known: np.ndarray,
    processes: int,
    patience: int = PATIENCE,
    reading: Reading = USUAL,
) -> Iterator[list[Outcome]]:
    """Yield what came of the files, in any order, a batch at a time.

    Parameters
    ----------
    folder, names : the files, *names* relative to *folder*.
    known : digests that need no check, uint8 of shape (files, 32).
    processes : how many work at a time.
    patience : seconds of a processor that one file may take, about.
    reading : bits that images of 16 bits a channel use.

    Raises
    ------
    UserError : a process could not start, or was killed from outside: what becomes of a file must not depend on that.
    """
    order = ranges.reading_order(folder, names)
    waiting = [order[start : start + BATCH] for start in range(0, len(names), BATCH)][::-1]
    workers: list[_Worker] = []
    try:
        for _ in range(min(processes, len(waiting))):
            workers.append(_Worker(folder, known, patience, reading))
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
                workers[workers.index(worker)] = _Worker(folder, known, patience, reading)
                if len(batch) > 1:
                    waiting += [[index] for index in reversed(batch)]
                    continue
                if worker.exit_status() == -signal.SIGKILL:  # which no decoder sends
                    raise UserError(
                        f"{folder / names[batch[0]]}: the process that decoded it was killed (SIGKILL), most likely for"
                        " want of memory: give it more, or take the file away; the same command goes on from here"
                    )
                yield [Outcome(batch[0], b"", b"", failure)]
    finally:
        for worker in workers:
            worker.stop()


class _Worker(Worker):
    """A process that checks files, and the batches that it has before it, the first one first."""

    def __init__(self, folder: Path, known: np.ndarray, patience: int, reading: Reading) -> None:
        super().__init__(_work, folder, known, patience, reading)
        self.batches: list[list[int]] = []
        self.started = False
        self.patience = patience

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
            if self.exit_status() == -signal.SIGKILL:
                raise PassingError(*was_killed("a process that checks images", memory_ran_out())) from None
            raise UserError(
                f"a process that checks images could not start (exit status {self.exit_status()}):"
                " see the lines above, and try `make doctor`"
            ) from None
        self.started = True

    def take(self) -> tuple[list[int], list[Outcome] | None]:
        """Return the first batch and what came of it; None where the process ended."""
        batch = self.batches.pop(0)
        try:
            results: list[tuple[bytes, bytes, str]] = self.connection.recv()
        except (EOFError, OSError):
            return batch, None
        return batch, [Outcome(index, *result) for index, result in zip(batch, results, strict=True)]

    def describe_end(self) -> str:
        self.connection.close()
        code = self.exit_status()
        if code == -signal.SIGXCPU:
            return f"it takes more than {self.patience} s of a processor to decode"
        with contextlib.suppress(ValueError):
            return f"its decoder crashed ({signal.Signals(-code).name})"
        return f"its decoder crashed (exit status {code})"


def _work(connection: Connection[Any, Any], folder: Path, known: np.ndarray, patience: int, reading: Reading) -> None:
    messages = image_checks.prepare_process()
    digests = np.sort(np.ascontiguousarray(known).view("S32").ravel())
    with contextlib.suppress(EOFError, OSError):  # the parent has ended
        connection.send("started")
        while True:
            results = []
            for name in connection.recv():
                limit_time(patience)
                results.append(_check(f"{folder}/{name}", digests, messages, reading))
            connection.send(results)


def limit_time(seconds: int) -> None:
    """Have the kernel end this process by SIGXCPU once it has computed for *seconds* more, waiting for disks aside."""
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    limit = int(time.process_time()) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit if most == resource.RLIM_INFINITY else min(limit, most), most))


def _check(path: str, known: np.ndarray, messages: Any, reading: Reading) -> tuple[bytes, bytes, str]:
    try:
        content = ranges.read_bytes(Path(path))
    except OSError as error:
        return b"", b"", error.strerror or str(error)
    except UserError as error:  # check_records raises it
        return b"", b"", str(error)
    digest = hashlib.sha256(content).digest()
    index = int(np.searchsorted(known, digest)) if len(known) else 0
    if index < len(known) and known[index] == digest.rstrip(b"\0"):
        return digest, b"", ""
    try:
        checked = image_checks.check_image(content, messages, reading)
    except Exception as error:  # a parser that hostile bytes reached in a new way
        checked = Checked(Status.UNREADABLE, detail=f"{type(error).__name__} while it was decoded")
    return digest, encode(digest, checked), ""


#: Seconds between two lines of progress where stderr is no terminal.
PROGRESS_SECONDS = 10.0


@dataclass(frozen=True)
class Audited:
    """The images, what is known of each, and how many were decoded now: the others' checks were known.

    ``grey`` (images, 1024) and ``colour`` (images, 128) are thumbnails; ``sharpness``, ``roughness``: (images,);
    ``digests``: sha256, "" where unknown.
    """

    checks: list[Checked]
    digests: list[bytes]
    grey: np.ndarray
    colour: np.ndarray
    sharpness: np.ndarray
    roughness: np.ndarray
    decoded: int

    def of(self, indices: Sequence[int]) -> Audited:
        """Return what is known of some of the images."""
        rows = np.array(indices, np.intp)
        checks = [self.checks[index] for index in indices]
        digests = [self.digests[index] for index in indices]
        grey, colour, sharpness, roughness = (
            self.grey[rows],
            self.colour[rows],
            self.sharpness[rows],
            self.roughness[rows],
        )
        return Audited(checks, digests, grey, colour, sharpness, roughness, self.decoded)


def check_all(folder: Path, images: Sequence[Image], cache: AuditCache, processes: int) -> Audited:
    """Check all images; new results are in *cache* as soon as they are there."""
    records, decoded = check_records(folder, [image.path for image in images], cache, processes)
    return _audited(len(images), [(np.arange(len(images)), records)], decoded)


def check_records(folder: Path, names: Sequence[str], cache: AuditCache, processes: int) -> tuple[np.ndarray, int]:
    """Check files, new results into *cache*; return the record of each, and how many were decoded.

    The record of a file that could not be read, or whose decoder crashed, says so and has no digest (zeros).
    """
    digests = np.zeros((len(names), 32), np.uint8)
    failures: dict[int, str] = {}
    decoded = 0
    with _progress(len(names)) as advance:
        for outcomes in check_files(
            folder, names, np.array(cache.records()["sha256"]), processes, reading=cache.reading
        ):
            for outcome in outcomes:
                if outcome.failure:
                    if (image := ranges.find(folder / names[outcome.index])) is not None:
                        image.read()  # a shard that is not what was indexed ends the audit
                    failures[outcome.index] = outcome.failure
                else:
                    digests[outcome.index] = np.frombuffer(outcome.digest, np.uint8)
            new = [outcome.record for outcome in outcomes if outcome.record]
            cache.append(new)
            decoded += len(new)
            advance(len(outcomes))
    return _find_records(cache.records(), digests, failures), decoded


def write_records(path: Path, records: np.ndarray, reading: Reading) -> None:
    """Write the records of one shard's images, in the order of the images."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(header_of(reading))
        records.tofile(file)


def gather(images: Sequence[Image], files: Sequence[Path], reading: Reading) -> Audited:
    """Return what all shards know of the images: the same as :func:`check_all`.

    Parameters
    ----------
    images : of all shards, in order.
    files : of :func:`write_records`, one a shard, in their order.

    Raises
    ------
    UserError : a file is not of these images, of this version or reading.
    """
    shards = shards_of([image.path for image in images], len(files))

    def read() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for number, file in enumerate(files, start=1):
            indices = np.flatnonzero(shards == number)
            with open(file, "rb") as stream:
                is_known = stream.read(HEADER_BYTES) == header_of(reading)
            if not is_known or file.stat().st_size != HEADER_BYTES + len(indices) * RECORD.itemsize:
                raise UserError(f"{file}: not the checks of these images: remove it and run the same command again")
            yield indices, _map_records(file)

    return _audited(len(images), read(), 0)


def _audited(count: int, shards: Iterable[tuple[np.ndarray, np.ndarray]], decoded: int) -> Audited:
    """Return what is known of *count* images, of which each shard has indices and records."""
    unknown = Checked(Status.UNREADABLE)
    arrays = {name: np.zeros(count, RECORD[name]) for name in ("grey", "colour", "sharpness", "roughness")}
    audited = Audited([unknown] * count, [b""] * count, **arrays, decoded=decoded)
    for indices, records in shards:
        for name, array in arrays.items():
            array[indices] = records[name]
        for index, checked, digest in zip(indices.tolist(), decode(records), records["sha256"], strict=True):
            audited.checks[index] = checked
            audited.digests[index] = digest.tobytes() if digest.any() else b""
    return audited


def _find_records(records: np.ndarray, digests: np.ndarray, failures: Mapping[int, str]) -> np.ndarray:
    """Return the record of each image; for those without one, a record of the failure."""
    of_images = np.zeros(len(digests), RECORD)
    keys = np.ascontiguousarray(records["sha256"]).view("S32").ravel()
    order = np.argsort(keys, kind="stable")
    have = np.array([index for index in range(len(digests)) if index not in failures], np.intp)
    if len(have):
        wanted = np.ascontiguousarray(digests[have]).view("S32").ravel()
        of_images[have] = records[order[np.searchsorted(keys, wanted, sorter=order)]]
    for index, reason in failures.items():
        failed = Checked(Status.UNREADABLE, detail=reason[:100])
        of_images[index] = np.frombuffer(encode(b"", failed), RECORD)[0]
    return of_images


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Yield a function that counts images: a bar on a terminal, elsewhere a line every few seconds."""
    with tqdm(total=total, unit=" images", leave=False, dynamic_ncols=True, disable=not can_rewrite()) as bar:
        began = logged = time.monotonic()
        done = 0

        def advance(count: int) -> None:
            nonlocal done, logged
            done += count
            bar.update(count)
            now = time.monotonic()
            if bar.disable and now - logged >= PROGRESS_SECONDS and done < total:
                logged = now
                logger.info(
                    "checked %d of %d images (%d %%), %.0f images/s",
                    done, total, 100 * done // total, done / (now - began),
                )  # fmt: skip

        yield advance
