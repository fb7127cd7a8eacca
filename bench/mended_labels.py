"""How much of the accuracy that wrong labels cost is won back by mending the first label suspects, on real photographs.

10 % of the labels of train are flipped, each to any other class; val and test stay right. The first N suspects of train
are mended, N the number of flips, in two ways: "accepted" takes the suggested class of each without a look; "looked at"
is a person who sees what the image shows, and corrects or keeps its label. Each time the head with which the fast
recipe starts is fitted anew; with --train the whole recipe runs, which takes minutes for each accuracy.
"""

from __future__ import annotations

import argparse
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bench.label_suspects import Judged, flips, prepare, read_features
from bench.prepare import Bench
from bench.rows import accuracy_of, start_fast, train_by_mimflow
from bench.table import report
from scripts.data.find_label_suspects import Labelled, sets_of
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import atomic_path, read_json, write_json
from scripts.lib.base.units import in_percent
from scripts.lib.data.splits import Image, Split
from scripts.lib.model.linear_probe import fit_probes

logger = logging.getLogger(__name__)
SHARE = 0.1
STATES = ("right", "flipped", "accepted", "looked at")
HEAD = ("data", "seed", "flipped labels", "in the first N, %", *(f"accuracy, labels {state}" for state in STATES))
#: By state the labels, int64 (images,); the number of flips; the share of them among the first N, 0 to 1.
States = tuple[dict[str, np.ndarray], int, float]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.mended_labels", description=(__doc__ or "").split("\n")[0])
    data = "elpv, cifar10-test, digits, sample, or a folder or archive of images (default: elpv, cifar10-test)"
    parser.add_argument("--data", nargs="+", default=["elpv", "cifar10-test"], help=data)
    parser.add_argument("--limit", type=int, metavar="N", help="a class-balanced subset of N images of each")
    seeds = "of the flips and of the training (0 1 2 3 4)"
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], metavar="SEED", help=seeds)
    parser.add_argument("--train", action="store_true", help="run all of the fast recipe, not only the fit of the head")
    kept = "folder of images, weights and results (default: %(default)s)"
    parser.add_argument("--output", type=Path, default=Path("results/bench"), metavar="FOLDER", help=kept)
    return parser


def labels_of_states(images: Labelled, features: torch.Tensor, bench: Bench, seed: int) -> States:
    """Return the labels in each of STATES; the number of flips; and which share of them is among the first N."""
    is_train = np.array(images.splits) == "train"
    flipped = images.labels.copy()
    no_matter = np.zeros((0, len(images.classes)))
    flipped[is_train], is_planted = flips(images.labels[is_train], no_matter, "uniform", SHARE, (0, 1), seed)
    judged = Judged.of(images, flipped, features, sets_of(images, bench.folder / "audit.csv", None))
    suspects = np.flatnonzero(judged.is_suspect & is_train)
    first = suspects[np.argsort(judged.of_label[suspects], kind="stable")][: is_planted.sum()]
    accepted, looked_at = flipped.copy(), flipped.copy()
    accepted[first] = judged.judgement.suggested[first]
    looked_at[first] = images.labels[first]
    labels = dict(zip(STATES, (images.labels, flipped, accepted, looked_at), strict=True))
    hits = (flipped != images.labels)[first].sum() / is_planted.sum()
    return labels, int(is_planted.sum()), float(hits)


def accuracy_of_head(images: Labelled, features: torch.Tensor, labels: np.ndarray) -> float:
    """Return the accuracy on test of the head that is fitted to train, 0 to 1; val chooses its penalty."""
    splits = np.array(images.splits)
    rows = {name: torch.from_numpy(np.flatnonzero(splits == name)) for name in ("train", "val", "test")}
    targets = torch.from_numpy(labels)
    data = [values[rows[name]] for name in ("train", "val") for values in (features, targets)]
    probe = fit_probes(*data, len(images.classes))[-1]
    predicted = (features[rows["test"]] @ probe.weight.T + probe.bias).argmax(1)
    return float((predicted == targets[rows["test"]]).double().mean())


def with_labels(bench: Bench, name: str, images: Labelled, labels: np.ndarray) -> Bench:
    """Return the same data set with other labels of train, in a folder of its own."""
    other = replace(bench, data=f"{bench.data}-{name}")
    with atomic_path(other.folder) as folder:
        (folder / "splits").mkdir(parents=True)
        (folder / "images").symlink_to(bench.images)
        for file in ("classes.txt", "splits/val.txt", "splits/test.txt"):
            shutil.copyfile(bench.folder / file, folder / file)
        rows = zip(images.paths, labels, images.splits, strict=True)
        train = [Image(path, images.classes[label]) for path, label, split in rows if split == "train"]
        Split.of("train", train, images.classes).write(folder / "splits")
    return other


def accuracy_after_training(bench: Bench, seed: int) -> float:
    """Train by the fast recipe, and return the accuracy on test, 0 to 1."""
    if (result := bench.result_file("fast", seed)).exists():
        return float(read_json(result)["accuracy"])
    folder = bench.run_folder("fast", seed)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config, _ = start_fast(bench, folder, seed)
    train_by_mimflow(bench, folder, config, seed)
    accuracy = accuracy_of(bench, folder, folder / "best.pth", "test")
    result.parent.mkdir(parents=True, exist_ok=True)
    write_json(result, {"accuracy": accuracy})
    shutil.rmtree(folder)
    return accuracy


def results_of(bench: Bench, seed: int, train: bool) -> tuple[int, list[float]]:
    """Return the number of flips; which share of them is mended, and the accuracy in each of STATES, 0 to 1."""
    images = Labelled.read(bench.folder / "splits", bench.classes)
    features, _ = read_features(bench, images)
    states, planted, hits = labels_of_states(images, features, bench, seed)
    accuracies = []
    for state, labels in states.items():
        if train:
            name = f"{state.replace(' ', '-')}-{seed}"
            accuracies.append(accuracy_after_training(with_labels(bench, name, images, labels), seed))
        else:
            accuracies.append(accuracy_of_head(images, features, labels))
        logger.info("%s, seed %d, labels %s: %.4f", bench.data, seed, state, accuracies[-1])
    return planted, [hits, *accuracies]


def rows_of(bench: Bench, seeds: list[int], train: bool) -> Iterator[list[str]]:
    """Yield the rows of the table for one data set: each seed, their mean, and what part of the loss is won back."""
    results = [results_of(bench, seed, train) for seed in seeds]
    for seed, (planted, shares) in zip(seeds, results, strict=True):
        yield [bench.data, str(seed), str(planted), *map(in_percent, shares)]
    means = np.mean([shares for _, shares in results], axis=0)
    yield [bench.data, "mean", str(results[0][0]), *map(in_percent, means)]
    _, right, flipped, *mended = means
    won = [in_percent((m - flipped) / (right - flipped)) for m in mended] if right > flipped else ["", ""]
    yield [bench.data, "won back", "", "", "", "", *won]


def main(args: argparse.Namespace) -> None:
    """Print the table."""
    output = args.output.resolve()
    rows = (row for name in args.data for row in rows_of(prepare(name, args.limit, output), args.seeds, args.train))
    report(output / "mended_labels.md", HEAD, rows)


if __name__ == "__main__":
    run_cli(build_parser, main)
