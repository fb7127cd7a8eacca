"""Render the sample archive: photographs of fruit that no download is needed for, the data of `make demo`."""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import json
import logging
import os
import signal
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from scripts.lib.base.console import run_cli
from scripts.lib.base.files import atomic_path
from scripts.lib.base.problems import PassingError, UserError
from scripts.lib.base.subprocesses import memory_ran_out, was_killed
from scripts.lib.base.units import plural
from scripts.lib.base.workers import Worker
from scripts.lib.data.sample.looks import CLASSES
from scripts.lib.data.sample.scenes import photograph

logger = logging.getLogger(__name__)

ROOT = "fruit_sample"  #: the archive's one top folder
JPEG_QUALITY = 90
MIN_SIZE = 32
#: The earliest time that a zip can hold: the archive must not depend on the clock.
ZIP_TIME = (1980, 1, 1, 0, 0, 0)
#: Pictures a worker makes for one message, and messages under way for each worker: memory stays flat at any number.
CHUNK, AHEAD = 8, 3

Task = tuple[str, int, int, int]  #: class, index, seed, size


def stream(seed: int, class_name: str, index: int, purpose: str, number: int = 0) -> np.random.Generator:
    """Return the random numbers of one purpose in one picture: a pure function of the arguments."""
    what = json.dumps([seed, class_name, index, purpose, number])
    key = int.from_bytes(hashlib.blake2b(what.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


def render_image(class_name: str, index: int, seed: int = 0, size: int = 320) -> np.ndarray:
    """Return one rendered photograph, uint8 RGB of shape (size, size, 3).

    Parameters
    ----------
    class_name : one of :data:`CLASSES`.
    index : number of the picture in its class, from 1; it does not depend on how many others are made.
    seed : not negative; another seed gives other pictures of the same classes.
    size : width and height in pixels, at least :data:`MIN_SIZE`.

    Raises
    ------
    KeyError : for an unknown class.
    """
    draw = CLASSES[class_name]
    return photograph(draw, functools.partial(stream, seed, class_name, index), size)


def encode_jpeg(image: np.ndarray) -> bytes:
    """Return a uint8 RGB image (height, width, 3) as a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def member_name(class_name: str, index: int) -> str:
    """Return the path of a picture in the archive."""
    return f"{ROOT}/{class_name}/{class_name}_{index:04d}.jpg"


def write_archive(
    path: Path, images_per_class: int = 100, size: int = 320, seed: int = 0, processes: int | None = None
) -> None:
    """Write the sample as a zip, atomically: the same bytes for the same arguments, with any number of processes.

    Parameters
    ----------
    path : the zip to write.
    images_per_class : pictures of each class, at least 1.
    size : their width and height in pixels.
    seed : selects the pictures.
    processes : how many render at the same time; None: one for each core this process may use.

    Raises
    ------
    UserError : for impossible numbers.
    """
    if processes is None:
        processes = len(os.sched_getaffinity(0))
    for name, value, least in (
        ("images per class", images_per_class, 1),
        ("size", size, MIN_SIZE),
        ("seed", seed, 0),
        ("processes", processes, 1),
    ):
        if value < least:
            raise UserError(f"{name} is {value}: it must be at least {least}")
    tasks = [(name, i, seed, size) for name in sorted(CLASSES) for i in range(1, images_per_class + 1)]
    logger.info(
        "rendering %s of %d classes with %s",
        *(plural(len(tasks), "image"), len(CLASSES), plural(processes, "process")),
    )
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for (class_name, index, *_), data in zip(tasks, _render_all(tasks, processes), strict=True):
            member = zipfile.ZipInfo(member_name(class_name, index), ZIP_TIME)
            member.external_attr = 0o644 << 16
            archive.writestr(member, data)


def _render_all(tasks: list[Task], processes: int) -> Iterator[bytes]:
    """Yield the JPEG of each task in order; only a few chunks are under way at any time."""
    chunks = [tasks[start : start + CHUNK] for start in range(0, len(tasks), CHUNK)]
    processes = min(processes, len(chunks))
    if processes == 1:
        _start_worker()
        for chunk in chunks:
            yield from _render_chunk(chunk)
        return
    with ExitStack() as ended:
        workers: list[Worker] = []
        for _ in range(processes):
            workers.append(Worker(_work))
            ended.callback(workers[-1].stop)
        for number in range(len(chunks) + AHEAD * processes):
            if number < len(chunks):
                with suppress(OSError):  # it has ended: _take will tell
                    workers[number % processes].connection.send(chunks[number])
            if number >= AHEAD * processes:
                yield from _take(workers[number % processes])


def _take(worker: Worker) -> list[bytes]:
    """Return the pictures of a worker's next chunk.

    Raises
    ------
    UserError : the worker has ended.
    """
    try:
        return list(worker.connection.recv())
    except (EOFError, OSError):
        status = worker.exit_status()
    if status == -signal.SIGKILL:
        raise PassingError(*was_killed("a process that renders images", memory_ran_out()))
    raise UserError(f"a process that renders images ended (exit status {status})", "see the lines above")


def _work(connection: Connection[Any, Any]) -> None:
    _start_worker()
    with suppress(EOFError, OSError):  # the parent has ended
        while True:
            connection.send(_render_chunk(connection.recv()))


def _start_worker() -> None:
    cv2.setNumThreads(1)  # the processes are the parallelism


def _render_chunk(chunk: Iterable[Task]) -> list[bytes]:
    return [encode_jpeg(render_image(*task)) for task in chunk]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images-per-class", type=int, default=100, metavar="N", help="pictures of each class (100)")
    parser.add_argument("--size", type=int, default=320, help="width and height of the pictures in pixels (320)")
    parser.add_argument("--seed", type=int, default=0, help="selects the pictures (0)")
    parser.add_argument("--processes", type=int, default=None, help="how many to use (one for each core)")
    parser.add_argument("--output", type=Path, required=True, metavar="ZIP", help="the archive to write")
    return parser


def main(args: argparse.Namespace) -> None:
    write_archive(args.output, args.images_per_class, args.size, args.seed, args.processes)


if __name__ == "__main__":
    run_cli(build_parser, main)
