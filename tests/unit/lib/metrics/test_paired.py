"""Paired comparisons: what can be compared, and verdicts that say what interval and p-value say."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from scripts.lib.base.problems import UserError
from scripts.lib.metrics import paired
from scripts.lib.metrics.paired import Correct, NotComparableError
from scripts.lib.runs.predictions import write_predictions

CLASSES = ["苹果", 'it\'s "quoted", really', "$(touch x) $y$", "<script>alert(1)</script>", "NA", "01", "梨"]


def correct(right: list[bool] | np.ndarray, files: str = "") -> Correct:
    n = len(right)
    return Correct(tuple(f"{files}{i:04d}.jpg" for i in range(n)), ("x",) * n, np.asarray(right, bool))


# --- Holm -------------------------------------------------------------------------------------------------------------


def test_holm_is_as_worked_by_hand() -> None:
    assert paired.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert paired.holm([0.9, 0.8]) == [1, 1]
    assert paired.holm([]) == []
    adjusted = paired.holm([float("nan"), 0.03, 0.02])
    assert np.isnan(adjusted[0]) and adjusted[1:] == pytest.approx([0.04, 0.04]), "what was not tested does not count"


# --- which runs can be compared ---------------------------------------------------------------------------------------


def test_runs_are_paired_by_seed_and_only_by_seeds_that_both_have() -> None:
    a = {0: correct([True, True]), 1: correct([True, False]), 7: correct([False, False])}
    b = {7: correct([True, False]), 0: correct([False, True]), 3: correct([True, True])}
    right_a, right_b = paired.pair(a, b)
    assert right_a.tolist() == [[True, True], [False, False]]
    assert right_b.tolist() == [[False, True], [True, False]]


def test_other_images_other_labels_or_no_common_seed_cannot_be_compared() -> None:
    a = {0: correct([True, True])}
    relabelled = Correct(a[0].files, ("x", "y"), a[0].right)
    for other in (correct([True]), correct([True, True], "other"), relabelled):
        with pytest.raises(NotComparableError, match="other test images"):
            paired.pair(a, {0: other})
        with pytest.raises(NotComparableError, match="other test images"):
            paired.pair({0: a[0], 1: other}, {0: a[0], 1: other})
    with pytest.raises(NotComparableError, match="no seed in common"):
        paired.pair(a, {1: a[0]})


def test_answers_do_not_depend_on_the_order_of_images_or_classes(tmp_path: Path) -> None:
    labels, predicted = [0, 1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 6, 6]
    names = ["b,\"'.jpg", "a.jpg", "苹果.jpg", "NA", "01", "$(x).jpg", "<b>.jpg"]
    for folder, order, classes in (("x", range(7), CLASSES), ("y", range(6, -1, -1), CLASSES[::-1])):
        (tmp_path / folder).mkdir()
        index = {name: number for number, name in enumerate(classes)}
        rows = []
        for number in order:
            probabilities = np.zeros(len(classes), np.float32)
            probabilities[index[CLASSES[predicted[number]]]] = 1
            rows.append((names[number], index[CLASSES[labels[number]]], probabilities))
        write_predictions(tmp_path / folder / "predictions.csv", classes, rows)
    x, y = (paired.read_correct(tmp_path / folder) for folder in "xy")
    assert x.same_images(y) and x.right.tolist() == y.right.tolist()
    assert dict(zip(x.files, x.labels, strict=True)) == {n: CLASSES[k] for n, k in zip(names, labels, strict=True)}
    assert [file for file, right in zip(x.files, x.right, strict=True) if not right] == ["$(x).jpg"]


def test_a_run_without_predictions_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"predictions\.csv: no such file"):
        paired.read_correct(tmp_path)


# --- cross-validation -------------------------------------------------------------------------------------------------


def test_each_image_counts_by_the_fold_that_tested_it() -> None:
    joined = paired.join_folds({1: correct([True, False], "b"), 0: correct([False, True], "a")})
    assert joined.files == ("a0000.jpg", "a0001.jpg", "b0000.jpg", "b0001.jpg")
    assert joined.right.tolist() == [False, True, True, False] and joined.folds == (0, 0, 1, 1)
    other = paired.join_folds({0: correct([True, False], "b"), 1: correct([False, True], "a")})
    assert not joined.same_images(other), "the same images, but tested by models of other training sets"
    with pytest.raises(UserError, match=r"a0000\.jpg: tested in more than one fold"):
        paired.join_folds({0: correct([True], "a"), 1: correct([True], "a")})


# --- the table --------------------------------------------------------------------------------------------------------


def test_the_table_says_who_is_better_and_who_cannot_be_told_apart() -> None:
    base = np.ones(200, bool)
    clearly, hardly, foreign = base.copy(), base.copy(), correct([True] * 200, "other")
    clearly[:30], hardly[:3] = False, False
    experiments = {"best": base, "close": hardly, "far": clearly}
    runs = {name: {seed: correct(right) for seed in range(3)} for name, right in experiments.items()}
    table = paired.compare_pairs(runs | {"else": {0: foreign}}, ["best", "close", "far", "else"])
    assert list(table.columns) == list(paired.COLUMNS)
    verdicts = {(row["experiment_a"], row["experiment_b"]): row["verdict"] for _, row in table.iterrows()}
    assert verdicts == {
        ("best", "close"): "cannot be told apart",
        ("best", "far"): "best is better",
        ("best", "else"): "not comparable: other test images",
        ("close", "far"): "close is better",
        ("close", "else"): "not comparable: other test images",
        ("far", "else"): "not comparable: other test images",
    }
    row = table.iloc[1]
    assert (row["seeds"], row["n_images"], row["only_a_right"], row["only_b_right"]) == (3, 200, 90, 0)
    assert (row["accuracy_a"], row["accuracy_b"], row["difference"]) == pytest.approx((1, 0.85, 0.15))
    assert row["p_value"] == row["p_models"] / 3 < 1e-6 and row["p_holm"] == pytest.approx(3 * row["p_value"])
    assert table["p_holm"].isna().sum() == 3
    assert paired.against_best(table, "best") == {
        "best": "best", "close": "cannot be told apart", "far": "worse", "else": "not comparable"
    }  # fmt: skip
    header, rows = paired.cells(table)
    assert {len(row) for row in rows} == {len(header)}
    assert rows[1][4:6] == ["+15.0", rows[1][5]] and rows[5][2:8] == ["-"] * 6 and rows[1][6:8] == ["90, 0", "< 0.0001"]


def test_one_that_ranks_lower_may_still_be_better_on_common_seeds() -> None:
    low = np.arange(100) < 50
    seeds = range(3)
    first = {seed: correct(low) for seed in seeds} | {3: correct([True] * 100)}
    second = {seed: correct(np.arange(100) < 80) for seed in seeds}
    table = paired.compare_pairs({"first": first, "second": second}, ["first", "second"])
    assert table["verdict"].tolist() == ["second is better"]
    assert paired.against_best(table, "first") == {"first": "best", "second": "better"}


@pytest.mark.parametrize("wrong", [(60,), (60, 4), (60, 4, 20)])
def test_where_seeds_are_too_few_the_models_are_told_apart_and_not_the_recipes(wrong: tuple[int, ...]) -> None:
    a, b = np.ones((len(wrong), 300), bool), np.ones((len(wrong), 300), bool)
    for seed, images in enumerate(wrong):
        b[seed, :images] = False
    runs = {name: dict(enumerate(map(correct, right))) for name, right in (("a", a), ("b", b))}
    table = paired.compare_pairs(runs, ["a", "b"])
    row = table.iloc[0]
    assert row["verdict"] == "too few seeds to speak of the recipe; the models of a are better"
    assert row["p_models"] < 1e-6
    assert (row["interval"] == "these models") == (len(wrong) < 3) == (row["difference_ci95_low"] > 0)
    assert paired.against_best(table, "a") == {"a": "best", "b": "too few seeds to speak of the recipe"}
    text = " ".join(paired.remarks(table))
    assert "these models differ" in text and ("* 95 % interval" in text) == (len(wrong) < 3)


def test_58_percent_against_25_of_two_seeds_and_three_folds_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    easy, folds = rng.normal(size=278), tuple((np.arange(278) % 3).tolist())
    runs = {}
    for name, accuracy in (("a", 0.582), ("b", 0.248)):
        ease = 0.8 * easy + 0.6 * rng.normal(size=278)
        of_fold = np.array([0.2, 0.0, -0.2])[np.arange(278) % 3]  # folds are not equally hard
        score = ease + of_fold + 0.5 * rng.normal(size=(2, 278))
        right = score > np.quantile(score, 1 - accuracy)
        runs[name] = {seed: Correct(correct(right[seed]).files, ("x",) * 278, right[seed], folds) for seed in (0, 1)}
    row = paired.compare_pairs(runs, ["a", "b"]).iloc[0]
    assert row["difference"] == pytest.approx(0.334, abs=0.01) and row["folds"] == 3
    assert row["verdict"] == "a is better" and row["p_holm"] < 0.01 and row["p_models"] < 1e-12
    assert row["difference_ci95_low"] > 0.2 and row["difference_ci95_high"] < 0.47


def test_verdict_interval_and_p_value_never_disagree() -> None:
    rng = np.random.default_rng(0)
    told = []
    for seeds, gain in product([1, 2, 3, 5], np.linspace(0, 0.5, 12)):
        easy = rng.normal(size=200)
        runs = {
            name: {
                seed: correct(easy + more + rng.normal(0, 0.1) + 0.5 * rng.normal(size=200) > -1)
                for seed in range(seeds)
            }
            for name, more in (("a", gain), ("b", 0.0))
        }
        row = paired.compare_pairs(runs, ["a", "b"]).iloc[0]
        leaves_out_0 = not row["difference_ci95_low"] <= 0 <= row["difference_ci95_high"]
        assert leaves_out_0 == (row["p_holm"] < 0.05)
        better = "is better" if row["interval"] == "recipe" else "too few seeds"
        assert (better in row["verdict"]) == leaves_out_0 or row["interval"] == "recipe"
        assert row["verdict"].endswith("is better") == (leaves_out_0 and row["interval"] == "recipe")
        assert row["p_models"] <= row["p_value"] + 1e-12
        told.append(row["verdict"].split(";")[0])
    assert {"a is better", "cannot be told apart", "too few seeds to speak of the recipe"} <= set(told)


def test_what_would_be_found_alone_is_not_called_better_among_many() -> None:
    seeds = range(3)
    runs = {"best": {seed: correct([True] * 200) for seed in seeds}}
    runs |= {name: {seed: correct(np.arange(200) >= 8) for seed in seeds} for name in "bcde"}
    alone = paired.compare_pairs(runs, ["best", "b"]).iloc[0]
    assert 0.001 < alone["p_value"] < 0.05 and alone["verdict"] == "best is better"
    table = paired.compare_pairs(runs, ["best", *"bcde"])
    among = table.iloc[0]
    assert among["p_holm"] == pytest.approx(10 * alone["p_value"]) and among["difference_ci95_low"] > 0
    assert among["verdict"] == "cannot be told apart"
    assert "among so many pairs" in " ".join(paired.remarks(table))


def test_many_experiments_are_compared_with_the_best_only() -> None:
    rng = np.random.default_rng(0)
    runs = {f"e{number}": {0: correct(rng.random(50) < 0.8)} for number in range(11)}
    assert len(paired.compare_pairs(runs, list(runs))) == 10
    assert len(paired.compare_pairs(runs, list(runs)[:10])) == 45
    empty = paired.compare_pairs(runs, ["e0"])
    assert len(empty) == 0 and list(empty.columns) == list(paired.COLUMNS)


def test_the_same_answers_give_the_same_numbers() -> None:
    rng = np.random.default_rng(0)
    runs = {name: {seed: correct(rng.random(80) < 0.8) for seed in range(3)} for name in "abc"}
    first = paired.compare_pairs(runs, list("abc"))
    assert first.equals(paired.compare_pairs(dict(reversed(runs.items())), list("abc")))


def test_p_values_are_written_with_the_digits_that_say_something() -> None:
    assert [paired.p_text(p) for p in (0, 0.00012, 0.0312, 0.5, 1)] == ["< 0.0001", "0.00012", "0.031", "0.50", "1.00"]
