"""A folder of images as an archive, the same bytes for the same files."""

from __future__ import annotations

import logging
import os
import tarfile
from collections import Counter
from pathlib import Path

from scripts.lib.base.problems import UserError
from scripts.lib.data.folders import walk_files
from scripts.lib.data.manifest import write_manifest

logger = logging.getLogger(__name__)


def pack_folder(folder: Path, target: Path, output: Path) -> None:
    """Write the files of *folder* as an uncompressed tar, the same bytes for the same files: names sorted, no times,
    owners or rights, nothing hidden. Links to files are followed; what is no file is left out and counted.
    """
    check_apart(folder, output)
    left_out: Counter[str] = Counter()
    count = 0
    # GNU format: names are stored as the bytes that they are, of any length; sizes of any magnitude.
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape") as tar:
        for path in walk_files(folder, left_out):
            with open(path, "rb") as file:
                entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
                entry.size = os.fstat(file.fileno()).st_size
                try:
                    tar.addfile(entry, file)
                except OSError as error:
                    if error.errno is not None:
                        raise
                    raise UserError(f"{path} shrank while it was read: fetch again when nobody writes there") from error
            count += 1
    tell("packed", count, left_out, folder)


def list_folder(folder: Path, target: Path, output: Path) -> None:
    """Write the manifest of the files that :func:`pack_folder` would pack: they are to be read where they are."""
    check_apart(folder, output)
    left_out: Counter[str] = Counter()
    count = write_manifest(folder, walk_files(folder, left_out), target)
    tell("listed", count, left_out, folder)


def check_apart(folder: Path, output: Path) -> None:
    """Refuse a folder of images that holds what is made of it."""
    if output.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"dataset.source.path: {folder} holds {output} itself: give the folder of the images only")


def tell(done: str, count: int, left_out: Counter[str], folder: Path) -> None:
    """Say how many files of *folder* were taken, and what was left out; refuse an empty one."""
    for reason, number in sorted(left_out.items()):
        logger.info("left out %d of %s: %s", number, folder, reason)
    if not count:
        raise UserError(f"dataset.source.path: no files in {folder}")
    logger.info("%s %d files of %s", done, count, folder)
