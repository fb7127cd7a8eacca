"""The search for label suspects beside a second implementation of confident learning, with planted errors.

The second implementation goes through the images one by one, as Northcutt et al. (2021) define thresholds, confident
joint and self-confidence. 5 % of the labels are flipped, uniformly or to plausible classes (see bench.label_suspects).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from bench import datasets
from bench.label_suspects import Judged, flips, most_alike, prepare, read_features
from bench.table import report
from scripts.data.find_label_suspects import Labelled, sets_of
from scripts.lib.base.console import run_cli
from scripts.lib.base.units import in_percent

SHARE = 0.05
HEAD = (
    "data", "images", "agreement, %", "flips", "planted", "suspects", "by the second implementation", "in both",
    "rank correlation of all images", "planted in the first N, %",
)  # fmt: skip


def by_definition(probabilities: np.ndarray, labels: np.ndarray) -> tuple[list[int], list[float]]:
    """Return class (-1: none) and margin of each image, one image after the other, as the paper defines them.

    Parameters
    ----------
    probabilities : float64, (images, classes); *labels*: int, (images,).
    """
    classes = range(probabilities.shape[1])
    thresholds = {}
    for j in classes:
        values = [row[j] for row, label in zip(probabilities, labels, strict=True) if label == j]
        thresholds[j] = sum(values) / len(values) if values else None
    suggested, margins = [], []
    for row, label in zip(probabilities, labels, strict=True):
        confident = [j for j in classes if (least := thresholds[j]) is not None and row[j] >= least]
        suggested.append(max(confident, key=lambda j: (row[j], -j)) if confident else -1)
        margins.append(row[label] - max(row[j] for j in classes if j != label))
    return suggested, margins


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.label_checks", description=(__doc__ or "").split("\n")[0])
    known = ", ".join((*datasets.DATASETS, "digits", "sample"))
    default = ["elpv", "cifar10-test", "digits", "stamps"]
    parser.add_argument("--data", nargs="+", default=default, help=f"{known}, or a folder of images (%(default)s)")
    parser.add_argument("--limit", type=int, metavar="N", help="a class-balanced subset of N images of each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED", help="of the flips (0 1 2)")
    kept = "folder of images, weights and tables (default: %(default)s)"
    parser.add_argument("--output", type=Path, default=Path("results/bench"), metavar="FOLDER", help=kept)
    return parser


def compared(judged: Judged, labels: np.ndarray) -> tuple[int, int, int, float]:
    """Return the suspects of either implementation, those of both, and Spearman's correlation of all images' ranks."""
    suggested, margins = by_definition(judged.probabilities, labels)
    rows = zip(suggested, margins, labels, strict=True)
    second = np.array([other not in (-1, label) and margin < 0 for other, margin, label in rows])
    order = second + (1 - np.array([row[label] for row, label in zip(judged.probabilities, labels, strict=True)]))
    agreement = spearmanr(judged.is_suspect + (1 - judged.of_label), order).statistic
    return int(judged.is_suspect.sum()), int(second.sum()), int((judged.is_suspect & second).sum()), float(agreement)


def rows_of(name: str, limit: int | None, output: Path, seeds: Sequence[int]) -> Iterator[list[str]]:
    """Yield the rows of the table for one data set: means over the seeds."""
    bench = prepare(name, limit, output)
    images = Labelled.read(bench.folder / "splits", bench.classes)
    features, _ = read_features(bench, images)
    sets = sets_of(images, bench.folder / "audit.csv", None)
    judged = Judged.of(images, images.labels, features, sets)
    pair = most_alike(judged.probabilities, images.labels)
    agreement = in_percent((judged.probabilities.argmax(1) == images.labels).mean())
    first = [name, f"{len(images.paths):,}", agreement]
    *counts, correlation = compared(judged, images.labels)
    yield [*first, "none", "0", *map(str, counts), f"{correlation:.4f}", ""]
    for kind in ("uniform", "plausible"):
        results = []
        for seed in seeds:
            labels, is_planted = flips(images.labels, judged.probabilities, kind, SHARE, pair, seed)
            other = Judged.of(images, labels, features, sets)
            score = other.is_suspect + (1 - other.of_label)
            hits = is_planted[np.argsort(-score, kind="stable")[: is_planted.sum()]].mean()
            results.append((is_planted.sum(), *compared(other, labels), hits))
        planted, mine, second, both, correlation, hits = np.mean(results, axis=0)
        numbers = [f"{value:.0f}" for value in (planted, mine, second, both)]
        yield [*first, kind, *numbers, f"{correlation:.4f}", in_percent(hits)]


def main(args: argparse.Namespace) -> None:
    """Print the table."""
    output = args.output.resolve()
    rows = (row for name in args.data for row in rows_of(name, args.limit, output, args.seeds))
    report(output / "label_checks.md", HEAD, rows)


if __name__ == "__main__":
    run_cli(build_parser, main)
