"""The check of the search for label suspects: what it plants, what it counts, and when it says nothing."""

from __future__ import annotations

import numpy as np
import torch

from scripts.lib.model.label_check import SHARE, LabelCheck, check_labels, plant, plant_all
from scripts.lib.model.label_probe import FOLDS, Units, out_of_fold


def test_planted_labels_are_other_classes_that_are_there_the_likely_ones_more_often() -> None:
    count = 3000
    labels = np.arange(count) % 3  # nothing is of class 3
    probabilities = np.full((count, 4), 0.05)
    probabilities[np.arange(count), labels] = 0.6
    probabilities[np.arange(count), (labels + 1) % 3] = 0.3
    rows = np.arange(0, count, 2)
    planted = plant(labels, probabilities, rows, np.random.default_rng(0))
    assert (planted[1::2] == labels[1::2]).all() and (planted[rows] != labels[rows]).all() and planted.max() == 2
    assert abs((planted[rows] == (labels[rows] + 1) % 3).mean() - 0.3 / 0.35) < 0.04
    certain = np.eye(4)[labels]
    assert (plant(labels, certain, rows, np.random.default_rng(0))[rows] != labels[rows]).all()


def check(count: int, distance: float, copies: int = 0) -> tuple[int, float]:
    """Return what was planted and seen among images of three classes at a distance from each other."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(count) % 3, copies + 1)
    features = np.eye(3, 12)[labels] * distance + random.normal(size=(len(labels), 12))
    units = Units(np.repeat(np.arange(count), copies + 1), np.repeat(np.arange(count) % FOLDS, copies + 1))
    directions = torch.from_numpy(features)
    probabilities, penalty = out_of_fold(directions, torch.from_numpy(labels), torch.from_numpy(units.fold), 3)

    def result() -> LabelCheck | None:
        return check_labels(directions, units, plant_all(labels, units, probabilities), 3, penalty)

    first = result()
    assert first == result(), "the same again"
    return (first.planted, first.hits) if first else (0, 0.0)


def test_nearly_all_are_seen_where_the_classes_are_far_apart_and_few_where_they_are_not() -> None:
    planted, hits = check(300, 8)
    assert planted == round(SHARE * 300) and hits >= 0.8 * planted
    planted, hits = check(300, 0.2)
    assert hits < 0.35 * planted


def test_copies_are_planted_once_and_of_few_images_nothing_is_said() -> None:
    assert check(200, 8, copies=4)[0] == round(SHARE * 200)
    assert check(80, 8) == (0, 0.0)
