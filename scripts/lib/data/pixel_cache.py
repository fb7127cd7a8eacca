"""The pixel cache: a folder with the pixels of images that were decoded once, read without decoding.

``images.bin`` holds the images one after the other, ``index.csv`` where each one lies, ``pack.json`` how they were
made. Raw pixels where they are few enough to stay in a machine's memory, JPEG where they are not.
"""

from __future__ import annotations

import csv
import json
import mmap
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from scripts.lib.base.problems import UserError

PIXELS, INDEX, METADATA = "images.bin", "index.csv", "pack.json"
COLUMNS = ("file", "offset", "length", "height", "width")


@dataclass(frozen=True)
class Stored:
    """Where an image lies in ``images.bin``: *offset* and *length* in bytes, *height* and *width* in pixels."""

    offset: int
    length: int
    height: int
    width: int


class PixelCache:
    """The images of a pixel cache.

    Parameters
    ----------
    folder : what pack_images made.

    Raises
    ------
    UserError : there is no such folder, or it is damaged.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        try:
            self.metadata = json.loads((self.folder / METADATA).read_text(encoding="utf-8"))
            with open(self.folder / INDEX, encoding="utf-8", newline="") as file:
                rows = csv.DictReader(file)
                self.images = {row["file"]: Stored(*(int(row[name]) for name in COLUMNS[1:])) for row in rows}
            with open(self.folder / PIXELS, "rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.folder}: no pixel cache, or a damaged one: remove it and run again") from error
        if len(self._bytes) != sum(stored.length for stored in self.images.values()):
            raise UserError(f"{self.folder}: {PIXELS} has not the length that {INDEX} says: remove it and run again")

    def image(self, name: str) -> np.ndarray:
        """Return an image: uint8, (height, width, 3), channels blue, green, red; raw pixels are read-only.

        Raises
        ------
        UserError : there is no image of that name.
        """
        stored = self.images.get(name)
        if stored is None:
            raise UserError(f"{self.folder}: {name} is not in the pixel cache: remove the folder and run again")
        content = np.frombuffer(self._bytes, np.uint8, stored.length, stored.offset)
        if self.metadata["format"] == "raw":
            return content.reshape(stored.height, stored.width, 3)
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)
        if image is None:
            raise UserError(f"{self.folder}: the bytes of {name} are damaged: remove the folder and run again")
        return image
