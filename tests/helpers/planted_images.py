"""Images for the tests of the audit: small photographs that no two are alike, and every way to damage them."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

ORIENTATION = 0x0112


def photograph(seed: int, size: tuple[int, int] = (120, 96), detail: tuple[int, int] = (5, 6)) -> Image.Image:
    """Return smooth colours, which survive JPEG, with some noise; another seed gives quite another picture.

    ``detail``: patches of colour down and across.
    """
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(30, 225, (*detail, 3), dtype=np.uint8))
    image = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.int16)
    return Image.fromarray(np.clip(image + generator.integers(-6, 6, image.shape), 0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """Return an image as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(image: Image.Image, orientation: int) -> bytes:
    """Return a JPEG with an EXIF orientation."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(image, exif=exif, quality=95)


def many_pixels(width: int, height: int) -> bytes:
    """Return a PNG whose header promises many pixels, of one bit, in few bytes."""
    return encoded(Image.new("1", (width, height)), "PNG")
