"""Read zips without trusting them: no bombs, no overlapping entries, memory stays flat."""

from __future__ import annotations

import bz2
import copy
import lzma
import posixpath
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from scripts.lib.base.problems import UserError
from scripts.lib.base.units import megabytes
from scripts.lib.data import archive_entries
from scripts.lib.data.archive_entries import Entries, Entry, Inflated, Kind, Limits, check_size, damage, sniff_entry

#: The systems of "version made by" whose programs write names as MS-DOS did: FAT, NTFS, VFAT.
_WRITE_OEM = (0, 10, 11, 14)
#: Bytes of the record that ends a zip, without its comment and with the longest one.
_END, _LONGEST_END = 22, 22 + 65535


def list_zip(archive: Path, limits: Limits) -> Entries:
    """Return the entries of a zip, in the order of its central directory."""
    entries, longest = Entries(archive, limits), archive_entries.LONGEST_PATH_IN_ARCHIVE
    total, compressed = 0, archive.stat().st_size
    with open_zip(archive, limits) as zipped:
        _check_overlap(archive, zipped)
        _check_begin(archive, zipped)
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
            check_size(archive, total, compressed, limits)
            kind = _zip_kind(info)
            target = ""
            if kind == "link":
                with open_zip_entry(zipped, info) as content:
                    link = content.read(longest).decode("utf-8", "replace")
                target = posixpath.join(posixpath.dirname(info.filename), link)[:longest]
            entries.oem |= info.create_system in _WRITE_OEM
            name = _zip_name(info)
            format_name = sniff_entry(name, partial(_first_bytes, zipped, info)) if kind == "file" else ""
            entries.append(Entry(name, info.file_size, kind, target, format_name))
    return entries


def _first_bytes(zipped: zipfile.ZipFile, info: zipfile.ZipInfo, size: int) -> bytes:
    with open_zip_entry(zipped, info) as content:
        return content.read(size)


@contextmanager
def open_zip(archive: Path, limits: Limits) -> Iterator[zipfile.ZipFile]:
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
        raise zipfile.BadZipFile("it has no central directory: it is not whole, or the first part of a split zip")
    if end[1]:
        raise UserError(
            f"{archive}: only the last part of a zip that was split into {end[1] + 1}",
            "join them: put all parts (.z01, .z02, ..., .zip) in one folder, then zip -s 0 NAME.zip --out whole.zip",
        )
    size, position = end[5], end[9] - end[5] - (76 if end[0] == b"PK\x06\x06" else 0)
    if position < 0:
        raise zipfile.BadZipFile("its central directory is larger than itself")
    if size > archive_entries.ALL_NAMES:
        raise UserError(
            f"{archive}: refused: a central directory of more than {megabytes(archive_entries.ALL_NAMES)}: repack it;"
            " nothing was written"
        )
    most = archive_entries.ENTRIES_PER_IMAGE * limits.images + 1000
    count, last = 0, position + size
    while position + 46 <= last:
        file.seek(position)
        lengths = struct.unpack_from("<HHH", file.read(46), 28)
        position += 46 + sum(lengths)
        count += 1
        if count > most:
            raise UserError(f"{archive}: refused: more than {most} entries (--max-images); nothing was written")
    file.seek(0)


def _check_begin(archive: Path, zipped: zipfile.ZipFile) -> None:
    """Refuse a zip before whose entries another one ends, as ``cat a.zip b.zip`` makes it: only the last would be read.

    That a zip has something else before it, as one that unpacks itself, is usual.
    """
    first = min((info.header_offset for info in zipped.infolist()), default=zipped.start_dir)
    file: Any = zipped.fp
    start = max(0, first - _LONGEST_END)
    file.seek(start)
    before = file.read(first - start)
    position = before.find(b"PK\x05\x06")
    while 0 <= position <= len(before) - _END:
        (comment,) = struct.unpack_from("<H", before, position + _END - 2)
        if position + _END + comment == len(before):
            raise UserError(
                f"{archive}: another zip stands before it, which would not be read",
                "unpack both and give the folder, or list the zips as dataset.source",
            )
        position = before.find(b"PK\x05\x06", position + 1)


def _check_overlap(archive: Path, zipped: zipfile.ZipFile) -> None:
    """Refuse entries that share their bytes: a few kilobytes could then unpack to terabytes.

    David Fifield, A better zip bomb, WOOT 2019. Lengths of local headers are taken without their extra field, which
    only the header itself tells: what the entries take together is no more than the file all the same.
    """
    infos = sorted(zipped.infolist(), key=lambda info: info.header_offset)
    starts = [info.header_offset for info in infos] + [zipped.start_dir]
    if starts[0] < 0:
        raise zipfile.BadZipFile("its begin is missing, as of the last of several parts, or its directory is wrong")
    for info, start, following in zip(infos, starts, starts[1:], strict=False):
        if start + 30 + info.compress_size > following:
            raise UserError(
                f"{archive}: refused: its entry {info.filename!r} overlaps another one, as in a decompression bomb"
                " or a damaged archive; nothing was written"
            )


@contextmanager
def open_zip_entry(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[Any]:
    """Open the content of one entry."""
    if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipped.open(info) as content:
            yield content
        return
    raw = copy.copy(info)  # its bytes as they are in the archive
    raw.compress_type, raw.file_size = zipfile.ZIP_STORED, info.compress_size
    del raw.CRC
    with zipped.open(raw) as source:
        lzma_or_bz2 = _lzma_of_zip(source) if info.compress_type == zipfile.ZIP_LZMA else bz2.BZ2Decompressor()
        yield _Checked(Inflated(source, lambda: lzma_or_bz2), info)


def _lzma_of_zip(source: IO[bytes]) -> lzma.LZMADecompressor:
    """Return the decompressor that the first 9 bytes of *source* describe (PKWARE's APPNOTE.TXT, 5.8.8)."""
    _, size, settings, window = struct.unpack("<HHBL", source.read(9))
    if size != 5:
        raise lzma.LZMAError("settings that are none")
    if window > archive_entries.WINDOW:
        raise lzma.LZMAError("Memory usage limit exceeded")
    rest, lc = divmod(settings, 9)
    pb, lp = divmod(rest, 5)
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": max(window, 4096), "lc": lc, "lp": lp, "pb": pb}]
    return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)


class _Checked:
    """The content of a zip's entry: as many bytes as it declares, its check sum compared at the end."""

    def __init__(self, stream: Inflated, info: zipfile.ZipInfo) -> None:
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
