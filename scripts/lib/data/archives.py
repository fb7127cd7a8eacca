"""Read zips and tars without trusting them: what kind, which entries, what is in them; memory stays flat."""

from __future__ import annotations

import bz2
import copy
import errno
import gzip
import lzma
import posixpath
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args, overload

import zstandard

from scripts.lib.base.problems import UserError
from scripts.lib.base.units import megabytes
from scripts.lib.data.image_paths import decodes

DEFAULT_MAX_IMAGES = 2_000_000
DEFAULT_MAX_BYTES = 10**12
#: Photographs hardly shrink in an archive; deflate can reach 1,032, and then something is wrong.
DEFAULT_MAX_RATIO = 200.0
#: Contents up to this size are harmless whatever their ratio.
RATIO_FLOOR = 16 * 1024 * 1024
#: Entries of every kind (folders, annotations, junk) for each image that is allowed.
ENTRIES_PER_IMAGE = 4
#: Bytes of one extended header of a tar: a longer one would be read into memory whole.
LONGEST_HEADER = 1024 * 1024
#: Bytes of a header for all following entries, and how many fields such headers set: tarfile copies them each time.
LONGEST_GLOBAL_HEADER, GLOBAL_FIELDS = 64 * 1024, 100
#: Bytes of one name, or of where a link points: PATH_MAX; no disk holds a longer one.
LONGEST_PATH_IN_ARCHIVE = 4096
#: Bytes of all names and links together, and of a zip's central directory: they are held in memory.
ALL_NAMES = 512 * 1024 * 1024
#: Memory a decompressor may ask for: ``xz -9`` takes 65 MiB, ``zstd --ultra -22`` 128 MiB.
WINDOW = 128 * 1024 * 1024
#: Bytes read at once.
CHUNK = 1024 * 1024

Kind = Literal["file", "folder", "link", "device"]
KINDS: tuple[Kind, ...] = get_args(Kind)


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


class Entries(Sequence[Entry]):
    """Entries in about 20 bytes each besides their names: as objects, two million of them would take 500 MB."""

    def __init__(self, archive: Path, limits: Limits) -> None:
        self.archive = archive
        self.most = ENTRIES_PER_IMAGE * limits.images + 1000
        self._names, self._ends, self._sizes = bytearray(), array("Q"), array("Q")
        self._kinds, self._targets = bytearray(), dict[int, str]()
        self._held = 0

    def append(self, entry: Entry) -> None:
        """Add an entry; refuse it where there are too many, or their names too long."""
        if len(self) >= self.most:
            raise UserError(
                f"{self.archive}: refused: more than {self.most} entries (--max-images); nothing was written"
            )
        is_text = isinstance(entry.name, str)
        name = entry.name.encode("utf-8", "surrogatepass") if isinstance(entry.name, str) else entry.name
        if max(len(name), len(entry.target)) > LONGEST_PATH_IN_ARCHIVE:
            raise UserError(
                f"{self.archive}: refused: the name of entry {len(self) + 1}, or the place it links to, is longer than"
                f" {LONGEST_PATH_IN_ARCHIVE} bytes: repack it with shorter names; nothing was written"
            )
        self._held += len(name) + len(entry.target)
        if self._held > ALL_NAMES:
            raise UserError(
                f"{self.archive}: refused: more than {megabytes(ALL_NAMES)} of names: repack it; nothing was written"
            )
        if entry.target:
            self._targets[len(self)] = entry.target
        self._names += name
        self._ends.append(len(self._names))
        self._sizes.append(entry.size)
        self._kinds.append(2 * KINDS.index(entry.kind) + is_text)

    def __len__(self) -> int:
        return len(self._kinds)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        kind, is_text = divmod(self._kinds[index], 2)
        name = bytes(self._names[self._ends[index - 1] if index else 0 : self._ends[index]])
        return Entry(
            name.decode("utf-8", "surrogatepass") if is_text else name,
            self._sizes[index],
            KINDS[kind],
            self._targets.get(index, ""),
        )


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
    raise UserError(
        f"{path}: {what}, not a zip or tar (.gz, .bz2, .xz, .zst)", "repack it, or give the unpacked folder"
    )


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
        RecursionError,  # tarfile calls itself for each header that belongs to the next one
        NotImplementedError,  # a zip of a later version
    ) as error:
        if any(reason in str(error) for reason in ("Memory usage limit", "requires too much memory")):
            raise UserError(
                f"{archive}: refused: unpacking it takes more than {megabytes(WINDOW)} of memory:"
                " repack it with a smaller window (xz -9, zstd without --long); nothing was written"
            ) from error
        raise Damaged(f"{archive}: damaged or truncated ({error}): fetch it again") from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):
            raise
        # bz2 says so of bad data, and the system of a place that no file can have
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
        longest = LONGEST_GLOBAL_HEADER if header.type == tarfile.XGLTYPE else LONGEST_HEADER
        if header.size < 0 or (header.type in names + pax and header.size > longest):
            raise Damaged(f"a header of {header.size} bytes")
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise _Sparse
        return header

    def _proc_pax(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        """Read the fields for the next entry; tarfile before 3.11.10 takes hours and gigabytes over malformed ones."""
        source: Any = tar.fileobj
        body = source.read(self._block(self.size))  # type: ignore[attr-defined]
        _check_pax(body[: self.size].rstrip(b"\0"))
        if len(tar.pax_headers) > GLOBAL_FIELDS:
            raise Damaged(f"more than {GLOBAL_FIELDS} fields for all entries")
        tar.fileobj = _Again(body, source)  # type: ignore[assignment]
        try:
            return super()._proc_pax(tar)  # type: ignore[misc, no-any-return]
        finally:
            tar.fileobj = source


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
        raise Damaged("a header of digits")
    start_of_field = re.compile(rb"([0-9]{1,20}) ")
    place = 0
    while place < len(body):
        length = start_of_field.match(body, place)
        end = place + int(length[1]) if length else 0
        if length is None or not length.end() < end <= len(body) or body[end - 1 : end] != b"\n":
            raise Damaged("a header that is no list of fields")
        keyword, equals, _ = body[length.end() : end].partition(b"=")
        if not keyword or not equals:
            raise Damaged("a header that is no list of fields")
        if keyword.startswith(b"GNU.sparse."):
            raise _Sparse
        place = end


class _Metered:
    """A decompressed stream that stops when more comes out of it than the limits allow."""

    def __init__(self, stream: IO[bytes], archive: Path, limits: Limits) -> None:
        self.stream, self.archive, self.limits = stream, archive, limits
        self.packed = archive.stat().st_size
        self.count = self.after_end = 0

    def read(self, size: int = -1) -> bytes:
        with damage(self.archive):
            data = self.stream.read(size)
            self.after_end += not data
            if self.after_end > 1000:  # tarfile would go on to the end of a declared size, petabytes away
                raise EOFError("it ends in the middle of an entry")
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
        except _Sparse as error:
            raise UserError(
                f"{archive}: refused: sparse files (with holes): repack it without --sparse; nothing was written"
            ) from error
        except Damaged as error:
            if str(archive) in str(error):
                raise
            raise Damaged(f"{archive}: damaged or truncated ({error}): fetch it again") from error


@contextmanager
def _decompressed(file: IO[bytes], kind: str) -> Iterator[Any]:
    """Open the decompressed stream of *file*."""
    if kind == "zst":
        decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW)
        with decompressor.stream_reader(file, read_across_frames=True) as stream:
            yield stream
    elif kind == "gz":
        with gzip.open(file, "rb") as stream:
            yield stream
    elif kind == "bz2":
        yield _Inflated(file, bz2.BZ2Decompressor)
    else:
        yield _Inflated(file, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, WINDOW))


class _Inflated:
    """What comes out of bz2 or lzma streams, one after the other, in pieces of the size that is asked for.

    Unlike lzma.open it limits their memory; unlike zipfile it does not unpack a whole piece of input at once: 4 kB of
    bz2 can hold gigabytes.
    """

    def __init__(self, source: IO[bytes], make: Callable[[], Any]) -> None:
        self.source, self.make = source, make
        self.decompressor = make()

    def read(self, size: int) -> bytes:
        data = b""
        while not data and size:
            piece = b""
            if self.decompressor.eof:
                rest = self.decompressor.unused_data
                while not (rest := rest.lstrip(b"\0")):  # xz pads its streams with zeros
                    if not (rest := self.source.read(CHUNK)):
                        return b""
                self.decompressor, piece = self.make(), rest
            elif self.decompressor.needs_input and not (piece := self.source.read(CHUNK)):
                raise EOFError("it ends before its content does")
            data = self.decompressor.decompress(piece, size)
        return data


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members in order; keep none of them, unlike tarfile, which keeps all."""
    while (member := tar.next()) is not None:
        yield member
        tar.members.clear()  # type: ignore[attr-defined]


def list_tar(archive: Path, kind: str, limits: Limits) -> Entries:
    """Return the entries of a tar, in order."""
    entries = Entries(archive, limits)
    total, packed = 0, archive.stat().st_size
    with open_tar(archive, kind, limits) as tar:
        for member in _members(tar):
            if member.size < 0:  # by a pax header; the next entry would be this one again
                raise Damaged(f"a size of {member.size} bytes")
            total += member.size
            check_size(archive, total, packed, limits)
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


def list_zip(archive: Path, limits: Limits) -> Entries:
    """Return the entries of a zip, in the order of its central directory."""
    entries = Entries(archive, limits)
    total, packed = 0, archive.stat().st_size
    with _open_zip(archive, limits) as zipped:
        _check_overlap(archive, zipped)
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
            kind = _zip_kind(info)
            target = ""
            if kind == "link":
                with _open_zipped(zipped, info) as content:
                    link = content.read(LONGEST_PATH_IN_ARCHIVE).decode("utf-8", "replace")
                target = posixpath.join(posixpath.dirname(info.filename), link)[:LONGEST_PATH_IN_ARCHIVE]
            entries.append(Entry(_zip_name(info), info.file_size, kind, target))
    return entries


@contextmanager
def _open_zip(archive: Path, limits: Limits) -> Iterator[zipfile.ZipFile]:
    """Open a zip, its errors said as Damaged; zipfile makes an object of each entry, so they are counted before."""
    with damage(archive), open(archive, "rb") as file:
        _check_directory(archive, file, limits)
        with zipfile.ZipFile(file) as zipped:
            yield zipped


def _check_directory(archive: Path, file: IO[bytes], limits: Limits) -> None:
    """Refuse a zip with more entries than are allowed, or a central directory larger than memory.

    It is the directory that zipfile reads, found by zipfile's own function: no other reading of it would do.
    """
    end: Any = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if not end:
        raise zipfile.BadZipFile("it has no central directory")
    size, place = end[5], end[9] - end[5] - (76 if end[0] == b"PK\x06\x06" else 0)
    if place < 0:
        raise zipfile.BadZipFile("its central directory is larger than itself")
    if size > ALL_NAMES:
        raise UserError(
            f"{archive}: refused: a central directory of more than {megabytes(ALL_NAMES)}: repack it;"
            " nothing was written"
        )
    most = ENTRIES_PER_IMAGE * limits.images + 1000
    count, last = 0, place + size
    while place + 46 <= last:
        file.seek(place)
        lengths = struct.unpack_from("<HHH", file.read(46), 28)
        place += 46 + sum(lengths)
        count += 1
        if count > most:
            raise UserError(f"{archive}: refused: more than {most} entries (--max-images); nothing was written")
    file.seek(0)


def _check_overlap(archive: Path, zipped: zipfile.ZipFile) -> None:
    """Refuse entries that share their bytes: a few kilobytes could then unpack to terabytes.

    David Fifield, A better zip bomb, WOOT 2019. Lengths of local headers are taken without their extra field, which
    only the header itself tells: what the entries take together is no more than the file all the same.
    """
    infos = sorted(zipped.infolist(), key=lambda info: info.header_offset)
    starts = [info.header_offset for info in infos] + [zipped.start_dir]
    for info, start, following in zip(infos, starts, starts[1:], strict=False):
        if start < 0 or start + 30 + info.compress_size > following:
            raise UserError(
                f"{archive}: refused: its entry {info.filename!r} overlaps another one, as in a decompression bomb"
                " or a damaged archive; nothing was written"
            )


@contextmanager
def _open_zipped(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[Any]:
    """Open the content of one entry."""
    if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipped.open(info) as content:
            yield content
        return
    packed = copy.copy(info)  # its bytes as they are in the archive
    packed.compress_type, packed.file_size = zipfile.ZIP_STORED, info.compress_size
    del packed.CRC
    with zipped.open(packed) as source:
        lzma_or_bz2 = _lzma_of_zip(source) if info.compress_type == zipfile.ZIP_LZMA else bz2.BZ2Decompressor()
        yield _Checked(_Inflated(source, lambda: lzma_or_bz2), info)


def _lzma_of_zip(source: IO[bytes]) -> lzma.LZMADecompressor:
    """Return the decompressor that the first 9 bytes of *source* describe (PKWARE's APPNOTE.TXT, 5.8.8)."""
    _, size, settings, window = struct.unpack("<HHBL", source.read(9))
    if size != 5:
        raise lzma.LZMAError("settings that are none")
    if window > WINDOW:
        raise lzma.LZMAError("Memory usage limit exceeded")
    rest, lc = divmod(settings, 9)
    pb, lp = divmod(rest, 5)
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": max(window, 4096), "lc": lc, "lp": lp, "pb": pb}]
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)


class _Checked:
    """The content of a zip's entry: as many bytes as it declares, its check sum compared at the end."""

    def __init__(self, stream: _Inflated, info: zipfile.ZipInfo) -> None:
        self.stream, self.left, self.expected, self.crc = stream, info.file_size, info.CRC, 0

    def read(self, size: int) -> bytes:
        data = self.stream.read(min(size, self.left))
        self.left -= len(data)
        self.crc = zlib.crc32(data, self.crc)
        if not self.left and self.crc != self.expected:
            raise zipfile.BadZipFile("bad CRC-32")
        return data


def _zip_kind(info: zipfile.ZipInfo) -> Kind:
    if info.filename.endswith("/") or (info.filename.endswith("\\") and not info.file_size):
        return "folder"
    mode = stat.S_IFMT(info.external_attr >> 16)
    if info.create_system != 3 or mode in (0, stat.S_IFREG):  # only Unix writes a file type
        return "file"
    return {stat.S_IFLNK: "link", stat.S_IFDIR: "folder"}.get(mode, "device")  # type: ignore[return-value]


def _zip_name(info: zipfile.ZipInfo) -> str | bytes:
    """Return the name as text where the zip says its encoding, else its bytes (zipfile read them as cp437)."""
    name = info.orig_filename  # filename ends at the first NUL: another name than other programs see
    if info.flag_bits & 0x800:
        return name
    try:
        raw = name.encode("cp437")
    except UnicodeEncodeError:  # a later zipfile may know more ways to tell the encoding
        return name
    return _unicode_path(info.extra, raw) or raw


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """Return the name in Info-ZIP's Unicode Path field (0x7075: version, crc32 of the other name, UTF-8 name)."""
    while len(extra) >= 4:
        tag, length = struct.unpack_from("<HH", extra)
        value, extra = extra[4 : 4 + length], extra[4 + length :]
        if tag == 0x7075 and length > 5 and value[:5] == struct.pack("<BL", 1, zlib.crc32(raw)):
            return value[5:].decode("utf-8", "replace")
    return None


def read_entries(archive: Path, kind: str, limits: Limits) -> Entries:
    """Return the entries of an archive of any kind, in order, without writing anything."""
    return list_zip(archive, limits) if kind == "zip" else list_tar(archive, kind, limits)


def open_contents(
    archive: Path, kind: str, limits: Limits, targets: Sequence[str | None]
) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Yield (where it goes, declared size, content) of each entry that has a target, in the archive's order."""
    if kind == "zip":
        with _open_zip(archive, limits) as zipped:
            for info, target in zip(zipped.infolist(), targets, strict=True):
                if target is not None:
                    with _open_zipped(zipped, info) as content:
                        yield target, info.file_size, content
        return
    with open_tar(archive, kind, limits) as tar:
        for member, target in zip(_members(tar), targets, strict=True):
            if target is not None:
                stream = tar.extractfile(member)
                assert stream is not None  # plan() gives targets to regular files only
                yield target, member.size, stream
