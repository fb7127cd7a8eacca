"""An image with what the model says about it written on it."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageOps

from scripts.lib.base.text import shorten
from scripts.lib.pages.fonts import pil_font

#: Pixels of the longer side of a drawn image: smaller ones are enlarged until text fits on them.
SMALLEST, LARGEST = 480, 1600
NAME_WIDTH = 26
BAR_COLOUR, PANEL_COLOUR, TEXT_COLOUR = (86, 180, 233), (0, 0, 0, 170), (255, 255, 255)


def annotate(image: Image.Image, names: Sequence[str], probabilities: Sequence[float]) -> Image.Image:
    """Return an RGB copy of *image*, upright, with a line and a bar for each of *names* in its upper left corner.

    Parameters
    ----------
    image : any mode; its EXIF orientation is applied.
    names, probabilities : the classes to write, the most probable first.
    """
    canvas = _resize(ImageOps.exif_transpose(image).convert("RGB"))
    size = max(18, round(max(canvas.size) / 36))
    font = pil_font(size)
    names = [shorten(name, NAME_WIDTH) for name in names]
    pad, height = size // 2, round(size * 1.6)
    # Two columns, since the font's space is narrower than its figures: percentages to the right, names to the left.
    column = pad + round(font.getlength("100.0 %"))
    width = column + 2 * pad + round(max(font.getlength(name) for name in names))
    box = (width, height * len(names) + pad)
    if canvas.width < box[0] or canvas.height < box[1]:  # a narrow image gets a margin: no name is cut off
        larger = Image.new("RGB", (max(canvas.width, box[0]), max(canvas.height, box[1])), (235, 235, 235))
        larger.paste(canvas, (0, 0))
        canvas = larger
    draw = ImageDraw.Draw(canvas, "RGBA")
    draw.rectangle((0, 0, *box), fill=PANEL_COLOUR)
    for row, (name, value) in enumerate(zip(names, probabilities, strict=True)):
        top = pad // 2 + row * height
        middle, bottom = top + height * 0.42, top + height
        draw.text((column, middle), f"{100 * value:.1f} %", font=font, fill=TEXT_COLOUR, anchor="rm")
        draw.text((column + pad, middle), name, font=font, fill=TEXT_COLOUR, anchor="lm")
        end = pad + max(1, round((width - 2 * pad) * value))
        draw.rectangle((pad, bottom - size // 5, end, bottom - size // 10), fill=BAR_COLOUR)
    return canvas


def _resize(image: Image.Image) -> Image.Image:
    longest = max(image.size)
    wanted = min(max(longest, SMALLEST), LARGEST)
    if wanted == longest:
        return image
    size = tuple(max(1, round(length * wanted / longest)) for length in image.size)
    return image.resize((size[0], size[1]), Image.Resampling.LANCZOS)
