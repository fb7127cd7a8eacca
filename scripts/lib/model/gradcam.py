"""Grad-CAM of any classifier of mmcls: the feature layer is found by running the model, captum does the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from captum.attr import LayerGradCam
from torch import nn

from scripts.mmcls_plugins.hooks import forward_hooks

#: A layer explains a logit that depends on at least this share of its positions, not on a class token alone.
DEPENDENT_POSITIONS = 0.5
#: The most class tokens before the patches that a backbone of mmcls has (DeiT: class and distillation). timm's say it.
MOST_EXTRA_TOKENS = 2
#: The modules by which backbones of mmcls make their grids coarser.
STRIDED = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.Unfold)


class NoFeatureLayer(Exception):
    """The model has no layer with an output by positions of the image. The message says why, in one line."""


@dataclass(frozen=True)
class Axis:
    """Where a layer's positions lie along one side of the image: position i looks around pixel ``first + i * step``.

    Attributes
    ----------
    cells : how many positions.
    first, step : in pixels, whose centres are whole numbers.
    """

    cells: int
    first: float
    step: float

    @classmethod
    def even(cls, cells: int, pixels: int) -> Axis:
        """Return the axis of positions that are centred in equal shares of the side."""
        return cls(cells, (pixels / cells - 1) / 2, pixels / cells)

    def weights(self, pixels: int) -> torch.Tensor:
        """Return the (pixels, cells) weights of linear interpolation between positions; beyond the last, it counts."""
        positions = ((torch.arange(pixels) - self.first) / self.step).clamp(0, self.cells - 1)
        return (1 - (positions[:, None] - torch.arange(self.cells)).abs()).clamp_min(0)


@dataclass(frozen=True)
class FeatureLayer:
    """The layer whose output is explained.

    Attributes
    ----------
    name : as in ``model.named_modules()``.
    grid : rows and columns of its output.
    extra_tokens : tokens before those of the grid, where the output is (n, tokens, channels); None where it is
        (n, channels, rows, columns).
    axes : where the rows and the columns of the grid lie in the image.
    channels_last : the output is (n, rows, columns, channels).
    """

    name: str
    module: nn.Module
    grid: tuple[int, int]
    extra_tokens: int | None
    axes: tuple[Axis, Axis]
    channels_last: bool = False

    def enlarge(self, maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Return maps of shape (n, rows, columns) at *size* (height, width), bilinearly, each divided by its maximum.

        A map of zeros stays one.
        """
        high, wide = (axis.weights(pixels).to(maps) for axis, pixels in zip(self.axes, size, strict=True))
        large = high @ maps @ wide.T
        return large / large.amax(dim=(1, 2), keepdim=True).clamp_min(torch.finfo(large.dtype).tiny)

    def as_map(self, output: torch.Tensor) -> torch.Tensor:
        """Return an output of the layer as (n, channels, rows, columns), without the extra tokens."""
        if self.channels_last:
            return output.permute(0, 3, 1, 2)
        if self.extra_tokens is None:
            return output
        return output[:, self.extra_tokens :].transpose(1, 2).unflatten(2, self.grid)

    def as_output(self, feature_map: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """Return *feature_map* in the layout of the layer, the extra tokens being those of *output*."""
        if self.channels_last:
            return feature_map.permute(0, 2, 3, 1)
        if self.extra_tokens is None:
            return feature_map
        return torch.cat([output[:, : self.extra_tokens], feature_map.flatten(2).transpose(1, 2)], dim=1)


def class_logits(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Return the logits before the softmax, whose gradient does not vanish where the model is sure.

    Parameters
    ----------
    model : a classifier of mmcls.
    images : shape (n, channels, height, width).

    Returns
    -------
    torch.Tensor : shape (n, classes).
    """
    logits = model(images, return_loss=False, softmax=False, post_process=False)
    # Conformer answers with one tensor for each of its two heads; it predicts by their sum.
    return torch.stack(logits).sum(0) if isinstance(logits, list | tuple) else logits


def find_layer(model: nn.Module, images: torch.Tensor) -> FeatureLayer:
    """Return the last layer of *model* with an output by positions of the image, on which the logit depends.

    That is the feature map before the pooling of a CNN. In a vision transformer that classifies by a class token, the
    patch tokens after the last attention no longer matter to the logit; the layer is then the normalisation before the
    last attention. One forward and one backward pass are made, with all outputs in memory: a few images are enough.

    Raises
    ------
    NoFeatureLayer : there is none.
    """
    outputs: dict[str, torch.Tensor] = {}
    calls: Counter[str] = Counter()
    size = (int(images.shape[2]), int(images.shape[3]))
    axes = {"": (Axis(size[0], 0.0, 1.0), Axis(size[1], 0.0, 1.0))}  # "": of the image, then of the last grid

    def record(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        calls[name] += 1
        if isinstance(module, STRIDED):
            axes[""] = axes_after(module, axes[""], inputs[0].shape[2:], output.shape[2:])
        axes[name] = axes[""]
        if isinstance(output, torch.Tensor) and output.requires_grad and len(output) == len(images):
            outputs[name] = output  # in the order in which the layers finish

    modules = {name: module for name, module in model.named_modules() if name}
    # Checkpointing (mmcv calls it with_cp) recomputes activations instead of keeping them, which gradients of layers
    # inside do not allow.
    recomputing = [module for module in modules.values() if getattr(module, "with_cp", False)]
    for module in recomputing:
        module.with_cp = False  # type: ignore[assignment]
    hooks = forward_hooks([(module, partial(record, name)) for name, module in modules.items()])
    try:
        with hooks, torch.enable_grad():
            # Frozen stages have no gradient of their own, but one that passes through them.
            logits = class_logits(model, images.detach().requires_grad_())
            # All classes at once, since the logit of one may depend on nothing here; squared, since the logits of a
            # trained head add up to nearly a constant.
            gradients = torch.autograd.grad(logits.square().sum(), list(outputs.values()), allow_unused=True)
    finally:
        for module in recomputing:
            module.with_cp = True  # type: ignore[assignment]
    extra = extra_tokens(model)
    any_grid = False
    for (name, output), gradient in reversed(list(zip(outputs.items(), gradients, strict=True))):
        # A module that is called several times has no one output.
        layer = _feature_layer(name, modules[name], output, size, extra, axes[name]) if calls[name] == 1 else None
        any_grid |= layer is not None
        if layer is None or gradient is None:
            continue
        dependent = layer.as_map(gradient).ne(0).any(dim=1).float().mean().item()
        if dependent > DEPENDENT_POSITIONS:
            return layer
    raise NoFeatureLayer(
        "the logit depends on no layer that has positions of the image"
        if any_grid
        else "no layer has an output by positions of the image"
    )


def axes_after(
    module: nn.Module, axes: tuple[Axis, Axis], before: Sequence[int], after: Sequence[int]
) -> tuple[Axis, Axis]:
    """Return where the positions of the grid lie behind *module*, if it makes it coarser, else *axes*.

    A padded convolution of stride 2 centres its positions on every second pixel, not between two: after five of them,
    positions of 32 pixels lie 16 pixels further up and to the left than the middles of their shares of the image.

    Parameters
    ----------
    module : one of ``STRIDED``.
    axes : of the last grid; branches start from others.
    before, after : rows and columns of its input and of its output; an Unfold's output tells nothing.
    """
    strides, kernels = _pair(module.stride), _pair(module.kernel_size)
    dilations, paddings = _pair(getattr(module, "dilation", 1)), _pair(module.padding)
    if list(before) != [axis.cells for axis in axes] or strides == (1, 1):
        return axes
    coarser = []
    for dimension, axis in enumerate(axes):
        stride, padding = strides[dimension], paddings[dimension]
        reach = dilations[dimension] * (kernels[dimension] - 1)
        cells = (axis.cells + 2 * padding - reach - 1) // stride + 1
        if isinstance(module, nn.Conv2d) and after[dimension] != cells:
            # As TensorFlow does (EfficientNet): padded to the wanted size in forward, the odd pixel at the end.
            cells = int(after[dimension])
            padding = max(0, (cells - 1) * stride + reach + 1 - axis.cells) // 2
        elif not isinstance(module, nn.Unfold):
            cells = int(after[dimension])  # ceil_mode adds one at the end
        coarser.append(Axis(cells, axis.first + axis.step * (reach / 2 - padding), axis.step * stride))
    return coarser[0], coarser[1]


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _feature_layer(
    name: str,
    module: nn.Module,
    output: torch.Tensor,
    size: tuple[int, int],
    extra: tuple[int | None, bool],
    axes: tuple[Axis, Axis],
) -> FeatureLayer | None:
    """Return the layer where its *output* has positions of an image of *size*, else None.

    *axes*: where the grid lies as far as it could be followed; the one of another grid is not used.
    """
    grid, before, channels_last = (0, 0), None, False
    # Swin and others of timm have the channels last.
    for is_last, first in ((False, 2), (True, 1)) if output.ndim == 4 else ():
        rows, columns = int(output.shape[first]), int(output.shape[first + 1])
        if grid == (0, 0) and rows * columns > 1 and _mismatch(rows, columns, size) < 1:
            grid, channels_last = (rows, columns), is_last
    # Of tokens the normalised ones are used, as is common: their channels are of one scale. timm has its own RmsNorm.
    if output.ndim == 3 and hasattr(module, "normalized_shape"):
        tokens = token_grid(int(output.shape[1]), size, *extra)
        if tokens:
            grid, before = tokens[:2], tokens[2]
    if grid == (0, 0):
        return None
    if grid != tuple(axis.cells for axis in axes):
        axes = (Axis.even(grid[0], size[0]), Axis.even(grid[1], size[1]))
    return FeatureLayer(name, module, grid, before, axes, channels_last)


def extra_tokens(model: nn.Module) -> tuple[int | None, bool]:
    """Return what a backbone says of tokens before those of the patches, None if nothing; and whether that is certain.

    It is of timm's, whose register tokens are among them; mmcls's ViT says 1 even where it was told to have none.
    """
    backbone = getattr(model, "backbone", None)
    certain: int | None = getattr(backbone, "num_prefix_tokens", None)
    return (certain, True) if certain is not None else (getattr(backbone, "num_extra_tokens", None), False)


def token_grid(
    tokens: int, size: tuple[int, int], extra: int | None = None, certain: bool = False
) -> tuple[int, int, int] | None:
    """Return rows, columns and the tokens before them: the grid that is most like an image of *size* in shape.

    Parameters
    ----------
    extra : what the backbone says of its extra tokens. It counts where two grids are equally like the image.
    certain : it has just so many.

    >>> token_grid(197, (224, 224))
    (14, 14, 1)
    >>> token_grid(261, (224, 224), 5, certain=True)
    (16, 16, 5)
    >>> token_grid(140, (224, 160))
    (14, 10, 0)
    """
    known = [] if extra is None else [extra]
    grids = [
        (_mismatch(rows, (tokens - before) // rows, size), rows, (tokens - before) // rows, before)
        for before in dict.fromkeys([*known, *range(0 if certain else MOST_EXTRA_TOKENS + 1)])
        for rows in range(1, tokens - before + 1)
        if (tokens - before) % rows == 0 and tokens - before > 1
    ]
    best = min(grids, key=lambda grid: grid[0], default=None)
    return best[1:] if best and best[0] < 1 else None


def _mismatch(rows: int, columns: int, size: tuple[int, int]) -> float:
    """Return by how many positions the shorter side of a grid misses an image's shape; rounding makes less than 1."""
    height, width = size
    wide = columns - rows * width / height
    high = rows - columns * height / width
    return min(abs(wide), abs(high))


def grad_cam(
    model: nn.Module, layer: FeatureLayer, images: torch.Tensor, classes: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the Grad-CAM of each image for its class, and the class logits.

    Selvaraju et al. (2017), Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, eq. 1 and
    2: the channels of the layer, weighted by the mean gradient of the class logit, summed; what is negative is 0.

    Parameters
    ----------
    model : a classifier of mmcls in evaluation mode.
    images : shape (n, channels, height, width).
    classes : n classes to explain.

    Returns
    -------
    tuple : maps of shape (n, rows, columns), at least 0; logits before the softmax, (n, classes of the model).
    """
    # captum wants the channels second, so it looks at this module, through which the layer's output passes as a map.
    view = nn.Identity()
    logits: list[torch.Tensor] = []

    def pass_through(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        # The graph begins here: nothing before this layer needs memory or a backward pass.
        output = output.detach().requires_grad_()
        return layer.as_output(view(layer.as_map(output)), output)

    def logit(batch: torch.Tensor) -> torch.Tensor:
        result = class_logits(model, batch)
        logits.append(result.detach())
        return result

    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        cam = LayerGradCam(logit, view)
        target = torch.tensor(list(classes), device=images.device)
        with forward_hooks([(layer.module, pass_through)]):
            maps = cam.attribute(images.detach(), target=target, relu_attributions=True)
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
    return maps.detach()[:, 0], logits[-1]
