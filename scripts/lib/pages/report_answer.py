"""What report.html begins with: what accuracy to expect, which experiment is best, what is wrong with the data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from scripts.lib.base.files import read_json
from scripts.lib.base.language import tr
from scripts.lib.base.units import plural
from scripts.lib.data.label_suspects import read_suspects
from scripts.lib.metrics import contamination, paired
from scripts.lib.metrics.intervals import RECIPE
from scripts.lib.pages import data_summary
from scripts.lib.pages.report_run import Images, RunReport

#: A class with fewer test images has an interval of 20 points or more, unless (nearly) all are right.
FEW_TEST_IMAGES = 30
#: A class is weak where its recall is so far below the mean of all.
WEAK = 0.1
#: Classes with so many times the training images of the smallest are called imbalanced.
IMBALANCED = 3.0
#: The finding advises nothing: what findings.yaml says in each language.
NOTHING_TO_DO = ("Nothing has to be done", "不需要处理", "无需处理")
#: Experiments that one sentence names.
LISTED = 6


@dataclass(frozen=True)
class Answer:
    """What a reader wants to know first."""

    best: str
    mean: float
    low: float
    high: float
    of_recipe: bool  # the interval is of models trained likewise; else of these models
    floor: float | None  # always the most frequent class
    n_test: str
    experiments: int
    runs: int
    equal: list[str]  # experiments that cannot be told from the best
    few_seeds: list[str]  # whose models differ, but too few seeds to speak of the recipe
    worse: list[str]
    not_comparable: list[str]
    control: bool  # the best was trained on shuffled labels
    without_contaminated: float | None  # the accuracy without contaminated test images
    contaminated: int
    fastest_equal: str  # of the best and its equals the fastest to train; empty where it is the best, or alone

    @property
    def certain(self) -> bool:
        """Tell whether the best is better than every other by paired tests."""
        return not (self.equal or self.few_seeds or self.not_comparable)

    @property
    def certain_of_models(self) -> bool:
        """Tell whether these models are better than every other, too few seeds to say it of the recipe."""
        return bool(self.few_seeds) and not (self.equal or self.not_comparable)


def answer(board: pd.DataFrame, runs: int) -> Answer:
    """Return the answer of a leaderboard, best first."""
    best = board.iloc[0]
    by_verdict: dict[str, list[str]] = {}
    for name, verdict in zip(board["experiment"].iloc[1:], board["against_best"].iloc[1:], strict=True):
        by_verdict.setdefault(str(verdict), []).append(str(name))
    equal = [*by_verdict.get(paired.NOT_TOLD_APART, []), *by_verdict.get(paired.BETTER, [])]
    times = board.set_index("experiment")["train_seconds_mean"]
    candidates = times[[str(best["experiment"]), *equal]]
    fastest = str(candidates.idxmin()) if equal and candidates.notna().all() else ""
    without = best.get(contamination.WITHOUT)
    return Answer(
        best=str(best["experiment"]),
        mean=float(best["accuracy_top1_mean"]),
        low=float(best["accuracy_top1_ci95_low"]),
        high=float(best["accuracy_top1_ci95_high"]),
        of_recipe=best["interval"] == RECIPE,
        floor=None if pd.isna(best["accuracy_majority"]) else float(best["accuracy_majority"]),
        n_test=str(best["n_test"]),
        experiments=len(board),
        runs=runs,
        equal=equal,
        few_seeds=by_verdict.get(paired.TOO_FEW_SEEDS, []),
        worse=by_verdict.get(paired.WORSE, []),
        not_comparable=by_verdict.get(paired.NOT_COMPARABLE, []),
        control=bool(best.get("remark")),
        without_contaminated=None if without is None or pd.isna(without) else float(without),
        contaminated=0 if without is None or pd.isna(without) else int(str(best[contamination.COUNT]).split("/")[0]),
        fastest_equal="" if fastest == best["experiment"] else fastest,
    )


def listed(names: Sequence[str]) -> str:
    """Return names in one line, of many only the first.

    >>> listed(["a", "b"])
    'a, b'
    """
    shown = names if len(names) <= LISTED else names[: LISTED - 1]
    more = len(names) - len(shown)
    return ", ".join(shown) + (tr(f" and {more} more") if more else "")


@dataclass(frozen=True)
class Suspect:
    """An image whose label may be wrong.

    Attributes
    ----------
    image, suggested : its number, and the class that it may be of.
    of : how many of the runs that were tested on it say so, as ``3/4``; or its split, of a row of label_suspects.csv.
    """

    image: int
    suggested: int
    of: str


def common_suspects(runs: Sequence[RunReport]) -> list[Suspect]:
    """Return the labels to check that at least half of the runs agree on, those most agree on first."""
    votes: dict[int, Counter[int]] = {}
    order: dict[int, int] = {}
    for run in runs:
        for position, (image, suggested, *_) in enumerate(run.suspects):
            votes.setdefault(image, Counter())[suggested] += 1
            order[image] = min(order.get(image, position), position)
    if not votes:
        return []
    tested: Counter[int] = Counter()
    for run in runs:
        tested.update(votes.keys() & set(run.images or ()))
    agreed = []
    for image, of_image in votes.items():
        suggested, agreeing = of_image.most_common(1)[0]
        if 2 * agreeing >= tested[image]:
            share = -agreeing / tested[image]
            agreed.append((share, order[image], Suspect(image, suggested, f"{agreeing}/{tested[image]}")))
    return [suspect for *_, suspect in sorted(agreed, key=lambda entry: (*entry[:2], entry[2].image))]


def judged_suspects(path: Path, images: Images, classes: Sequence[str]) -> list[Suspect] | None:
    """Return the rows of label_suspects.csv, which are of all splits, in their order.

    None where there is no such file, or where the classifier that wrote it was too weak to doubt labels.

    Raises
    ------
    UserError : the file is not of this form.
    """
    summary = path.with_suffix(".json")
    if not path.is_file() or (summary.is_file() and read_json(summary).get("is_weak")):
        return None
    label_of = {name: label for label, name in enumerate(classes)}
    return [
        Suspect(images.index(row.path, label_of[row.label]), label_of[row.suggested], row.split)
        for row in read_suspects(path)
        if row.label in label_of and row.suggested in label_of
    ]


@dataclass(frozen=True)
class DataLine:
    """Something that is wrong with the data, and what to do."""

    what: str
    done: str
    advice: str


def findings_of(summary: Mapping[str, Any]) -> list[DataLine]:
    """Return a line for each kind of finding of the audit, what matters most first."""
    known, lines = data_summary.meanings(), []
    for name in data_summary.order_of(summary["findings"]):
        meaning = known.get(name, {})
        count = tr(plural(summary["findings"][name], "image"))
        advice = str(meaning.get("advice", ""))
        advice = "" if advice.startswith(NOTHING_TO_DO) else advice
        title = f"{meaning.get('title', name)}{tr(': ')}{count}"
        lines.append(DataLine(title, str(meaning.get("done", "")), advice))
    return lines


def feature_lines(summary: Mapping[str, Any]) -> list[DataLine]:
    """Return what the features of a pretrained network say about the data, by label_suspects.json ({}: nothing)."""
    lines = []
    suspects = 0 if summary.get("is_weak") else summary.get("suspects", 0)
    odd = len(summary.get("odd_ones_out", ()))
    alike, divided = classes_alike(summary), classes_divided(summary)
    used = tr("They are used as they are.")
    if suspects:
        advice = tr("Correct what is wrong in label_suspects.html, and run again with what it saves (corrections.csv).")
        lines.append(DataLine(tr(f"labels that may be wrong: {plural(suspects, 'image')}"), used, advice))
    if alike:
        advice = tr("If people cannot tell them apart either, make them one class.")
        lines.append(DataLine(tr(f"classes that cannot be told apart: {listed(alike)}"), "", advice))
    if divided:
        advice = tr("See both groups in label_suspects.html; if they are two kinds, give each a class of its own.")
        lines.append(DataLine(tr(f"classes that look like two: {listed(divided)}"), "", advice))
    if odd:
        advice = tr("See them in label_suspects.html, and remove what does not belong to this data set.")
        lines.append(DataLine(tr(f"images unlike all others: {plural(odd, 'image')}"), used, advice))
    return lines


def classes_alike(summary: Mapping[str, Any]) -> list[str]:
    """Return the pairs of classes that nothing tells apart, by label_suspects.json (an older one says nothing)."""
    return [f"{pair['first']} / {pair['second']}" for pair in summary.get("pairs", ()) if pair.get("are_one")]


def classes_divided(summary: Mapping[str, Any]) -> list[str]:
    """Return the classes that look like two, by label_suspects.json (an older one says nothing)."""
    return [entry["class"] for entry in summary.get("two_groups", ())]


def class_lines(run: RunReport, classes: Sequence[str]) -> list[DataLine]:
    """Return what the numbers of images and the recalls of classes say about the data, by the best experiment's run."""
    lines = []
    trained = [row[1] for row in run.classes if row[1] is not None]
    if trained and min(trained) > 0 and max(trained) >= IMBALANCED * min(trained):
        factor = f"{max(trained) / min(trained):.1f}"
        smallest, largest = min(trained), max(trained)
        lines.append(
            DataLine(
                tr(f"classes of unequal size: {smallest} to {largest} training images ({factor} times)"),
                "",
                tr("Collect images of the small classes, or set balance (docs/settings.md)."),
            )
        )
    weak = weak_classes(run)
    if weak:
        named = listed([f"{classes[label]} ({100 * run.classes[label][3]:.0f} %)" for label in weak])
        lines.append(
            DataLine(
                tr(f"classes that are recognised least: {named}"),
                "",
                tr("Look at their errors below; more, and more varied, training images of them help most."),
            )
        )
    counts = [row[0] for row in run.classes if row[0] > 0]
    if few := sum(count < FEW_TEST_IMAGES for count in counts):
        lines.append(
            DataLine(
                tr(f"classes with fewer than {FEW_TEST_IMAGES} test images: {few} of {len(counts)}"),
                "",
                tr("Do not read much into a difference between single classes; more test images narrow the intervals."),
            )
        )
    return lines


def weak_classes(run: RunReport) -> list[int]:
    """Return the classes whose recall is far below the mean of all, the lowest first."""
    known = [(row[3], label) for label, row in enumerate(run.classes) if row[0] > 0]
    mean = sum(recall for recall, _ in known) / len(known)
    return [label for recall, label in sorted(known) if recall < mean - WEAK]


def suspect_rows(suspects: Sequence[Suspect], images: Images, classes: Sequence[str]) -> list[tuple[str, ...]]:
    """Return file, label, suggested class, and how many runs say so or the split, of each label to check."""
    return [
        (
            images.files[suspect.image],
            classes[images.labels[suspect.image]],
            classes[suspect.suggested],
            tr(suspect.of),
        )
        for suspect in suspects
    ]
