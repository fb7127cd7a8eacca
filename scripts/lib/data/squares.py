"""Whole pictures as squares: a network sees a square, and a picture is mostly none (`fit: pad` and `fit: squash`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from PIL import Image

#: ``crop`` takes the middle, ``pad`` adds bars in the colour of the background, ``squash`` changes the proportions.
Fit = Literal["crop", "pad", "squash"]
FITS: tuple[Fit, ...] = get_args(Fit)


def make_square(
    image: np.ndarray, pixels: int, fit: str, background: Sequence[int], interpolation: str = "bilinear"
) -> np.ndarray:
    """Return all of *image* as a square.

    Parameters
    ----------
    image : uint8 of shape (height, width, 3), blue, green, red, or (height, width).
    pixels : on each side of the square.
    fit : ``pad`` or ``squash``.
    background : of the bars: red, green, blue, 0 to 255.
    interpolation : a filter of Pillow's, which averages over all pixels of a larger image.
    """
    method = Image.Resampling[interpolation.upper()]
    height, width = image.shape[:2]
    longer = max(height, width)
    size = (
        (pixels, pixels) if fit == "squash" else (max(1, width * pixels // longer), max(1, height * pixels // longer))
    )
    small = image if size == (width, height) else np.asarray(Image.fromarray(image).resize(size, method))
    if size == (pixels, pixels):
        return small
    square = np.empty((pixels, pixels, *image.shape[2:]), np.uint8)
    square[...] = np.array(background[::-1], np.uint8) if image.ndim == 3 else brightness(background)
    left, top = (pixels - size[0]) // 2, (pixels - size[1]) // 2
    square[top : top + size[1], left : left + size[0]] = small
    return square


def brightness(colour: Sequence[int]) -> int:
    """Return the grey of a colour, 0 to 255 (ITU-R BT.601, as Pillow's).

    >>> brightness((255, 255, 255)), brightness((255, 0, 0))
    (255, 76)
    """
    red, green, blue = colour
    return (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16


def cropped_share(width: int, height: int) -> float:
    """Return the share of an image, 0 to 1, that lies outside the square in its middle."""
    return 1 - min(width, height) / max(width, height)
