"""Repeat a run out of a bundle that `make bundle` wrote: unpack it safely, do the run again, compare every hash."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from scripts.lib.base.console import run_cli
from scripts.lib.workflow.bundles import find_images, find_run, unpack
from scripts.lib.workflow.foreign_runs import check_settings
from scripts.lib.workflow.repetition import PROFILE, changed_since, conclude, repeat, scratch_folder

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.repeat", description=__doc__)
    parser.add_argument("--archive", type=Path, required=True, metavar="FILE", help="the bundle, a .tar")
    parser.add_argument(
        "--images",
        type=Path,
        metavar="PATH",
        help="the archive of the images, where it has none; a folder of several, or the folder that was read in place",
    )
    parser.add_argument("--trust", action="store_true", help="accept settings that may load weights or code")
    parser.add_argument(
        "--profile", type=Path, default=PROFILE, metavar="DIR", help="Snakemake profile to run with (profiles/local)"
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Print `identical`, or the first stage that differs and the likely cause (exit status 1)."""
    with scratch_folder(Path("results"), "repeat") as scratch:
        folder = scratch / "bundle"
        run = find_run(args.archive, folder, unpack(args.archive, folder))
        check_settings(run.provenance, args.archive, trust=args.trust)
        images = find_images(run, args.images)
        changed = changed_since(run, without=run.archives)
        if changed:
            conclude(run, changed)
        logger.info("repeating %s in %s", run.name, scratch)
        difference = repeat(run, scratch, images, args.profile)
    conclude(run, difference, scratch)


if __name__ == "__main__":
    run_cli(build_parser, main)
