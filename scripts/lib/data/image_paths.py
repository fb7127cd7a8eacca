"""The names of images: how archives encode them, which are junk, and how they are written below images/."""

from __future__ import annotations

import hashlib
import itertools
import posixpath
import re
import unicodedata
from collections.abc import Sequence

from scripts.lib.data.image_formats import has_image_suffix
from scripts.lib.data.split_words import WORDS

#: Folders and files that computers leave behind; everything hidden (a leading dot) is junk as well.
JUNK = frozenset(
    {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "system volume information"}
)

#: Longest name of a file in bytes (ext4, XFS, Lustre, NFS) and longest path below images/ (PATH_MAX is 4,096).
LONGEST_NAME, LONGEST_PATH = 255, 1024

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
    return has_image_suffix(name)


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
            kept = 2 if components[0] in WORDS and len(components) > 2 else 1
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
