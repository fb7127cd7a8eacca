"""Archives: what kind, which entries, what is in them, none of it trusted; and the recorded sha256 of one."""

from __future__ import annotations

import re
import shutil
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from scripts.lib.base.console import one_line
from scripts.lib.base.files import sha256_of
from scripts.lib.base.problems import UserError
from scripts.lib.data.archive_entries import CHUNK, DECODER_ERRORS, Entries, Limits, damage
from scripts.lib.data.file_kinds import JSON, UNPACK, is_text, kind_of
from scripts.lib.data.image_formats import describe_unread, is_read, sniff
from scripts.lib.data.tar_archives import Metered, decompressed, list_tar, open_tar, tar_members
from scripts.lib.data.zip_archives import list_zip, open_zip, open_zip_entry

#: How archives begin.
MAGIC = {
    b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"PK00PK\x03\x04": "zip",
    b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zst",
}  # fmt: skip
#: Bytes by which a file is judged; and how the kinds begin of what is compressed and an archive itself.
HEAD, TWICE = 4096, "twice-"
#: Where an image of a disc says what it is (ECMA-119).
_ISO = 32769


class NoArchive(UserError):
    """A file that cannot be unpacked; *content* is what it holds instead."""

    def __init__(self, path: Path, content: str, remedy: str) -> None:
        super().__init__(f"{path}: {content}", remedy)
        self.content = content


def sniff_format(path: Path) -> str:
    """Return zip, tar, gz, bz2, xz or zst by the first bytes of *path*: of the last four, a tar that is compressed.

    What is compressed and no tar, but an archive itself, is ``twice-gz``, and so on: see :func:`unwrapped`.

    Raises
    ------
    NoArchive : it is none of these.
    """
    with open(path, "rb") as file:
        kind, head = _sniff(file)
        if kind == "tar" and not head.strip(b"\0") and (rest := _behind_zeros(file)):
            raise NoArchive(path, *rest)
        if kind in ("zip", "tar"):
            return kind
        if not kind and not kind_of(head) and zipfile._EndRecData(file):  # type: ignore[attr-defined]
            return "zip"  # behind something else, or the last part of one that was split
        if not kind:
            raise NoArchive(path, *_describe(head))
        file.seek(0)
        try:
            with decompressed(file, kind) as stream:
                inner, head = _sniff(stream)
        except (*DECODER_ERRORS, OSError):
            return kind  # its damage is said when it is read
    if not inner and (head or kind != "zst"):  # of zst, what ends too early looks empty as well
        what, remedy = _describe(head)
        raise NoArchive(path, f"compressed by {kind}, and inside it {what}", remedy)
    return kind if inner in ("tar", "") else f"{TWICE}{kind}"


def _sniff(stream: IO[bytes]) -> tuple[str, bytes]:
    """Return the kind of an archive, "" for none, and how it begins."""
    head = b""
    while len(head) < HEAD and (piece := stream.read(HEAD - len(head))):
        head += piece
    kind = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), "")
    if kind == "zip" and kind_of(head):
        kind = ""  # a document of Office is a zip as well
    return kind or ("tar" if _is_tar_header(head[: tarfile.BLOCKSIZE]) else ""), head


def _behind_zeros(file: IO[bytes]) -> tuple[str, str] | None:
    """Return what begins with zeros, as an empty tar does, and is none; None: there is nothing else at its begin."""
    file.seek(0)
    begin = file.read(16 * HEAD)
    if not begin.strip(b"\0"):
        return None
    disc = begin[_ISO : _ISO + 5] == b"CD001"
    what = "an ISO image of a disc" if disc else "no archive that mimflow knows, perhaps the image of a disk"
    return f"{what}, not a zip or tar (.gz, .bz2, .xz, .zst)", UNPACK


def _describe(head: bytes) -> tuple[str, str]:
    """Return what begins with *head*, which no archive does, and what to do."""
    what, remedy = kind_of(head) or ("", "")
    if not what and not head:
        what, remedy = "an empty file", "bring it here again: it was not fetched, or not copied"
    if not what and (picture := sniff(head)):
        what, remedy = picture, "give the folder that it lies in" if is_read(picture) else describe_unread(picture)
    if not what and JSON.match(head):
        what = "a JSON text"
    if not what and is_text(head):
        wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
        what = f"a text ({one_line(head[:60].decode('utf-16' if wide else 'utf-8', 'replace'))!r})"
    what = f"{what or 'no archive that mimflow knows'}, not a zip or tar (.gz, .bz2, .xz, .zst)"
    return what, remedy or "repack it, or give the unpacked folder"


@contextmanager
def unwrapped(archive: Path, kind: str, limits: Limits, folder: Path) -> Iterator[tuple[Path, str, Limits]]:
    """Yield an archive that can be read, its kind and limits: of a gzipped zip, the zip, in *folder* for as long.

    What comes out of all layers together is limited as if there were one.

    Raises
    ------
    UserError : it is compressed more than twice, damaged, or a decompression bomb.
    """
    if not kind.startswith(TWICE):
        yield archive, kind, limits
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / archive.name
    try:
        with open(archive, "rb") as file, damage(archive), decompressed(file, kind.removeprefix(TWICE)) as stream:
            metered = Metered(stream, archive, limits)
            with open(path, "wb") as whole:
                while piece := metered.read(CHUNK):
                    whole.write(piece)
        inner, size = sniff_format(path), max(path.stat().st_size, 1)
        if inner.startswith(TWICE):
            raise UserError(f"{archive}: compressed again and again", "unpack it and give the folder")
        yield path, inner, replace(limits, ratio=limits.ratio * archive.stat().st_size / size)
    finally:
        shutil.rmtree(folder)


def _is_tar_header(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # only zeros: a tar without any entry
        return True
    except tarfile.TarError:
        return False
    return True


def read_entries(archive: Path, kind: str, limits: Limits) -> Entries:
    """Return the entries of an archive of any kind, in order, without writing anything."""
    return list_zip(archive, limits) if kind == "zip" else list_tar(archive, kind, limits)


def open_contents(
    archive: Path, kind: str, limits: Limits, targets: Sequence[str | None]
) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Yield (where it goes, declared size, content) of each entry that has a target, in the archive's order."""
    if kind == "zip":
        with open_zip(archive, limits) as zipped:
            for info, target in zip(zipped.infolist(), targets, strict=True):
                if target is not None:
                    with open_zip_entry(zipped, info) as content:
                        yield target, info.file_size, content
        return
    with open_tar(archive, kind, limits) as tar:
        for member, target in zip(tar_members(tar), targets, strict=True):
            if target is not None:
                stream = tar.extractfile(member)
                assert stream is not None  # plan() gives targets to regular files only
                yield target, member.size, stream


@dataclass(frozen=True)
class HashRecord:
    """A known hash and the source that it belongs to."""

    sha256: str
    source: str


def read_record(path: Path) -> HashRecord | None:
    """Return what an earlier fetch recorded, None when there is nothing, or nothing that can be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    match = re.match(r"([0-9a-f]{64})  [^\n]*\n(?:# source: ([^\n]*)\n)?", text)
    return HashRecord(match[1], match[2] or "") if match else None


def format_record(record: HashRecord, archive: str) -> str:
    """Return the record as text that ``sha256sum -c`` reads; the source stands in a comment."""
    return f"{record.sha256}  {archive}\n# source: {' '.join(record.source.split())}\n"


def record_path(path: str) -> str:
    """Return where the sha256 of a fetched file is recorded: beside it, so that `sha256sum -c` checks it."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{name.partition('.')[0]}.sha256"


def check_fetched(path: Path) -> None:
    """Refuse a fetched file that is not the one whose sha256 was recorded beside it; without a record it is taken.

    Raises
    ------
    UserError : it was changed since, or is damaged.
    """
    record = Path(record_path(str(path)))
    known = read_record(record)
    if record.is_file() and known is None:
        raise UserError(f"{record}: damaged: its first line is no sha256", f"remove {path} and it: it is fetched again")
    if known and (digest := sha256_of(path)) != known.sha256:
        what = (
            f"{path}: not the file that was fetched: sha256 {digest[:12]}..., {record.name} says {known.sha256[:12]}..."
        )
        raise UserError(what, "remove it and run the same command: it is fetched again")
