"""Which images and which classes a model gets wrong: confident errors, label suspects, the most confused pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scripts.lib.metrics.confident_learning import judge
from scripts.lib.runs.predictions import Predictions


@dataclass(frozen=True)
class Suspect:
    """An image whose label may be wrong: its row in predictions.csv, and the class that it may be of."""

    row: int
    suggested: int


@dataclass(frozen=True)
class ConfusedPair:
    """Two classes, and the images of one that were predicted as the other."""

    first: int  # the classes' labels, in their order
    second: int
    there: int  # images of the first predicted as the second
    back: int  # images of the second predicted as the first
    equal: int  # other pairs that are confused as often


def most_confident(predictions: Predictions, chosen: np.ndarray) -> list[int]:
    """Return the rows of the *chosen* images (bool), the most confident first, equal ones by file name."""
    rows = np.flatnonzero(chosen).tolist()
    confidence = dict(zip(rows, predictions.probabilities[rows].max(axis=1).tolist(), strict=True))
    return sorted(rows, key=lambda row: (-confidence[row], predictions.files[row]))


def confident_errors(predictions: Predictions) -> list[int]:
    """Return the rows of the wrong predictions, the most confident first, equal ones by file name."""
    return most_confident(predictions, predictions.predictions != predictions.labels)


def label_suspects(predictions: Predictions) -> list[Suspect]:
    """Return the images whose label may be wrong, the most striking first.

    The images off the diagonal of the confident joint, by the normalised margin (:mod:`.confident_learning`). The model
    must not have been trained on these images.
    """
    judgement = judge(predictions.probabilities, predictions.labels)
    rows = np.flatnonzero(judgement.is_off_diagonal(predictions.labels)).tolist()
    rows.sort(key=lambda row: (judgement.margin[row], predictions.files[row]))
    return [Suspect(row, int(judgement.suggested[row])) for row in rows]


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
    low, high = np.minimum(labels, predicted), np.maximum(labels, predicted)
    row = most_confident(predictions, (low != high) & (both[low, high] == most))[0]
    first, second = int(low[row]), int(high[row])
    equal = int((both == most).sum()) - 1
    return ConfusedPair(first, second, int(counts[first, second]), int(counts[second, first]), equal)


def most_alike(predictions: Predictions, features: np.ndarray, row: int) -> list[int]:
    """Return the images most like the misclassified one at *row*: of the predicted class, and of its own.

    Of those that are classified correctly, the one whose features are nearest (Euclidean, as on the map of the images).
    """
    correct = predictions.labels == predictions.predictions
    nearest = []
    for label in (predictions.predictions[row], predictions.labels[row]):
        rows = np.flatnonzero(correct & (predictions.labels == label))
        if len(rows):
            distances = np.linalg.norm(features[rows].astype(np.float64) - features[row], axis=1)
            nearest.append(int(rows[distances.argmin()]))
    return nearest
