"""Selective prediction: how often a model is right that answers only where it is confident."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scripts.lib.metrics.metrics import Labels, Probabilities

#: Accuracies that people ask for.
TARGETS = (0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Selective:
    """Accuracy on the most confident images, one point for each confidence that occurs, the highest first."""

    answered: np.ndarray  # images of at least this confidence, shape (points,); the last is the number of all images
    right: np.ndarray  # how many of them are right
    threshold: np.ndarray  # the confidence, shape (points,)
    area: float  # mean accuracy over all numbers of answered images; 1 minus the area under the risk-coverage curve
    best_area: float  # the area of a confidence that knows every mistake of this model

    @property
    def images(self) -> int:
        return int(self.answered[-1])

    @property
    def coverage(self) -> np.ndarray:
        """Share of the images that are answered, ascending to 1."""
        return self.answered / self.images

    @property
    def accuracy(self) -> np.ndarray:
        """Share of right answers among them; the last is the model's accuracy, and the area of a coin's confidence."""
        return self.right / self.answered

    def threshold_at(self, coverage: float) -> float:
        """Return the confidence from which on at least the share *coverage* (0 to 1) of the images is answered."""
        # A share times a number of images may come out a hair above the whole number that it is.
        wanted = max(1, math.ceil(coverage * self.images - 1e-9))
        return float(self.threshold[np.searchsorted(self.answered, wanted)])


def selective_prediction(probabilities: Probabilities, labels: Labels) -> Selective:
    """Order the images by the probability of the predicted class, and count the right ones from the top.

    Geifman & El-Yaniv (2017), Selective Classification for Deep Neural Networks; the area is 1 minus their AURC. Images
    of equal confidence are answered together; the area is the mean over all orders among them, so that it does not
    depend on the order of the file.
    """
    confidence = probabilities.max(axis=1)
    is_right = probabilities.argmax(axis=1) == labels
    levels, level, count = np.unique(confidence, return_inverse=True, return_counts=True)
    hits = np.bincount(level, weights=is_right, minlength=len(levels))
    answered, right = np.cumsum(count[::-1]), np.cumsum(hits[::-1])
    numbers = np.arange(1, len(labels) + 1)
    # Of tied images, k answered ones hold on average k times their share of right ones.
    expected = np.interp(numbers, np.concatenate([[0], answered]), np.concatenate([[0], right]))
    return Selective(
        answered=answered,
        right=right.astype(np.int64),
        threshold=levels[::-1],
        area=float((expected / numbers).mean()),
        best_area=float((np.minimum(numbers, right[-1]) / numbers).mean()),
    )


def point_at(selective: Selective, accuracy: float) -> int | None:
    """Return the last point, that of the most images, whose accuracy is at least *accuracy*; None without one."""
    places = np.flatnonzero(selective.accuracy >= accuracy)
    return int(places[-1]) if len(places) else None


def describe(selective: Selective, targets: Sequence[float] = TARGETS) -> list[str]:
    """Say in one sentence for each target accuracy how many images can be answered, and in one more the area."""
    lines = []
    for target in targets:
        point = point_at(selective, target)
        if point is None:
            lines.append(f"no confidence is high enough to be right {target:.0%} of the time")
            continue
        answered, share = int(selective.answered[point]), float(selective.coverage[point])
        of = f"{answered} of {selective.images}; confidence of at least {written(float(selective.threshold[point]))}"
        lines.append(f"to be right {target:.0%} of the time, answer {share:.1%} of the images ({of})")
    chance, area, best = float(selective.accuracy[-1]), selective.area, selective.best_area
    lines.append(
        f"mean accuracy over all shares: {area:.1%} (of a confidence that knows nothing: {chance:.1%}; that knows every"
        f" mistake: {best:.1%})"
    )
    return lines


def written(threshold: float) -> str:
    """Return a confidence with three decimals, near 1 with more; rounded down, since rounded up it would be too high.

    >>> written(0.8765), written(0.99998123), written(1.0)
    ('0.876', '0.99998', '1.000')
    """
    decimals = 3 if threshold >= 1 else max(3, math.ceil(-math.log10(1 - threshold)))
    return f"{math.floor(10**decimals * threshold) / 10**decimals:.{decimals}f}"
