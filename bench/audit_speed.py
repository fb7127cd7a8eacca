"""Measure the audit beside what its machine can do at all: images/s against mere decoding, memory, a rerun.

``python -m bench.audit_speed --images 10000 100000`` makes JPEGs of 320 pixels (about 20 kB) in a temporary folder,
no two of them alike, and prints a Markdown table. Decoding: as many processes as cores, each file read and decoded in
full to RGB, the processes' start not counted; the audit's and everything else's is.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import multiprocessing
import multiprocessing.pool
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from bench.processes import Ran, command, execute
from bench.table import markdown
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import read_lines
from scripts.lib.base.problems import UserError
from scripts.lib.data.sample.render import render_image

SIZE, BASE_SIZE = 320, 448
CLASSES = 10
BASES = (("apple", 1), ("banana", 1), ("lemon", 2), ("orange", 3), ("pear", 1), ("watermelon", 2))
#: Decoding is steady: measuring it on this many files is enough.
DECODED = 20_000
#: Share of new files in the rerun.
NEW = 0.01

_bases: list[np.ndarray] = []


def prepare() -> None:
    """Set up a process that makes or decodes images."""
    cv2.setNumThreads(1)
    if not _bases:
        _bases.extend(render_image(name, index, size=BASE_SIZE) for name, index in BASES)


def make_image(path: str) -> None:
    """Write one JPEG: a part of a photograph under colours of its own, a pure function of the file's name."""
    key = int.from_bytes(hashlib.blake2b(Path(path).name.encode(), digest_size=16).digest(), "little")
    draw = np.random.Generator(np.random.Philox(key=key))
    base = _bases[draw.integers(len(_bases))]
    top, left = draw.integers(0, BASE_SIZE - SIZE, 2)
    crop = base[top : top + SIZE, left : left + SIZE]
    crop = crop[:, ::-1] if draw.integers(2) else crop
    colours = draw.integers(0, 256, (7, 7, 3), dtype=np.uint8)
    colours = cv2.resize(colours, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    image = cv2.addWeighted(np.ascontiguousarray(crop), 0.55, colours, 0.45, 0)
    image = cv2.add(image, draw.integers(0, 24, image.shape, dtype=np.uint8))
    Path(path).write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes())


def decode_by_pillow(path: str) -> None:
    """Read and decode a file in full."""
    with Image.open(io.BytesIO(Path(path).read_bytes())) as image:
        image.convert("RGB").load()


def decode_by_opencv(path: str) -> None:
    """Read and decode a file in full, as training does."""
    if cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR) is None:
        raise ValueError(path)


def make_images(pool: multiprocessing.pool.Pool, folder: Path, numbers: range) -> list[str]:
    """Write the images of these numbers; return their paths."""
    for label in range(CLASSES):
        (folder / f"class{label}").mkdir(parents=True, exist_ok=True)
    paths = [str(folder / f"class{number % CLASSES}" / f"{number:07d}.jpg") for number in numbers]
    for _ in pool.imap_unordered(make_image, paths, chunksize=64):
        pass
    return paths


def rate(pool: multiprocessing.pool.Pool, decode: Callable[[str], None], paths: Sequence[str]) -> float:
    """Return images/s of mere decoding."""
    pool.map(decode, paths[:64], chunksize=8)  # both processes are there, and have imported what they need
    began = time.monotonic()
    for _ in pool.imap_unordered(decode, paths, chunksize=64):
        pass
    return len(paths) / (time.monotonic() - began)


def audit(folder: Path, processes: int) -> tuple[Ran, int]:
    """Run the audit; return what it took, and how many files it decoded.

    Raises
    ------
    UserError : it found something.
    """
    log = folder / "audit.log"
    log.unlink(missing_ok=True)
    outputs = {"output": folder / "audit.csv", "summary": folder / "audit.json", "cache": folder / "audit.cache"}
    ran = execute(command("scripts.data.audit_images", images=folder / "images", threads=processes, **outputs), log)
    if len(rows := read_lines(folder / "audit.csv")) > 1:
        raise UserError(f"the audit found {len(rows) - 1} things where there is nothing to find: {rows[1]}")
    decoded = re.search(r"(\d+) decoded", log.read_text(encoding="utf-8"))
    return ran, int(decoded[1]) if decoded else -1


def split(folder: Path) -> Ran:
    """Run the split."""
    options = {"output": folder / "splits", "class_list": folder / "classes.txt", "audit": folder / "audit.csv"}
    return execute(command("scripts.data.split_dataset", images=folder / "images", **options), folder / "split.log")


def measure(folder: Path, count: int, processes: int) -> Sequence[str]:
    """Return the row of the table for *count* images.

    Decoding is timed in processes that are ready. So the audit's share of its rate is that without its start-up, which
    is the time of an audit of one image.
    """
    with multiprocessing.get_context("spawn").Pool(processes, prepare) as pool:
        make_images(pool, folder / "start" / "images", range(1))
        paths = make_images(pool, folder / "images", range(count))
        sample = paths[:: max(1, count // DECODED)]
        pillow, opencv = (rate(pool, decode, sample) for decode in (decode_by_pillow, decode_by_opencv))
    size = sum(os.path.getsize(path) for path in sample) / len(sample)
    start, _ = audit(folder / "start", processes)
    cold, decoded = audit(folder, processes)
    if decoded != count:
        raise UserError(f"{decoded} of {count} images were decoded: see {folder}")
    separate = split(folder)
    with multiprocessing.get_context("spawn").Pool(processes, prepare) as pool:
        make_images(pool, folder / "images", range(count, count + max(1, int(NEW * count))))
    again, new = audit(folder, processes)
    audited = (count - 1) / (cold.seconds - start.seconds)
    return (
        f"{count:,}", f"{size / 1000:.1f}", f"{pillow:,.0f}", f"{opencv:,.0f}", f"{audited:,.0f}",
        f"{audited / pillow:.2f}", f"{audited / opencv:.2f}", f"{cold.seconds:.1f}", f"{start.seconds:.1f}",
        f"{cold.peak / 2**20:.0f}", f"{separate.seconds:.1f}", f"{separate.peak / 2**20:.0f}",
        f"{again.seconds:.1f}", f"{new:,}",
    )  # fmt: skip


HEADER = (
    "images", "kB", "Pillow, images/s", "OpenCV, images/s", "audit, images/s", "of Pillow", "of OpenCV", "audit, s",
    "of it start-up", "peak, MiB", "split, s", "peak, MiB", "rerun, s", "decoded",
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.audit_speed", description=__doc__)
    sizes = [10_000, 100_000]
    parser.add_argument("--images", type=int, nargs="+", default=sizes, metavar="N", help="data sets' sizes")
    return parser


def main(args: argparse.Namespace) -> None:
    """Measure each size, and print the table."""
    rows = []
    for count in args.images:
        with tempfile.TemporaryDirectory(prefix="mimflow-audit-") as folder:
            rows.append(measure(Path(folder), count, len(os.sched_getaffinity(0))))
        print(f"{count:,} images measured", file=sys.stderr, flush=True)
    print("\n" + "\n".join(markdown(HEADER, rows)))


if __name__ == "__main__":
    run_cli(build_parser, main)
