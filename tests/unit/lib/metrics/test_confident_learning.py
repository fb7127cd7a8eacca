"""Confident learning: against a second implementation of the paper's definitions, and pairs of classes."""

from __future__ import annotations

import numpy as np
import pytest

from bench.label_checks import by_definition
from scripts.lib.metrics.confident_learning import AS_ONE, FEWEST, are_one, judge, mixed_pairs, told_apart


@pytest.mark.parametrize(("images", "classes"), [(400, 2), (300, 7), (60, 30)])
def test_it_is_what_a_second_implementation_finds(images: int, classes: int) -> None:
    random = np.random.default_rng(images)
    probabilities = random.dirichlet(np.full(classes, 0.4), images)
    labels = np.where(random.random(images) < 0.7, probabilities.argmax(1), random.integers(0, classes, images))
    judgement = judge(probabilities, labels)
    suggested, margins = by_definition(probabilities, labels)
    assert judgement.suggested.tolist() == suggested
    np.testing.assert_allclose(judgement.margin, margins, atol=1e-15)
    expected = [i for i, other in enumerate(suggested) if other not in (-1, labels[i])]
    assert np.flatnonzero(judgement.is_off_diagonal(labels)).tolist() == expected and expected


def test_a_class_without_images_is_suggested_to_nobody() -> None:
    judgement = judge(np.array([[0.1, 0.9], [0.9, 0.1]]), np.array([0, 0]))
    assert set(judgement.suggested.tolist()) <= {0, -1}


def test_pairs_are_ordered_by_their_share_of_both_classes() -> None:
    labels = np.repeat([0, 1, 2], [10, 10, 40])
    rows = np.array([0, 1, 10, 11, 20, 21, 22, 23, 2])
    suggested = np.array([1, 1, 0, 0, 1, 1, 1, 1, 2])
    first, second = mixed_pairs(labels, rows, suggested)
    assert (first.first, first.second, first.there, first.back, first.share) == (0, 1, 2, 2, 0.2)
    assert (second.first, second.second, second.there, second.back, second.share) == (1, 2, 0, 4, 0.08)
    assert mixed_pairs(labels, rows[:0], suggested[:0]) == []


def test_classes_that_nothing_tells_apart_are_one() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 60)
    probabilities = random.dirichlet([1, 1, 1], len(labels))
    probabilities[labels == 2, 2] += 2
    probabilities /= probabilities.sum(1, keepdims=True)
    assert are_one(labels, probabilities, 0, 1) and not are_one(labels, probabilities, 0, 2)
    first = labels == 0
    ratios = np.log(probabilities[:, 0] / probabilities[:, 1])
    pairs = ratios[first][:, None] - ratios[labels == 1][None]
    assert told_apart(labels, probabilities, 0, 1) == pytest.approx((pairs > 0).mean())
    few = np.flatnonzero(~first | (np.cumsum(first) < FEWEST))
    assert told_apart(labels[few], probabilities[few], 0, 1) < AS_ONE + 0.1
    assert not are_one(labels[few], probabilities[few], 0, 1), "of so few it cannot be known"
    assert told_apart(np.array([0, 1]), np.array([[1.0, 0.0], [0.0, 1.0]]), 0, 1) == 1
