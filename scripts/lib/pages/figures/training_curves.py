"""Draw a training: loss, validation accuracy, learning rate and throughput by epoch."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from scripts.lib.base.language import tr
from scripts.lib.pages.figures.style import BLUE, GREY, GRID, VERMILLION, house_style
from scripts.lib.runs.train_log import kept_epoch


def draw(log: pd.DataFrame, title: str = "") -> Figure:
    """Draw loss, validation accuracy, learning rate and throughput by epoch; *log* is a train_log.csv."""
    with house_style():
        figure = Figure(figsize=(9, 5.8), layout="constrained")
        panels = figure.subplots(2, 2, height_ratios=[3, 2])
        loss_axes, accuracy_axes = panels[0]
        marker = "o" if len(log) <= 40 else None
        loss_axes.plot(log["epoch"], log["train_loss"], color=BLUE, marker=marker, markersize=4, label=tr("train"))
        if log["val_loss"].notna().any():
            style = {"color": VERMILLION, "linestyle": "--", "marker": "s" if marker else None, "markersize": 4}
            loss_axes.plot(log["epoch"], log["val_loss"], label=tr("validation"), **style)
            loss_axes.legend(frameon=False)
        loss_axes.set_ylabel(tr("training loss" if not log["val_loss"].notna().any() else "loss"))
        loss_axes.set_ylim(0, 1.08 * float(np.nanmax(log[["train_loss", "val_loss"]].to_numpy())))

        known = log.dropna(subset=["val_accuracy"])
        accuracy_axes.plot(known["epoch"], known["val_accuracy"], color=VERMILLION, marker=marker, markersize=4)
        best = kept_epoch(log)
        if best is not None:
            accuracy_axes.plot(best["epoch"], best["val_accuracy"], "o", color="black", fillstyle="none", markersize=10)
            accuracy_axes.set_title(tr(f"best: {best['val_accuracy']:.1%} after epoch {best['epoch']:.0f}"), fontsize=9)
        accuracy_axes.set_ylabel(tr("validation accuracy"))
        accuracy_axes.yaxis.set_major_formatter(PercentFormatter(1))
        for axes, column, words in (
            (panels[1][0], "learning_rate", "learning rate"),
            (panels[1][1], "images_per_second", "training, images/s"),
        ):
            if column in log:
                axes.plot(log["epoch"], log[column], color=GREY, marker=marker, markersize=4)
            axes.set_ylabel(tr(words))
            axes.set_ylim(0, 1.08 * max(axes.get_ylim()[1], 1e-9))
        for axes in panels.flat:
            axes.set_xlabel(tr("epoch") if axes in panels[1] else "")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.set_xlim(log["epoch"].min() - 0.5, log["epoch"].max() + 0.5)
            axes.grid(color=GRID, linewidth=0.6)
        if title:
            figure.suptitle(title)
        return figure
