"""Calibration: bins worked by hand and by pandas, and a temperature that is the right one and comes from val alone."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk
from scipy.special import log_softmax, softmax
from simulated_predictions import simulate

from scripts.lib.metrics import calibration
from scripts.lib.metrics.metrics import expected_calibration_error


def two_classes(confidence: list[float], right: list[bool]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of images that are all called class 0 with *confidence*."""
    first = np.array(confidence)
    return np.stack([first, 1 - first], axis=1), np.where(right, 0, 1)


def draw_labels(logits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw each label with the probability that softmax gives it: these logits are calibrated."""
    return (softmax(logits, axis=1).cumsum(axis=1) > rng.random((len(logits), 1))).argmax(axis=1)


def test_bins_and_error_are_those_worked_by_hand() -> None:
    probabilities, labels = two_classes([0.55, 0.95, 0.95, 0.85], [True, True, False, False])
    result = calibration.reliability(probabilities, labels, bins=10)
    assert result.count.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 1, 2]
    assert result.accuracy[[5, 8, 9]].tolist() == [1, 0, 0.5]
    assert result.confidence[[5, 8, 9]] == pytest.approx([0.55, 0.85, 0.95])
    # 1/4 (1 - 0.55) + 1/4 (0.85 - 0) + 2/4 (0.95 - 0.5)
    assert result.ece == pytest.approx(0.1125 + 0.2125 + 0.225)
    assert result.cross_entropy == pytest.approx(-math.log(0.55 * 0.95 * 0.05 * 0.15) / 4)


@pytest.mark.parametrize("classes", [2, 10, 200])
def test_error_is_that_of_a_second_implementation(classes: int) -> None:
    """pandas cuts the confidences into intervals, open below and closed above, and averages them."""
    data = simulate(700, classes, seed=classes)
    table = pd.DataFrame({"confidence": data.probabilities.max(axis=1), "right": data.predictions == data.labels})
    groups = table.groupby(pd.cut(table["confidence"], np.linspace(0, 1, 16)), observed=False)
    gaps = (groups["right"].mean() - groups["confidence"].mean()).abs()
    expected = float((gaps * groups.size() / len(table)).sum())
    result = calibration.reliability(data.probabilities, data.labels)
    assert result.ece == pytest.approx(expected, abs=1e-12)
    assert result.count.tolist() == groups.size().tolist()
    assert result.accuracy == pytest.approx(groups["right"].mean().to_numpy(dtype=float), nan_ok=True)
    assert result.confidence == pytest.approx(groups["confidence"].mean().to_numpy(), nan_ok=True)


def test_drawn_bins_add_up_to_the_error_of_metrics_json() -> None:
    data = simulate(500, 6)
    result = calibration.reliability(data.probabilities, data.labels)
    used = result.count > 0
    gaps = np.abs(result.accuracy - result.confidence)[used]
    assert (gaps * result.count[used]).sum() / 500 == pytest.approx(result.ece, abs=1e-12)
    assert result.ece == expected_calibration_error(data.probabilities, data.labels)


def test_empty_bins_have_neither_accuracy_nor_interval() -> None:
    result = calibration.reliability(*two_classes([1.0], [True]))
    assert result.count.tolist() == [0] * 14 + [1]
    for values in (result.accuracy, result.confidence, result.low, result.high):
        assert np.isnan(values[:14]).all() and np.isfinite(values[14])


def test_intervals_of_the_bins_are_wilsons_closed_form() -> None:
    data = simulate(400, 4)
    result = calibration.reliability(data.probabilities, data.labels)
    z = 1.959963984540054
    for i in np.flatnonzero(result.count):
        n, share = result.count[i], result.accuracy[i]
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        if not 0 < round(share * n) < 4:  # else an end is Poisson's
            assert result.low[i] == pytest.approx(max(0, centre - half), abs=1e-9)
        if not 0 < n - round(share * n) < 4:
            assert result.high[i] == pytest.approx(min(1, centre + half), abs=1e-9)


@pytest.mark.parametrize("classes", [2, 12])
def test_cross_entropy_is_scikit_learns(classes: int) -> None:
    data = simulate(300, classes)
    expected = sk.log_loss(data.labels, data.probabilities, labels=np.arange(classes))
    assert calibration.cross_entropy(data.probabilities, data.labels) == pytest.approx(expected, rel=1e-6)


def test_a_probability_of_zero_costs_much_but_not_everything() -> None:
    loss = calibration.cross_entropy(np.array([[1.0, 0.0]]), np.array([1]))
    assert 80 < loss < 110 and math.isfinite(loss)


@pytest.mark.parametrize("truth", [0.4, 1.0, 2.5])
def test_the_temperature_that_was_put_in_is_found(truth: float) -> None:
    rng = np.random.default_rng(1)
    logits = 1.5 * rng.normal(size=(20_000, 5))
    labels = draw_labels(logits, rng)
    assert calibration.fit_temperature(softmax(truth * logits, axis=1), labels) == pytest.approx(truth, rel=0.03)


def test_the_temperature_has_the_least_cross_entropy_of_a_fine_grid() -> None:
    data = simulate(150, 4, seed=3, strength=1.0)
    temperature = calibration.fit_temperature(data.probabilities, data.labels)
    assert temperature is not None
    logs = np.log(data.probabilities)
    grid = np.geomspace(0.05, 20, 4001)
    losses = [-log_softmax(logs / t, axis=1)[np.arange(150), data.labels].mean() for t in grid]
    assert temperature == pytest.approx(grid[int(np.argmin(losses))], rel=2e-3)


def test_at_the_temperature_the_labels_score_what_the_model_expects() -> None:
    """Where the cross-entropy is least, its derivative by 1/T is zero: mean label score = mean expected score."""
    data = simulate(200, 7, seed=4)
    temperature = calibration.fit_temperature(data.probabilities, data.labels)
    assert temperature is not None
    logits = np.log(data.probabilities)
    expected = (softmax(logits / temperature, axis=1) * logits).sum(axis=1).mean()
    assert logits[np.arange(200), data.labels].mean() == pytest.approx(expected, abs=1e-4)


def test_scaling_lowers_the_error_of_an_overconfident_model_on_other_images() -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(6000, 10))
    labels = draw_labels(logits, rng)
    boasting = softmax(3 * logits, axis=1)
    result = calibration.calibrate(boasting[3000:], labels[3000:], boasting[:3000], labels[:3000])
    assert result.after is not None and result.temperature == pytest.approx(3, rel=0.1)
    assert result.before.ece > 0.2 and result.after.ece < 0.04
    assert result.after.cross_entropy < result.before.cross_entropy


def test_test_labels_have_no_part_in_the_temperature() -> None:
    val, test = simulate(200, 5, seed=1), simulate(200, 5, seed=2, strength=4)
    other = np.random.default_rng(0).permutation(test.labels)
    fits = [
        calibration.calibrate(test.probabilities, labels, val.probabilities, val.labels).temperature
        for labels in (test.labels, other)
    ]
    assert fits[0] == fits[1] == calibration.fit_temperature(val.probabilities, val.labels)
    assert fits[0] != calibration.fit_temperature(test.probabilities, test.labels)


def test_without_val_nothing_is_scaled() -> None:
    data = simulate(50, 3)
    result = calibration.calibrate(data.probabilities, data.labels)
    assert result.after is None and result.temperature is None


@pytest.mark.parametrize("temperature", [0.02, 0.5, 1.0, 7.0, 90.0])
def test_scaling_changes_no_answer(temperature: float) -> None:
    data = simulate(500, 10)
    scaled = calibration.apply_temperature(data.probabilities, temperature)
    assert scaled.sum(axis=1) == pytest.approx(np.ones(500))
    assert (scaled.argmax(axis=1) == data.predictions).all()
    if temperature == 1:
        assert scaled == pytest.approx(data.probabilities, rel=1e-6)


def test_scaling_by_two_takes_the_square_root() -> None:
    scaled = calibration.apply_temperature(np.array([[0.64, 0.36]]), 2)
    assert scaled == pytest.approx(np.array([[0.8 / 1.4, 0.6 / 1.4]]))


def test_ties_stay_ties() -> None:
    scaled = calibration.apply_temperature(np.array([[0.4, 0.4, 0.2], [0.5, 0.5, 0.0]]), 3.0)
    assert (scaled[:, 0] == scaled[:, 1]).all() and (scaled.argmax(axis=1) == 0).all()


@pytest.mark.parametrize(
    ("confidence", "right"),
    [
        ([0.6, 0.9, 0.99], [True, True, True]),  # the colder the better
        ([0.6, 0.9, 0.99], [False, False, False]),  # the hotter the better
        ([0.5, 0.5], [True, False]),  # the temperature changes nothing
        ([0.7], [True]),
        ([0.7], [False]),
    ],
)
def test_images_that_determine_no_temperature_give_none(confidence: list[float], right: list[bool]) -> None:
    probabilities, labels = two_classes(confidence, right)
    assert calibration.fit_temperature(probabilities, labels) is None
    assert calibration.calibrate(probabilities, labels, probabilities, labels).after is None


def test_one_wrong_answer_among_many_is_enough_for_a_temperature() -> None:
    probabilities, labels = two_classes([0.8] * 100, [True] * 99 + [False])
    # Right in 99 of 100 cases: softmax(log(0.8 / 0.2) / T) = 0.99
    expected = math.log(0.8 / 0.2) / math.log(0.99 / 0.01)
    assert calibration.fit_temperature(probabilities, labels) == pytest.approx(expected, rel=1e-4)


def test_probabilities_that_were_rounded_to_zero_do_not_spoil_the_fit() -> None:
    data = simulate(300, 4, seed=6)
    probabilities = np.where(data.probabilities < 1e-3, 0, data.probabilities)
    probabilities[0] = np.eye(4)[(data.labels[0] + 1) % 4]  # quite sure, and wrong
    temperature = calibration.fit_temperature(probabilities, data.labels)
    assert temperature is not None and 0.5 < temperature < 20
