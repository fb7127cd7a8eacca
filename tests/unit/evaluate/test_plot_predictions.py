"""The figures of predictions.csv: 2 to 200 classes of any name, the edges of what a model can do, and true numbers."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.text
import numpy as np
import pytest
import sklearn.metrics as sk
from matplotlib.figure import Figure
from simulated_predictions import predictions_of, simulate, write_csv

from scripts.evaluate import plot_predictions
from scripts.lib.base.console import run_cli
from scripts.lib.base.problems import UserError
from scripts.lib.metrics.calibration import calibrate
from scripts.lib.metrics.curves import precision_recall_curves, roc_curves
from scripts.lib.metrics.metrics import per_class_table, wilson_interval
from scripts.lib.metrics.selective import selective_prediction
from scripts.lib.pages.figures import classes, confusion_matrix, curves, reliability, selective
from scripts.lib.pages.figures.style import house_style, save_figure
from scripts.lib.runs.predictions import Predictions

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = ["苹果", 'it\'s "quoted", really', "$\\frac{x$", "<script>alert(1)</script>", "_hidden", "01", "梨" * 40]


def bars(data: Predictions) -> Figure:
    return classes.draw(data, "title")


def lines(data: Predictions) -> Figure:
    return curves.draw(data, "title")


def calibrated(data: Predictions) -> Figure:
    return reliability.draw(data, "title")


def scaled(data: Predictions) -> Figure:
    return reliability.draw(data, "title", val=data)


def answered(data: Predictions) -> Figure:
    return selective.draw(data, "title")


FIGURES = [bars, lines, calibrated, scaled, answered]


def drawn(figure: Figure) -> Figure:
    """Lay *figure* out as it will be saved; a warning of matplotlib's or numpy's is a failure."""
    with house_style(), warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.draw_without_rendering()
    return figure


def texts(figure: Figure) -> list[Any]:
    """Return the texts that are drawn; matplotlib keeps labels of ticks beyond the ends of an axis, and hides them."""
    beyond = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        ticks = [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]
        beyond |= {id(label) for tick in ticks for label in (tick.label1, tick.label2)}
    written = [text for text in figure.findobj(matplotlib.text.Text) if id(text) not in beyond]
    return [text for text in written if text.get_text().strip() and text.get_visible()]


def all_text(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in texts(figure))


@pytest.mark.long
@pytest.mark.parametrize("n_classes", [2, 10, 30, 61, 200])
@pytest.mark.parametrize("draw", FIGURES)
def test_2_to_200_classes_fit_into_the_figure(draw: Callable[[Predictions], Figure], n_classes: int) -> None:
    data = simulate(max(300, 5 * n_classes), n_classes)
    data.classes[:] = [f"a class of a long name {number:03d}" for number in range(n_classes)]
    figure = drawn(draw(data))
    for text in texts(figure):
        box = text.get_window_extent()
        assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1, text.get_text()
        assert box.y0 >= -1 and box.y1 <= figure.bbox.y1 + 1, text.get_text()


@pytest.mark.parametrize("n_classes", [2, 30, 60, 200])
def test_names_beside_bars_do_not_overlap(n_classes: int) -> None:
    figure = drawn(bars(simulate(10 * n_classes, n_classes)))
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    spans = sorted((box.y0, box.y1) for box in boxes)
    assert not any(upper > lower + 1 for (_, upper), (lower, _) in pairwise(spans))


def certain(labels: list[int], predicted: list[int], classes: int = 3) -> Predictions:
    return predictions_of(np.eye(classes)[predicted], np.array(labels))


EDGES = {
    "all right": certain([0, 1, 2, 0], [0, 1, 2, 0]),
    "all wrong": certain([0, 1, 2, 0], [1, 2, 0, 1]),
    "one image, right": certain([1], [1]),
    "one image, wrong": certain([1], [0], 2),
    "a class without images": predictions_of(simulate(40, 4).probabilities, simulate(40, 4).labels % 3),
    "images of one class alone": predictions_of(simulate(40, 4).probabilities, np.zeros(40, dtype=np.int64)),
    "nothing but ties": predictions_of(np.full((30, 3), 1 / 3), np.arange(30) % 3),
    "two classes": simulate(30, 2),
    "many images": simulate(30_000, 3),
}


@pytest.mark.long
@pytest.mark.parametrize("extreme", EDGES)
@pytest.mark.parametrize("draw", FIGURES)
def test_the_edges_of_what_a_model_can_do_are_drawn(draw: Callable[[Predictions], Figure], extreme: str) -> None:
    text = all_text(drawn(draw(EDGES[extreme])))
    assert "title" in text and "nan" not in text


def hostile() -> Predictions:
    data = simulate(60, len(HOSTILE))
    return predictions_of(data.probabilities, data.labels, HOSTILE)


@pytest.mark.long
@pytest.mark.parametrize("draw", [classes.draw, curves.draw, reliability.draw, selective.draw])
def test_the_same_numbers_give_the_same_bytes(draw: Callable[..., Figure], tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        save_figure(draw(hostile(), "$\\frac{x$ <b> 苹果"), tmp_path / name)
    svg = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert svg == (tmp_path / "b.svg").read_text(encoding="utf-8")
    assert "<text" not in svg and "font-family" not in svg and "<script" not in svg.lower() and "dc:date" not in svg
    assert not re.search(r'(href|src)="(?!#|data:)', svg), "a figure asks for nothing outside"


@pytest.mark.parametrize("draw", [bars, lines])
def test_every_name_is_there_whatever_it_is(draw: Callable[[Predictions], Figure]) -> None:
    text = all_text(drawn(draw(hostile())))
    for name in HOSTILE[:-1]:
        assert name in text or name[:6] in text
    assert re.search("梨+…梨+", text), "a long one is shortened"


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    options = ["--predictions", tmp_path / "none.csv", "--val-predictions", tmp_path / "val.csv"]
    options += ["--images", tmp_path, "--output", tmp_path / "figures", "--log", tmp_path / "log"]
    with pytest.raises(SystemExit) as exit_status:
        run_cli(plot_predictions.build_parser, plot_predictions.main, list(map(str, options)))
    assert exit_status.value.code == 1
    assert "no such file" in (tmp_path / "log").read_text()
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize("name", ["classes", "confusion_matrix", "curves", "errors", "reliability", "selective"])
def test_every_figure_has_a_caption_that_names_its_run(name: str) -> None:
    caption = (ROOT / "scripts" / "report" / "captions" / "en" / f"{name}.rst").read_text(encoding="utf-8")
    assert "{{ snakemake.wildcards.experiment }}" in caption and "{{ snakemake.wildcards.seed }}" in caption


# --- classes ----------------------------------------------------------------------------------------------------------


def test_bars_intervals_and_diamonds_are_scikit_learns_and_wilsons_numbers() -> None:
    data = simulate(200, 7, strength=1.0)
    axes = drawn(bars(data)).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    order = [data.classes.index(name) for name in names]
    recall = sk.recall_score(data.labels, data.predictions, average=None)[order]
    assert [bar.get_width() for bar in axes.patches] == pytest.approx(list(recall))
    assert list(recall) == sorted(recall), "the lowest first"
    diamonds = next(line for line in axes.lines if line.get_label() == "F1")
    f1 = sk.f1_score(data.labels, data.predictions, average=None)[order]
    assert diamonds.get_xdata() == pytest.approx(f1)
    counts = np.bincount(data.labels)[order]
    for segment, share, n in zip(axes.collections[0].get_segments(), recall, counts, strict=True):
        assert segment[:, 0] == pytest.approx(wilson_interval(round(share * n), int(n)))
    assert [text.get_text() for text in axes.texts] == ["images", *map(str, counts)]
    heights = [label.get_window_extent().y0 for label in axes.get_yticklabels()]
    assert heights == sorted(heights, reverse=True), "the lowest recall is on top"


def test_classes_of_equal_recall_are_ordered_by_f1_and_then_as_they_are() -> None:
    data = certain([0, 1, 2, 3, 3], [0, 1, 2, 3, 2], classes=4)
    ranked = classes.rank_classes(per_class_table(data))
    assert ranked.index.tolist() == [3, 2, 0, 1]


def test_the_floor_is_the_share_of_the_commonest_class() -> None:
    figure = drawn(bars(certain([0] * 7 + [1] * 2 + [2], [0] * 8 + [1, 2])))
    at = {line.get_label(): line.get_xdata()[0] for line in figure.axes[0].lines}
    assert at["overall accuracy 90.0%"] == pytest.approx(0.9)
    assert at["always the commonest class: 70.0%"] == pytest.approx(0.7)


def test_of_many_classes_the_ends_are_drawn_and_the_cut_is_said() -> None:
    data = simulate(2000, 100, strength=1.5)
    ranked = classes.rank_classes(per_class_table(data))["class"].tolist()
    figure = drawn(bars(data))
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ranked[:30] + ranked[-10:]
    text = all_text(figure)
    assert "of 100 classes, the 30 with the lowest recall and the 10 with the highest" in text
    assert "60 classes between, recall" in text


@pytest.mark.long
def test_60_classes_are_all_drawn() -> None:
    figure = drawn(bars(simulate(600, 60)))
    assert len(figure.axes[0].get_yticklabels()) == 60 and "between" not in all_text(figure)


def test_classes_without_images_are_named_and_not_drawn() -> None:
    data = simulate(300, 12)
    data = predictions_of(data.probabilities, data.labels % 5)
    figure = drawn(bars(data))
    assert len(figure.axes[0].get_yticklabels()) == 5
    assert re.search("no test image: class 005, class 006, .*, class 009 and 2 more", all_text(figure))


# --- curves -----------------------------------------------------------------------------------------------------------


def legend(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_of_many_classes_the_averages_the_best_and_the_worst_are_named_with_their_areas() -> None:
    data = simulate(600, 40, strength=1.0)
    figure = drawn(lines(data))
    truth = np.eye(40, dtype=int)[data.labels]
    for axes, score in zip(figure.axes, (sk.average_precision_score, sk.roc_auc_score), strict=False):
        by_class = sorted(zip(score(truth, data.probabilities, average=None), data.classes, strict=True), reverse=True)
        named = legend(axes)
        assert len(named) == 12
        assert named[0] == f"{score(truth, data.probabilities, average='micro'):.3f}  micro average"
        assert named[1] == f"{score(truth, data.probabilities, average='macro'):.3f}  macro average"
        assert named[2] == "{:.3f}  {}".format(*by_class[0]) and named[-1] == "{:.3f}  {}".format(*by_class[-1])
        values = [float(name.split()[0]) for name in named[2:]]
        assert values == sorted(values, reverse=True)
        assert "the 5 best, the 5 worst; grey: the 30 others" in axes.get_legend().get_title().get_text()


@pytest.mark.parametrize("n_classes", [2, 3, 10])
def test_of_few_classes_all_are_named(n_classes: int) -> None:
    axes = drawn(lines(simulate(100, n_classes))).axes[0]
    assert len(legend(axes)) == n_classes + 2
    looks = {(line.get_color(), str(line._unscaled_dash_pattern)) for line in axes.lines}
    assert len(looks) == n_classes + 2, "no two lines look the same"


@pytest.mark.long
@pytest.mark.parametrize("n_classes", [2, 10, 200])
def test_the_names_below_leave_the_curves_about_square(n_classes: int) -> None:
    for axes in drawn(lines(simulate(max(100, 2 * n_classes), n_classes))).axes:
        box = axes.get_window_extent()
        assert 0.9 < box.height / box.width < 1.25


def test_classes_without_a_curve_are_counted() -> None:
    text = all_text(drawn(lines(EDGES["a class without images"])))
    assert "no curve for 1 of 4 classes" in text


def test_top_k_is_written_beside_what_naming_the_commonest_classes_gives() -> None:
    data = certain([0, 0, 0, 1, 2], [0, 0, 1, 1, 0])
    axes = drawn(lines(data)).axes[2]
    shares = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert shares["the model"] == pytest.approx([0.6, 0.8, 1.0])
    assert shares["always the k commonest classes"] == pytest.approx([0.6, 0.8, 1.0])
    assert [text.get_text() for text in axes.texts] == ["60.0%", "80.0%", "100.0%"]


# --- reliability ------------------------------------------------------------------------------------------------------


def test_without_val_only_the_model_as_it_is_is_drawn_and_the_figure_says_so() -> None:
    figure = drawn(calibrated(simulate(100, 3)))
    assert len(figure.axes) == 2
    assert "no predictions of the val images were given" in all_text(figure)


@pytest.mark.long
def test_with_val_both_errors_and_the_temperature_are_written(tmp_path: Path) -> None:
    test, val = simulate(200, 4, seed=1), simulate(200, 4, seed=2)
    calibration = calibrate(test.probabilities, test.labels, val.probabilities, val.labels)
    figure = drawn(reliability.draw(test, val=val))
    assert calibration.after is not None and len(figure.axes) == 4
    text = all_text(figure)
    assert f"ECE {calibration.before.ece:.3f}" in text and f"ECE {calibration.after.ece:.3f}" in text
    assert f"temperature {calibration.temperature:.3g}, fitted on val" in text
    assert "not drawn" not in text


def test_a_val_that_determines_no_temperature_is_said() -> None:
    text = all_text(drawn(scaled(EDGES["all right"])))
    assert "val determines no temperature" in text and "fitted on val" not in text


def test_bars_lines_and_counts_are_those_of_the_bins() -> None:
    data = simulate(150, 5)
    result = calibrate(data.probabilities, data.labels).before
    above, below = drawn(calibrated(data)).axes
    used = result.count > 0
    assert [bar.get_height() for bar in above.patches] == pytest.approx(list(result.accuracy[used]))
    confidence = [segment[0, 1] for segment in above.collections[0].get_segments()]
    assert confidence == pytest.approx(list(result.confidence[used]))
    assert [text.get_text() for text in below.texts] == [str(count) for count in result.count[used]]
    assert sum(int(text.get_text()) for text in below.texts) == 150


def read_both(root: Path, test: Predictions, val: Predictions) -> Predictions:
    """The predictions of val as the command reads them, from files."""
    source = write_csv(root / "test.csv", test)
    return reliability.read_val_predictions(write_csv(root / "val.csv", val), test, source)


@pytest.mark.long
def test_the_temperature_is_fitted_on_val(tmp_path: Path) -> None:
    test, val = simulate(100, 4, seed=1), simulate(100, 4, seed=2)
    val.files[:] = [f"val/{name}" for name in val.files]
    for val_read, width in ((None, 360), (read_both(tmp_path, test, val), 720)):
        save_figure(reliability.draw(test, val=val_read), tmp_path / "x.svg")
        assert float(re.findall(r'width="([\d.]+)pt"', (tmp_path / "x.svg").read_text())[0]) == width


def test_a_temperature_is_never_fitted_on_test_images(tmp_path: Path) -> None:
    test, val = simulate(50, 4, seed=1), simulate(50, 4, seed=2)
    val.files[1:] = [f"val/{name}" for name in val.files[1:]]
    with pytest.raises(UserError, match=r"val\.csv: 1 of its images \(0\.jpg, \.\.\.\) are in .*test\.csv too"):
        read_both(tmp_path, test, val)


def test_val_of_other_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"val\.csv: other classes than .*test\.csv"):
        read_both(tmp_path, simulate(50, 4), simulate(50, 5))


# --- selective --------------------------------------------------------------------------------------------------------


def test_the_curve_is_what_the_sentences_say() -> None:
    data = simulate(400, 6, strength=1.5)
    result = selective_prediction(data.probabilities, data.labels)
    figure = drawn(answered(data))
    line = next(line for line in figure.axes[0].lines if line.get_label() == "accuracy of what is answered")
    assert line.get_xdata() == pytest.approx(result.coverage) and line.get_ydata() == pytest.approx(result.accuracy)
    sentence = r"to be right 90% of the time, answer ([\d.]+)% of the images \((\d+) of 400"
    share, n = re.findall(sentence, all_text(figure))[0]
    assert float(share) == pytest.approx(int(n) / 4, abs=0.0501)
    diamonds = [line for line in figure.axes[0].lines if line.get_marker() == "D"]
    assert int(n) / 400 in [pytest.approx(float(diamond.get_xdata()[0])) for diamond in diamonds]


def test_the_confidence_of_each_tenth_is_written_above() -> None:
    data = simulate(200, 3)
    figure = drawn(answered(data))
    written = [float(label.get_text()) for label in figure.axes[1].get_xticklabels()]
    confidence = np.sort(data.probabilities.max(axis=1))[::-1]
    assert written == pytest.approx([confidence[20 * tenth - 1] for tenth in range(1, 11)], abs=1.1e-3)
    assert figure.axes[1].get_xlim() == figure.axes[0].get_xlim()


# --- very many classes ------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_of_many_classes_the_most_confused_are_in_the_matrix() -> None:
    labels = np.repeat(np.arange(300), 2)
    predicted = labels.copy()
    predicted[[598, 599]] = 7  # both of class 299
    data = certain(labels.tolist(), predicted.tolist(), classes=300)
    counts = np.zeros((300, 300), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    drawn_classes = confusion_matrix.most_confused_classes(counts)
    assert len(drawn_classes) == confusion_matrix.DRAWN_CLASSES
    assert {7, 299} <= set(drawn_classes.tolist()) and sorted(drawn_classes) == drawn_classes.tolist()
    text = all_text(drawn(confusion_matrix.draw(data)))
    assert "the 100 of 300 classes with the most confusions" in text
    assert "598 of 600 images right" in text and "2 ×  class 299 → class 007" in text


@pytest.mark.long
def test_of_many_classes_some_curves_are_drawn_and_said() -> None:
    figure = drawn(lines(simulate(600, 150)))
    assert len(figure.axes[0].lines) == curves.PALE_LINES + 2 * curves.NAMED_EACH + 2
    assert f"grey: {curves.PALE_LINES} of the 140 others" in all_text(figure)


@pytest.mark.long
@pytest.mark.parametrize("classes_", [2, 7, 300])
def test_the_curve_of_all_pairs_is_that_of_scikit_learn(classes_: int) -> None:
    data = simulate(400, classes_)
    data.probabilities[:, 0] = data.probabilities[:, 0].round(1)  # ties
    truth, score = data.labels[:, None] == np.arange(classes_), data.probabilities
    precision, roc = (kind(score, data.labels).micro for kind in (precision_recall_curves, roc_curves))
    assert precision is not None and roc is not None
    assert precision.area == pytest.approx(sk.average_precision_score(truth.ravel(), score.ravel()), abs=1e-12)
    assert roc.area == pytest.approx(sk.roc_auc_score(truth.ravel(), score.ravel()), abs=1e-12)
