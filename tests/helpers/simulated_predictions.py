"""Predictions of models whose truth is known, for the tests of what is computed from predictions.csv."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.special import softmax

from scripts.lib.runs.predictions import Predictions, write_predictions


def predictions_of(probabilities: np.ndarray, labels: np.ndarray, classes: list[str] | None = None) -> Predictions:
    """Make predictions of these probabilities; the files are called 0.jpg, 1.jpg, ..."""
    names = classes or [f"class {number:03d}" for number in range(probabilities.shape[1])]
    files = [f"{number}.jpg" for number in range(len(labels))]
    return Predictions(files, labels, probabilities.argmax(axis=1), probabilities, names)


def simulate(n: int, classes: int, seed: int = 0, strength: float = 2.0) -> Predictions:
    """Make a model that is right more often with a larger *strength*; every class has an image where *n* suffices."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    labels[:classes] = np.arange(classes)[:n]
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += strength
    # As predictions.csv has them: float32 values.
    return predictions_of(softmax(logits, axis=1).astype(np.float32).astype(np.float64), labels)


def write_csv(path: Path, predictions: Predictions) -> Path:
    """Write predictions.csv as predict_images does."""
    rows = zip(predictions.files, predictions.labels.tolist(), predictions.probabilities, strict=True)
    write_predictions(path, predictions.classes, ((file, label, row.astype(np.float32)) for file, label, row in rows))
    return path
