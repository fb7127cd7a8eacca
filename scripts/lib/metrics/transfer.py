"""How a model does on images of another set: the change of its accuracy, and how far they lie from its test images."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from scripts.lib.metrics.metrics import Interval, wilson_interval
from scripts.lib.runs.certainty import directions
from scripts.lib.runs.predictions import Predictions

#: Of the distances among the run's own test images, the percentile beyond which an image lies far away.
FAR_PERCENTILE = 95.0
#: Numbers that a block of distances holds.
BLOCK_NUMBERS = 4_000_000


@dataclass(frozen=True)
class Transfer:
    """The accuracy on other images beside that on the run's own test images; all of 0 to 1.

    Attributes
    ----------
    accuracy, reference : on the other images, and on the run's own.
    difference, interval : of the two, and its 95 % interval (Newcombe 1998, "Interval estimation for the difference
        between independent proportions", method 10): the images are not the same ones, so nothing is paired.
    same_mix : the accuracy if the other images had as many of each class as the run's own; None where a class of those
        is missing.
    """

    accuracy: float
    reference: float
    difference: float
    interval: Interval
    same_mix: float | None

    def as_json(self) -> dict[str, Any]:
        """Return it for a JSON file."""
        return asdict(self)


def compare(other: Predictions, reference: Predictions) -> Transfer:
    """Compare the predictions of one model on two sets of images with the same classes."""
    right, right_own = (int((of.predictions == of.labels).sum()) for of in (other, reference))
    accuracy, accuracy_own = right / len(other.labels), right_own / len(reference.labels)
    low, high = wilson_interval(right, len(other.labels))
    low_own, high_own = wilson_interval(right_own, len(reference.labels))
    difference = accuracy - accuracy_own
    interval = (
        difference - math.hypot(accuracy - low, high_own - accuracy_own),
        difference + math.hypot(high - accuracy, accuracy_own - low_own),
    )
    return Transfer(accuracy, accuracy_own, difference, interval, same_mix(other, reference))


def same_mix(other: Predictions, reference: Predictions) -> float | None:
    """Return the accuracy on *other* with its classes weighed as in *reference*; None where it lacks one of those."""
    classes = len(reference.classes)
    counts, counts_own = (np.bincount(of.labels, minlength=classes) for of in (other, reference))
    if (counts[counts_own > 0] == 0).any():
        return None
    right = np.bincount(other.labels[other.predictions == other.labels], minlength=classes)
    recalls = right / np.maximum(counts, 1)
    return float((recalls * counts_own).sum() / counts_own.sum())


def far_share(features: np.ndarray, reference: np.ndarray) -> float | None:
    """Return the share of images, 0 to 1, that lie farther from all of the run's own than nearly all of those do.

    Far is what is farther from its nearest neighbour among those than FAR_PERCENTILE of them are from theirs. Of images
    like them about 5 % are. The features count by their directions only (:func:`directions` says why).

    Parameters
    ----------
    features, reference : of the other images, and of the run's own: float32, (images, dimensions).

    Returns
    -------
    float : None where those of the run are too few to tell.
    """
    if len(reference) < 20:
        return None
    features, reference = directions(features), directions(reference)
    bound = np.percentile(nearest(reference, reference, is_same=True), FAR_PERCENTILE)
    return float((nearest(features, reference) > bound).mean())


def nearest(features: np.ndarray, reference: np.ndarray, is_same: bool = False) -> np.ndarray:
    """Return the squared distance of each image to the nearest reference, (images,); *is_same*: but itself."""
    squares = np.square(reference, dtype=np.float64).sum(1)
    result = np.empty(len(features))
    rows = max(1, BLOCK_NUMBERS // len(reference))
    for start in range(0, len(features), rows):
        block = features[start : start + rows].astype(np.float64)
        distances = np.square(block).sum(1)[:, None] + squares - 2 * (block @ reference.T.astype(np.float64))
        if is_same:
            distances[np.arange(len(block)), start + np.arange(len(block))] = np.inf
        result[start : start + rows] = distances.min(1).clip(min=0)
    return result
