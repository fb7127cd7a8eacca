"""What an archive may hold, its entries in little memory, and its damage said in one line."""

from __future__ import annotations

import contextlib
import errno
import gzip
import lzma
import posixpath
import re
import struct
import tarfile
import zipfile
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args, overload

import zstandard

from scripts.lib.base.problems import UserError
from scripts.lib.base.units import megabytes
from scripts.lib.data.image_formats import HEAD, has_image_suffix, sniff

DEFAULT_MAX_IMAGES = 2_000_000
DEFAULT_MAX_BYTES = 10**12
#: Photographs hardly shrink in an archive; deflate can reach 1,032, and then something is wrong.
DEFAULT_MAX_RATIO = 200.0
#: Contents up to this size are harmless whatever their ratio.
RATIO_FLOOR = 16 * 1024 * 1024
#: Entries of every kind (folders, annotations, junk) for each image that is allowed.
ENTRIES_PER_IMAGE = 4
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
    """One entry of an archive.

    ``name``: as bytes where its encoding is not known; ``target``: where a link points; ``format``: of a picture that
    has no suffix of one, as :func:`scripts.lib.data.image_formats.sniff` calls it.
    """

    name: str | bytes
    size: int
    kind: Kind
    target: str = ""
    format: str = ""


def sniff_entry(name: str | bytes, read: Callable[[int], bytes]) -> str:
    """Return the format of a picture that has no suffix of one; *read* gives the first bytes of the entry."""
    if has_image_suffix(name):
        return ""
    with contextlib.suppress(*DECODER_ERRORS, OSError, UserError):  # nobody may ever want the content
        return sniff(read(HEAD), name if isinstance(name, str) else name.decode("latin-1"))
    return ""


class Entries(Sequence[Entry]):
    """Entries in about 20 bytes each besides their names: as objects, two million of them would take 500 MB.

    ``oem``: MS-DOS or Windows wrote them, with names in the encoding of MS-DOS where they do not say another one.
    ``hard_links``: of an entry that is another name of an earlier one, which one that is; its kind is that of a file.
    """

    def __init__(self, archive: Path, limits: Limits) -> None:
        self.archive = archive
        self.most = ENTRIES_PER_IMAGE * limits.images + 1000
        self._names, self._ends, self._sizes = bytearray(), array("Q"), array("Q")
        self._kinds, self._targets, self._formats = bytearray(), dict[int, str](), dict[int, str]()
        self._held = 0
        self.oem = False
        self.hard_links: dict[int, int] = {}

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
        if entry.format:
            self._formats[len(self)] = entry.format
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
            return [self[number] for number in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        kind, is_text = divmod(self._kinds[index], 2)
        name = bytes(self._names[self._ends[index - 1] if index else 0 : self._ends[index]])
        return Entry(
            name.decode("utf-8", "surrogatepass") if is_text else name,
            self._sizes[index],
            KINDS[kind],
            self._targets.get(index, ""),
            self._formats.get(index, ""),
        )


class Damaged(UserError):
    """The archive ends too early, or its bytes are not what its own check sums say."""


#: What decoders raise on bad bytes: ValueError and OverflowError, where numbers and names in headers are none;
#: RecursionError, since tarfile calls itself for each header that belongs to the next one; NotImplementedError, for a
#: zip of a later version.
DECODER_ERRORS = (
    EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError, tarfile.TarError, zipfile.BadZipFile, struct.error,
    gzip.BadGzipFile, ValueError, OverflowError, RecursionError, NotImplementedError,
)  # fmt: skip


@contextmanager
def damage(archive: Path) -> Iterator[None]:
    """Say what the decoders raise on bad bytes as Damaged; let the disk's errors through."""
    try:
        yield
    except DECODER_ERRORS as error:
        if any(reason in str(error) for reason in ("Memory usage limit", "requires too much memory")):
            raise UserError(
                f"{archive}: refused: unpacking it takes more than {megabytes(WINDOW)} of memory:"
                " repack it with a smaller window (xz -9, zstd without --long); nothing was written"
            ) from error
        raise Damaged(f"{archive}: damaged or truncated ({error}): its source must have a whole file") from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):
            raise
        # bz2 says so of bad data, and the system of a place that no file can have
        raise Damaged(f"{archive}: damaged or truncated ({error}): its source must have a whole file") from error


def check_size(archive: Path, unpacked: int, compressed: int, limits: Limits) -> None:
    """Refuse contents of *unpacked* bytes out of *compressed* ones where the limits say so."""
    if unpacked > limits.bytes:
        raise UserError(
            f"{archive}: refused: its content is larger than {megabytes(limits.bytes)}"
            " (--max-bytes); nothing was written"
        )
    if unpacked > RATIO_FLOOR and unpacked > limits.ratio * max(compressed, 1):
        raise UserError(
            f"{archive}: refused as a decompression bomb: {megabytes(compressed)} unpack to more than"
            f" {limits.ratio:g} times as much (--max-ratio); nothing was written"
        )


def check_name(archive: Path, name: str) -> None:
    """Refuse a name that would land outside the folder it is unpacked to."""
    components = re.split(r"[/\\]", name)
    if "\0" in name:
        raise UserError(f"{archive}: refused: its entry {name!r} has a NUL in its name; nothing was written")
    if name[:1] in ("/", "\\") or ".." in components or re.match(r"[A-Za-z]:([/\\]|$)", name):
        raise UserError(f"{archive}: refused: its entry {name!r} would land outside the folder; nothing was written")


def check_link(archive: Path, name: str, target: str) -> None:
    """Refuse a link out of the archive; *target* is relative to its root."""
    inside = posixpath.normpath(target)
    if target.startswith("/") or inside == ".." or inside.startswith("../"):
        raise UserError(f"{archive}: refused: its entry {name!r} is a link out of it; nothing was written")


class Inflated:
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
