"""Draw the accuracy of predictions.csv on its most confident images: what answering only when sure would gain."""

from __future__ import annotations

import argparse

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from scripts.lib.base.console import run_cli
from scripts.lib.metrics.metrics import wilson_interval
from scripts.lib.metrics.selective import TARGETS, Selective, describe, point_at, selective_prediction, written
from scripts.lib.pages.figures.figure_parser import predictions_figure_parser
from scripts.lib.pages.figures.palette import SKY_BLUE
from scripts.lib.pages.figures.style import BLUE, GREY, VERMILLION, house_style, save_figure
from scripts.lib.runs.predictions import read_predictions

#: An interval at each of 100,000 points would take minutes and show no more.
BAND_POINTS = 150
#: Fewer points than this are drawn one by one.
MARKED_POINTS = 60
#: The first few images go up and down wildly; the axis need not show all of it.
STEADY_COVERAGE = 0.05


def selective_figure(selective: Selective, title: str = "") -> Figure:
    """Draw accuracy against the share of images answered, with the confidence above, and say what it means below."""
    coverage, accuracy = selective.coverage, selective.accuracy
    with house_style():
        figure = Figure(figsize=(8, 6), layout="constrained")
        axes = figure.add_subplot()
        low, high, where = _band(selective)
        axes.fill_between(where, low, high, color=SKY_BLUE, alpha=0.35, linewidth=0, label="95 % interval")
        marker = "o" if len(coverage) <= MARKED_POINTS else None
        axes.plot(coverage, accuracy, color=BLUE, marker=marker, markersize=3, label="accuracy of what is answered")
        axes.axhline(accuracy[-1], color=GREY, linestyle="--", linewidth=0.8, label="all images answered")
        _mark_targets(axes, selective)
        bottom = min(accuracy[coverage >= STEADY_COVERAGE].min(), low[where >= STEADY_COVERAGE].min())
        axes.set_ylim(max(-0.01, float(bottom) - 0.02), 1.01)
        axes.set_xlim(0, 1.01)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("share of the images answered, the most confident first")
        figure.supxlabel("\n".join(describe(selective)), fontsize=8, linespacing=1.5)
        axes.set_ylabel("accuracy")
        axes.grid(color="#E5E5E5", linewidth=0.6)
        # Below: somewhere on the axes a curve always runs through it.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, frameon=False, fontsize=8)
        _name_thresholds(axes, selective)
        if title:
            figure.suptitle(title)
        return figure


def _band(selective: Selective) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the ends of the 95 % Wilson interval of the accuracy, and the shares of images at which they are."""
    places = np.unique(np.linspace(0, len(selective.answered) - 1, BAND_POINTS).round().astype(np.int64))
    pairs = [wilson_interval(int(selective.right[place]), int(selective.answered[place])) for place in places]
    low, high = np.array(pairs).T
    return low, high, selective.coverage[places]


def _mark_targets(axes: Axes, selective: Selective) -> None:
    """Mark the last point of each accuracy that people ask for, where less than all images reach it."""
    for target in TARGETS:
        place = point_at(selective, target)
        if place is None or place == len(selective.answered) - 1:
            continue
        x, y = float(selective.coverage[place]), float(selective.accuracy[place])
        axes.plot([x], [y], "D", color=VERMILLION, markersize=6)
        axes.annotate(f"{target:.0%}", (x, y), xytext=(-5, -13), textcoords="offset points", ha="right", fontsize=8)


def _name_thresholds(axes: Axes, selective: Selective) -> None:
    """Write above *axes* from which confidence on each tenth of the images is answered."""
    above = axes.twiny()
    shares = np.linspace(0.1, 1, 10)
    above.set_xlim(axes.get_xlim())
    above.set_xticks(shares, [written(selective.threshold_at(share)) for share in shares.tolist()], fontsize=7)
    above.set_xlabel("confidence from which on so many are answered", fontsize=8)
    above.tick_params(length=2)


def build_parser() -> argparse.ArgumentParser:
    return predictions_figure_parser("plot_selective", __doc__)


def main(args: argparse.Namespace) -> None:
    predictions = read_predictions(args.predictions)
    selective = selective_prediction(predictions.probabilities, predictions.labels)
    save_figure(selective_figure(selective, args.title), args.output)


if __name__ == "__main__":
    run_cli(build_parser, main)
