"""Draw the confusion matrix of a model: which classes it confuses with which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sklearn.metrics
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from scripts.lib.base.language import tr
from scripts.lib.base.text import shorten_all
from scripts.lib.base.units import plural
from scripts.lib.pages.figures.style import NAME_WIDTH, house_style
from scripts.lib.runs.predictions import Predictions

#: More classes than this, and a count in every cell is no longer legible.
ANNOTATED_CLASSES = 40
LISTED_CONFUSIONS = 20
#: More classes than this are not drawn: what a matrix takes grows with their square, and nobody reads it.
DRAWN_CLASSES = 100
SHARE_TICKS = (0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1)


def draw(predictions: Predictions, title: str = "") -> Figure:
    """Draw the confusion matrix of *predictions*."""
    labels = np.arange(len(predictions.classes))
    counts = sklearn.metrics.confusion_matrix(predictions.labels, predictions.predictions, labels=labels)
    return draw_counts(counts, predictions.classes, title)


def draw_counts(counts: np.ndarray, classes: Sequence[str], title: str = "") -> Figure:
    """Draw a confusion matrix: colour is the share of the true class (row), text the number of images.

    Of many classes only those that are confused most are drawn; shares and totals are still of all.

    Parameters
    ----------
    counts : int array of shape (classes, classes), rows are the true classes.
    """
    drawn = most_confused_classes(counts)
    n = len(drawn)
    # Inches a cell, and points of the names beside it: they shrink with the number of classes down to what one can
    # still read when zooming in.
    cell = float(np.interp(n, [2, 10, 30, 100], [1.1, 0.5, 0.34, 0.14]))
    size = float(np.interp(n, [10, 30, 100], [10, 8.5, 6.5]))
    of_drawn = counts[np.ix_(drawn, drawn)]
    shares = of_drawn / np.maximum(counts[drawn].sum(axis=1, keepdims=True), 1)
    all_names = shorten_all(list(classes), NAME_WIDTH)
    names = [all_names[label] for label in drawn]
    annotated = n <= ANNOTATED_CLASSES
    with house_style():
        inches = n * cell
        figure = Figure(figsize=(inches + (2.6 if annotated else 7), inches + 2.2), layout="compressed")
        axes = figure.add_subplot()
        # The square root makes a class visible of which 3 % are misclassified. "nearest" draws cells of many pixels:
        # one pixel a cell ("none") is a smaller file, but viewers blur it when they enlarge it.
        image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
        axes.set_xticks(range(n), names, rotation=90 if n > 4 else 0, fontsize=size)
        axes.set_yticks(range(n), names, fontsize=size)
        axes.tick_params(length=2 if n <= 60 else 1, width=0.5)
        axes.set_xlabel(tr("predicted class"))
        axes.set_ylabel(tr("true class"))
        axes.spines[:].set_visible(False)
        _cell_borders(axes, n)
        bar = figure.colorbar(image, ax=axes, shrink=min(0.9, 2.5 / inches), aspect=15, pad=0.02, ticks=SHARE_TICKS)
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1))
        bar.set_label(tr("share of the true class"))
        bar.outline.set_visible(False)
        if annotated:
            _write_counts(axes, of_drawn, shares, cell, size + 1)
        else:
            _list_confusions(bar.ax, counts, all_names)
        right, total = int(counts.trace()), int(counts.sum())
        result = tr(f"{right} of {plural(total, 'image')} right ({right / max(total, 1):.1%})")
        left_out = tr(f"the {n} of {len(classes):,} classes with the most confusions") if n < len(classes) else ""
        axes.set_title("\n".join(filter(None, [title, result, left_out])), linespacing=1.5)
        return figure


def most_confused_classes(counts: np.ndarray, most: int = DRAWN_CLASSES) -> np.ndarray:
    """Return the labels, ascending, of the at most *most* classes with the most images in wrong rows or columns.

    Parameters
    ----------
    counts : int array of shape (classes, classes).
    """
    errors = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    return np.sort(np.argsort(-errors, kind="stable")[:most])


def _write_counts(axes: Axes, counts: np.ndarray, shares: np.ndarray, cell: float, size: float) -> None:
    """Write the number of images into every cell that has one, in *size* points or what fits *cell* inches."""
    for row, column in zip(*np.nonzero(counts), strict=True):
        text = str(counts[row, column])
        points = min(size, 72 * cell / (0.75 * len(text) + 0.5))
        colour = "white" if shares[row, column] > 0.3 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=points)


def _list_confusions(axes: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
    """List the commonest confusions above *axes*, where cells are too small for numbers."""
    rows, columns = np.nonzero(counts)
    images, wrong = counts[rows, columns], rows != columns
    order = np.argsort(-images[wrong], kind="stable")[:LISTED_CONFUSIONS]
    pairs = zip(images[wrong][order], rows[wrong][order], columns[wrong][order], strict=True)
    lines = [f"{n} ×  {names[row]} → {names[column]}" for n, row, column in pairs]
    text = "\n".join([tr("commonest confusions (true → predicted):"), *lines])
    axes.text(0, 1.15, text, transform=axes.transAxes, va="bottom", fontsize=9, linespacing=1.5)


def _cell_borders(axes: Axes, n: int) -> None:
    if n <= 60:
        axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="#DDDDDD", linewidth=0.5)
        axes.tick_params(which="minor", length=0)
        return
    for line in np.arange(9.5, n - 1, 10):  # every tenth line guides the eye to the names
        axes.axhline(line, color="#BBBBBB", linewidth=0.3)
        axes.axvline(line, color="#BBBBBB", linewidth=0.3)
