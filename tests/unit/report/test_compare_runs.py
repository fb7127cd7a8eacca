"""The leaderboard: means and intervals over images and seeds, and what each interval is of."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from chinese import english_in, english_on
from rich.cells import cell_len
from small_runs import Page, answer, make_run, run_cli_on
from terminal import Terminal

from scripts.lib.base.environment import ROOT
from scripts.lib.base.language import speaking, tr
from scripts.lib.base.problems import UserError
from scripts.lib.data.findings import CONTAMINATED
from scripts.lib.metrics import cost, leaderboard, paired
from scripts.lib.metrics.intervals import accuracy_interval
from scripts.lib.metrics.metrics import compute_metrics, wilson_interval
from scripts.lib.pages.figures import leaderboard as leaderboard_figure
from scripts.lib.runs.predictions import read_predictions
from scripts.report import compare_runs


def test_the_interval_is_of_the_recipe_from_three_seeds_on(tmp_path: Path) -> None:
    folders = [answer(make_run(tmp_path, "a", seed, 0.9), range(seed, 12)) for seed in range(3)]
    row = run_cli_on(folders, tmp_path).iloc[0]
    right = np.array([(np.arange(120) < seed) | (np.arange(120) >= 12) for seed in range(3)])
    assert row["seeds"] == 3 and row["accuracy_top1_mean"] == pytest.approx(right.mean())
    assert row["interval"] == "recipe"
    expected = accuracy_interval(right.astype(float)).interval
    assert (row["accuracy_top1_ci95_low"], row["accuracy_top1_ci95_high"]) == pytest.approx(expected)
    text = leaderboard.render_text(leaderboard.read_leaderboard(tmp_path / "l.csv"))
    assert "whatever the seed" in text and "too few" not in text


@pytest.mark.parametrize("seeds", [1, 2])
def test_of_one_or_two_seeds_it_is_of_these_models_and_says_so(tmp_path: Path, seeds: int) -> None:
    row = run_cli_on([make_run(tmp_path, "a", seed, 0.9) for seed in range(seeds)], tmp_path).iloc[0]
    assert (row["accuracy_top1_ci95_low"], row["accuracy_top1_ci95_high"]) == pytest.approx(
        wilson_interval(108, 120), abs=0.002
    )
    assert row["interval"] == "these models"
    text = leaderboard.render_text(leaderboard.read_leaderboard(tmp_path / "l.csv"))
    assert (
        "* 95 % interval: of the accuracy of these models on new images; too few seeds to speak of the recipe" in text
    )


def test_of_one_seed_it_is_the_interval_of_its_model_card(tmp_path: Path) -> None:
    board = run_cli_on([make_run(tmp_path, "a", 0, 0.95)], tmp_path)
    low, high = compute_metrics(read_predictions(tmp_path / "a/seed0/predictions.csv"))["accuracy_top1_ci95"]
    assert (board["accuracy_top1_ci95_low"][0], board["accuracy_top1_ci95_high"][0]) == pytest.approx((low, high))


def test_on_a_narrow_terminal_what_matters_least_is_left_out_and_named(tmp_path: Path) -> None:
    board = run_cli_on([make_run(tmp_path, name, 0, 0.9) for name in ("mobilenet-v2", "草莓")], tmp_path)
    table, wide = slice(0, 4), leaderboard.render_text(board).splitlines()
    assert max(map(cell_len, wide[table])) > 110
    for language in ("zh", "en"):
        with speaking(language):
            narrow = leaderboard.render_text(board, width=80).splitlines()
        assert max(map(cell_len, narrow[table])) <= 80
        assert "images/s" in narrow[4] or "图像/秒" in narrow[4]
        assert "90.0" in narrow[2] and not (language == "zh" and english_in(narrow[4].replace("leaderboard.csv", "")))
    command = [sys.executable, "-m", "scripts.report.compare_runs", "--show", "l.csv"]
    for columns, lines in ((80, narrow[table]), (200, wide[table])):
        terminal = Terminal(command, tmp_path, {"PYTHONPATH": str(ROOT)}, columns=columns)
        assert terminal.end(200) == 0 and len(terminal.lines()[1]) == len(lines[1])
    piped = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    assert piped.stdout.decode().splitlines()[table] == wide[table], "a file gets all columns"


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
    assert leaderboard._throughput(log) == pytest.approx(19)


def test_top5_stays_empty_where_there_is_none(tmp_path: Path) -> None:
    board = run_cli_on([make_run(tmp_path, "a", seed, 0.9, accuracy_top5=None) for seed in (0, 1)], tmp_path)
    assert board["accuracy_top5_mean"].isna().all()
    assert "top-5" not in leaderboard.render_text(board)


def test_an_experiment_called_na_keeps_its_name(tmp_path: Path) -> None:
    assert run_cli_on([make_run(tmp_path, "NA", 0, 0.9)], tmp_path)["experiment"].tolist() == ["NA"]


def test_runs_of_different_data_or_twice_the_same_are_refused(tmp_path: Path) -> None:
    folders = [make_run(tmp_path, "a", 0, 0.9), make_run(tmp_path, "b", 0, 0.9, dataset="other")]
    with pytest.raises(UserError, match="different data sets"):
        leaderboard.collect(folders)
    with pytest.raises(UserError, match="a, seed 0 is given twice"):
        leaderboard.collect([folders[0], folders[0]])


NOT_MAJORITY = """{"dataset": "d", "experiment": "e", "seed": 0, "n_test": 1, "accuracy_top1": 1, "accuracy_top5": 1,
"f1_macro": 1, "ece": 0, "accuracy_top1_ci95": [0, 1], "accuracy_majority": "most"}"""


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"accuracy_top1_ci95": 3}', NOT_MAJORITY])
def test_metrics_that_are_none_are_one_line(tmp_path: Path, text: str | None) -> None:
    folder = make_run(tmp_path, "a", 0, 0.9)
    (folder / "metrics.json").unlink() if text is None else (folder / "metrics.json").write_text(text)
    with pytest.raises(UserError, match=r"metrics\.json: .*evaluate the run"):
        leaderboard.read_run(folder)


def test_options_that_do_not_go_together_are_one_line() -> None:
    with pytest.raises(UserError, match="--show"):
        compare_runs.main(compare_runs.build_parser().parse_args(["--leaderboard", "x"]))
    with pytest.raises(UserError, match="no such file"):
        compare_runs.main(compare_runs.build_parser().parse_args(["--show", "/no/such/file"]))


def test_show_prints_aligned_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [make_run(tmp_path, "苹果", seed, 0.9 + seed / 60) for seed in (0, 1, 2)] + [
        make_run(tmp_path, "b", 0, 0.5)
    ]
    run_cli_on(folders, tmp_path)
    compare_runs.main(compare_runs.build_parser().parse_args(["--show", str(tmp_path / "l.csv")]))
    lines = capsys.readouterr().out.splitlines()
    assert len({cell_len(line) for line in lines[:4]}) == 1
    assert lines[2].split()[:3] == ["苹果", "3", "91.7"]
    assert "*" in lines[3] and "*" not in lines[2]
    assert lines[4].startswith("95 % interval: of the accuracy on new images of models that")
    assert lines[5].startswith("* 95 % interval: of the accuracy of these models")


def test_the_page_holds_the_table_and_runs_nothing(tmp_path: Path) -> None:
    board = run_cli_on([make_run(tmp_path, "a", 0, 0.9)], tmp_path, "--html", str(tmp_path / "l.html"))
    assert "90.0" in Page((tmp_path / "l.html").read_text()).cells
    board.loc[0, "experiment"] = "<script>alert(1)</script>"
    page = Page(compare_runs.leaderboard_page(board, '"><script>x</script>'))
    assert "script" not in page.tags and "<script>alert(1)</script>" in "".join(page.cells)


# --- paired tests -----------------------------------------------------------------------------------------------------


def three_experiments(root: Path) -> list[Path]:
    """The best, one that is wrong on three images more, and one that is wrong on forty more."""
    folders = []
    for name, accuracy, wrong in (("a", 0.9, range(4)), ("b<i>", 0.88, range(7)), ("NA", 0.6, range(44))):
        folders += [answer(make_run(root, name, seed, accuracy + seed / 100), wrong) for seed in range(3)]
    return folders


def read_comparisons(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, converters={"experiment_a": str, "experiment_b": str})


def test_paired_tests_say_who_cannot_be_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = three_experiments(tmp_path)
    options = ["--comparisons", str(tmp_path / "comparisons.csv"), "--html", str(tmp_path / "l.html")]
    board = run_cli_on(folders, tmp_path, *options)
    table = read_comparisons(tmp_path / "comparisons.csv")
    assert list(table.columns) == list(paired.COLUMNS)
    assert table["experiment_b"].tolist() == ["b<i>", "NA", "NA"] and table["n_images"].tolist() == [120] * 3
    assert table["verdict"].tolist() == ["cannot be told apart", "a is better", "b<i> is better"]
    assert table["only_a_right"].tolist() == [9, 120, 111], "three images more, of three seeds"
    assert board.set_index("experiment")["against_best"].to_dict() == {
        "a": "best", "b<i>": "cannot be told apart", "NA": "worse"
    }  # fmt: skip
    compare_runs.main(compare_runs.build_parser().parse_args(["--show", str(tmp_path / "l.csv")]))
    assert "Cannot be told apart from the best by paired tests: b<i>.\n" in capsys.readouterr().out
    page = Page((tmp_path / "l.html").read_text())
    assert "i" not in page.tags and "a is better" in page.cells and "b<i> is better" in page.cells
    assert "Cannot be told apart from the best by paired tests: b<i>." in "".join(page.cells)
    first = (tmp_path / "comparisons.csv").read_bytes()
    run_cli_on(folders[::-1], tmp_path, *options)
    assert (tmp_path / "comparisons.csv").read_bytes() == first


def test_without_paired_tests_nothing_is_said_of_them(tmp_path: Path) -> None:
    board = run_cli_on([make_run(tmp_path, "a", 0, 0.9), make_run(tmp_path, "b", 0, 0.8)], tmp_path)
    assert "paired" not in leaderboard.render_text(board)
    alone = answer(make_run(tmp_path, "c", 0, 0.9), range(3))
    board = run_cli_on([alone], tmp_path, "--comparisons", str(tmp_path / "c.csv"), "--html", str(tmp_path / "l.html"))
    assert "paired" not in leaderboard.render_text(board)
    assert "verdict" not in Page((tmp_path / "l.html").read_text()).cells
    assert (tmp_path / "c.csv").read_text() == ",".join(paired.COLUMNS) + "\n"


def test_other_test_images_are_not_compared_and_no_failure(tmp_path: Path) -> None:
    folders = [answer(make_run(tmp_path, "a", seed, 0.9), range(4)) for seed in range(3)]
    folders += [answer(make_run(tmp_path, "b", seed, 0.8), range(60)) for seed in range(3)]
    folders.append(answer(make_run(tmp_path, "c", 0, 0.7), range(9), "other {}.jpg"))
    board = run_cli_on(folders, tmp_path, "--comparisons", str(tmp_path / "c.csv"))
    text = leaderboard.render_text(board)
    assert "The best is better than each of the others by paired tests that can be made." in text
    assert "Not comparable with the best: c." in text
    assert "not comparable: other test images" in (tmp_path / "c.csv").read_text()


def test_a_line_names_some_of_many(tmp_path: Path) -> None:
    folders = [answer(make_run(tmp_path, f"e{k:02d}", 0, 0.9 - k / 100), range(k // 3)) for k in range(12)]
    board = run_cli_on(folders, tmp_path, "--comparisons", str(tmp_path / "c.csv"))
    assert "by paired tests: e01, e02, e03, e04, e05, e06, e07 and 4 more." in leaderboard.render_text(board)
    assert len(read_comparisons(tmp_path / "c.csv")) == 11


def test_a_run_without_predictions_is_one_line_that_names_it(tmp_path: Path) -> None:
    folders = three_experiments(tmp_path)
    (folders[3] / "predictions.csv").unlink()
    with pytest.raises(UserError, match=r"b<i>/seed0/predictions\.csv: no such file"):
        run_cli_on(folders, tmp_path, "--comparisons", str(tmp_path / "c.csv"))
    assert not (tmp_path / "l.csv").exists() and not (tmp_path / "c.csv").exists()


# --- cross-validation -------------------------------------------------------------------------------------------------


def make_fold(root: Path, experiment: str, seed: int, fold: int, accuracy: float, **more: Any) -> Path:
    folder = make_run(root, f"{experiment}/seed{seed}", fold, accuracy, **more)
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps(metrics | {"experiment": experiment, "seed": seed, "fold": fold}))
    return folder.rename(folder.with_name(f"fold{fold}"))


def cross_validated(root: Path, wrong: dict[str, int]) -> list[Path]:
    """Two seeds of three folds of 120 images each; of each experiment so many answers of each fold are wrong."""
    return [
        answer(make_fold(root, name, seed, fold, 1 - (many + fold) / 120), range(many + fold), f"{fold}-{{}}.jpg")
        for name, many in wrong.items()
        for seed in (0, 1)
        for fold in range(3)
    ]


def test_folds_have_one_interval_over_all_images(tmp_path: Path) -> None:
    of_fold = {0: [0.80, 0.82], 1: [0.85, 0.90], 2: [0.90, 0.90]}
    folders = [
        make_fold(tmp_path, "a", seed, fold, value, n_test=100 + 20 * fold)
        for fold, values in of_fold.items()
        for seed, value in enumerate(values)
    ]
    for folder in folders:
        fold = int(folder.name[-1])
        value = json.loads((folder / "metrics.json").read_text())["accuracy_top1"]
        n = 100 + 20 * fold
        answer(folder, range(n - round(value * n)), f"{fold}-{{}}.jpg", n)
    board = run_cli_on(folders, tmp_path, "--html", str(tmp_path / "l.html"), "--costs", str(tmp_path / "costs.csv"))
    row = board.iloc[0]
    assert (row["seeds"], row["folds"], row["runs"], row["n_test"]) == (2, 3, 6, "360")
    assert row["accuracy_top1_mean"] == pytest.approx((80 + 82 + 102 + 108 + 126 + 126) / 720), "each image counts once"
    assert row["interval"] == "recipe", "two seeds of three folds are six trainings"
    low, high = wilson_interval(312, 360)
    assert row["accuracy_top1_ci95_low"] < low and row["accuracy_top1_ci95_high"] > high, "seeds differ, too"
    assert row["accuracy_top1_ci95_high"] - row["accuracy_top1_ci95_low"] < 1.5 * (high - low)
    text = leaderboard.render_text(board)
    assert " *" not in text and text.splitlines()[0].split()[:4] == ["experiment", "seeds", "folds", "runs"]
    costs = pd.read_csv(tmp_path / "costs.csv")
    assert costs[["seed", "fold"]].to_numpy().tolist() == [[seed, fold] for seed in (0, 1) for fold in range(3)]
    figure = leaderboard_figure.draw(board, leaderboard.collect(folders))
    assert "one fold" in legend_of(figure) and "one seed" not in legend_of(figure)


def test_without_folds_nothing_speaks_of_them(tmp_path: Path) -> None:
    options = ["--html", str(tmp_path / "l.html"), "--costs", str(tmp_path / "costs.csv")]
    run_cli_on(three_experiments(tmp_path), tmp_path, *options, "--comparisons", str(tmp_path / "c.csv"))
    for name in ("l.csv", "l.html", "l.svg", "costs.csv", "c.csv"):
        text = (tmp_path / name).read_text().replace("two with folds", "")
        assert "fold" not in text, name


def test_experiments_are_paired_image_by_image_over_all_folds(tmp_path: Path) -> None:
    folders = cross_validated(tmp_path, {"a": 2, "b": 5, "c": 40})
    board = run_cli_on(folders, tmp_path, "--comparisons", str(tmp_path / "c.csv"), "--html", str(tmp_path / "l.html"))
    table = read_comparisons(tmp_path / "c.csv")
    assert table["n_images"].tolist() == [360] * 3 and table["folds"].tolist() == [3] * 3
    assert table["seeds"].tolist() == [2] * 3 and table["only_a_right"].tolist() == [18, 228, 210]
    assert table["verdict"].tolist() == ["a is better", "a is better", "b is better"]
    assert board["against_best"].tolist() == ["best", "worse", "worse"]
    assert "by the model that was not trained on it" in "".join(Page((tmp_path / "l.html").read_text()).cells)


def test_folds_and_whole_runs_or_a_fold_twice_are_refused(tmp_path: Path) -> None:
    folders = cross_validated(tmp_path, {"a": 2})
    with pytest.raises(UserError, match="a, seed 0, fold 0 is given twice"):
        leaderboard.collect([*folders, folders[0]])
    with pytest.raises(UserError, match="some are folds"):
        leaderboard.collect([*folders, make_run(tmp_path, "whole", 0, 0.9)])
    answer(folders[1], range(3), "0-{}.jpg")
    with pytest.raises(UserError, match="tested in more than one fold"):
        run_cli_on(folders, tmp_path, "--comparisons", str(tmp_path / "c.csv"))


# --- the floor and the control ----------------------------------------------------------------------------------------


def legend_of(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_floor_is_in_table_text_page_and_figure(tmp_path: Path) -> None:
    folders = [make_run(tmp_path, "a", seed, 0.9, accuracy_majority=0.3) for seed in range(3)]
    folders.append(make_run(tmp_path, "low", 0, 0.32, accuracy_majority=0.3))
    board = run_cli_on(folders, tmp_path, "--html", str(tmp_path / "l.html"))
    assert board["accuracy_majority"].tolist() == pytest.approx([0.3, 0.3])
    line = "Always the most frequent class of the test images: 30.0 %."
    assert line in leaderboard.render_text(board) and line in "".join(Page((tmp_path / "l.html").read_text()).cells)
    figure = leaderboard_figure.draw(board, leaderboard.collect(folders))
    assert "always the most frequent class: 30.0%" in legend_of(figure)
    assert [line.get_xdata() for line in figure.axes[0].lines if line.get_linestyle() == "--"] == [
        pytest.approx([0.3] * 2)
    ]


def test_a_floor_far_below_is_named_and_does_not_squeeze_the_figure(tmp_path: Path) -> None:
    folders = [make_run(tmp_path, "a", 0, 0.9, accuracy_majority=0.1)]
    figure = leaderboard_figure.draw(run_cli_on(folders, tmp_path), leaderboard.collect(folders))
    assert figure.axes[0].get_xlim()[0] > 0.8
    assert figure.axes[0].get_xlabel().endswith("always the most frequent class: 10.0%, left of what is shown")


def test_metrics_of_an_earlier_version_have_no_floor(tmp_path: Path) -> None:
    folders = [make_run(tmp_path, "a", 0, 0.9)]
    board = run_cli_on(folders, tmp_path)
    assert board["accuracy_majority"].isna().all() and "frequent" not in leaderboard.render_text(board)
    figure = leaderboard_figure.draw(board, leaderboard.collect(folders))
    assert "frequent" not in "".join(legend_of(figure)) + figure.axes[0].get_xlabel()
    # Where only some are, it is that of the others.
    folders.append(make_run(tmp_path, "new", 0, 0.85, accuracy_majority=0.25))
    assert "test images: 25.0 %." in leaderboard.render_text(run_cli_on(folders, tmp_path))
    folders.append(make_run(tmp_path, "other", 0, 0.85, accuracy_majority=0.35))
    assert "test images: 25.0 % to 35.0 %." in leaderboard.render_text(run_cli_on(folders, tmp_path))


def test_a_leaderboard_of_an_earlier_version_can_still_be_shown(tmp_path: Path) -> None:
    board = run_cli_on([make_run(tmp_path, "a", 0, 0.9)], tmp_path)
    board.drop(columns=["accuracy_majority", "against_best", "remark"]).to_csv(tmp_path / "old.csv", index=False)
    text = leaderboard.render_text(leaderboard.read_leaderboard(tmp_path / "old.csv"))
    assert "90.0" in text and "remark" not in text


def test_a_control_is_marked(tmp_path: Path) -> None:
    folders = [make_run(tmp_path, "a", 0, 0.9), make_run(tmp_path, "shuffled", 0, 0.3)]
    config = "runner = {'device': 'cpu'}\ndata = {'train': {'shuffle_labels': True}, 'val': {}}\n"
    (folders[1] / "config.py").write_text(config)
    board = run_cli_on(folders, tmp_path, "--html", str(tmp_path / "l.html"))
    assert board["remark"].tolist() == ["", "control (labels shuffled)"]
    lines = leaderboard.render_text(board).splitlines()
    assert lines[0].endswith("remark") and lines[3].endswith("control (labels shuffled)")
    assert "control (labels shuffled)" in Page((tmp_path / "l.html").read_text()).cells
    figure = leaderboard_figure.draw(board, leaderboard.collect(folders))
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["a", "shuffled\ncontrol (labels shuffled)"]
    assert "remark" not in leaderboard.render_text(run_cli_on(folders[:1], tmp_path))


def test_only_where_an_experiment_balances_its_classes_there_is_their_balanced_accuracy(tmp_path: Path) -> None:
    plain = [make_run(tmp_path, "a", seed, 0.9, accuracy_balanced=0.5 + 0.1 * seed) for seed in (0, 1)]
    balanced = make_run(tmp_path, "b", 0, 0.8, accuracy_balanced=0.75)
    board = run_cli_on([*plain, balanced], tmp_path)
    assert not [name for name in board if "balanced" in name]
    assert "balanced" not in leaderboard.render_text(board)
    (balanced / "config.py").write_text("runner = {'device': 'cpu', 'balanced_validation': True}\n")
    board = run_cli_on([*plain, balanced], tmp_path)
    assert board["accuracy_balanced_mean"].tolist() == pytest.approx([0.55, 0.75])
    assert "balanced %" in leaderboard.render_text(board) and "75.0" in leaderboard.render_text(board)


def test_the_best_accuracy_on_val_is_that_of_the_epoch_that_was_kept(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a", 0, 0.9)
    log = pd.read_csv(run / "train_log.csv").assign(val_accuracy=[0.9, 0.7], is_best=[0, 1])
    log.to_csv(run / "train_log.csv", index=False)
    assert run_cli_on([run], tmp_path)["val_accuracy_best_mean"].tolist() == [0.7]


@pytest.mark.long
@pytest.mark.parametrize("seeds", [1, 3])
def test_in_chinese_all_but_the_tables_of_numbers_is_chinese(tmp_path: Path, seeds: int) -> None:
    values = [("a", 0.95), ("b", 0.6), ("c", 0.94)]
    folders = [
        make_run(tmp_path, name, seed, value, accuracy_majority=0.3) for name, value in values for seed in range(seeds)
    ]
    (folders[-1] / "config.py").write_text("data = {'train': {'shuffle_labels': True}}\nrunner = {'device': 'cuda'}\n")
    (tmp_path / "audit.csv").write_text(f"file,finding,action,group,detail\n3.jpg,{CONTAMINATED},kept,g,\n")
    files = {}
    for language in ("en", "zh"):
        out = tmp_path / language
        out.mkdir()
        more = ["--html", out / "l.html", "--comparisons", out / "c.csv", "--costs", out / "costs.csv"]
        more += ["--audit", tmp_path / "audit.csv", "--price", "2", "--currency", "CNY", "--language", language]
        run_cli_on(folders, out, *map(str, more))
        files[language] = {path.name: path.read_bytes() for path in out.glob("*.csv")}
        # The history says when: the second may differ.
        files[language]["history.csv"] = re.sub(rb"(?m)^\d{4}-\S+?,", b"", files[language]["history.csv"])
    assert files["zh"] == files["en"], "results are the same in each language"
    assert not english_on((tmp_path / "zh" / "l.html").read_text(encoding="utf-8"))
    board = leaderboard.read_leaderboard(tmp_path / "zh" / "l.csv")
    with speaking("zh"):
        text = leaderboard.render_text(board)
    assert not english_in(text) and "测试集受到污染" in text and "对照（打乱标签）" in text
    lines = text.splitlines()[:5]
    assert len({cell_len(line) for line in lines[:2]}) == 1, "Chinese characters are two columns wide"


def test_what_comparisons_and_costs_say_is_translated_whatever_it_is() -> None:
    sources = {"source": [cost.ACCOUNTING], "energy_of": [cost.OF_NODES]}, {"source": [""], "energy_of": [cost.OF_GPUS]}
    sums = {name: [7.0] for name in cost.SUMS} | {"currency": ["CNY"], "seeds": [2]}
    table = pd.DataFrame({
        "interval": ["recipe", "these models"], "p_value": [0.01, 0.2], "p_holm": [0.1, 0.2], "folds": 3,
        "verdict": [f"{paired.TOO_FEW_SEEDS}; the models of a are better", paired.NOT_TOLD_APART],
    })  # fmt: skip
    names = ["best", *(f"experiment{number}" for number in range(12))]
    boards = [
        pd.DataFrame({"experiment": names, "interval": "recipe", "against_best": ["best", *[verdict] * 12]})
        for verdict in (paired.NOT_TOLD_APART, paired.WORSE, paired.NOT_COMPARABLE, paired.TOO_FEW_SEEDS)
    ]
    with speaking("zh"):
        remarks = [
            *(text for of in sources for text in cost.remarks(pd.DataFrame(of))),
            tr(cost.in_sum(pd.DataFrame(sums))),
            *paired.remarks(table),
        ]
        remarks += [remark for board in boards for remark in leaderboard.remarks(board)]
    assert len(remarks) > 10 and not [text for text in remarks if english_in(text)]
