"""Draw the confusion matrix of predictions.csv: which classes the model takes for which."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix

from scripts.console import run_cli
from scripts.evaluate.predictions import read_predictions
from scripts.report.figures import confusion_matrix_figure, save_figure


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.report.plot_confusion_matrix", description=__doc__)
    parser.add_argument("--predictions", type=Path, required=True, metavar="FILE", help="predictions.csv of a run")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="figure, .svg or .png")
    parser.add_argument("--title", default="", metavar="TEXT", help="a line above the figure")
    return parser


def main(args: argparse.Namespace) -> None:
    predictions = read_predictions(args.predictions)
    places = np.arange(len(predictions.classes))
    counts = confusion_matrix(predictions.labels, predictions.predictions, labels=places)
    save_figure(confusion_matrix_figure(counts, predictions.classes, args.title), args.output)


if __name__ == "__main__":
    run_cli(build_parser, main)
