"""Measure which classes are said to look like two, and which two cannot be told apart, in collections of real pictures.

``python -m bench.class_groups`` looks at the classes as they are; then it puts two classes into one, of PAIRS pairs,
and counts those that are said to look like two; then it divides each class in two at random, and counts those that are
said to be one. The limits (scripts/lib/metrics/two_groups.py) were chosen on digits and cifar10-test.
"""

from __future__ import annotations

import argparse
import logging
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from bench import datasets
from bench.label_suspects import prepare, read_features
from bench.table import report
from scripts.data.find_label_suspects import Doubt, Labelled, pairs_of, sets_of
from scripts.lib.base.console import run_cli
from scripts.lib.metrics.two_groups import FEWEST, TwoGroups, find_two_groups
from scripts.lib.model.label_probe import Units, along_axes

logger = logging.getLogger(__name__)
#: Pairs of classes that are put into one, drawn by their number alone.
PAIRS = 20
HEAD = (
    "data", "classes", "look like two", "joined pairs", "look like two", "of each group from one class, %",
    "other classes then", "pairs told to be one", "divided classes", "told to be one", "other pairs then",
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.class_groups", description=(__doc__ or "").split("\n")[0])
    default = ["digits", "cifar10-test", "elpv", "stamps", "flags", "clipart", "sample"]
    known = ", ".join((*datasets.DATASETS, "digits", "sample"))
    parser.add_argument("--data", nargs="+", default=default, help=f"{known}, or a folder of images (%(default)s)")
    parser.add_argument("--limit", type=int, metavar="N", help="a class-balanced subset of N images of each")
    kept = "folder of images, weights and tables (default: %(default)s)"
    parser.add_argument("--output", type=Path, default=Path("results/bench"), metavar="FOLDER", help=kept)
    return parser


def purity(divided: TwoGroups, labels: np.ndarray) -> float:
    """Return the share of images, 0 to 1, that are in the group of most images of their class."""
    return sum(np.bincount(labels[group]).max() for group in divided.groups) / sum(map(len, divided.groups))


def joined(directions: np.ndarray, labels: np.ndarray, units: np.ndarray, known: set[int]) -> list[str]:
    """Return the cells about pairs of classes that were put into one; *known*: classes that look like two anyway."""
    sizes = np.bincount(labels)
    pairs = list(combinations(np.flatnonzero(sizes >= FEWEST // 2).tolist(), 2))
    order = np.random.default_rng(len(pairs)).permutation(len(pairs))[:PAIRS]
    hits, purities, others = 0, [], 0
    for first, second in (pairs[index] for index in order):
        results = find_two_groups(directions, np.where(labels == second, first, labels), units)
        others += len({divided.label for divided in results} - known - {first, second})
        for divided in results:
            if divided.label == first:
                hits += 1
                purities.append(purity(divided, labels))
    return [str(len(order)), str(hits), f"{100 * np.mean(purities):.0f}" if purities else "", str(others)]


def ones(images: Labelled, labels: np.ndarray, directions: torch.Tensor, sets: list[tuple[str, list[str]]]) -> set[str]:
    """Return the pairs of classes that are said to be one, where the images have these labels."""
    units = Units.of(dict(zip(images.paths, map(str, labels), strict=True)), sets)
    names = [str(index) for index in range(int(labels.max()) + 1)]
    doubt = Doubt.of(directions, labels, units, len(names))
    suspects = doubt.judgement.suspects(labels, doubt.probabilities)
    these = Labelled(images.paths, labels, images.splits, names)
    pairs = pairs_of(these, doubt.probabilities, units, suspects, doubt.judgement.suggested[suspects])
    return {f"{pair['first']} and {pair['second']}" for pair in pairs if pair["are_one"]}


def row_of(name: str, limit: int | None, output: Path) -> list[str]:
    """Return the row of the table for one data set."""
    bench = prepare(name, limit, output)
    images = Labelled.read(bench.folder / "splits", bench.classes)
    features, _ = read_features(bench, images)
    directions = along_axes(features)
    sets = sets_of(images, bench.folder / "audit.csv", None)
    labels, classes = images.labels, len(images.classes)
    units = Units.of(dict(zip(images.paths, map(str, labels), strict=True)), sets)
    results = find_two_groups(directions.numpy(), labels, units.number)
    for divided in results:
        sizes = " and ".join(str(len(group)) for group in divided.groups)
        logger.info("%s, %s: %s images, %.3f between", name, images.classes[divided.label], sizes, divided.between)
    known = {divided.label for divided in results}
    cells = joined(directions.numpy(), labels, units.number, known)
    before = ones(images, labels, directions, sets)
    large = np.flatnonzero(np.bincount(labels[units.firsts()], minlength=classes) >= 2 * FEWEST)
    hits = others = 0
    for label in large:
        halves = labels.copy()
        rows = np.flatnonzero(labels == label)
        halves[rows[np.random.default_rng(label).permutation(len(rows))[::2]]] = classes
        after = ones(images, halves, directions, sets)
        hits += f"{label} and {classes}" in after
        others += len(after - before - {f"{label} and {classes}"})
    named = ", ".join(images.classes[divided.label] for divided in results)
    judged = (np.bincount(labels[units.firsts()], minlength=classes) >= FEWEST).sum()
    first = [name, str(judged), f"{len(results)}{f': {named}' if named else ''}", *cells]
    return [*first, str(len(before)), str(len(large)), str(hits), str(others)]


def main(args: argparse.Namespace) -> None:
    """Measure all collections, and print the table."""
    output = args.output.resolve()
    rows = (row_of(name, args.limit, output) for name in args.data)
    report(output / "class_groups.md", HEAD, rows)


if __name__ == "__main__":
    run_cli(build_parser, main)
