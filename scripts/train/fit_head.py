"""Fit the head to the frozen backbone's features, so that fine-tuning starts from a linear probe: init.pth.

One pass of the train and val splits through the pretrained backbone, as the test pipeline shows images; multinomial
logistic regression on the features, its regularisation chosen on val. For every model whose class scores are made by
one linear layer.
"""

from __future__ import annotations

import argparse
import copy
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from scripts.lib.base.console import run_cli
from scripts.lib.base.environment import Variable
from scripts.lib.base.files import read_lines
from scripts.lib.base.problems import UserError
from scripts.lib.base.seeds import derive_seed
from scripts.lib.cluster.gpus import claimed_gpus
from scripts.lib.data.pixel_cache import PixelCache
from scripts.lib.data.scratch import staged_pixel_cache
from scripts.lib.model import inference
from scripts.lib.model.checkpoint_file import write_checkpoint
from scripts.lib.model.linear_probe import LogitsElsewhereError, Probe, extract, fit_probes
from scripts.lib.model.weight_origin import Origin
from scripts.lib.runs.config_file import pixel_cache_folder, read_config
from scripts.lib.settings.site import current_site
from scripts.mmcls_plugins import folding
from scripts.mmcls_plugins.images import Normalizer
from scripts.mmcls_plugins.randomness import seed_generators, use_deterministic_kernels
from scripts.mmcls_plugins.timm_backbone import TimmFeatures

logger = logging.getLogger(__name__)
#: Images at a time through the backbone.
BATCH_SIZE = 32
#: Batches that warm up, and those after them by which it is told how long all will take.
WARM_UP, TIMED = 1, 3


def build_split(config: Any, split: Path, classes: Sequence[str], shuffle_labels: bool = False) -> Any:
    """Return the images of an annotation file as the val split of *config* shows them: of the pixel cache, in bytes.

    Parameters
    ----------
    shuffle_labels : as training does it with this split.
    """
    from mmcls.datasets import build_dataset

    options = copy.deepcopy(config.data.val)
    options.update(ann_file=str(split), classes=list(classes))
    options.pop("shuffle_labels", None)  # val's own
    if shuffle_labels:
        options["shuffle_labels"] = True
    return build_dataset(options, {"test_mode": True})


def image_tensors(dataset: Any, normalizer: Normalizer, workers: int, device: str) -> Iterator[torch.Tensor]:
    """Yield the images of *dataset* in its order: float32, (BATCH_SIZE or less, 3, height, width), on *device*."""
    for _, images, failures in inference.image_batches(dataset, BATCH_SIZE, workers, device):
        assert images is not None and not failures, "a pixel cache holds whole images only"
        yield normalizer(images.to(device, non_blocking=True))


def build_pretrained(config: Any, weights: dict[str, torch.Tensor], device: str) -> nn.Module:
    """Return the model of *config* with *weights*; what they lack is drawn by the run's seed.

    Raises
    ------
    UserError : weights of the backbone have other shapes than the model wants, as of another size of image.
    """
    # mmcv would tell of every tensor how it was drawn; fetch_checkpoint has told what of the weights fits.
    quiet = logging.getLogger("mmcv")
    quiet.setLevel(logging.ERROR)
    # The name of the stream stays, whatever the rule is called: it determines the weights that are drawn.
    seed_generators(derive_seed(config.seed, "warm_start"))
    model = inference.build_classifier(copy.deepcopy(config.model))
    model.init_weights()
    if isinstance(model.backbone, TimmFeatures):
        weights = model.backbone.fitting(weights, "backbone.")
    for name, tensor in model.state_dict().items():
        if name.startswith("backbone.") and name in weights and weights[name].shape != tensor.shape:
            actual, wanted = ("x".join(map(str, shape)) for shape in (weights[name].shape, tensor.shape))
            raise UserError(
                f"the weights do not fit the model: {name} is {actual}, not {wanted}; set image_size to that of the"
                " weights, mostly 224, or choose other weights"
            )
    inference.load_state_dict(model, weights, strict=False, logger=quiet)
    return model.to(device, memory_format=torch.channels_last).eval()


def absorbed(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Return *model* with its frozen normalisations absorbed and folded; as it was, where that changes its output.

    It does where something else than the normalisation reads the output of a convolution too.
    """
    before = copy.deepcopy(model)
    expected = folding.probabilities_of(model, images)
    pairs = folding.normalised_convolutions(model, images)
    folding.absorb(pairs)
    if not folding.same_probabilities(folding.probabilities_of(model, images), expected):
        return before
    folding.compute_folded(pairs)
    return model


@dataclass(frozen=True)
class Fitted:
    """A model whose head was fitted.

    Attributes
    ----------
    weights : all of the model.
    probe : the fitted layer; None where no linear layer alone makes the class scores, so that none was fitted.
    features, labels : what it was fitted to and chosen by, of train and of val; empty without a probe.
    images_per_second : through the frozen model.
    """

    weights: dict[str, torch.Tensor]
    probe: Probe | None = None
    features: Sequence[torch.Tensor] = ()
    labels: Sequence[torch.Tensor] = ()
    images_per_second: float = 0.0


def within(batches: Iterator[torch.Tensor], images: int, seconds: float | None) -> Iterator[torch.Tensor]:
    """Yield the batches of so many images, if what the first ones took lets them all be done in time.

    Raises
    ------
    UserError : it does not.
    """
    began = 0.0
    for number, batch in enumerate(batches):
        if number == WARM_UP:
            began = time.monotonic()
        if seconds is not None and number == WARM_UP + TIMED:
            expected = (time.monotonic() - began) / TIMED * images / BATCH_SIZE
            if expected > seconds:
                raise UserError(f"one look at all images would take it {expected:.0f} s, of {seconds:.0f} s")
        yield batch


def fit_head(
    config: Any,
    weights: dict[str, torch.Tensor],
    datasets: Sequence[Any],
    device: str,
    workers: int,
    seconds: float | None = None,
) -> Fitted:
    """Return the model of *config* with the weights that are given, and the head fitted to their features.

    Parameters
    ----------
    config : the run's.
    weights : pretrained ones; what does not fit the model is left out, as mmcv leaves it out.
    datasets : train and val, in test mode, of images in bytes.
    seconds : that all features may take; None: as long as it takes.

    Raises
    ------
    UserError : the weights are of another size of image, or the features would take longer.
    """
    num_classes = len(datasets[0].CLASSES)
    model = build_pretrained(config, weights, device)
    normalizer = Normalizer(**config.runner.normalize).to(device)
    if config.model.backbone.get("norm_eval"):
        few = torch.utils.data.Subset(datasets[0], range(min(8, len(datasets[0]))))
        model = absorbed(model, next(image_tensors(few, normalizer, 0, device)))
    layer = inference.classifier_layer(model, num_classes, trained=weights)
    began = time.monotonic()
    try:
        if layer is None:
            raise LogitsElsewhereError
        total = sum(map(len, datasets))
        features = [
            extract(model, layer, within(image_tensors(split, normalizer, workers, device), total, seconds))
            for split in datasets
        ]
    except LogitsElsewhereError:
        logger.warning(
            "%s: its logits are not made by one linear layer alone, so none is fitted: training starts from the"
            " pretrained weights", config.model.head.type
        )  # fmt: skip
        return Fitted(model.state_dict())
    extracted = time.monotonic()
    labels = [torch.as_tensor(np.asarray(split.get_gt_labels()), dtype=torch.int64) for split in datasets]
    balanced = config.runner.get("balanced_validation", False)  # as training measures it: one word for both
    probe = fit_probes(features[0], labels[0], features[1], labels[1], num_classes, balanced)[-1]
    images = sum(map(len, labels))
    speed = images / (extracted - began)
    logger.info(
        "features of %d images in %.1f s (%.0f images/s), fit in %.1f s: penalty %g, %sval accuracy %.2f %%, loss %.4f",
        images, extracted - began, speed, time.monotonic() - extracted, probe.penalty,
        "balanced " if balanced else "", 100 * probe.accuracy, probe.loss,
    )  # fmt: skip
    with torch.no_grad():
        layer.weight.copy_(probe.weight)
        layer.bias.copy_(probe.bias)
    return Fitted(model.state_dict(), probe, features, labels, speed)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.train.fit_head", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the run's config.py")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="pretrained weights")
    parser.add_argument(
        "--pixel-cache",
        type=Path,
        required=True,
        nargs="+",
        metavar="DIR",
        help="what pack_images made of the splits; of several, the one of the config is read",
    )
    parser.add_argument("--train", type=Path, required=True, metavar="FILE", help="annotation file: `path label` lines")
    parser.add_argument("--val", type=Path, required=True, metavar="FILE", help="the same of val, to choose by")
    parser.add_argument("--classes", type=Path, required=True, metavar="FILE", help="one class a line, in label order")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="init.pth")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that read images for a GPU (2)")
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs to hold meanwhile (0: the first one)")
    return parser


def fit(
    config_file: Path,
    checkpoint: Path,
    pixel_caches: Sequence[Path],
    splits: Sequence[Path],
    class_list: Path,
    gpus: int,
    workers: int,
    seconds: float | None = None,
) -> tuple[Fitted, Origin | None]:
    """Return the model of a run with a fitted head, and where its pretrained weights are from.

    Parameters
    ----------
    pixel_caches : among them the one of this config.
    splits : annotation files of train and of val.
    gpus, workers : as the command takes them.
    seconds : as :func:`fit_head` takes them.
    """  # fmt: skip
    site = current_site()
    names = {cache.name: cache for cache in pixel_caches}
    pixel_cache = pixel_caches[0]
    if len(names) > 1:
        pixel_cache = names[(pixel_cache_folder(read_config(config_file)) or Path()).name]
    with (
        claimed_gpus(gpus, os.environ) as claimed,
        staged_pixel_cache(pixel_cache, site.scratch, site.scratch_gb) as pixel_cache,
    ):
        if claimed:
            os.environ["CUDA_VISIBLE_DEVICES"] = claimed[0]  # before torch looks for GPUs; one is enough
        # In this process first: what a data-loader's worker finds would come as a page of traceback.
        PixelCache(pixel_cache)
        os.environ[Variable.PIXEL_CACHE] = str(pixel_cache)
        config = inference.load_config(config_file)
        runner = config.runner
        if runner.device == "cpu":
            inference.keep_freed_memory()
        torch.set_num_threads(runner.threads)
        if runner.deterministic:
            use_deterministic_kernels()
        classes = read_lines(class_list)
        datasets = [
            build_split(config, split, classes, options.get("shuffle_labels", False))
            for split, options in zip(splits, (config.data.train, config.data.val), strict=True)
        ]
        weights, meta = inference.read_checkpoint(checkpoint)
        device = inference.choose_device(runner.device)
        # On a CPU reading from the pixel cache takes less time than processes for it take from the model.
        workers = 0 if device == "cpu" else workers
        return fit_head(config, weights, datasets, device, workers, seconds), Origin.of(meta)


def main(args: argparse.Namespace) -> None:
    """Fit, and write the weights to start from."""
    splits = [args.train, args.val]
    fitted, origin = fit(args.config, args.checkpoint, args.pixel_cache, splits, args.classes, args.gpus, args.workers)
    write_checkpoint(fitted.weights, args.output, origin.meta() if origin else None)


if __name__ == "__main__":
    run_cli(build_parser, main)
