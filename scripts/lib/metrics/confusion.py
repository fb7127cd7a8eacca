"""Which two classes a model confuses most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scripts.lib.runs.predictions import Predictions


@dataclass(frozen=True)
class ConfusedPair:
    """Two classes, and the images of one that were predicted as the other.

    Attributes
    ----------
    first, second : the classes' labels, in their order.
    there, back : images of the first predicted as the second, and of the second predicted as the first.
    equal : other pairs that are confused as often.
    """

    first: int
    second: int
    there: int
    back: int
    equal: int


def most_confused(predictions: Predictions) -> ConfusedPair | None:
    """Return the most confused pair, of equal ones that of the most confident error; None without any error.

    One answer for the model card and the page of Grad-CAM: two would look like a contradiction.
    """
    labels, predicted = predictions.labels, predictions.predictions
    counts = np.zeros((len(predictions.classes), len(predictions.classes)), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    both = np.triu(counts + counts.T, 1)
    most = int(both.max())
    if not most:
        return None
    confidence = predictions.probabilities.max(axis=1)
    low, high = np.minimum(labels, predicted), np.maximum(labels, predicted)
    misclassified = np.flatnonzero((low != high) & (both[low, high] == most)).tolist()
    row = min(misclassified, key=lambda i: (-confidence[i], predictions.files[i]))
    first, second = int(low[row]), int(high[row])
    equal = int((both == most).sum()) - 1
    return ConfusedPair(first, second, int(counts[first, second]), int(counts[second, first]), equal)
