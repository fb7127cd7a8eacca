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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import nn

from scripts.lib.base.console import run_cli
from scripts.lib.base.files import read_lines
from scripts.lib.base.problems import UserError
from scripts.lib.base.subprocesses import PACKED_VARIABLE
from scripts.lib.cluster.gpus import claimed_cards
from scripts.lib.data.pixel_cache import Pack
from scripts.lib.data.scratch import staged_pack
from scripts.lib.model.balance import class_weights
from scripts.lib.model.checkpoint_file import write_checkpoint
from scripts.lib.model.inference import (
    build_classifier,
    choose_device,
    image_batches,
    keep_freed_memory,
    load_config,
    load_state_dict,
    read_checkpoint,
)
from scripts.lib.settings.site import current_site
from scripts.mmcls_plugins import folding
from scripts.mmcls_plugins.images import Normalizer
from scripts.mmcls_plugins.randomness import derive_seed, seed_generators, use_deterministic_kernels

logger = logging.getLogger(__name__)

#: Weights of the squared norm that are tried, over features of a mean variance of 1, until the loss on val rises. With
#: a few hundred images 1 was chosen (elpv, 280), with 1,839 the one after it. 10 is chosen where the features say next
#: to nothing about the classes, and each fit starts from the solution before it: without 10 all heads have other bits.
PENALTIES = (10.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
#: Iterations of L-BFGS for one penalty; each starts from the solution of the one before, and few use as many.
MAX_ITERATIONS = 100
#: The largest element of the gradient at which a fit has converged; the losses then differ in the fourth digit, and a
#: tenth of it takes twice the evaluations.
TOLERANCE = 5e-4
#: Images at a time through the backbone.
BATCH_SIZE = 32


@dataclass(frozen=True)
class Probe:
    """A fitted linear layer.

    Attributes
    ----------
    weight : float64, (classes, features).
    bias : float64, (classes,).
    penalty : the chosen one of PENALTIES.
    accuracy : top-1 on val, 0 to 1; balanced, the mean of the classes' recalls.
    loss : mean cross-entropy on val; balanced, the mean over the classes.
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


@dataclass(frozen=True)
class Regression:
    """Multinomial logistic regression with any penalty, on features along the eigenvectors of their covariance.

    L-BFGS works on coordinates in which Boehning's bound of the Hessian, (1 - 1/K)/2 X'X/n plus the penalty, is the
    identity ("Multinomial logistic regression algorithm", 1992): some 20 evaluations for any features. The
    eigenvectors of X'X, which serve for all penalties, make it diagonal. SciPy's L-BFGS, since torch's imports the
    compiler, seconds of a fit that takes one.

    Attributes
    ----------
    inputs : float64, (images, features).
    targets : one-hot, float64, (images, classes).
    weights : what each image counts, 1 on average, float64, (images,); None: all the same.
    eigenvalues : of the covariance of *inputs*, float64, (features,).
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor | None
    eigenvalues: torch.Tensor

    def fit(self, penalty: float, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weight, float64, (classes, features), and the bias, (classes,), found from those given."""
        num_classes = len(bias)
        bound = (1 - 1 / num_classes) / 2 * self.eigenvalues.clamp(min=0) + penalty / num_classes
        stretch = bound.rsqrt()
        stretched = (self.inputs * stretch).float()
        decay = penalty / num_classes * stretch.square()

        def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
            inner, shift = unflattened(torch.from_numpy(point), num_classes)
            log_probabilities = ((stretched @ inner.T.float()).double() + shift).log_softmax(1)
            likelihood = mean_of((self.targets * log_probabilities).sum(1), self.weights)
            loss = (decay * inner.square()).sum() / 2 - likelihood
            residual = (log_probabilities.exp() - self.targets) / len(self.targets)
            if self.weights is not None:
                residual *= self.weights[:, None]
            return loss.item(), flattened(residual.T.float() @ stretched + decay * inner, residual.sum(0))

        solution = minimize(
            objective, flattened(weight / stretch, bias), method="L-BFGS-B", jac=True,
            options={"maxiter": MAX_ITERATIONS, "gtol": TOLERANCE, "ftol": 0.0},
        )  # fmt: skip
        inner, bias = unflattened(torch.from_numpy(solution.x), num_classes)
        return inner * stretch, bias


def fit_probes(
    train: torch.Tensor,
    train_labels: torch.Tensor,
    val: torch.Tensor,
    val_labels: torch.Tensor,
    num_classes: int,
    balanced: bool = False,
) -> list[Probe]:
    """Fit multinomial logistic regression for each of PENALTIES, from the largest on, until the loss on val rises.

    The last one returned has the least. The loss, not the accuracy: on a small val split many penalties have the same
    accuracy. For the fit, features are brought to mean 0 and, all by one factor, to a mean variance of 1. Not each by
    its own: those that hardly vary would get weights so large that the first steps of fine-tuning tear the backbone
    apart.

    Parameters
    ----------
    train, val : float64, (images, features).
    train_labels, val_labels : int64, (images,).
    balanced : the classes count the same, in the fit as if the images of the smaller ones came several times, and on
        val, where loss and accuracy are the means over the classes.
    """
    weights = image_weights(train_labels, num_classes) if balanced else None
    val_weights = image_weights(val_labels, num_classes) if balanced else None
    mean, scale = mean_and_scale(train, weights)
    eigenvalues, axes = principal_axes(train, scale, weights)
    inputs, val_inputs = ((features - mean) / scale @ axes for features in (train, val))
    targets = nn.functional.one_hot(train_labels, num_classes).double()
    regression = Regression(inputs, targets, weights, eigenvalues)
    weight = torch.zeros(num_classes, train.shape[1], dtype=torch.float64)  # along the axes
    bias = torch.zeros(num_classes, dtype=torch.float64)
    probes: list[Probe] = []
    with single_thread():
        for penalty in PENALTIES:
            weight, bias = regression.fit(penalty, weight, bias)
            accuracy, loss = accuracy_and_loss(val_inputs @ weight.T + bias, val_labels, val_weights)
            kind = "balanced " if balanced else ""
            logger.info("penalty %g: %sval accuracy %.2f %%, val loss %.4f", penalty, kind, 100 * accuracy, loss)
            if probes and loss >= probes[-1].loss:
                break
            layer = weight @ axes.T / scale
            probes.append(Probe(layer, bias - layer @ mean, penalty, accuracy, loss))
    return probes


def mean_and_scale(features: torch.Tensor, weights: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean of each feature, float64, (features,), and the root of their mean variance, a scalar.

    Parameters
    ----------
    features : float64, (images, features).
    weights : as in :class:`Regression`.
    """
    if weights is None:
        return features.mean(0), features.std(0, correction=0).square().mean().sqrt().clamp(min=1e-12)
    mean = weights @ features / len(features)
    return mean, (weights @ (features - mean).square() / len(features)).mean().sqrt().clamp(min=1e-12)


def principal_axes(
    features: torch.Tensor, scale: torch.Tensor, weights: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return eigenvalues, float64, (features,), and eigenvectors, (features, features), of the features' covariance.

    They are computed in float32, in half the time of float64: they make the search short, and the solution is the same
    for any.
    """
    single_weights = None if weights is None else weights.float()
    covariance = torch.cov((features.T / scale).float(), correction=0, aweights=single_weights)
    eigenvalues, axes = torch.linalg.eigh(covariance)
    return eigenvalues.double(), axes.double()


@contextmanager
def single_thread() -> Iterator[None]:
    """Let torch compute in one thread inside the block: waking the others takes longer than an evaluation, some ms."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def accuracy_and_loss(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> tuple[float, float]:
    """Return top-1 accuracy, 0 to 1, and mean cross-entropy, of images of which each counts as much as its weight.

    Parameters
    ----------
    logits : float64, (images, classes).
    labels : int64, (images,).
    weights : as in :class:`Regression`.
    """
    if weights is None:
        loss = nn.functional.cross_entropy(logits, labels).item()
    else:
        loss = mean_of(nn.functional.cross_entropy(logits, labels, reduction="none"), weights).item()
    return mean_of((logits.argmax(1) == labels).double(), weights).item(), loss


def image_weights(labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Return what each image counts where the classes count the same: float64, (images,), 1 on average."""
    counts = torch.bincount(labels, minlength=num_classes)
    return torch.tensor(class_weights(counts.tolist()), dtype=torch.float64)[labels]


def mean_of(values: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Return the mean of *values*, (images,), of which each counts as much as its weight, or all the same."""
    return values.mean() if weights is None else (weights * values).mean()


def flattened(weight: torch.Tensor, bias: torch.Tensor) -> np.ndarray:
    """Return a linear layer as one vector, for SciPy."""
    return torch.cat([weight.flatten(), bias]).numpy()


def unflattened(point: torch.Tensor, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weight, (classes, features), and the bias, (classes,), of :func:`flattened`."""
    return point[:-num_classes].view(num_classes, -1), point[-num_classes:]


def build_split(config: Any, split: Path, classes: Sequence[str], shuffle_labels: bool = False) -> Any:
    """Return the images of an annotation file as the val split of *config* shows them: packed, in bytes.

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
    for _, images, failures in image_batches(dataset, BATCH_SIZE, workers, device):
        assert images is not None and not failures, "a pack holds whole images only"
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
    seed_generators(derive_seed(config.seed, "warm_start"))
    model = build_classifier(copy.deepcopy(config.model))
    model.init_weights()
    for name, tensor in model.state_dict().items():
        if name.startswith("backbone.") and name in weights and weights[name].shape != tensor.shape:
            given, wanted = ("x".join(map(str, shape)) for shape in (weights[name].shape, tensor.shape))
            raise UserError(
                f"the weights do not fit the model: {name} is {given}, not {wanted}; set image_size to that of the"
                " weights, mostly 224, or choose other weights"
            )
    load_state_dict(model, weights, strict=False, logger=quiet)
    return model.to(device, memory_format=torch.channels_last).eval()


def absorbed(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Return *model* with its frozen normalisations absorbed and folded; as it was, where that changes its scores.

    It does where something else than the normalisation reads the output of a convolution too.
    """
    before = copy.deepcopy(model)
    expected = folding.scores_of(model, images)
    pairs = folding.normalised_convolutions(model, images)
    folding.absorb(pairs)
    if not folding.same_scores(folding.scores_of(model, images), expected):
        return before
    folding.compute_folded(pairs)
    return model


def warm_start(
    config: Any, weights: dict[str, torch.Tensor], datasets: Sequence[Any], device: str, workers: int
) -> dict[str, torch.Tensor]:
    """Return all weights of the model of *config*: those given, and the head fitted to their features.

    Parameters
    ----------
    config : the run's.
    weights : pretrained ones; what does not fit the model is left out, as mmcv leaves it out.
    datasets : train and val, in test mode, of images in bytes.

    Raises
    ------
    UserError : the weights are of another size of image.
    """
    num_classes = len(datasets[0].CLASSES)
    model = build_pretrained(config, weights, device)
    normalizer = Normalizer(**config.runner.normalize).to(device)
    if config.model.backbone.get("norm_eval"):
        few = torch.utils.data.Subset(datasets[0], range(min(8, len(datasets[0]))))
        model = absorbed(model, next(image_tensors(few, normalizer, 0, device)))
    layer = last_layer(model, weights, num_classes)
    began = time.monotonic()
    try:
        if layer is None:
            raise ScoresElsewhereError
        features = [extract(model, layer, image_tensors(split, normalizer, workers, device)) for split in datasets]
    except ScoresElsewhereError:
        logger.warning(
            "%s: its class scores are not made by one linear layer alone, so none is fitted: training starts from the"
            " pretrained weights", config.model.head.type
        )  # fmt: skip
        return model.state_dict()
    extracted = time.monotonic()
    labels = [torch.as_tensor(np.asarray(split.get_gt_labels()), dtype=torch.int64) for split in datasets]
    balanced = config.runner.get("balanced_validation", False)  # as training measures it: one word for both
    probe = fit_probes(features[0], labels[0], features[1], labels[1], num_classes, balanced)[-1]
    images = sum(map(len, labels))
    logger.info(
        "features of %d images in %.1f s (%.0f images/s), fit in %.1f s: penalty %g, %sval accuracy %.2f %%, loss %.4f",
        images, extracted - began, images / (extracted - began), time.monotonic() - extracted, probe.penalty,
        "balanced " if balanced else "", 100 * probe.accuracy, probe.loss,
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
    parser.add_argument("--packed", type=Path, required=True, metavar="DIR", help="what pack_images made of the splits")
    parser.add_argument("--train", type=Path, required=True, metavar="FILE", help="annotation file: `path label` lines")
    parser.add_argument("--val", type=Path, required=True, metavar="FILE", help="the same of val, to choose by")
    parser.add_argument("--classes", type=Path, required=True, metavar="FILE", help="one class a line, in label order")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="init.pth")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes that read images for a GPU (2)")
    parser.add_argument("--cards", type=int, default=0, metavar="N", help="GPUs to hold meanwhile (0: the first one)")
    return parser


def main(args: argparse.Namespace) -> None:
    """Fit, and write the weights to start from."""
    with claimed_cards(args.cards, os.environ) as cards, staged_pack(args.packed, current_site()) as packed:
        if cards:
            os.environ["CUDA_VISIBLE_DEVICES"] = cards[0]  # before torch looks for cards; one is enough
        Pack(packed)  # in this process first: what a data-loader's worker finds would come as a page of traceback
        os.environ[PACKED_VARIABLE] = str(packed)
        config = load_config(args.config)
        runner = config.runner
        if runner.device == "cpu":
            keep_freed_memory()
        torch.set_num_threads(runner.threads)
        if runner.deterministic:
            use_deterministic_kernels()
        classes = read_lines(args.classes)
        datasets = [
            build_split(config, split, classes, options.get("shuffle_labels", False))
            for split, options in ((args.train, config.data.train), (args.val, config.data.val))
        ]
        weights, _ = read_checkpoint(args.checkpoint)
        device = choose_device(runner.device)
        # On a CPU reading from the pack takes less time than processes for it take from the model.
        workers = 0 if device == "cpu" else args.workers
        write_checkpoint(warm_start(config, weights, datasets, device, workers), args.output)


if __name__ == "__main__":
    run_cli(build_parser, main)
