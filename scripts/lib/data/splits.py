"""The splits of a data set: train, val and test, as folders bring them and as annotation files hold them."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.lib.base.files import read_lines
from scripts.lib.base.problems import UserError
from scripts.lib.data.grouped_split import name_key
from scripts.lib.data.image_paths import is_image, is_junk

logger = logging.getLogger(__name__)


def listed_images(splits: Iterable[Path]) -> list[str]:
    """Return the images that annotation files (``path label`` lines) name, each once, in their order."""
    return list(dict.fromkeys(line.rpartition(" ")[0] for split in splits for line in read_lines(split)))


def count_labels(lines: Iterable[str]) -> Counter[int]:
    """Return how many lines of an annotation file (``path label``) have each label.

    Raises
    ------
    ValueError, IndexError : a line is not of this form.

    >>> count_labels(["a b/1.jpg 1", "c/2.jpg 0", "c/3.jpg 1"])
    Counter({1: 2, 0: 1})
    """
    return Counter(int(line.rsplit(" ", 1)[1]) for line in lines)


#: The sides of a split, lowest first.
SIDES = ("train", "val", "test")


#: How many folds there may be.
FEWEST_FOLDS, MOST_FOLDS = 2, 20


@dataclass(frozen=True, slots=True)
class Image:
    """One image.

    ``path``: relative to the images' folder, with slashes; ``part``: the part that the archive gave it, "" where it
    gave none.
    """

    path: str
    label: str
    part: str = ""


def find_images(folder: Path) -> list[Image]:
    """Return the images below *folder*: [train|val|test/]<class>/.../<file>, in an order of their names only.

    Raises
    ------
    UserError : there are none, or there is a test or val part without a train part.
    """
    tops = sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_junk([path.name]))
    parts = tops if tops and set(tops) <= set(SIDES) else [""]
    images = [
        Image(path, path.split("/")[1 if part else 0], part)
        for part in parts
        for path in _image_files(folder, part)
        if path.count("/") >= (2 if part else 1)
    ]
    if not images:
        raise UserError(f"{folder}: no images: expected one folder a class, with its images in it")
    if parts != [""] and "train" not in {image.part for image in images}:
        found = " and ".join(sorted({image.part for image in images}))
        raise UserError(f"{folder}: only {found} has images, train has none: there is nothing to learn from")
    return sorted(images, key=lambda image: name_key(image.path))


def _image_files(folder: Path, part: str) -> list[str]:
    """Return the paths of the images below *folder*/*part*, relative to *folder*."""
    found = []
    for place, folders, files in os.walk(folder / part):
        folders[:] = [name for name in folders if not is_junk([name])]
        below = Path(place).relative_to(folder).as_posix()
        found += [f"{below}/{name}".removeprefix("./") for name in files if is_image(name) and not is_junk([name])]
    return found


def settle_given_parts(images: Sequence[Image]) -> list[Image]:
    """Return the images with ``part`` as the side that they are given to ("" or train: still to be shared out).

    Where only train and val are given, the given val becomes test (design): a val that chose the epoch is no test.
    """
    given = {image.part for image in images}
    if "val" in given and "test" not in given:
        logger.info("the archive has train and val only: its val is the test set, a new val is taken from train")
        return [replace(image, part="test") if image.part == "val" else image for image in images]
    return list(images)


@dataclass(frozen=True)
class Splits:
    """Which images are in which part.

    ``parts``: files of train, val and test; ``folds``: how many there are, 0 without; the parts are those of fold 0.
    """

    parts: Mapping[str, Sequence[str]]
    folds: int = 0


def read_splits(folder: Path) -> Splits:
    """Read the annotation files of split_dataset; where there are folds, of fold 0 or of the one that *folder* is.

    Raises
    ------
    UserError : one is missing.
    """
    whole = folder.parent if _is_fold(folder) else folder
    folds = sum(1 for path in whole.iterdir() if _is_fold(path)) if whole.is_dir() else 0
    place = folder / "fold0" if folds and whole == folder else folder
    try:
        lines = {part: read_lines(place / f"{part}.txt") for part in SIDES}
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: no such file; make it with scripts.data.split_dataset") from None
    return Splits({part: [line.rpartition(" ")[0] for line in of_part] for part, of_part in lines.items()}, folds)


def _is_fold(folder: Path) -> bool:
    return folder.is_dir() and re.fullmatch("fold[0-9]+", folder.name) is not None
