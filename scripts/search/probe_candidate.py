"""Try one candidate of `base_config: auto`: a linear probe of frozen features, cross-validated on train, and on val.

Beside the result it writes what the rounds train, should they: a config of one round, and the fitted head. A
candidate that cannot be tried is left out with its reason, since the others can.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path

import torch

from scripts.lib.base import long_values
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import write_json
from scripts.lib.base.problems import PassingError, UserError
from scripts.lib.base.units import plural
from scripts.lib.data import reading
from scripts.lib.model.checkpoint_file import MISSING, read_meta, write_checkpoint
from scripts.lib.model.linear_probe import accuracy_and_loss, fit_probes, image_weights
from scripts.lib.model.model_search import EPOCHS, Tried
from scripts.lib.settings.schema import Experiment
from scripts.train.fit_head import Fitted, fit
from scripts.train.patch_config import gather, write

logger = logging.getLogger(__name__)
#: Parts of train of which each is held out once.
PARTS = 5


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.search.probe_candidate", description=__doc__)
    parser.add_argument("--name", required=True, help="the candidate's name, that of its folder")
    parser.add_argument("--experiment", required=True, metavar="JSON", help="the experiment with this base config")
    parser.add_argument("--seed", type=int, required=True, help="the seed of the search")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="its pretrained weights")
    parser.add_argument("--pixel-cache", type=Path, required=True, nargs="+", metavar="DIR", help="for its image size")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the images")
    parser.add_argument("--splits", type=Path, required=True, metavar="DIR", help="folder of train.txt and val.txt")
    parser.add_argument("--classes", type=Path, required=True, metavar="FILE", help="classes.txt")
    reading.add_options(parser)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="config of a round, to write")
    parser.add_argument("--init", type=Path, required=True, metavar="FILE", help="weights with the fitted head")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="what was found, .json")
    parser.add_argument("--seconds", type=float, metavar="N", help="that its features may take (any)")
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs to hold meanwhile (0: the first one)")
    return parser


def main(args: argparse.Namespace) -> None:
    """Try the candidate; what is left out has an empty config and empty weights."""
    experiment = Experiment.model_validate(json.loads(long_values.take(args.experiment)))
    began = time.monotonic()
    try:
        if reason := read_meta(args.checkpoint).get(MISSING):
            raise UserError(str(reason))
        write(args.config, gather(args, experiment.model_copy(update={"epochs": EPOCHS}), args.init))
        splits = [args.splits / "train.txt", args.splits / "val.txt"]
        files = (args.config, args.checkpoint, args.pixel_cache, splits, args.classes)
        fitted, origin = fit(*files, args.gpus, workers=2, seconds=args.seconds)
        is_balanced = experiment.balance != "none"
        tried = result(args.name, experiment.base_config, fitted, args.checkpoint, began, is_balanced)
        write_checkpoint(fitted.weights, args.init, origin.meta() if origin else None)
    except PassingError:
        raise
    except UserError as error:
        logger.warning("%s is left out: %s", args.name, error)
        tried = Tried(args.name, experiment.base_config, left_out=str(error))
        for path in (args.config, args.init):
            path.write_bytes(b"")
    write_json(args.output, tried.as_json())


def result(
    name: str, base_config: str, fitted: Fitted, checkpoint: Path, began: float, is_balanced: bool = False
) -> Tried:
    """Return what is known of a candidate whose head was fitted; *is_balanced*: the classes count the same.

    Raises
    ------
    UserError : no linear layer alone makes its class scores.
    """
    if fitted.probe is None:
        raise UserError("its class scores are not made by one linear layer, so there is nothing to try it by")
    train, val = fitted.features
    train_labels, val_labels = fitted.labels
    num_classes = int(max(train_labels.max(), val_labels.max())) + 1
    logits = [
        held_out(train, train_labels, num_classes, fitted.probe.penalty, is_balanced),
        val @ fitted.probe.weight.T + fitted.probe.bias,
    ]
    labels = torch.cat([train_labels, val_labels])
    weights = image_weights(labels, num_classes) if is_balanced else None
    accuracy, loss = accuracy_and_loss(torch.cat(logits), labels, weights)
    images = len(labels)
    logger.info(
        "%s: %.2f %% of %s of train and val, held out, are right%s", name, 100 * accuracy, plural(images, "image"),
        ", on average over the classes" if is_balanced else "",
    )  # fmt: skip
    return Tried(
        name=name,
        base_config=base_config,
        correct=round(accuracy * images, 6),
        images=images,
        loss=loss,
        images_per_second=round(fitted.images_per_second, 2),
        seconds=round(time.monotonic() - began, 1),
        parameters=sum(tensor.numel() for tensor in fitted.weights.values() if tensor.is_floating_point()),
        bytes=checkpoint.stat().st_size,
    )


def held_out(
    features: torch.Tensor, labels: torch.Tensor, num_classes: int, penalty: float, is_balanced: bool = False
) -> torch.Tensor:
    """Return the logits of each image of train, (images, classes), by a linear layer that was fitted without it.

    Of a class with fewer images than PARTS, some parts hold none; it is then right or wrong in the others.

    Parameters
    ----------
    is_balanced : the classes count the same.
    """
    parts = parts_of(labels)
    logits = torch.zeros(len(labels), num_classes, dtype=torch.float64)
    for number in range(PARTS):
        held = parts == number
        if not held.any() or held.all():
            continue
        held_in = (features[~held], labels[~held])
        [probe] = fit_probes(*held_in, features[held], labels[held], num_classes, is_balanced, penalties=[penalty])
        logits[held] = features[held] @ probe.weight.T + probe.bias
    return logits


def parts_of(labels: torch.Tensor) -> torch.Tensor:
    """Return the part of each image, int64, (images,): of each class about as many in each part."""
    parts = torch.empty_like(labels)
    for label in labels.unique():
        of_class = (labels == label).nonzero().flatten()
        parts[of_class] = (torch.arange(len(of_class)) + int(label)) % PARTS
    return parts


if __name__ == "__main__":
    run_cli(build_parser, main)
