"""Draw precision-recall and ROC curves of each class, and top-k accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from scripts.lib.base.language import tr
from scripts.lib.base.text import shorten_all
from scripts.lib.base.units import plural
from scripts.lib.metrics.curves import Curve, Curves, best_and_worst, precision_recall_curves, roc_curves, top_k_hits
from scripts.lib.metrics.metrics import wilson_interval
from scripts.lib.pages.figures.style import BLUE, COLD_LINES, GREY, GRID, NAME_WIDTH, WARM_LINES, house_style
from scripts.lib.runs.predictions import Predictions

NAMED_EACH = 5
PALE = "#D0D0D0"
#: Pale lines at most, of classes spread evenly over the areas: more hide each other.
PALE_LINES = 90
#: Where the step of a precision goes: from the recall before it to its own. The averages are drawn as they are.
STEP, LINE = "steps-pre", "default"


def draw(predictions: Predictions, title: str = "") -> Figure:
    """Draw the precision-recall curves, the ROC curves, and the accuracy of the k most probable classes.

    With more than ten classes the others than the five best and the five worst are pale lines without a name.
    """
    probabilities, labels = predictions.probabilities, predictions.labels
    names = shorten_all(predictions.classes, NAME_WIDTH)
    with house_style():
        rows = min(len(names), 2 * NAMED_EACH) + 4  # of a legend: the averages and two remarks as well
        figure = Figure(figsize=(14, 5.2 + 0.175 * rows), layout="constrained")
        precision_axes, roc_axes, top_k_axes = figure.subplots(1, 3)
        _draw_curves(precision_axes, precision_recall_curves(probabilities, labels), names, STEP)
        _name_axes(precision_axes, "recall", "precision", "precision-recall, with average precision (AP)")
        roc_axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=0.8)
        _draw_curves(roc_axes, roc_curves(probabilities, labels), names, LINE)
        _name_axes(roc_axes, "false positive rate", "true positive rate (recall)", "ROC, with the area below it (AUC)")
        _draw_top_k(top_k_axes, top_k_hits(probabilities, labels), labels)
        if title:
            figure.suptitle(title)
        return figure


def _draw_curves(axes: Axes, curves: Curves, names: Sequence[str], drawstyle: str) -> None:
    """Draw the curve of each class and the averages, and write the areas below *axes*."""
    best, worst = best_and_worst(curves.of_class, NAMED_EACH)
    named = {*best, *worst}
    for curve in _spread([curve for i, curve in enumerate(curves.of_class) if curve is not None and i not in named]):
        _draw_curve(axes, curve, None, drawstyle, color=PALE, linewidth=0.5)
    for labels, looks in ((best, COLD_LINES), (worst[::-1], WARM_LINES)):
        for label, (colour, dashes) in zip(labels, looks, strict=False):
            look = {"color": colour, "linestyle": dashes, "linewidth": 1.3}
            _draw_curve(axes, curves.of_class[label], names[label], drawstyle, **look)
    _draw_curve(axes, curves.macro, tr("macro average"), LINE, color="black", linestyle="--", linewidth=1.6)
    _draw_curve(axes, curves.micro, tr("micro average"), drawstyle, color="black", linewidth=1.6)
    # The averages come last, to lie on top of the others, and are named first.
    handles, texts = axes.get_legend_handles_labels()
    averages = sum(curve is not None for curve in (curves.macro, curves.micro))
    order = [*range(len(handles) - 1, len(handles) - 1 - averages, -1), *range(len(handles) - averages)]
    undefined = sum(curve is None for curve in curves.of_class)
    hidden = len(names) - undefined - len(named)
    grey = f"{PALE_LINES} of the {hidden:,} others" if hidden > PALE_LINES else f"the {plural(hidden, 'other')}"
    remarks = [tr(f"the {len(best)} best, the {len(worst)} worst; grey: ") + tr(grey)] if hidden else []
    if undefined:
        remarks.append(tr(f"no curve for {undefined} of {len(names)} classes: without images, or without others"))
    axes.legend(
        [handles[i] for i in order], [texts[i] for i in order], loc="upper left",
        bbox_to_anchor=(0, -0.13), frameon=False, fontsize=8, handlelength=3.5, title="\n".join(remarks) or None,
        title_fontsize=8, alignment="left",
    )  # fmt: skip


def _spread(curves: Sequence[Curve]) -> list[Curve]:
    """Return at most PALE_LINES of *curves*, spread evenly over their areas, in their order."""
    by_area = sorted(range(len(curves)), key=lambda index: curves[index].area)
    chosen = {by_area[i] for i in np.linspace(0, len(curves) - 1, min(len(curves), PALE_LINES)).round().astype(int)}
    return [curves[index] for index in sorted(chosen)]


def _draw_curve(axes: Axes, curve: Curve | None, name: str | None, drawstyle: str, **look: Any) -> None:
    if curve is None:
        return
    # matplotlib leaves out of a legend what begins with an underscore, and a class may be called so.
    label = None if name is None else f"{curve.area:.3f}  {name}"
    axes.plot(curve.x, curve.y, label=label, drawstyle=drawstyle, **look)


def _name_axes(axes: Axes, x: str, y: str, title: str) -> None:
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.02)
    axes.set_xlabel(tr(x))
    axes.set_ylabel(tr(y))
    axes.set_title(tr(title))
    axes.grid(color=GRID, linewidth=0.6)


def _draw_top_k(axes: Axes, hits: np.ndarray, labels: np.ndarray) -> None:
    """Draw the share of images whose class is among the first k, and that of naming the k commonest classes."""
    n = len(labels)
    k = np.arange(1, len(hits) + 1)
    commonest = np.cumsum(np.sort(np.bincount(labels, minlength=len(hits)))[::-1])[: len(hits)]
    low, high = np.array([wilson_interval(int(count), n) for count in hits]).T
    axes.vlines(k, low, high, color=BLUE, linewidth=1, label=tr("95 % interval"))
    axes.plot(k, hits / n, "o-", color=BLUE, markersize=4, label=tr("the model"))
    axes.plot(k, commonest / n, "s:", color=GREY, markersize=3, label=tr("always the k commonest classes"))
    for x, share, end in zip(k, hits / n, low, strict=True):
        axes.annotate(
            f"{share:.1%}", (float(x), float(end)), xytext=(0, -3), textcoords="offset points", ha="center",
            va="top", fontsize=7,
        )  # fmt: skip
    axes.set_xlim(0.5, len(hits) + 0.5)
    axes.set_ylim(-0.01, 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel(tr("k: classes that the model may name"))
    axes.set_ylabel(tr("images whose class is among them"))
    axes.set_title(tr("top-k accuracy"))
    axes.grid(color=GRID, linewidth=0.6)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.13), frameon=False, fontsize=8)
