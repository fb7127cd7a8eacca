"""Runs that were not made alike are in no mean and no test together."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_runs import make_run, run_cli_on

from scripts.lib.metrics import leaderboard

MADE: dict[str, Any] = {
    "run": {"dataset": "demo", "experiment": "a", "seed": 0},
    "inputs": {
        "training": {"device": "cpu"},
        "files": {name: {"sha256": "0" * 64} for name in ("archive", "labels.csv", "classes.txt", "splits/test.txt")},
        "code": {"sha256": "1", "computes_sha256": "1"},
        "environment": {"lock_sha256": "1"},
        "versions": {"torch": "2.0.1"},
    },
    "circumstances": {"machine": {"gpus": [], "host": "a"}},
}
#: What may be other, as (path in the provenance, value), and how it is called.
OTHER: dict[str, tuple[tuple[str, ...], Any, str]] = {
    "images": (("inputs", "files", "archive", "sha256"), "1" * 64, "images"),
    "labels": (("inputs", "files", "labels.csv", "sha256"), "1" * 64, "images"),
    "split": (("inputs", "files", "splits/test.txt", "sha256"), "1" * 64, "images"),
    "code": (("inputs", "code", "computes_sha256"), "2", "code"),
    "lock": (("inputs", "environment", "lock_sha256"), "2", "packages"),
    "torch": (("inputs", "versions", "torch"), "2.13.0", "packages"),
    "device": (("inputs", "training", "device"), "cuda", "machine"),
}


def record(folder: Path, path: tuple[str, ...] = (), value: Any = None) -> Path:
    made = copy.deepcopy(MADE)
    section = made
    for key in path[:-1]:
        section = section[key]
    if path:
        section[path[-1]] = value
    (folder / "provenance.json").write_text(json.dumps(made))
    return folder


@pytest.mark.parametrize("other", OTHER)
def test_a_run_that_was_made_otherwise_is_listed_apart_and_compared_with_none(tmp_path: Path, other: str) -> None:
    path, value, kind = OTHER[other]
    runs = [record(make_run(tmp_path, name, seed, 0.9)) for name in "ab" for seed in range(2)]
    runs.append(record(make_run(tmp_path, "a", 2, 0.1), path, value))
    board = run_cli_on(runs, tmp_path, "--comparisons", str(tmp_path / "c.csv"), "--html", str(tmp_path / "l.html"))
    name = f"a (other {kind})"
    assert board.set_index("experiment")["seeds"].to_dict() == {"a": 2, "b": 2, name: 1}
    assert board.set_index("experiment").loc["a", "accuracy_top1_mean"] == pytest.approx(0.9)
    table = pd.read_csv(tmp_path / "c.csv")
    apart = table[(table["experiment_b"] == name) | (table["experiment_a"] == name)]
    assert len(apart) and (apart["verdict"] == f"not comparable: other {kind}").all() and apart["p_value"].isna().all()
    text = leaderboard.render_text(board)
    assert f"in no mean and no comparison with them: {name}." in text
    assert name in (tmp_path / "l.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ((), None),
        (("circumstances", "machine", "host"), "b"),
        (("circumstances", "machine", "gpus"), [{"name": "unused"}]),
        (("inputs", "code", "sha256"), "2"),
        (("run", "seed"), 1),
    ],
)
def test_what_changes_no_result_sets_no_run_apart(tmp_path: Path, path: tuple[str, ...], value: Any) -> None:
    runs = [record(make_run(tmp_path, "a", seed, 0.9), path if seed else (), value) for seed in range(3)]
    board = run_cli_on(runs, tmp_path)
    assert board["seeds"].tolist() == [3] and "made_with" not in board
