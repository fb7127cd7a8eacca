"""What runs cost: Slurm's accounting where there is some, the runs' own record elsewhere, and the right sums."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from small_runs import Page, make_run, run_cli_on

from scripts.lib.base.problems import UserError
from scripts.lib.cluster import slurm
from scripts.lib.cluster.slurm import JobRecord
from scripts.lib.metrics import cost, leaderboard
from scripts.lib.metrics.cost import Attempt, RunHistory
from scripts.report import compare_runs

START = 1_800_000_000.0


def attempt(seconds: float | None = 100.0, job: str | None = "7", after: float = 0.0, **more: Any) -> Attempt:
    start = START + after
    end = None if seconds is None else start + seconds
    return Attempt(job, start, end, more.get("gpus"), more.get("joules"))


def stay(
    elapsed: float = 150.0, queued: float = 30.0, gpus: int = 1, job: str = "7", after: float = -20.0
) -> JobRecord:
    start = START + after
    return JobRecord(job, "mimflow_1", "COMPLETED", start - queued, start, start + elapsed, elapsed, gpus, None)


def history(
    *attempts: Attempt, gpus: int | None = 1, seed: int = 0, busy: float = 80.0, experiment: str = "a"
) -> RunHistory:
    return RunHistory(experiment, seed, gpus, busy, attempts)


def only(table: pd.DataFrame) -> pd.Series:
    assert len(table) == 1
    return table.iloc[0]


def test_with_accounting_whole_jobs_count_however_often_they_were_requeued() -> None:
    records = {"7": [stay(after=-900, elapsed=50, queued=10), stay()], "8": [stay(job="8", after=400, elapsed=60)]}
    run = history(attempt(None, after=-890), attempt(), attempt(50, "8", 405), gpus=2)
    row = only(cost.estimate([run], records, price=1.8, currency="CNY"))
    assert row["wall_seconds"] == 50 + 150 + 60 == row["gpu_seconds"]
    assert row["queue_seconds"] == 10 + 30 + 30
    assert row["cost"] == pytest.approx(260 / 3600 * 1.8, abs=1e-4) and row["currency"] == "CNY"
    assert (row["attempts"], row["jobs"], row["source"]) == (3, 2, "accounting")


def test_a_site_that_does_not_account_for_gpus_has_them_counted_all_the_same() -> None:
    assert only(cost.estimate([history(attempt(), gpus=2)], {"7": [stay(gpus=0)]}))["gpu_seconds"] == 300


def test_a_run_on_the_cpu_that_held_a_card_pays_for_it() -> None:
    assert only(cost.estimate([history(attempt(gpus=0), gpus=0)], {"7": [stay()]}))["gpu_seconds"] == 150
    assert only(cost.estimate([history(attempt(gpus=0), gpus=0)], {"7": [stay(gpus=0)]}))["gpu_seconds"] == 0


def test_an_allocation_is_divided_among_its_runs_and_their_sum_is_the_whole() -> None:
    runs = [history(attempt(100, gpus=1)), history(attempt(300, gpus=1), seed=1), history(attempt(100, gpus=2), seed=2)]
    table = cost.estimate(runs, {"7": [stay(elapsed=600, queued=60, gpus=4)]}, price=1.0)
    assert table["gpu_seconds"].tolist() == [400, 1200, 800] and table["gpu_seconds"].sum() == 600 * 4
    assert table["queue_seconds"].sum() == 60
    assert table["wall_seconds"].tolist() == [100, 300, 100]


def test_an_allocation_is_divided_among_the_folds_of_a_seed(tmp_path: Path) -> None:
    runs = [replace(history(attempt(seconds)), fold=fold) for fold, seconds in enumerate((100, 300))]
    table = cost.estimate(runs, {"7": [stay(elapsed=400)]})
    assert table["gpu_seconds"].tolist() == [100, 300]
    assert table[["seed", "fold"]].to_numpy().tolist() == [[0, 0], [0, 1]]
    header, rows = cost.cells(table)
    assert header[:3] == ["experiment", "seed", "fold"] and {len(row) for row in rows} == {len(header)}
    assert [row[2] for row in rows] == ["0", "1", ""]


def test_an_allocation_of_runs_without_an_end_is_divided_equally() -> None:
    table = cost.estimate([history(attempt(None)), history(attempt(None), seed=1)], {"7": [stay(elapsed=600)]})
    assert table["gpu_seconds"].tolist() == [300, 300]


def test_without_accounting_attempts_count_with_their_cards() -> None:
    row = only(cost.estimate([history(attempt(100), attempt(60, job=None, after=900, gpus=3), gpus=2)], {}))
    assert (row["wall_seconds"], row["gpu_seconds"], row["source"]) == (160, 200 + 180, "attempts")
    assert np.isnan(row["queue_seconds"]) and np.isnan(row["cost"]) and row["currency"] == ""


def test_a_record_of_another_job_of_the_same_number_is_not_taken() -> None:
    old = stay(after=-86400 * 20)
    assert only(cost.estimate([history(attempt())], {"7": [old]}))["source"] == "attempts"
    assert only(cost.estimate([history(attempt())], {"7": [old, stay()]}))["source"] == "accounting"


def test_an_attempt_without_an_end_took_at_least_what_the_train_log_has() -> None:
    row = only(cost.estimate([history(attempt(None), busy=500.0, gpus=2)], {}))
    assert (row["wall_seconds"], row["gpu_seconds"], row["source"]) == (500, 1000, "train log")
    assert only(cost.estimate([history(busy=500.0)], {}))["gpu_seconds"] == 500
    assert np.isnan(only(cost.estimate([history(busy=500.0, gpus=None)], {}))["gpu_seconds"])


def test_the_drivers_energy_comes_before_that_of_nodes() -> None:
    nodes = {"7": [replace(stay(), joules=7.2e6)]}
    both = only(cost.estimate([history(attempt(joules=3.6e6), attempt(joules=1.8e6))], nodes))
    assert (both["energy_kwh"], both["energy_of"]) == (1.5, "GPUs")
    half = only(cost.estimate([history(attempt(joules=3.6e6), attempt(joules=None))], nodes))
    assert (half["energy_kwh"], half["energy_of"]) == (2.0, "nodes")
    none = only(cost.estimate([history(attempt(joules=3.6e6), attempt(joules=None))], {}))
    assert np.isnan(none["energy_kwh"]) and none["energy_of"] == ""
    unknown = only(cost.estimate([history(attempt(), attempt(job="8"))], nodes | {"8": [stay(job="8")]}))
    assert np.isnan(unknown["energy_kwh"]), "one job of two is not the sum"


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    table = cost.estimate([history(attempt(joules=3.6e6)), history(gpus=None, seed=1)], {}, price=2.0)
    sums = cost.sum_up(table)
    assert np.isnan(sums["gpu_seconds_sum"]) and np.isnan(sums["cost_sum"]) and np.isnan(sums["energy_kwh_sum"])
    assert sums["wall_seconds_sum"] == 180
    table = cost.estimate([history(attempt(joules=3.6e6)), history(attempt(), gpus=0, seed=1)], {}, price=36.0)
    sums = cost.sum_up(table)
    assert (sums["gpu_seconds_sum"], sums["energy_kwh_sum"], sums["cost_sum"]) == (100, 1.0, 1.0)


def provenance(folder: Path, *attempts: dict[str, Any]) -> None:
    def when(seconds: float) -> str:
        return datetime.fromtimestamp(START + seconds, UTC).isoformat()

    entries = [
        {"slurm_job_id": None, "end": None, "outcome": "finished", **attempt}
        | {key: when(attempt[key]) for key in ("start", "end", "seen") if key in attempt}
        for attempt in attempts
    ]
    (folder / "provenance.json").write_text(json.dumps({"circumstances": {"training": {"attempts": entries}}}))


def test_attempts_are_read_from_the_provenance_a_killed_one_up_to_its_last_note(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "a", 0, 0.9, "cuda")
    provenance(
        folder,
        {"slurm_job_id": 7, "start": 0, "seen": 40, "gpus": 1, "energy_joules": 5.5},
        {"start": 100, "end": 160},
        {"start": 200},
    )
    history_read = cost.read_history(folder, "a", 0)
    assert [(entry.job, entry.seconds, entry.gpus, entry.joules) for entry in history_read.attempts] == [
        ("7", 40, 1, 5.5),
        (None, 60, None, None),
        (None, 0, None, None),
    ]
    assert (history_read.gpus, history_read.busy) == (1, 64)


def test_a_provenance_that_is_none_leaves_the_train_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_run(tmp_path, "a", 0, 0.9)
    (folder / "provenance.json").write_text("[3]")
    assert cost.read_history(folder, "a", 0).attempts == () and "train_log.csv" in caplog.text


def test_slurm_is_asked_once_and_only_about_its_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def accounting(job_ids: set[str], since: float) -> dict[str, list[JobRecord]]:
        asked.append((job_ids, since))
        return {}

    monkeypatch.setattr(slurm, "accounting", accounting)
    cost.find_records([history(attempt(job=None))])
    assert asked == []
    cost.find_records(
        [history(attempt(job="7")), history(attempt(job="8", after=50), attempt(job=None, after=-9e9), seed=1)]
    )
    assert asked == [({"7", "8"}, START - cost.PAST_SECONDS)]


def test_accounting_that_does_not_answer_costs_a_warning_not_the_report(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def accounting(*_: object) -> dict[str, list[JobRecord]]:
        raise UserError("sacct: Slurm accounting storage is disabled")

    monkeypatch.setattr(slurm, "accounting", accounting)
    assert cost.find_records([history(attempt())]) == {} and "disabled" in caplog.text


def test_leaderboard_page_and_costs_say_the_same_sums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = {"7": [stay(elapsed=3600, queued=90)], "8": [stay(elapsed=1800, queued=30, job="8")]}
    monkeypatch.setattr(slurm, "accounting", lambda ids, since: {job: records[job] for job in ids})
    folders = [make_run(tmp_path, "a", seed, 0.9, "cuda") for seed in (0, 1)]
    for folder, job in zip(folders, "78", strict=True):
        provenance(folder, {"slurm_job_id": job, "start": 0, "end": 1000, "gpus": 1, "energy_joules": 1.8e6})
    options = ["--costs", str(tmp_path / "costs.csv"), "--html", str(tmp_path / "l.html"), "--price", "2"]
    board = run_cli_on(folders[::-1], tmp_path, *options, "--currency", "CNY")
    costs = pd.read_csv(tmp_path / "costs.csv")
    assert list(costs.columns) == list(cost.COLUMNS) and costs["seed"].tolist() == [0, 1]
    assert costs["gpu_seconds"].tolist() == [3600, 1800] and costs["cost"].tolist() == [2, 1]
    row = only(board)
    sums = [row[name] for name in cost.SUMS]
    assert sums == [120, 5400, 5400, 1.0, 3.0] and row["currency"] == "CNY" and row["gpu_seconds_mean"] == 2700
    cells = Page((tmp_path / "l.html").read_text()).cells
    assert {"cost CNY", "energy kWh", "in sum", "5,400", "3.00", "120"} <= set(cells)
    text = leaderboard.render_text(board)
    assert "In sum, 2 runs took 5,400 GPU-seconds, 120 s in the queue, 1.000 kWh, 3.00 CNY." in text


def test_on_a_laptop_nothing_is_said_of_what_it_has_not(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "a", 0, 0.9)
    provenance(folder, {"start": 0, "end": 100, "gpus": 0})
    board = run_cli_on([folder], tmp_path, "--html", str(tmp_path / "l.html"), "--costs", str(tmp_path / "c.csv"))
    cells = Page((tmp_path / "l.html").read_text()).cells
    assert "wall s" in cells and "cost" not in cells
    for word in ("energy", "queue", "Slurm", "In sum"):
        assert word not in "".join(cells)
    assert "In sum" not in leaderboard.render_text(board)
    assert only(board)[["queue_seconds_sum", "energy_kwh_sum", "cost_sum"]].isna().all()
    assert only(board)["wall_seconds_sum"] == 100 and only(board)["gpu_seconds_sum"] == 0


def test_a_leaderboard_without_these_columns_can_still_be_shown(tmp_path: Path) -> None:
    board = run_cli_on([make_run(tmp_path, "a", 0, 0.9)], tmp_path)
    board.drop(columns=[*cost.SUMS, "currency"]).to_csv(tmp_path / "old.csv", index=False)
    assert "90.0" in leaderboard.render_text(leaderboard.read_leaderboard(tmp_path / "old.csv"))


@pytest.mark.parametrize("text", ["-1", "inf", "nan", "1,8"])
def test_a_price_that_is_none_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare_runs.build_parser().parse_args([f"--price={text}"])
    assert "is no price: give a number" in capsys.readouterr().err
