"""What each job made, with its hash: recorded when it is made, compared before it is used again.

Beside its products a job leaves ``.made/<job>.json``: size, times and sha256 of each file. A file of the recorded size
and times is the recorded one; any other is hashed. Files of up to ALWAYS_BYTES are hashed whenever a job reads them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.lib.base.files import find_json, sha256_of, write_json, write_text
from scripts.lib.base.problems import UserError

#: Beside the products: the records of the jobs that made them, and the list of files of each product that is a folder.
RECORDS = ".made"
LISTING = ".files.jsonl"
#: Products of up to this size are hashed whenever a job reads them, whatever their size and times say.
ALWAYS_BYTES = 64 << 20
#: Snakemake's, in each product that is a folder.
TIMESTAMP = ".snakemake_timestamp"
AGAIN = "remove it and run the same command: it is made again"
GONE, CHANGED = "is gone", "is not what was made: it was changed, or is damaged"
#: Files that are looked at side by side: on a network file system looking is waiting; and how many a turn.
THREADS, TURN = 16, 500


@dataclass(frozen=True)
class Change:
    """A product that is not what its job made: ``product`` is as it was recorded, ``path`` it, or a file in it."""

    product: Path
    path: Path
    how: str

    def __str__(self) -> str:
        return f"{self.path} {self.how}"


@dataclass(frozen=True)
class Entry:
    """A file as it was recorded; *mtime* and *ctime* in ns since 1970."""

    size: int
    mtime: int
    ctime: int
    sha256: str

    @classmethod
    def of(cls, path: Path, sha256: str = "") -> Entry:
        """Return the entry of a file that is there; *sha256*: where it is known already."""
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, sha256 or sha256_of(path))


def record(job: str, paths: Iterable[Path], known: Mapping[str, str] | None = None) -> None:
    """Record what *job* made: files, and folders of files.

    Parameters
    ----------
    known : the sha256 of files elsewhere that a folder links to, by their absolute paths; they are not read again.
    """
    folders: dict[Path, dict[str, Any]] = {}
    for path in paths:
        if path.is_dir():
            entries = {
                name: Entry.of(file, (known or {}).get(os.readlink(file), "") if file.is_symlink() else "")
                for name, file in _files(path)
            }
            entry: Any = {"folder": _write_listing(path, entries)}
        else:
            entry = vars(Entry.of(path))
        folders.setdefault(path.parent, {})[path.name] = entry
    for folder, entries in folders.items():
        write_json(folder / RECORDS / f"{job}.json", entries)


def check(paths: Iterable[Path]) -> None:
    """Refuse files and folders that are not what was recorded; of those without a record nothing is known.

    Raises
    ------
    UserError : the first of them.
    """
    for path in dict.fromkeys(paths):
        for change in changes(path):
            refuse(change)


def check_files(folder: Path, names: Iterable[str]) -> None:
    """Refuse files of a product that is a folder, as :func:`check` does; *names*: their paths in it."""
    for change in _changes_in(folder, expected(folder), list(names), thorough=True, keep=False):
        refuse(change)


def refuse(change: Change) -> None:
    """Raise the UserError of a change."""
    product = "" if change.path == change.product else f"{change.product}: "
    raise UserError(f"{product}{change}", AGAIN if change.how != GONE else "run the same command: it is made again")


def changes(path: Path, *, thorough: bool = True, keep: bool = True) -> Iterator[Change]:
    """Yield what is not as recorded: a file that is gone or changed, files of a folder that are, or came to it.

    Parameters
    ----------
    thorough : hash what has the recorded size and times too, up to ALWAYS_BYTES.
    keep : note the new times of a file that turned out to be the same, so that it is not hashed again.
    """
    entry = expected(path)
    if entry is None:
        return
    if "folder" in entry:
        yield from _changes_in(path, entry, None, thorough=thorough, keep=keep)
    elif how := _difference(path, Entry(**entry), thorough):
        yield Change(path, path, how)
    elif keep and vars(now := Entry.of(path, entry["sha256"])) != entry:
        with suppress(OSError):  # somebody else's folder
            for file in _records(path.parent):
                content = find_json(file)
                if content.get(path.name) == entry:
                    write_json(file, content | {path.name: vars(now)})


def expected(path: Path) -> dict[str, Any] | None:
    """Return what is recorded of a product; None where nothing is."""
    entries = [entry for file in _records(path.parent) if isinstance(entry := find_json(file).get(path.name), dict)]
    return next(filter(_is_entry, entries), None)


def _is_entry(entry: dict[str, Any]) -> bool:
    if entry.keys() == {"folder"}:
        return isinstance(entry["folder"], str)
    numbers = [entry.get(name) for name in ("size", "mtime", "ctime")]
    return entry.keys() == _ENTRY and all(isinstance(number, int) for number in numbers)


def recorded_hashes(path: Path) -> Iterator[tuple[Path, str, Path]]:
    """Yield each file of a product, its recorded sha256, and the record; of a folder also its list of files."""
    entry = expected(path) or {}
    if "folder" not in entry:
        yield path, entry.get("sha256", ""), path.parent / RECORDS
        return
    entries = _read_listing(path, entry["folder"])
    if entries is None:
        yield _listing(path), "", path.parent / RECORDS
    for name, known in (entries or {}).items():
        yield path / name, known.sha256, _listing(path)


def is_record(file: Path) -> bool:
    """Tell whether a file is a record that can be read."""
    entries = find_json(file).values()
    return bool(entries) and all(isinstance(entry, dict) and _is_entry(entry) for entry in entries)


def record_source(product: Path, source: Path) -> None:
    """Record the local file that a product was taken from."""
    write_json(_source_of(product), vars(Entry.of(source)))


def source_changed(product: Path, source: Path) -> bool:
    """Tell whether a product was taken from other content than *source* has now; False where nothing is recorded."""
    entry, path = find_json(_source_of(product)), source
    if entry.keys() != _ENTRY or not path.is_file():
        return False
    if _difference(path, Entry(**entry), thorough=False):
        return True
    if vars(now := Entry.of(path, entry["sha256"])) != entry:
        with suppress(OSError):
            write_json(_source_of(product), vars(now))
    return False


def _source_of(product: Path) -> Path:
    return product.parent / RECORDS / f"{product.name}.source"


_ENTRY = {"size", "mtime", "ctime", "sha256"}


def recorded(folder: Path) -> list[Path]:
    """Return the products with a record in *folder*, itself not those in folders below it."""
    names = {name for file in _records(folder) for name in find_json(file)}
    return sorted(folder / name for name in names if os.path.basename(name) == name)


def _records(folder: Path) -> list[Path]:
    # The newest first: of a product that two rules made in the course of time, the last one counts.
    with suppress(OSError):
        return sorted((folder / RECORDS).glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    return []


def _difference(path: Path, entry: Entry, thorough: bool) -> str:
    """Return how a file differs from its entry; "" where it does not."""
    try:
        status = path.stat()
    except OSError:
        return GONE
    if status.st_size != entry.size:
        return CHANGED
    known = (status.st_mtime_ns, status.st_ctime_ns) == (entry.mtime, entry.ctime)
    if known and not (thorough and entry.size <= ALWAYS_BYTES):
        return ""
    return CHANGED if sha256_of(path) != entry.sha256 else ""


def _files(folder: Path, below: str = "") -> Iterator[tuple[str, Path]]:
    """Yield the files in a folder: path in it, with slashes, and the file; not through links to folders."""
    with os.scandir(folder) as scanned:
        for item in sorted(scanned, key=lambda item: item.name):
            if item.is_dir(follow_symlinks=False):
                yield from _files(Path(item.path), f"{below}{item.name}/")
            elif item.name != TIMESTAMP:
                yield f"{below}{item.name}", Path(item.path)


def _listing(folder: Path) -> Path:
    return folder.parent / RECORDS / f"{folder.name}{LISTING}"


def _write_listing(folder: Path, entries: Mapping[str, Entry]) -> str:
    """Write the list of a folder's files and return the hash of their names and contents."""
    lines = (json.dumps([name, *vars(entry).values()]) for name, entry in entries.items())
    write_text(_listing(folder), "".join(f"{line}\n" for line in lines))
    return _content(entries)


def _content(entries: Mapping[str, Entry]) -> str:
    digest = hashlib.sha256()
    for name in sorted(entries):
        digest.update(json.dumps([name, entries[name].sha256]).encode())
    return digest.hexdigest()


def _read_listing(folder: Path, content: str) -> dict[str, Entry] | None:
    """Return the files of a folder as recorded; None where the list itself is damaged or gone."""
    try:
        with open(_listing(folder), encoding="utf-8") as lines:
            entries = {name: Entry(*values) for name, *values in map(json.loads, lines)}
    except (OSError, ValueError, TypeError):
        return None
    return entries if _content(entries) == content else None


def _changes_in(
    folder: Path, entry: dict[str, Any] | None, names: list[str] | None, *, thorough: bool, keep: bool
) -> Iterator[Change]:
    if entry is None or "folder" not in entry:
        return
    entries = _read_listing(folder, entry["folder"])
    if not folder.is_dir() or entries is None:
        yield Change(folder, folder, GONE if not folder.is_dir() else CHANGED)
        return
    there = dict(_files(folder)) if names is None else {name: folder / name for name in names}
    yield from (Change(folder, folder / name, CHANGED) for name in there.keys() - entries.keys())
    wanted = {name: entries[name] for name in (entries if names is None else there) if name in entries}
    thorough = thorough and sum(entry.size for entry in wanted.values()) <= ALWAYS_BYTES

    def look(turn: list[str]) -> list[tuple[str, str]]:
        return [(name, how) for name in turn if (how := _difference(folder / name, wanted[name], thorough))]

    every = list(wanted)
    turns = [every[start : start + TURN] for start in range(0, len(every), TURN)]
    with ThreadPoolExecutor(THREADS) as pool:
        different = dict(pair for pairs in pool.map(look, turns) for pair in pairs)
    yield from (Change(folder, folder / name, how) for name, how in sorted(different.items()))
    if keep and names is None and not different:
        now = {name: Entry.of(folder / name, entry.sha256) for name, entry in entries.items()}
        if now != entries:
            with suppress(OSError):
                _write_listing(folder, now)
