"""Draw the confusion matrix of predictions.csv: which classes the model takes for which."""

from __future__ import annotations

import argparse

import numpy as np
from sklearn.metrics import confusion_matrix

from scripts.lib.base.console import run_cli
from scripts.lib.pages.figures.figure_parser import predictions_figure_parser
from scripts.lib.pages.figures.style import confusion_matrix_figure, save_figure
from scripts.lib.runs.predictions import read_predictions


def build_parser() -> argparse.ArgumentParser:
    return predictions_figure_parser("plot_confusion_matrix", __doc__)


def main(args: argparse.Namespace) -> None:
    predictions = read_predictions(args.predictions)
    places = np.arange(len(predictions.classes))
    counts = confusion_matrix(predictions.labels, predictions.predictions, labels=places)
    save_figure(confusion_matrix_figure(counts, predictions.classes, args.title), args.output)


if __name__ == "__main__":
    run_cli(build_parser, main)
