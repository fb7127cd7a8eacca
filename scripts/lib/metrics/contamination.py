"""Contaminated test images (train or val as given holds copies of them): the accuracy with and without them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from scripts.lib.base.language import tr
from scripts.lib.data.findings import CONTAMINATED, read_findings, still_trained_on
from scripts.lib.metrics.intervals import accuracy_interval
from scripts.lib.metrics.paired import Correct, CorrectBySeed, stack_seeds

#: Columns that leaderboard.csv gets where the test split is contaminated, and only there.
WITHOUT, COUNT = "accuracy_without_leaked", "n_leaked"
RED, PLAIN = "\x1b[31m", "\x1b[0m"


@dataclass(frozen=True)
class Contamination:
    """The contaminated test images, and what they change."""

    test_images: int  # how many there are, over all runs
    contaminated: int  # those with a copy, a near copy or one of their group in a lower split as given
    trained_on: int  # of them, those whose counterpart was not left out of training: images of a known group
    #: One row an experiment: ``experiment``, ``runs``, ``n_contaminated``, ``n_rest`` (texts), and the accuracies
    #: ``with`` and ``without``, each followed by ``_low`` and ``_high``, the ends of its 95 % interval.
    table: pd.DataFrame


def find_contamination(correct: CorrectBySeed, audit: Path) -> Contamination | None:
    """Return the contaminated test images of what each experiment got right, by seed; None where there are none.

    Raises
    ------
    UserError : audit.csv is missing, or not a file of this form.
    """
    findings = read_findings(audit)
    contaminated = {row.file for row in findings if row.finding == CONTAMINATED}
    tested = {file for of_seeds in correct.values() for run in of_seeds.values() for file in run.files}
    if not tested & contaminated:
        return None  # given val images with copies in train, or test images of classes that are not used, or none
    rows = []
    for experiment, of_seeds in correct.items():
        clean = {seed: run.without(contaminated) for seed, run in of_seeds.items()}
        rows.append(
            {
                "experiment": experiment,
                "runs": sum(max(1, len(set(run.folds))) for run in of_seeds.values()),
                "n_contaminated": _sizes(len(of_seeds[seed].files) - len(rest.files) for seed, rest in clean.items()),
                "n_rest": _sizes(len(rest.files) for rest in clean.values()),
                **_ends("with", of_seeds),
                **_ends("without", clean),
            }
        )
    trained_on = tested.intersection(still_trained_on(findings))
    return Contamination(len(tested), len(tested & contaminated), len(trained_on), pd.DataFrame(rows))


def _sizes(sizes: Iterable[int]) -> str:
    return "/".join(map(str, sorted(set(sizes))))


def _ends(name: str, of_seeds: Mapping[int, Correct]) -> dict[str, float]:
    """Return the mean accuracy over the seeds and the ends of its 95 % interval, as the leaderboard has them."""
    accuracy = accuracy_interval(*stack_seeds(of_seeds))
    return {name: accuracy.mean, f"{name}_low": accuracy.interval[0], f"{name}_high": accuracy.interval[1]}


def add_columns(leaderboard: pd.DataFrame, contamination: Contamination | None) -> pd.DataFrame:
    """Return leaderboard.csv with the columns WITHOUT and COUNT; unchanged where no test image is contaminated."""
    if contamination is None:
        return leaderboard
    table = contamination.table.set_index("experiment")
    columns = {WITHOUT: "without", COUNT: "n_contaminated"}
    return leaderboard.assign(**{name: leaderboard["experiment"].map(table[of]) for name, of in columns.items()})


def cells(contamination: Contamination, ranking: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the accuracies as people read them, the experiments in the order of *ranking*."""
    interval = "95 % interval"
    header = ["experiment", "runs", "top-1 % with them", interval, "without them", interval, "images left"]
    rows = [
        [str(row["experiment"]), str(row["runs"]), *_interval(row, "with"), *_interval(row, "without"), row["n_rest"]]
        for _, row in contamination.table.set_index("experiment").loc[list(ranking)].reset_index().iterrows()
    ]
    return [tr(name) for name in header], rows


def terminal_line(leaderboard: pd.DataFrame, colour: bool = False) -> str:
    """Return a terminal's line about contaminated test images, with its end of line; empty where there are none.

    Parameters
    ----------
    leaderboard : leaderboard.csv.
    colour : in red.
    """
    if COUNT not in leaderboard or leaderboard.empty:
        return ""
    best = leaderboard.iloc[0]
    text = tr(
        f"The test split is contaminated: train or val as given holds {best[COUNT]} of {best['n_test']} test images, or"
        " images like them, see audit.html."
    )
    if pd.notna(best[WITHOUT]):
        text += tr(
            f" Without them {best['experiment']} has {_percent(best[WITHOUT])} %, instead of"
            f" {_percent(best['accuracy_top1_mean'])} %."
        )
    return f"{RED}{text}{PLAIN}\n" if colour else f"{text}\n"


def _interval(row: pd.Series, name: str) -> tuple[str, str]:
    if pd.isna(row[name]):
        return "-", "-"
    return _percent(row[name]), tr(f"{_percent(row[f'{name}_low'])} to {_percent(row[f'{name}_high'])}")


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
