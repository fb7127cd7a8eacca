"""Images that are ranges of bytes of tar shards: a folder holds one index in place of a file for each of them.

The index, ``INDEX`` in the folder, begins with a line of the shards' paths, a list in JSON; then each image has a line
``[name, number of its shard, first byte, bytes, "sha256"]``, sorted by name, in which a search by halves finds it:
no process holds the index in its own memory. Whoever opens an image by its path in a data set calls :func:`read_bytes`.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from scripts.lib.base.problems import UserError

#: Hidden, as all that is no image of a folder.
INDEX = ".ranges.jsonl"
#: Shards that a process keeps open.
OPEN_SHARDS = 64


class Range(NamedTuple):
    """An image: its path in the folder of the index, the absolute path of its shard, first byte and number of bytes."""

    name: str
    shard: str
    offset: int
    size: int
    sha256: str

    def read(self, most: int = -1) -> bytes:
        """Return its bytes, compared with their hash; or, without that, the first *most*.

        Raises
        ------
        UserError : the shard cannot be read, or is not what was indexed.
        """
        size = self.size if most < 0 else min(most, self.size)
        try:
            content = os.pread(_open_shard(self.shard).descriptor, size, self.offset)
        except OSError as error:
            raise UserError(
                f"{self.shard}: cannot be read: {error.strerror}", "its images are read where they lie: bring it back"
            ) from error
        if len(content) != size or (most < 0 and hashlib.sha256(content).hexdigest() != self.sha256):
            raise UserError(
                f"{self.shard}: changed since it was indexed: the bytes of {self.name!r} are others",
                "run the same command again, when nobody writes there",
            )
        return content


class _Shard:
    """An open file, closed when nobody reads it any more."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


_open_shard = lru_cache(OPEN_SHARDS)(_Shard)


class _Index:
    """The index of a folder, mapped into memory: processes share its pages."""

    def __init__(self, folder: Path, *_seen: int) -> None:
        self.folder = folder
        try:
            with open(folder / INDEX, "rb") as file:
                self._lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._begin = self._lines.find(b"\n") + 1
            self.shards: list[str] = json.loads(self._lines[: self._begin])
        except ValueError as error:
            raise self._damaged() from error

    def __iter__(self) -> Iterator[Range]:
        start = self._begin
        while end := self._lines.find(b"\n", start) + 1:
            yield self._parse(start, end)
            start = end

    def find(self, name: str) -> Range | None:
        """Return the image of this name."""
        low, high = self._begin, len(self._lines)
        while low < high:
            start = max(low, self._lines.rfind(b"\n", low, (low + high) // 2) + 1)
            end = self._lines.find(b"\n", start) + 1
            image = self._parse(start, end)
            if image.name == name:
                return image
            low, high = (end, high) if image.name < name else (low, start)
        return None

    def _parse(self, start: int, end: int) -> Range:
        try:
            name, number, offset, size, sha256 = json.loads(self._lines[start:end])
            return Range(name, self.shards[number], offset, size, sha256)
        except (ValueError, TypeError, LookupError) as error:
            raise self._damaged() from error

    def _damaged(self) -> UserError:
        return UserError(f"{self.folder / INDEX}: damaged", f"remove {self.folder} and run the same command again")


_open_index = lru_cache(4)(_Index)


def _index_of(folder: Path) -> _Index | None:
    """Return the index of *folder* or of the nearest folder above it that has one, as it is now."""
    for above in (folder, *folder.parents):
        try:
            status = os.stat(f"{above}/{INDEX}")
        except (FileNotFoundError, NotADirectoryError):
            continue
        return _open_index(above, status.st_ino, status.st_size, status.st_mtime_ns)
    return None


def write_index(folder: Path, images: Iterable[Range]) -> None:
    """Write the index of *folder*, which holds these images from now on."""
    ordered = sorted(images)
    numbers = {shard: number for number, shard in enumerate(sorted({image.shard for image in ordered}))}
    with open(folder / INDEX, "w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(list(numbers)) + "\n")
        for name, shard, *range_and_hash in ordered:
            file.write(json.dumps([name, numbers[shard], *range_and_hash], ensure_ascii=False) + "\n")


def images_in(folder: Path) -> Iterable[Range]:
    """Return the images of the index that lies in *folder* itself, sorted by name; none where there is none."""
    index = _index_of(folder)
    return index if index and index.folder == folder else ()


def names_below(folder: Path) -> Iterator[str]:
    """Yield the paths below *folder* of indexed images: *folder* has the index, or is a folder in its names."""
    if index := _index_of(folder):
        prefix = "" if index.folder == folder else f"{folder.relative_to(index.folder).as_posix()}/"
        yield from (image.name.removeprefix(prefix) for image in index if image.name.startswith(prefix))


def files_beside(folder: Path) -> list[str]:
    """Return the index of *folder* and its shards (absolute), of which its images are made; nothing without one."""
    index = _index_of(folder)
    return [INDEX, *index.shards] if index and index.folder == folder else []


def find(path: Path) -> Range | None:
    """Return the image that the index of a folder above has at *path*; None where there is none."""
    index = _index_of(path.parent)
    return index.find(path.relative_to(index.folder).as_posix()) if index else None


def read_bytes(path: Path, most: int = -1) -> bytes:
    """Return the bytes of an image by its path in a data set: of the file, else of the range of a shard.

    Parameters
    ----------
    most : at most so many from the begin; -1: all.

    Raises
    ------
    OSError : there is neither, or the file cannot be read.
    UserError : the shard is not what was indexed.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(most)
    except FileNotFoundError:
        if image := find(path):
            return image.read(most)
        raise


def reading_order(folder: Path, names: Sequence[str]) -> list[int]:
    """Return the indices of *names* in the order in which the images lie in the shards; of files, as they are."""
    if not names or _index_of((folder / names[0]).parent) is None:
        return list(range(len(names)))
    images = (find(folder / name) for name in names)
    positions = [(image.shard, image.offset) if image else ("", 0) for image in images]
    return sorted(range(len(names)), key=positions.__getitem__)
