"""Decide under which class, split and name an image of an archive goes: pure functions over names."""

from __future__ import annotations

import hashlib
import itertools
import posixpath
import re
import unicodedata
from collections.abc import Sequence

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
#: How people call the splits of a data set, to how we call them.
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
#: Folders and files that computers leave behind; everything hidden (a leading dot) is junk as well.
JUNK = frozenset(
    {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information"}
)

#: Longest name of a file in bytes (ext4, XFS, Lustre, NFS) and longest path below images/ (PATH_MAX is 4,096).
LONGEST_NAME, LONGEST_PATH = 255, 1024
NO_CLASS = "outside any class folder"
NO_SPLIT = "outside the train, val and test folders"

#: The folders and the file name of one image.
Components = tuple[str, ...]


def safe_component(name: str) -> str:
    """Return one component of a path so that it can stand in a line of text and be a file's name.

    Percent-encoded: control characters, line and paragraph separators, signs that turn the direction of writing,
    white space at the ends, the backslash, and bytes of no encoding. Longer than a file system takes: cut, with a
    hash of the whole name. Everything else (quotes, ``$(...)``, ``<script>``, Chinese) stays.
    """
    inner = name.strip()
    begin = len(name) - len(name.lstrip()) if inner else len(name)
    end = begin + len(inner)
    encoded = "".join(
        char if begin <= index < end and _stays(char) else _percent(char) for index, char in enumerate(name)
    )
    return shorten(encoded)


def _stays(char: str) -> bool:
    if char == "\\" or char == "\ufeff" or unicodedata.category(char) in ("Cc", "Zl", "Zp", "Cs"):
        return False
    return unicodedata.bidirectional(char) not in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))


def shorten(name: str, limit: int = LONGEST_NAME, ending: str = "") -> str:
    """Return *name* in at most *limit* bytes, *ending* before its suffix; what is cut leaves 8 digits of its hash."""
    stem, suffix = posixpath.splitext(name)
    if len(suffix.encode()) > 16:
        stem, suffix = name, ""
    if len((stem + ending + suffix).encode()) > limit:
        ending = f"~{hashlib.sha256(name.encode()).hexdigest()[:8]}{ending}"
        room = limit - len((ending + suffix).encode())
        stem = stem.encode()[:room].decode("utf-8", "ignore").rstrip()
    return stem + ending + suffix


def is_junk(components: Sequence[str]) -> bool:
    """Tell whether a path lies in, or is, what computers leave behind."""
    return any(name.startswith(".") or name.lower() in JUNK for name in components)


def is_image(name: str) -> bool:
    """Tell whether a file is an image by its name."""
    return posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES


def name_key(name: str) -> tuple[str, str]:
    """Sort names alike on every file system: some store Unicode composed, some decomposed."""
    return unicodedata.normalize("NFC", name), name


def group_pattern(text: str) -> re.Pattern[str]:
    """Return the pattern that names the group of an image, for :func:`group_of`.

    Raises
    ------
    ValueError : it is no regular expression, or has more than one capture group.
    """
    try:
        pattern = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from error
    if pattern.groups > 1:
        raise ValueError(f"{text!r} has {pattern.groups} capture groups: one at most; write the others as (?:...)")
    return pattern


def group_of(path: str, pattern: str | re.Pattern[str]) -> str:
    """Return the known group (patient, video) of an image: the pattern's capture group, else its whole match.

    The pattern is searched in *path*, relative to images/, with composed Unicode. "" where it does not match.
    """
    match = re.search(pattern, unicodedata.normalize("NFC", path))
    return (match[1 if match.re.groups else 0] or "") if match else ""


def find_layout(paths: Sequence[Components]) -> list[Components | str]:
    """Return for each image where it goes, ([split,] class, ..., file), or the reason why it is left out.

    The folders that all images share are stripped. Where what is left are folders called train, val or test (or
    the like), with class folders inside, they are the splits; else the first folders are the classes (a vehicle data
    set may well have a class *train*). Splits inside class folders are turned round.

    Parameters
    ----------
    paths : folders and file name of each image, as they lie in the archive.
    """
    paths = _strip_shared(paths)
    if _are_splits(paths):
        splits = [_split(path[0]) if len(path) > 1 else None for path in paths]
        inside = iter(_strip_shared([path[1:] for path, split in zip(paths, splits, strict=True) if split]))
        return [NO_SPLIT if split is None else _in_class((split,), next(inside)) for split in splits]
    if _are_classes_of_splits(paths):
        return [(SPLIT_NAMES[path[1].lower()], path[0], *path[2:]) if len(path) > 2 else NO_CLASS for path in paths]
    return [_in_class((), path) for path in paths]


def find_classes(paths: Sequence[Components]) -> list[Components | str]:
    """Return for each image where it goes, (class, ..., file), as :func:`find_layout` does, but without any split."""
    stripped = _strip_shared(paths)
    parted = _are_splits(stripped) or _are_classes_of_splits(stripped)
    return [target[1:] if parted and not isinstance(target, str) else target for target in find_layout(paths)]


def find_splits_of_class(paths: Sequence[Components], label: str, split: str | None = None) -> list[Components | str]:
    """Return for each image of the class *label* where it goes, ([split,] class, ..., file).

    The folders that all images share are stripped; where those below are called train, val or test, they are splits,
    unless all images belong to the given *split*.
    """
    folders = [path[:-1] for path in paths]
    depth = len(posixpath.commonprefix([min(folders), max(folders)])) if folders else 0
    stripped = [path[depth:] for path in paths]
    if split:
        return [(split, label, *path) for path in stripped]
    splits = {_split(path[0]) if len(path) > 1 else None for path in stripped}
    if None not in splits and "train" in splits:
        return [(SPLIT_NAMES[path[0].lower()], label, *path[1:]) for path in stripped]
    return [(label, *path) for path in stripped]


def _split(folder: str) -> str | None:
    return SPLIT_NAMES.get(folder.lower())


def _in_class(before: Components, path: Components) -> Components | str:
    return before + path if len(path) > 1 else NO_CLASS


def _strip_shared(paths: Sequence[Components]) -> list[Components]:
    """Remove the leading folders that all images share, unless that leaves no folder: then it is the only class.

    Images that lie directly in one of those folders (a cover, a sample picture) do not keep it.
    """
    depth = 0
    while True:
        folders = {path[depth] for path in paths if len(path) > depth + 1}
        if len(folders) != 1:
            break
        depth += 1
    if not folders:
        depth = min((len(path) - 2 for path in paths if len(path) > 1), default=0)
    return [path[depth:] or path[-1:] for path in paths]


def _are_splits(paths: Sequence[Components]) -> bool:
    """Tell whether the first folders are splits: all are called so; or train with class folders, and another one."""
    folders = {path[0] for path in paths if len(path) > 1}
    named = {split for folder in folders if (split := _split(folder))}
    if folders and all(_split(folder) for folder in folders):
        return True
    train_has_classes = any(len(path) > 2 and _split(path[0]) == "train" for path in paths)
    return train_has_classes and len(named) > 1


def _are_classes_of_splits(paths: Sequence[Components]) -> bool:
    """Tell whether each class folder holds nothing but train, val and test folders."""
    inside = [_split(path[1]) if len(path) > 2 else None for path in paths if len(path) > 1]
    return bool(inside) and None not in inside and "train" in inside


class Taken:
    """The names given so far: a second file of the same name gets ``~2``, a third ``~3``."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.folders: set[str] = set()

    def take(self, components: Sequence[str]) -> str:
        """Return the path for *components*, which nothing else has."""
        whole = "/".join(components)
        if len(whole.encode()) > LONGEST_PATH:  # split and class stay; the folders below them go
            digest = hashlib.sha256(whole.encode()).hexdigest()[:16]
            kept = 2 if components[0] in SPLIT_NAMES.values() and len(components) > 2 else 1
            components = [*components[:kept], f"long~{digest}{posixpath.splitext(components[-1])[1]}"]
        path = ""
        for folder in components[:-1]:
            path = self._free(path, folder, self.files)
            self.folders.add(path)
        path = self._free(path, components[-1], self.files, self.folders)
        self.files.add(path)
        return path

    @staticmethod
    def _free(folder: str, name: str, *taken: set[str]) -> str:
        """Return *name* in *folder*, numbered where one of *taken* holds it."""
        candidate = posixpath.join(folder, name)
        numbers = itertools.count(2)
        while any(candidate in names for names in taken):
            candidate = posixpath.join(folder, shorten(name, ending=f"~{next(numbers)}"))
        return candidate
