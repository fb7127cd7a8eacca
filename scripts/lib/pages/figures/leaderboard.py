"""Draw the leaderboard: the test accuracy of every experiment, with that of its runs."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from scripts.lib.base.language import tr
from scripts.lib.base.text import shorten_all
from scripts.lib.pages.figures.style import BLUE, GREY, GRID, house_style


def draw(leaderboard: pd.DataFrame, runs: pd.DataFrame, title: str = "") -> Figure:
    """Draw the test accuracy of every experiment: its runs as dots, mean and 95 % interval; the best on top.

    Parameters
    ----------
    leaderboard : one row an experiment, as in leaderboard.csv, best first. Its ``accuracy_majority`` is
        drawn as the floor, or named where it is not in view.
    runs : one row a run with ``experiment`` and ``accuracy_top1``.
    """
    n = len(leaderboard)
    row_of = {name: row for row, name in enumerate(leaderboard["experiment"])}
    with house_style():
        figure = Figure(figsize=(8, 1.3 + 0.32 * max(n, 2)), layout="constrained")
        axes = figure.add_subplot()
        rows = np.arange(n)
        mean = leaderboard["accuracy_top1_mean"].to_numpy()
        low, high = (leaderboard[f"accuracy_top1_ci95_{end}"].to_numpy() for end in ("low", "high"))
        axes.hlines(rows, low, high, color=BLUE, linewidth=2, label=tr("95 % interval"))
        axes.plot(mean, rows, "D", color=BLUE, markersize=6, label=tr("mean"))
        rows_of_runs = runs["experiment"].map(row_of)
        run = tr("one fold" if "fold" in runs else "one seed")
        axes.plot(
            runs["accuracy_top1"], rows_of_runs, "o", color="none", markeredgecolor="black", markersize=4, label=run
        )
        names = shorten_all(leaderboard["experiment"].tolist(), 40)
        if "remark" in leaderboard:
            names = [
                f"{name}\n{tr(remark)}" if remark else name
                for name, remark in zip(names, leaderboard["remark"], strict=True)
            ]
        axes.set_yticks(rows, names)
        axes.set_ylim(n - 0.4 if n > 1 else 0.8, -0.6 if n > 1 else -0.8)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        margin = max(0.02, 0.05 * float(np.nanmax(high) - np.nanmin(low)))
        axes.set_xlim(max(0, float(np.nanmin(low)) - margin), min(1.005, float(np.nanmax(high)) + margin))
        axes.set_xlabel(tr("test accuracy (top-1)") + _draw_floor(axes, leaderboard))
        axes.grid(axis="x", color=GRID, linewidth=0.6)
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
    text = tr(f"always the most frequent class: {floor:.1%}")
    low, high = axes.get_xlim()
    if not low <= floor <= high:
        return f"\n{text}" + tr(", left of what is shown" if floor < low else ", right of what is shown")
    axes.axvline(floor, color=GREY, linestyle="--", linewidth=1, zorder=0, label=text)
    return ""
