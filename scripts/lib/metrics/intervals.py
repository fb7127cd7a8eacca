"""95 % intervals over new images and new seeds: of an experiment's accuracy, and of the difference between two.

The answers of an experiment are a table of seeds by images; with cross-validation a seed answers each image once, by
the model of its fold. Two things vary. *Images*: the variance of the images' means over the seeds, since seeds share
their images, and what is hard for one is hard for the others. *Models*: what seeds differ by beyond what their images
explain (the seeds' component of the two-way layout; Searle, Casella & McCulloch 1992, Variance Components, ch. 4),
pooled over the folds and never below 0. The first is multiplied by the normal quantile and the second by Student's,
with its degrees of freedom.

With fewer than ``LEAST_DEGREES`` of them the second cannot be known well enough to be of use: the interval is then that
of *these models* on new images. In either case the training images are the given ones: how much others would change is
in no interval. ``python -m bench.intervals`` measures what the intervals cover.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtri, stdtrit

from scripts.lib.metrics.metrics import Interval, wilson_interval

#: What an interval is of, as `interval` in leaderboard.csv and comparisons.csv says.
RECIPE, MODELS = "recipe", "these models"
ALPHA = 0.05
#: Of the models' part: three seeds, or two with folds. With a single one, Student's t is 12.7.
LEAST_DEGREES = 2
ENOUGH_SEEDS = "it takes three, or two with folds"
#: How much of what the images explain of the seeds' variance is subtracted. All of it would be right on average, but
#: with few seeds the rest is then 0 too often, and the interval too narrow.
EXPLAINED = 0.75
#: Images that are added, one for and one against, so that an interval has a width where no seed errs; of one seed, and
#: of several, whose images are worth more.
ADDED, ADDED_OF_SEVERAL = 0.5, 0.25
#: The smallest p-value that is told from 0.
LEAST_P = 1e-300


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of an experiment, with its 95 % interval."""

    mean: float  # of all answers
    interval: Interval
    of: str  # RECIPE or MODELS


@dataclass(frozen=True)
class Difference:
    """The difference of the accuracies of two experiments on the same images."""

    mean: float
    interval: Interval  # 95 %; it leaves out 0 exactly where ``p_value`` is below 5 %
    of: str  # RECIPE or MODELS: what ``interval`` and ``p_value`` are of
    p_value: float  # two-sided, of "neither is better"
    p_models: float  # the same of these models; equal to ``p_value`` where that is of them too


@dataclass(frozen=True)
class Variance:
    """The variance of a mean over seeds and images."""

    images: float
    models: float = 0.0
    degrees: int = 0  # of freedom, of ``models``

    def half_width(self, alpha: float = ALPHA) -> float:
        """Return half the width of the interval that misses the truth with probability *alpha*."""
        square = ndtri(alpha / 2) ** 2 * self.images
        if self.models:
            square += stdtrit(self.degrees, alpha / 2) ** 2 * self.models
        return float(np.sqrt(square))

    def p_value(self, mean: float) -> float:
        """Return the *alpha* whose interval around *mean* ends at 0; at least LEAST_P."""
        if not self.models:
            return max(LEAST_P, float(2 * np.exp(log_ndtr(-abs(mean) / np.sqrt(self.images)))))
        least = float(np.log(LEAST_P))
        if self.half_width(LEAST_P) <= abs(mean):
            return LEAST_P
        return float(np.exp(brentq(lambda log_p: self.half_width(np.exp(log_p)) - abs(mean), least, 0.0)))


def models_variance(values: np.ndarray, folds: Sequence[int] = ()) -> tuple[float, int]:
    """Return what the models add to the variance of the mean of *values*, and the degrees of freedom; 0, 0 of too few.

    Parameters
    ----------
    values : shape (seeds, images).
    folds : of the images; empty without cross-validation. The models of two folds are two trainings.
    """
    seeds, images = values.shape
    _, fold_of = np.unique(folds, return_inverse=True) if len(folds) else (None, np.zeros(images, int))
    n_folds = int(fold_of.max()) + 1
    if (degrees := n_folds * (seeds - 1)) < LEAST_DEGREES:
        return 0.0, 0
    variance = 0.0
    for fold in range(n_folds):
        tested = values[:, fold_of == fold] if n_folds > 1 else values
        n = tested.shape[1]
        of_seed = tested.mean(axis=1)
        residuals = tested - of_seed[:, None] - tested.mean(axis=0) + of_seed.mean()
        explained = float((residuals**2).sum()) / ((seeds - 1) * max(1, n - 1)) / n
        variance += (n / images) ** 2 * (float(of_seed.var(ddof=1)) - EXPLAINED * explained) / seeds
    return max(0.0, variance), degrees


def accuracy_interval(right: np.ndarray, folds: Sequence[int] = ()) -> Accuracy:
    """Return the accuracy of an experiment with its 95 % interval; NaN of no image.

    It is Wilson's interval of as many images as would have this variance; of one seed, of all its images.

    Parameters
    ----------
    right : shape (seeds, images), 1 or 0; NaN where a seed was not tested on an image: what seeds differ by is then
        not told from what their images do, and the interval is of these models.
    folds : of the images; empty without cross-validation.
    """
    tested = ~np.isnan(right)
    if not tested.any():
        return Accuracy(np.nan, (np.nan, np.nan), MODELS)
    mean = float(right[tested].mean())
    models, degrees = models_variance(right, folds) if tested.all() else (0.0, 0)
    effective = right.shape[1] / _image_share(right, tested)
    if models:
        quantiles = stdtrit(degrees, ALPHA / 2) / ndtri(ALPHA / 2)
        effective = 1 / (1 / effective + quantiles**2 * models / (mean * (1 - mean)))
    return Accuracy(mean, wilson_interval(mean * effective, effective), RECIPE if degrees else MODELS)


def _image_share(right: np.ndarray, tested: np.ndarray) -> float:
    """Return the images' variance as a share of that of one seed: 1 where all seeds agree, 1 / seeds at the least."""
    if len(right) == 1:
        return 1.0
    seeds = tested.sum(axis=0).mean()  # of an image
    added, images = ADDED_OF_SEVERAL, right.shape[1]
    mean = (np.nansum(right) / seeds + added) / (images + 2 * added)
    of_image = np.where(tested, right - mean, 0).sum(axis=0) / seeds
    squares = float((of_image**2).sum()) + added * (mean**2 + (1 - mean) ** 2)
    return float(squares / ((images + 2 * added) * mean * (1 - mean)))


def difference_interval(difference: np.ndarray, folds: Sequence[int] = ()) -> Difference:
    """Return the difference of two accuracies with its 95 % interval and its p-values.

    A part of an image that only A gets right is added, and of one that only B does (after Bonett & Price 2012, J. Educ.
    Behav. Stat. 37, 479-488, who add a whole one): without them two experiments that agree on all images would have an
    interval of no width. Of one seed the p-value is that of McNemar's test (1947, Psychometrika 12, 153-157), nearly.

    Parameters
    ----------
    difference : of each seed and image 1 where only A is right, -1 where only B is, else 0; shape (seeds, images).
    folds : of the images; empty without cross-validation.
    """
    of_image = difference.mean(axis=0)
    added = ADDED if len(difference) == 1 else ADDED_OF_SEVERAL
    images = len(of_image) + 2 * added
    mean, centre = float(of_image.mean()), float(of_image.sum()) / images
    of_images = (float((of_image**2).sum() + 2 * added) / images - centre**2) / images
    variance = Variance(of_images, *models_variance(difference, folds))
    half = variance.half_width()
    return Difference(
        mean,
        (max(-1.0, min(mean, centre - half)), min(1.0, max(mean, centre + half))),
        RECIPE if variance.degrees else MODELS,
        variance.p_value(centre),
        Variance(of_images).p_value(centre),
    )
