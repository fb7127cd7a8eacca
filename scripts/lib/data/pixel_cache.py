"""Images that were decoded once: a folder with their pixels in one file, read without decoding.

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

PIXELS, INDEX, NOTES = "images.bin", "index.csv", "pack.json"
COLUMNS = ("file", "offset", "length", "height", "width")


@dataclass(frozen=True)
class Place:
    """Where an image lies in ``images.bin``: *offset* and *length* in bytes, *height* and *width* in pixels."""

    offset: int
    length: int
    height: int
    width: int


class Pack:
    """The images of a packed folder.

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
            self.notes = json.loads((self.folder / NOTES).read_text(encoding="utf-8"))
            with open(self.folder / INDEX, encoding="utf-8", newline="") as file:
                rows = csv.DictReader(file)
                self.places = {row["file"]: Place(*(int(row[name]) for name in COLUMNS[1:])) for row in rows}
            with open(self.folder / PIXELS, "rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.folder}: no packed images, or damaged ones: remove it and run again") from error
        if len(self._bytes) != sum(place.length for place in self.places.values()):
            raise UserError(f"{self.folder}: {PIXELS} has not the length that {INDEX} says: remove it and run again")

    def image(self, name: str) -> np.ndarray:
        """Return an image: uint8, (height, width, 3), channels blue, green, red; raw pixels are read-only.

        Raises
        ------
        UserError : there is no image of that name in the pack.
        """
        place = self.places.get(name)
        if place is None:
            raise UserError(f"{self.folder}: {name} was not packed: remove the folder and run again")
        content = np.frombuffer(self._bytes, np.uint8, place.length, place.offset)
        if self.notes["format"] == "raw":
            return content.reshape(place.height, place.width, 3)
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)
        if image is None:
            raise UserError(f"{self.folder}: the bytes of {name} are damaged: remove the folder and run again")
        return image
