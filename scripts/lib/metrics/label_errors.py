"""Images whose label the model contradicts: confident errors and label suspects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from scripts.lib.runs.predictions import Predictions


@dataclass(frozen=True)
class Suspect:
    """An image whose label may be wrong: its row in predictions.csv, and the class that it may be of."""

    row: int
    suggested: int


def confident_errors(predictions: Predictions) -> list[int]:
    """Return the rows of the wrong predictions, the most confident first, equal ones by file name."""
    confidence = predictions.probabilities.max(axis=1)
    wrong = np.flatnonzero(predictions.predictions != predictions.labels).tolist()
    return sorted(wrong, key=lambda row: (-confidence[row], predictions.files[row]))


def label_suspects(predictions: Predictions) -> list[Suspect]:
    """Return the images whose label may be wrong, the most striking first.

    Northcutt, Jiang & Chuang (2021), Confident Learning: Estimating Uncertainty in Dataset Labels, J. Artif. Intell.
    Res. 70: the images off the diagonal of the confident joint, by the normalised margin. The threshold of a class is
    the mean probability that its own images have; an image belongs to the most probable class whose threshold it
    reaches. The model must not have been trained on these images.
    """
    probabilities, labels = predictions.probabilities, predictions.labels
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, weights=probabilities[np.arange(len(labels)), labels], minlength=classes)
    thresholds = np.where(
        counts > 0, sums / np.maximum(counts, 1), np.inf
    )  # of a class without images nothing is known
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    suggested = reached.argmax(axis=1)
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -1.0
    margin = probabilities[np.arange(len(labels)), labels] - others.max(axis=1)
    rows = np.flatnonzero((reached.max(axis=1) >= 0) & (suggested != labels)).tolist()
    rows.sort(key=lambda row: (margin[row], predictions.files[row]))
    return [Suspect(row, int(suggested[row])) for row in rows]
