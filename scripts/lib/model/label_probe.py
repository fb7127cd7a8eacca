"""Which labels a linear probe doubts: probabilities of each image by a probe that was fitted without it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from scripts.lib.data.grouped_split import deal, make_units
from scripts.lib.model.fast_recipe import FAST
from scripts.lib.model.linear_probe import fit_probes, mean_and_scale, principal_axes

#: Each image is held out once.
FOLDS = 5
#: Directions of the features that the probe sees, those of the largest variance: with all 1,280 of MobileNetV2 it takes
#: ten times as long, and no more planted wrong labels are seen (docs/data-audit.md).
MOST_FEATURES = 256
#: Numbers that a block of similarities holds.
BLOCK_NUMBERS = 4_000_000


@dataclass(frozen=True)
class Units:
    """Images that stay together, as arrays over the images.

    Attributes
    ----------
    number : int64, (images,): equal for images of one unit.
    fold : int64, (images,), 0 to FOLDS - 1; it depends on the names only.
    """

    number: np.ndarray
    fold: np.ndarray

    @classmethod
    def of(cls, labels: Mapping[str, str], sets: Sequence[tuple[str, Sequence[str]]]) -> Units:
        """Return the units of the images, which are the keys of *labels*, in their order.

        Parameters
        ----------
        labels : the class of each path.
        sets : (name, paths) pairs of images that stay together, as make_units takes them.
        """
        dealt, _ = deal(make_units(labels.items(), sets), FOLDS, seed=0)
        of_path: dict[str, tuple[int, int]] = {}
        for fold, units in enumerate(dealt.values()):
            for unit in units:
                number = len(of_path)
                of_path |= {path: (number, fold) for path in unit.paths}
        pairs = np.array([of_path[path] for path in labels], np.int64).reshape(-1, 2)
        return cls(pairs[:, 0], pairs[:, 1])

    def firsts(self) -> np.ndarray:
        """Return the first image of each unit, ascending, int64: copies count once."""
        return np.sort(np.unique(self.number, return_index=True)[1])


def judged_classes(labels: np.ndarray, folds: np.ndarray, classes: int) -> np.ndarray:
    """Return which classes can be judged: those with images in each fold, bool (classes,).

    Of a class that is in one fold only, no probe knows anything that could be held against its images.
    """
    held = np.zeros((FOLDS, classes), bool)
    held[folds, labels] = True
    return np.asarray(held.all(axis=0))


def along_axes(features: torch.Tensor) -> torch.Tensor:
    """Return the features along their principal axes, MOST_FEATURES at most, those of the largest variance last.

    No label has a say in them. Both are float64, (images, features).
    """
    mean, scale = mean_and_scale(features, None)
    _, axes = principal_axes(features, scale, None)  # the eigenvalues ascend
    return (features - mean) @ axes[:, -MOST_FEATURES:]


def out_of_fold(
    features: torch.Tensor,
    labels: torch.Tensor,
    folds: torch.Tensor,
    classes: int,
    penalties: Sequence[float] = FAST.penalties,
) -> tuple[np.ndarray, float]:
    """Return the probabilities of each image by a probe that was fitted to the other folds, and the penalty.

    The penalty is the one with the least loss on fold 0, of a probe that was fitted to the others. Probabilities are
    float64, (images, classes).

    Parameters
    ----------
    features : float64, (images, features), of :func:`along_axes`.
    labels, folds : int64, (images,).
    """
    probabilities = torch.zeros(len(labels), classes, dtype=torch.float64)
    for fold in range(FOLDS):
        held = folds == fold
        data = (features[~held], labels[~held], features[held], labels[held])
        probe = fit_probes(*data, classes, penalties=penalties)[-1]
        penalties = (probe.penalty,)
        probabilities[held] = (features[held] @ probe.weight.T + probe.bias).softmax(1)
    return probabilities.numpy(), penalties[0]


def nearest_of_class(
    features: np.ndarray, labels: np.ndarray, units: np.ndarray, rows: np.ndarray, wanted: np.ndarray, most: int
) -> list[list[int]]:
    """Return for each of *rows* the images of a class that are most like it, by the cosine, the most like first.

    Images of its own unit are not among them: a copy says nothing about the label.

    Parameters
    ----------
    features : (images, features).
    labels, units : int64, (images,).
    rows : int64, (rows,); *wanted*: the class of each, (rows,).
    most : how many of each.
    """
    vectors = (features - features.mean(axis=0)).astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    nearest: list[list[int]] = [[] for _ in rows]
    for label in np.unique(wanted):
        members, positions = np.flatnonzero(labels == label), np.flatnonzero(wanted == label)
        step = max(1, BLOCK_NUMBERS // max(1, len(members)))
        for start in range(0, len(positions), step):
            block = positions[start : start + step]
            likeness = vectors[rows[block]] @ vectors[members].T
            likeness[units[rows[block], None] == units[members]] = -np.inf
            order = np.argsort(-likeness, axis=1, kind="stable")[:, :most]
            for position, best, values in zip(block, order, likeness, strict=True):
                nearest[position] = [int(members[index]) for index in best if values[index] > -np.inf]
    return nearest
