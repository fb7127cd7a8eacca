"""Small pictures for pages: photographs upright and small, and as data URIs that a page carries in itself."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from scripts.lib.base import ranges
from scripts.lib.base.console import one_line
from scripts.lib.base.problems import UserError
from scripts.lib.data.decoding import REDUCED, Undecodable, decode_image, deep_peak, find_bomb, opened
from scripts.lib.data.reading import WHITE, Reading

#: Of JPEG.
QUALITY = 80
#: Pixels of the longer side of a picture on a page, at least: a name must fit below it.
SMALLEST = 112


def thumbnail(path: Path, longest: int, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """Return the image at *path*, its EXIF orientation applied, as RGB and at most *longest* pixels wide and high.

    Raises
    ------
    UserError : it is missing, broken or no image.
    """
    try:
        return shrink(read_rgb(ranges.read_bytes(path), longest, background), longest)
    except (OSError, Undecodable) as error:
        known = isinstance(error, OSError) and error.strerror
        raise UserError(f"{path}: {one_line(known or error)}; repair it or leave it out of the data") from error


def read_rgb(content: bytes, longest: int, background: tuple[int, int, int] = WHITE) -> Image.Image:
    """Return the picture that the model sees, upright; a large JPEG at a fraction of its size, not below *longest*.

    Of 16 bits a channel, those that the picture itself uses are shown.

    Raises
    ------
    Undecodable : it cannot be read.
    """
    with opened(content) as header:
        if bomb := find_bomb(header, content):
            raise Undecodable(bomb)
        size = max(header.size)
    factor = next((factor for factor in REDUCED if size >= 2 * longest * factor), 1)
    reading = Reading(max(8, deep_peak(content).bit_length()), background)
    return Image.fromarray(decode_image(content, factor=factor, reading=reading)[..., ::-1])


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
