"""Tell by the header of an image, before it is decoded, that decoding would take memory or time without end."""

from __future__ import annotations

from PIL import Image

#: More pixels than any photograph (100 MP cameras) are a decompression bomb: three bytes a pixel, in every worker.
TOO_MANY_PIXELS = 100_000_000
#: Training makes the shorter side some 256 pixels: a picture of 1 x 65,535 would take 13 GB.
MOST_ELONGATED = 1000
#: Scans of a progressive JPEG: ten are usual, and each takes as long as a whole picture.
MOST_SCANS = 100
START_OF_SCAN = b"\xff\xda"
TILE_WIDTH, TILE_HEIGHT = 322, 323


def find_bomb(image: Image.Image, content: bytes) -> str:
    """Return why an opened image must not be decoded, in a few words; "" where it may.

    Parameters
    ----------
    image : of which only the header has been read.
    content : the whole file.
    """
    if too_large := size_of_bomb(*image.size):
        return too_large
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        if tags.get(TILE_WIDTH, 0) * tags.get(TILE_HEIGHT, 0) > TOO_MANY_PIXELS:
            return f"tiles of more than {TOO_MANY_PIXELS:,} pixels"
    if "progressive" in image.info and content.count(START_OF_SCAN) > MOST_SCANS:
        return f"a JPEG of more than {MOST_SCANS} scans"
    return ""


def size_of_bomb(width: int, height: int) -> str:
    """Return why a picture of this size must not be decoded; "" where it may."""
    if width * height > TOO_MANY_PIXELS:
        return f"{width} x {height} pixels, more than {TOO_MANY_PIXELS:,}"
    if max(width, height) > MOST_ELONGATED * min(width, height):
        return f"{width} x {height} pixels: one side is more than {MOST_ELONGATED:,} times the other"
    return ""


def png_declares_too_much(content: bytes) -> bool:
    """Tell whether a chunk of a PNG is said to be longer than the file: OpenCV 5 takes that much memory for it."""
    position = 8
    while position + 8 <= len(content):
        if content[position + 4 : position + 8] == b"IEND":
            return False
        position += 12 + int.from_bytes(content[position : position + 4], "big")
    return position > len(content)
