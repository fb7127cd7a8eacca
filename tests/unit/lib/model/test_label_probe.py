"""The probe that doubts labels: folds that divide no copies, planted wrong labels, neighbours."""

from __future__ import annotations

import numpy as np
import torch

from scripts.lib.metrics.confident_learning import judge
from scripts.lib.model.label_probe import FOLDS, Units, judged_classes, nearest_of_class, out_of_fold


def clouds(per_class: int = 60, classes: int = 4, dims: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Return features of classes that lie around a point each, and their labels."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), per_class)
    return random.normal(size=(classes, dims))[labels] * 2 + random.normal(size=(len(labels), dims)), labels


def test_copies_and_groups_are_in_one_fold_and_all_folds_are_as_large() -> None:
    labels = {f"{label}/{number}.jpg": label for label in "ab" for number in range(50)}
    sets = [("", ["a/1.jpg", "a/2.jpg", "b/3.jpg"]), ("patient", ["b/3.jpg", "b/4.jpg"])]
    units = Units.of(labels, sets)
    fold, number = (dict(zip(labels, values.tolist(), strict=True)) for values in (units.fold, units.number))
    together = ("a/1.jpg", "a/2.jpg", "b/3.jpg", "b/4.jpg")
    assert len({fold[path] for path in together}) == len({number[path] for path in together}) == 1
    assert len(set(number.values())) == 97
    assert np.bincount(units.fold, minlength=FOLDS).min() >= 16
    other_order = dict(sorted(labels.items(), reverse=True))
    assert dict(zip(other_order, Units.of(other_order, sets).fold.tolist(), strict=True)) == fold


def test_planted_wrong_labels_come_first() -> None:
    features, labels = clouds()
    random = np.random.default_rng(1)
    chosen = random.choice(len(labels), 24, replace=False)
    wrong = labels.copy()
    wrong[chosen] = (wrong[chosen] + 1) % 4
    folds = torch.from_numpy(np.arange(len(labels)) % FOLDS)
    probabilities, penalty = out_of_fold(torch.from_numpy(features), torch.from_numpy(wrong), folds, 4)
    again, _ = out_of_fold(torch.from_numpy(features), torch.from_numpy(wrong), folds, 4, (penalty,))
    assert (again.argmax(1) == probabilities.argmax(1)).mean() > 0.98
    np.testing.assert_allclose(probabilities.sum(1), 1)
    judgement = judge(probabilities, wrong)
    assert len(set(np.argsort(judgement.margin)[:24].tolist()) & set(chosen.tolist())) >= 22
    suspects = np.flatnonzero(judgement.is_off_diagonal(wrong))
    right = [row for row in suspects if judgement.suggested[row] == labels[row]]
    assert len(right) >= 20


def test_no_image_is_judged_by_a_probe_that_saw_it() -> None:
    """With the true label hidden from its own fold, a unique feature cannot give it away."""
    random = np.random.default_rng(2)
    features = np.eye(100) * 10 + random.normal(size=(100, 100)) * 0.1
    labels = random.integers(0, 2, 100)
    probabilities, _ = out_of_fold(torch.from_numpy(features), torch.from_numpy(labels), torch.arange(100) % FOLDS, 2)
    assert (probabilities.argmax(1) == labels).mean() < 0.7


def test_a_class_that_is_not_in_each_fold_is_not_judged() -> None:
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    folds = np.array([0, 1, 2, 3, 4, 0, 1, 2, 3])
    assert judged_classes(labels, folds, 3).tolist() == [True, False, False]


def test_neighbours_are_of_the_class_and_no_copies_the_most_like_first() -> None:
    features = np.array([[1, 0], [0.9, 0.1], [0.8, 0.5], [-1, 0], [1, 0.01], [0, -1]], float)
    labels, units = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 3, 0, 4])
    rows = np.array([0, 0])
    assert nearest_of_class(features, labels, units, rows, np.array([0, 1]), 2) == [[1, 2], [5, 3]]
