"""Classes that look like two: their images fall into two groups with hardly any image between them.

Two breeds in one folder, front and back views, two cameras. Two-means divides whatever it gets; what counts is how many
images lie between its two centres. On the line through them, with the centres at -1 and 1, at least a sixth of any
symmetric distribution with one peak lies within a third of the middle (exactly a sixth of a uniform one: each such
distribution is a mixture of uniform ones, and the share is convex in their width). So a class is called two groups if
far less lies there, and by a binomial test not by chance. Centres and line are found on other images than those that
are counted: in hundreds of dimensions any images divide well along the line that was chosen for them.

The features are whitened by the covariance within the other classes, so that a direction counts by how much the images
of one class usually differ along it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from scripts.lib.data.spectra import draw

#: Units (different images) without which a class is not judged, and those of a class that are looked at, at most.
FEWEST, MOST = 40, 4096
#: In the smaller group there are at least so many, and this share.
SMALLEST, SMALLEST_SHARE = 10, 0.05
#: Of the features, those along the axes of the largest variance.
AXES = 64
#: What of a covariance is replaced by the mean variance in all directions.
SHRINKAGE = 0.1
#: Of whitened features, added in each direction: images may be equal in all features.
LEAST_VARIANCE = 1e-9
#: Parts of a class, each of which is counted along the line that the others give.
FOLDS = 5
#: Two-means starts from the division along each of so many axes of the class, and takes so many steps at most.
STARTS, STEPS = 8, 50
#: The middle, of a half distance of the centres; the share of the images that one group has there at least; the share
#: below which there are two; and the probability of that by chance, for all classes together.
MIDDLE, OF_ONE, OF_TWO, BY_CHANCE = 1 / 3, 1 / 6, 0.08, 0.01


@dataclass(frozen=True)
class TwoGroups:
    """A class that looks like two.

    Attributes
    ----------
    label : of the class.
    between : share of its images that lie in the middle between both groups, 0 to OF_TWO.
    groups : positions of its images, the larger group first; in a group the most typical first, and copies of those
        before them last.
    """

    label: int
    between: float
    groups: tuple[np.ndarray, np.ndarray]


def find_two_groups(features: np.ndarray, labels: np.ndarray, units: np.ndarray) -> list[TwoGroups]:
    """Return the classes that look like two, the most clearly divided first.

    Parameters
    ----------
    features : float64, (images, features), along their principal axes, those of the largest variance last.
    labels : int64, (images,).
    units : int64, (images,): copies and known groups are one unit, which counts once.
    """
    vectors = features[:, -AXES:]
    classes = np.unique(labels)
    is_first = np.zeros(len(units), bool)
    is_first[np.unique(units, return_index=True)[1]] = True
    scatter = {label: _scatter(vectors[(labels == label) & is_first]) for label in classes}
    whole = np.sum(list(scatter.values()), axis=0)
    results = []
    for label in classes:
        rows = np.flatnonzero(labels == label)
        firsts = rows[is_first[rows]]
        if len(firsts) < FEWEST or not (others := whole - scatter[label]).any():
            continue
        white = vectors[rows] @ _whitening(others)
        seen = np.flatnonzero(is_first[rows])[draw("two groups", len(firsts), MOST)]
        in_middle = np.abs(_held_out_positions(white[seen])) < MIDDLE
        chance = binom.cdf(in_middle.sum(), len(seen), OF_ONE)
        if in_middle.mean() > OF_TWO or chance * len(classes) > BY_CHANCE:
            continue
        groups = _groups(white, seen, rows, is_first)
        if is_first[groups[1]].sum() >= max(SMALLEST, SMALLEST_SHARE * len(firsts)):
            results.append(TwoGroups(int(label), float(in_middle.mean()), groups))
    return sorted(results, key=lambda group: (group.between, group.label))


def _scatter(vectors: np.ndarray) -> np.ndarray:
    """Return the sum of the squares and products around the mean, (features, features)."""
    if not len(vectors):
        return np.zeros((vectors.shape[1],) * 2)
    centred = vectors - vectors.mean(axis=0)
    return np.asarray(centred.T @ centred)


def _shrunk(matrix: np.ndarray) -> np.ndarray:
    size = len(matrix)
    return (1 - SHRINKAGE) * matrix + SHRINKAGE * np.trace(matrix) / size * np.eye(size)


def _whitening(matrix: np.ndarray) -> np.ndarray:
    """Return what makes the covariance *matrix* spherical, (features, features)."""
    variances, axes = np.linalg.eigh(_shrunk(matrix))
    return np.asarray(axes / np.sqrt(variances))


def _divide(vectors: np.ndarray) -> np.ndarray | None:
    """Return which of the images are of the second of two groups by two-means, bool; None where all are alike."""
    centred = vectors - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    best, least = None, np.inf
    for axis in axes.T[::-1][:STARTS]:
        second = centred @ axis > 0
        for _ in range(STEPS):
            if second.all() or not second.any():
                break
            means = [centred[group].mean(axis=0) for group in (~second, second)]
            before, second = second, centred @ (means[1] - means[0]) > (means[1] @ means[1] - means[0] @ means[0]) / 2
            if (second == before).all():
                break
        if second.all() or not second.any():
            continue
        rest = sum(((centred[group] - centred[group].mean(axis=0)) ** 2).sum() for group in (~second, second))
        if rest < least:
            best, least = second, rest
    return best


def _positions(vectors: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Return where *vectors* lie on Fisher's line through the centres of two groups of *of*, which are at -1 and 1."""
    second = _divide(of)
    if second is None:
        return np.zeros(len(vectors))
    groups = (of[~second], of[second])
    first, other = (group.mean(axis=0) for group in groups)
    within = _shrunk(sum(map(_scatter, groups)) / len(of))  # type: ignore[arg-type]
    line = np.linalg.solve(within + LEAST_VARIANCE * np.eye(len(within)), other - first)
    return np.asarray((vectors - (first + other) / 2) @ line / ((other - first) @ line / 2))


def _held_out_positions(vectors: np.ndarray) -> np.ndarray:
    """Return where each image lies on the line that is found without its fold, (images,); which end is 1 may differ."""
    fold = np.arange(len(vectors)) % FOLDS
    position = np.zeros(len(vectors))
    for held in range(FOLDS):
        position[fold == held] = _positions(vectors[fold == held], vectors[fold != held])
    return position


def _groups(
    vectors: np.ndarray, seen: np.ndarray, rows: np.ndarray, is_first: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return *rows* of all images in two groups, in the order that `TwoGroups` describes."""
    second = _positions(vectors, vectors[seen]) > 0
    groups = []
    for group in (np.flatnonzero(~second), np.flatnonzero(second)):
        far = ((vectors[group] - vectors[group].mean(axis=0)) ** 2).sum(axis=1)
        groups.append(rows[group[np.lexsort((rows[group], far, ~is_first[rows[group]]))]])
    larger, smaller = sorted(groups, key=len, reverse=True)
    return larger, smaller
