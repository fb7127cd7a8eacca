"""Predict the images of one split with a trained model: predictions.csv, one row an image in the split's order."""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scripts.lib.base import products
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import atomic_path, read_lines, write_json
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.cluster.gpus import claimed_gpus
from scripts.lib.data.scratch import staged
from scripts.lib.data.splits import Split, listed_images
from scripts.lib.metrics.unsure import certainty_of, known_sample
from scripts.lib.model.inference import (
    build_model,
    choose_device,
    iterate,
    load_config,
    noted_features,
    read_checkpoint,
    trained_on_cpu,
    unreadable,
)
from scripts.lib.runs.certainty import directions
from scripts.lib.runs.onnx_model import Batch
from scripts.lib.runs.predictions import read_predictions, write_predictions
from scripts.lib.settings.site import current_site

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.evaluate.predict_images", description=__doc__)
    file = partial(parser.add_argument, type=Path, metavar="FILE")
    folder = partial(parser.add_argument, type=Path, metavar="DIR")
    file("--config", required=True, help="the run's config.py")
    file("--checkpoint", required=True, help="its weights, best.pth")
    folder("--images", required=True, help="the folder that the split refers to")
    file("--split", nargs="+", required=True, help="annotation files: `path label` lines")
    file("--classes", required=True, help="one class a line, in label order")
    file("--output", nargs="+", required=True, help="predictions.csv of each of them")
    file("--features", help="what the last layer gets of each image of the first, .npy")
    file("--train", help="annotation file of the training images, for --known and --certainty")
    file("--known", help="features of some of them, .npy")
    file("--certainty", help="from where on predictions are sure, by the last split: certainty.json")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images at a time (64)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that read images (2)")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the model runs (auto: as in training)"
    )
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="CPU threads of the model (2)")
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs to hold meanwhile (0: the first one)")
    return parser


def test_dataset(config: Any, images: Path, split: Path, classes: list[str]) -> Any:
    """Return the data set ``data.test`` of *config*, in test mode, over the given files.

    Raises
    ------
    UserError : the split is empty, or a line of it has no label among the classes.
    """
    from mmcls.datasets import build_dataset

    for number, line in enumerate(read_lines(split), 1):
        label = line.rpartition(" ")[2]
        if not (label.isdecimal() and int(label) < len(classes)):
            raise UserError(f"{split}, line {number}: the label must be a number below {len(classes)}; make it again")
    config.data.test.update(data_prefix=str(images), ann_file=str(split), classes=classes)
    dataset = build_dataset(config.data.test, {"test_mode": True})
    if not len(dataset):
        raise UserError(f"{split}: names no image; a test split needs at least one")
    return dataset


def main(args: argparse.Namespace) -> None:
    if len(args.split) != len(args.output):
        raise UserError("--output: give one file for each --split")
    if len({option is None for option in (args.train, args.known, args.certainty)}) > 1:
        raise UserError("--known and --certainty are made of --train: give all three, or none")
    with sampled_split(args.train) as sample:
        splits = [*args.split, *sample]
        products.check_files(args.images, listed_images(splits))
        site = current_site()
        with (
            claimed_gpus(args.gpus, os.environ) as gpus,
            staged(args.images, splits, site.scratch, site.scratch_gb) as images,
        ):
            if gpus:
                os.environ["CUDA_VISIBLE_DEVICES"] = gpus[0]  # before torch looks for GPUs; one is enough to predict
            predict(args, images, sample)


@contextmanager
def sampled_split(train: Path | None) -> Iterator[list[Path]]:
    """Yield an annotation file of the training images that others are compared with; nothing without *train*."""
    if train is None:
        yield []
        return
    split = Split.read(train)
    chosen = known_sample(split.labels)
    sample = Split("known", [split.images[i] for i in chosen], [split.labels[i] for i in chosen])
    with tempfile.TemporaryDirectory(prefix="mimflow-known-") as folder:
        sample.write(Path(folder))
        yield [Path(folder, "known.txt")]


def predict(args: argparse.Namespace, images: Path, sample: Sequence[Path]) -> None:
    """Write all that was asked for.

    Parameters
    ----------
    images : the folder to read them from.
    sample : annotation file of training images, for --known; or none.
    """
    config = load_config(args.config)
    device = choose_device("cpu" if args.device == "auto" and trained_on_cpu(config) else args.device)
    classes = read_lines(args.classes)
    weights, _ = read_checkpoint(args.checkpoint)
    model = build_model(config, weights, device, args.threads)
    features: list[np.ndarray] = []
    for split, output in zip([*args.split, *sample], [*args.output, None], strict=False):
        dataset = test_dataset(config, images, split, classes)
        count = plural(len(dataset), "image")
        what = split if output else f"{args.train}, for their features,"
        logger.debug("predicting %s of %s on %s", count, what, device)
        start = time.perf_counter()
        batches = iterate(model, dataset, args.batch_size, args.workers, device)
        predicted = rows(batches, dataset, len(classes), args.images, args.checkpoint, (args.config, args.classes))
        noted: list[np.ndarray] = []
        is_noted = bool(args.features) or args.known is not None
        with noted_features(model, len(classes), noted) if is_noted else nullcontext():
            if output:
                write_predictions(output, classes, predicted)
            else:
                deque(predicted, maxlen=0)
        features.append(np.concatenate(noted) if noted else np.empty((0, 0)))
        seconds = time.perf_counter() - start
        logger.info("%s in %.1f s, %.1f images/s: %s", count, seconds, len(dataset) / seconds, output or args.known)
    if args.features:
        write_array(args.features, features[0])
    if args.known is not None:
        known = directions(features[-1]).astype(np.float16)
        write_array(args.known, known)
        write_json(args.certainty, certainty_of(read_predictions(args.output[-1]), features[-2], known).as_json())


def rows(
    batches: Iterable[Batch], dataset: Any, n_classes: int, images: Path, checkpoint: Path, origin: tuple[Path, Path]
) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yield file name, label and probabilities, float32 of shape (classes,), of each image of *dataset*.

    Parameters
    ----------
    images, checkpoint, origin : for messages: the folder, the weights, and the files of the config and the classes.

    Raises
    ------
    UserError : an image cannot be read, or the model and the classes do not belong together, or it predicts NaN.
    """
    for batch in batches:
        for index, reason in batch.failures:
            raise unreadable(images / _name(dataset, index), reason)
        if (outputs := batch.probabilities.shape[1]) != n_classes:
            raise UserError(f"{origin[0]}: the model knows {outputs} classes, {origin[1]} has {n_classes}")
        for index, probabilities in zip(batch.indices, batch.probabilities, strict=True):
            if not np.isfinite(probabilities).all():
                raise UserError(f"{checkpoint}: predicts NaN: its training diverged; lower the learning rate")
            yield _name(dataset, index), int(dataset.data_infos[index]["gt_label"]), probabilities


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array, atomically; features are float32 of shape (images, dims), in the order of predictions.csv.

    A .npy, since an .npz holds the time of day, and the same features must give the same bytes.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)


def _name(dataset: Any, index: int) -> str:
    return dataset.data_infos[index]["img_info"]["filename"]


if __name__ == "__main__":
    run_cli(build_parser, main)
