"""Read zips and tars without trusting them: what kind, which entries, what is in them; memory stays flat."""

from __future__ import annotations

import bz2
import gzip
import lzma
import posixpath
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import zstandard

from scripts.console import UserError
from scripts.data.image_paths import decodes
from scripts.download import megabytes

DEFAULT_MAX_IMAGES = 2_000_000
DEFAULT_MAX_BYTES = 10**12
#: Photographs hardly shrink in an archive; deflate can reach 1,032, and then something is wrong.
DEFAULT_MAX_RATIO = 200.0
#: Contents up to this size are harmless whatever their ratio.
RATIO_FLOOR = 16 * 1024 * 1024
#: Entries of every kind (folders, annotations, junk) for each image that is allowed.
ENTRIES_PER_IMAGE = 4
#: Longest name in an archive's own header, in bytes: a longer one would be read into memory whole.
LONGEST_HEADER = 1024 * 1024
#: Bytes of a link that are read to see where it points (PATH_MAX).
LONGEST_LINK = 4096
#: Bytes read at once.
CHUNK = 1024 * 1024

Kind = Literal["file", "folder", "link", "device"]


@dataclass(frozen=True)
class Limits:
    """What an archive may hold; more is a bomb, or a mistake."""

    images: int = DEFAULT_MAX_IMAGES
    bytes: int = DEFAULT_MAX_BYTES
    ratio: float = DEFAULT_MAX_RATIO


@dataclass(frozen=True)
class Entry:
    """One entry of an archive: ``name`` as bytes where its encoding is not known; ``target``: where a link points."""

    name: str | bytes
    size: int
    kind: Kind
    target: str = ""


class Damaged(UserError):
    """The archive ends too early, or its bytes are not what its own check sums say."""


MAGIC = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\x1f\x8b": "gz",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zst",
}
#: What people offer instead of an archive that we read.
FOREIGN = {b"Rar!": "a RAR archive", b"7z\xbc\xaf\x27\x1c": "a 7z archive", b"<": "a web page", b"{": "a JSON text"}


def sniff_format(path: Path) -> str:
    """Return zip, tar, gz, bz2, xz or zst by the first bytes of *path*.

    Raises
    ------
    UserError : it is none of these.
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
    raise UserError(f"{path}: {what}, not a zip or tar (.gz, .bz2, .xz, .zst): repack it, or give the unpacked folder")


def _is_tar_header(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # only zeros: a tar without any entry
        return True
    except tarfile.TarError:
        return False
    return True


@contextmanager
def damage(archive: Path) -> Iterator[None]:
    """Say what the decoders raise on bad bytes as Damaged; let the disk's errors through."""
    try:
        yield
    except (
        EOFError,
        zlib.error,
        lzma.LZMAError,
        zstandard.ZstdError,
        tarfile.TarError,
        zipfile.BadZipFile,
        struct.error,
        gzip.BadGzipFile,
        ValueError,  # numbers and names in headers that are none
        OverflowError,
        NotImplementedError,  # a zip of a later version
    ) as error:
        raise Damaged(f"{archive}: damaged or truncated ({error}): fetch it again") from error
    except OSError as error:
        if error.errno is not None:
            raise
        # bz2 says so of bad data
        raise Damaged(f"{archive}: damaged or truncated ({error}): fetch it again") from error


class _CarefulTarInfo(tarfile.TarInfo):
    """Headers that tarfile would pass over in silence, or read into memory whatever their size."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, *args: Any, **kwargs: Any) -> _CarefulTarInfo:
        try:
            header = super().frombuf(buf, *args, **kwargs)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:  # tarfile takes a damaged header in the middle for the end
            raise Damaged(f"{error}") from error
        names = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        pax = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
        if header.size < 0 or (header.type in names + pax and header.size > LONGEST_HEADER):
            raise Damaged(f"a header of {header.size} bytes")
        return header


class _Metered:
    """A decompressed stream that stops when more comes out of it than the limits allow."""

    def __init__(self, stream: IO[bytes], archive: Path, limits: Limits) -> None:
        self.stream, self.archive, self.limits = stream, archive, limits
        self.packed = archive.stat().st_size
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        with damage(self.archive):
            data = self.stream.read(size)
        self.count += len(data)
        check_size(self.archive, self.count, self.packed, self.limits)
        return data


def check_size(archive: Path, unpacked: int, packed: int, limits: Limits) -> None:
    """Refuse contents of *unpacked* bytes out of *packed* ones where the limits say so."""
    if unpacked > limits.bytes:
        raise UserError(
            f"{archive}: refused: its content is larger than {megabytes(limits.bytes)}"
            " (--max-bytes); nothing was written"
        )
    if unpacked > RATIO_FLOOR and unpacked > limits.ratio * max(packed, 1):
        raise UserError(
            f"{archive}: refused as a decompression bomb: {megabytes(packed)} unpack to more than"
            f" {limits.ratio:g} times as much (--max-ratio); nothing was written"
        )


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
                    metered: Any = _Metered(stack.enter_context(_decompressed(file, kind)), archive, limits)
                    tar = stack.enter_context(tarfile.open(fileobj=metered, mode="r|", **options))
                yield tar
        except Damaged as error:
            if str(archive) in str(error):
                raise
            raise Damaged(f"{archive}: damaged or truncated ({error}): fetch it again") from error


def _decompressed(file: IO[bytes], kind: str) -> Any:
    """Return the decompressed stream of *file*, a context manager."""
    if kind == "zst":
        return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    openers: dict[str, Any] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    return openers[kind](file, "rb")


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members in order; keep none of them, unlike tarfile, which keeps all."""
    while (member := tar.next()) is not None:
        yield member
        tar.members.clear()  # type: ignore[attr-defined]


def list_tar(archive: Path, kind: str, limits: Limits) -> list[Entry]:
    """Return the entries of a tar, in order."""
    entries: list[Entry] = []
    total, packed = 0, archive.stat().st_size
    with open_tar(archive, kind, limits) as tar:
        for member in _members(tar):
            total += member.size
            check_size(archive, total, packed, limits)
            _check_count(archive, len(entries), limits)
            entries.append(Entry(_tar_name(member), member.size, _tar_kind(member), _tar_target(member)))
        if kind != "tar":
            while tar.fileobj.read(CHUNK):  # type: ignore[union-attr]  # check sums stand at the end of the stream
                pass
    return entries


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


def list_zip(archive: Path, limits: Limits) -> list[Entry]:
    """Return the entries of a zip, in the order of its central directory."""
    entries: list[Entry] = []
    total, packed = 0, archive.stat().st_size
    with damage(archive), zipfile.ZipFile(archive) as zipped:
        for info in zipped.infolist():
            if info.flag_bits & 0x1:
                raise UserError(
                    f"{archive}: refused: encrypted entries ({info.filename!r}): repack it without a password"
                )
            if info.compress_type not in (0, 8, 12, 14):
                raise UserError(
                    f"{archive}: {info.filename!r} is compressed by method {info.compress_type}"
                    " (Deflate64 or the like), which cannot be read: repack it with plain Deflate"
                )
            total += info.file_size
            check_size(archive, total, packed, limits)
            _check_count(archive, len(entries), limits)
            kind = _zip_kind(info)
            target = ""
            if kind == "link":
                with zipped.open(info) as content:
                    link = content.read(LONGEST_LINK).decode("utf-8", "replace")
                target = posixpath.join(posixpath.dirname(info.filename), link)
            entries.append(Entry(_zip_name(info), info.file_size, kind, target))
    return entries


def _check_count(archive: Path, count: int, limits: Limits) -> None:
    if count >= ENTRIES_PER_IMAGE * limits.images + 1000:
        raise UserError(f"{archive}: refused: more than {count} entries (--max-images); nothing was written")


def _zip_kind(info: zipfile.ZipInfo) -> Kind:
    if info.is_dir() or (info.filename.endswith("\\") and not info.file_size):
        return "folder"
    mode = stat.S_IFMT(info.external_attr >> 16)
    if info.create_system != 3 or mode in (0, stat.S_IFREG):  # only Unix writes a file type
        return "file"
    return {stat.S_IFLNK: "link", stat.S_IFDIR: "folder"}.get(mode, "device")  # type: ignore[return-value]


def _zip_name(info: zipfile.ZipInfo) -> str | bytes:
    """Return the name as text where the zip says its encoding, else its bytes (zipfile read them as cp437)."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        raw = info.filename.encode("cp437")
    except UnicodeEncodeError:  # a later zipfile may know more ways to tell the encoding
        return info.filename
    return _unicode_path(info.extra, raw) or raw


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """Return the name in Info-ZIP's Unicode Path field (0x7075: version, crc32 of the other name, UTF-8 name)."""
    while len(extra) >= 4:
        tag, length = struct.unpack_from("<HH", extra)
        value, extra = extra[4 : 4 + length], extra[4 + length :]
        if tag == 0x7075 and length > 5 and value[:5] == struct.pack("<BL", 1, zlib.crc32(raw)):
            return value[5:].decode("utf-8", "replace")
    return None


def read_entries(archive: Path, kind: str, limits: Limits) -> list[Entry]:
    """Return the entries of an archive of any kind, in order, without writing anything."""
    return list_zip(archive, limits) if kind == "zip" else list_tar(archive, kind, limits)


def open_contents(
    archive: Path, kind: str, limits: Limits, targets: Sequence[str | None]
) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Yield (where it goes, declared size, content) of each entry that has a target, in the archive's order."""
    if kind == "zip":
        with damage(archive), zipfile.ZipFile(archive) as zipped:
            for info, target in zip(zipped.infolist(), targets, strict=True):
                if target is not None:
                    with zipped.open(info) as content:
                        yield target, info.file_size, content
        return
    with open_tar(archive, kind, limits) as tar:
        for member, target in zip(_members(tar), targets, strict=True):
            if target is not None:
                stream = tar.extractfile(member)
                assert stream is not None  # plan() gives targets to regular files only
                yield target, member.size, stream
