"""Metrics: scikit-learn's values, intervals that cover, and files without NaN."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk
from scipy.stats import binom

from scripts.evaluate import evaluate_model
from scripts.lib.base.problems import UserError
from scripts.lib.metrics import metrics
from scripts.lib.runs.predictions import Predictions, write_predictions


def simulate(n: int, classes: int, seed: int = 0, strength: float = 2.0) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    labels[:classes] = np.arange(classes)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), labels] += strength
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names = [f"class {number}" for number in range(classes)]
    return Predictions(["x"] * n, labels, probabilities.argmax(axis=1), probabilities, names)


def run_cli_on(predictions: Predictions, folder: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    rows = zip(predictions.files, predictions.labels, predictions.probabilities.astype(np.float32), strict=True)
    write_predictions(folder / "p.csv", predictions.classes, ((file, int(label), row) for file, label, row in rows))
    options = ["--predictions", str(folder / "p.csv"), "--dataset", "d", "--experiment", "e", "--seed", "3"]
    options += ["--metrics", str(folder / "m.json"), "--per-class", str(folder / "c.csv")]
    evaluate_model.main(evaluate_model.build_parser().parse_args(options))
    table = pd.read_csv(folder / "c.csv", dtype={"class": str}, keep_default_na=False)
    return json.loads((folder / "m.json").read_text()), table


@pytest.mark.parametrize("classes", [2, 6, 30])
def test_values_are_scikit_learns(classes: int) -> None:
    data = simulate(400, classes)
    result = metrics.compute_metrics(data)
    y, p = data.labels, data.predictions
    assert result["accuracy_top1"] == sk.accuracy_score(y, p)
    assert result["f1_macro"] == pytest.approx(sk.f1_score(y, p, average="macro"), abs=1e-12)
    assert result["precision_macro"] == pytest.approx(sk.precision_score(y, p, average="macro"), abs=1e-12)
    assert result["recall_macro"] == pytest.approx(sk.recall_score(y, p, average="macro"), abs=1e-12)
    assert result["accuracy_balanced"] == pytest.approx(sk.balanced_accuracy_score(y, p), abs=1e-12)
    assert result["accuracy_balanced_ci95"] == result["recall_macro_ci95"]
    if classes >= 6:
        assert result["accuracy_top5"] == sk.top_k_accuracy_score(y, data.probabilities, k=5)
    report = sk.classification_report(y, p, target_names=data.classes, output_dict=True)
    for row in metrics.per_class_table(data).to_dict("records"):
        expected = report[row["class"]]
        assert row["n"] == expected["support"]
        for ours, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            assert row[ours] == pytest.approx(expected[theirs], abs=1e-12)


def test_top5_is_absent_with_fewer_than_six_classes(tmp_path: Path) -> None:
    result, _ = run_cli_on(simulate(60, 5), tmp_path)
    assert result["accuracy_top5"] is None and result["accuracy_top5_ci95"] is None
    result, _ = run_cli_on(simulate(60, 6, strength=0), tmp_path)
    assert 0 < result["accuracy_top5"] < 1


def test_every_value_lies_in_its_interval_and_in_zero_to_one() -> None:
    for seed in range(5):
        result = metrics.compute_metrics(simulate(150, 8, seed), seed)
        for name in ("accuracy_top1", "accuracy_top5", "f1_macro", "precision_macro", "recall_macro", "ece"):
            low, high = result[f"{name}_ci95"]
            assert 0 <= low <= result[name] <= high <= 1, name


def test_wilson_is_the_closed_form() -> None:
    z = 1.959963984540054
    for k, n in [(0, 1), (1, 2), (0, 20), (4, 20), (10, 20), (20, 20), (833, 1000), (99_990, 100_000)]:
        centre = (k + z * z / 2) / (n + z * z)
        half = z / (n + z * z) * math.sqrt(k * (n - k) / n + z * z / 4)
        low, high = metrics.wilson_interval(k, n)
        assert low == pytest.approx(max(0, centre - half), abs=1e-12)
        assert high == pytest.approx(min(1, centre + half), abs=1e-12)


def test_the_far_end_of_one_to_three_is_poissons() -> None:
    # Brown, Cai & DasGupta (2001), sec. 4.1.1: half the 5 % quantile of chi square with 2 k degrees of freedom.
    for k, quantile in ((1, 0.10258659), (2, 0.71072302), (3, 1.63538289)):
        for n in (20, 1000):
            assert metrics.wilson_interval(k, n)[0] == pytest.approx(quantile / 2 / n, rel=1e-6)
            assert metrics.wilson_interval(n - k, n)[1] == pytest.approx(1 - quantile / 2 / n, rel=1e-6)


@pytest.mark.parametrize("accuracy", [0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("n", [30, 100, 300, 1000, 3000])
def test_wilson_never_covers_less_than_93_percent(n: int, accuracy: float) -> None:
    ends = np.array([metrics.wilson_interval(k, n) for k in range(n + 1)])
    covered = binom.pmf(np.arange(n + 1), n, accuracy)[(ends[:, 0] <= accuracy) & (accuracy <= ends[:, 1])].sum()
    assert covered >= 0.93
    assert covered <= 0.97 or n * (1 - accuracy) <= 3, "of few errors no interval is exact"


def test_wilson_without_a_trial_says_nothing() -> None:
    assert metrics.wilson_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("accuracy", [0.6, 0.9, 0.98])
def test_wilson_covers_the_truth(accuracy: float) -> None:
    right = np.random.default_rng(0).binomial(120, accuracy, 1500)
    interval = {int(k): metrics.wilson_interval(int(k), 120) for k in np.unique(right)}
    inside = [interval[k][0] <= accuracy <= interval[k][1] for k in right.tolist()]
    assert 0.925 <= np.mean(inside) <= 0.985


def naive_ece(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Guo et al. (2017), eq. 3, as the paper says it: bin by bin."""
    total = 0.0
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    for number in range(15):
        inside = (confidence > number / 15) & (confidence <= (number + 1) / 15)
        if inside.any():
            total += inside.sum() / len(labels) * abs(right[inside].mean() - confidence[inside].mean())
    return total


def test_ece_is_the_papers_sum() -> None:
    for classes in (2, 10):
        data = simulate(500, classes, seed=classes)
        ours = metrics.expected_calibration_error(data.probabilities, data.labels)
        assert ours == pytest.approx(naive_ece(data.probabilities, data.labels), abs=1e-12)


def test_ece_of_a_certain_and_right_model_is_zero() -> None:
    assert metrics.expected_calibration_error(np.eye(3), np.arange(3)) == 0
    assert metrics.expected_calibration_error(np.eye(3), np.array([1, 2, 0])) == 1


@pytest.mark.long
def test_bootstrap_equals_resampling_the_images() -> None:
    """A second implementation: draw images of each class with replacement, and let scikit-learn average."""
    data = simulate(160, 4, seed=5, strength=1.5)
    rng = np.random.default_rng(1)
    groups = [np.flatnonzero(data.labels == label) for label in range(4)]
    draws = []
    for _ in range(800):
        drawn = np.concatenate([rng.choice(group, len(group)) for group in groups])
        y, p, probabilities = data.labels[drawn], data.predictions[drawn], data.probabilities[drawn]
        precision, recall, f1, _ = sk.precision_recall_fscore_support(y, p, average="macro", zero_division=0)
        draws.append([f1, precision, recall, metrics.expected_calibration_error(probabilities, y)])
    quantiles = np.quantile(draws, [0.025, 0.975], axis=0)
    counts = sk.confusion_matrix(data.labels, data.predictions)
    ours = metrics.bootstrap_macro(counts, seed=0)
    for column, name in enumerate(("f1_macro", "precision_macro", "recall_macro")):
        assert ours[name] == pytest.approx(quantiles[:, column], abs=0.015), name
    estimate = metrics.expected_calibration_error(data.probabilities, data.labels)
    basic = (max(0, 2 * estimate - quantiles[1, 3]), 2 * estimate - quantiles[0, 3])
    assert metrics.bootstrap_calibration_error(data.probabilities, data.labels, 0) == pytest.approx(basic, abs=0.015)


def test_macro_intervals_cover_the_truth() -> None:
    rng = np.random.default_rng(3)
    classes, n, repeats = 8, 25, 300
    truth = np.full((classes, classes), 0.0)
    for label in range(classes):
        truth[label, label] = 0.75 + 0.02 * label
        truth[label, label ^ 1] = 1 - truth[label, label]
    right, columns = truth.diagonal(), truth.sum(axis=0)
    values = {
        "f1_macro": (2 * right / (1 + columns)).mean(),
        "precision_macro": (right / columns).mean(),
        "recall_macro": right.mean(),
    }
    hits = dict.fromkeys(values, 0)
    for repeat in range(repeats):
        counts = np.stack([rng.multinomial(n, row) for row in truth])
        for name, (low, high) in metrics.bootstrap_macro(counts, repeat, resamples=500).items():
            hits[name] += low <= values[name] <= high
    assert all(0.9 <= hit / repeats <= 0.985 for hit in hits.values()), hits


def test_calibration_interval_covers_the_truth() -> None:
    """Two classes, a model that is right with probability 0.9 of its confidence: the error is a tenth of it."""
    rng = np.random.default_rng(4)
    hits, repeats, n = 0, 200, 1000
    truth = 0.1 * (0.6 + 1) / 2
    for repeat in range(repeats):
        confidence = rng.uniform(0.6, 1, n)
        labels = rng.integers(0, 2, n)
        predicted = np.where(rng.random(n) < 0.9 * confidence, labels, 1 - labels)
        probabilities = np.where(predicted[:, None] == [0, 1], confidence[:, None], 1 - confidence[:, None])
        low, high = metrics.bootstrap_calibration_error(probabilities, labels, repeat, resamples=500)
        hits += low <= truth <= high
    assert 0.88 <= hits / repeats <= 0.99


def test_the_same_seed_gives_the_same_file(tmp_path: Path) -> None:
    data = simulate(100, 7)
    assert metrics.compute_metrics(data, 1) == metrics.compute_metrics(data, 1)
    assert metrics.compute_metrics(data, 1) != metrics.compute_metrics(data, 2)


def test_the_floor_is_always_the_most_frequent_class(tmp_path: Path) -> None:
    data = simulate(80, 6)
    labels = np.where(np.arange(80) < 30, 4, data.labels)
    data = Predictions(["x"] * 80, labels, data.predictions, data.probabilities, data.classes)
    result, _ = run_cli_on(data, tmp_path)
    everyone = np.full(80, np.bincount(labels).argmax())
    assert result["accuracy_majority"] == sk.accuracy_score(labels, everyone) >= 30 / 80
    assert "accuracy_majority_ci95" not in result
    assert metrics.majority_accuracy(np.array([3])) == 1


def test_a_class_without_test_images_or_predictions_makes_no_nan(tmp_path: Path, caplog: Any) -> None:
    data = simulate(80, 4)
    kept = data.labels != 2
    probabilities = data.probabilities[kept]
    probabilities[:, 3] = 0  # never predicted
    data = Predictions(["x"] * kept.sum(), data.labels[kept], probabilities.argmax(1), probabilities, data.classes)
    result, table = run_cli_on(data, tmp_path)
    assert "no test image of class 2" in caplog.text
    assert "nan" not in (tmp_path / "m.json").read_text().lower() + (tmp_path / "c.csv").read_text().lower()
    assert table.loc[2, "n"] == 0 and table.loc[2, "recall_ci95_high"] == 1
    expected = sk.f1_score(data.labels, data.predictions, labels=[0, 1, 3], average="macro", zero_division=0)
    assert result["f1_macro"] == pytest.approx(expected)


def test_files_hold_the_promised_columns(tmp_path: Path) -> None:
    result, table = run_cli_on(simulate(50, 6), tmp_path)
    assert list(result)[:4] == ["dataset", "experiment", "seed", "n_test"]
    assert (result["dataset"], result["experiment"], result["seed"], result["n_test"]) == ("d", "e", 3, 50)
    assert list(table.columns[:5]) == ["class", "n", "precision", "recall", "f1"]
    assert table["n"].sum() == 50


def test_the_training_images_of_each_class_stand_beside_its_numbers(tmp_path: Path) -> None:
    run_cli_on(simulate(50, 4), tmp_path)
    split = tmp_path / "train.txt"
    split.write_text("".join(f"a {n} b.jpg {label}\n" for n, label in enumerate([3, 0, 0, 1, 0])), encoding="utf-8")
    options = ["--predictions", "p.csv", "--dataset", "d", "--experiment", "e", "--seed", "3", "--metrics", "m.json"]
    options += ["--per-class", "c.csv", "--train", "train.txt"]
    options = [str(tmp_path / word) if word.endswith((".csv", ".json", ".txt")) else word for word in options]
    evaluate_model.main(evaluate_model.build_parser().parse_args(options))
    table = pd.read_csv(tmp_path / "c.csv")
    assert list(table.columns[:4]) == ["class", "n", "n_train", "precision"]
    assert table["n_train"].tolist() == [3, 1, 0, 1]
    for wrong in ("a.jpg 4\n", "a.jpg\n", "a.jpg x\n"):
        split.write_text(wrong, encoding="utf-8")
        with pytest.raises(UserError, match=r"train\.txt: "):
            evaluate_model.main(evaluate_model.build_parser().parse_args(options))


def test_a_hundred_thousand_images_take_seconds() -> None:
    import time

    data = simulate(100_000, 30)
    start = time.process_time()
    metrics.compute_metrics(data)
    assert time.process_time() - start < 6
