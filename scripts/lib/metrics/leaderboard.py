"""All runs of a data set compared: means over seeds and folds, with intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.cells import cell_len

from scripts.lib.base.language import tr
from scripts.lib.base.problems import UserError
from scripts.lib.base.text import columns
from scripts.lib.metrics import contamination, cost, paired
from scripts.lib.metrics.cost import number
from scripts.lib.metrics.intervals import ENOUGH_SEEDS, MODELS, RECIPE, accuracy_interval
from scripts.lib.metrics.paired import Correct, CorrectBySeed
from scripts.lib.runs.config_file import nodes, read_config
from scripts.lib.runs.run_folder import RunFolder
from scripts.lib.runs.train_log import kept_epoch, read_train_log
from scripts.lib.runs.weight_license import origin_of_run, restriction

#: What the reader of a leaderboard is told of the intervals, by what leaderboard.csv says in `interval`.
INTERVALS = {
    RECIPE: "95 % interval: of the accuracy on new images of models that are trained likewise, whatever the seed.",
    MODELS: "* 95 % interval: of the accuracy of these models on new images; too few seeds to speak of the recipe"
    f" ({ENOUGH_SEEDS}).",
}
#: What leaderboard.csv says in `remark`.
CONTROL = "control (labels shuffled)"
#: What tells a run from the others of a data set; `fold` only where there are some.
RUN = ("experiment", "seed", "fold")
#: Columns that a narrow terminal does without, the first first, and columns of space between them.
SPARED = ("images/s", "GPU s", "train s", "ECE", "best val %", "top-5 %", "macro F1", "balanced %", "test images")
GAP = 2
#: Experiments that one line names; a page of names says no more than their number.
LISTED_EXPERIMENTS = 8


def read_run(folder: Path) -> dict[str, Any]:
    """Return what a leaderboard needs of one run: its metrics, best validation accuracy and times of training.

    Raises
    ------
    UserError : metrics.json or train_log.csv is missing or not what it should be.
    """
    run_folder = RunFolder(folder)
    path = run_folder.metrics
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
        names = ("dataset", "experiment", "seed", "n_test", "accuracy_top1", "accuracy_top5", "f1_macro", "ece")
        run = {name: metrics[name] for name in names}
        majority = metrics.get("accuracy_majority")  # an earlier version did not write it
        run["accuracy_majority"] = np.nan if majority is None else float(majority)
        run |= {"fold": int(metrics["fold"])} if "fold" in metrics else {}
        run["accuracy_balanced"] = float(metrics.get("accuracy_balanced", np.nan))  # the same
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; evaluate the run first") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the metrics of a run ({error!r}); evaluate the run again") from error
    log = read_train_log(run_folder.train_log)
    kept, config = kept_epoch(log), run_folder.config
    sections = list(nodes(read_config(config))) if config.is_file() else []
    return run | {
        "val_accuracy_best": np.nan if kept is None else float(kept["val_accuracy"]),
        "train_seconds": float(log["train_seconds"].sum()),
        "images_per_second": _throughput(log),
        "remark": CONTROL if any(section.get("shuffle_labels") is True for section in sections) else "",
        "balanced": any(section.get("balanced_validation") is True for section in sections),
        "weights_license": origin_of_run(run_folder.provenance).get("license") or "",
    }


def _throughput(log: pd.DataFrame) -> float:
    """Return the images/s of training over all epochs: images by seconds, not the mean of the epochs' rates."""
    known = log.dropna(subset=["images_per_second", "train_seconds"])
    seconds = known["train_seconds"].sum()
    return float((known["images_per_second"] * known["train_seconds"]).sum() / seconds) if seconds > 0 else np.nan


def compare(runs: pd.DataFrame, correct: CorrectBySeed) -> pd.DataFrame:
    """Return one row an experiment, best mean accuracy first (then by name).

    The mean accuracy and its 95 % interval are over all answers of an experiment (``intervals.accuracy_interval``); the
    column ``interval`` says what the interval is of. Where one experiment balances its classes, there is a column of
    the balanced accuracy, of all of them.
    """
    balanced = "balanced" in runs and bool(runs["balanced"].any())
    rows = [
        _compare_seeds(str(name), group, correct[str(name)], balanced)
        for name, group in runs.groupby("experiment", sort=True)
    ]
    if "weights_license" in runs and runs["weights_license"].any():
        licenses = runs.groupby("experiment")["weights_license"].max()
        rows = [{**row, "weights_license": licenses[row["experiment"]]} for row in rows]
    table = pd.DataFrame(rows).sort_values("accuracy_top1_mean", ascending=False, kind="stable")
    return table.reset_index(drop=True)


def _compare_seeds(
    experiment: str, runs: pd.DataFrame, of_seeds: Mapping[int, Correct], balanced: bool
) -> dict[str, Any]:
    accuracy = accuracy_interval(*paired.stack_seeds(of_seeds))
    sizes = {len(run.files) for run in of_seeds.values()}
    return {
        "experiment": experiment,
        "seeds": len(of_seeds),
        **({"folds": runs["fold"].nunique(), "runs": len(runs)} if "fold" in runs else {}),
        "accuracy_top1_mean": accuracy.mean,
        "accuracy_top1_ci95_low": accuracy.interval[0],
        "accuracy_top1_ci95_high": accuracy.interval[1],
        "interval": accuracy.of,
        **({"accuracy_balanced_mean": runs["accuracy_balanced"].mean()} if balanced else {}),
        "accuracy_top5_mean": pd.to_numeric(runs["accuracy_top5"]).mean(),
        "f1_macro_mean": runs["f1_macro"].mean(),
        "ece_mean": runs["ece"].mean(),
        "val_accuracy_best_mean": runs["val_accuracy_best"].mean(),
        "train_seconds_mean": runs["train_seconds"].mean(),
        "gpu_seconds_mean": runs["gpu_seconds"].mean(skipna=False),
        "images_per_second_mean": runs["images_per_second"].mean(),
        "n_test": "/".join(map(str, sorted(sizes))),
        "accuracy_majority": runs["accuracy_majority"].mean(),
        "against_best": "",
        "remark": runs["remark"].max(),  # of all seeds the same, or of some, where the others are from before
        **cost.sum_up(runs),
    }


def read_leaderboard(path: Path) -> pd.DataFrame:
    """Read a leaderboard.csv.

    Raises
    ------
    UserError : it is missing or not one.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; it is written when a run has finished")
    try:
        # A converter, unlike a dtype, keeps an experiment called NA from becoming a missing value.
        texts = ("experiment", "n_test", "against_best", "remark", "currency", "made_with", "weights_license")
        table = pd.read_csv(path, encoding="utf-8", converters=dict.fromkeys(texts, str))
        cells(table)
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: not a leaderboard ({error}); run it again") from error
    return table


def cells(leaderboard: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the leaderboard as people read it: percent, rounded, no column of nothing."""

    def percent(value: float) -> str:
        return number(100 * value, 1)

    numbers = ["seeds", *(["folds", "runs"] if "folds" in leaderboard else [])]
    header = ["experiment", *numbers, "top-1 %", "95 % interval", "balanced %", "top-5 %",
              "macro F1", "ECE", "best val %", "train s", "GPU s", "images/s", "test images", "remark"]  # fmt: skip
    rows = [
        [
            str(row["experiment"]),
            *(str(row[name]) for name in numbers),
            percent(row["accuracy_top1_mean"]),
            tr(f"{percent(row['accuracy_top1_ci95_low'])} to {percent(row['accuracy_top1_ci95_high'])}")
            + (" *" if row["interval"] == MODELS else ""),
            percent(row.get("accuracy_balanced_mean", math.nan)),
            percent(row["accuracy_top5_mean"]),
            number(row["f1_macro_mean"], 3),
            number(row["ece_mean"], 3),
            percent(row["val_accuracy_best_mean"]),
            number(row["train_seconds_mean"]),
            number(row["gpu_seconds_mean"]),
            number(row["images_per_second_mean"], 1),
            str(row["n_test"]),
            tr(row.get("remark") or "-"),
        ]
        for _, row in leaderboard.iterrows()
    ]
    kept = [i for i in range(len(header)) if i < len(numbers) + 3 or any(row[i] != "-" for row in rows)]
    return [tr(header[i]) for i in kept], [[row[i] for i in kept] for row in rows]


def remarks(leaderboard: pd.DataFrame) -> list[str]:
    """Return what a reader of the leaderboard should know."""
    remarks = [text for interval, text in INTERVALS.items() if (leaderboard["interval"] == interval).any()]
    remarks += [_apart(leaderboard), _floor(leaderboard), *_best_and_others(leaderboard), _licenses(leaderboard),
                cost.in_sum(leaderboard)]  # fmt: skip
    return [tr(remark) for remark in remarks if remark]


def _apart(leaderboard: pd.DataFrame) -> str:
    """Say which runs are in no mean and no test with the others; empty where all were made alike."""
    if "made_with" not in leaderboard or not (leaderboard["made_with"] != "").any():
        return ""
    names = [str(name) for name in leaderboard.loc[leaderboard["made_with"] != "", "experiment"]]
    return f"Made otherwise than most runs, so in no mean and no comparison with them: {_listed(names)}."


def _licenses(leaderboard: pd.DataFrame) -> str:
    """Name the experiments whose pretrained weights are not for every use; empty where all that is known are."""
    if "weights_license" not in leaderboard:
        return ""
    pairs = zip(leaderboard["experiment"], leaderboard["weights_license"], strict=True)
    names = [f"{name} ({license})" for name, license in pairs if license and restriction(license)]
    return f"Pretrained weights under a license that is not for every use: {_listed(names)}." if names else ""


def _floor(leaderboard: pd.DataFrame) -> str:
    """Return what always answering the most frequent class of the test images gives; empty where nobody knows."""
    if "accuracy_majority" not in leaderboard or leaderboard["accuracy_majority"].isna().all():
        return ""
    low, high = (f"{100 * end:.1f} %" for end in leaderboard["accuracy_majority"].agg(["min", "max"]))
    return f"Always the most frequent class of the test images: {low if low == high else f'{low} to {high}'}."


def _best_and_others(leaderboard: pd.DataFrame) -> list[str]:
    """Say which experiments the paired tests cannot tell from the best; empty where there were none."""
    if "against_best" not in leaderboard or not (leaderboard["against_best"] == paired.BEST).any():
        return []
    names = {
        verdict: [str(name) for name in of_verdict["experiment"]]
        for verdict, of_verdict in leaderboard.groupby("against_best")
    }
    equal = names.get(paired.NOT_TOLD_APART, []) + names.get(paired.BETTER, [])
    few, others = names.get(paired.TOO_FEW_SEEDS, []), names.get(paired.NOT_COMPARABLE, [])
    texts = []
    if equal:
        texts.append(f"Cannot be told apart from the best by paired tests: {_listed(equal)}.")
    if few:
        texts.append(f"Their models differ from the best's, but too few seeds to speak of the recipe: {_listed(few)}.")
    if not texts and names.get(paired.WORSE):
        made = " that can be made" if others else ""
        texts.append(f"The best is better than each of the others by paired tests{made}.")
    if others:
        texts.append(f"Not comparable with the best: {_listed(others)}.")
    return texts


def _listed(names: Sequence[str]) -> str:
    shown = names if len(names) <= LISTED_EXPERIMENTS else names[: LISTED_EXPERIMENTS - 1]
    more = len(names) - len(shown)
    return ", ".join(shown) + (tr(f" and {more} more") if more else "")


def render_text(leaderboard: pd.DataFrame, colour: bool = False, width: int | None = None) -> str:
    """Return the leaderboard as aligned columns for a terminal.

    Parameters
    ----------
    colour : contaminated test images are red.
    width : of the terminal, in columns: what matters least is left out of a table that is wider; None: nothing is.
    """
    header, rows = cells(leaderboard)
    widths = [max(map(cell_len, column)) for column in zip(header, *rows, strict=True)]
    kept, left_out = list(range(len(header))), []
    for name in map(tr, SPARED):
        if width is None or sum(widths[i] for i in kept) + GAP * (len(kept) - 1) <= width:
            break
        if name in header:
            kept.remove(header.index(name))
            left_out.append(name)
    table = [[row[i] for i in kept] for row in (header, ["-" * wide for wide in widths], *rows)]
    lines = columns(table, right=range(1, len(kept)), gap=GAP)
    if left_out:
        lines.append(tr(f"Left out, since the window is narrow: {', '.join(left_out)}; leaderboard.csv has all."))
    return "\n".join([*lines, *remarks(leaderboard)]) + "\n" + contamination.terminal_line(leaderboard, colour)


def collect(folders: Sequence[Path]) -> pd.DataFrame:
    """Return one row a run, by experiment and seed, whatever the order of *folders*; ``folder`` says where it lies.

    With cross-validation there is a column ``fold`` too.

    Raises
    ------
    UserError : two of *folders* are the same run, or they are of different data sets, or only some are folds.
    """
    runs = pd.DataFrame([{**read_run(folder), "folder": folder} for folder in folders])
    if "fold" in runs and runs["fold"].isna().any():
        raise UserError("--runs: some are folds of a cross-validation and some are not; compare one kind")
    which = [name for name in RUN if name in runs]
    if len(set(runs["dataset"])) > 1:
        raise UserError(f"--runs: of different data sets ({', '.join(sorted(set(runs['dataset'])))}); compare one")
    twice = runs[runs.duplicated(which)]
    if len(twice):
        name = ", ".join([str(twice["experiment"].iloc[0]), *(f"{key} {twice[key].iloc[0]}" for key in which[1:])])
        raise UserError(f"--runs: {name} is given twice")
    return runs.sort_values(which, ignore_index=True)


def collect_costs(runs: pd.DataFrame, price: float | None, currency: str) -> pd.DataFrame:
    """Return what each of the runs cost, in their order."""
    histories = [
        cost.read_history(row["folder"], row["experiment"], row["seed"], row.get("fold")) for _, row in runs.iterrows()
    ]
    return cost.estimate(histories, cost.find_records(histories), price, currency)


def read_correct(runs: pd.DataFrame) -> CorrectBySeed:
    """Read what each of the *runs* got right; the folds of a seed are joined.

    Raises
    ------
    UserError : one has no predictions.csv, or two folds of a seed test the same image.
    """
    correct: dict[str, dict[int, Correct]] = {}
    for _, of_seed in runs.groupby(["experiment", "seed"]):
        read = [paired.read_correct(folder) for folder in of_seed["folder"]]
        joined = paired.join_folds(dict(zip(of_seed["fold"], read, strict=True))) if "fold" in runs else read[0]
        first = of_seed.iloc[0]
        correct.setdefault(str(first["experiment"]), {})[int(first["seed"])] = joined
    return correct
