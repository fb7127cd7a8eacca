"""Writes archives as no honest tool would: every field of a zip and of a tar's header can be a lie."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import struct
import subprocess
import sys
import tarfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import zstandard

from scripts.lib.data.archive_entries import Limits

ROOT = Path(__file__).resolve().parents[2]
TARS = ("tar", "gz", "bz2", "xz", "zst")
STORED, DEFLATED, BZ2, LZMA = 0, 8, 12, 14
WHOLE = 0xFFFFFFFF


def compress(data: bytes, kind: str) -> bytes:
    """Return *data* as tar (as it is), gz, bz2, xz or zst."""
    if kind == "zst":
        return zstandard.ZstdCompressor(write_checksum=True).compress(data)
    if kind == "gz":
        return gzip.compress(data, mtime=0)
    return {"tar": bytes, "bz2": bz2.compress, "xz": lzma.compress}[kind](data)  # type: ignore[operator]


# --- zip ------------------------------------------------------------------------------------------------------------


@dataclass
class Zipped:
    """An entry of a zip; what is None is as it should be. ``local_*``: in the header before the content."""

    name: bytes = b"cat/1.jpg"
    content: bytes = b"cat one"
    method: int = STORED
    flags: int = 0x800
    size: int | None = None
    packed_size: int | None = None
    crc: int | None = None
    offset: int | None = None
    mode: int = stat.S_IFREG | 0o644
    extra: bytes = b""
    zip64: bool = False
    compressed: bytes | None = None
    local: dict[str, int | bytes] = field(default_factory=dict)

    def data(self) -> bytes:
        """Return the content as it stands in the archive."""
        if self.compressed is not None:
            return self.compressed
        if self.method == DEFLATED:
            return zlib.compress(self.content, 9)[2:-4]
        if self.method == BZ2:
            return bz2.compress(self.content)
        if self.method == LZMA:
            filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 16, "lc": 3, "lp": 0, "pb": 2}]
            raw = lzma.compress(self.content, lzma.FORMAT_RAW, filters=filters)
            return struct.pack("<BBHBL", 9, 4, 5, (2 * 5 + 0) * 9 + 3, 1 << 16) + raw
        return self.content


def zip_of(
    *entries: Zipped,
    comment: bytes = b"",
    before: bytes = b"",
    after: bytes = b"",
    end: dict[str, int] | None = None,
    zip64_end: dict[str, int] | None = None,
) -> bytes:
    """Return a zip; ``end`` and ``zip64_end``: fields of the end record (count, size, offset) that lie."""
    out = bytearray(before)
    central = bytearray()
    for entry in entries:
        data = entry.data()
        size = len(entry.content) if entry.size is None else entry.size
        packed_size = len(data) if entry.packed_size is None else entry.packed_size
        crc = zlib.crc32(entry.content) if entry.crc is None else entry.crc
        offset = len(out) - len(before) if entry.offset is None else entry.offset
        extra = entry.extra
        version = 45 if entry.zip64 else 20
        if entry.zip64:
            extra = struct.pack("<HHQQQ", 1, 24, size, packed_size, offset) + extra
        narrow = (WHOLE, WHOLE, WHOLE) if entry.zip64 else (size, packed_size, offset)
        header = {"name": entry.name, "flags": entry.flags, "method": entry.method, "crc": crc, "extra": b""}
        header |= {"size": size & WHOLE, "packed_size": packed_size & WHOLE} | entry.local  # type: ignore[operator]
        out += struct.pack(
            "<4sHHHHHLLLHH",
            b"PK\x03\x04",
            version,
            header["flags"],
            header["method"],
            0,
            0x21,
            header["crc"],
            header["packed_size"],
            header["size"],
            len(header["name"]),  # type: ignore[arg-type]
            len(header["extra"]),  # type: ignore[arg-type]
        )
        out += header["name"] + header["extra"] + data  # type: ignore[operator]
        central += struct.pack(
            "<4sHHHHHHLLLHHHHHLL",
            b"PK\x01\x02",
            (3 << 8) + version,
            version,
            entry.flags,
            entry.method,
            0,
            0x21,
            crc,
            narrow[1],
            narrow[0],
            len(entry.name),
            len(extra),
            0,
            0,
            0,
            entry.mode << 16,
            narrow[2],
        )
        central += entry.name + extra
    start = len(out) - len(before)
    fields = {"count": len(entries), "size": len(central), "offset": start}
    out += central
    if zip64_end is not None:
        end_offset = len(out)
        wide = fields | zip64_end
        out += struct.pack(
            "<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, wide["count"], wide["count"], wide["size"], wide["offset"]
        )
        out += struct.pack("<4sLQL", b"PK\x06\x07", 0, end_offset, 1)
    fields |= end or {}
    out += end_of_zip(**fields, comment=comment)
    return bytes(out + after)


def end_of_zip(count: int, size: int, offset: int, comment: bytes = b"") -> bytes:
    """Return an end-of-central-directory record."""
    return struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, count, count, size, offset, len(comment)) + comment


# --- tar ------------------------------------------------------------------------------------------------------------


def blocks(data: bytes) -> bytes:
    """Return *data* padded with zeros to whole blocks."""
    return data + bytes(-len(data) % 512)


def member(
    name: bytes = b"cat/1.jpg",
    content: bytes = b"cat one",
    kind: bytes = tarfile.REGTYPE,
    link: bytes = b"",
    size: int | bytes | None = None,
) -> bytes:
    """Return one entry of a tar: GNU header (of at most 100 bytes of name) and content; ``size``: number or raw."""
    number = len(content) if size is None else size
    header = bytearray(512)
    header[0 : len(name[:100])] = name[:100]
    header[100:124] = b"0000644\0" + b"0000000\0" * 2
    if isinstance(number, bytes):
        header[124:136] = number
    elif 0 <= number < 8**11:
        header[124:136] = b"%011o\0" % number
    else:
        header[124:136] = base256(number)
    header[136:148] = b"00000000000\0"
    header[156:157] = kind
    header[157 : 157 + len(link[:100])] = link[:100]
    header[257:265] = b"ustar  \0"
    return seal(header) + blocks(content)


def base256(number: int) -> bytes:
    """Return a number as GNU tar writes those that octal digits do not hold."""
    first = b"\x80" if number >= 0 else b"\xff"
    return first + (number % 256**11).to_bytes(11, "big")


def seal(header: bytearray) -> bytes:
    """Return the header with its check sum."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def pax(fields: dict[str, bytes] | bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """Return an extended header: of these fields, or of these bytes."""
    if isinstance(fields, bytes):
        return member(b"pax", fields, kind)
    body = b""
    for keyword, value in fields.items():
        record = b" " + keyword.encode() + b"=" + value + b"\n"
        length = len(record)
        while len(b"%d" % length) + len(record) != length:
            length = len(b"%d" % length) + len(record)
        body += b"%d" % length + record
    return member(b"pax", body, kind)


def long_name(name: bytes, kind: bytes = tarfile.GNUTYPE_LONGNAME) -> bytes:
    """Return GNU tar's header for a long name (or a long link)."""
    return member(b"././@LongLink", name + b"\0", kind)


def tar_of(*members: bytes) -> bytes:
    """Return a tar of these entries."""
    return b"".join(members) + bytes(1024)


# --- windows --------------------------------------------------------------------------------------------------------


def wide_xz(data: bytes) -> bytes:
    """Return *data* as xz whose header asks for a window of 4 GiB."""
    compressed = bytearray(lzma.compress(data))
    size = (compressed[12] + 1) * 4
    assert compressed[14:16] == b"\x21\x01"  # LZMA2, one byte of settings
    compressed[16] = 40
    compressed[12 + size - 4 : 12 + size] = struct.pack("<L", zlib.crc32(compressed[12 : 12 + size - 4]))
    return bytes(compressed)


def wide_zst(data: bytes) -> bytes:
    """Return *data* as zstd whose header asks for a window of 2 GiB."""
    compressor = zstandard.ZstdCompressor().compressobj()
    compressed = bytearray(compressor.compress(data) + compressor.flush())
    assert not compressed[4] & 0x20  # a window is written
    compressed[5] = 21 << 3
    return bytes(compressed)


# --- measuring ------------------------------------------------------------------------------------------------------

_PROBE = """
import resource, sys, time
from pathlib import Path
from scripts.lib.base.console import UserError
from scripts.lib.data.archive_entries import Limits
from scripts.lib.data.unpacking import unpack
began = time.process_time()
try:
    unpack(Path(sys.argv[1]), Path(sys.argv[2]), Limits(int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
    message = "unpacked"
except UserError as error:
    message = str(error)
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak) / 1024, time.process_time() - began, message)
"""


def measured(archive: Path, output: Path, limits: Limits | None = None) -> tuple[float, float, str]:
    """Unpack in a process of its own: its peak memory in MiB, its processor time in s, and what it said.

    The whole process counts; importing the script alone takes about 31 MiB.
    """
    limits = limits or Limits()
    command = [sys.executable, "-c", _PROBE, archive, output, limits.images, limits.bytes, limits.ratio]
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    peak, seconds, message = done.stdout.split(" ", 2)
    return float(peak), float(seconds), message.strip()


def zeros(kind: str, count: int) -> bytes:
    """Return *count* zeros compressed, without holding them."""
    makers = {
        "bz2": bz2.BZ2Compressor,
        "lzma": lambda: lzma.LZMACompressor(
            lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA1, "preset": 0, "dict_size": 1 << 16}]
        ),
    }
    compressor, out = makers[kind](), io.BytesIO()  # type: ignore[operator]
    for _ in range(count // 2**20):
        out.write(compressor.compress(bytes(2**20)))
    out.write(compressor.flush())
    return out.getvalue()
