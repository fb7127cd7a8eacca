"""How much an image counts where the classes are to count the same, however many images each has."""

from __future__ import annotations

from collections.abc import Sequence


def class_weights(counts: Sequence[int]) -> list[float]:
    """Return the weight of an image of each class: inverse to the class's images, 1 on average over all images.

    n / (K n_c), for n images of K classes: the weighting of King & Zeng (2001), "Logistic Regression in Rare Events
    Data", for equally frequent classes. It is what drawing the classes equally often is on average. The "effective
    number" of Cui et al. (2019) comes to the same for up to some thousand images a class, and has one more parameter.

    Parameters
    ----------
    counts : images of each class. One without any weighs 0 and is not among the K.
    """
    present = sum(count > 0 for count in counts)
    return [sum(counts) / (present * count) if count else 0.0 for count in counts]
