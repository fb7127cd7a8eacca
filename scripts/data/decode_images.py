"""Decode and shrink the images of one shard, for a pixel cache that several jobs share: pack_images joins them."""

from __future__ import annotations

import argparse
import logging
import time

from scripts.lib.base import products
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import atomic_path
from scripts.lib.base.units import plural
from scripts.lib.data import reading
from scripts.lib.data.pixel_cache_writer import RAW_LIMIT_BYTES, add_options, write_pixel_cache
from scripts.lib.data.shards import Shard
from scripts.lib.data.splits import listed_images

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.data.decode_images", description=__doc__)
    add_options(parser)
    parser.add_argument("--shard", type=Shard.parse, required=True, metavar="KofN", help="which of the N shards")
    return parser


def main(args: argparse.Namespace) -> None:
    """Write the pixel cache of one shard."""
    names = listed_images(args.splits)
    chosen = args.shard.select(names)
    products.check_files(args.images, chosen)
    began = time.monotonic()
    with atomic_path(args.output) as temporary:
        write_pixel_cache(
            args.images, names, args.short_side, temporary, raw_limit=RAW_LIMIT_BYTES, threads=args.threads,
            reading=reading.of_options(args), shard=args.shard,
        )  # fmt: skip
    seconds = time.monotonic() - began
    logger.info(
        "shard %s: %s in %.1f s (%.0f images/s)", args.shard, plural(len(chosen), "image"), seconds,
        len(chosen) / seconds,
    )  # fmt: skip


if __name__ == "__main__":
    run_cli(build_parser, main)
