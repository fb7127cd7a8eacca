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
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from scripts.console import run_cli
from scripts.data.scratch import staged
from scripts.evaluate.inference import (
    build_classifier,
    choose_device,
    image_batches,
    keep_freed_memory,
    load_config,
    load_state_dict,
    read_checkpoint,
    unreadable,
)
from scripts.evaluate.predict_images import test_dataset
from scripts.files import read_lines
from scripts.mmcls_plugins.randomness import derive_seed, seed_generators
from scripts.sites import current_site
from scripts.train.cards import claimed_cards
from scripts.train.checkpoint_file import write_checkpoint

logger = logging.getLogger(__name__)

#: Weights of the squared norm that are tried, over features of a mean variance of 1. With a few hundred images the
#: largest was chosen (elpv, 280), with 1,839 the one after it: more data may be needed to see the right range.
PENALTIES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
#: Iterations of L-BFGS for one penalty; each starts from the solution of the one before, and few use as many.
MAX_ITERATIONS = 100
#: Images at a time through the backbone.
BATCH_SIZE = 64


@dataclass(frozen=True)
class Probe:
    """A fitted linear layer.

    Attributes
    ----------
    weight : float64, (classes, features).
    bias : float64, (classes,).
    penalty : the chosen one of PENALTIES.
    accuracy : top-1 on val, 0 to 1.
    loss : mean cross-entropy on val.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    penalty: float
    accuracy: float
    loss: float


def last_layer(model: nn.Module, weights: Mapping[str, torch.Tensor], num_classes: int) -> nn.Linear | None:
    """Return the linear layer of the head of *model* that makes the class scores, if features are all it gets.

    None where there is not exactly one (VGG has it in its backbone, a distilled DeiT has two), and where the head has
    other layers that *weights* do not bring: there is nothing to fit to what layers without training make.
    """
    head = getattr(model, "head", None)
    named = {f"head.{name}": module for name, module in head.named_modules()} if head is not None else {}
    found = {
        name: module
        for name, module in named.items()
        if isinstance(module, nn.Linear) and module.out_features == num_classes
    }
    if len(found) != 1:
        return None
    [(name, layer)] = found.items()
    for key, tensor in model.state_dict().items():
        in_head = key.startswith("head.") and not key.startswith(f"{name}.")
        if in_head and (key not in weights or weights[key].shape != tensor.shape):
            return None
    return layer


def condition(model: nn.Module, images: torch.Tensor) -> int:
    """Scale the convolutions before frozen batch normalisation so that each channel has a running variance of 1.

    The same function in other numbers: ``gamma * (w * x - mean) / sqrt(var + eps) + beta`` keeps its value when w, mean
    and sqrt(var + eps) are divided by the same. With frozen statistics a gradient step on w is amplified by
    1 / sqrt(var + eps) twice; a channel that has died in pretraining (w and var near 0) would get into everything after
    one step.

    Parameters
    ----------
    model : in eval mode; changed in place.
    images : any, as the model takes them: by passing them it is seen which convolution feeds which normalisation.

    Returns
    -------
    int : layers of normalisation that were conditioned.
    """
    made: dict[int, tuple[nn.Conv2d, torch.Tensor]] = {}
    pairs: list[tuple[nn.Conv2d, nn.modules.batchnorm._BatchNorm]] = []

    def note_output(layer: nn.Module, _given: Any, result: torch.Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        made[id(result)] = layer, result  # the tensor is kept, so that no other gets its id

    def note_input(layer: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
        if id(given[0]) in made and layer.track_running_stats and layer.affine:
            pairs.append((made[id(given[0])][0], layer))

    handles = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(note_output))
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            handles.append(module.register_forward_pre_hook(note_input))
    with torch.no_grad():
        model(img=images, return_loss=False, post_process=False)
    for handle in handles:
        handle.remove()
    uses = Counter(id(module) for pair in pairs for module in pair)
    alone = [pair for pair in pairs if all(uses[id(module)] == 1 for module in pair)]  # else one scale must fit several
    with torch.no_grad():
        for convolution, layer in alone:
            assert layer.running_var is not None and layer.running_mean is not None
            scale = (layer.running_var + layer.eps).rsqrt()
            convolution.weight.mul_(scale.view(-1, *[1] * (convolution.weight.dim() - 1)))
            if convolution.bias is not None:
                convolution.bias.mul_(scale)
            layer.running_mean.mul_(scale)
            layer.running_var.fill_(1 - layer.eps)
    return len(alone)


class ScoresElsewhereError(Exception):
    """What the layer gives is not what the model predicts by."""


def extract(model: nn.Module, layer: nn.Linear, batches: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return what *layer* gets for all images: features, float64 of shape (images, features), on the CPU.

    Raises
    ------
    ScoresElsewhereError : the model's probabilities are not the softmax of what *layer* gives.
    """
    features: list[torch.Tensor] = []
    scores: list[torch.Tensor] = []

    def note(_layer: nn.Module, given: tuple[torch.Tensor], result: torch.Tensor) -> None:
        features.append(given[0].detach().cpu().double())
        scores.append(result)

    handle = layer.register_forward_hook(note)
    try:
        for images in batches:
            scores.clear()
            with torch.no_grad():
                predicted = model(img=images, return_loss=False, post_process=False)
            if len(scores) != 1 or features[-1].dim() != 2 or not torch.equal(predicted, scores[0].softmax(1)):
                raise ScoresElsewhereError
    finally:
        handle.remove()
    return torch.cat(features)


def fit_probe(
    train: torch.Tensor, train_labels: torch.Tensor, val: torch.Tensor, val_labels: torch.Tensor, num_classes: int
) -> Probe:
    """Fit multinomial logistic regression for each of PENALTIES and return the one with the least loss on val.

    The loss, not the accuracy: on a small val split many penalties have the same accuracy. For the fit, features are
    brought to mean 0 and, all by one factor, to a mean variance of 1. Not each by its own: those that hardly vary would
    get weights so large that the first steps of fine-tuning tear the backbone apart.

    Parameters
    ----------
    train, val : float64, (images, features).
    train_labels, val_labels : int64, (images,).
    """
    mean, scale = train.mean(0), train.std(0, correction=0).square().mean().sqrt().clamp(min=1e-12)
    scaled, scaled_val = (train - mean) / scale, (val - mean) / scale
    weight = torch.zeros(num_classes, train.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    best: Probe | None = None
    for penalty in PENALTIES:
        optimizer = torch.optim.LBFGS(
            [weight, bias], max_iter=MAX_ITERATIONS, tolerance_grad=1e-5, history_size=10, line_search_fn="strong_wolfe"
        )

        def objective(optimizer: torch.optim.LBFGS = optimizer, penalty: float = penalty) -> torch.Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(scaled @ weight.T + bias, train_labels)
            loss = loss + penalty / 2 * weight.square().sum() / num_classes
            loss.backward()
            return loss

        optimizer.step(objective)  # type: ignore[arg-type]
        with torch.no_grad():
            scores = scaled_val @ weight.T + bias
            loss = nn.functional.cross_entropy(scores, val_labels).item()
            accuracy = (scores.argmax(1) == val_labels).double().mean().item()
            logger.info("penalty %g: val accuracy %.2f %%, val loss %.4f", penalty, 100 * accuracy, loss)
            if best is None or loss < best.loss:
                layer = weight / scale
                best = Probe(layer.clone(), bias - layer @ mean, penalty, accuracy, loss)
    assert best is not None
    return best


def image_tensors(dataset: Any, batch_size: int, workers: int, device: str) -> Iterator[torch.Tensor]:
    """Yield the images of *dataset* in its order: float32, (batch, 3, height, width).

    Raises
    ------
    UserError : an image cannot be read.
    """
    for _, images, failures in image_batches(dataset, batch_size, workers, device):
        for index, reason in failures:
            info = dataset.data_infos[index]
            name = Path(info["img_prefix"]) / info["img_info"]["filename"]
            raise unreadable(name, reason)
        assert images is not None
        yield images.to(device, non_blocking=True, memory_format=torch.channels_last)


def build_pretrained(config: Any, weights: dict[str, torch.Tensor], device: str) -> nn.Module:
    """Return the model of *config* with those of *weights* that fit; the rest is drawn by the run's seed."""
    # mmcv would tell of every tensor how it was drawn; fetch_checkpoint has told what of the weights fits.
    quiet = logging.getLogger("mmcv")
    quiet.setLevel(logging.ERROR)
    seed_generators(derive_seed(config.seed, "warm_start"))
    model = build_classifier(copy.deepcopy(config.model))
    model.init_weights()
    load_state_dict(model, weights, strict=False, logger=quiet)
    return model.to(device, memory_format=torch.channels_last).eval()


def warm_start(
    config: Any, weights: dict[str, torch.Tensor], datasets: Sequence[Any], device: str, workers: int
) -> dict[str, torch.Tensor]:
    """Return all weights of the model of *config*: those given, and the head fitted to their features.

    Parameters
    ----------
    config : the run's.
    weights : pretrained ones; what does not fit the model is left out, as mmcv leaves it out.
    datasets : train and val, in test mode.

    Raises
    ------
    UserError : an image cannot be read.
    """
    num_classes = len(datasets[0].CLASSES)
    model = build_pretrained(config, weights, device)
    if config.model.backbone.get("norm_eval"):
        condition(model, next(image_tensors(datasets[0], 1, 0, device)))
    layer = last_layer(model, weights, num_classes)
    began = time.monotonic()
    try:
        if layer is None:
            raise ScoresElsewhereError
        features = [extract(model, layer, image_tensors(one, BATCH_SIZE, workers, device)) for one in datasets]
    except ScoresElsewhereError:
        logger.warning(
            "%s: its class scores are not made by one linear layer alone, so none is fitted: training starts from the"
            " pretrained weights", config.model.head.type
        )  # fmt: skip
        return model.state_dict()
    extracted = time.monotonic()
    labels = [torch.as_tensor(np.asarray(one.get_gt_labels()), dtype=torch.int64) for one in datasets]
    probe = fit_probe(features[0], labels[0], features[1], labels[1], num_classes)
    fitted = time.monotonic()
    images = sum(map(len, labels))
    logger.info(
        "features of %d images in %.1f s (%.0f images/s), fit in %.1f s: penalty %g, val accuracy %.2f %%, loss %.4f",
        images, extracted - began, images / (extracted - began), fitted - extracted, probe.penalty,
        100 * probe.accuracy, probe.loss,
    )  # fmt: skip
    with torch.no_grad():
        layer.weight.copy_(probe.weight)
        layer.bias.copy_(probe.bias)
    return model.state_dict()


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.train.warm_start", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the run's config.py")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="pretrained weights")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="the folder that the splits refer to")
    parser.add_argument("--train", type=Path, required=True, metavar="FILE", help="annotation file: `path label` lines")
    parser.add_argument("--val", type=Path, required=True, metavar="FILE", help="the same of val, to choose by")
    parser.add_argument("--classes", type=Path, required=True, metavar="FILE", help="one class a line, in label order")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="init.pth")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that read images (2)")
    parser.add_argument("--cards", type=int, default=0, metavar="N", help="GPUs to hold meanwhile (0: the first one)")
    return parser


def main(args: argparse.Namespace) -> None:
    """Fit, and write the weights to start from."""
    splits = [args.train, args.val]
    with claimed_cards(args.cards, os.environ) as cards, staged(args.images, splits, current_site()) as images:
        if cards:
            os.environ["CUDA_VISIBLE_DEVICES"] = cards[0]  # before torch looks for cards; one is enough
        config = load_config(args.config)
        runner = config.runner
        if runner.device == "cpu":
            keep_freed_memory()
        torch.set_num_threads(runner.threads)
        torch.use_deterministic_algorithms(runner.deterministic, warn_only=True)
        classes = read_lines(args.classes)
        datasets = [test_dataset(copy.deepcopy(config), images, split, classes) for split in splits]
        weights, _ = read_checkpoint(args.checkpoint)
        write_checkpoint(warm_start(config, weights, datasets, choose_device(runner.device), args.workers), args.output)


if __name__ == "__main__":
    run_cli(build_parser, main)
