"""Batch normalisation whose statistics are frozen, done by the convolution before it: the same function, faster.

With frozen statistics, normalisation multiplies each channel by a number and adds one. Both can stand in the
convolution: absorbed into its weights, the normalisation is left with a gain of 1 and a shift, and the shift is the
convolution's bias while the model computes. Names and shapes of all weights stay, so that what is saved is loaded and
computed by stock mmcls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from mmcv.cnn.bricks import wrappers
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from scripts.mmcls_plugins.hooks import forward_hooks

#: A convolution, and the normalisation of its output.
Pair = tuple[nn.Conv2d, _BatchNorm]
#: Convolutions that compute nothing but the convolution; others, as deformable ones, are left alone.
PLAIN = (nn.Conv2d, wrappers.Conv2d)


def normalised_convolutions(model: nn.Module, images: torch.Tensor) -> list[Pair]:
    """Return each convolution whose output goes into a batch normalisation, with that one.

    Only pairs that are each other's only partner: elsewhere one change would have to fit several.

    Parameters
    ----------
    model : one of mmcls's classifiers.
    images : any, as the model takes them: by passing them it is seen which convolution feeds which normalisation.
    """
    made: dict[int, tuple[nn.Conv2d, torch.Tensor]] = {}
    pairs: list[Pair] = []

    def note_output(layer: nn.Module, _inputs: Any, result: torch.Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        made[id(result)] = layer, result  # the tensor is kept, so that no other gets its id

    def note_input(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(layer, _BatchNorm)
        if id(inputs[0]) in made and layer.track_running_stats and layer.affine:
            pairs.append((made[id(inputs[0])][0], layer))

    convolutions = [module for module in model.modules() if type(module) in PLAIN]
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    with forward_hooks([(module, note_output) for module in convolutions], [(norm, note_input) for norm in norms]):
        probabilities_of(model, images)
    uses = Counter(id(module) for pair in pairs for module in pair)
    return [pair for pair in pairs if all(uses[id(module)] == 1 for module in pair)]


@torch.no_grad()
def absorb(pairs: Iterable[Pair]) -> None:
    """Put the gain of each normalisation into the convolution before it, in place; the normalisation keeps a shift.

    ``gamma * (w * x - mean) / sqrt(var + eps) + beta`` becomes ``w' * x + beta'``, with gamma' = 1, mean' = 0 and
    var' = 1 - eps. It also makes fine-tuning well-conditioned: with frozen statistics a gradient step on w is amplified
    by gamma / sqrt(var + eps) twice, and a channel that has died in pretraining (w and var near 0) would get into
    everything after one step.
    """
    for convolution, norm in pairs:
        assert norm.running_var is not None and norm.running_mean is not None
        gain = norm.weight * (norm.running_var + norm.eps).rsqrt()
        convolution.weight.mul_(gain.view(-1, *[1] * (convolution.weight.dim() - 1)))
        if convolution.bias is not None:
            convolution.bias.mul_(gain)
        norm.bias.sub_(norm.running_mean * gain)
        norm.weight.fill_(1)
        norm.running_mean.zero_()
        norm.running_var.fill_(1 - norm.eps)


def is_absorbed(norm: _BatchNorm) -> bool:
    """Tell whether a normalisation with frozen statistics does nothing but add its bias."""
    assert norm.running_var is not None and norm.running_mean is not None
    return bool(
        (norm.weight == 1).all()
        and (norm.running_mean == 0).all()
        and torch.equal(norm.running_var, torch.full_like(norm.running_var, 1 - norm.eps))
    )


def compute_folded(pairs: Iterable[Pair]) -> int:
    """Let each convolution add the bias of its absorbed normalisation, which then passes on what it gets.

    The forward methods of these modules are replaced, nothing else: the bias stays the normalisation's. Its weight gets
    no gradient any more, and stays 1.

    Returns
    -------
    int : pairs that were folded; those that are not absorbed are left alone.
    """
    count = 0
    for convolution, norm in pairs:
        if is_absorbed(norm):
            convolution.forward = partial(_convolve_and_shift, convolution, norm)  # type: ignore[method-assign]
            norm.forward = partial(_pass_on, norm)  # type: ignore[method-assign]
            count += 1
    return count


def _convolve_and_shift(convolution: nn.Conv2d, norm: _BatchNorm, images: torch.Tensor) -> torch.Tensor:
    bias = norm.bias if convolution.bias is None else convolution.bias + norm.bias
    return convolution._conv_forward(images, convolution.weight, bias)


def _pass_on(norm: _BatchNorm, images: torch.Tensor) -> torch.Tensor:
    # timm's BatchNormAct2d has the activation that follows in it.
    for name in ("drop", "act"):
        if isinstance(layer := getattr(norm, name, None), nn.Module):
            images = layer(images)
    return images


@torch.no_grad()
def probabilities_of(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the probabilities that a classifier of mmcls gives *images*, in eval mode; its mode stays what it was."""
    training = model.training
    model.eval()
    try:
        return model(img=images, return_loss=False, post_process=False)
    finally:
        model.train(training)


def same_probabilities(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Tell whether two models predict the same, but for rounding."""
    return torch.allclose(first, second, rtol=1e-3, atol=1e-5)
