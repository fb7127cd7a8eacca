"""The splits of a data set: train, val and test, as folders bring them and as annotation files hold them."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.lib.base import ranges
from scripts.lib.base.files import read_lines
from scripts.lib.base.problems import UserError
from scripts.lib.data.image_formats import HEAD, is_read, sniff
from scripts.lib.data.image_paths import is_image, is_junk, name_key
from scripts.lib.data.split_words import WORDS

#: The splits, lowest first.
SPLITS = tuple(WORDS)
#: How many folds there may be.
FEWEST_FOLDS, MOST_FOLDS = 2, 20


@dataclass(frozen=True, slots=True)
class Image:
    """One image.

    ``path``: relative to the images' folder, with slashes; ``label``: its class; ``split``: the one that the archive
    gave it, "" where it gave none.
    """

    path: str
    label: str
    split: str = ""


@dataclass(frozen=True, slots=True)
class Split:
    """One split, as its annotation file has it: a line ``path label`` an image.

    ``images``: their paths, relative to the images' folder; ``labels``: the label of each, an index into classes.txt.
    """

    name: str
    images: Sequence[str]
    labels: Sequence[int]

    @classmethod
    def of(cls, name: str, images: Iterable[Image], classes: Sequence[str]) -> Split:
        """Return a split of *images*, ordered by label, then by name; their classes are all among *classes*."""
        label_of = {label: index for index, label in enumerate(classes)}
        ordered = sorted(images, key=lambda image: (label_of[image.label], name_key(image.path)))
        return cls(name, [image.path for image in ordered], [label_of[image.label] for image in ordered])

    @classmethod
    def read(cls, path: Path) -> Split:
        """Read an annotation file; it is called as the split.

        Raises
        ------
        UserError : it is missing, or a line is not of this form.
        """
        try:
            pairs = [line.rsplit(" ", 1) for line in read_lines(path)]
            return cls(path.stem, [pair[0] for pair in pairs], [int(pair[1]) for pair in pairs])
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file; make it with scripts.data.split_dataset") from error
        except (ValueError, IndexError) as error:
            what = f"{path}: not an annotation file of `path label` lines ({error})"
            raise UserError(what, "split the data again") from error

    def write(self, folder: Path) -> None:
        """Write the annotation file into *folder*."""
        lines = "".join(f"{image} {label}\n" for image, label in zip(self.images, self.labels, strict=True))
        (folder / f"{self.name}.txt").write_text(lines, encoding="utf-8")

    def counts(self) -> Counter[int]:
        """Return how many images each label has."""
        return Counter(self.labels)


@dataclass(frozen=True)
class Splits:
    """The splits of a data set by their names; ``folds``: how many there are, 0 without, then they are those of one."""

    by_name: Mapping[str, Split]
    folds: int = 0


def listed_images(paths: Iterable[Path]) -> list[str]:
    """Return the images that annotation files name, each once, in their order."""
    return list(dict.fromkeys(image for path in paths for image in Split.read(path).images))


def read_splits(folder: Path) -> Splits:
    """Read the annotation files of split_dataset; where there are folds, of fold 0 or of the one that *folder* is.

    Raises
    ------
    UserError : one is missing.
    """
    whole = folder.parent if _is_fold(folder) else folder
    folds = sum(1 for path in whole.iterdir() if _is_fold(path)) if whole.is_dir() else 0
    chosen = folder / "fold0" if folds and whole == folder else folder
    return Splits({name: Split.read(chosen / f"{name}.txt") for name in SPLITS}, folds)


def _is_fold(folder: Path) -> bool:
    return folder.is_dir() and re.fullmatch("fold[0-9]+", folder.name) is not None


def find_images(folder: Path) -> list[Image]:
    """Return the images below *folder*: [train|val|test/]<class>/.../<file>, in an order of their names only.

    Raises
    ------
    UserError : there are none, or there is a test or val split without a train split.
    """
    tops = sorted(top_folders(folder))
    splits = tops if tops and set(tops) <= set(SPLITS) else [""]
    images = [
        Image(path, path.split("/")[1 if split else 0], split)
        for split in splits
        for path in _image_files(folder, split)
        if path.count("/") >= (2 if split else 1)
    ]
    if not images:
        raise UserError(f"{folder}: no images: expected one folder a class, with its images in it")
    if splits != [""] and "train" not in {image.split for image in images}:
        present = " and ".join(sorted({image.split for image in images}))
        raise UserError(f"{folder}: only {present} has images, train has none: there is nothing to learn from")
    return sorted(images, key=lambda image: name_key(image.path))


def top_folders(folder: Path) -> set[str]:
    """Return the names of the folders in a folder of images, which may be those of splits or of classes."""
    names = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    names.update(name.split("/")[0] for name in ranges.names_below(folder) if "/" in name)
    return {name for name in names if not is_junk([name])}


def _image_files(folder: Path, split: str) -> list[str]:
    """Return the paths of the images below *folder*/*split*, relative to *folder*."""
    within = f"{split}/" if split else ""
    paths = [f"{within}{name}" for name in ranges.names_below(folder / split) if not is_junk(name.split("/"))]
    for current, folders, files in os.walk(folder / split):
        folders[:] = [name for name in folders if not is_junk([name])]
        below = Path(current).relative_to(folder).as_posix()
        paths += [
            f"{below}/{name}".removeprefix("./")
            for name in files
            if not is_junk([name]) and (is_image(name) or _is_read(Path(current, name)))
        ]
    return paths


def _is_read(path: Path) -> bool:
    """Tell from its first bytes whether a file without the suffix of an image is one."""
    with contextlib.suppress(OSError):
        if path.is_file():
            with open(path, "rb") as file:
                return is_read(sniff(file.read(HEAD), path.name))
    return False


#: What is said where the given val becomes test.
VAL_IS_TEST = "only train and val are given: the given val is the test set, and a new val is taken from train"


def settle_given_splits(images: Sequence[Image]) -> list[Image]:
    """Return the images with ``split`` as the one that they are given to ("" or train: still to be shared out).

    Where only train and val are given, the given val becomes test: a val that chose the epoch is no test.
    """
    given_splits = {image.split for image in images}
    if "val" in given_splits and "test" not in given_splits:
        return [replace(image, split="test") if image.split == "val" else image for image in images]
    return list(images)
