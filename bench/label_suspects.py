"""How many planted wrong labels the search for label suspects finds, on real photographs.

A share of the labels is flipped: to any other class, between the two classes that the probe mixes up most, or to
plausible classes, drawn by the probabilities that the probe gives the image, as find_label_suspects checks itself.
The ranking is that of find_label_suspects: its suspects first, by the probability of their label, then all others.
Beside it the ranking by the margin. The features are computed once for a data set and kept.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score

from bench import datasets
from bench.prepare import DEMO, Bench, Scale, data_name, prepare_data, prepare_weights
from bench.processes import command, execute
from bench.table import report
from scripts.data import find_label_suspects
from scripts.data.find_label_suspects import Labelled
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import atomic_path
from scripts.lib.base.units import in_percent
from scripts.lib.data.findings import SET_ASIDE, read_findings
from scripts.lib.metrics.confident_learning import Judgement
from scripts.lib.model.label_check import plant
from scripts.lib.model.label_probe import Units, along_axes
from scripts.lib.settings.schema import Experiment

logger = logging.getLogger(__name__)
SHARES = (0.02, 0.05, 0.1, 0.2)
KINDS = ("uniform", "pair", "plausible")
#: Pixels of the pictures that are made of scikit-learn's handwritten digits, which have 8.
DIGIT_SIZE = 64
HEAD = (
    "data",
    "flips",
    "of all, %",
    "planted",
    "average precision",
    "by margin",
    "in the first N, %",
    "suspects",
    "seconds",
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.label_suspects", description=(__doc__ or "").split("\n")[0])
    known = ", ".join((*datasets.DATASETS, "digits", "sample"))
    data = f"{known}, or a folder or archive of images (default: elpv, cifar10-test, digits)"
    parser.add_argument("--data", nargs="+", default=["elpv", "cifar10-test", "digits"], help=data)
    parser.add_argument("--limit", type=int, metavar="N", help="a class-balanced subset of N images of each")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED", help="of the flips (0 1 2)")
    kept = "folder of images, weights and tables (default: %(default)s)"
    parser.add_argument("--output", type=Path, default=Path("results/bench"), metavar="FOLDER", help=kept)
    return parser


def write_digits(folder: Path) -> Path:
    """Write the 1,797 handwritten digits that scikit-learn contains as a folder of images, and return it."""
    if folder.exists():
        return folder
    digits = load_digits()
    with atomic_path(folder) as temporary:
        for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
            (temporary / str(label)).mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(np.uint8(255 - pixels * 255 / 16))
            image = image.resize((DIGIT_SIZE, DIGIT_SIZE), Image.Resampling.BICUBIC)
            image.save(temporary / str(label) / f"{number:04}.png")
    return folder


def prepare(data: str, limit: int | None, output: Path) -> Bench:
    """Bring images, splits, their audit, pixels and weights into the folder of the bench."""
    bench = Bench(output, data_name(data, limit), Scale())
    source = str(write_digits(output / "digits")) if data == "digits" else data
    prepare_data(bench, source, limit)
    prepare_weights(bench)
    if not (cache := bench.folder / "packed").exists():
        splits = tuple(bench.split(name) for name in ("train", "val", "test"))
        short_side = Experiment.model_validate(DEMO | {"image_size": "auto"}).cached_short_side()
        audit = {"output": bench.folder / "audit.csv", "summary": bench.folder / "audit.json"}
        log = bench.folder / "suspects.log"
        execute(command("scripts.data.audit_images", images=bench.images, **audit), log)
        if bad := {row.file for row in read_findings(bench.folder / "audit.csv") if row.action == SET_ASIDE}:
            for file in bad:
                (bench.images / file).unlink()
            outputs = {"output": bench.folder / "splits", "class_list": bench.classes}
            execute(command("scripts.data.split_dataset", images=bench.images, **outputs), log)
        options = {"images": bench.images, "splits": splits, "short_side": short_side, "output": cache}
        execute(command("scripts.data.pack_images", **options), log)
    return bench


def read_features(bench: Bench, images: Labelled) -> tuple[torch.Tensor, float]:
    """Return the features of the images, float64 (images, features), and the seconds that they took, here and now."""
    path = bench.folder / "features.npy"
    began = time.monotonic()
    if not path.exists():
        words = {"images": bench.images, "splits": bench.folder / "splits", "classes": bench.classes}
        words |= {"audit": bench.folder / "audit.csv", "checkpoint": bench.checkpoint, "experiment": "{}", "name": ""}
        words |= {"pixel_cache": bench.folder / "packed", "output": "-", "summary": "-"}
        args = find_label_suspects.build_parser().parse_args(command("-", **words)[3:])
        experiment = Experiment.model_validate(DEMO | {"image_size": "auto", "device": "cpu"})
        features = find_label_suspects.extract(args, experiment, images.paths, images.classes)
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.save(file, features.numpy().astype(np.float32))
    return torch.from_numpy(np.load(path)).double(), time.monotonic() - began


def flips(
    labels: np.ndarray, probabilities: np.ndarray, kind: str, share: float, pair: tuple[int, int], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels with a share of them flipped, and which, bool: a function of all that is given.

    Parameters
    ----------
    probabilities : float64, (images, classes).
    kind : uniform: of all images, to any other class; pair: of the images of *pair*, to the other of the two;
        plausible: of all images, by *probabilities*.
    """
    random = np.random.default_rng([seed, KINDS.index(kind), round(1000 * share)])
    candidates = np.flatnonzero(np.isin(labels, pair)) if kind == "pair" else np.arange(len(labels))
    chosen = random.choice(candidates, round(share * len(candidates)), replace=False)
    flipped, classes = labels.copy(), probabilities.shape[1]
    if kind == "plausible":
        flipped = plant(labels, probabilities, chosen, random)
    elif kind == "uniform":
        flipped[chosen] = (labels[chosen] + random.integers(1, classes, len(chosen))) % classes
    else:
        flipped[chosen] = sum(pair) - labels[chosen]
    return flipped, flipped != labels


@dataclass(frozen=True)
class Judged:
    """What find_label_suspects says of labels: ``is_suspect``, bool (images,); ``of_label``: the probability of each.

    ``probabilities``: float64, (images, classes); ``judgement``: of confident learning.
    """

    is_suspect: np.ndarray
    of_label: np.ndarray
    probabilities: np.ndarray
    judgement: Judgement

    @classmethod
    def of(
        cls, images: Labelled, labels: np.ndarray, features: torch.Tensor, sets: Sequence[tuple[str, list[str]]]
    ) -> Judged:
        """Judge *labels* of the images, which may be others than theirs."""
        units = Units.of(dict(zip(images.paths, map(str, labels), strict=True)), sets)
        doubt = find_label_suspects.Doubt.of(along_axes(features), labels, units, len(images.classes))
        is_suspect = np.zeros(len(labels), bool)
        is_suspect[doubt.judgement.suspects(labels, doubt.probabilities)] = True
        of_label = doubt.probabilities[np.arange(len(labels)), labels]
        return cls(is_suspect, of_label, doubt.probabilities, doubt.judgement)


def most_alike(probabilities: np.ndarray, labels: np.ndarray) -> tuple[int, int]:
    """Return the two classes that the probe mixes up most often."""
    counts = np.zeros((probabilities.shape[1],) * 2)
    np.add.at(counts, (labels, probabilities.argmax(1)), 1)
    first, second = np.unravel_index(np.triu(counts + counts.T, 1).argmax(), counts.shape)
    return int(first), int(second)


def rows_of(name: str, bench: Bench, seeds: Sequence[int]) -> Iterator[list[str]]:
    """Yield the rows of the table for one data set: means over the seeds."""
    images = Labelled.read(bench.folder / "splits", bench.classes)
    features, seconds = read_features(bench, images)
    sets = find_label_suspects.sets_of(images, bench.folder / "audit.csv", None)
    judged = Judged.of(images, images.labels, features, sets)
    pair = most_alike(judged.probabilities, images.labels)
    accuracy = (judged.probabilities.argmax(1) == images.labels).mean()
    logger.info(
        "%s: %d images, features in %.1f s, the probe agrees with %.1f %% of the labels; pair: %s",
        name, len(images.paths), seconds, 100 * accuracy, " and ".join(images.classes[i] for i in pair),
    )  # fmt: skip
    yield [name, "none", "0", "0", "", "", "", str(judged.is_suspect.sum()), ""]
    for kind in KINDS:
        for share in SHARES:
            results = []
            for seed in seeds:
                labels, is_planted = flips(images.labels, judged.probabilities, kind, share, pair, seed)
                began = time.monotonic()
                other = Judged.of(images, labels, features, sets)
                seconds = time.monotonic() - began
                score = other.is_suspect + (1 - other.of_label)
                by_margin = other.is_suspect * 4 - other.judgement.margin
                first = np.argsort(-score, kind="stable")[: is_planted.sum()]
                hits = is_planted[first].mean()
                precision = average_precision_score(is_planted, score)
                alone = average_precision_score(is_planted, by_margin)
                results.append((is_planted.sum(), precision, alone, hits, other.is_suspect.sum(), seconds))
            planted, precision, alone, hits, suspects, seconds = np.mean(results, axis=0)
            numbers = [f"{100 * share:g}", f"{planted:.0f}", f"{precision:.3f}", f"{alone:.3f}", in_percent(hits)]
            yield [name, kind, *numbers, f"{suspects:.0f}", f"{seconds:.1f}"]


def main(args: argparse.Namespace) -> None:
    """Print the table."""
    output = args.output.resolve()
    rows = (row for name in args.data for row in rows_of(name, prepare(name, args.limit, output), args.seeds))
    report(output / "label_suspects.md", HEAD, rows)


if __name__ == "__main__":
    run_cli(build_parser, main)
