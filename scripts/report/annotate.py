"""An image with what the model says about it written on it."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageOps

from scripts.report.fonts import pil_font
from scripts.report.text import shorten

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
    size = max(15, round(max(canvas.size) / 36))
    # A narrow image gets a margin on its right, so that the names are not cut off.
    lines = [
        f"{_percent(value)}  {shorten(name, NAME_WIDTH)}" for name, value in zip(names, probabilities, strict=True)
    ]
    font = pil_font(size)
    pad, height = size // 2, round(size * 1.6)
    width = round(max(font.getlength(line) for line in lines)) + 2 * pad
    if canvas.width < width:
        wider = Image.new("RGB", (width, canvas.height), (235, 235, 235))
        wider.paste(canvas, (0, 0))
        canvas = wider
    draw = ImageDraw.Draw(canvas, "RGBA")
    draw.rectangle((0, 0, width, height * len(lines) + pad), fill=PANEL_COLOUR)
    for row, (line, value) in enumerate(zip(lines, probabilities, strict=True)):
        top = pad // 2 + row * height
        end = pad + round((width - 2 * pad) * min(max(value, 0), 1))
        draw.text((pad, top + height * 0.42), line, font=font, fill=TEXT_COLOUR, anchor="lm")
        draw.rectangle((pad, top + height - size // 5, max(end, pad + 1), top + height - size // 10), fill=BAR_COLOUR)
    return canvas


def _resize(image: Image.Image) -> Image.Image:
    longest = max(image.size)
    wanted = min(max(longest, SMALLEST), LARGEST)
    if wanted == longest:
        return image
    size = tuple(max(1, round(side * wanted / longest)) for side in image.size)
    return image.resize((size[0], size[1]), Image.Resampling.LANCZOS)


def _percent(value: float) -> str:
    # Figures of the font are all of one width, the space is not: a figure space keeps the names in one column.
    return f"{100 * value:5.1f} %".replace(" ", "\u2007", 2 if value < 0.1 else 1 if value < 1 else 0)
