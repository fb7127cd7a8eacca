"""Contaminated test images: accuracy with and without them, told in red, and nothing told where there are none."""

from __future__ import annotations

import csv
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_runs import answer, make_run

from scripts.lib.base.problems import UserError
from scripts.lib.data.findings import CONTAMINATED, TRAIN_COPY
from scripts.lib.metrics import contamination, leaderboard
from scripts.lib.metrics.intervals import accuracy_interval
from scripts.lib.metrics.metrics import wilson_interval
from scripts.report import compare_runs

RED = "\x1b[31m"


def write_audit(path: Path, *rows: tuple[str, str, str, str]) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "finding", "action", "group", "detail"])
        writer.writerows([*row, ""] for row in rows)
    return path


def pairs(numbers: range) -> list[tuple[str, str, str, str]]:
    """Test images of which train has a copy, with that copy."""
    rows = [(f"{number}.jpg", CONTAMINATED, "kept", f"g{number}") for number in numbers]
    return rows + [(f"train/{number}.jpg", TRAIN_COPY, "left_out", f"g{number}") for number in numbers]


def evaluated(root: Path, experiment: str, seed: int, wrong: range) -> Path:
    """A run that answers 120 images (0.jpg to 119.jpg), those of *wrong* wrongly, with the metrics that follow."""
    right = 120 - len(wrong)
    low, high = wilson_interval(right, 120)
    return answer(make_run(root, experiment, seed, right / 120, accuracy_top1_ci95=[low, high]), wrong)


def compare(root: Path, folders: list[Path], *more: str) -> pd.DataFrame:
    options = ["--leaderboard", root / "l.csv", "--figure", root / "l.svg", "--html", root / "l.html", *more]
    arguments = ["--runs", *map(str, folders), *map(str, options)]
    compare_runs.main(compare_runs.build_parser().parse_args(arguments))
    return leaderboard.read_leaderboard(root / "l.csv")


def test_the_leaderboard_has_the_accuracy_without_contaminated_images(tmp_path: Path) -> None:
    # 20 of 120 are contaminated. a: right on all of them and wrong on 30 others; b: wrong on 10 of them and 10 others.
    folders = [evaluated(tmp_path, "a", 0, range(60, 90)), evaluated(tmp_path, "b", 0, range(10, 30))]
    audit = write_audit(tmp_path / "audit.csv", *pairs(range(20)), ("3.jpg", "blank", "kept", ""))
    board = compare(tmp_path, folders, "--audit", str(audit)).set_index("experiment")
    assert board["accuracy_without_leaked"].to_dict() == {"b": pytest.approx(0.9), "a": pytest.approx(0.7)}
    assert set(board["n_leaked"].astype(str)) == {"20"}
    page = (tmp_path / "l.html").read_text(encoding="utf-8")
    box = page.split('<div class="contaminated">')[1].split("</div>")[0]
    assert page.index('<div class="contaminated">') < page.index("<table>")
    heading = "<p><strong>The test split is contaminated.</strong></p>"
    assert f"{heading}\n<p>20 of the 120 test images have a copy or a near copy in train" in box
    assert "left out of training" in box and "not left out" not in box and "group_by" not in box
    low, high = wilson_interval(70, 100)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", box.split("<td>a</td>")[1])[:6]
    with_low, with_high = wilson_interval(90, 120)
    assert cells == [
        *("1", "75.0", f"{100 * with_low:.1f} to {100 * with_high:.1f}"),
        *("70.0", f"{100 * low:.1f} to {100 * high:.1f}", "100"),
    ]
    assert box.index("<td>b</td>") < box.index("<td>a</td>"), "in the order of the leaderboard"


def test_over_seeds_it_is_the_mean_with_the_leaderboards_interval(tmp_path: Path) -> None:
    folders = [evaluated(tmp_path, "a", 0, range(90, 120)), evaluated(tmp_path, "a", 1, range(0, 10))]
    audit = write_audit(tmp_path / "audit.csv", *pairs(range(20)))
    correct = leaderboard.read_correct(leaderboard.collect(folders))
    contaminated = contamination.find_contamination(correct, audit)
    assert contaminated is not None
    row = contaminated.table.iloc[0]
    assert (row["with"], row["without"]) == (pytest.approx((90 + 110) / 240), pytest.approx(0.85))
    right = np.array([[True] * 70 + [False] * 30, [True] * 100])
    assert (row["without_low"], row["without_high"]) == pytest.approx(accuracy_interval(right.astype(float)).interval)


def test_with_all_test_images_it_is_what_the_leaderboard_says(tmp_path: Path) -> None:
    folders = [evaluated(tmp_path, name, seed, range(7 * seed, 30)) for name in ("a", "b") for seed in (0, 1, 2)]
    folders.append(evaluated(tmp_path, "c", 0, range(50)))
    audit = write_audit(tmp_path / "audit.csv", *pairs(range(20)))
    board = compare(tmp_path, folders, "--audit", str(audit)).set_index("experiment")
    contaminated = contamination.find_contamination(leaderboard.read_correct(leaderboard.collect(folders)), audit)
    assert contaminated is not None
    for _, row in contaminated.table.iterrows():
        names = ("accuracy_top1_mean", "accuracy_top1_ci95_low", "accuracy_top1_ci95_high")
        expected = [board.loc[row["experiment"], name] for name in names]
        assert [row[f"with{end}"] for end in ("", "_low", "_high")] == pytest.approx(expected)


def test_images_of_a_known_group_that_were_trained_on_are_said_to_be(tmp_path: Path) -> None:
    folders = [evaluated(tmp_path, "a", 0, range(12))]
    known = [(f"{number}.jpg", CONTAMINATED, "kept", "") for number in range(30, 35)]
    audit = write_audit(tmp_path / "audit.csv", *pairs(range(2)), *known)
    compare(tmp_path, folders, "--audit", str(audit))
    box = (tmp_path / "l.html").read_text(encoding="utf-8").split('<div class="contaminated">')[1]
    assert "2 of the 120 test images have a copy" in box
    assert "5 of the 120 test images have images of the same group" in box and "were not left out of training" in box
    compare(tmp_path, folders, "--audit", str(write_audit(tmp_path / "audit.csv", *known[:1])))
    box = (tmp_path / "l.html").read_text(encoding="utf-8").split('<div class="contaminated">')[1]
    assert "1 of the 120 test images has images of the same group" in box and "near copy" not in box


CLEAN: list[list[tuple[str, str, str, str]]] = [
    [],
    [("3.jpg", "blank", "kept", ""), ("train/1.jpg", "duplicate", "kept", "g")],
    [("val/3.jpg", CONTAMINATED, "kept", "g"), ("train/3.jpg", TRAIN_COPY, "left_out", "g")],  # given val, not test
]


@pytest.mark.parametrize("rows", CLEAN)
def test_where_no_test_image_is_contaminated_every_file_is_as_before(
    tmp_path: Path, rows: list[tuple[str, str, str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [evaluated(tmp_path, name, 0, range(wrong)) for name, wrong in (("a", 12), ("b", 30))]
    written = []
    for options in ([], ["--audit", str(write_audit(tmp_path / "audit.csv", *rows))]):
        compare(tmp_path, folders, *options)
        compare_runs.main(compare_runs.build_parser().parse_args(["--show", str(tmp_path / "l.csv")]))
        files = [(tmp_path / name).read_bytes() for name in ("l.csv", "l.html", "l.svg")]
        written.append((*files, capsys.readouterr().out))
    assert written[0] == written[1]
    assert "contaminated" not in written[0][3] and b"contaminated" not in written[0][1]


def test_where_every_test_image_is_contaminated_there_is_no_accuracy_without(tmp_path: Path) -> None:
    audit = write_audit(tmp_path / "audit.csv", *pairs(range(120)))
    board = compare(tmp_path, [evaluated(tmp_path, "a", 0, range(12))], "--audit", str(audit))
    assert board["accuracy_without_leaked"].isna().all() and str(board["n_leaked"].iloc[0]) == "120"
    box = (tmp_path / "l.html").read_text(encoding="utf-8").split('<div class="contaminated">')[1].split("</div>")[0]
    assert re.findall(r"<td[^>]*>(.*?)</td>", box)[-3:] == ["-", "-", "0"]
    assert "nan" not in box and "nan" not in leaderboard.render_text(board)


@pytest.mark.long
def test_the_terminal_says_it_in_one_line_in_red_and_a_file_gets_no_colour(tmp_path: Path) -> None:
    folders = [evaluated(tmp_path, "a", 0, range(60, 90)), evaluated(tmp_path, "草莓", 0, range(10, 30))]
    compare(tmp_path, folders, "--audit", str(write_audit(tmp_path / "audit.csv", *pairs(range(20)))))
    command = [sys.executable, "-m", "scripts.report.compare_runs", "--show", str(tmp_path / "l.csv")]
    plain = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    last = plain.splitlines()[-1]
    assert (
        last.startswith("The test split is contaminated: train or val as given holds 20 of 120 test images")
        and "\x1b" not in plain
    )
    assert last.endswith("Without them 草莓 has 90.0 %, instead of 83.3 %.")
    parent, child = pty.openpty()
    with os.fdopen(parent, "rb", buffering=0) as terminal:
        subprocess.run(command, stdout=child, check=True)
        os.close(child)
        shown = terminal.read(100_000).decode()
    assert shown.count("\x1b") == 2 and shown.rstrip().endswith(f"{RED}{last}\x1b[0m")


def test_experiments_may_be_called_anything(tmp_path: Path) -> None:
    folders = [evaluated(tmp_path, name, 0, range(12)) for name in ("NA", "1e5")]
    audit = write_audit(tmp_path / "audit.csv", *pairs(range(20)))
    board = compare(tmp_path, folders, "--audit", str(audit))
    assert sorted(board["experiment"]) == ["1e5", "NA"] and board["accuracy_without_leaked"].notna().all()


def test_a_missing_audit_or_missing_predictions_are_one_line(tmp_path: Path) -> None:
    folders = [make_run(tmp_path, "a", 0, 0.9)]
    with pytest.raises(UserError, match=r"no\.csv: no such file"):
        compare(tmp_path, folders, "--audit", str(tmp_path / "no.csv"))
    (folders[0] / "predictions.csv").unlink()
    audit = write_audit(tmp_path / "audit.csv", *pairs(range(20)))
    with pytest.raises(UserError, match=r"predictions\.csv: no such file"):
        compare(tmp_path, folders, "--audit", str(audit))
    assert json.loads((folders[0] / "metrics.json").read_text())["n_test"] == 120
