"""The leaderboard: means and intervals over seeds, honest about what each is over."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny_run import write_train_log

from scripts.console import UserError
from scripts.report import compare_runs
from scripts.report.text import display_width

T_975_2 = 4.302652729911275  # Student's t, 2 degrees of freedom, from a table


def make_run(root: Path, experiment: str, seed: int, accuracy: float, device: str = "cpu", **more: Any) -> Path:
    folder = root / experiment / f"seed{seed}"
    folder.mkdir(parents=True)
    interval = [accuracy - 0.04, min(1, accuracy + 0.03)]
    metrics = {"dataset": "demo", "experiment": experiment, "seed": seed, "n_test": 120, "accuracy_top1": accuracy}
    metrics |= {"accuracy_top1_ci95": interval, "accuracy_top5": 0.99, "f1_macro": accuracy - 0.01, "ece": 0.05, **more}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    write_train_log(folder / "train_log.csv")
    (folder / "config.py").write_text(f"# mim train\nrunner = {{'device': {device!r}}}\n")
    return folder


def run_cli_on(folders: list[Path], out: Path, *more: str) -> pd.DataFrame:
    options = ["--runs", *map(str, folders), "--leaderboard", str(out / "l.csv"), "--figure", str(out / "l.svg"), *more]
    compare_runs.main(compare_runs.build_parser().parse_args(options))
    return compare_runs.read_leaderboard(out / "l.csv")


def test_the_interval_is_t_over_seeds(tmp_path: Path) -> None:
    values = [0.90, 0.92, 0.97]
    board = run_cli_on([make_run(tmp_path, "a", seed, value) for seed, value in enumerate(values)], tmp_path)
    row = board.iloc[0]
    half = T_975_2 * np.std(values, ddof=1) / np.sqrt(3)
    assert row["seeds"] == 3 and row["accuracy_top1_mean"] == pytest.approx(0.93)
    assert row["accuracy_top1_ci95_low"] == pytest.approx(0.93 - half)
    assert row["accuracy_top1_ci95_high"] == 1.0, "0.93 + half is more than all"
    assert row["interval"] == "t over seeds"


def test_one_seed_has_the_interval_of_its_test_images(tmp_path: Path) -> None:
    row = run_cli_on([make_run(tmp_path, "a", 0, 0.9)], tmp_path).iloc[0]
    assert (row["accuracy_top1_ci95_low"], row["accuracy_top1_ci95_high"]) == (pytest.approx(0.86), pytest.approx(0.93))
    assert row["interval"] == "Wilson over test images"


def test_the_t_interval_covers_the_mean_of_all_seeds() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        runs = pd.DataFrame({"experiment": "a", "accuracy_top1": rng.normal(0.8, 0.02, 4), "n_test": 100})
        names = ["accuracy_top5", "f1_macro", "ece", "val_accuracy_best", "train_seconds", "images_per_second"]
        names += ["queue_seconds", "wall_seconds", "gpu_seconds", "energy_kwh", "cost"]
        runs = runs.assign(**dict.fromkeys(names, 1.0), currency="")
        row = compare_runs.compare(runs).iloc[0]
        hits += row["accuracy_top1_ci95_low"] <= 0.8 <= row["accuracy_top1_ci95_high"]
    assert 0.91 <= hits / 200 <= 0.99


def test_the_best_comes_first_whatever_the_order_of_the_folders(tmp_path: Path) -> None:
    folders = [make_run(tmp_path, name, 0, value) for name, value in [("a", 0.7), ("b", 0.9), ("c", 0.8), ("d", 0.8)]]
    board = run_cli_on(folders, tmp_path)
    assert board["experiment"].tolist() == ["b", "c", "d", "a"]
    first = (tmp_path / "l.csv").read_bytes(), (tmp_path / "l.svg").read_bytes()
    run_cli_on(folders[::-1], tmp_path)
    assert ((tmp_path / "l.csv").read_bytes(), (tmp_path / "l.svg").read_bytes()) == first


def test_only_a_run_on_a_gpu_took_gpu_seconds(tmp_path: Path) -> None:
    folders = [make_run(tmp_path, "gpu", 0, 0.9, "cuda"), make_run(tmp_path, "cpu", 0, 0.8)]
    folders.append(make_run(tmp_path, "unknown", 0, 0.7))
    (folders[-1] / "config.py").unlink()
    board = run_cli_on(folders, tmp_path).set_index("experiment")
    assert board.loc["gpu", "gpu_seconds_mean"] == pytest.approx(64), "two epochs of 30 s and 2 s of validation"
    assert board.loc["cpu", "gpu_seconds_mean"] == 0
    assert np.isnan(board.loc["unknown", "gpu_seconds_mean"])
    assert (board["train_seconds_mean"] == 60).all()
    assert board["images_per_second_mean"].tolist() == pytest.approx([20, 20, 20])
    assert board["val_accuracy_best_mean"].tolist() == pytest.approx([0.8, 0.8, 0.8])


def test_throughput_is_images_by_seconds() -> None:
    log = pd.DataFrame({"images_per_second": [10.0, 100.0, np.nan], "train_seconds": [90.0, 10.0, 5.0]})
    assert compare_runs._throughput(log) == pytest.approx(19)


def test_top5_stays_empty_where_there_is_none(tmp_path: Path) -> None:
    board = run_cli_on([make_run(tmp_path, "a", seed, 0.9, accuracy_top5=None) for seed in (0, 1)], tmp_path)
    assert board["accuracy_top5_mean"].isna().all()
    assert "top-5" not in compare_runs.render_text(board)


def test_an_experiment_called_na_keeps_its_name(tmp_path: Path) -> None:
    assert run_cli_on([make_run(tmp_path, "NA", 0, 0.9)], tmp_path)["experiment"].tolist() == ["NA"]


def test_runs_of_different_data_or_twice_the_same_are_refused(tmp_path: Path) -> None:
    folders = [make_run(tmp_path, "a", 0, 0.9), make_run(tmp_path, "b", 0, 0.9, dataset="other")]
    with pytest.raises(UserError, match="different data sets"):
        compare_runs.collect(folders)
    with pytest.raises(UserError, match="a, seed 0 is given twice"):
        compare_runs.collect([folders[0], folders[0]])


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"accuracy_top1_ci95": 3}'])
def test_metrics_that_are_none_are_one_line(tmp_path: Path, text: str | None) -> None:
    folder = make_run(tmp_path, "a", 0, 0.9)
    (folder / "metrics.json").unlink() if text is None else (folder / "metrics.json").write_text(text)
    with pytest.raises(UserError, match=r"metrics\.json: .*evaluate the run"):
        compare_runs.read_run(folder)


def test_options_that_do_not_go_together_are_one_line() -> None:
    with pytest.raises(UserError, match="--show"):
        compare_runs.main(compare_runs.build_parser().parse_args(["--leaderboard", "x"]))
    with pytest.raises(UserError, match="no such file"):
        compare_runs.main(compare_runs.build_parser().parse_args(["--show", "/no/such/file"]))


def test_show_prints_aligned_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [make_run(tmp_path, "苹果", seed, 0.9 + seed / 50) for seed in (0, 1)] + [make_run(tmp_path, "b", 0, 0.5)]
    run_cli_on(folders, tmp_path)
    compare_runs.main(compare_runs.build_parser().parse_args(["--show", str(tmp_path / "l.csv")]))
    lines = capsys.readouterr().out.splitlines()
    assert len({display_width(line) for line in lines[:4]}) == 1
    assert lines[2].split()[:3] == ["苹果", "2", "91.0"]
    assert "*" in lines[3] and "*" not in lines[2]
    assert "few seeds give a wide one" in lines[4] and lines[5].startswith("* one seed")


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        assert not [value for name, value in attrs if name in ("src", "href")], "the page asks for nothing"

    def handle_data(self, data: str) -> None:
        self.cells.append(data)


def test_the_page_holds_the_table_and_runs_nothing(tmp_path: Path) -> None:
    board = run_cli_on([make_run(tmp_path, "a", 0, 0.9)], tmp_path, "--html", str(tmp_path / "l.html"))
    assert "90.0" in Page((tmp_path / "l.html").read_text()).cells
    board.loc[0, "experiment"] = "<script>alert(1)</script>"
    page = Page(compare_runs.render_html(board, '"><script>x</script>'))
    assert "script" not in page.tags and "<script>alert(1)</script>" in "".join(page.cells)
