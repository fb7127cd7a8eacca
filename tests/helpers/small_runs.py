"""Folders of finished runs as the leaderboard reads them, and the leaderboard made of them."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tiny_run import write_train_log

from scripts.lib.metrics import leaderboard
from scripts.lib.runs.predictions import write_predictions
from scripts.report import compare_runs


def make_run(root: Path, experiment: str, seed: int, accuracy: float, device: str = "cpu", **more: Any) -> Path:
    folder = root / experiment / f"seed{seed}"
    folder.mkdir(parents=True)
    interval = [accuracy - 0.04, min(1, accuracy + 0.03)]
    metrics = {"dataset": "demo", "experiment": experiment, "seed": seed, "n_test": 120, "accuracy_top1": accuracy}
    metrics |= {"accuracy_top1_ci95": interval, "accuracy_top5": 0.99, "f1_macro": accuracy - 0.01, "ece": 0.05, **more}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    answer(folder, range(metrics["n_test"] - round(accuracy * metrics["n_test"])), images=metrics["n_test"])
    write_train_log(folder / "train_log.csv")
    (folder / "config.py").write_text(f"# mim train\nrunner = {{'device': {device!r}}}\n")
    return folder


def run_cli_on(folders: list[Path], out: Path, *more: str) -> pd.DataFrame:
    options = ["--runs", *map(str, folders), "--leaderboard", str(out / "l.csv"), "--figure", str(out / "l.svg"), *more]
    compare_runs.main(compare_runs.build_parser().parse_args(options))
    return leaderboard.read_leaderboard(out / "l.csv")


def answer(folder: Path, wrong: range, names: str = "{}.jpg", images: int = 120) -> Path:
    """Write the predictions of *images* of four classes, of which those numbered *wrong* are wrong."""
    labels = [number % 4 for number in range(images)]
    predicted = [(label + (number in wrong)) % 4 for number, label in enumerate(labels)]
    rows = [(names.format(n), label, np.eye(4, dtype=np.float32)[predicted[n]]) for n, label in enumerate(labels)]
    write_predictions(folder / "predictions.csv", ["苹果", "NA", "<b>", 'a,"b'], rows)
    return folder


class Page(HTMLParser):
    """The tags and texts of a page that asks for nothing."""

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
