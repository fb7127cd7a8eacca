"""Draw recall and F1 of each class, the lowest recall first: where the model fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from sklearn.metrics import accuracy_score

from scripts.lib.base.language import tr
from scripts.lib.base.text import shorten_all
from scripts.lib.metrics.metrics import per_class_table
from scripts.lib.pages.figures.style import GREY, GRID, NAME_WIDTH, SKY_BLUE, VERMILLION, house_style
from scripts.lib.runs.predictions import Predictions

#: With more classes than this, only the ends of the list are drawn.
DRAWN_CLASSES = 60
WORST, BEST = 30, 10
#: Classes without test images that are named; the others are counted.
NAMED_CLASSES = 5


def rank_classes(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a per-class table that have images: lowest recall first, of equal ones the lowest F1.

    What is equal in both keeps the order of the classes.
    """
    return table[table["n"] > 0].sort_values(["recall", "f1"], kind="stable")


def draw(predictions: Predictions, title: str = "") -> Figure:
    """Draw recall with its 95 % Wilson interval, F1 and the number of test images of each class."""
    table = per_class_table(predictions)
    accuracy = float(accuracy_score(predictions.labels, predictions.predictions))
    names = pd.Series(shorten_all(table["class"].tolist(), NAME_WIDTH), index=table.index)
    ranked = rank_classes(table)
    cut = len(ranked) > DRAWN_CLASSES
    rows = pd.concat([ranked.head(WORST), ranked.tail(BEST)]) if cut else ranked
    positions = np.arange(len(rows)) + (np.arange(len(rows)) >= WORST if cut else 0)  # the cut takes a row
    last = int(positions[-1])
    with house_style():
        figure = Figure(figsize=(8, 2.1 + 0.23 * (last + 1)), layout="constrained")
        axes = figure.add_subplot()
        _draw_rows(axes, rows, positions)
        axes.set_yticks(positions, names[rows.index].tolist(), fontsize=8)
        axes.set_ylim(last + 0.7, -0.7)
        if cut:
            hidden = ranked.iloc[WORST:-BEST]["recall"]
            text = tr(f"... {len(hidden)} classes between, recall {hidden.min():.1%} to {hidden.max():.1%} ...")
            axes.text(0.02, WORST, text, va="center", fontsize=8)
        floor = float(table["n"].max() / table["n"].sum())
        overall, commonest = tr(f"overall accuracy {accuracy:.1%}"), tr(f"always the commonest class: {floor:.1%}")
        axes.axvline(accuracy, color="black", linestyle="--", linewidth=1, label=overall)
        axes.axvline(floor, color=GREY, linestyle=":", linewidth=1.5, label=commonest)
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
        axes.set_title("\n".join(filter(None, [title, _subtitle(table, names, cut)])), fontsize=10, linespacing=1.4)
        return figure


def _draw_rows(axes: Axes, rows: pd.DataFrame, positions: np.ndarray) -> None:
    """Draw the bars, intervals, F1 and numbers of images of *rows*."""
    axes.barh(positions, rows["recall"], height=0.7, color=SKY_BLUE, label=tr("recall"))
    ends = rows["recall_ci95_low"], rows["recall_ci95_high"]
    axes.hlines(positions, *ends, color="black", linewidth=1, label=tr("95 % interval of the recall"))
    # Not cut off at the frame: an F1 of 1 is a whole diamond.
    style: dict[str, Any] = {"color": VERMILLION, "markersize": 4.5, "clip_on": False}
    axes.plot(rows["f1"], positions, "D", linestyle="none", label="F1", **style)
    beside = axes.get_yaxis_transform()
    axes.text(1.02, -1, tr("images"), transform=beside, va="center", fontsize=8)
    for y, n in zip(positions, rows["n"], strict=True):
        axes.text(1.02, y, str(n), transform=beside, va="center", fontsize=8)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.tick_params(axis="y", length=0)


def _subtitle(table: pd.DataFrame, names: pd.Series, cut: bool) -> str:
    """Say what is drawn, and what is not."""
    count = int((table["n"] > 0).sum())
    lines = [tr("recall and F1 of each class, the lowest recall first")]
    if cut:
        lines = [tr(f"of {count} classes, the {WORST} with the lowest recall and the {BEST} with the highest")]
    without = names[table["n"] == 0].tolist()
    if without:
        more = tr(f" and {len(without) - NAMED_CLASSES} more") if len(without) > NAMED_CLASSES else ""
        lines.append(tr("no test image: ") + ", ".join(without[:NAMED_CLASSES]) + more)
    return "\n".join(lines)
