"""Contaminated test images (train or val as given holds copies of them): the accuracy with and without them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from scripts.lib.data.findings import CONTAMINATED, read_findings, still_trained_on
from scripts.lib.metrics.metrics import Interval, wilson_interval
from scripts.lib.metrics.paired import read_correct

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


def find_contamination(runs: pd.DataFrame, audit: Path) -> Contamination | None:
    """Return the contaminated test images of *runs* (``experiment``, ``folder``); None where there are none.

    Raises
    ------
    UserError : audit.csv or a predictions.csv is missing, or not a file of this form.
    """
    findings = read_findings(audit)
    contaminated = {row.file for row in findings if row.finding == CONTAMINATED}
    if not contaminated:
        return None
    tested: set[str] = set()
    rows = []
    for experiment, of_experiment in runs.groupby("experiment", sort=False):
        correct = [read_correct(Path(folder)) for folder in of_experiment["folder"]]
        tested.update(*(run.files for run in correct))
        masks = [np.isin(run.files, list(contaminated)) for run in correct]
        accuracies = {
            "with": accuracy([run.right for run in correct]),
            "without": accuracy([run.right[~mask] for run, mask in zip(correct, masks, strict=True)]),
        }
        rows.append(
            {
                "experiment": experiment,
                "runs": len(correct),
                "n_contaminated": _sizes(int(mask.sum()) for mask in masks),
                "n_rest": _sizes(int((~mask).sum()) for mask in masks),
                **{
                    f"{name}{end}": value
                    for name, values in accuracies.items()
                    for end, value in zip(("", "_low", "_high"), values, strict=True)
                },
            }
        )
    if not tested & contaminated:
        return None  # given val images with copies in train, or test images of classes that are not used
    trained_on = tested.intersection(still_trained_on(findings))
    return Contamination(len(tested), len(tested & contaminated), len(trained_on), pd.DataFrame(rows))


def _sizes(sizes: Iterable[int]) -> str:
    return "/".join(map(str, sorted(set(sizes))))


def accuracy(runs: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Return the mean accuracy over *runs* and its 95 % interval, as the leaderboard has it.

    Student's t over two runs or more, within 0 to 1; Wilson's over the images of a single one. NaN without an image.

    Parameters
    ----------
    runs : of each run, which images are correct, bool of shape (images,).
    """
    if any(len(correct) == 0 for correct in runs):
        return np.nan, np.nan, np.nan
    values = np.array([correct.mean() for correct in runs])
    mean = float(values.mean())
    interval: Interval
    if len(values) == 1:
        interval = wilson_interval(int(runs[0].sum()), len(runs[0]))
    else:
        half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
        interval = max(0.0, mean - half), min(1.0, mean + half)
    return mean, *interval


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
    return header, rows


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
    text = (
        f"The test split is contaminated: train or val as given holds {best[COUNT]} of {best['n_test']} test images, or"
        " images like them, see audit.html."
    )
    if pd.notna(best[WITHOUT]):
        text += (
            f" Without them {best['experiment']} has {_percent(best[WITHOUT])} %, instead of"
            f" {_percent(best['accuracy_top1_mean'])} %."
        )
    return f"{RED}{text}{PLAIN}\n" if colour else f"{text}\n"


def _interval(row: pd.Series, name: str) -> tuple[str, str]:
    if pd.isna(row[name]):
        return "-", "-"
    return _percent(row[name]), f"{_percent(row[f'{name}_low'])} to {_percent(row[f'{name}_high'])}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
