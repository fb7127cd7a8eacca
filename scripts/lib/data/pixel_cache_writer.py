"""Decode and shrink images once, and write their pixels as a pixel cache.

The shorter side becomes what the test pipeline makes of it, by the same two steps of mmcv, so that validation sees the
pixels that prediction will see. Photographs of four times that size and more are decoded at a half, a quarter or an
eighth of it, which JPEG can do at a fraction of the time.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np

from scripts.lib.base.files import sync_file, write_json
from scripts.lib.base.problems import UserError
from scripts.lib.data.decoding import REDUCED, Undecodable, decode_image, find_bomb, is_transparent, opened
from scripts.lib.data.pixel_cache import COLUMNS, INDEX, METADATA, PIXELS
from scripts.lib.data.reading import USUAL, Reading

with warnings.catch_warnings():  # mmcv 1 announces on every import that mmcv 2 exists
    warnings.simplefilter("ignore")
    import mmcv

#: Up to this many bytes, pixels stay as they are; more would not stay in the memory of a common machine. A constant,
#: not what this machine has: the format determines the result.
RAW_LIMIT_BYTES = 8 << 30
#: More elongated than the images of any data set are on average, long side to short. Where images of that shape would
#: all fit, the headers need not be read to know that these do.
ELONGATED = 10
JPEG_QUALITY = 95
#: An image is decoded at a fraction of its size only where that leaves this many times the wanted one.
REDUCED_MARGIN = 2
#: Of these, one channel of a grey image is decoded and shrunk, and comes three times: the same bytes, a third sooner.
GREY_FORMATS = ("JPEG", "PNG")
#: Bytes of a file that hold the header of most.
HEADER_BYTES = 1 << 18
#: Images that are decoded while the ones before them are written.
AHEAD = 256


def size_in_cache(width: int, height: int, short_side: int) -> tuple[int, int]:
    """Return width and height of a cached image, as mmcls's ``Resize(size=(short_side, -1))`` rounds them."""
    if width < height:
        return short_side, int(short_side * height / width)
    return int(short_side * width / height), short_side


def reduction(width: int, height: int, short_side: int) -> int:
    """Return by which of 8, 4, 2 an image can be divided while it is decoded; 1: by none."""
    return next((factor for factor in REDUCED if min(width, height) >= factor * REDUCED_MARGIN * short_side), 1)


def decode(content: bytes, short_side: int, reading: Reading = USUAL) -> np.ndarray:
    """Return an image with its shorter side at *short_side*: uint8, (height, width, 3), blue, green, red.

    Raises
    ------
    Undecodable : *content* is no image that can be decoded.
    """
    with opened(content) as header:
        if bomb := find_bomb(header, content):
            raise Undecodable(bomb)
        factor = reduction(*header.size, short_side) if header.format == "JPEG" else 1
        plain = factor == 1 and not is_transparent(header)
        grey = plain and header.mode == "L" and header.format in GREY_FORMATS
    image = decode_image(content, grey, factor, reading)
    height, width = image.shape[:2]
    if min(height, width) != short_side:
        image = mmcv.imresize(
            image, size_in_cache(width, height, short_side), interpolation="bilinear", backend="pillow"
        )
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if grey else image


def write_pixel_cache(
    images: Path,
    names: Sequence[str],
    short_side: int,
    folder: Path,
    *,
    raw_limit: int,
    threads: int,
    reading: Reading = USUAL,
) -> str:
    """Write *names* of *images*, in their order, into *folder*; return the format: raw or jpeg.

    Parameters
    ----------
    short_side : of each image, in pixels.
    raw_limit : bytes of pixels from which on they are compressed.
    threads : images decoded at a time; the result does not depend on it.
    reading : how the files become pixels.

    Raises
    ------
    UserError : an image cannot be read.
    """
    size = 3 * short_side**2 * ELONGATED * len(names)  # at most
    if size > raw_limit:
        size = sum(3 * width * height for width, height in _sizes(images, names, short_side, threads))
    kind = "raw" if size <= raw_limit else "jpeg"
    folder.mkdir()
    offset, quality = 0, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    with open(folder / PIXELS, "wb") as pixels, open(folder / INDEX, "w", encoding="utf-8", newline="") as index:
        writer = csv.writer(index, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, image in zip(names, _decoded(images, names, short_side, threads, reading), strict=True):
            content = (image if kind == "raw" else cv2.imencode(".jpg", image, quality)[1]).tobytes()
            pixels.write(content)
            writer.writerow([name, offset, len(content), *image.shape[:2]])
            offset += len(content)
    write_json(folder / METADATA, {"format": kind, "edge": short_side, "images": len(names), "bytes": offset})
    for name in (PIXELS, INDEX):
        sync_file(folder / name)
    return kind


def _sizes(images: Path, names: Sequence[str], short_side: int, threads: int) -> list[tuple[int, int]]:
    """Return width and height of each image in the cache, from the headers alone."""

    def size(name: str) -> tuple[int, int]:
        try:
            with open(images / name, "rb") as file:
                start = file.read(HEADER_BYTES)
                try:
                    header = opened(start)
                except Undecodable:  # such as a TIFF, whose directory may lie at its end
                    header = opened(start + file.read())
            return size_in_cache(*header.size, short_side)
        except (OSError, Undecodable) as error:
            raise _unreadable(images / name, error) from error

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(size, names))


def _decoded(
    images: Path, names: Sequence[str], short_side: int, threads: int, reading: Reading
) -> Iterator[np.ndarray]:
    """Yield the images in order; decoding runs ahead by AHEAD images, so that memory stays flat."""

    def read(name: str) -> np.ndarray:
        try:
            return decode((images / name).read_bytes(), short_side, reading)
        except (OSError, ValueError) as error:
            raise _unreadable(images / name, error) from error

    cv2.setNumThreads(0)  # the pool is the parallelism
    with ThreadPoolExecutor(threads) as pool:
        waiting: Iterable = ()
        for start in range(0, len(names), AHEAD):
            ahead = [pool.submit(read, name) for name in names[start : start + AHEAD]]
            yield from (future.result() for future in waiting)
            waiting = ahead
        yield from (future.result() for future in waiting)


def _unreadable(path: Path, error: Exception) -> UserError:
    known = isinstance(error, OSError) and error.strerror
    return UserError(f"{path}: {known or error}; repair it or leave it out of the data")
