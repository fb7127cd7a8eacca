"""What each job made, with its hash: recorded when it is made, compared before it is used again.

Beside its products a job leaves ``.made/<job>.json``: size, times and sha256 of each file. A file of the recorded size
and times is the recorded one; any other is hashed. Files of up to ALWAYS_BYTES are hashed whenever a job reads them.
The workflow adds what they were made of: see :mod:`scripts.lib.workflow.records`.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from scripts.lib.base import ranges
from scripts.lib.base.contents import files_of
from scripts.lib.base.files import find_json, sha256_of, write_json, write_text
from scripts.lib.base.problems import UserError

#: Beside the products: the records of the jobs that made them, and the list of files of each product that is a folder.
RECORDS = ".made"
LISTING = ".files.jsonl"
#: Of a record: the products by name, and of what its job made them.
FILES, ORIGIN = "files", "origin"
#: Products of up to this size are hashed whenever a job reads them, whatever their size and times say.
ALWAYS_BYTES = 64 << 20
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
    known : the sha256 of files elsewhere that a folder links to, or whose ranges its images are, by their absolute
        paths; they are not read again.
    """
    folders: dict[Path, dict[str, Any]] = {}
    for path in paths:
        if path.is_dir():
            entries = {
                name: Entry.of(file, (known or {}).get(os.readlink(file) if file.is_symlink() else str(file), ""))
                for name, file in _files(path)
            }
            entry: Any = {"folder": _write_listing(path, entries)}
        else:
            entry = vars(Entry.of(path))
        folders.setdefault(path.parent, {})[path.name] = entry
    for folder, entries in folders.items():
        _write(folder / RECORDS / f"{job}.json", {FILES: entries})


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
    chosen = None if ranges.files_beside(folder) else list(names)  # shards are few
    for change in _changes_in(folder, expected(folder), chosen, thorough=True, keep=False):
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
            file, content = _index(path.parent)[path.name]
            _write(file, content | {FILES: content[FILES] | {path.name: vars(now)}})


def expected(path: Path) -> dict[str, Any] | None:
    """Return what is recorded of a product; None where nothing is."""
    _file, content = _index(path.parent).get(path.name, (None, {}))
    return content[FILES][path.name] if content else None


def recorded_sha256(path: Path) -> str | None:
    """Return the hash of a product as it was made, of a folder that of its files' names and contents."""
    entry = expected(path) or {}
    return entry.get("folder") or entry.get("sha256")


def sha256_now(path: Path) -> str | None:
    """Return the hash of a product as it is now, read only where it does not look as it was made; None without one."""
    known = recorded_sha256(path)
    if known and not (os.path.lexists(path) and any(changes(path, thorough=False, keep=False))):
        return known
    if path.is_dir():
        return _content(path, {name: Entry.of(file) for name, file in _files(path)})
    return sha256_of(path) if path.is_file() else None


def describe(made: Iterable[Path], origin: Mapping[str, Any]) -> None:
    """Add to the records of what a job made, of what it made that."""
    records = dict(record for path in made if (record := _index(path.parent).get(path.name)))
    for file, content in records.items():
        _write(file, content | {ORIGIN: dict(origin)})


def forget(product: Path) -> bool:
    """Remove the record of the job that made a product; return whether there was one."""
    file, _content = _index(product.parent).get(product.name, (None, {}))
    if file:
        file.unlink(missing_ok=True)
        _known.pop(str(product.parent), None)
    return file is not None


def origin(product: Path) -> dict[str, Any] | None:
    """Return of what a product was made; None where that is not recorded."""
    _file, content = _index(product.parent).get(product.name, (None, {}))
    return content[ORIGIN] if isinstance(content.get(ORIGIN), dict) else None


def recorded_at(product: Path) -> int | None:
    """Return when the record of a product was written last, in ns since 1970; None without one."""
    file, _content = _index(product.parent).get(product.name, (None, {}))
    return file.stat().st_mtime_ns if file else None


def made_with(product: Path) -> list[Path]:
    """Return all that the job of a product made beside it, itself among them; nothing without a record."""
    _file, content = _index(product.parent).get(product.name, (None, {}))
    return [product.with_name(name) for name in content.get(FILES, {})]


#: By folder: when its records changed last, and what _read_records returned then.
_known: dict[str, tuple[int, dict[str, tuple[Path, dict[str, Any]]]]] = {}


def _index(folder: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """Return, for each product in a folder, its record and what that holds."""
    name = str(folder)  # a Path's own operations take longer than all that is left to do here
    try:
        changed = os.stat(f"{name}/{RECORDS}").st_mtime_ns
        known = _known.get(name)
        if known is None or known[0] != changed:
            known = _known[name] = changed, _read_records(folder / RECORDS)
        return known[1]
    except OSError:
        return {}


def _read_records(folder: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    # The newest last: of a product that two rules made in the course of time, the last one counts.
    records: dict[str, tuple[Path, dict[str, Any]]] = {}
    for file in sorted(records_in(folder), key=lambda path: path.stat().st_mtime_ns):
        content = find_json(file)
        content[FILES] = {name: entry for name, entry in _entries(content).items() if _is_entry(entry)}
        records |= dict.fromkeys(content[FILES], (file, content))
    return records


def records_in(folder: Path) -> list[Path]:
    """Return the records in a folder; a hidden file is one that is being written, and gone a moment later."""
    return [path for path in folder.glob("*.json") if not path.name.startswith(".")]


def _write(file: Path, content: Mapping[str, Any]) -> None:
    write_json(file, content)
    _known.pop(str(file.parents[1]), None)  # the clock of a file system is too coarse to tell two writes apart


def _entries(content: Mapping[str, Any]) -> dict[str, Any]:
    entries = content.get(FILES)
    return entries if isinstance(entries, dict) else {}


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict):
        return False
    if entry.keys() == {"folder"}:
        return isinstance(entry["folder"], str)
    numbers = [entry.get(name) for name in ("size", "mtime", "ctime")]
    return entry.keys() == Entry.__dataclass_fields__.keys() and all(isinstance(number, int) for number in numbers)


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
    entries = _entries(find_json(file)).values()
    return bool(entries) and all(map(_is_entry, entries))


def recorded(folder: Path) -> list[Path]:
    """Return the products with a record in *folder* itself, not those in folders below it."""
    return sorted(folder / name for name in _index(folder) if os.path.basename(name) == name)


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
    now = sha256_of(path) if thorough else _sha256_at(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return CHANGED if now != entry.sha256 else ""


@cache
def _sha256_at(path: Path, *_seen: int) -> str:
    return sha256_of(path)


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    yield from ((name, Path(entry.path)) for name, entry in files_of(folder))
    yield from ((name, folder / name) for name in ranges.files_beside(folder))


def _listing(folder: Path) -> Path:
    return folder.parent / RECORDS / f"{folder.name}{LISTING}"


def _write_listing(folder: Path, entries: Mapping[str, Entry]) -> str:
    """Write the list of a folder's files and return the hash of their names and contents."""
    lines = (json.dumps([name, *vars(entry).values()]) for name, entry in entries.items())
    write_text(_listing(folder), "".join(f"{line}\n" for line in lines))
    return _content(folder, entries)


def _content(folder: Path, entries: Mapping[str, Entry]) -> str:
    """Return the hash of names and contents: with an index, that of its images, as if each were a file."""
    digest = hashlib.sha256()
    others = set(ranges.files_beside(folder))
    files = ((name, entries[name].sha256) for name in sorted(entries) if name not in others)
    for pair in heapq.merge(files, ((image.name, image.sha256) for image in ranges.images_in(folder))):
        digest.update(json.dumps(pair).encode())
    return digest.hexdigest()


def _read_listing(folder: Path, content: str) -> dict[str, Entry] | None:
    """Return the files of a folder as recorded; None where the list itself is damaged or gone."""
    try:
        with open(_listing(folder), encoding="utf-8") as lines:
            entries = {name: Entry(*values) for name, *values in map(json.loads, lines)}
        return entries if _content(folder, entries) == content else None
    except (OSError, ValueError, TypeError, UserError):
        return None


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
