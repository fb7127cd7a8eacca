"""Measure the data stage of a large data set in shards: processor time and memory of each step, and how both grow.

``python -m bench.data_stage --images 50000 200000`` makes small JPEGs, with near copies planted among them, runs the
steps of ``data_shards`` on them and prints a Markdown table. Processor seconds, since they depend less on what else
the machine does; the memory is that of all processes of a step, mapped files included.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import multiprocessing
import os
import resource
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from bench.processes import command, execute
from bench.table import machine_line, markdown
from scripts.lib.base.console import run_cli
from scripts.lib.base.problems import UserError
from scripts.lib.data.findings import NEAR_DUPLICATE
from scripts.lib.data.shards import Shard

SIZE, CLASSES = 64, 100
#: Every so many images, one more that is the same picture at this quality of JPEG.
EVERY, QUALITY = 1000, 50
SHORT_SIDE = 48
SPLITS = ("train.txt", "val.txt")


@dataclass(frozen=True)
class Cost:
    """What a step took: processor seconds of all its jobs, bytes of the largest, and how many jobs there were."""

    seconds: float
    peak: int
    jobs: int = 1

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, max(self.peak, other.peak), self.jobs + other.jobs)


def make_image(path: str) -> None:
    """Write one JPEG of colours of its own, a pure function of the file's name; of some a near copy beside it."""
    number = Path(path).stem
    key = int.from_bytes(hashlib.blake2b(number.encode(), digest_size=16).digest(), "little")
    draw = np.random.Generator(np.random.Philox(key=key))
    colours = draw.integers(0, 256, (7, 7, 3), dtype=np.uint8)
    image = cv2.resize(colours, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    names = {path: 90} | ({path.replace(number, f"{number}-again"): QUALITY} if int(number) % EVERY == 0 else {})
    for name, quality in names.items():
        Path(name).write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())


def make_images(folder: Path, count: int) -> None:
    """Write *count* images, and their near copies."""
    for label in range(CLASSES):
        (folder / f"class{label:02d}").mkdir(parents=True)
    paths = (str(folder / f"class{number % CLASSES:02d}" / f"{number:07d}.jpg") for number in range(count))
    with multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        for _ in pool.imap_unordered(make_image, paths, chunksize=256):
            pass


def run(words: Sequence[str], log: Path) -> Cost:
    """Run a command; return what it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = execute(words, log)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, ran.peak)


def measure(folder: Path, count: int, shards: int) -> dict[str, Cost]:
    """Make *count* images and run all steps of the data stage; return what each took.

    Raises
    ------
    UserError : the near copies that were found are not those that were planted.
    """
    images, log = folder / "images", folder / "data_stage.log"
    make_images(images, count)
    each = [Shard(number, shards) for number in range(1, shards + 1)]
    checks, decoded = ([folder / f"{stem}_{shard}" for shard in each] for stem in ("audit", "pixels"))
    threads = len(os.sched_getaffinity(0))
    costs: dict[str, Cost] = {}

    def step(name: str, **options: object) -> None:
        cost = run(command(f"scripts.data.{name}", images=images, **options), log)
        costs[name] = costs[name] + cost if name in costs else cost

    for shard, output in zip(each, checks, strict=True):
        step("check_images", shard=shard, output=output, cache=folder / f"{shard}.cache", threads=threads)
        (folder / f"{shard}.cache").unlink()
    audit, summary = folder / "audit.csv", folder / "audit.json"
    step("audit_images", shards=tuple(checks), output=audit, summary=summary, threads=threads)
    with open(audit, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["finding"] == NEAR_DUPLICATE]
    if len(rows) != 2 * len(range(0, count, EVERY)):
        raise UserError(f"{len(rows)} near copies in place of {2 * len(range(0, count, EVERY))}: see {audit}")
    step("split_dataset", audit=audit, output=folder / "splits", class_list=folder / "classes.txt")
    options = {"splits": tuple(folder / "splits" / name for name in SPLITS), "short_side": SHORT_SIDE}
    for shard, output in zip(each, decoded, strict=True):
        step("decode_images", shard=shard, output=output, threads=threads, **options)
    step("pack_images", shards=tuple(decoded), output=folder / "pixels", **options)
    return costs


def table(by_count: dict[int, dict[str, Cost]]) -> list[str]:
    """Return a row for each step: what it took for each number of images, and how both grow from first to last."""
    first, last = min(by_count), max(by_count)
    header = ["step", "jobs"]
    for count in by_count:
        header += [f"{count:,}: processor s", "largest job, MiB"]
    rows = []
    for name in by_count[first]:
        costs = {count: of_steps[name] for count, of_steps in by_count.items()}
        row = [name, str(costs[first].jobs)]
        for cost in costs.values():
            row += [f"{cost.seconds:.1f}", f"{cost.peak / 2**20:.0f}"]
        if last > first:
            more = last - first
            row += [f"{1e6 * (costs[last].seconds - costs[first].seconds) / more:.0f}"]
            row += [f"{(costs[last].peak - costs[first].peak) / more:.0f}"]
        rows.append(row)
    return markdown([*header, *(["us an image more", "bytes an image more"] if last > first else [])], rows)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.data_stage", description=__doc__)
    sizes = [50_000, 200_000]
    parser.add_argument("--images", type=int, nargs="+", default=sizes, metavar="N", help="data sets' sizes")
    parser.add_argument("--shards", type=int, default=4, metavar="N", help="jobs of the divided steps")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where there is room: 20 kB an image")
    return parser


def main(args: argparse.Namespace) -> None:
    """Measure each size, and print the table."""
    by_count = {}
    for count in sorted(args.images):
        with tempfile.TemporaryDirectory(prefix="mimflow-data-", dir=args.folder) as folder:
            by_count[count] = measure(Path(folder), count, args.shards)
        print(f"{count:,} images measured", file=sys.stderr, flush=True)
    print(machine_line())
    print("\n" + "\n".join(table(by_count)))


if __name__ == "__main__":
    run_cli(build_parser, main)
