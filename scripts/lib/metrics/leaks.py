"""Test images that the given train or val holds too: what each experiment's accuracy is with and without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from scripts.lib.base.units import in_percent
from scripts.lib.data.audit_summary import still_trained_on
from scripts.lib.data.findings import CONTAMINATED, read_findings
from scripts.lib.metrics.metrics import Interval, wilson_interval
from scripts.lib.metrics.paired import read_answers

#: Columns that leaderboard.csv gets where the data leaks, and only there.
WITHOUT, COUNT = "accuracy_without_leaked", "n_leaked"
RED, PLAIN = "\x1b[31m", "\x1b[0m"


@dataclass(frozen=True)
class Leak:
    """What leaks of the test images.

    Attributes
    ----------
    test_images : how many there are, over all runs.
    leaked : those that have a copy, a near copy or one of their group in a lower given part.
    trained_on : those of them whose like was not left out of training: images of a known group.
    table : one row an experiment: ``experiment``, ``runs``, ``n_leaked``, ``n_rest`` (texts), and ``with_leaked`` and
        ``without_leaked``, each followed by ``_low`` and ``_high``, the ends of its 95 % interval.
    """

    test_images: int
    leaked: int
    trained_on: int
    table: pd.DataFrame


def find_leak(runs: pd.DataFrame, audit: Path) -> Leak | None:
    """Return what leaks of the test images of *runs* (``experiment``, ``folder``); None where nothing does.

    Raises
    ------
    UserError : audit.csv or a predictions.csv is missing, or not a file of this form.
    """
    findings = read_findings(audit)
    leaked = {row.file for row in findings if row.finding == CONTAMINATED}
    if not leaked:
        return None
    tested: set[str] = set()
    rows = []
    for experiment, of_experiment in runs.groupby("experiment", sort=False):
        answers = [read_answers(Path(folder)) for folder in of_experiment["folder"]]
        tested.update(*(run.files for run in answers))
        rows.append(
            {"experiment": experiment, "runs": len(answers)}
            | compare_with_and_without([(run.right, np.isin(run.files, list(leaked))) for run in answers])
        )
    if not tested & leaked:
        return None  # given val images that leak, or test images of classes that are not used
    trained_on = tested.intersection(still_trained_on(findings))
    return Leak(len(tested), len(tested & leaked), len(trained_on), pd.DataFrame(rows))


def compare_with_and_without(runs: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, object]:
    """Return the accuracy of an experiment on all its test images, and on those that do not leak.

    Parameters
    ----------
    runs : of each run, which test images it got right and which of them leak, both bool of shape (images,).
    """
    everything = accuracy([right for right, _ in runs])
    rest = accuracy([right[~leaks] for right, leaks in runs])
    return {
        "n_leaked": _sizes([int(leaks.sum()) for _, leaks in runs]),
        "n_rest": _sizes([int((~leaks).sum()) for _, leaks in runs]),
        **dict(zip(("with_leaked", "with_leaked_low", "with_leaked_high"), everything, strict=True)),
        **dict(zip(("without_leaked", "without_leaked_low", "without_leaked_high"), rest, strict=True)),
    }


def _sizes(sizes: Sequence[int]) -> str:
    return "/".join(map(str, sorted(set(sizes))))


def accuracy(runs: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Return the mean accuracy over *runs* and its 95 % interval, as the leaderboard has it.

    Student's t over two runs or more, within 0 to 1; Wilson's over the images of a single one. NaN without an image.

    Parameters
    ----------
    runs : of each run, which images it got right, bool of shape (images,).
    """
    if any(len(right) == 0 for right in runs):
        return np.nan, np.nan, np.nan
    values = np.array([right.mean() for right in runs])
    mean = float(values.mean())
    interval: Interval
    if len(values) == 1:
        interval = wilson_interval(int(runs[0].sum()), len(runs[0]))
    else:
        half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
        interval = max(0.0, mean - half), min(1.0, mean + half)
    return mean, *interval


def add_columns(leaderboard: pd.DataFrame, leak: Leak | None) -> pd.DataFrame:
    """Return leaderboard.csv with the columns WITHOUT and COUNT; unchanged where nothing leaks."""
    if leak is None:
        return leaderboard
    table = leak.table.set_index("experiment")
    return leaderboard.assign(
        **{
            WITHOUT: leaderboard["experiment"].map(table["without_leaked"]),
            COUNT: leaderboard["experiment"].map(table["n_leaked"]),
        }
    )


def terminal_line(leaderboard: pd.DataFrame, colour: bool = False) -> str:
    """Return what a terminal says of leaking test images, with its end of line; empty where nothing leaks.

    Parameters
    ----------
    leaderboard : leaderboard.csv.
    colour : in red.
    """
    if COUNT not in leaderboard or leaderboard.empty:
        return ""
    best = leaderboard.iloc[0]
    text = (
        f"The data leaks: {best[COUNT]} of {best['n_test']} test images, or images like them, stand in the given train"
        " or val too, see audit.html."
    )
    if pd.notna(best[WITHOUT]):
        text += (
            f" Without them {best['experiment']} has {in_percent(best[WITHOUT])} %, instead of"
            f" {in_percent(best['accuracy_top1_mean'])} %."
        )
    return f"{RED}{text}{PLAIN}\n" if colour else f"{text}\n"


def _cells(row: pd.Series, name: str) -> tuple[str, str]:
    if pd.isna(row[name]):
        return "-", "-"
    return in_percent(row[name]), f"{in_percent(row[f'{name}_low'])} to {in_percent(row[f'{name}_high'])}"
