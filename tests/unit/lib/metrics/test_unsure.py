"""Thresholds chosen on val: counts worked by hand, and what they keep on new images of models whose truth is known."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from simulated_predictions import predictions_of, simulate

from scripts.lib.metrics import unsure
from scripts.lib.metrics.metrics import wilson_interval
from scripts.lib.runs.certainty import Certainty, Step


def of(confidence: list[float], right: list[int]) -> list[Step]:
    """The thresholds of a model of two classes that says class 0 with *confidence*, rightly where *right* is 1."""
    first = np.array(confidence)
    return unsure.thresholds(np.stack([first, 1 - first], axis=1), 1 - np.array(right))


def test_a_threshold_is_worth_its_accuracy_with_one_more_wrong_image() -> None:
    steps = of([0.9, 0.8, 0.7, 0.6], [1, 1, 1, 0])
    # 3 of 4 and one more: 3/5; without the last: 3/4; the first two: 2/3, which is less for fewer images.
    assert steps == [Step(3 / 5, 0.6, 1.0), Step(3 / 4, 0.7, 0.75)]
    assert of([0.9, 0.8], [0, 0]) == []
    assert of([0.9, 0.9, 0.6], [1, 0, 1]) == [Step(1 / 2, 0.6, 1.0)], "images of one confidence are kept together"


def test_accuracies_rise_and_coverages_fall_and_nothing_between_is_better() -> None:
    val = simulate(300, 5, seed=3)
    steps = unsure.thresholds(val.probabilities, val.labels)
    assert [step.accuracy for step in steps] == sorted({step.accuracy for step in steps})
    assert [step.coverage for step in steps] == sorted((step.coverage for step in steps), reverse=True)
    confidence, right = val.probabilities.max(1), val.predictions == val.labels
    certainty = Certainty(300, steps)
    for accuracy in (0.7, 0.8, 0.9):
        kept = [
            ((confidence >= threshold).sum(), threshold)
            for threshold in confidence
            if right[confidence >= threshold].sum() / ((confidence >= threshold).sum() + 1) >= accuracy
        ]
        step = certainty.at(accuracy)
        assert (step is None) == (not kept)
        assert step is None or step.confidence == max(kept)[1]


@pytest.mark.parametrize("images", [100, 400])
def test_on_new_images_the_accuracy_is_kept_on_average(images: int) -> None:
    new = simulate(20_000, 4, seed=1, strength=1.5)
    confidence, right = new.probabilities.max(1), new.predictions == new.labels
    accuracies, plain = [], []
    for seed in range(150):
        val = simulate(images, 4, seed=100 + seed, strength=1.5)
        step = Certainty(images, unsure.thresholds(val.probabilities, val.labels)).at(0.85)
        if step is not None:
            accuracies.append(right[confidence >= step.confidence].mean())
        order = np.argsort(-val.probabilities.max(1))
        shares = np.cumsum((val.predictions == val.labels)[order]) / np.arange(1, images + 1)
        lowest = val.probabilities.max(1)[order][np.flatnonzero(shares >= 0.85)[-1]]
        plain.append(right[confidence >= lowest].mean())
    assert len(accuracies) > 100
    assert np.mean(plain) < np.mean(accuracies), "one image more, a wrong one, makes a threshold more careful"
    assert 0.845 < np.mean(accuracies) < 0.875


def test_one_image_in_a_hundred_like_those_of_val_is_far() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        threshold = unsure.far_threshold(rng.random(199))
        assert threshold is not None
        shares.append(1 - threshold)  # of numbers between 0 and 1, the share above it
    assert np.mean(shares) == pytest.approx(0.01, abs=0.002)
    assert unsure.far_threshold(np.arange(19.0)) == 18.0 and unsure.far_threshold(np.arange(18.0)) is None
    assert unsure.far_threshold(np.arange(199.0)) == 197.0, "the 198th of 199"


def test_training_images_are_taken_evenly_and_always_the_same() -> None:
    labels = [0] * 500 + [1] * 30 + [2] * 4
    chosen = unsure.known_sample(labels, 100)
    assert chosen == sorted(set(chosen)) == unsure.known_sample(labels, 100)
    assert Counter(labels[i] for i in chosen) == {0: 66, 1: 30, 2: 4}
    assert unsure.known_sample(labels[:50], 100) == list(range(50))
    assert set(unsure.known_sample(labels, 50)) < set(chosen), "fewer images are a part of more"


def test_the_report_counts_what_is_kept_on_other_images() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4], [0.95, 0.05]])
    test = predictions_of(probabilities, np.array([0, 1, 1, 0, 0]))
    certainty = Certainty(40, [Step(0.96, 0.7, 0.6)], 9, 0.5)
    report = unsure.report(certainty, test, np.array([0.1, 0.2, 0.3, 0.9, 0.6]))
    assert (report["confidence"], report["coverage_val"], report["coverage"]) == (0.7, 0.6, 0.8)
    assert (report["confident_images"], report["confident_accuracy"]) == (4, 0.75)
    assert report["confident_ci95"] == list(wilson_interval(3, 4))
    assert report["far_share"] == pytest.approx(0.4)
    assert (report["sure_images"], report["sure_accuracy"], report["sure_share"]) == (3, 2 / 3, 0.6)
    none = unsure.report(certainty, test, None, 0.99)
    assert (none["confidence"], none["coverage"], none["sure_images"]) == (None, 0, 0)
    assert none["confident_accuracy"] is none["sure_ci95"] is none["far_share"] is None
    assert none["best_accuracy_val"] == 0.96
