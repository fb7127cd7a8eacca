"""What is known of files by their content: checks that were made once are not made again, also after a kill.

A file of records of one size: torn ones at its end are dropped, those of another version are not read.
"""

from __future__ import annotations

import functools
import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import PIL

from scripts.lib.data.image_checks import COLOUR_EDGE, DETAIL_BYTES, GREY_EDGE, Checked, Oddity, Status

#: To be raised when checks change; another decoder may read other files, so that their versions count as well.
VERSION = 1
HEADER = f"mimflow audit {VERSION}, OpenCV {cv2.__version__}, Pillow {PIL.__version__}\n".encode().ljust(128)
GREY, COLOUR = GREY_EDGE**2, 2 * COLOUR_EDGE**2
#: One record; ``checksum`` is the CRC-32 of what stands before it.
RECORD = np.dtype(
    [
        ("sha256", "u1", (32,)), ("status", "u1"), ("oddities", "u1"), ("orientation", "u1"), ("format", "S9"),
        ("width", "<u4"), ("height", "<u4"), ("detail", f"S{DETAIL_BYTES}"),
        ("grey", "u1", (GREY,)), ("colour", "u1", (COLOUR,)), ("checksum", "<u4"),
    ]
)  # fmt: skip
_BODY = struct.Struct(f"<32sBBB9sII{DETAIL_BYTES}s{GREY}s{COLOUR}s")


def encode(digest: bytes, checked: Checked) -> bytes:
    """Return the record of a file with this sha256 (32 bytes)."""
    body = _BODY.pack(
        digest, checked.status, checked.oddities, checked.orientation, checked.format.encode(),
        min(checked.width, 0xFFFFFFFF), min(checked.height, 0xFFFFFFFF), checked.detail.encode(),
        checked.grey, checked.colour,
    )  # fmt: skip
    return body + struct.pack("<I", zlib.crc32(body))


def decode(records: np.ndarray) -> list[Checked]:
    """Return the checks in records (without the thumbnails, which are read as arrays)."""
    names = ("status", "format", "width", "height", "oddities", "orientation", "detail")
    kinds, oddities = {kind.value: kind for kind in Status}, functools.cache(Oddity)
    return [
        Checked(kinds[status], name.decode(), width, height, oddities(odd), turn, detail.decode("utf-8", "ignore"))
        for status, name, width, height, odd, turn, detail in zip(*(records[n].tolist() for n in names), strict=True)
    ]


class AuditCache:
    """The records of one file, which is made, or made anew, where it is absent or of another version."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or self._header() != HEADER:
            path.write_bytes(HEADER)
        os.truncate(path, len(HEADER) + self._sound() * RECORD.itemsize)

    def _header(self) -> bytes:
        with open(self.path, "rb") as file:
            return file.read(len(HEADER))

    def _sound(self) -> int:
        """Return how many records stand before the first one that was not written whole."""
        sound = 0
        with open(self.path, "rb") as file:
            file.seek(len(HEADER))
            while len(record := file.read(RECORD.itemsize)) == RECORD.itemsize:
                if zlib.crc32(record[:-4]) != int.from_bytes(record[-4:], "little"):
                    break
                sound += 1
        return sound

    def append(self, records: Iterable[bytes]) -> None:
        """Add records; they are there even if this process is killed right after it."""
        with open(self.path, "ab") as file:
            file.write(b"".join(records))

    def records(self) -> np.ndarray:
        """Return all records, of type RECORD, from the file itself: only those that are looked at take memory."""
        if self.path.stat().st_size == len(HEADER):
            return np.zeros(0, RECORD)
        return np.memmap(self.path, RECORD, mode="r", offset=len(HEADER))
