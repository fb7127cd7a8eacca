"""What the page of `make serve` is told of runs: curves as they grow, the order so far, which report is theirs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from chinese import english_in
from tiny_run import write_train_log

from scripts.lib.base import products
from scripts.lib.runs.attempts import NO_END
from scripts.lib.runs.lease import EXPIRY_SECONDS
from scripts.lib.workflow import live_data, run_reader
from scripts.lib.workflow.live_data import LiveData, in_languages, rank
from scripts.train.train_model import stopped

PROGRESS = {"epochs_done": 1, "max_epochs": 8, "iteration": 10, "max_iterations": 80, "loss": 0.4, "best_accuracy": 0.7}
HOLDER = {"token": "x", "host": "g0001", "pid": 7, "started": 1.0, "job": "11", "group": 8}


@pytest.fixture(autouse=True)
def every_look_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_data, "FRESH_SECONDS", -1.0)


def train(run: Path, epochs: int, work: str = "abc", age: float = 0.0) -> Path:
    """The work folder of a run that trains now (or whose last heartbeat is older), after so many epochs."""
    folder = run / "work" / work
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("progress.json", PROGRESS), ("lease.json", HOLDER)):
        (folder / name).write_text(json.dumps(content))
        os.utime(folder / name, (time.time() - age,) * 2)
    if epochs:
        write_train_log(folder / "train_log.csv", epochs)
        os.utime(folder / "train_log.csv", (time.time() - age, time.time() - age + epochs / 1000))
    os.utime(folder.parent, (time.time() - age,) * 2)
    return folder


def finish(run: Path, accuracy: float, age: float) -> None:
    """What a finished run leaves."""
    run.mkdir(parents=True, exist_ok=True)
    write_train_log(run / "train_log.csv", 8)
    for name, content in (("metrics.json", {"accuracy_top1": accuracy}), ("provenance.json", {})):
        (run / name).write_text(json.dumps(content))
        os.utime(run / name, (time.time() - age,) * 2)


def epochs_of(data: LiveData) -> list[Any]:
    return [run["curve"]["epoch"] for run in data.curves("demo")]


def test_a_curve_grows_and_only_then_has_another_version(tmp_path: Path) -> None:
    run, data = tmp_path / "results/demo/a/seed0", LiveData(tmp_path / "results")
    train(run, 0)
    before = data.now("demo")
    assert epochs_of(data) == [] and before["runs"][0]["state"] == "training"
    train(run, 2)
    after = data.now("demo")
    assert epochs_of(data) == [[1, 2]] and after["curves"] != before["curves"]
    (curve,) = data.curves("demo")
    assert curve["curve"]["val_accuracy"] == [0.4, 0.8] and curve["curve"]["val_loss"] == [None, None]
    assert (curve["experiment"], curve["seed"], curve["fold"], curve["kept"]) == ("a", 0, None, 2)
    train(run, 2)
    assert data.now("demo")["curves"] == after["curves"]


def test_curves_tell_which_run_trains(tmp_path: Path) -> None:
    data = LiveData(tmp_path / "results")
    train(tmp_path / "results/demo/a/seed0", 2)
    finish(tmp_path / "results/demo/b/seed0", 0.9, age=100)
    assert {run["experiment"]: run["is_training"] for run in data.curves("demo")} == {"a": True, "b": False}


def test_a_run_that_is_trained_anew_does_not_show_the_curve_of_before(tmp_path: Path) -> None:
    run, data = tmp_path / "results/demo/a/seed0", LiveData(tmp_path / "results")
    finish(run, 0.9, age=100)
    train(run, 8, "old", age=EXPIRY_SECONDS + 100)
    assert epochs_of(data) == [list(range(1, 9))]
    train(run, 0, "new")
    assert epochs_of(data) == []
    train(run, 1, "new")
    assert epochs_of(data) == [[1]]


def test_a_table_that_is_cut_short_leaves_the_curve_of_before(tmp_path: Path) -> None:
    data = LiveData(tmp_path / "results")
    log = train(tmp_path / "results/demo/a/seed0", 3) / "train_log.csv"
    assert epochs_of(data) == [[1, 2, 3]]
    log.write_text(log.read_text()[:-60])
    assert epochs_of(data) in ([[1, 2, 3]], [[1, 2]])


def test_files_that_have_not_changed_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = LiveData(tmp_path / "results")
    train(tmp_path / "results/demo/a/seed0", 3)
    read: list[str] = []
    original = run_reader._read
    monkeypatch.setattr(run_reader, "_read", lambda path: read.append(path) or original(path))
    data.now("demo")
    first = len(read)
    for _ in range(5):
        data.now("demo")
        data.curves("demo")
    assert len(read) == first > 0


def test_a_change_while_nobody_asked_is_as_old_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, data = tmp_path / "results/demo/a/seed0", LiveData(tmp_path / "results")
    train(run, 1)
    data.now("demo")
    train(run, 2, age=15)
    monkeypatch.setattr(live_data, "AWAY_SECONDS", 0.0)
    assert data.now("demo")["runs"][0]["numbers"][-1] in ("14 s", "15 s", "16 s")


def test_test_accuracies_are_those_of_runs_that_are_done(tmp_path: Path) -> None:
    finish(tmp_path / "results/demo/a/seed0", 0.875, age=0)
    finish(tmp_path / "results/demo/b/seed0", 0.5, age=50)
    train(tmp_path / "results/demo/b/seed0", 1)
    runs = LiveData(tmp_path / "results").now("demo")["runs"]
    assert [(run["experiment"], run["kind"], run["test"]) for run in runs] == [
        ("a", "done", 0.875),
        ("b", "running", None),
    ]


def test_experiments_stand_in_the_order_of_their_mean_accuracy_on_val() -> None:
    def run(experiment: str, val: float | None, test: float | None = None) -> dict[str, Any]:
        state = "training" if test is None else "done"
        return {"experiment": experiment, "val": val, "test": test, "state": state}

    rows = rank([run("none", None), run("a", 0.5, 0.4), run("a", None), run("b", 0.9), run("b", 0.7, 0.6)])
    assert [row["experiment"] for row in rows] == ["b", "a", "none"]
    assert rows[0] == {"experiment": "b", "runs": 2, "done": 1, "val": pytest.approx(0.8), "test": 0.6}
    assert rows[2]["val"] is rows[2]["test"] is None


def test_the_report_is_final_when_all_runs_are_done_and_it_is_newer(tmp_path: Path) -> None:
    dataset = tmp_path / "results/demo"
    finish(dataset / "a/seed0", 0.9, age=50)
    report, data = dataset / "report.html", LiveData(tmp_path / "results")
    assert data.final_report("demo") is data.page("demo") is None and data.now("demo")["complete"]
    report.touch()
    assert data.final_report("demo") == data.page("demo") == report
    os.utime(report, (time.time() - 100,) * 2)
    assert data.final_report("demo") is None and data.page("demo") == report
    os.utime(report)
    train(dataset / "b/seed0", 1)
    assert data.final_report("demo") is None


@pytest.mark.parametrize("name", ["a/seed0/metrics.json", "a/seed0/train_log.csv", "report.html"])
def test_numbers_that_somebody_changed_are_said_and_no_final_report(tmp_path: Path, name: str) -> None:
    dataset = tmp_path / "results/demo"
    finish(dataset / "a/seed0", 0.9, age=50)
    (dataset / "report.html").write_text("a report")
    products.record("a_rule", [dataset / name])
    data = LiveData(tmp_path / "results")
    assert data.now("demo")["problems"] == [] and data.now("demo")["final"]
    with open(dataset / name, "a") as file:
        file.write("\n ")
    (line,) = data.now("demo")["problems"]
    assert name in line["en"] and "do not trust the numbers" in line["en"]
    assert name in line["zh"] and not english_in(line["zh"].partition(name)[2])
    assert not data.now("demo")["final"] and data.final_report("demo") is None


@pytest.mark.parametrize(
    "reason",
    [
        "process 7 on n1 died without a word: killed, or the machine went down; its last saved state is kept",
        "train_model began and left nothing; no snakemake runs here: start it again",
        f"{NO_END}; its last saved state is kept",
        str(stopped("by SIGTERM", Path("results/demo/a/seed0/work/1"))),
        "training ran out of memory: halve batch_size, or lower image_size (details: results/a)",
    ],
)
def test_why_a_run_stands_still_is_said_in_both_languages(reason: str) -> None:
    line = in_languages(f"demo, a, seed 0 1 stale: {reason}")
    assert reason in line["en"] and english_in(line["en"])
    assert "随机种子 0 1" in line["zh"] and not english_in(line["zh"]), line["zh"]


def test_the_data_set_is_the_one_that_wrote_last_or_the_chosen_one(tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert LiveData(results).choose() == "" and LiveData(results, "mine").choose() == "mine"
    finish(results / "old/a/seed0", 0.9, age=100)
    os.utime(results / "old/a/seed0/train_log.csv", (time.time() - 100,) * 2)
    train(results / "new/a/seed0", 1)
    data = LiveData(results)
    assert data.choose() == "new" and sorted(data.known()) == ["new", "old"]
    assert LiveData(results, "old").choose() == "old" and sorted(LiveData(results, "old").known()) == ["new", "old"]
    assert "mine" in LiveData(results, "mine").known()


@pytest.mark.parametrize("name", ["..", ".", "../demo", "/etc", "demo/a"])
def test_no_name_of_a_data_set_leads_elsewhere(tmp_path: Path, name: str) -> None:
    finish(tmp_path / "results/demo/a/seed0", 0.9, age=0)
    (tmp_path / "report.html").touch()
    data = LiveData(tmp_path / "results")
    assert name not in data.known() and data.page(name) is None
