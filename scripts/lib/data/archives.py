"""Archives: what kind, which entries, what is in them, none of it trusted; and the recorded sha256 of one."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from scripts.lib.base.problems import UserError
from scripts.lib.data.archive_entries import Entries, Limits
from scripts.lib.data.tar_archives import list_tar, open_tar, tar_members
from scripts.lib.data.zip_archives import list_zip, open_zip, open_zip_entry

#: How archives begin.
MAGIC = {
    b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zst",
}  # fmt: skip
#: What people offer instead of an archive that we read.
FOREIGN = {b"Rar!": "a RAR archive", b"7z\xbc\xaf\x27\x1c": "a 7z archive", b"<": "a web page", b"{": "a JSON text"}


class NoArchive(UserError):
    """A file that cannot be unpacked; *content* is what it holds instead."""

    def __init__(self, path: Path, content: str, remedy: str) -> None:
        super().__init__(f"{path}: {content}", remedy)
        self.content = content


def sniff_format(path: Path) -> str:
    """Return zip, tar, gz, bz2, xz or zst by the first bytes of *path*.

    Raises
    ------
    NoArchive : it is none of these.
    """
    with open(path, "rb") as file:
        head = file.read(tarfile.BLOCKSIZE)
    for magic, name in MAGIC.items():
        if head.startswith(magic):
            return name
    if _is_tar_header(head):
        return "tar"
    unknown = "no archive that mimflow knows" if head else "an empty file"
    what = next((what for magic, what in FOREIGN.items() if head.lstrip().startswith(magic)), unknown)
    content = f"{what}, not a zip or tar (.gz, .bz2, .xz, .zst)"
    raise NoArchive(path, content, "repack it, or give the unpacked folder")


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
