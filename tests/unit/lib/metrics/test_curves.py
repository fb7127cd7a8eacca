"""Curves: scikit-learn's areas, lines that have these areas, and what is undefined left out."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as sk
from simulated_predictions import simulate

from scripts.lib.metrics import curves
from scripts.lib.metrics.curves import Curve


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=int)[labels]


@pytest.mark.long
@pytest.mark.parametrize(("n", "classes"), [(100, 2), (300, 10), (600, 200)])
def test_areas_are_scikit_learns(n: int, classes: int) -> None:
    data = simulate(n, classes)
    truth, score = one_hot(data.labels, classes), data.probabilities
    precision_recall, roc = curves.precision_recall_curves(score, data.labels), curves.roc_curves(score, data.labels)
    for ours, theirs in ((precision_recall, sk.average_precision_score), (roc, sk.roc_auc_score)):
        areas = [curve.area for curve in ours.of_class if curve is not None]
        assert areas == pytest.approx(list(theirs(truth, score, average=None)), abs=1e-12)
        assert ours.micro is not None and ours.macro is not None
        assert ours.micro.area == pytest.approx(theirs(truth, score, average="micro"), abs=1e-12)
        assert ours.macro.area == pytest.approx(theirs(truth, score, average="macro"), abs=1e-12)


@pytest.mark.parametrize(("n", "classes"), [(80, 2), (400, 12)])
def test_the_drawn_lines_have_the_areas_that_are_named(n: int, classes: int) -> None:
    data = simulate(n, classes, seed=1, strength=1.0)
    precision_recall = curves.precision_recall_curves(data.probabilities, data.labels)
    for curve in (*precision_recall.of_class, precision_recall.micro):
        assert curve is not None and (np.diff(curve.x) >= 0).all()
        assert (np.diff(curve.x) * curve.y[1:]).sum() == pytest.approx(curve.area, abs=1e-12), "a step up to each point"
    roc = curves.roc_curves(data.probabilities, data.labels)
    for curve in (*roc.of_class, roc.micro):
        assert curve is not None
        assert np.trapezoid(curve.y, curve.x) == pytest.approx(curve.area, abs=1e-12)
    for mean in (precision_recall.macro, roc.macro):
        assert mean is not None
        assert np.trapezoid(mean.y, mean.x) == pytest.approx(mean.area, abs=3e-3)


def test_average_precision_worked_by_hand() -> None:
    """Class 1 at ranks 1 and 3 of four: 1/2 * 1/1 + 1/2 * 2/3."""
    score = np.array([0.9, 0.8, 0.7, 0.1])
    result = curves.precision_recall_curves(np.stack([1 - score, score], axis=1), np.array([1, 0, 1, 0]))
    assert result.of_class[1] is not None
    assert result.of_class[1].area == pytest.approx(0.5 + 1 / 3)


def test_the_macro_average_takes_at_each_recall_the_precision_of_the_step_that_reaches_it() -> None:
    """Both classes have precision 1 up to recall 1/2, and 2/3 beyond."""
    score = np.array([0.9, 0.8, 0.7, 0.1])
    macro = curves.precision_recall_curves(np.stack([1 - score, score], axis=1), np.array([1, 0, 1, 0])).macro
    assert macro is not None
    assert macro.y[[1, 500, 501, 1000]] == pytest.approx([1, 1, 2 / 3, 2 / 3])


def test_area_below_the_roc_curve_is_the_share_of_pairs_in_the_right_order() -> None:
    data = simulate(90, 3, seed=2, strength=0.7)
    rounded = data.probabilities.round(1)  # many ties, which count half
    result = curves.roc_curves(rounded, data.labels)
    for label, curve in enumerate(result.of_class):
        inside, outside = rounded[data.labels == label, label], rounded[data.labels != label, label]
        pairs = inside[:, None] - outside[None, :]
        assert curve is not None
        assert curve.area == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean(), abs=1e-12)


def test_a_class_without_images_has_no_curve_and_no_part_in_the_mean() -> None:
    data = simulate(80, 4)
    kept = data.labels != 2
    score, labels = data.probabilities[kept], data.labels[kept]
    truth = one_hot(labels, 4)[:, [0, 1, 3]]
    for ours, theirs in (
        (curves.precision_recall_curves(score, labels), sk.average_precision_score),
        (curves.roc_curves(score, labels), sk.roc_auc_score),
    ):
        assert [curve is None for curve in ours.of_class] == [False, False, True, False]
        assert ours.macro is not None
        assert ours.macro.area == pytest.approx(theirs(truth, score[:, [0, 1, 3]], average="macro"), abs=1e-12)


def test_images_of_one_class_alone_have_no_roc_curve_but_a_micro_average() -> None:
    score, labels = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 0])
    roc = curves.roc_curves(score, labels)
    assert roc.of_class == [None, None] and roc.macro is None
    assert roc.micro is not None and roc.micro.area == pytest.approx(0.75)
    precision_recall = curves.precision_recall_curves(score, labels)
    assert precision_recall.of_class[0] is not None and precision_recall.of_class[0].area == 1


@pytest.mark.parametrize("right", [True, False])
def test_one_image(right: bool) -> None:
    score, labels = np.array([[0.7, 0.2, 0.1]]), np.array([0 if right else 2])
    precision_recall = curves.precision_recall_curves(score, labels)
    assert precision_recall.micro is not None
    assert precision_recall.micro.area == pytest.approx(1 if right else 1 / 3)
    roc = curves.roc_curves(score, labels)
    assert roc.macro is None and roc.micro is not None and roc.micro.area == (1 if right else 0)


def test_all_right_and_certain_has_the_whole_area() -> None:
    labels = np.arange(6) % 3
    for result in (curves.precision_recall_curves, curves.roc_curves):
        for curve in [*(drawn := result(np.eye(3)[labels], labels)).of_class, drawn.micro, drawn.macro]:
            assert curve is not None and curve.area == 1


def test_all_wrong_and_certain_of_two_classes_has_none() -> None:
    labels = np.array([0, 1, 0, 1])
    result = curves.roc_curves(np.eye(2)[1 - labels], labels)
    assert [curve.area for curve in result.of_class if curve] == [0, 0]


def test_ties_throughout_are_chance() -> None:
    labels = np.array([0, 0, 0, 1, 2])
    score = np.full((5, 3), 1 / 3)
    areas = [curve.area for curve in curves.roc_curves(score, labels).of_class if curve]
    assert areas == [0.5, 0.5, 0.5]
    areas = [curve.area for curve in curves.precision_recall_curves(score, labels).of_class if curve]
    assert areas == pytest.approx([0.6, 0.2, 0.2]), "the share of the class"


@pytest.mark.parametrize("classes", [6, 30, 200])
def test_top_k_is_scikit_learns(classes: int) -> None:
    data = simulate(400, classes, strength=1.0)
    hits = curves.top_k_hits(data.probabilities, data.labels)
    assert len(hits) == min(10, classes)
    for k in range(1, min(10, classes - 1) + 1):
        expected = sk.top_k_accuracy_score(data.labels, data.probabilities, k=k, labels=np.arange(classes))
        assert hits[k - 1] / 400 == pytest.approx(expected, abs=1e-12)


def test_top_1_is_the_accuracy_also_where_probabilities_are_equal() -> None:
    score = np.array([[0.4, 0.4, 0.2], [0.4, 0.4, 0.2], [0.2, 0.4, 0.4]])
    labels = np.array([0, 1, 2])
    assert curves.top_k_hits(score, labels).tolist() == [1, 3, 3]
    assert (score.argmax(axis=1) == labels).sum() == 1


def test_top_k_of_two_classes_ends_with_all_images() -> None:
    data = simulate(50, 2, strength=0.5)
    hits = curves.top_k_hits(data.probabilities, data.labels)
    assert hits.tolist() == [(data.predictions == data.labels).sum(), 50]


def areas(*values: float | None) -> list[Curve | None]:
    line = np.array([0.0, 1.0])
    return [None if value is None else Curve(line, line, value) for value in values]


def test_the_extremes_are_named_from_the_outside_in() -> None:
    values = areas(*[number / 20 for number in range(20)], None)
    assert curves.best_and_worst(values) == ([19, 18, 17, 16, 15], [0, 1, 2, 3, 4])


@pytest.mark.parametrize("count", range(1, 12))
def test_no_class_is_both_among_the_best_and_the_worst(count: int) -> None:
    best, worst = curves.best_and_worst(areas(*[0.5] * count))
    assert len({*best, *worst}) == len(best) + len(worst) == min(count, 10)
    assert len(best) - len(worst) in (0, 1)


def test_without_curves_nothing_is_named() -> None:
    assert curves.best_and_worst(areas(None, None)) == ([], [])
