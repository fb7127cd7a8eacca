"""Is one experiment better than another, or was it luck? Both answered the same test images, so image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.stats import binom

from scripts.lib.base.problems import UserError
from scripts.lib.runs.predictions import read_answers
from scripts.lib.runs.run_folder import RunFolder

#: Of comparisons.csv, one row a pair of experiments.
COLUMNS = (
    "experiment_a", "experiment_b", "seeds", "n_images", "accuracy_a", "accuracy_b", "difference",
    "difference_ci95_low", "difference_ci95_high", "only_a_right", "only_b_right", "p_value", "p_holm", "verdict",
)  # fmt: skip
#: With more experiments than this, the best is compared with each other one, and no longer everyone with everyone.
ALL_PAIRS = 10
ALPHA = 0.05
RESAMPLES = 10_000
NOT_TOLD_APART = "cannot be told apart"
NOT_COMPARABLE = "not comparable"
#: What leaderboard.csv says in `against_best`.
BEST, WORSE, BETTER = "best", "worse", "better"

Interval = tuple[float, float]
#: Of each seed and image: 1 where only A is right, -1 where only B is, else 0; int, shape (seeds, images).
Difference = np.ndarray


@dataclass(frozen=True)
class Correct:
    """Which test images a run got right."""

    files: tuple[str, ...]  # n names, sorted
    labels: tuple[str, ...]  # n class names, in the order of the files
    right: np.ndarray  # bool, shape (n,)
    folds: tuple[int, ...] = ()  # of cross-validation, the fold in which each image was tested; else empty

    def same_images(self, other: Correct) -> bool:
        """Tell whether *other* is about the same images with the same labels, in the same folds."""
        return (self.files, self.labels, self.folds) == (other.files, other.labels, other.folds)


class NotComparableError(Exception):
    """Two experiments have no test images in common; the message says why."""


def read_correct(folder: Path) -> Correct:
    """Read predictions.csv of a run; its order of images and of classes does not matter.

    Raises
    ------
    UserError : it is missing, or not a file of this form.
    """
    table = read_answers(RunFolder(folder).predictions).sort_values("file", kind="stable")
    right = (table["label"] == table["prediction"]).to_numpy()
    return Correct(tuple(table["file"]), tuple(table["label"]), right)


def join_folds(of_folds: Mapping[int, Correct]) -> Correct:
    """Return what one seed got right of all images: each by the model that did not see it in training.

    Parameters
    ----------
    of_folds : what each fold's model got right of its own test images.

    Raises
    ------
    UserError : two folds test the same image.
    """
    rows = sorted(
        (name, label, bool(right), fold)
        for fold, correct in of_folds.items()
        for name, label, right in zip(correct.files, correct.labels, correct.right, strict=True)
    )
    files, labels, right, folds = zip(*rows, strict=True)
    if len(set(files)) < len(files):
        twice = next(name for name, following in pairwise(files) if name == following)
        raise UserError(f"{twice}: tested in more than one fold: these runs are not of one cross-validation")
    return Correct(files, labels, np.array(right), folds)


def pair(a: Mapping[int, Correct], b: Mapping[int, Correct]) -> tuple[np.ndarray, np.ndarray]:
    """Return which images A and B got right: two bool arrays of shape (seeds, images), for the seeds that both have.

    Parameters
    ----------
    a, b : what an experiment got right, by seed.

    Raises
    ------
    NotComparableError : they have no seed in common, or not all of these runs are tested on the same images.
    """
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        raise NotComparableError("no seed in common")
    runs = [experiment[seed] for experiment in (a, b) for seed in seeds]
    if not all(run.same_images(runs[0]) for run in runs):
        raise NotComparableError("other test images")
    right_a, right_b = (np.stack([experiment[seed].right for seed in seeds]) for experiment in (a, b))
    return right_a, right_b


def paired_p_value(difference: Difference) -> float:
    """Return the two-sided exact p-value of "neither is better", for these trained models and other test images.

    With one seed it is McNemar's test (1947, Psychometrika 12, 153-157) in its exact form: each image that only one of
    the two got right is the toss of a fair coin. Of the tests of two classifiers on one test set, Dietterich (1998,
    Neural Computation 10, 1895-1923) found it to keep its level. It errs on the side of finding nothing: the mid-p
    value (Fagerland, Lydersen & Laake 2013, BMC Med. Res. Methodol. 13:91) has more power, but may exceed its level.

    With several seeds the tosses are the images, not the answers: an image that is hard for one seed is hard for the
    others, and adding up the seeds' tables would count it several times. The sign of an image's sum over the seeds is
    the coin; the distribution of the sum over all images is computed, not simulated.
    """
    of_image = difference.sum(axis=0, dtype=np.int64)
    sizes, counts = np.unique(np.abs(of_image[of_image != 0]), return_counts=True)
    chances = np.ones(1)  # of 0, 1, ...: the sizes of the images whose coin shows A
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        of_size = np.zeros(size * count + 1)
        of_size[::size] = binom.pmf(np.arange(count + 1), count, 0.5)
        chances = np.convolve(chances, of_size)
    total = len(chances) - 1
    as_far = np.abs(2 * np.arange(total + 1) - total) >= abs(int(of_image.sum()))
    return min(1.0, float(chances[as_far].sum()))


def paired_interval(difference: Difference, resamples: int = RESAMPLES) -> Interval:
    """Return the 95 % interval of the difference of the accuracies, by resampling: other test images, other seeds.

    The images are drawn with replacement (Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 13), each
    with its answers of all seeds, since the seeds share them. One image is added that only A gets right and one that
    only B does (Bonett & Price 2012, J. Educ. Behav. Stat. 37, 479-488): without them two experiments that agree on
    all images would have an interval of no width.

    With one seed this is all: what other test images would say of *these* models. With several, each resample also
    gets what other seeds would bring: Student's t times the deviation between seeds that is beyond what their images
    explain (the seeds' component of the two-way layout; Searle, Casella & McCulloch 1992, Variance Components, ch. 4).
    Drawing the seeds themselves with replacement would make it too narrow: there are but ten ways to draw three of
    three.

    By simulation it covers 94-99 %, and 91 % for two seeds that differ more than the images do; with seeds drawn
    instead, 82 % for three such seeds and 79 % for two.
    """
    rng = np.random.default_rng(0)
    seeds, images = difference.shape
    of_image = difference.sum(axis=0, dtype=np.int64)
    values, counts = np.unique(np.append(of_image, [-seeds, seeds]), return_counts=True)
    drawn = rng.multinomial(images + 2, counts / (images + 2), size=resamples)
    means = drawn @ values / (seeds * (images + 2))
    if seeds > 1:
        means += seed_deviation(difference) * rng.standard_t(seeds - 1, size=resamples)
    low, high = np.quantile(means, [0.025, 0.975])
    estimate = float(difference.mean())
    return max(-1.0, min(estimate, float(low))), min(1.0, max(estimate, float(high)))


def fold_interval(difference: Difference, folds: Sequence[int]) -> Interval:
    """Return the 95 % interval of the difference of the accuracies by cross-validation: other images to train on too.

    The corrected t interval of the folds' differences, each the mean over the seeds (``corrected_half_width``).

    Parameters
    ----------
    folds : of the images.
    """
    of_image = pd.Series(difference.mean(axis=0))
    of_fold = of_image.groupby(np.asarray(folds)).mean().to_numpy()
    half = corrected_half_width(of_fold)
    return max(-1.0, float(of_fold.mean()) - half), min(1.0, float(of_fold.mean()) + half)


def corrected_half_width(of_fold: np.ndarray) -> float:
    """Return half the 95 % interval of the mean over the folds of a cross-validation.

    The folds share most of their training images, so that their results vary together, and the usual t interval is far
    too narrow; no unbiased estimate of their variance exists (Bengio & Grandvalet 2004, J. Mach. Learn. Res. 5,
    1089-1105). Nadeau & Bengio (2003, Inference for the Generalization Error, Machine Learning 52, 239-281) replace
    1/k by 1/k + n_test/n_train, here 1/k + 1/(k-1): they derive it for splits drawn at random, and it is the usual
    correction for k folds (Bouckaert & Frank 2004, PAKDD, LNCS 3056, 3-12).

    Parameters
    ----------
    of_fold : shape (folds,), at least 2; where there are several seeds, their mean. Seeds are no further folds: those
        of one fold share all their images.
    """
    k = len(of_fold)
    return float(stats.t.ppf(0.975, k - 1) * np.std(of_fold, ddof=1) * np.sqrt(1 / k + 1 / (k - 1)))


def seed_deviation(difference: Difference) -> float:
    """Return the standard deviation that the choice of seeds gives the mean *difference*; 0 where none is seen."""
    seeds, images = difference.shape
    of_seed = difference.mean(axis=1)
    residuals = difference - of_seed[:, None] - difference.mean(axis=0) + difference.mean()
    residual_variance = float((residuals**2).sum()) / ((seeds - 1) * max(1, images - 1))
    variance = float(of_seed.var(ddof=1)) - residual_variance / images
    return float(np.sqrt(max(0.0, variance) / seeds))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that count how many were looked at; what is below 5 % is below it whatever else was tested.

    Holm (1979), A simple sequentially rejective multiple test procedure, Scand. J. Stat. 6, 65-70. NaN stays NaN and
    does not count.
    """
    values = np.asarray(p_values, dtype=float)
    order = np.argsort(values, kind="stable")[: int(np.isfinite(values).sum())]
    adjusted = np.full(len(values), np.nan)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)))
    return adjusted.tolist()


def compare_pairs(correct: Mapping[str, Mapping[int, Correct]], ranking: Sequence[str]) -> pd.DataFrame:
    """Return comparisons.csv: one row a pair of experiments, the one that ranks higher as A.

    The verdict is that one is better where the p-value, after Holm, is below 5 % and the interval leaves out 0.

    Parameters
    ----------
    correct : of each experiment, by seed.
    ranking : the experiments, the best first.
    """
    pairs = list(combinations(ranking, 2)) if len(ranking) <= ALL_PAIRS else [(ranking[0], b) for b in ranking[1:]]
    rows = [_compare(a, b, correct[a], correct[b]) for a, b in pairs]
    for row, p_holm in zip(rows, holm([row.get("p_value", np.nan) for row in rows]), strict=True):
        row["p_holm"] = p_holm
        row.setdefault("verdict", _verdict(row))
    whole = dict.fromkeys(("seeds", "n_images", "only_a_right", "only_b_right"), "Int64")  # where there are none too
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(whole)
    if any("folds" in row for row in rows):
        table.insert(3, "folds", pd.Series([row.get("folds") for row in rows], dtype="Int64"))
    return table


def _compare(name_a: str, name_b: str, a: Mapping[int, Correct], b: Mapping[int, Correct]) -> dict[str, Any]:
    names: dict[str, Any] = {"experiment_a": name_a, "experiment_b": name_b}
    try:
        right_a, right_b = pair(a, b)
    except NotComparableError as error:
        return names | {"verdict": f"{NOT_COMPARABLE}: {error}"}
    difference = right_a.astype(np.int64) - right_b
    low, high = paired_interval(difference)
    folds = next(iter(a.values())).folds
    if len(set(folds)) > 1:
        # The wider of the two at each end: few folds may agree by chance.
        ends = fold_interval(difference, folds)
        low, high = min(low, ends[0]), max(high, ends[1])
        names |= {"folds": len(set(folds))}
    return names | {
        "seeds": len(difference),
        "n_images": difference.shape[1],
        "accuracy_a": right_a.mean(),
        "accuracy_b": right_b.mean(),
        "difference": difference.mean(),
        "difference_ci95_low": low,
        "difference_ci95_high": high,
        "only_a_right": int((difference > 0).sum()),
        "only_b_right": int((difference < 0).sum()),
        "p_value": paired_p_value(difference),
    }


def _verdict(row: Mapping[str, Any]) -> str:
    if row["p_holm"] < ALPHA and row["difference_ci95_low"] > 0:
        return f"{row['experiment_a']} is better"
    if row["p_holm"] < ALPHA and row["difference_ci95_high"] < 0:
        return f"{row['experiment_b']} is better"
    return NOT_TOLD_APART


def against_best(comparisons: pd.DataFrame, best: str) -> dict[str, str]:
    """Return what *comparisons* say of each experiment against *best*, in one word or two."""
    verdicts = {best: BEST}
    for _, row in comparisons[comparisons["experiment_a"] == best].iterrows():
        # On the seeds that both have, the best by all its seeds may be the worse one.
        told = WORSE if row["difference"] > 0 else BETTER
        verdict = NOT_COMPARABLE if pd.isna(row["p_value"]) else told
        verdicts[str(row["experiment_b"])] = NOT_TOLD_APART if row["verdict"] == NOT_TOLD_APART else verdict
    return verdicts


def cells(comparisons: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the comparisons as people read them: percentage points, rounded."""

    def points(value: float) -> str:
        return f"{round(100 * value, 1) + 0.0:+.1f}"  # never -0.0

    header = ["A", "B", "seeds", "images", "A - B, points", "95 % interval", "only A, only B right", "p", "verdict"]
    rows = []
    for _, row in comparisons.iterrows():
        numbers = ["-"] * 6
        if pd.notna(row["p_value"]):
            numbers = [
                str(row["seeds"]),
                str(row["n_images"]),
                points(row["difference"]),
                f"{points(row['difference_ci95_low'])} to {points(row['difference_ci95_high'])}",
                f"{row['only_a_right']}, {row['only_b_right']}",
                p_text(row["p_holm"]),
            ]
        rows.append([str(row["experiment_a"]), str(row["experiment_b"]), *numbers, str(row["verdict"])])
    return header, rows


def p_text(value: float) -> str:
    """Return a p-value with as many digits as say something."""
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def remarks(comparisons: pd.DataFrame) -> list[str]:
    """Return what a reader of the comparisons should know."""
    remarks = [
        "p: McNemar's exact test, corrected for the number of rows (Holm). One is called better where it is below 0.05 "
        "and the interval leaves out 0."
    ]
    seeds = comparisons["seeds"].dropna()
    if "folds" in comparisons:
        remarks.append(
            "Cross-validation: each image counts once a seed, by the model that was not trained on it. p is of these "
            "trained models; the interval is over folds too (Nadeau & Bengio's corrected t) and still a little narrow."
        )
    if (seeds == 1).any():
        remarks.append("One seed: of these trained models, on other test images; other seeds may turn it round.")
    if (seeds > 1).any():
        remarks.append("Several seeds: the interval is over other test images and other seeds.")
    return remarks
