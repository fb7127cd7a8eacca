"""Draw loss and validation accuracy by epoch from train_log.csv."""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.lib.base import language
from scripts.lib.base.console import run_cli
from scripts.lib.pages.figures import training_curves
from scripts.lib.pages.figures.style import save_figure
from scripts.lib.runs.train_log import read_train_log


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.evaluate.plot_training_curves", description=__doc__)
    parser.add_argument("--train-log", type=Path, required=True, metavar="FILE", help="train_log.csv of a run")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="figure, .svg or .png")
    parser.add_argument("--title", default="", metavar="TEXT", help="a line above the figure")
    language.add_option(parser)
    return parser


@language.in_its_language
def main(args: argparse.Namespace) -> None:
    save_figure(training_curves.draw(read_train_log(args.train_log), args.title), args.output)


if __name__ == "__main__":
    run_cli(build_parser, main)
