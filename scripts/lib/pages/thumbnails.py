"""Small pictures for pages: photographs upright and small, and as data URIs that a page carries in itself."""

from __future__ import annotations

import base64
import io
import warnings
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from scripts.lib.base.console import one_line
from scripts.lib.base.problems import UserError
from scripts.lib.data.image_bombs import find_bomb

#: Of the pages with pictures: cards in rows, names that break anywhere, sections that are laid out when they are seen.
STYLE = """
.cards { display: flex; flex-wrap: wrap; gap: 0.9em; margin: 0.5em 0 1.5em; align-items: flex-start }
figure { margin: 0; padding: 0.5em; border: 1px solid #ddd; border-top: 4px solid #0072B2; background: #fafafa }
figure.wrong { border-top-color: #D55E00 }
figure img { display: block; margin: 0 auto; outline: 1px solid #ddd }
figcaption, figure p { font-size: 12px; line-height: 1.35;
         overflow-wrap: anywhere; margin: 0.3em 0 0 } .file { color: #666 }
.pictures { display: flex; flex-wrap: wrap; gap: 0.4em }
section { content-visibility: auto; contain-intrinsic-size: auto 400px }
""".strip()
QUALITY = 80
#: Pixels of the longer side of a picture on a page, at least: a name must fit below it.
SMALLEST = 112


def thumbnail(path: Path, side: int) -> Image.Image:
    """Return the image at *path*, its EXIF orientation applied, as RGB and at most *side* pixels wide and high.

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
                image.draft("RGB", (2 * side, 2 * side))  # a large JPEG is then decoded at a fraction of its size
                image.load()
                return shrink(_rgb(ImageOps.exif_transpose(image)), side)
    except Exception as error:  # hostile bytes reach every corner of Pillow's parsers
        known = isinstance(error, OSError) and error.strerror
        reason = one_line(known) if known else "not an image, or a broken one"
        raise UserError(f"{path}: {reason}; repair it or leave it out of the data") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which Pillow would cut off at 255
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def shrink(image: Image.Image, side: int) -> Image.Image:
    """Return a copy of *image* that is at most *side* pixels wide and high."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def data_uri(image: Image.Image) -> str:
    """Return an RGB image as the data URI of a JPEG."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the width and height that a picture of *size* takes on a page: a small one is enlarged.

    >>> shown_size((32, 16))
    (112, 56)
    """
    factor = max(1.0, SMALLEST / max(size))
    return round(size[0] * factor), round(size[1] * factor)


def picture(uri: str, size: tuple[int, int], description: str) -> str:
    """Return the HTML of a picture of *size* (width, height); *description* is text."""
    width, height = shown_size(size)
    return (
        f'<img src="{uri}" width="{width}" height="{height}" alt="{escape(description)}" decoding="async"'
        ' loading="lazy">'
    )


def name(text: str) -> str:
    """Return a name from outside as HTML; its direction of writing does not leak into what follows."""
    return f"<bdi>{escape(text)}</bdi>"


def percent(probability: float) -> str:
    """Return a probability as text.

    >>> percent(0.9731)
    '97.3\\xa0%'
    """
    return f"{100 * probability:.1f}\N{NO-BREAK SPACE}%"
