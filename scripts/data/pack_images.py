"""Decode and shrink the images of some splits once, so that training reads them without decoding: packed/."""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

from scripts.lib.base.console import run_cli
from scripts.lib.base.files import atomic_path
from scripts.lib.base.units import plural
from scripts.lib.data import reading
from scripts.lib.data.pixel_cache import PIXELS
from scripts.lib.data.pixel_cache_writer import RAW_LIMIT_BYTES, add_options, join_pixel_caches, write_pixel_cache
from scripts.lib.data.splits import listed_images

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.data.pack_images", description=__doc__)
    add_options(parser)
    parser.add_argument(
        "--shards", type=Path, nargs="*", default=[], metavar="DIR",
        help="what decode_images made of each shard, in their order: no image is decoded here",
    )  # fmt: skip
    return parser


def main(args: argparse.Namespace) -> None:
    """Write the pixel cache of the splits."""
    names = listed_images(args.splits)
    began = time.monotonic()
    with atomic_path(args.output) as temporary:
        if args.shards:
            kind = join_pixel_caches(args.shards, names, args.short_side, temporary)
        else:
            kind = write_pixel_cache(
                args.images, names, args.short_side, temporary, raw_limit=RAW_LIMIT_BYTES, threads=args.threads,
                reading=reading.of_options(args),
            )  # fmt: skip
        size = (temporary / PIXELS).stat().st_size
    seconds = time.monotonic() - began
    logger.info(
        "%s as %s, %.1f MB, in %.1f s (%.0f images/s)", plural(len(names), "image"), kind, size / 1e6, seconds,
        len(names) / seconds,
    )  # fmt: skip


if __name__ == "__main__":
    run_cli(build_parser, main)
