"""Walk through a folder of images as every rule sees it: without junk, through links, in the order of the names."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from scripts.lib.data.image_paths import is_junk


def walk_files(folder: Path, left_out: Counter[str], above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """Yield the files below *folder* in the order of their bytes, through links but not in circles.

    Parameters
    ----------
    left_out : counts what is not among them, by its reason.
    """
    status = folder.stat()
    above = above | {(status.st_dev, status.st_ino)}
    for raw in sorted(os.listdir(os.fsencode(folder))):  # bytes: a folder may hold a million names
        name = os.fsdecode(raw)
        path = folder / name
        if is_junk([name]):
            left_out["junk (hidden files, __MACOSX, Thumbs.db and the like)"] += 1
            continue
        try:
            status = path.stat()
        except OSError:
            left_out["links to nothing"] += 1
            continue
        if stat.S_ISDIR(status.st_mode):
            if (status.st_dev, status.st_ino) in above:
                left_out["links to a folder above"] += 1
            else:
                yield from walk_files(path, left_out, above)
        elif stat.S_ISREG(status.st_mode):
            yield path
        else:
            left_out["pipes, sockets or devices"] += 1
