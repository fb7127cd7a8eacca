"""Curves over all thresholds: precision-recall and ROC of each class with their averages, and top-k accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from scripts.lib.metrics.metrics import Labels, Probabilities, row_blocks

TOP_K = 10
#: Points of an averaged curve; its area does not depend on them.
GRID = np.linspace(0, 1, 1001)


@dataclass(frozen=True)
class Curve:
    """A line with the area below it."""

    x: np.ndarray  # recall, or false positive rate; shape (points,)
    y: np.ndarray  # precision, or true positive rate; shape (points,)
    area: float  # average precision, or area under the ROC curve; 0 to 1


@dataclass(frozen=True)
class Curves:
    """One kind of curve of every class against all others."""

    of_class: list[Curve | None]  # in the order of the classes; None where the test images leave it undefined
    micro: Curve | None  # of all pairs of an image and a class as one yes-or-no question; None where undefined
    macro: Curve | None  # the mean over the classes that have a curve; None without any


def precision_recall_curves(probabilities: Probabilities, labels: Labels) -> Curves:
    """Return the precision-recall curves with average precision, undefined for a class without images.

    Precision is that of the step: between two recalls that the model can have it is that of the higher one, which is
    how scikit-learn's average precision adds it up. A straight line between them would be too good
    (Davis & Goadrich 2006, The Relationship Between Precision-Recall and ROC Curves).
    """
    return _curves(probabilities, labels, _precision_recall, _step_on_grid)


def roc_curves(probabilities: Probabilities, labels: Labels) -> Curves:
    """Return the ROC curves with the area below them, undefined for a class of no image or of all images."""
    return _curves(probabilities, labels, _roc, _line_on_grid)


def top_k_hits(probabilities: Probabilities, labels: Labels, up_to: int = TOP_K) -> np.ndarray:
    """Return how many images have their class among the k most probable ones, for k = 1 ... min(*up_to*, classes).

    Of equal probabilities the class with the lower index comes first, as in the model's answer (argmax), so that the
    first number is the number of right answers. (scikit-learn's top_k_accuracy_score puts the higher index first.)
    """
    classes = probabilities.shape[1]
    of_label = probabilities[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(classes) < labels[:, None]
    rank = ((probabilities > of_label) | ((probabilities == of_label) & earlier)).sum(axis=1)
    return np.cumsum(np.bincount(rank, minlength=classes))[: min(up_to, classes)]


def best_and_worst(curves: Sequence[Curve | None], each: int = 5) -> tuple[list[int], list[int]]:
    """Return the indices of the *each* largest areas and the *each* smallest, both with the extreme one first.

    Fewer than twice *each* curves are divided into halves. Of equal areas the earlier class counts as the better.
    """
    areas = {label: curve.area for label, curve in enumerate(curves) if curve is not None}
    order = sorted(areas, key=lambda label: -areas[label])
    worst = min(each, len(order) // 2)
    best = min(each, len(order) - worst)
    return order[:best], order[len(order) - worst :][::-1]


def _curves(
    probabilities: Probabilities,
    labels: Labels,
    draw: Callable[..., Curve | None],
    on_grid: Callable[[Curve], np.ndarray],
) -> Curves:
    """Return every class's curve by *draw*, of which the macro average is the mean of *on_grid*."""
    of_class = [draw(labels == label, score) for label, score in enumerate(probabilities.T)]
    defined = [curve for curve in of_class if curve is not None]
    macro = None
    if defined:
        # One after another: 200 classes on the grid at once are no gain.
        mean = sum((on_grid(curve) for curve in defined), np.zeros(len(GRID))) / len(defined)
        macro = Curve(GRID, mean, float(np.mean([curve.area for curve in defined])))
    return Curves(of_class, draw(*_pooled(probabilities, labels)), macro)


def _pooled(probabilities: Probabilities, labels: Labels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return truth, score and weight of all pairs of an image and a class, in as many rows as there are images.

    Both kinds of curves turn only where a true class is; how many wrong ones lie between two of these is enough. The
    scores are ranks.
    """
    of_label = probabilities[np.arange(len(labels)), labels]
    levels, images = np.unique(of_label, return_counts=True)
    equal, between = np.zeros(len(levels)), np.zeros(len(levels) + 1)
    for rows in row_blocks(probabilities):
        values = probabilities[rows].ravel()
        above = np.searchsorted(levels, values, "left")
        is_level = levels[np.minimum(above, len(levels) - 1)] == values
        equal += np.bincount(above[is_level], minlength=len(equal))
        between += np.bincount(above[~is_level], minlength=len(between))
    ranks = np.arange(len(levels))
    weights = np.concatenate([images, equal - images, between])
    rank_of = np.concatenate([2 * ranks + 1, 2 * ranks + 1, 2 * np.arange(len(between))])
    used = weights > 0
    return (np.arange(len(weights)) < len(levels))[used], rank_of[used], weights[used]


def _precision_recall(truth: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> Curve | None:
    if not truth.any():
        return None
    precision, recall, _ = precision_recall_curve(truth, score, sample_weight=weight, drop_intermediate=True)
    area = average_precision_score(truth, score, sample_weight=weight)
    return Curve(recall[::-1], precision[::-1], float(area))


def _roc(truth: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> Curve | None:
    if truth.all() or not truth.any():
        return None
    false_positives, true_positives, _ = roc_curve(truth, score, sample_weight=weight)
    return Curve(false_positives, true_positives, float(auc(false_positives, true_positives)))


def _step_on_grid(curve: Curve) -> np.ndarray:
    """Return the precision at each recall of the grid: that of the least recall of the curve that reaches it."""
    return curve.y[np.searchsorted(curve.x, GRID, side="left").clip(1)]


def _line_on_grid(curve: Curve) -> np.ndarray:
    """Return the true positive rate at each false positive rate of the grid; from 0, as the curve itself starts."""
    return np.concatenate([[0.0], np.interp(GRID, curve.x, curve.y)[1:]])
