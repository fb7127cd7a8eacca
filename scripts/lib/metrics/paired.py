"""Is one experiment better than another, or was it luck? Both answered the same test images, so image by image."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scripts.lib.base.language import tr
from scripts.lib.base.problems import UserError
from scripts.lib.metrics import likeness
from scripts.lib.metrics.intervals import ALPHA, ENOUGH_SEEDS, MODELS, RECIPE, difference_interval
from scripts.lib.runs.predictions import read_answers
from scripts.lib.runs.run_folder import RunFolder

#: Of comparisons.csv, one row a pair of experiments.
COLUMNS = (
    "experiment_a", "experiment_b", "seeds", "n_images", "accuracy_a", "accuracy_b", "difference",
    "difference_ci95_low", "difference_ci95_high", "interval", "only_a_right", "only_b_right", "p_value", "p_holm",
    "p_models", "verdict",
)  # fmt: skip
#: With more experiments than this, the best is compared with each other one, and no longer everyone with everyone.
ALL_PAIRS = 10
NOT_TOLD_APART = "cannot be told apart"
TOO_FEW_SEEDS = "too few seeds to speak of the recipe"
NOT_COMPARABLE = "not comparable"
#: What leaderboard.csv says in `against_best`, besides the above.
BEST, WORSE, BETTER = "best", "worse", "better"
#: What the reader of the comparisons is told of the intervals.
INTERVALS = {
    RECIPE: "95 % interval: of how much better A is than B on new images, whatever the seeds they are trained with.",
    MODELS: "* 95 % interval: of how much better these models of A are than these of B on new images; too few seeds to"
    f" speak of the recipes ({ENOUGH_SEEDS}).",
}


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

    def without(self, files: Container[str]) -> Correct:
        """Return the same but for *files*."""
        kept = [i for i, file in enumerate(self.files) if file not in files]
        names, labels = (tuple(values[i] for i in kept) for values in (self.files, self.labels))
        return Correct(names, labels, self.right[kept], tuple(self.folds[i] for i in kept) if self.folds else ())


#: What each experiment got right, by seed.
CorrectBySeed = Mapping[str, Mapping[int, Correct]]


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


def stack_seeds(of_seeds: Mapping[int, Correct]) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return what the seeds of an experiment got right, and the folds of the images (empty without).

    Returns
    -------
    right : 1 or 0, shape (seeds, images); NaN where a seed was not tested on an image, or in another fold.
    """
    runs = list(of_seeds.values())
    if all(run.same_images(runs[0]) for run in runs):
        return np.stack([run.right for run in runs]).astype(float), runs[0].folds
    keys = [list(zip(run.files, run.labels, run.folds or (0,) * len(run.files), strict=True)) for run in runs]
    tested = [pd.Series(run.right.astype(float), index=pd.Index(key)) for run, key in zip(runs, keys, strict=True)]
    return pd.concat(tested, axis=1).to_numpy(float).T, ()


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


def compare_pairs(
    correct: CorrectBySeed, ranking: Sequence[str], groups: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Return comparisons.csv: one row a pair of experiments, the one that ranks higher as A.

    Parameters
    ----------
    correct : of each experiment, by seed.
    ranking : the experiments, the best first.
    groups : what was made alike (:func:`likeness.set_apart`); others are not compared.
    """
    pairs = list(combinations(ranking, 2)) if len(ranking) <= ALL_PAIRS else [(ranking[0], b) for b in ranking[1:]]
    rows = [
        {"experiment_a": a, "experiment_b": b, "verdict": f"{NOT_COMPARABLE}: {other}"}
        if (other := likeness.difference(a, b, groups or {}))
        else _compare(a, b, correct[a], correct[b])
        for a, b in pairs
    ]
    table = pd.DataFrame(rows, columns=[*COLUMNS, "folds"])
    table["p_holm"], table["p_models"] = (holm(table[name].astype(float).tolist()) for name in ("p_value", "p_models"))
    table["verdict"] = [row["verdict"] if pd.isna(row["p_value"]) else verdict(row) for _, row in table.iterrows()]
    whole = dict.fromkeys(("seeds", "n_images", "only_a_right", "only_b_right", "folds"), "Int64")
    table = table.astype(whole)  # also where some are missing
    folds = table.pop("folds")
    if folds.notna().any():
        table.insert(3, "folds", folds)
    return table


def _compare(name_a: str, name_b: str, a: Mapping[int, Correct], b: Mapping[int, Correct]) -> dict[str, Any]:
    names: dict[str, Any] = {"experiment_a": name_a, "experiment_b": name_b}
    try:
        right_a, right_b = pair(a, b)
    except NotComparableError as error:
        return names | {"verdict": f"{NOT_COMPARABLE}: {error}"}
    answered = right_a.astype(np.int64) - right_b
    folds = next(iter(a.values())).folds
    difference = difference_interval(answered, folds)
    low, high = difference.interval
    return names | {
        "folds": len(set(folds)) if folds else None,
        "seeds": len(answered),
        "n_images": answered.shape[1],
        "accuracy_a": right_a.mean(),
        "accuracy_b": right_b.mean(),
        "difference": difference.mean,
        "difference_ci95_low": low,
        "difference_ci95_high": high,
        "interval": difference.of,
        "only_a_right": int((answered > 0).sum()),
        "only_b_right": int((answered < 0).sum()),
        "p_value": difference.p_value,
        "p_models": difference.p_models,
    }


def verdict(row: pd.Series) -> str:
    """Say by the p-values, and by nothing else, which of the two is better, or which one's models are."""
    better = row["experiment_a"] if row["difference"] > 0 else row["experiment_b"]
    if row["interval"] == RECIPE and row["p_holm"] < ALPHA:
        return f"{better} is better"
    if (row["p_holm"] if row["interval"] == MODELS else row["p_models"]) < ALPHA:
        return f"{TOO_FEW_SEEDS}; the models of {better} are better"
    return NOT_TOLD_APART


def against_best(comparisons: pd.DataFrame, best: str) -> dict[str, str]:
    """Return what *comparisons* say of each experiment against *best*, in few words."""
    verdicts = {best: BEST}
    for _, row in comparisons[comparisons["experiment_a"] == best].iterrows():
        # On the seeds that both have, the best by all its seeds may be the worse one.
        told = WORSE if row["difference"] > 0 else BETTER
        if pd.isna(row["p_value"]):
            told = NOT_COMPARABLE
        elif row["verdict"] == NOT_TOLD_APART:
            told = NOT_TOLD_APART
        elif _is_of_models(row):
            told = TOO_FEW_SEEDS
        verdicts[str(row["experiment_b"])] = told
    return verdicts


def _is_of_models(row: pd.Series) -> bool:
    """Tell whether the verdict is about the models alone."""
    return str(row["verdict"]).startswith(f"{TOO_FEW_SEEDS};")


def cells(comparisons: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the comparisons as people read them: percentage points, rounded."""

    def points(value: float) -> str:
        return f"{round(100 * value, 1) + 0.0:+.1f}"  # never -0.0

    right = "only A, only B right, of all seeds"
    header = ["A", "B", "seeds", "images", "A - B, points", "95 % interval", right, "p", "verdict"]
    rows = []
    for _, row in comparisons.iterrows():
        numbers = ["-"] * 6
        if pd.notna(row["p_value"]):
            numbers = [
                str(row["seeds"]),
                str(row["n_images"]),
                points(row["difference"]),
                tr(f"{points(row['difference_ci95_low'])} to {points(row['difference_ci95_high'])}")
                + (" *" if row["interval"] == MODELS else ""),
                f"{row['only_a_right']}, {row['only_b_right']}",
                p_text(row["p_holm"]),
            ]
        rows.append([str(row["experiment_a"]), str(row["experiment_b"]), *numbers, tr(row["verdict"])])
    return [tr(name) for name in header], rows


def p_text(value: float) -> str:
    """Return a p-value with as many digits as say something."""
    return "< 0.0001" if value < 1e-4 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def remarks(comparisons: pd.DataFrame) -> list[str]:
    """Return what a reader of the comparisons should know."""
    remarks = [text for of, text in INTERVALS.items() if (comparisons["interval"] == of).any()]
    remarks.append("p belongs to the interval, corrected for the number of rows (Holm): below 0.05 one is better.")
    if ((comparisons["p_value"] < ALPHA) & (comparisons["p_holm"] >= ALPHA)).any():
        remarks.append(
            "Where an interval leaves out 0 although p is above 0.05, the pair alone would be told apart, but among so"
            " many pairs one may differ as much by chance."
        )
    if comparisons.apply(_is_of_models, axis=1).any():
        remarks.append(f"{TOO_FEW_SEEDS.capitalize()}: these models differ, but with other seeds it may be otherwise.")
    if "folds" in comparisons:
        remarks.append("Cross-validation: each image counts once a seed, by the model that was not trained on it.")
    return [tr(remark) for remark in remarks]
