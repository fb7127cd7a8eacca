"""How many wrong labels the search for label suspects sees: it is tried on labels of the data set that are made wrong.

A few labels are changed, each to another class, drawn by the probabilities that the probe gives the image: people too
confuse what looks alike. Labels that were wrong before take places in the list as well, so what it finds is the least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from scripts.lib.base.seeds import derive_seed
from scripts.lib.metrics.confident_learning import judge
from scripts.lib.model.label_probe import Units, out_of_fold

#: Share of the images whose labels are changed at a time; fewer changed labels than FEWEST say nothing.
SHARE, FEWEST = 0.05, 5
#: It is repeated with other images until so many labels were changed, so often at most.
ENOUGH, MOST_ROUNDS = 100, 5


@dataclass(frozen=True)
class LabelCheck:
    """``planted``: labels made wrong at a time; ``hits``: those among the first ``planted`` suspects, on average."""

    planted: int
    hits: float


@dataclass(frozen=True)
class Planted:
    """Labels of a round, int64, (images,), and the *rows* that were changed."""

    rows: np.ndarray
    labels: np.ndarray


def plant(labels: np.ndarray, probabilities: np.ndarray, rows: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return the labels, those of *rows* changed to classes that the probabilities make likely.

    Parameters
    ----------
    labels : int64, (images,); *probabilities*: float64, (images, classes).
    rows : positions of images.
    """
    is_there = np.isin(np.arange(probabilities.shape[1]), labels)
    chances = np.maximum(probabilities[rows], np.finfo(float).tiny) * is_there
    chances[np.arange(len(rows)), labels[rows]] = 0
    sums = np.cumsum(chances, axis=1)
    planted = labels.copy()
    planted[rows] = (sums <= random.uniform(0, 1, (len(rows), 1)) * sums[:, -1:]).sum(axis=1)
    return planted


def plant_all(labels: np.ndarray, units: Units, probabilities: np.ndarray) -> list[Planted]:
    """Return what is planted in each round; nothing where that would be too few labels.

    Parameters
    ----------
    labels : int64, (images,).
    probabilities : what `out_of_fold` says of these labels, float64, (images, classes).
    """
    firsts = units.firsts()
    if (count := round(SHARE * len(firsts))) < FEWEST:
        return []
    rounds = []
    for number in range(min(MOST_ROUNDS, -(-ENOUGH // count))):
        random = np.random.default_rng(derive_seed(0, "planted labels", number))
        rows = random.choice(firsts, count, replace=False)
        rounds.append(Planted(rows, plant(labels, probabilities, rows, random)))
    return rounds


def check_labels(
    directions: torch.Tensor, units: Units, rounds: Sequence[Planted], classes: int, penalty: float
) -> LabelCheck | None:
    """Try the search on labels that are made wrong; None where there are no *rounds*.

    Parameters
    ----------
    directions : float64, (images, features), of `along_axes`.
    rounds : of :func:`plant_all`.
    penalty : what `out_of_fold` found of the labels as they are.
    """
    if not rounds:
        return None
    hits = 0
    for planted in rounds:
        data = (directions, torch.from_numpy(planted.labels), torch.from_numpy(units.fold))
        again, _ = out_of_fold(*data, classes, (penalty,))
        first = judge(again, planted.labels).suspects(planted.labels, again)[: len(planted.rows)]
        hits += int(np.isin(first, planted.rows).sum())
    return LabelCheck(len(rounds[0].rows), hits / len(rounds))
