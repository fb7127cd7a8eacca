"""Write try.html: the page that classifies pictures in the browser, by the model.onnx of one run."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from scripts.lib.base import language
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import write_text
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import megabytes
from scripts.lib.metrics.leaderboard import read_leaderboard
from scripts.lib.pages import try_page
from scripts.lib.runs.run_folder import RunFolder

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.report.write_try_page", description=__doc__)
    path = partial(parser.add_argument, type=Path)
    path(
        "--runs", nargs="+", required=True, metavar="DIR", help="the run; of several, the first of the best experiment"
    )
    path("--train", nargs="+", required=True, metavar="FILE", help="of each run: the annotation file of its training")
    path("--images", required=True, metavar="DIR", help="the folder that these refer to")
    path("--leaderboard", metavar="FILE", help="leaderboard.csv, which says which experiment is best")
    path("--output", required=True, metavar="FILE", help="try.html")
    language.add_option(parser)
    return parser


@language.in_its_language
def main(args: argparse.Namespace) -> None:
    """Write the page; of a model that no page can hold, one that says so."""
    if len(args.runs) != len(args.train):
        raise UserError("--train: give one file for each of --runs")
    run, train = best(args.runs, args.train, args.leaderboard)
    try:
        page = try_page.render(run, args.images, train, args.language)
    except try_page.Unsuited as unsuited:
        logger.warning("%s", unsuited)
        page = try_page.skipped(language.tr(str(unsuited)), run.dataset.name)
    write_text(args.output, page)
    logger.info("%s: %s, with the model of %s", args.output, megabytes(len(page.encode())), run.path)


def best(runs: Sequence[Path], trains: Sequence[Path], leaderboard: Path | None) -> tuple[RunFolder, Path]:
    """Return the first run of the best experiment, as report.html begins with it, and its training images."""
    names = list(read_leaderboard(leaderboard)["experiment"]) if leaderboard else []

    def rank(pair: tuple[Path, Path]) -> int:
        experiment = RunFolder(pair[0]).names["experiment"]
        return names.index(experiment) if experiment in names else len(names)

    run, train = min(zip(runs, trains, strict=True), key=rank)  # of equal ones the first: they come in order of seeds
    return RunFolder(run), train


if __name__ == "__main__":
    run_cli(build_parser, main)
