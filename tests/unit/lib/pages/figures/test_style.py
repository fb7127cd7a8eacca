"""Figures: the same bytes each time, text that needs no font, and room for 2 to 200 classes of any name."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from simulated_predictions import predictions_of
from tiny_run import CLASSES, write_train_log

from scripts.evaluate import plot_training_curves
from scripts.lib.base.problems import UserError
from scripts.lib.pages.figures import confusion_matrix, leaderboard, style, training_curves
from scripts.lib.runs.train_log import read_train_log


def confusion(classes: int) -> np.ndarray:
    rng = np.random.default_rng(classes)
    counts = np.diag(rng.integers(20, 40, classes))
    for _ in range(3 * classes):
        counts[rng.integers(classes), rng.integers(classes)] += 1
    return counts


def texts(figure: Any) -> list[Any]:
    import matplotlib.text

    return [text for text in figure.findobj(matplotlib.text.Text) if text.get_text() and text.get_visible()]


def overlap(figure: Any, labels: list[Any]) -> bool:
    boxes = sorted((label.get_window_extent().y0, label.get_window_extent().y1) for label in labels)
    return any(upper > lower + 1 for (_, upper), (lower, _) in pairwise(boxes))


@pytest.mark.long
@pytest.mark.parametrize("classes", [2, 10, 30, 200])
def test_names_of_2_to_200_classes_do_not_overlap_and_stay_inside(classes: int) -> None:
    figure = confusion_matrix.draw_counts(confusion(classes), [f"a class name {n:03d}" for n in range(classes)])
    with style.house_style():
        figure.draw_without_rendering()
    labels = figure.axes[0].get_yticklabels()
    assert len(labels) == min(classes, confusion_matrix.DRAWN_CLASSES) and not overlap(figure, labels)
    assert min(label.get_window_extent().x0 for label in labels) >= 0
    assert min(label.get_window_extent().y0 for label in figure.axes[0].get_xticklabels()) >= 0
    assert max(text.get_window_extent().x1 for text in texts(figure)) <= figure.bbox.x1 + 1
    assert min(label.get_fontsize() for label in labels) >= 4.5


@pytest.mark.long
def test_counts_are_written_where_they_fit_and_listed_where_not() -> None:
    counts = confusion(10)
    written = [text.get_text() for text in confusion_matrix.draw_counts(counts, list("abcdefghij")).axes[0].texts]
    assert sorted(written) == sorted(str(count) for count in counts[counts > 0])
    counts = confusion(60)
    counts[7, 9] = 99
    figure = confusion_matrix.draw_counts(counts, [f"c{n}" for n in range(60)])
    assert not figure.axes[0].texts
    assert any("99 ×  c7 → c9" in text.get_text() for text in texts(figure))


def test_a_class_without_images_makes_no_nan() -> None:
    figure = confusion_matrix.draw_counts(np.array([[0, 0], [1, 3]]), ["a", "b"])
    assert np.isfinite(figure.axes[0].images[0].get_array().filled(np.nan)).all()


def draw_both(folder: Path) -> tuple[bytes, bytes]:
    rng = np.random.default_rng(0)
    predictions = predictions_of(rng.dirichlet(np.full(len(CLASSES), 0.2), 50), np.arange(50) % len(CLASSES), CLASSES)
    title = "$\\frac{x$ <b> 苹果"  # no valid formula
    style.save_figure(confusion_matrix.draw(predictions, title), folder / "figures" / "cm.svg")
    folder.mkdir(exist_ok=True)
    write_train_log(folder / "log.csv", val_loss="1.5")
    options = ["--train-log", str(folder / "log.csv"), "--output", str(folder / "figures" / "tc.svg"), "--title", title]
    plot_training_curves.main(plot_training_curves.build_parser().parse_args(options))
    return (folder / "figures" / "cm.svg").read_bytes(), (folder / "figures" / "tc.svg").read_bytes()


@pytest.mark.long
def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    assert draw_both(tmp_path / "a") == draw_both(tmp_path / "b")


@pytest.mark.long
def test_text_needs_no_font_and_hostile_names_no_parser(tmp_path: Path) -> None:
    for svg in draw_both(tmp_path):
        text = svg.decode("utf-8")
        assert "<text" not in text and "font-family" not in text
        assert "<script" not in text.lower()
        assert "dc:date" not in text
        assert not re.search(r'(href|src)="(?!#|data:)', text), "a figure asks for nothing outside"


@pytest.mark.parametrize("epochs", [1, 2, 100])
def test_curves_of_one_epoch_and_of_many(tmp_path: Path, epochs: int) -> None:
    write_train_log(tmp_path / "log.csv", epochs)
    figure = training_curves.draw(read_train_log(tmp_path / "log.csv"))
    assert f"best: 80.0% after epoch {epochs}" in [text.get_text() for text in texts(figure)]
    ticks = [tick for tick in figure.axes[0].get_xticks() if 0.5 <= tick <= epochs + 0.5]
    assert ticks and all(tick == round(tick) for tick in ticks)


def test_validation_loss_is_drawn_where_it_was_measured(tmp_path: Path) -> None:
    write_train_log(tmp_path / "log.csv")
    assert len(training_curves.draw(read_train_log(tmp_path / "log.csv")).axes[0].lines) == 1
    write_train_log(tmp_path / "log.csv", val_loss="0.7")
    assert len(training_curves.draw(read_train_log(tmp_path / "log.csv")).axes[0].lines) == 2


def test_learning_rate_and_throughput_are_drawn_where_there_was_an_epoch_of_training(tmp_path: Path) -> None:
    write_train_log(tmp_path / "log.csv", 3)
    log = read_train_log(tmp_path / "log.csv")
    figure = training_curves.draw(log)
    by_label = {axes.get_ylabel(): axes.lines[0].get_ydata().tolist() for axes in figure.axes if axes.lines}
    assert by_label["learning rate"] == log["learning_rate"].tolist()
    assert by_label["training, images/s"] == log["images_per_second"].tolist()
    start = log.iloc[[0]].assign(epoch=0, learning_rate=np.nan, images_per_second=np.nan)  # recipe: fast
    style.save_figure(training_curves.draw(pd.concat([start, log])), tmp_path / "x.svg")


def test_a_log_without_validation_is_drawn(tmp_path: Path) -> None:
    write_train_log(tmp_path / "log.csv")
    log = read_train_log(tmp_path / "log.csv").assign(val_accuracy=np.nan)
    style.save_figure(training_curves.draw(log), tmp_path / "x.svg")


@pytest.mark.parametrize("text", ["", "epoch,train_loss\n1,2\n", "epoch\n"])
def test_a_file_that_is_no_log_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(UserError, match=r"log\.csv: .*train the run again"):
        read_train_log(tmp_path / "log.csv")


@pytest.mark.parametrize("experiments", [1, 3, 60])
def test_a_leaderboard_of_1_to_60_experiments_is_drawn(experiments: int) -> None:
    names = [f"experiment-{number}" for number in range(experiments)]
    mean = np.linspace(0.95, 0.8, experiments)
    columns = {
        "accuracy_top1_mean": mean,
        "accuracy_top1_ci95_low": mean - 0.02,
        "accuracy_top1_ci95_high": mean + 0.02,
    }
    board = pd.DataFrame({"experiment": names, **columns})
    runs = pd.DataFrame({"experiment": names * 2, "accuracy_top1": [*(mean - 0.01), *(mean + 0.01)]})
    figure = leaderboard.draw(board, runs, "title")
    with style.house_style():
        figure.draw_without_rendering()
    labels = figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == names and not overlap(figure, labels)
    heights = [label.get_window_extent().y0 for label in labels]
    assert heights == sorted(heights, reverse=True), "the best is on top"
    seeds = figure.axes[0].lines[-1]
    assert len(seeds.get_xdata()) == 2 * experiments


def test_a_leaderboard_of_equal_seeds_is_drawn(tmp_path: Path) -> None:
    columns = ["accuracy_top1_mean", "accuracy_top1_ci95_low", "accuracy_top1_ci95_high"]
    board = pd.DataFrame([{"experiment": "a", **dict.fromkeys(columns, 1.0)}])
    runs = pd.DataFrame({"experiment": ["a", "a"], "accuracy_top1": [1.0, 1.0]})
    style.save_figure(leaderboard.draw(board, runs), tmp_path / "x.svg")
