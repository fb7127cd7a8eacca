"""Lets mmcls's MobileNetV2 pad as Keras's does, so that the two can be compared to the last pixel."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

#: mmcls's normalization of pixels (RGB, 0-255), written out again: the tests do not trust the code under test.
MEAN = torch.tensor([123.675, 116.28, 103.53], dtype=torch.float64)[:, None, None]
STD = torch.tensor([58.395, 57.12, 57.375], dtype=torch.float64)[:, None, None]


def normalized(pixels: torch.Tensor) -> torch.Tensor:
    """Return pixels (n, 3, height, width) of 0-255 as mmcls's configs normalize them."""
    return ((pixels - MEAN) / STD).to(pixels.dtype)


def pad_like_keras(backbone: torch.nn.Module) -> None:
    """Make the convolutions of stride 2 pad at the bottom and right only, the first with mid-grey."""
    grey = ((127.5 - MEAN) / STD)[None]

    def pad(fill: torch.Tensor | None) -> Callable:
        def hook(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            padded = F.pad(inputs[0], (0, 1, 0, 1))
            if fill is not None:
                padded[..., -1:, :], padded[..., -1:] = fill.to(padded.dtype), fill.to(padded.dtype)
            return (padded,)

        return hook

    for module in backbone.modules():
        if isinstance(module, torch.nn.Conv2d) and module.stride == (2, 2):
            module.padding = (0, 0)
            module.register_forward_pre_hook(pad(grey if module.in_channels == 3 else None))


def largest_difference(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the largest difference as a fraction of the largest value."""
    return float((first - second).abs().max() / second.abs().max())
