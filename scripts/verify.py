"""Verify a finished run: do it again from its provenance and compare splits, config, weights and predictions."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from scripts.lib.base.console import run_cli
from scripts.lib.workflow import quick, repetition
from scripts.lib.workflow.foreign_runs import check_settings
from scripts.lib.workflow.repetition import FinishedRun, conclude

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.verify", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="a finished run, results/.../seed0")
    parser.add_argument("--trust", action="store_true", help="accept settings that may load weights or code")
    parser.add_argument(
        "--profile",
        type=Path,
        default=repetition.PROFILE,
        metavar="DIR",
        help="Snakemake profile to run with (profiles/local)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="train nothing: only compare the hashes; RUN may be a folder of runs"
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Print `identical`, or the first stage that differs and the likely cause (exit status 1)."""
    if args.quick:
        quick.verify(args.run)
        return
    run = FinishedRun.read(args.run)
    changed = repetition.changed_since(run)
    if changed:
        conclude(run, changed)
    check_settings(run.provenance, args.run, trust=args.trust)
    with repetition.scratch_folder(run.dataset.parent, "verify") as scratch:
        logger.info("repeating %s in %s", run.name, scratch)
        difference = repetition.repeat(run, scratch, repetition.find_archives(run), args.profile)
    conclude(run, difference, scratch)


if __name__ == "__main__":
    run_cli(build_parser, main)
