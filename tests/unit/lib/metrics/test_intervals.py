"""Intervals over images and seeds: what the parts are, that none is missing, and that none is counted twice."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from scripts.lib.metrics.intervals import (
    EXPLAINED,
    MODELS,
    RECIPE,
    Variance,
    accuracy_interval,
    difference_interval,
    models_variance,
)
from scripts.lib.metrics.metrics import Interval, wilson_interval

T_975_2 = 4.302652729911275  # Student's t, 2 degrees of freedom, from a table


def rows(*right: int, images: int = 200) -> np.ndarray:
    """Answers of as many seeds, each right on its first images."""
    return np.array([np.arange(images) < count for count in right], dtype=float)


def width(interval: Interval) -> float:
    return interval[1] - interval[0]


# --- accuracies -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("right", [0, 1, 15, 29, 30])
def test_of_one_seed_it_is_wilsons(right: int) -> None:
    assert accuracy_interval(rows(right, images=30)).interval == wilson_interval(right, 30)


def test_278_images_in_three_folds_are_278_images() -> None:
    rng = np.random.default_rng(0)
    folds = (np.arange(278) % 3).tolist()
    accuracy = accuracy_interval(rng.permuted(rows(203, images=278), axis=1), folds)
    assert accuracy.interval == wilson_interval(203, 278) and 0.10 < width(accuracy.interval) < 0.11
    assert accuracy.of == MODELS, "one seed"


@pytest.mark.parametrize("right", [(183, 184), (184, 184), (170, 198)])
def test_two_seeds_have_the_interval_of_their_images(right: tuple[int, int]) -> None:
    accuracy = accuracy_interval(rows(*right))
    assert accuracy.of == MODELS and accuracy.mean == pytest.approx(sum(right) / 400)
    assert 0.5 * width(wilson_interval(sum(right) / 2, 200)) < width(accuracy.interval)
    assert width(accuracy.interval) < 1.1 * width(wilson_interval(sum(right) / 2, 200))


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_equal_seeds_are_one_seed(seeds: int) -> None:
    for right in (100, 197, 200):
        equal = accuracy_interval(rows(*[right] * seeds))
        assert equal.interval == pytest.approx(wilson_interval(right, 200), abs=0.003)
        assert equal.of == (MODELS if seeds == 2 else RECIPE)


def test_seeds_that_fail_on_other_images_are_worth_more_images() -> None:
    apart = 1 - np.stack([np.roll(rows(20)[0], 20 * seed) for seed in range(5)])
    assert width(accuracy_interval(apart).interval) < 0.6 * width(wilson_interval(180, 200))


def test_it_is_never_narrower_than_what_other_images_alone_would_give() -> None:
    rng = np.random.default_rng(0)
    for seeds in (3, 4, 8):
        for spread in (0.0, 0.05, 0.2):
            chance = np.clip(0.9 + rng.normal(0, spread, (seeds, 1)), 0, 1)
            right = (rng.random((seeds, 300)) < chance).astype(float)
            of_images = 2 * 1.96 * right.mean(axis=0).std() / np.sqrt(300)
            assert width(accuracy_interval(right).interval) > 0.99 * of_images


def test_seeds_that_differ_widen_it_by_students_t() -> None:
    right = rows(140, 160, 180)  # 70, 80 and 90 %
    variance, degrees = models_variance(right)
    residuals = right - right.mean(axis=1, keepdims=True) - right.mean(axis=0) + right.mean()
    explained = (residuals**2).sum() / (2 * 199) / 200
    assert (variance, degrees) == (pytest.approx((0.01 - EXPLAINED * explained) / 3), 2)
    assert Variance(0.0, variance, degrees).half_width() == pytest.approx(T_975_2 * np.sqrt(variance))
    accuracy = accuracy_interval(right)
    assert accuracy.of == RECIPE and width(accuracy.interval) > 3 * width(wilson_interval(160, 200))


def test_folds_pool_the_degrees_of_freedom_of_their_seeds() -> None:
    folds = (np.arange(300) % 3).tolist()
    right = (np.random.default_rng(0).random((2, 300)) < 0.8).astype(float)
    assert [models_variance(right[:seeds], folds[:300])[1] for seeds in (1, 2)] == [0, 3]
    assert models_variance(right)[1] == 0, "two seeds without folds"
    assert accuracy_interval(right, folds).of == RECIPE and accuracy_interval(right).of == MODELS


def test_how_hard_a_fold_is_does_not_count_as_another_model() -> None:
    folds = np.arange(300) % 3
    hard = np.repeat(((np.arange(300) // 3 < 90) | (folds > 0))[None], 3, axis=0).astype(float)
    hard[:, (folds == 0) & (np.arange(300) // 3 > 40)] = 0
    assert models_variance(hard, folds.tolist())[0] == pytest.approx(0, abs=1e-12)


def test_seeds_of_other_images_are_pooled_and_called_models() -> None:
    right = np.full((3, 300), np.nan)
    for seed in range(3):
        right[seed, 100 * seed : 100 * (seed + 1)] = np.arange(100) < 80
    accuracy = accuracy_interval(right)
    assert (accuracy.mean, accuracy.of) == (pytest.approx(0.8), MODELS)
    assert accuracy.interval == pytest.approx(wilson_interval(240, 300), abs=0.002)
    assert np.isnan(accuracy_interval(np.empty((1, 0))).interval).all()


# --- differences ------------------------------------------------------------------------------------------------------


def one_seed(only_a: int, only_b: int, both: int = 200) -> np.ndarray:
    return np.array([[1] * only_a + [-1] * only_b + [0] * both])


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (6, 0), (5, 5), (12, 3), (3, 12), (40, 61)])
def test_of_one_seed_the_p_value_is_nearly_mcnemars(only_a: int, only_b: int) -> None:
    p_value = difference_interval(one_seed(only_a, only_b)).p_value
    n = only_a + only_b
    exact = binomtest(only_a, n).pvalue if n else 1.0
    mid = exact - binom.pmf(only_a, n, 0.5) if n and only_a != only_b else exact
    assert min(mid, exact) * 0.5 <= p_value <= max(exact, mid) * 1.1


def test_experiments_that_agree_on_all_images_are_not_known_to_be_equal() -> None:
    for seeds in (1, 3):
        low, high = difference_interval(np.zeros((seeds, 100))).interval
        assert low == -high and 0.01 < high < 0.05


def test_all_right_against_all_wrong_stays_within_one() -> None:
    low, high = difference_interval(one_seed(30, 0, both=0)).interval
    assert 0.8 < low < high == 1


def test_the_p_value_is_that_of_the_interval_at_any_level() -> None:
    rng = np.random.default_rng(0)
    for seeds in (1, 2, 3, 6):
        difference = rng.choice([-1, 0, 1], p=[0.05, 0.8, 0.15], size=(seeds, 200)) * (rng.random((seeds, 1)) < 0.7)
        result = difference_interval(difference)
        variance, degrees = models_variance(difference)
        assert result.of == (RECIPE if degrees else MODELS)
        low, high = result.interval
        assert (low <= 0 <= high) == (result.p_value >= 0.05)
        if degrees:
            centre = (low + high) / 2
            of_images = Variance(1e-4, variance, degrees)
            assert of_images.half_width(of_images.p_value(centre)) == pytest.approx(abs(centre), rel=1e-6)


def test_a_p_value_too_small_to_write_is_not_0_and_no_failure() -> None:
    assert 0 < Variance(1e-9).p_value(0.9) < 1e-200
    assert 0 < Variance(1e-9, 1e-12, 40).p_value(0.9) < 1e-100
