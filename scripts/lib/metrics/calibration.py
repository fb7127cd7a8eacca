"""How far a model's probabilities can be believed: accuracy by confidence, and temperature scaling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from scripts.lib.metrics import metrics
from scripts.lib.metrics.metrics import ECE_BINS, Labels, Probabilities

#: Temperatures outside these are not looked for: at 100 every answer is nearly a draw, at 0.01 nearly certain.
TEMPERATURES = (0.01, 100.0)
#: A softmax in float32 gives 0 for what is merely improbable, and no logarithm can be taken of 0.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Reliability:
    """Accuracy and confidence in equal-width bins of the confidence, each open below and closed above."""

    edges: np.ndarray  # shape (bins + 1,), from 0 to 1
    count: np.ndarray  # images of each bin, shape (bins,)
    accuracy: np.ndarray  # share of right answers; nan where a bin has no image, as in what follows
    confidence: np.ndarray  # mean confidence
    low: np.ndarray  # 95 % Wilson interval of the accuracy
    high: np.ndarray
    ece: float  # expected calibration error, 0 to 1
    cross_entropy: float  # mean, in nats


@dataclass(frozen=True)
class Calibration:
    """A model on its test images, as it is and with its logits divided by a temperature that was fitted elsewhere."""

    before: Reliability  # as the model is
    after: Reliability | None  # after temperature scaling; None without a temperature
    temperature: float | None  # None where val was not given, or determines none


def calibrate(
    probabilities: Probabilities,
    labels: Labels,
    val_probabilities: Probabilities | None = None,
    val_labels: Labels | None = None,
) -> Calibration:
    """Measure calibration on the test images, before and after scaling by the temperature that fits val.

    The labels of the test images decide nothing here: a temperature fitted on them would flatter its own error.

    Parameters
    ----------
    probabilities, labels : of the test images.
    val_probabilities, val_labels : of the val images, in the same order of classes; None: no scaling.
    """
    temperature = None
    if val_probabilities is not None and val_labels is not None:
        temperature = fit_temperature(val_probabilities, val_labels)
    after = None if temperature is None else reliability(apply_temperature(probabilities, temperature), labels)
    return Calibration(reliability(probabilities, labels), after, temperature)


def reliability(probabilities: Probabilities, labels: Labels, bins: int = ECE_BINS) -> Reliability:
    """Return accuracy and mean confidence by *bins* of the confidence, as the expected calibration error uses them.

    Guo et al. (2017), On Calibration of Modern Neural Networks, eq. 1-3; the reliability diagram is their figure 1.
    """
    bin_of, right, confidence = metrics.confidence_bins(probabilities, labels, bins)
    count = np.bincount(bin_of, minlength=bins)
    hits = np.bincount(bin_of, weights=right, minlength=bins)
    sums = np.bincount(bin_of, weights=confidence, minlength=bins)
    low, high = np.full(bins, np.nan), np.full(bins, np.nan)
    for i in np.flatnonzero(count):
        low[i], high[i] = metrics.wilson_interval(int(hits[i]), int(count[i]))
    with np.errstate(invalid="ignore"):  # nan where a bin has no image
        accuracy, mean_confidence = hits / count, sums / count
    return Reliability(
        edges=np.linspace(0, 1, bins + 1),
        count=count,
        accuracy=accuracy,
        confidence=mean_confidence,
        low=low,
        high=high,
        ece=metrics.expected_calibration_error(probabilities, labels, bins),
        cross_entropy=cross_entropy(probabilities, labels),
    )


def fit_temperature(probabilities: Probabilities, labels: Labels) -> float | None:
    """Return the temperature with the least cross-entropy on these images; None where they determine none.

    Guo et al. (2017), sec. 4.2. The cross-entropy is convex in 1/T, so that it has one minimum, and a search on one
    line finds it. Where every answer is right it falls on and on as T goes to 0, and where the label's logit is no
    higher than the mean logit, as T goes to infinity: such images, never the test images, say nothing about other
    images' confidence.
    """
    logits = logits_of(probabilities)
    of_label = logits[np.arange(len(labels)), labels]
    all_right = bool((of_label >= logits.max(axis=1)).all())
    if all_right or of_label.mean() <= logits.mean():
        return None
    least = minimize_scalar(
        lambda log_temperature: _mean_loss(
            [_losses(logits[rows] / np.exp(log_temperature), labels[rows]) for rows in metrics.row_blocks(logits)]
        ),
        bounds=tuple(np.log(TEMPERATURES)),  # a factor is the same step everywhere
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(least.x))


def apply_temperature(probabilities: Probabilities, temperature: float) -> np.ndarray:
    """Return softmax(logits / *temperature*), shape (n, classes); which class is the most probable stays as it is.

    The logarithms of the probabilities are the model's logits up to a number for each image, which softmax cancels.
    """
    scaled = np.empty_like(probabilities)
    for rows in metrics.row_blocks(probabilities):
        scaled[rows] = softmax(logits_of(probabilities[rows]) / temperature, axis=1)
    return scaled


def logits_of(probabilities: Probabilities) -> np.ndarray:
    """Return logits that give *probabilities*: their logarithms, finite also where one was rounded to 0."""
    return np.log(np.maximum(probabilities, SMALLEST_PROBABILITY))


def cross_entropy(probabilities: Probabilities, labels: Labels) -> float:
    """Return the mean of -log(probability of the label), in nats; *probabilities* has shape (n, classes)."""
    blocks = metrics.row_blocks(probabilities)
    return _mean_loss([_losses(logits_of(probabilities[rows]), labels[rows]) for rows in blocks])


def _losses(logits: np.ndarray, labels: Labels) -> np.ndarray:
    """Return log(probability of the label) of each image."""
    return np.asarray(log_softmax(logits, axis=1)[np.arange(len(labels)), labels])


def _mean_loss(losses: Sequence[np.ndarray]) -> float:
    return float(-np.concatenate(losses).mean()) + 0.0  # never written as -0
