"""Draw every figure of a run's predictions, and the page of its errors."""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.lib.base import language
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import write_text
from scripts.lib.data.reading import add_background
from scripts.lib.pages import errors_page
from scripts.lib.pages.figures import classes, confusion_matrix, curves, reliability, selective
from scripts.lib.pages.figures.style import save_figure
from scripts.lib.runs.predictions import read_predictions


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.evaluate.plot_predictions", description=__doc__)
    parser.add_argument("--predictions", type=Path, required=True, metavar="FILE", help="predictions.csv of a run")
    parser.add_argument("--val-predictions", type=Path, required=True, metavar="FILE", help="the same of val")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder that their file names mean")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder of the figures")
    parser.add_argument("--title", default="", metavar="TEXT", help="a line above each figure")
    add_background(parser)
    language.add_option(parser)
    return parser


@language.in_its_language
def main(args: argparse.Namespace) -> None:
    """Draw them all."""
    test = read_predictions(args.predictions)
    val = reliability.read_val_predictions(args.val_predictions, test, args.predictions)
    save_figure(confusion_matrix.draw(test, args.title), args.output / "confusion_matrix.svg")
    save_figure(classes.draw(test, args.title), args.output / "classes.svg")
    save_figure(curves.draw(test, args.title), args.output / "curves.svg")
    save_figure(reliability.draw(test, args.title, val), args.output / "reliability.svg")
    save_figure(selective.draw(test, args.title), args.output / "selective.svg")
    write_text(
        args.output / "errors.html", errors_page.render(test, args.images, args.title, background=args.background)
    )


if __name__ == "__main__":
    run_cli(build_parser, main)
