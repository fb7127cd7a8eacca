"""Draw every figure of a run's predictions: the plot_* commands in one process, since imports take longer than they."""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.lib.base.console import run_cli
from scripts.lib.pages.figures import classes, confusion_matrix, curves, errors, reliability, selective


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.evaluate.plot_predictions", description=__doc__)
    parser.add_argument("--predictions", type=Path, required=True, metavar="FILE", help="predictions.csv of a run")
    parser.add_argument("--val-predictions", type=Path, required=True, metavar="FILE", help="the same of val")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder that their file names mean")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the figures")
    parser.add_argument("--title", default="", metavar="TEXT", help="a line above each figure")
    return parser


def main(args: argparse.Namespace) -> None:
    """Draw them all."""
    val, images = ["--val-predictions", str(args.val_predictions)], ["--images", str(args.images)]
    for command, file, more in (
        (confusion_matrix, "confusion_matrix.svg", []),
        (classes, "classes.svg", []),
        (curves, "curves.svg", []),
        (reliability, "reliability.svg", val),
        (selective, "selective.svg", []),
        (errors, "errors.html", images),
    ):
        options = ["--predictions", str(args.predictions), "--output", str(args.output / file), "--title", args.title]
        command.main(command.build_parser().parse_args([*options, *more]))


if __name__ == "__main__":
    run_cli(build_parser, main)
