"""The look of mimflow's figures, and the figures themselves as functions of numbers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from scripts.lib.base.files import atomic_path
from scripts.lib.base.text import shorten_all
from scripts.lib.pages.fonts import use_cjk_font
from scripts.lib.runs.train_log import kept_epoch

# Okabe & Ito (2008), Color Universal Design: told apart with every kind of colour blindness.
BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#777777"
#: More classes than this, and a count in every cell is no longer legible.
ANNOTATED_CLASSES = 40
LISTED_CONFUSIONS = 20
SHARE_TICKS = (0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1)
#: Columns that a name may take beside a figure.
NAME_WIDTH = 22

STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a class may be called $x$
    "svg.fonttype": "path",  # shows on machines without the font
    "svg.hashsalt": "mimflow",  # the same numbers give the same bytes
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "axes.titlesize": 11,
    "axes.unicode_minus": False,
    "font.size": 9,
    "figure.facecolor": "white",
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw everything inside the block in mimflow's style and with its font."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # A character that even Noto lacks shows as a box; that is no news for the terminal.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        use_cjk_font()
        yield


def save_figure(figure: Figure, path: Path) -> None:
    """Write *figure* in the format of the suffix of *path*, atomically; the same figure gives the same bytes."""
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with house_style(), atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, metadata=metadata)


def confusion_matrix_figure(counts: np.ndarray, classes: Sequence[str], title: str = "") -> Figure:
    """Draw a confusion matrix: colour is the share of the true class (row), text the number of images.

    Parameters
    ----------
    counts : int array of shape (classes, classes), rows are the true classes.
    """
    n = len(classes)
    # Inches a cell, and points of the names beside it: they shrink with the number of classes down to what one can
    # still read when zooming in.
    cell = float(np.interp(n, [2, 10, 30, 100, 200], [1.1, 0.5, 0.34, 0.14, 0.085]))
    size = float(np.interp(n, [10, 30, 100, 200], [10, 8.5, 6.5, 4.8]))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = shorten_all(list(classes), NAME_WIDTH)
    annotated = n <= ANNOTATED_CLASSES
    with house_style():
        side = n * cell
        figure = Figure(figsize=(side + (2.6 if annotated else 7), side + 2.2), layout="compressed")
        axes = figure.add_subplot()
        # The square root lets a class of which 3 % go astray be seen. "nearest" draws cells of many pixels: one pixel a
        # cell ("none") is a smaller file, but viewers blur it when they enlarge it.
        image = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), interpolation="nearest")
        axes.set_xticks(range(n), names, rotation=90 if n > 4 else 0, fontsize=size)
        axes.set_yticks(range(n), names, fontsize=size)
        axes.tick_params(length=2 if n <= 60 else 1, width=0.5)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        axes.spines[:].set_visible(False)
        _cell_borders(axes, n)
        bar = figure.colorbar(image, ax=axes, shrink=min(0.9, 2.5 / side), aspect=15, pad=0.02, ticks=SHARE_TICKS)
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1))
        bar.set_label("share of the true class")
        bar.outline.set_visible(False)
        if annotated:
            _write_counts(axes, counts, shares, cell, size + 1)
        else:
            _list_confusions(bar.ax, counts, names)
        right, total = int(counts.trace()), int(counts.sum())
        result = f"{right} of {total} images right ({right / max(total, 1):.1%})"
        axes.set_title(f"{title}\n{result}" if title else result, linespacing=1.5)
        return figure


def _write_counts(axes: Axes, counts: np.ndarray, shares: np.ndarray, cell: float, size: float) -> None:
    """Write the number of images into every cell that has one, in *size* points or what fits *cell* inches."""
    for row, column in zip(*np.nonzero(counts), strict=True):
        text = str(counts[row, column])
        points = min(size, 72 * cell / (0.75 * len(text) + 0.5))
        colour = "white" if shares[row, column] > 0.3 else "black"
        axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=points)


def _list_confusions(axes: Axes, counts: np.ndarray, names: Sequence[str]) -> None:
    """List the commonest confusions above *axes*, where cells are too small for numbers."""
    wrong = counts * ~np.eye(len(counts), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[:LISTED_CONFUSIONS]
    pairs = [(row, column) for row, column in zip(*np.unravel_index(order, counts.shape), strict=True)]
    lines = [f"{wrong[pair]} ×  {names[pair[0]]} → {names[pair[1]]}" for pair in pairs if wrong[pair]]
    text = "\n".join(["commonest confusions (true → predicted):", *lines])
    axes.text(0, 1.15, text, transform=axes.transAxes, va="bottom", fontsize=9, linespacing=1.5)


def _cell_borders(axes: Axes, n: int) -> None:
    if n <= 60:
        axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="#DDDDDD", linewidth=0.5)
        axes.tick_params(which="minor", length=0)
        return
    for place in np.arange(9.5, n - 1, 10):  # every tenth line guides the eye to the names
        axes.axhline(place, color="#BBBBBB", linewidth=0.3)
        axes.axvline(place, color="#BBBBBB", linewidth=0.3)


def training_curves_figure(log: pd.DataFrame, title: str = "") -> Figure:
    """Draw loss, validation accuracy, learning rate and throughput by epoch; *log* is a train_log.csv."""
    with house_style():
        figure = Figure(figsize=(9, 5.8), layout="constrained")
        panels = figure.subplots(2, 2, height_ratios=[3, 2])
        loss_axes, accuracy_axes = panels[0]
        marker = "o" if len(log) <= 40 else None
        loss_axes.plot(log["epoch"], log["train_loss"], color=BLUE, marker=marker, markersize=4, label="train")
        if log["val_loss"].notna().any():
            style = {"color": VERMILLION, "linestyle": "--", "marker": "s" if marker else None, "markersize": 4}
            loss_axes.plot(log["epoch"], log["val_loss"], label="validation", **style)
            loss_axes.legend(frameon=False)
        loss_axes.set_ylabel("training loss" if not log["val_loss"].notna().any() else "loss")
        loss_axes.set_ylim(0, 1.08 * float(np.nanmax(log[["train_loss", "val_loss"]].to_numpy())))

        known = log.dropna(subset=["val_accuracy"])
        accuracy_axes.plot(known["epoch"], known["val_accuracy"], color=VERMILLION, marker=marker, markersize=4)
        best = kept_epoch(log)
        if best is not None:
            accuracy_axes.plot(best["epoch"], best["val_accuracy"], "o", color="black", fillstyle="none", markersize=10)
            accuracy_axes.set_title(f"best: {best['val_accuracy']:.1%} after epoch {best['epoch']:.0f}", fontsize=9)
        accuracy_axes.set_ylabel("validation accuracy")
        accuracy_axes.yaxis.set_major_formatter(PercentFormatter(1))
        for axes, column, words in (
            (panels[1][0], "learning_rate", "learning rate"),
            (panels[1][1], "images_per_second", "training, images/s"),
        ):
            if column in log:
                axes.plot(log["epoch"], log[column], color=GREY, marker=marker, markersize=4)
            axes.set_ylabel(words)
            axes.set_ylim(0, 1.08 * max(axes.get_ylim()[1], 1e-9))
        for axes in panels.flat:
            axes.set_xlabel("epoch" if axes in panels[1] else "")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.set_xlim(log["epoch"].min() - 0.5, log["epoch"].max() + 0.5)
            axes.grid(color="#E5E5E5", linewidth=0.6)
        if title:
            figure.suptitle(title)
        return figure


def leaderboard_figure(leaderboard: pd.DataFrame, runs: pd.DataFrame, title: str = "") -> Figure:
    """Draw the test accuracy of every experiment: its runs as dots, mean and 95 % interval; the best on top.

    Parameters
    ----------
    leaderboard : one row an experiment, as in leaderboard.csv, best first. Its ``accuracy_majority`` is
        drawn as the floor, or named where it is not in view.
    runs : one row a run with ``experiment`` and ``accuracy_top1``.
    """
    n = len(leaderboard)
    place = {name: row for row, name in enumerate(leaderboard["experiment"])}
    with house_style():
        figure = Figure(figsize=(8, 1.3 + 0.32 * max(n, 2)), layout="constrained")
        axes = figure.add_subplot()
        rows = np.arange(n)
        mean = leaderboard["accuracy_top1_mean"].to_numpy()
        low, high = (leaderboard[f"accuracy_top1_ci95_{end}"].to_numpy() for end in ("low", "high"))
        axes.hlines(rows, low, high, color=BLUE, linewidth=2, label="95 % interval")
        axes.plot(mean, rows, "D", color=BLUE, markersize=6, label="mean")
        of_run = runs["experiment"].map(place)
        one = "one fold" if "fold" in runs else "one seed"
        axes.plot(runs["accuracy_top1"], of_run, "o", color="none", markeredgecolor="black", markersize=4, label=one)
        names = shorten_all(leaderboard["experiment"].tolist(), 40)
        if "remark" in leaderboard:
            names = [
                f"{name}\n{remark}" if remark else name
                for name, remark in zip(names, leaderboard["remark"], strict=True)
            ]
        axes.set_yticks(rows, names)
        axes.set_ylim(n - 0.4 if n > 1 else 0.8, -0.6 if n > 1 else -0.8)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        margin = max(0.02, 0.05 * float(np.nanmax(high) - np.nanmin(low)))
        axes.set_xlim(max(0, float(np.nanmin(low)) - margin), min(1.005, float(np.nanmax(high)) + margin))
        axes.set_xlabel("test accuracy (top-1)" + _draw_floor(axes, leaderboard))
        axes.grid(axis="x", color="#E5E5E5", linewidth=0.6)
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside lower center", ncols=4, frameon=False)
        if title:
            axes.set_title(title)
        return figure


def _draw_floor(axes: Axes, leaderboard: pd.DataFrame) -> str:
    """Draw what always answering the most frequent class gives; return a line that says so where it is not in view.

    Experiments of other test images have another floor: then there is none.
    """
    known = leaderboard.get("accuracy_majority", pd.Series(dtype=float)).dropna().round(9)  # means of equal numbers
    if known.nunique() != 1:
        return ""
    floor = float(known.iloc[0])
    text = f"always the most frequent class: {floor:.1%}"
    low, high = axes.get_xlim()
    if not low <= floor <= high:
        return f"\n{text}, {'left' if floor < low else 'right'} of what is shown"
    axes.axvline(floor, color=GREY, linestyle="--", linewidth=1, zorder=0, label=text)
    return ""
