"""A folder of images in place of an archive: packed as a tar, or listed in a manifest and linked to."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO

from scripts.lib.base.files import sha256_of, write_json
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.data.archive_entries import CHUNK, Entry, Limits, sniff_entry
from scripts.lib.data.image_paths import is_junk
from scripts.lib.data.tar_archives import open_tar

logger = logging.getLogger(__name__)


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
    write_json(left_out_beside(output), left_out)


def list_folder(folder: Path, target: Path, output: Path) -> None:
    """Write the manifest of the files that :func:`pack_folder` would pack: they are to be read where they are."""
    check_apart(folder, output)
    left_out: Counter[str] = Counter()
    count = write_manifest(folder, walk_files(folder, left_out), target)
    tell("listed", count, left_out, folder)
    write_json(left_out_beside(output), left_out)


def left_out_beside(archive: Path) -> Path:
    """Return the file that says what of a folder is not in its *archive*: how many files, by the reason."""
    return archive.with_name(f"{archive.name}.left_out.json")


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
    logger.info("%s %s of %s", done, plural(count, "file"), folder)


#: Stands for an archive's format.
MANIFEST = "manifest"
AGAIN = "run the same command again, when nobody writes there"


@dataclass(frozen=True, slots=True)
class Listed:
    """One file of a manifest: its path relative to the folder, size in bytes, sha256."""

    name: str
    size: int
    sha256: str


def write_manifest(folder: Path, files: Iterable[Path], target: Path) -> int:
    """Write a line ``["sha256", size, "path"]`` for each of *files*, and return how many there are.

    Where the folder lies, and the files' times, are not in it: the same files give the same bytes.
    """
    count = 0
    with open(target, "w", encoding="utf-8", errors="surrogateescape", newline="\n") as manifest:
        for path in files:
            before = path.stat()
            digest = sha256_of(path)
            after = path.stat()
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise UserError(f"{path} changed while it was read: {AGAIN}")
            manifest.write(_line(path.relative_to(folder).as_posix(), after.st_size, digest))
            count += 1
    return count


def _line(name: str, size: int, digest: str) -> str:
    return json.dumps([digest, size, name], ensure_ascii=False) + "\n"


def manifest_sha256(tar: Path) -> str:
    """Return the sha256 of the manifest of the folder that fetch_archive packed as *tar*."""
    whole = hashlib.sha256()
    with open_tar(tar, "tar", Limits()) as opened:
        while (member := opened.next()) is not None:
            opened.members.clear()  # type: ignore[attr-defined]  # tarfile keeps them all
            stream = opened.extractfile(member)
            digest = hashlib.sha256()
            while stream is not None and (block := stream.read(CHUNK)):
                digest.update(block)
            line = _line(member.name, member.size, digest.hexdigest())
            whole.update(line.encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


def read_manifest(manifest: Path) -> Iterator[Listed]:
    """Yield the files of a manifest, in its order."""
    with open(manifest, encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        for line in lines:
            try:
                digest, size, name = json.loads(line)
            except (ValueError, TypeError) as error:
                raise UserError(f"{manifest}: damaged: delete it and {AGAIN}") from error
            yield Listed(name, size, digest)


def known_files(manifest: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield absolute path and sha256 of each file of a manifest of *folder*."""
    absolute = Path(os.path.abspath(folder))
    yield from ((absolute / listed.name, listed.sha256) for listed in read_manifest(manifest))


def manifest_entries(manifest: Path, folder: Path) -> list[Entry]:
    """Return the files of a manifest of *folder* as the entries of an archive."""

    def read(name: str, size: int) -> bytes:
        with open(folder / name, "rb") as file:
            return file.read(size)

    return [
        Entry(
            os.fsencode(listed.name),
            listed.size,
            "file",
            format=sniff_entry(listed.name, partial(read, listed.name)),
        )
        for listed in read_manifest(manifest)
    ]


def read_listed(manifest: Path, folder: Path, index: int) -> bytes:
    """Return the content of the manifest's file number *index*.

    Raises
    ------
    UserError : it is not the file that was listed.
    """
    listed = next(islice(read_manifest(manifest), index, None))
    check_unchanged(folder / listed.name, listed, since=-1)
    return (folder / listed.name).read_bytes()


def open_listed(manifest: Path, folder: Path, targets: Sequence[str | None]) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Yield (where it goes, size, content) of each file of a manifest that has a target.

    Raises
    ------
    UserError : it is not the file that was listed any more.
    """
    since = manifest.stat().st_mtime_ns
    for listed, target in zip(read_manifest(manifest), targets, strict=True):
        if target is not None:
            check_unchanged(folder / listed.name, listed, since)
            with open(folder / listed.name, "rb") as content:
                yield target, listed.size, content


def check_unchanged(path: Path, listed: Listed, since: int) -> None:
    """Refuse a file that is not the listed one any more, by its size, and where it may have changed, by its sha256.

    Parameters
    ----------
    since : when the manifest was written, in ns; a file that was not touched after that is not read.
    """
    try:
        status = path.stat()
        same = status.st_size == listed.size
        if same and max(status.st_mtime_ns, status.st_ctime_ns) > since:
            same = sha256_of(path) == listed.sha256
    except FileNotFoundError:
        raise UserError(f"{path}: gone since the folder was listed: {AGAIN}") from None
    if not same:
        raise UserError(f"{path}: changed since the folder was listed: {AGAIN}")


def check_folder(manifest: Path, folder: Path) -> None:
    """Refuse a folder any of whose files is not the listed one any more.

    Raises
    ------
    UserError : the first such file.
    """
    since = manifest.stat().st_mtime_ns
    for listed in read_manifest(manifest):
        check_unchanged(folder / listed.name, listed, since)


def link_files(manifest: Path, folder: Path, targets: Sequence[str | None], output: Path) -> None:
    """Link to the files that have a target, below *output*, which exists and is ours alone.

    Raises
    ------
    UserError : a file is not the listed one any more.
    """
    since = manifest.stat().st_mtime_ns
    absolute = Path(os.path.abspath(folder))
    made = {output}
    for listed, target in zip(read_manifest(manifest), targets, strict=True):
        if target is None:
            continue
        path = absolute / listed.name
        check_unchanged(path, listed, since)
        link = output / target
        if link.parent not in made:
            link.parent.mkdir(parents=True, exist_ok=True)
            made.add(link.parent)
        link.symlink_to(path)
