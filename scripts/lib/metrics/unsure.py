"""From which confidence on, and how far from the training images, predictions are sure: chosen on val, told on test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from scripts.lib.base.seeds import derive_seed
from scripts.lib.metrics.metrics import wilson_interval
from scripts.lib.metrics.selective import selective_prediction
from scripts.lib.runs.certainty import MIN_ACCURACY, Certainty, Step, distances
from scripts.lib.runs.predictions import Predictions

#: Training images that are kept to compare others with.
MOST_KNOWN = 1000
#: Of the distances of the val images, the share that the threshold is above of.
FAR_SHARE = 0.99
#: With fewer val images, more than one in twenty images like them would be called far.
FEWEST_VAL = 19


def known_sample(labels: Sequence[int], most: int = MOST_KNOWN) -> list[int]:
    """Return the positions of at most *most* training images, about the same number of each class, in their order.

    Which ones is a function of the label and the position in the class, the same for each seed of a run.
    """
    of_class: dict[int, list[int]] = {}
    for position, label in enumerate(labels):
        of_class.setdefault(label, []).append(position)
    turns = []
    for label, positions in of_class.items():
        order = sorted(range(len(positions)), key=lambda i: derive_seed(0, "known", label, i))
        turns += [(turn, label, positions[i]) for turn, i in enumerate(order)]
    return sorted(position for _, _, position in sorted(turns)[:most])


def certainty_of(val: Predictions, features: np.ndarray, known: np.ndarray) -> Certainty:
    """Return the thresholds that val gives.

    Parameters
    ----------
    features : of the val images, in the order of their predictions.
    known : directions of training images, as :func:`scripts.lib.runs.certainty.distances` takes them.
    """
    steps = thresholds(val.probabilities, val.labels)
    return Certainty(len(val.labels), steps, len(known), far_threshold(distances(features, known)))


def thresholds(probabilities: np.ndarray, labels: np.ndarray) -> list[Step]:
    """Return the thresholds on the confidence of val, for rising accuracies.

    A threshold is worth the accuracy of the images above it with one more image, a wrong one, counted among them. By
    the plain accuracy the best threshold of a few images is mostly a lucky one: on new images it keeps less. It is no
    guarantee either: that would need a confidence bound, which of fewer than some hundred images leaves nothing.
    """
    selective = selective_prediction(probabilities, labels)
    steps: list[Step] = []
    best = 0.0
    for answered, right, threshold in zip(
        selective.answered[::-1], selective.right[::-1], selective.threshold[::-1], strict=True
    ):
        accuracy = float(right / (answered + 1))
        if accuracy > best:
            best = accuracy
            steps.append(Step(accuracy, float(threshold), float(answered / selective.images)))
    return steps


def far_threshold(val_distances: np.ndarray) -> float | None:
    """Return the distance that 99 % of images like val's keep below; None of too few images.

    The k-th smallest of n, k = ceil(0.99 (n + 1)), as split conformal prediction has it; the largest where k > n: of
    n images like them, one more is farther with probability 1 / (n + 1).
    """
    count = len(val_distances)
    if count < FEWEST_VAL:
        return None
    rank = min(count, math.ceil(FAR_SHARE * (count + 1)))
    return float(np.sort(val_distances)[rank - 1])


def report(
    certainty: Certainty, predictions: Predictions, far: np.ndarray | None, accuracy: float = MIN_ACCURACY
) -> dict[str, Any]:
    """Return what the thresholds of val do on other images, for metrics.json; shares of 0 to 1.

    Parameters
    ----------
    far : distances of the images, in their order; None where they are not known.
    accuracy : that is asked for.
    """
    step, count = certainty.at(accuracy), len(predictions.labels)
    confident = predictions.probabilities.max(axis=1) >= (step.confidence if step else math.inf)
    near = np.full(count, True)
    if far is not None and certainty.far is not None:
        near = far <= certainty.far
    right = predictions.predictions == predictions.labels
    kept = confident & near
    return {
        "min_accuracy": accuracy,
        "val_images": certainty.val_images,
        "confidence": step.confidence if step else None,
        "coverage_val": step.coverage if step else 0.0,
        "best_accuracy_val": certainty.best.accuracy if certainty.best else 0.0,
        "coverage": float(confident.mean()),
        **_accuracy_of("confident", right[confident]),
        "far_distance": certainty.far,
        "far_share": float(1 - near.mean()) if certainty.far is not None and far is not None else None,
        "sure_share": float(kept.mean()),
        **_accuracy_of("sure", right[kept]),
    }


def _accuracy_of(name: str, right: np.ndarray) -> dict[str, Any]:
    """Return number, accuracy and its interval of some images, None of none."""
    hits, count = int(right.sum()), len(right)
    interval = list(wilson_interval(hits, count)) if count else None
    return {f"{name}_images": count, f"{name}_accuracy": hits / count if count else None, f"{name}_ci95": interval}
