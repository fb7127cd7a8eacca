"""Read tars without trusting them, compressed ones too: memory stays flat whatever their headers say."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import os
import posixpath
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import zstandard

from scripts.lib.base.problems import UserError
from scripts.lib.base.ranges import Range
from scripts.lib.data import archive_entries
from scripts.lib.data.archive_entries import Damaged, Entries, Entry, Kind, Limits, check_size, damage, sniff_entry
from scripts.lib.data.encodings import decodes

#: Bytes of one extended header of a tar: a longer one would be read into memory whole.
LONGEST_HEADER = 1024 * 1024
#: Bytes of a header for all following entries, and how many fields such headers set: tarfile copies them each time.
LONGEST_GLOBAL_HEADER, GLOBAL_FIELDS = 64 * 1024, 100


class _CarefulTarInfo(tarfile.TarInfo):
    """Headers that tarfile would pass over in silence, or read into memory whatever their size."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, *args: Any, **kwargs: Any) -> _CarefulTarInfo:
        try:
            header = super().frombuf(buf, *args, **kwargs)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:  # tarfile takes a damaged header in the middle for the end
            raise _BadHeader(f"{error}") from error
        names = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        pax = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        longest = LONGEST_GLOBAL_HEADER if header.type == tarfile.XGLTYPE else LONGEST_HEADER
        if header.size < 0 or (header.type in names + pax and header.size > longest):
            raise _BadHeader(f"a header of {header.size} bytes")
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise _Sparse
        return header

    def _proc_pax(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        """Read the fields for the next entry; tarfile before 3.11.10 takes hours and gigabytes over malformed ones."""
        source: Any = tar.fileobj
        body = source.read(self._block(self.size))  # type: ignore[attr-defined]
        _check_pax(body[: self.size].rstrip(b"\0"))
        if len(tar.pax_headers) > GLOBAL_FIELDS:
            raise _BadHeader(f"more than {GLOBAL_FIELDS} fields for all entries")
        tar.fileobj = _Again(body, source)  # type: ignore[assignment]
        try:
            return super()._proc_pax(tar)  # type: ignore[misc, no-any-return]
        finally:
            tar.fileobj = source


class _BadHeader(Exception):
    """Nothing that a writer of tar files puts there."""


class _Sparse(Exception):
    """A tar with files that have holes: their lists of holes may be longer than memory, and photographs have none."""


class _Again:
    """A stream whose last piece is read once more."""

    def __init__(self, piece: bytes, stream: IO[bytes]) -> None:
        self.piece, self.stream = piece, stream

    def read(self, size: int) -> bytes:
        piece, self.piece = self.piece, b""
        return piece or self.stream.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _check_pax(body: bytes) -> None:
    """Refuse what is no sequence of ``length keyword=value`` lines (POSIX.1-2008, pax, extended header)."""
    if re.search(rb"[0-9]{256}", body):  # tarfile's search for a field takes the square of their number
        raise _BadHeader("a header of digits")
    start_of_field = re.compile(rb"([0-9]{1,20}) ")
    position = 0
    while position < len(body):
        length = start_of_field.match(body, position)
        end = position + int(length[1]) if length else 0
        if length is None or not length.end() < end <= len(body) or body[end - 1 : end] != b"\n":
            raise _BadHeader("a header that is no list of fields")
        keyword, equals, _ = body[length.end() : end].partition(b"=")
        if not keyword or not equals:
            raise _BadHeader("a header that is no list of fields")
        if keyword.startswith(b"GNU.sparse."):
            raise _Sparse
        position = end


class Metered:
    """A decompressed stream that stops when more comes out of it than the limits allow."""

    def __init__(self, stream: IO[bytes], archive: Path, limits: Limits) -> None:
        self.stream, self.archive, self.limits = stream, archive, limits
        self.compressed = archive.stat().st_size
        self.count = self.after_end = 0

    def read(self, size: int = -1) -> bytes:
        with damage(self.archive):
            data = self.stream.read(size)
            self.after_end += not data
            if self.after_end > 1000:  # tarfile would go on to the end of a declared size, petabytes away
                raise EOFError("it ends in the middle of an entry")
        self.count += len(data)
        check_size(self.archive, self.count, self.compressed, self.limits)
        return data


@contextmanager
def open_tar(archive: Path, kind: str, limits: Limits) -> Iterator[tarfile.TarFile]:
    """Open a tar for one pass from its beginning, its errors said as Damaged."""
    with ExitStack() as stack:
        file = stack.enter_context(open(archive, "rb"))
        options: dict[str, Any] = {"tarinfo": _CarefulTarInfo, "encoding": "utf-8", "errors": "surrogateescape"}
        try:
            with damage(archive):
                if kind == "tar":  # seekable: contents need not be read to list the names
                    tar = stack.enter_context(tarfile.open(fileobj=file, mode="r:", **options))
                else:
                    metered: Any = Metered(stack.enter_context(decompressed(file, kind)), archive, limits)
                    tar = stack.enter_context(tarfile.open(fileobj=metered, mode="r|", **options))
                yield tar
        except _Sparse as error:
            raise UserError(
                f"{archive}: refused: sparse files (with holes): repack it without --sparse; nothing was written"
            ) from error
        except _BadHeader as error:
            raise Damaged(f"{archive}: damaged or truncated ({error}): its source must have a whole file") from error


@contextmanager
def decompressed(file: IO[bytes], kind: str) -> Iterator[Any]:
    """Open the decompressed stream of *file*."""
    if kind == "zst":
        decompressor = zstandard.ZstdDecompressor(max_window_size=archive_entries.WINDOW)
        with decompressor.stream_reader(file, read_across_frames=True) as stream:
            yield stream
    elif kind == "gz":
        with gzip.open(file, "rb") as stream:
            yield stream
    elif kind == "bz2":
        yield archive_entries.Inflated(file, bz2.BZ2Decompressor)
    else:
        yield archive_entries.Inflated(file, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, archive_entries.WINDOW))


def tar_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members in order; keep none of them, unlike tarfile, which keeps all."""
    while (member := tar.next()) is not None:
        yield member
        tar.members.clear()  # type: ignore[attr-defined]


class _Paths:
    """The files of a tar by their names, as far as hard links ask for them: few archives have any."""

    def __init__(self, entries: Entries) -> None:
        self.entries, self.known, self.by_name = entries, 0, dict[bytes, int]()

    def find(self, name: str) -> int | None:
        """Return the earlier entry that has the content of *name*, None where there is none."""
        for index in range(self.known, len(self.entries)):
            entry = self.entries[index]
            raw = entry.name.encode("utf-8", "surrogateescape") if isinstance(entry.name, str) else entry.name
            if entry.kind == "file":
                self.by_name[posixpath.normpath(raw)] = self.entries.hard_links.get(index, index)
        self.known = len(self.entries)
        return self.by_name.get(posixpath.normpath(name.encode("utf-8", "surrogateescape")))


def list_tar(archive: Path, kind: str, limits: Limits) -> Entries:
    """Return the entries of a tar, in order."""
    entries = Entries(archive, limits)
    total, compressed = 0, archive.stat().st_size
    paths = _Paths(entries)
    with open_tar(archive, kind, limits) as tar:
        for member in tar_members(tar):
            if member.size < 0:  # by a pax header; the next entry would be this one again
                raise _BadHeader(f"a size of {member.size} bytes")
            linked = paths.find(member.linkname) if member.islnk() else None
            size = member.size if linked is None else entries[linked].size
            total += size
            check_size(archive, total, compressed, limits)
            name = _tar_name(member)
            if linked is None:
                stream = tar.extractfile(member) if member.isreg() else None
                format_name = sniff_entry(name, stream.read) if stream else ""
                entries.append(Entry(name, size, _tar_kind(member), _tar_target(member), format_name))
            else:
                entries.hard_links[len(entries)] = linked
                entries.append(Entry(name, size, "file", format=entries[linked].format))
        rest: Any = tar.fileobj
        if kind == "tar":
            rest.seek(tar.offset)  # type: ignore[attr-defined]
        _check_end(archive, rest)
    return entries


def tar_ranges(
    archive: Path, limits: Limits, targets: Sequence[str | None], hard_links: Mapping[int, int]
) -> Iterator[Range]:
    """Yield where in an uncompressed tar the entries lie that have a target, with their hashes, read from begin to end.

    Parameters
    ----------
    targets : of each entry its name from now on; None: it has none.
    hard_links : of each entry that is another name of an earlier one which one that is.
    """
    names: dict[int, list[str]] = {}  # of contents with several
    for index, original in hard_links.items():
        names.setdefault(original, []).append(targets[index] or "")
    path = os.path.abspath(archive)
    with damage(archive), open_tar(archive, "tar", limits) as tar:
        for index, (member, target) in enumerate(zip(tar_members(tar), targets, strict=True)):
            wanted = [target, *names.get(index, ())] if index not in hard_links else []
            if not any(wanted):
                continue
            stream = tar.extractfile(member)
            assert stream is not None  # plan() gives targets to regular files only
            digest, size = hashlib.sha256(), 0
            while chunk := stream.read(archive_entries.CHUNK):
                digest.update(chunk)
                size += len(chunk)
            if size != member.size:
                raise Damaged(f"{archive}: damaged or truncated ({target!r} ends after {size} of {member.size} bytes)")
            for name in filter(None, wanted):
                yield Range(name, path, member.offset_data, size, digest.hexdigest())


def _check_end(archive: Path, stream: IO[bytes]) -> None:
    """Read what stands behind the end of a tar: the check sums of a compressed one, and perhaps another tar.

    Raises
    ------
    UserError : it is another tar, as ``cat a.tar b.tar`` makes it: tarfile and tar stop at the end of the first.
    """
    is_padding = True
    while chunk := stream.read(archive_entries.CHUNK):
        if not is_padding or not chunk.strip(b"\0"):
            continue
        is_padding, first = False, len(chunk) - len(chunk.lstrip(b"\0"))
        block = chunk[first - first % tarfile.BLOCKSIZE :][: tarfile.BLOCKSIZE]
        try:
            tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.TarError:
            continue
        raise UserError(
            f"{archive}: another tar stands behind its end, which would not be read",
            "unpack it (tar -xif FILE) and give the folder, or list the tars as dataset.source",
        )


def _tar_name(member: tarfile.TarInfo) -> str | bytes:
    """Return the name as text where a pax header says that it is UTF-8, else its bytes."""
    raw = member.name.encode("utf-8", "surrogateescape")
    return member.name if "path" in member.pax_headers and decodes(raw, "utf-8") else raw


def _tar_kind(member: tarfile.TarInfo) -> Kind:
    if member.isreg():
        return "file"
    if member.isdir():
        return "folder"
    return "link" if member.issym() or member.islnk() else "device"


def _tar_target(member: tarfile.TarInfo) -> str:
    """Return where a link points, relative to the root of the archive."""
    if member.islnk():
        return member.linkname
    return posixpath.join(posixpath.dirname(member.name), member.linkname) if member.issym() else ""
