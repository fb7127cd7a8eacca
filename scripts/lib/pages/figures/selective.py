"""Draw the accuracy on the most confident images: what answering only above a confidence would gain."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from scripts.lib.base.language import tr
from scripts.lib.metrics.metrics import wilson_interval
from scripts.lib.metrics.selective import TARGETS, Selective, describe, point_at, selective_prediction, written
from scripts.lib.pages.figures.style import BLUE, GREY, GRID, SKY_BLUE, VERMILLION, house_style
from scripts.lib.runs.predictions import Predictions

#: An interval at each of 100,000 points would take minutes and show no more.
BAND_POINTS = 150
#: Fewer points than this are drawn one by one.
MARKED_POINTS = 60
#: The first few images go up and down wildly; the axis need not show all of it.
STEADY_COVERAGE = 0.05


def draw(predictions: Predictions, title: str = "") -> Figure:
    """Draw accuracy against the share of images answered, with the confidence above, and say what it means below."""
    selective = selective_prediction(predictions.probabilities, predictions.labels)
    coverage, accuracy = selective.coverage, selective.accuracy
    with house_style():
        figure = Figure(figsize=(8, 6), layout="constrained")
        axes = figure.add_subplot()
        low, high, where = _band(selective)
        axes.fill_between(where, low, high, color=SKY_BLUE, alpha=0.35, linewidth=0, label=tr("95 % interval"))
        marker = "o" if len(coverage) <= MARKED_POINTS else None
        axes.plot(coverage, accuracy, color=BLUE, marker=marker, markersize=3, label=tr("accuracy of what is answered"))
        axes.axhline(accuracy[-1], color=GREY, linestyle="--", linewidth=0.8, label=tr("all images answered"))
        _mark_targets(axes, selective)
        bottom = min(accuracy[coverage >= STEADY_COVERAGE].min(), low[where >= STEADY_COVERAGE].min())
        axes.set_ylim(max(-0.01, float(bottom) - 0.02), 1.01)
        axes.set_xlim(0, 1.01)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel(tr("share of the images answered, the most confident first"))
        figure.supxlabel("\n".join(map(tr, describe(selective))), fontsize=8, linespacing=1.5)
        axes.set_ylabel(tr("accuracy"))
        axes.grid(color=GRID, linewidth=0.6)
        # Below: somewhere on the axes a curve always runs through it.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, frameon=False, fontsize=8)
        _name_thresholds(axes, selective)
        if title:
            figure.suptitle(title)
        return figure


def _band(selective: Selective) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the ends of the 95 % Wilson interval of the accuracy, and the shares of images at which they are."""
    points = np.unique(np.linspace(0, len(selective.answered) - 1, BAND_POINTS).round().astype(np.int64))
    pairs = [wilson_interval(int(selective.right[i]), int(selective.answered[i])) for i in points]
    low, high = np.array(pairs).T
    return low, high, selective.coverage[points]


def _mark_targets(axes: Axes, selective: Selective) -> None:
    """Mark the last point of each accuracy that people ask for, where less than all images reach it."""
    for target in TARGETS:
        point = point_at(selective, target)
        if point is None or point == len(selective.answered) - 1:
            continue
        x, y = float(selective.coverage[point]), float(selective.accuracy[point])
        axes.plot([x], [y], "D", color=VERMILLION, markersize=6)
        axes.annotate(f"{target:.0%}", (x, y), xytext=(-5, -13), textcoords="offset points", ha="right", fontsize=8)


def _name_thresholds(axes: Axes, selective: Selective) -> None:
    """Write above *axes* from which confidence on each tenth of the images is answered."""
    above = axes.twiny()
    shares = np.linspace(0.1, 1, 10)
    above.set_xlim(axes.get_xlim())
    above.set_xticks(shares, [written(selective.threshold_at(share)) for share in shares.tolist()], fontsize=7)
    above.set_xlabel(tr("confidence from which on so many are answered"), fontsize=8)
    above.tick_params(length=2)
