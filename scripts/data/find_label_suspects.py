"""Find labels that may be wrong among all images, before training: confident learning on the pretrained features.

The features of all images by the frozen pretrained backbone; the probabilities of each image by a linear probe that was
fitted without it and its copies; the images whose probabilities speak for another class (scripts/lib/metrics/
confident_learning.py). Nothing else reads the result: it is for people to look at.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scripts.lib.base import long_values
from scripts.lib.base.console import run_cli
from scripts.lib.base.environment import Variable
from scripts.lib.base.files import read_lines, sha256_of, write_json
from scripts.lib.base.problems import PassingError, UserError
from scripts.lib.base.units import plural
from scripts.lib.cluster.gpus import claimed_gpus
from scripts.lib.data import reading
from scripts.lib.data.findings import read_findings
from scripts.lib.data.image_paths import name_key
from scripts.lib.data.label_suspects import NEIGHBOURS, LabelSuspect, write_suspects
from scripts.lib.data.pixel_cache import PixelCache
from scripts.lib.data.scratch import staged_pixel_cache
from scripts.lib.data.splits import Image, read_splits
from scripts.lib.data.splitting import known_groups
from scripts.lib.metrics.confident_learning import Judgement, are_one, judge, mixed_pairs
from scripts.lib.metrics.odd_one_out import odd_ones_out
from scripts.lib.metrics.two_groups import find_two_groups
from scripts.lib.model import inference
from scripts.lib.model.checkpoint_file import MISSING
from scripts.lib.model.label_check import check_labels, plant_all
from scripts.lib.model.label_probe import FOLDS, Units, along_axes, judged_classes, nearest_of_class, out_of_fold
from scripts.lib.runs.config_file import write_config
from scripts.lib.settings.schema import Experiment
from scripts.lib.settings.site import current_site
from scripts.mmcls_plugins.hooks import forward_hooks
from scripts.mmcls_plugins.images import Normalizer
from scripts.mmcls_plugins.randomness import use_deterministic_kernels
from scripts.train.fit_head import absorbed, build_pretrained
from scripts.train.patch_config import build_config, gather

logger = logging.getLogger(__name__)
#: Images at a time through the backbone.
BATCH_SIZE = 32
#: Where the probe agrees with fewer of the labels, most suspects are its own mistakes, and no page counts them. Of
#: right labels, 180 of 600 were suspects at an agreement of 0.55, and 70 of 1,000 at 0.76.
LEAST_AGREEMENT = 0.7
#: Of the summary: what is empty where nothing is judged.
LISTS = ("pairs", "two_groups", "odd_ones_out")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.data.find_label_suspects", description=__doc__)
    parser.add_argument("--experiment", required=True, metavar="JSON", help="the experiment whose backbone judges")
    parser.add_argument("--name", required=True, help="the experiment's name, for the summary")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="its pretrained weights")
    parser.add_argument(
        "--pixel-cache", type=Path, nargs="*", default=[], metavar="DIR",
        help="what pack_images made; images that are not in it are decoded",
    )  # fmt: skip
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the images")
    parser.add_argument("--splits", type=Path, required=True, metavar="DIR", help="of split_dataset, or of one fold")
    parser.add_argument("--classes", type=Path, required=True, metavar="FILE", help="classes.txt")
    parser.add_argument("--audit", type=Path, required=True, metavar="CSV", help="which images are copies")
    parser.add_argument("--group-by", metavar="PATTERN", help="regular expression: known groups, searched in paths")
    parser.add_argument("--seed", type=int, default=0, help="of weights that the checkpoint lacks (0)")
    reading.add_options(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="label_suspects.csv")
    parser.add_argument("--summary", type=Path, required=True, metavar="FILE", help="the same in numbers, .json")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that decode images (2)")
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs to hold meanwhile (0: the first one)")
    return parser


# --- features ---------------------------------------------------------------------------------------------------------


def model_config(args: argparse.Namespace, experiment: Experiment) -> Any:
    """Return the config of the experiment, as a run's would be."""
    from scripts.lib.model import base_configs  # after inference, which silences mmcv

    inputs = gather(args, experiment, args.checkpoint)
    config = build_config(base_configs.load(experiment.base_config), inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.py"
        write_config(path, config, "", experiment.base_config)
        return inference.load_config(path, trust=True)  # of the settings' owner


def dataset_of(config: Any, split: str, paths: Sequence[str], classes: Sequence[str], images: Path) -> Any:
    """Return images of mmcls as the *split* of the config shows them, in their order."""
    from mmcls.datasets import build_dataset

    options = copy.deepcopy(config.data[split])
    options.pop("shuffle_labels", None)
    with tempfile.TemporaryDirectory() as folder:
        annotations = Path(folder) / "images.txt"
        annotations.write_text("".join(f"{path} 0\n" for path in paths), encoding="utf-8")
        options.update(ann_file=str(annotations), data_prefix=str(images), classes=list(classes))
        return build_dataset(options, {"test_mode": True})


def batches_of(dataset: Any, workers: int, device: str, images: Path) -> Iterator[torch.Tensor]:
    """Yield the images in their order: (BATCH_SIZE or less, channels, height, width), on *device*.

    Raises
    ------
    UserError : one cannot be read.
    """
    for _, batch, failures in inference.image_batches(dataset, BATCH_SIZE, workers, device):
        for index, reason in failures:
            raise inference.unreadable(images / dataset.data_infos[index]["img_info"]["filename"], reason)
        assert batch is not None
        yield batch.to(device, non_blocking=True)


def features_of(
    config: Any,
    weights: dict[str, torch.Tensor],
    paths: Sequence[str],
    classes: Sequence[str],
    folder: Path,
    workers: int,
) -> torch.Tensor:
    """Return what the last linear layer gets of each image, float64, (images, features).

    Where no layer of the head is fitted to pretrained layers below it, the pooled output of the backbone.

    Parameters
    ----------
    config : the run's; where it is the fast recipe's, Variable.PIXEL_CACHE names the pixel cache.
    weights : pretrained ones.
    paths : the images, relative to *folder*.

    Raises
    ------
    UserError : the weights do not fit the model, or give features that are not finite.
    """
    device = inference.choose_device(config.runner.device)
    model = build_pretrained(config, weights, device)
    layer_of = partial(inference.classifier_layer, num_classes=len(classes), trained=weights)
    normalizer = Normalizer(**config.runner.normalize).to(device) if config.runner.get("normalize") else None
    cached: set[str] = set(PixelCache(os.environ[Variable.PIXEL_CACHE]).images) if normalizer else set()
    groups = {
        "val": [path for path in paths if path in cached],
        "test": [path for path in paths if path not in cached],
    }
    vectors: list[torch.Tensor] = []

    def note(output: Any) -> None:
        vectors.append(torch.as_tensor(inference.pooled(output)).cpu().clone())

    for split, group in groups.items():
        if not group:
            continue
        dataset = dataset_of(config, split, group, classes, folder)
        # On a CPU reading from the pixel cache takes less time than processes for it take from the model.
        batches = batches_of(dataset, 0 if split == "val" and device == "cpu" else workers, device, folder)
        for number, batch in enumerate(batches):
            images = normalizer(batch) if normalizer and split == "val" else batch
            if number == 0:
                model = absorbed(model, images[:8]) if config.model.backbone.get("norm_eval") and not vectors else model
                layer = layer_of(model)
            hooks: dict[str, Any] = {"after": [(model.backbone, lambda _layer, _inputs, output: note(output))]}
            if layer is not None:
                hooks = {"before": [(layer, lambda _layer, inputs: note(inputs[0]))]}
            with torch.no_grad(), forward_hooks(**hooks):
                model(img=images, return_loss=False, post_process=False)
    features = torch.cat(vectors)
    if not features.isfinite().all():
        raise UserError("the features of these weights are not finite numbers", "take other weights")
    order = {path: index for index, path in enumerate([*groups["val"], *groups["test"]])}
    return features[torch.tensor([order[path] for path in paths])].double()


def extract(
    args: argparse.Namespace, experiment: Experiment, paths: Sequence[str], classes: Sequence[str]
) -> torch.Tensor:
    """Return the features of the images, as :func:`features_of`, on the device that the experiment wants.

    Raises
    ------
    UserError : there are no weights, or they do not fit.
    """
    weights, meta = inference.read_checkpoint(args.checkpoint)
    if reason := meta.get(MISSING):
        raise UserError(str(reason))
    site = current_site()
    with ExitStack() as stack:
        gpus = stack.enter_context(claimed_gpus(args.gpus, os.environ))
        if gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[0]  # before torch looks for GPUs; one is enough
        for cache in args.pixel_cache:
            folder = stack.enter_context(staged_pixel_cache(cache, site.scratch, site.scratch_gb))
            os.environ[Variable.PIXEL_CACHE] = str(folder)
        config = model_config(args, experiment)
        if config.runner.device == "cpu":
            inference.keep_freed_memory()
        torch.set_num_threads(config.runner.threads)
        if config.runner.deterministic:
            use_deterministic_kernels()
        return features_of(config, weights, paths, classes, args.images, args.workers)


# --- suspects ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Labelled:
    """The images that are used: ``paths``; ``labels``, indices into ``classes``, (images,); ``splits`` of each."""

    paths: list[str]
    labels: np.ndarray
    splits: list[str]
    classes: list[str]

    @classmethod
    def read(cls, splits: Path, classes: Path) -> Labelled:
        """Read them from the annotation files of all splits; in folds no image has one of its own."""
        read = read_splits(splits)
        rows = [
            (path, label, "" if read.folds else name)
            for name, split in read.by_name.items()
            for path, label in zip(split.images, split.labels, strict=True)
        ]
        rows.sort(key=lambda row: name_key(row[0]))
        paths, labels, names = zip(*rows, strict=True)
        return cls(list(paths), np.array(labels, np.int64), list(names), read_lines(classes))

    def of(self, rows: np.ndarray) -> Labelled:
        """Return some of them."""
        return Labelled(
            [self.paths[row] for row in rows], self.labels[rows], [self.splits[row] for row in rows], self.classes
        )


def sets_of(images: Labelled, audit: Path, group_by: str | None) -> list[tuple[str, list[str]]]:
    """Return the images that stay in one fold: copies, and known groups."""
    copies: dict[str, list[str]] = {}
    for row in read_findings(audit):
        if row.group:
            copies.setdefault(row.group, []).append(row.file)
    known = known_groups([Image(path, "") for path in images.paths], group_by) if group_by else {}
    return [*known.items(), *(("", paths) for paths in copies.values())]


@dataclass(frozen=True)
class Doubt:
    """What is known of labels.

    Attributes
    ----------
    probabilities : of each image by a probe that was fitted without it, float64, (images, classes); *penalty*: its.
    judgement : of confident learning.
    """

    probabilities: np.ndarray
    penalty: float
    judgement: Judgement

    @classmethod
    def of(cls, directions: torch.Tensor, labels: np.ndarray, units: Units, classes: int) -> Doubt:
        """Judge *labels*, int64, (images,), by *directions*, float64, (images, features), of `along_axes`."""
        data = (directions, torch.from_numpy(labels), torch.from_numpy(units.fold))
        probabilities, penalty = out_of_fold(*data, classes)
        return cls(probabilities, penalty, judge(probabilities, labels))


def find(
    images: Labelled, features: torch.Tensor, units: Units, folder: Path
) -> tuple[list[LabelSuspect], dict[str, Any]]:
    """Return the suspects, the most striking first, and the summary.

    Parameters
    ----------
    features : float64, (images, features).
    folder : of the files.
    """
    labels, classes = images.labels, images.classes
    directions = along_axes(features)
    doubt = Doubt.of(directions, labels, units, len(classes))
    probabilities = doubt.probabilities
    rows = doubt.judgement.suspects(labels, probabilities)
    of_label = probabilities[np.arange(len(labels)), labels]
    suggested = doubt.judgement.suggested[rows]
    vectors = features.numpy()
    near_label = nearest_of_class(vectors, labels, units.number, rows, labels[rows], NEIGHBOURS)
    near_suggested = nearest_of_class(vectors, labels, units.number, rows, suggested, NEIGHBOURS)
    suspects: dict[str, LabelSuspect] = {}
    for row, other, like_label, like_other in zip(rows, suggested, near_label, near_suggested, strict=True):
        sha256 = sha256_of(folder / images.paths[row])
        suspect = LabelSuspect(
            path=images.paths[row],
            label=classes[labels[row]],
            suggested=classes[other],
            confidence=float(1 - of_label[row]),
            label_probability=float(of_label[row]),
            suggested_probability=float(probabilities[row, other]),
            split=images.splits[row],
            sha256=sha256,
            near_label=tuple(images.paths[index] for index in like_label),
            near_suggested=tuple(images.paths[index] for index in like_other),
        )
        suspects.setdefault(sha256, suspect)  # a copy would be judged a second time
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    pairs = pairs_of(images, probabilities, units, rows, suggested)
    rounds, penalty = plant_all(labels, units, probabilities), doubt.penalty
    del doubt, probabilities  # of 2,000 classes, they are as large as those that the check is about to make
    check = check_labels(directions, units, rounds, len(classes), penalty)
    counts = {
        "suspects": len(suspects), "probe_accuracy": accuracy, "is_weak": accuracy < LEAST_AGREEMENT,
        "pairs": pairs,
        "check": asdict(check) if check else None,
        "two_groups": two_groups_of(images, directions, units),
        "odd_ones_out": [images.paths[row] for row in odd_ones_out(vectors, units.number)],
    }  # fmt: skip
    return list(suspects.values()), counts


def pairs_of(
    images: Labelled, probabilities: np.ndarray, units: Units, suspects: np.ndarray, suggested: np.ndarray
) -> list[dict[str, Any]]:
    """Return the pairs of classes that are mixed up, as the summary has them; the arguments as of `mixed_pairs`."""
    firsts, names, pairs = units.firsts(), images.classes, []
    for pair in mixed_pairs(images.labels, suspects, suggested):
        rows = firsts[np.isin(images.labels[firsts], (pair.first, pair.second))]  # not all: of 2,000 classes, 160 MB
        is_one = are_one(images.labels[rows], probabilities[rows], pair.first, pair.second)
        pairs.append(asdict(pair) | {"first": names[pair.first], "second": names[pair.second], "are_one": is_one})
    return pairs


def two_groups_of(images: Labelled, directions: torch.Tensor, units: Units) -> list[dict[str, Any]]:
    """Return the classes that look like two, as the summary has them."""
    return [
        {
            "class": images.classes[divided.label], "between": divided.between,
            "groups": [[images.paths[row] for row in group] for group in divided.groups],
        }
        for divided in find_two_groups(directions.numpy(), images.labels, units.number)
    ]  # fmt: skip


def main(args: argparse.Namespace) -> None:
    """Write the table and the summary; where the labels cannot be judged, the summary says why."""
    experiment = Experiment.model_validate(json.loads(long_values.take(args.experiment)))
    everything = Labelled.read(args.splits, args.classes)
    summary: dict[str, Any] = {"experiment": args.name, "base_config": experiment.base_config, "reason": None}
    suspects: list[LabelSuspect] = []
    began = time.monotonic()
    try:
        units = Units.of(dict(zip(everything.paths, map(str, everything.labels), strict=True)),
                         sets_of(everything, args.audit, args.group_by))  # fmt: skip
        judged = judged_classes(everything.labels, units.fold, len(everything.classes))
        rows = np.flatnonzero(judged[everything.labels])
        summary["classes_not_judged"] = [
            name for name, known in zip(everything.classes, judged, strict=True) if not known
        ]
        if judged.sum() < 2:
            raise UserError(f"fewer than two classes have images for {FOLDS} folds")
        images = everything.of(rows)
        features = extract(args, experiment, images.paths, everything.classes)
        extracted = time.monotonic()
        suspects, counts = find(images, features, Units(units.number[rows], units.fold[rows]), args.images)
        summary |= {"images": len(images.paths), **counts}
        logger.info(
            "%s of %s may be wrong, %s unlike all others: features in %.1f s, the rest in %.1f s",
            plural(len(suspects), "label"), plural(len(images.paths), "image"),
            plural(len(summary["odd_ones_out"]), "image"), extracted - began, time.monotonic() - extracted,
        )  # fmt: skip
    except PassingError:
        raise
    except UserError as error:  # training does without it
        logger.warning("the labels are not judged: %s", error)
        summary |= {"reason": str(error), "images": 0, "suspects": 0} | {key: [] for key in LISTS}
    write_suspects(args.output, suspects)
    write_json(args.summary, summary)


if __name__ == "__main__":
    run_cli(build_parser, main)
