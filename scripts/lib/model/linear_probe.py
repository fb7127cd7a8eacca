"""A linear probe: multinomial logistic regression on the features of a frozen backbone, its penalty chosen on val."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import nn

from scripts.lib.base.problems import UserError
from scripts.lib.model.config_patches import class_weights
from scripts.lib.model.fast_recipe import FAST
from scripts.mmcls_plugins.hooks import forward_hooks

logger = logging.getLogger(__name__)
#: Numbers that a block of logits holds; those of all images, of 2,000 classes, would take more than the features do.
BLOCK_NUMBERS = 2_000_000
#: By how much products of eigenvectors, computed in float32, may differ from 0, and from 1 of one with itself.
ORTHOGONAL = 1e-3


@dataclass(frozen=True)
class Probe:
    """A fitted linear layer.

    Attributes
    ----------
    weight : float64, (classes, features).
    bias : float64, (classes,).
    penalty : the chosen one of FAST.penalties.
    accuracy : top-1 on val, 0 to 1; balanced, the mean of the classes' recalls.
    loss : mean cross-entropy on val; balanced, the mean over the classes.
    """

    weight: torch.Tensor
    bias: torch.Tensor
    penalty: float
    accuracy: float
    loss: float


class LogitsElsewhereError(Exception):
    """What the layer gives is not what the model predicts by."""


def extract(model: nn.Module, layer: nn.Linear, batches: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return what *layer* gets for all images: features, float64 of shape (images, features), on the CPU.

    Raises
    ------
    LogitsElsewhereError : the model's probabilities are not the softmax of what *layer* gives.
    UserError : a feature is no finite number.
    """
    features: list[torch.Tensor] = []
    logits: list[torch.Tensor] = []

    def note(_layer: nn.Module, inputs: tuple[torch.Tensor], result: torch.Tensor) -> None:
        features.append(inputs[0].detach().cpu().double())
        logits.append(result)

    with torch.no_grad(), forward_hooks([(layer, note)]):
        for images in batches:
            logits.clear()
            predicted = model(img=images, return_loss=False, post_process=False)
            if features and not features[-1].isfinite().all():
                raise UserError("the features of these weights are not finite numbers", "take other weights")
            if len(logits) != 1 or features[-1].dim() != 2 or not torch.equal(predicted, logits[0].softmax(1)):
                raise LogitsElsewhereError
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
    labels : int64, (images,).
    weights : what each image counts, 1 on average, float64, (images,); None: all the same.
    eigenvalues : of the covariance of *inputs*, float64, (features,).
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor | None
    eigenvalues: torch.Tensor

    def fit(self, penalty: float, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the weight, float64, (classes, features), and the bias, (classes,), found from those given."""
        num_classes = len(bias)
        bound = (1 - 1 / num_classes) / 2 * self.eigenvalues.clamp(min=0) + penalty / num_classes
        stretch = bound.rsqrt()
        stretched = (self.inputs * stretch).float()
        decay = penalty / num_classes * stretch.square()

        blocks = torch.arange(len(self.labels)).split(max(1, BLOCK_NUMBERS // num_classes))

        def objective(point: np.ndarray) -> tuple[float, np.ndarray]:
            inner, shift = unflattened(torch.from_numpy(point), num_classes)
            of_labels = []
            slope, shift_slope = decay * inner, torch.zeros_like(shift)
            for rows in blocks:
                logits = (stretched[rows] @ inner.T.float()).double().add_(shift)
                log_probabilities = logits.log_softmax(1)
                at_labels = torch.arange(len(rows)), self.labels[rows]
                of_labels.append(log_probabilities[at_labels])
                residual = log_probabilities.exp_()
                residual[at_labels] -= 1
                residual /= len(self.labels)
                if self.weights is not None:
                    residual *= self.weights[rows, None]
                slope += residual.T.float() @ stretched[rows]
                shift_slope += residual.sum(0)
            loss = (decay * inner.square()).sum() / 2 - mean_of(torch.cat(of_labels), self.weights)
            return loss.item(), flattened(slope, shift_slope)

        solution = minimize(
            objective, flattened(weight / stretch, bias), method="L-BFGS-B", jac=True,
            options={"maxiter": FAST.max_iterations, "gtol": FAST.tolerance, "ftol": 0.0},
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
    penalties: Sequence[float] = FAST.penalties,
) -> list[Probe]:
    """Fit multinomial logistic regression for each of *penalties*, from the largest on, until the loss on val rises.

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
    regression = Regression(inputs, train_labels, weights, eigenvalues)
    weight = torch.zeros(num_classes, train.shape[1], dtype=torch.float64)  # along the axes
    bias = torch.zeros(num_classes, dtype=torch.float64)
    probes: list[Probe] = []
    with single_thread():
        for penalty in penalties:
            weight, bias = regression.fit(penalty, weight, bias)
            accuracy, loss = accuracy_and_loss(val_inputs @ weight.T + bias, val_labels, val_weights)
            kind = "balanced " if balanced else ""
            logger.debug("penalty %g: %sval accuracy %.2f %%, val loss %.4f", penalty, kind, 100 * accuracy, loss)
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
    for any. Of an untrained network, with many constant features, LAPACK was seen to fail there, or to return NaN
    without a word, in some numbers of threads: then they are computed in float64.
    """
    for precision in (torch.float32, torch.float64):
        single_weights = None if weights is None else weights.to(precision)
        covariance = torch.cov((features.T / scale).to(precision), correction=0, aweights=single_weights)
        try:
            eigenvalues, axes = torch.linalg.eigh(covariance)
        except torch.linalg.LinAlgError:
            continue
        if eigenvalues.isfinite().all() and (axes.T @ axes - torch.eye(len(axes))).abs().max() < ORTHOGONAL:
            return eigenvalues.double(), axes.double()
    raise UserError("no eigenvectors of these features' covariance were found: a fault of LAPACK", "report it")


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
