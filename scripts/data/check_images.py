"""Check the images of one shard, each by itself, for an audit that several jobs share: audit_images compares them."""

from __future__ import annotations

import argparse
import logging
import os
import time
from pathlib import Path

from scripts.lib.base import products
from scripts.lib.base.console import run_cli
from scripts.lib.base.units import plural
from scripts.lib.data import reading
from scripts.lib.data.auditing import AuditCache, check_records, write_records
from scripts.lib.data.shards import Shard
from scripts.lib.data.splits import find_images

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.data.check_images", description=__doc__)
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="[train|val|test/]<class>/<file>")
    parser.add_argument("--shard", type=Shard.parse, required=True, metavar="KofN", help="which of the N shards")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="what is known of each image")
    parser.add_argument("--cache", type=Path, required=True, metavar="FILE", help="the same by content; is added to")
    reading.add_options(parser)
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="files at a time (all cores)"
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Check the images of one shard."""
    names = args.shard.select([image.path for image in find_images(args.images)])
    products.check_files(args.images, names)
    began = time.monotonic()
    cache = AuditCache(args.cache, reading.of_options(args))
    records, decoded = check_records(args.images, names, cache, max(1, args.threads))
    write_records(args.output, records, cache.reading)
    seconds = time.monotonic() - began
    logger.info(
        "shard %s: %s in %.1f s (%.0f images/s), %d decoded, %d known", args.shard, plural(len(names), "image"),
        seconds, len(names) / seconds, decoded, len(names) - decoded,
    )  # fmt: skip


if __name__ == "__main__":
    run_cli(build_parser, main)
