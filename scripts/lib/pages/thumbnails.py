"""Small pictures for pages: photographs upright and small, and as data URIs that a page carries in itself."""

from __future__ import annotations

import base64
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from scripts.lib.base.console import one_line
from scripts.lib.base.problems import UserError
from scripts.lib.data.image_checks import find_bomb

#: Of JPEG.
QUALITY = 80
#: Pixels of the longer side of a picture on a page, at least: a name must fit below it.
SMALLEST = 112


def thumbnail(path: Path, longest: int) -> Image.Image:
    """Return the image at *path*, its EXIF orientation applied, as RGB and at most *longest* pixels wide and high.

    Raises
    ------
    UserError : it is missing, broken or no image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tags that hold nonsense, and of large images
            content = path.read_bytes()
            with Image.open(io.BytesIO(content)) as image:
                if find_bomb(image, content):
                    raise ValueError("a decompression bomb")
                image.draft("RGB", (2 * longest, 2 * longest))  # a large JPEG is then decoded at a fraction of its size
                image.load()
                return shrink(_rgb(ImageOps.exif_transpose(image)), longest)
    except Exception as error:  # hostile bytes reach every corner of Pillow's parsers
        known = isinstance(error, OSError) and error.strerror
        reason = one_line(known) if known else "not an image, or a broken one"
        raise UserError(f"{path}: {reason}; repair it or leave it out of the data") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def shrink(image: Image.Image, longest: int) -> Image.Image:
    """Return a copy of *image* that is at most *longest* pixels wide and high."""
    small = image.copy()
    small.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return small


@dataclass(frozen=True)
class Picture:
    """A picture of a page: its data URI, and the pixels that it takes there."""

    uri: str
    width: int
    height: int

    @classmethod
    def of(cls, image: Image.Image) -> Picture:
        """Encode an RGB image as a JPEG; a small one is shown enlarged."""
        file, factor = io.BytesIO(), max(1.0, SMALLEST / max(image.size))
        image.save(file, "JPEG", quality=QUALITY, optimize=True)
        uri = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
        return cls(uri, round(image.width * factor), round(image.height * factor))


def percent(probability: float) -> str:
    """Return a probability as text.

    >>> percent(0.9731)
    '97.3\\xa0%'
    """
    return f"{100 * probability:.1f}\N{NO-BREAK SPACE}%"
