"""Selective prediction: counts worked by hand, ties that no order of the file decides, sentences that are true."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_predictions import simulate

from scripts.lib.metrics.selective import Selective, describe, point_at, selective_prediction, written


def of(confidence: list[float], right: list[int]) -> Selective:
    """A model of two classes that says class 0 with *confidence*, rightly where *right* is 1."""
    first = np.array(confidence)
    return selective_prediction(np.stack([first, 1 - first], axis=1), 1 - np.array(right))


def test_counts_are_those_worked_by_hand() -> None:
    result = of([0.6, 0.9, 0.8, 0.7], [0, 1, 1, 1])
    assert result.threshold.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert result.answered.tolist() == [1, 2, 3, 4]
    assert result.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert result.accuracy.tolist() == [1, 1, 1, 0.75]
    assert result.area == result.best_area == pytest.approx(3.75 / 4)


def test_images_of_equal_confidence_are_answered_together() -> None:
    result = of([0.9, 0.7, 0.7, 0.7], [1, 0, 1, 1])
    assert result.answered.tolist() == [1, 4]
    assert result.accuracy.tolist() == [1, 0.75]


def test_the_area_is_the_mean_over_all_orders_of_ties_and_the_file_decides_nothing() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.choice([0.6, 0.7, 0.8, 0.9], 40)
    right = (rng.random(40) < confidence).astype(int)
    drawn = []
    for _ in range(4000):
        order = np.lexsort((rng.random(40), -confidence))
        drawn.append((np.cumsum(right[order]) / np.arange(1, 41)).mean())
    result = of(confidence.tolist(), right.tolist())
    assert result.area == pytest.approx(np.mean(drawn), abs=1.5e-3)
    shuffled = rng.permutation(40)
    again = of(confidence[shuffled].tolist(), right[shuffled].tolist())
    assert again.area == result.area and (again.right == result.right).all()


def test_the_last_point_is_the_accuracy_of_all_images() -> None:
    data = simulate(300, 8)
    result = selective_prediction(data.probabilities, data.labels)
    assert result.images == 300 and result.coverage[-1] == 1
    assert result.accuracy[-1] == (data.predictions == data.labels).mean()
    for i in range(0, len(result.answered), 17):  # a second implementation, from the definition
        inside = data.probabilities.max(axis=1) >= result.threshold[i]
        assert result.answered[i] == inside.sum()
        assert result.right[i] == (data.predictions == data.labels)[inside].sum()


def test_a_confidence_that_knows_something_lies_between_chance_and_the_best() -> None:
    data = simulate(500, 5, strength=1.5)
    result = selective_prediction(data.probabilities, data.labels)
    assert result.accuracy[-1] < result.area < result.best_area < 1


def test_a_confidence_that_says_nothing_has_the_accuracy_as_area() -> None:
    result = of([0.7] * 10, [1] * 6 + [0] * 4)
    assert result.area == pytest.approx(0.6)
    assert point_at(result, 0.6) == 0 and point_at(result, 0.61) is None


@pytest.mark.parametrize("right", [1, 0])
def test_all_right_and_all_wrong(right: int) -> None:
    result = of([0.6, 0.7, 0.8], [right] * 3)
    assert result.area == result.best_area == right
    assert point_at(result, 0.99) == (2 if right else None)
    expected = "to be right 99% of the time, answer 100.0% of the images (3 of 3; confidence of at least 0.600)"
    assert (expected in describe(result)) == bool(right)


def test_one_image() -> None:
    result = of([0.75], [1])
    assert result.answered.tolist() == [1] and result.area == 1
    assert result.threshold_at(0.1) == result.threshold_at(1) == 0.75


def test_most_images_are_answered_that_the_accuracy_allows() -> None:
    """The accuracy falls below 90 % after the second image, and is back above it with the eleventh."""
    confidence = np.linspace(0.99, 0.6, 12).tolist()
    result = of(confidence, [1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0])
    assert point_at(result, 0.9) == 10
    assert point_at(result, 0.95) == 0


def test_the_sentence_says_the_share_the_images_and_the_threshold() -> None:
    result = of([0.99, 0.9765, 0.9, 0.8], [1, 1, 1, 0])
    lines = describe(result, [0.99, 0.7])
    assert lines[0] == (
        "to be right 99% of the time, answer 75.0% of the images (3 of 4; confidence of at least 0.900)"
    )
    assert lines[1].startswith("to be right 70% of the time, answer 100.0% of the images (4 of 4;")
    assert "93.8%" in lines[2] and "75.0%" in lines[2]
    assert describe(of([0.9], [0]), [0.9])[0] == "no confidence is high enough to be right 90% of the time"


@pytest.mark.parametrize(
    ("threshold", "text"),
    [(0.87654, "0.876"), (0.99998123, "0.99998"), (1.0, "1.000"), (0.5, "0.500"), (0.9996, "0.9996")],
)
def test_a_written_threshold_is_never_above_the_confidence(threshold: float, text: str) -> None:
    assert written(threshold) == text and float(text) <= threshold


def test_the_threshold_at_a_share_answers_that_share() -> None:
    data = simulate(250, 4)
    result = selective_prediction(data.probabilities, data.labels)
    confidence = np.sort(data.probabilities.max(axis=1))[::-1]
    for tenth in range(1, 11):
        assert result.threshold_at(tenth / 10) == confidence[25 * tenth - 1]
