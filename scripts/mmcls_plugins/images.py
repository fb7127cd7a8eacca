"""Images on their way into the model: read from a pixel cache, normalised where the model is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcls.datasets import PIPELINES
from torch import nn

from scripts.lib.base import ranges
from scripts.lib.base.environment import Variable
from scripts.lib.data.decoding import Undecodable, decode_image
from scripts.lib.data.pixel_cache import PixelCache
from scripts.lib.data.reading import FULL_DEPTH, WHITE, Reading
from scripts.lib.data.squares import FITS, make_square


@PIPELINES.register_module()
class LoadImage:
    """``LoadImageFromFile`` with the same pixels in every environment; the keys of its result are the same.

    Parameters
    ----------
    color_type : ``color``, or ``grayscale`` for one channel.
    bit_depth : bits that images of 16 bits a channel use.
    background : what shows through where an image is transparent: red, green, blue, 0 to 255.
    """

    def __init__(
        self, color_type: str = "color", bit_depth: int = FULL_DEPTH, background: Sequence[int] = WHITE
    ) -> None:
        self.color_type = color_type
        self.reading = Reading.of_arguments({"bit_depth": bit_depth, "background": background})

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the image, uint8 of shape (height, width, 3), blue, green, red; of one channel (height, width).

        Raises
        ------
        OSError : it cannot be read.
        """
        name = results["img_info"]["filename"]
        path = Path(results.get("img_prefix") or "", name)
        try:
            image = decode_image(ranges.read_bytes(path), self.color_type == "grayscale", reading=self.reading)
        except Undecodable as error:
            raise OSError(str(error)) from error
        results |= {"filename": str(path), "ori_filename": name, "img": image}
        n_channels = 1 if image.ndim == 2 else 3
        plain = {"mean": np.zeros(n_channels, np.float32), "std": np.ones(n_channels, np.float32), "to_rgb": False}
        return results | {"img_shape": image.shape, "ori_shape": image.shape, "img_norm_cfg": plain}

    def __repr__(self) -> str:
        return f"LoadImage(color_type={self.color_type!r}, {self.reading})"


@PIPELINES.register_module()
class MakeSquare:
    """All of an image as a square, where ``CenterCrop`` takes the middle (`fit: pad` and `fit: squash`).

    Parameters
    ----------
    fit : ``pad`` (bars beside it) or ``squash`` (other proportions).
    size : of the square's side, in pixels; None: that of the image's longer side, but not more than *most*.
    most : pixels; for training, whose crops are resized after this.
    background : of the bars: red, green, blue, 0 to 255.
    interpolation : a filter of Pillow's.
    """

    def __init__(
        self,
        fit: str,
        size: int | None = None,
        most: int | None = None,
        background: Sequence[int] = WHITE,
        interpolation: str = "bilinear",
    ) -> None:
        if (size is None) == (most is None) or fit not in FITS[1:]:
            raise ValueError(f"MakeSquare(fit={fit!r}, size={size!r}, most={most!r})")
        self.fit, self.size, self.most = fit, size, most
        self.background, self.interpolation = background, interpolation

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace the image, uint8 of shape (height, width, 3) or (height, width), by a square."""
        image = results["img"]
        pixels = self.size or min(max(image.shape[:2]), self.most or 0)
        image = make_square(image, pixels, self.fit, self.background, self.interpolation)
        return results | {"img": image, "img_shape": image.shape, "pad_shape": image.shape}

    def __repr__(self) -> str:
        return f"MakeSquare(fit={self.fit!r}, size={self.size}, most={self.most})"


@PIPELINES.register_module()
class LoadPackedImage:
    """``LoadImageFromFile`` for images that pack_images has decoded; the keys of its result are the same.

    Parameters
    ----------
    folder : the pixel cache; the copy that ``Variable.PIXEL_CACHE`` names in the environment goes first.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._cache: PixelCache | None = None  # opened where it is used: each data-loader worker maps the file itself

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the image, uint8 of shape (height, width, 3), blue, green, red."""
        if self._cache is None:
            self._cache = PixelCache(os.environ.get(Variable.PIXEL_CACHE, self.folder))
        name = results["img_info"]["filename"]
        image = self._cache.image(name).copy()  # the cache's own cannot be written, and steps after this one may
        filename = str(Path(results.get("img_prefix") or "") / name)
        results |= {"filename": filename, "ori_filename": name, "img": image}
        return results | {"img_shape": image.shape, "ori_shape": image.shape}

    def __repr__(self) -> str:
        return f"LoadPackedImage(folder={self.folder!r})"


class Normalizer(nn.Module):
    """mmcls's ``Normalize`` for whole batches of bytes, wherever they are.

    A quarter of the bytes go to a GPU this way, and the data-loader's processes have less to do.

    Parameters
    ----------
    mean, std : of each channel, in the order that the model wants; 0 to 255.
    to_rgb : whether the model wants red first; images come blue first.
    """

    factor: torch.Tensor
    offset: torch.Tensor

    def __init__(self, mean: list[float], std: list[float], to_rgb: bool = True) -> None:
        super().__init__()
        self.to_rgb = to_rgb
        shape = (1, len(mean), 1, 1)
        self.register_buffer("factor", torch.tensor(std, dtype=torch.float64).reciprocal().float().view(shape))
        offset = torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.register_buffer("offset", offset.float().view(shape))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return *images*, uint8 of shape (batch, channels, height, width), as float32, in channels-last memory."""
        if self.to_rgb:
            images = images.flip(1)
        return images.to(torch.float32, memory_format=torch.channels_last).mul_(self.factor).sub_(self.offset)
