"""Count the images of a data set, and decide among how many jobs its data stage is divided: data_shards: auto."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from scripts.lib.base.console import run_cli
from scripts.lib.base.files import write_json
from scripts.lib.base.units import plural
from scripts.lib.data.shards import worthwhile
from scripts.lib.data.splits import find_images

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.data.count_images", description=__doc__)
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="[train|val|test/]<class>/<file>")
    parser.add_argument("--output", type=Path, required=True, metavar="JSON", help="both numbers")
    return parser


def main(args: argparse.Namespace) -> None:
    """Count, and write both numbers."""
    images = len(find_images(args.images))
    shards = worthwhile(images)
    write_json(args.output, {"images": images, "shards": shards})
    logger.info("%s: %s for the audit, and for the pixel cache", plural(images, "image"), plural(shards, "job"))


if __name__ == "__main__":
    run_cli(build_parser, main)
