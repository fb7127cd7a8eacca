"""What a file or folder holds, told by its size and times where they are known, else by its bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.lib.base.files import sha256_of

#: What file managers leave in folders that are looked at; names with a dot in front count as such, too.
LITTER = frozenset({"Thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class Content:
    """The hash of a file or folder, and by what a later look finds that nobody has touched it.

    Attributes
    ----------
    seen : of a file its size, time of change, and time of the inode's change, which no program sets; of a folder a hash
        of those of all files.
    """

    sha256: str
    seen: list[int] | str

    def as_json(self) -> dict[str, Any]:
        """Return it as it is recorded."""
        return {"sha256": self.sha256, "seen": self.seen}


def content_of(path: Path, known: Mapping[str, Any] | None = None) -> Content | None:
    """Return the content of a file or folder; None where there is none.

    Parameters
    ----------
    known : what was recorded of it: its bytes are read only where size or times are others.
    """
    try:
        seen: list[int] | str = _seen_folder(path) if path.is_dir() else _seen(path.stat())
        if known and known.get("seen") == seen and isinstance(known.get("sha256"), str):
            return Content(known["sha256"], seen)
        return Content(_sha256_of_folder(path) if path.is_dir() else sha256_of(path), seen)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _seen(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _seen_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for name, entry in files_of(folder):
        digest.update(f"{name}\0{_seen(entry.stat())}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _sha256_of_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for name, entry in files_of(folder):
        digest.update(f"{name}\0{sha256_of(entry.path)}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def files_of(folder: Path, prefix: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield the files below a folder, by their path in it, but what file managers, and Snakemake, leave there."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name in LITTER:
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from files_of(Path(entry.path), f"{prefix}{entry.name}/")
            else:
                yield f"{prefix}{entry.name}", entry
