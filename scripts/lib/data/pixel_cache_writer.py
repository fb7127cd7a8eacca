"""Decode and shrink images once, and write their pixels as a pixel cache.

The shorter side becomes what the test pipeline makes of it, by the same two steps of mmcv, so that validation sees the
pixels that prediction will see. Photographs of four times that size and more are decoded at a half, a quarter or an
eighth of it, which JPEG can do at a fraction of the time.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from scripts.lib.base import ranges
from scripts.lib.base.files import read_json, sync_file, write_json
from scripts.lib.base.problems import UserError
from scripts.lib.data.decoding import REDUCED, Undecodable, decode_image, find_bomb, is_transparent, opened
from scripts.lib.data.pixel_cache import COLUMNS, INDEX, METADATA, PIXELS
from scripts.lib.data.reading import USUAL, Reading
from scripts.lib.data.reading import add_options as add_reading
from scripts.lib.data.shards import Shard, shards_of

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


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that writes a pixel cache, or a shard of it."""
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="the folder that the splits refer to")
    parser.add_argument(
        "--splits", type=Path, nargs="+", required=True, metavar="FILE", help="annotation files: `path label` lines"
    )
    parser.add_argument("--short-side", type=int, required=True, metavar="PIXELS", help="of a decoded image")
    add_reading(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="images at a time")


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
        # As mmcv's imresize does it with Pillow; mmcv loads torch, which takes longer than to decode a small data set.
        shrunk = Image.fromarray(image).resize(size_in_cache(width, height, short_side), Image.Resampling.BILINEAR)
        image = np.array(shrunk)
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
    shard: Shard | None = None,
) -> str:
    """Write *names* of *images*, in their order, into *folder*; return the format: raw or jpeg.

    Parameters
    ----------
    short_side : of each image, in pixels.
    raw_limit : bytes of pixels from which on they are compressed.
    threads : images decoded at a time; the result does not depend on it.
    reading : how the files become pixels.
    shard : the one of which the images are written; None: all.

    Raises
    ------
    UserError : an image cannot be read.
    """
    kind = _format(images, names, short_side, raw_limit, threads)
    chosen = names if shard is None else shard.select(names)

    def contents() -> Iterator[Entry]:
        quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        for name, image in zip(chosen, _decoded(images, chosen, short_side, threads, reading), strict=True):
            content = (image if kind == "raw" else cv2.imencode(".jpg", image, quality)[1]).tobytes()
            yield name, content, *image.shape[:2]

    _write(folder, kind, short_side, contents())
    return kind


def join_pixel_caches(shards: Sequence[Path], names: Sequence[str], short_side: int, folder: Path) -> str:
    """Write the pixel cache of *names* into *folder* from those of its shards, in their order; return the format.

    The bytes are those that :func:`write_pixel_cache` would write; nothing is decoded.

    Raises
    ------
    UserError : a shard is not of these images.
    """
    kinds = {read_json(shard / METADATA)["format"] for shard in shards}

    def contents(stack: ExitStack) -> Iterator[Entry]:
        pixels = [stack.enter_context((shard / PIXELS).open("rb")) for shard in shards]
        indices = [stack.enter_context((shard / INDEX).open(encoding="utf-8", newline="")) for shard in shards]
        rows = [csv.DictReader(file) for file in indices]
        for name, number in zip(names, shards_of(names, len(shards)).tolist(), strict=True):
            row = next(rows[number - 1], {"file": ""})
            content = pixels[number - 1].read(int(row.get("length", 0)))
            if row["file"] != name or len(content) != int(row["length"]) or len(kinds) > 1:
                raise UserError(
                    f"{shards[number - 1]}: not the pixels of these images: remove it and run the same command again"
                )
            yield name, content, int(row["height"]), int(row["width"])

    with ExitStack() as stack:
        _write(folder, min(kinds), short_side, contents(stack))
    return min(kinds)


#: Of a cached image: name, bytes, height and width.
Entry = tuple[str, bytes, int, int]


def _write(folder: Path, kind: str, short_side: int, entries: Iterable[Entry]) -> None:
    folder.mkdir()
    count = offset = 0
    with open(folder / PIXELS, "wb") as pixels, open(folder / INDEX, "w", encoding="utf-8", newline="") as index:
        writer = csv.writer(index, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, content, height, width in entries:
            pixels.write(content)
            writer.writerow([name, offset, len(content), height, width])
            offset += len(content)
            count += 1
    write_json(folder / METADATA, {"format": kind, "edge": short_side, "images": count, "bytes": offset})
    for file in (PIXELS, INDEX):
        sync_file(folder / file)


def _format(images: Path, names: Sequence[str], short_side: int, raw_limit: int, threads: int) -> str:
    """Return raw or jpeg, by the bytes of all pixels; the headers are read only where their number does not tell."""
    square = 3 * short_side**2 * len(names)  # at least
    if square > raw_limit:
        return "jpeg"
    size = square * ELONGATED
    if size > raw_limit:
        size = sum(3 * width * height for width, height in _sizes(images, names, short_side, threads))
    return "raw" if size <= raw_limit else "jpeg"


def _sizes(images: Path, names: Sequence[str], short_side: int, threads: int) -> Iterator[tuple[int, int]]:
    """Yield width and height of each image in the cache, from the headers alone."""

    def size(name: str) -> tuple[int, int]:
        try:
            try:
                header = opened(ranges.read_bytes(images / name, HEADER_BYTES))
            except Undecodable:  # such as a TIFF, whose directory may lie at its end
                header = opened(ranges.read_bytes(images / name))
            return size_in_cache(*header.size, short_side)
        except (OSError, Undecodable) as error:
            raise _unreadable(images / name, error) from error

    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(names), AHEAD):  # of all at once the pool would keep a kilobyte each
            yield from pool.map(size, names[start : start + AHEAD])


def _decoded(
    images: Path, names: Sequence[str], short_side: int, threads: int, reading: Reading
) -> Iterator[np.ndarray]:
    """Yield the images in order; decoding runs ahead by AHEAD images, so that memory stays flat."""

    def read(name: str) -> np.ndarray:
        try:
            return decode(ranges.read_bytes(images / name), short_side, reading)
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
