"""Draw how far probabilities can be believed: accuracy against confidence, before and after temperature scaling."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from scripts.lib.base.language import tr
from scripts.lib.base.problems import UserError
from scripts.lib.metrics.calibration import Reliability, calibrate
from scripts.lib.pages.figures.style import GREY, GRID, SKY_BLUE, VERMILLION, house_style
from scripts.lib.runs.predictions import Predictions, read_predictions

#: From here on a number of images is wider than its bar, and is written upright.
WIDE_COUNT = 10_000
WITHOUT_VAL = "temperature scaling is not drawn:\nno predictions of the val images were given"
UNDETERMINED = (
    "temperature scaling is not drawn: val determines no temperature\n"
    "(no wrong answer there, or logits that say nothing)"
)


def read_val_predictions(path: Path, test: Predictions, test_path: Path) -> Predictions:
    """Read the predictions of the val images.

    Raises
    ------
    UserError : they are of other classes than *test*, or of some of its images.
    """
    val = read_predictions(path)
    if val.classes != test.classes:
        raise UserError(f"{path}: other classes than {test_path} has; make both with one model")
    shared = sorted(set(val.files) & set(test.files))
    if shared:
        raise UserError(
            f"{path}: {len(shared)} of its images ({shared[0]}, ...) are in {test_path} too; the temperature has to be"
            " fitted on other images than those that it is judged on: give the predictions of splits/val.txt"
        )
    return val


def draw(test: Predictions, title: str = "", val: Predictions | None = None) -> Figure:
    """Draw accuracy by confidence with the images of each bin below it, and the same after temperature scaling.

    Parameters
    ----------
    val : of read_val_predictions: on these the temperature is fitted; where they determine none, the figure says so.
    """
    if val is None:
        calibration = calibrate(test.probabilities, test.labels)
    else:
        calibration = calibrate(test.probabilities, test.labels, val.probabilities, val.labels)
    panels = [(tr("as the model is"), calibration.before)]
    if calibration.after is not None:
        panels.append((tr(f"temperature {calibration.temperature:.3g}, fitted on val"), calibration.after))
    with house_style():
        figure = Figure(figsize=(5 * len(panels), 6), layout="constrained")
        grid = figure.subplots(2, len(panels), sharex=True, squeeze=False, height_ratios=[3, 1])
        for (name, values), axes, below in zip(panels, grid[0], grid[1], strict=True):
            _draw_accuracy(axes, values)
            axes.set_title(
                f"{name}\n" + tr(f"ECE {values.ece:.3f}, cross-entropy {values.cross_entropy:.3f}"), fontsize=9
            )
            _draw_counts(below, values)
        for axes in (*grid[0][1:], *grid[1][1:]):
            axes.set_ylabel("")
        if calibration.after is None:
            note = tr(WITHOUT_VAL if val is None else UNDETERMINED)
            grid[0][0].set_title(f"{grid[0][0].get_title()}\n{note}", fontsize=8.5)
        handles, names = grid[0][0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
        if title:
            figure.suptitle(title)
        return figure


def _draw_accuracy(axes: Axes, values: Reliability) -> None:
    """Draw a bar of the accuracy of each bin that has images, its interval, and where the bar should end."""
    used = values.count > 0
    left, right = values.edges[:-1][used], values.edges[1:][used]
    middle = (left + right) / 2
    bars = {"width": right - left, "color": SKY_BLUE, "edgecolor": "white"}
    axes.bar(middle, values.accuracy[used], label=tr("accuracy"), **bars)
    axes.hlines(values.confidence[used], left, right, color=VERMILLION, linewidth=2.5, label=tr("mean confidence"))
    axes.vlines(middle, values.low[used], values.high[used], color="black", linewidth=1, label=tr("95 % interval"))
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=0.8)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_ylabel(tr("accuracy of the images in the bin"))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="y", color=GRID, linewidth=0.6)


def _draw_counts(axes: Axes, values: Reliability) -> None:
    """Draw the number of images of each bin, and write it above."""
    middle = (values.edges[:-1] + values.edges[1:]) / 2
    axes.bar(middle, values.count, width=np.diff(values.edges), color=GREY, edgecolor="white")
    wide = int(values.count.max()) >= WIDE_COUNT
    for i in np.flatnonzero(values.count):
        text, rotation = str(values.count[i]), 90 if wide else 0
        axes.annotate(
            text, (float(middle[i]), float(values.count[i])), xytext=(0, 2), textcoords="offset points",
            ha="center", va="bottom", fontsize=6.5, rotation=rotation,
        )  # fmt: skip
    axes.set_ylim(0, (1.7 if wide else 1.25) * float(values.count.max()))
    axes.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylabel(tr("images"))
    axes.set_xlabel(tr("confidence (probability of the predicted class)"))
