"""Paired tests: closed forms and brute force agree, no more false alarms than promised, intervals that cover."""

from __future__ import annotations

from itertools import product
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, norm

from scripts.lib.base.problems import UserError
from scripts.lib.metrics import paired
from scripts.lib.metrics.paired import Correct, NotComparableError
from scripts.lib.runs.predictions import write_predictions

CLASSES = ["苹果", 'it\'s "quoted", really', "$(touch x) $y$", "<script>alert(1)</script>", "NA", "01", "梨"]


def one_seed(only_a: int, only_b: int, both: int = 20) -> np.ndarray:
    return np.array([[1] * only_a + [-1] * only_b + [0] * both])


def correct(right: list[bool] | np.ndarray, files: str = "") -> Correct:
    n = len(right)
    return Correct(tuple(f"{files}{i:04d}.jpg" for i in range(n)), ("x",) * n, np.asarray(right, bool))


# --- p-values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (5, 0), (6, 0), (5, 5), (12, 3), (3, 12), (40, 61)])
def test_one_seed_is_mcnemars_exact_test(only_a: int, only_b: int) -> None:
    n = only_a + only_b
    tail = sum(comb(n, k) for k in range(min(only_a, only_b) + 1))
    by_hand = min(1, 2 * tail / 2**n)
    assert paired.paired_p_value(one_seed(only_a, only_b)) == pytest.approx(by_hand, rel=1e-9)
    if n:
        assert by_hand == pytest.approx(binomtest(only_a, n).pvalue, rel=1e-9)


def test_images_on_which_both_agree_change_nothing() -> None:
    assert paired.paired_p_value(one_seed(9, 2, both=0)) == paired.paired_p_value(one_seed(9, 2, both=500))


@pytest.mark.parametrize("seeds", [2, 3])
def test_several_seeds_are_all_the_coins_of_the_images(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    for lean in ([0.2, 0.3, 0.5], [0.05, 0.25, 0.7]):
        difference = rng.choice([-1, 0, 1], p=lean, size=(seeds, 11))
        of_image = difference.sum(axis=0)
        sums = [abs(sum(np.array(signs) * of_image)) for signs in product([-1, 1], repeat=11)]
        by_hand = np.mean(np.array(sums) >= abs(of_image.sum()))
        assert paired.paired_p_value(difference) == pytest.approx(by_hand, rel=1e-9)


def test_a_hundred_thousand_images_take_no_time_and_no_overflow() -> None:
    difference = np.random.default_rng(0).choice([-1, 0, 1], p=[0.05, 0.9, 0.05], size=(3, 100_000))
    assert 0.001 < paired.paired_p_value(difference) <= 1
    assert paired.paired_p_value(one_seed(40_000, 10_000)) == pytest.approx(0, abs=1e-300)


def simulate(rng: np.random.Generator, seeds: int, images: int, seed_sd: float, gain: float = 0.0) -> np.ndarray:
    """Differences of two experiments: some images are hard, some harder for one of the two, some seeds are better."""
    hard = rng.normal(1.2, 1.2, images)
    of_experiment = hard + rng.normal(0, 1.0, (2, images))
    ability = of_experiment[:, None] + rng.normal(0, seed_sd, (2, seeds, 1)) + [[[gain]], [[0.0]]]
    right = rng.normal(0, 0.7, (2, seeds, images)) < ability
    return right[0].astype(int) - right[1]


@pytest.mark.long
@pytest.mark.parametrize("seeds", [1, 4])
def test_two_equal_experiments_are_told_apart_by_one_test_in_twenty_at_most(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    p_values = np.array([paired.paired_p_value(simulate(rng, seeds, 150, 0.0)) for _ in range(1500)])
    assert 0.025 <= (p_values < 0.05).mean() <= 0.062
    assert (p_values < 0.5).mean() > 0.4, "and it is not merely deaf"


def test_a_better_experiment_is_found() -> None:
    rng = np.random.default_rng(0)
    significant = [paired.paired_p_value(simulate(rng, 1, 400, 0.0, gain=0.6)) < 0.05 for _ in range(100)]
    assert np.mean(significant) > 0.9


# --- intervals --------------------------------------------------------------------------------------------------------


def true_difference(gain: float, seed_sd: float) -> float:
    """Of :func:`simulate`, over all images and all seeds: every part of it is normal."""
    spread = np.sqrt(1.2**2 + 1.0**2 + 0.7**2 + seed_sd**2)
    return float(norm.cdf((1.2 + gain) / spread) - norm.cdf(1.2 / spread))


@pytest.mark.long
@pytest.mark.parametrize(
    ("seeds", "images", "seed_sd", "gain", "least"),
    [
        (1, 60, 0.0, 0.0, 0.93),
        (1, 400, 0.0, 0.4, 0.93),
        (2, 400, 0.3, 0.4, 0.88),
        (3, 400, 0.1, 0.4, 0.93),
        (3, 400, 0.4, 0.4, 0.93),
        (6, 400, 0.4, 0.0, 0.93),
    ],
)
def test_the_interval_covers_the_true_difference(
    seeds: int, images: int, seed_sd: float, gain: float, least: float
) -> None:
    truth = true_difference(gain, seed_sd)
    rng = np.random.default_rng(1)
    hits = []
    for _ in range(400):
        low, high = paired.paired_interval(simulate(rng, seeds, images, seed_sd, gain), resamples=1000)
        hits.append(low <= truth <= high)
    assert least <= np.mean(hits) <= 0.995, np.mean(hits)


def test_the_interval_of_one_seed_is_that_of_drawing_images() -> None:
    """A second implementation: images by number, drawn with replacement, one by one."""
    difference = one_seed(60, 25, both=315)
    rng = np.random.default_rng(3)
    drawn = [rng.choice(difference[0], 400).mean() for _ in range(4000)]
    assert paired.paired_interval(difference) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.006)


def test_experiments_that_agree_on_all_images_are_not_known_to_be_equal() -> None:
    low, high = paired.paired_interval(one_seed(0, 0, both=100))
    assert low == -high and 0.01 < high < 0.05


def test_all_right_against_all_wrong_stays_within_one() -> None:
    low, high = paired.paired_interval(one_seed(30, 0, both=0))
    assert 0.8 < low < high == 1
    assert paired.paired_interval(np.array([[1] * 30, [0] * 30])) == (-1, 1), "two seeds that differ by so much"


def test_seeds_that_differ_widen_the_interval_and_seeds_that_agree_do_not() -> None:
    same = np.repeat(one_seed(30, 10, both=160), 3, axis=0)
    differing = same.copy()
    differing[0, 40:100] = 1
    width = {name: np.diff(paired.paired_interval(x))[0] for name, x in (("same", same), ("differing", differing))}
    assert paired.seed_deviation(same) < 1e-9
    assert width["same"] == pytest.approx(np.diff(paired.paired_interval(same[:1]))[0], abs=0.01)
    assert width["differing"] > 3 * width["same"]


@pytest.mark.long
def test_the_deviation_is_the_one_that_was_put_in() -> None:
    """Searle, Casella & McCulloch: the mean square of seeds less that of residuals, over images and seeds."""
    rng = np.random.default_rng(5)
    squares = [paired.seed_deviation(simulate(rng, 4, 300, 0.5)) ** 2 for _ in range(400)]
    means = [simulate(rng, 4, 20_000, 0.5).mean() for _ in range(400)]
    assert np.mean(squares) == pytest.approx(np.var(means), rel=0.2)
    none = [paired.seed_deviation(simulate(rng, 4, 300, 0.0)) == 0 for _ in range(200)]
    assert 0.4 < np.mean(none) < 0.8, "what seeds differ by on account of their images alone is not counted twice"


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


@pytest.mark.long
@pytest.mark.parametrize("folds", [3, 5, 10])
def test_the_corrected_interval_covers_where_the_usual_one_does_not(folds: int) -> None:
    # Nadeau & Bengio's model: two folds correlate by n_test / (n_test + n_train), which is 1 / folds.
    rng = np.random.default_rng(folds)
    shared = rng.standard_normal((4000, 1)) / np.sqrt(folds)
    results = shared + rng.standard_normal((4000, folds)) * np.sqrt(1 - 1 / folds)
    half = np.array([paired.corrected_half_width(row) for row in results])
    assert 0.93 <= (np.abs(results.mean(axis=1)) <= half).mean() <= 0.97
    usual = half / np.sqrt(1 / folds + 1 / (folds - 1)) / np.sqrt(folds)
    assert (np.abs(results.mean(axis=1)) <= usual).mean() < 0.91


def test_folds_that_differ_widen_the_interval_and_folds_that_agree_do_not_shrink_it() -> None:
    base = np.ones(300, bool)
    folds = tuple(np.repeat([0, 1, 2], 100).tolist())
    uneven, even = base.copy(), base.copy()
    uneven[:30] = False
    even[[*range(10), *range(100, 110), *range(200, 210)]] = False
    for right, of_fold in ((uneven, [0.3, 0, 0]), (even, [0.1, 0.1, 0.1])):
        a, b = (Correct(correct(base).files, ("x",) * 300, values, folds) for values in (base, right))
        row = paired.compare_pairs({"a": {0: a}, "b": {0: b}}, ["a", "b"]).iloc[0]
        half = 4.302652729911275 * np.std(of_fold, ddof=1) * np.sqrt(1 / 3 + 1 / 2)
        images = paired.paired_interval((base.astype(int) - right)[None])
        assert row["difference_ci95_low"] == pytest.approx(min(images[0], 0.1 - half))
        assert row["difference_ci95_high"] == pytest.approx(max(images[1], 0.1 + half))
        assert row["verdict"] == ("cannot be told apart" if half > 0.01 else "a is better")
        assert row["folds"] == 3 and any("Cross-validation" in note for note in paired.remarks(pd.DataFrame([row])))


# --- the table --------------------------------------------------------------------------------------------------------


def test_the_table_says_who_is_better_and_who_cannot_be_told_apart() -> None:
    base = np.ones(200, bool)
    clearly, hardly, foreign = base.copy(), base.copy(), correct([True] * 200, "other")
    clearly[:30], hardly[:3] = False, False
    experiments = {"best": base, "close": hardly, "far": clearly}
    runs = {name: {0: correct(right), 1: correct(right)} for name, right in experiments.items()}
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
    assert (row["seeds"], row["n_images"], row["only_a_right"], row["only_b_right"]) == (2, 200, 60, 0)
    assert (row["accuracy_a"], row["accuracy_b"], row["difference"]) == pytest.approx((1, 0.85, 0.15))
    assert row["p_value"] == pytest.approx(2 * 0.5**30) and row["p_holm"] == pytest.approx(3 * row["p_value"])
    assert table["p_holm"].isna().sum() == 3
    assert paired.against_best(table, "best") == {
        "best": "best", "close": "cannot be told apart", "far": "worse", "else": "not comparable"
    }  # fmt: skip
    header, rows = paired.cells(table)
    assert {len(row) for row in rows} == {len(header)}
    assert rows[1][4:6] == ["+15.0", rows[1][5]] and rows[5][2:8] == ["-"] * 6 and rows[1][6:8] == ["60, 0", "< 0.0001"]


def test_one_that_ranks_lower_may_still_be_better_on_common_seeds() -> None:
    low = np.arange(100) < 50
    runs = {"first": {0: correct(low), 1: correct([True] * 100)}, "second": {0: correct(low | (np.arange(100) < 80))}}
    table = paired.compare_pairs(runs, ["first", "second"])
    assert table["verdict"].tolist() == ["second is better"]
    assert paired.against_best(table, "first") == {"first": "best", "second": "better"}


def test_a_small_p_value_is_not_enough_where_seeds_differ() -> None:
    a, b = np.ones((2, 300), bool), np.ones((2, 300), bool)
    b[0, :60], b[1, :4] = False, False
    runs = {name: {seed: correct(right[seed]) for seed in (0, 1)} for name, right in (("a", a), ("b", b))}
    row = paired.compare_pairs(runs, ["a", "b"]).iloc[0]
    assert row["p_holm"] < 1e-6 and row["difference_ci95_low"] < 0
    assert row["verdict"] == "cannot be told apart"


def test_what_would_be_found_alone_is_not_called_better_among_many() -> None:
    runs = {"best": {0: correct([True] * 200)}} | {name: {0: correct(np.arange(200) >= 8)} for name in "bcde"}
    alone = paired.compare_pairs(runs, ["best", "b"]).iloc[0]
    assert (alone["p_value"], alone["verdict"]) == (pytest.approx(2 / 2**8), "best is better")
    among = paired.compare_pairs(runs, ["best", *"bcde"]).iloc[0]
    assert among["p_holm"] == pytest.approx(10 * 2 / 2**8) and among["difference_ci95_low"] > 0
    assert among["verdict"] == "cannot be told apart"


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
