"""Folders of results whose numbers are simulated, with real pictures: what report.html is made from, in any size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.special import softmax
from tiny_run import write_train_log

from scripts.lib.metrics.metrics import compute_metrics, per_class_table
from scripts.lib.pages import embedding_page, explanation_page, report_page
from scripts.lib.runs.predictions import Predictions, read_predictions, write_predictions
from scripts.report import compare_runs

SETTINGS = "dataset:\n  name: simulated\n"


def write_results(
    dataset: Path,
    classes: Sequence[str],
    experiments: dict[str, float],
    seeds: int = 1,
    per_class: int = 4,
    folds: int = 0,
    size: int = 96,
) -> list[Path]:
    """Write results/<dataset> and return the folders of the runs.

    Parameters
    ----------
    experiments : how much the logit of the right class is raised, by name: the larger, the more is right.
    per_class : test images of each class.
    folds : of cross-validation; each tests its share of the images.
    """
    labels = np.repeat(np.arange(len(classes)), per_class)
    files = [f"c{label}/{index}.jpg" for index, label in enumerate(labels.tolist())]
    write_images(dataset / "images", files, labels, size)
    (dataset / "classes.txt").write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    audit = {"images": len(files), "set_aside": 1, "left_out": 0, "findings": {"unreadable": 1, "duplicate": 4}}
    audit |= {"classes": {name: {"all": per_class} for name in classes}, "notes": [], "left_out_files": []}
    (dataset / "audit.json").write_text(json.dumps(audit), encoding="utf-8")
    (dataset / "audit.csv").write_text("file,finding,action,group,detail\n", encoding="utf-8")
    runs = []
    for number, (name, strength) in enumerate(experiments.items()):
        for seed in range(seeds):
            for fold in range(folds or 1):
                run = dataset / name / f"seed{seed}" / (f"fold{fold}" if folds else "")
                chosen = np.arange(len(files)) % folds == fold if folds else np.ones(len(files), bool)
                names = [file for file, is_tested in zip(files, chosen, strict=True) if is_tested]
                write_run(run, names, labels[chosen], classes, strength, (number, seed, fold), bool(folds))
                runs.append(run)
    (dataset / "figures").mkdir()
    compare(dataset, runs)
    return runs


def compare(dataset: Path, runs: Sequence[Path]) -> None:
    """Write the tables of results/<dataset> that compare runs."""
    board = ["--leaderboard", "leaderboard.csv", "--figure", "figures/leaderboard.svg", "--costs", "costs.csv"]
    board += ["--comparisons", "comparisons.csv", "--audit", "audit.csv", "--html", "leaderboard.html"]
    options = [word if word.startswith("--") else str(dataset / word) for word in board]
    compare_runs.main(compare_runs.build_parser().parse_args(["--runs", *map(str, runs), *options]))


def write_images(folder: Path, files: Sequence[str], labels: np.ndarray, size: int) -> None:
    """Write noisy pictures whose colour tells the class."""
    for index, (file, label) in enumerate(zip(files, labels.tolist(), strict=True)):
        rng = np.random.default_rng([label, index])
        pixels = rng.integers(0, 110, (8, 8, 3)) + np.array([37 * label % 140, 61 * label % 140, 97 * label % 140])
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC).save(path, quality=90)


def write_run(
    folder: Path,
    files: list[str],
    labels: np.ndarray,
    classes: Sequence[str],
    strength: float,
    seed: Sequence[int],
    is_fold: bool,
) -> None:
    """Write the files of one run that the report reads."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(files), len(classes)))
    logits[np.arange(len(files)), labels] += strength
    logits[np.arange(len(files)), (labels + 1) % len(classes)] += strength / 2  # the next class is like it
    probabilities = softmax(logits, axis=1).astype(np.float32).astype(np.float64)
    predictions = Predictions(files, labels, probabilities.argmax(axis=1), probabilities, list(classes))
    rows = zip(files, labels.tolist(), probabilities.astype(np.float32), strict=True)
    write_predictions(folder / "predictions.csv", classes, rows)
    (folder / "val_predictions.csv").write_bytes((folder / "predictions.csv").read_bytes())
    np.save(folder / "features.npy", logits.astype(np.float32))
    facts = {"dataset": "simulated", "experiment": folder.parents[is_fold].name, "seed": seed[1], "n_test": len(files)}
    fold = {"fold": seed[2]} if is_fold else {}
    (folder / "metrics.json").write_text(json.dumps(facts | fold | compute_metrics(predictions)))
    per_class_table(predictions, [9 + label % 3 for label in range(len(classes))]).to_csv(
        folder / "per_class.csv", index=False
    )
    write_train_log(folder / "train_log.csv", epochs=8)
    (folder / "config.py").write_text("# mim train\nrunner = {'device': 'cpu'}\n")
    (folder / "provenance.json").write_text(json.dumps(provenance_of(facts)))


def provenance_of(facts: dict[str, Any]) -> dict[str, Any]:
    """Return a provenance.json of a run."""
    inputs: dict[str, Any] = {name: {} for name in ("training", "settings", "files", "versions")}
    inputs |= {"code": {"commit": "0123abc", "dirty": False}, "environment": {"name": "cpu", "lock_sha256": "4567"}}
    inputs |= {"versions": {"python": "3.11", "torch": "2"}, "settings": {"dataset": {}}}
    now = "2026-11-30T00:00:00+00:00"
    training = {"attempts": [], "command": "mim train", "started": now, "ended": now}
    circumstances: dict[str, Any] = {"training": training, "files": {}, "recorded": now}
    circumstances["machine"] = {"cpu": "a processor", "gpus": [], "system": "Linux"}
    run = {"dataset": facts["dataset"], "experiment": facts["experiment"], "seed": f"seed{facts['seed']}"}
    return {"format": 1, "run": run, "inputs": inputs, "outputs": {}, "circumstances": circumstances}


def write_page(dataset: Path, runs: Sequence[Path], language: str = "en") -> str:
    """Write report.html as write_report does, and return it."""
    page = report_page.render(report_page.read_sources(dataset, runs, SETTINGS), language)
    (dataset / "report.html").write_text(page, encoding="utf-8")
    return page


def write_maps(dataset: Path, run: Path) -> None:
    """Write a run's pages of Grad-CAM and of the map of its images; what they show is drawn at random."""
    predictions, rng = read_predictions(run / "predictions.csv"), np.random.default_rng(len(run.name))
    choice = explanation_page.choose(predictions, np.load(run / "features.npy"))
    shown = {}
    for row in choice.rows():
        with Image.open(dataset / "images" / predictions.files[row]) as opened:
            seen = opened.convert("RGB").resize((160, 160))
        strength = np.asarray(
            Image.fromarray(rng.random((7, 7), np.float32)).resize(seen.size, Image.Resampling.BICUBIC)
        )
        labels = dict.fromkeys((int(predictions.predictions[row]), int(predictions.labels[row])))
        drawn = explanation_page.overlay(seen, strength.clip(0, 1))
        shown[row] = explanation_page.Explained(seen, [explanation_page.Map(label, drawn, False) for label in labels])
    explanations = explanation_page.Explanations(shown, "backbone.layer4", (7, 7), 0.0)
    page = explanation_page.explanation_page(predictions, choice, explanations)
    (run / "figures").mkdir(exist_ok=True)
    (run / "figures" / "gradcam.html").write_text(page, encoding="utf-8")
    centres = 8 * rng.normal(size=(len(predictions.classes), 2))
    points = centres[predictions.labels] + rng.normal(size=(len(predictions.files), 2))
    colours = [label % embedding_page.COLOURS for label in range(len(predictions.classes))]
    image_map = embedding_page.Map(predictions, embedding_page.fit_to_map(points), colours, 0.9)
    pictures = [""] * len(predictions.files)
    page = embedding_page.render(image_map, pictures, len(pictures), 0, run.name)
    (run / "figures" / "embedding.html").write_text(page, encoding="utf-8")
