"""Hostile archives of every known kind: refused in one line, or handled with the stated result.

Each row of the tables is an archive and what becomes of it: a text is part of the error (then nothing at all was
written), a dict is what lies in the output folder. In both cases nothing outside that folder has changed.
"""

from __future__ import annotations

import bz2
import stat
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hostile_files import (
    BZ2,
    DEFLATED,
    LZMA,
    STORED,
    TARS,
    WHOLE,
    Zipped,
    base256,
    blocks,
    compress,
    end_of_zip,
    long_name,
    measured,
    member,
    pax,
    seal,
    tar_of,
    wide_xz,
    wide_zst,
    zeros,
    zip_of,
)

from scripts.lib.base.console import one_line
from scripts.lib.base.problems import UserError
from scripts.lib.data import archive_entries
from scripts.lib.data.archive_entries import Entry, Limits
from scripts.lib.data.archives import read_entries
from scripts.lib.data.unpacking import unpack

Outcome = str | Mapping[str, bytes]
#: An honest entry that stands in every archive, so that a refusal is a refusal of all.
DOG = {"dog/1.jpg": b"dog one"}
DOG_ZIPPED = Zipped(b"dog/1.jpg", b"dog one")
DOG_TARRED = member(b"dog/1.jpg", b"dog one")
#: Stands first where the beginning must be that of a tar.
NOTES_TARRED = member(b"notes.txt", b"notes")
CAT_AND_DOG = {"cat/1.jpg": b"cat one"} | DOG
#: Peak memory of a whole process that unpacks, in MiB; Python and the script take 31 of them.
MEMORY = 100


def listing(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return type and content of everything below *folder*, links not followed."""
    contents = {}
    for path in sorted(folder.rglob("*")):
        mode = path.lstat().st_mode
        content = path.read_bytes() if stat.S_ISREG(mode) else b""
        contents[path.relative_to(folder).as_posix()] = (stat.S_IFMT(mode), content)
    return contents


def becomes(folder: Path, data: bytes, outcome: Outcome, limits: Limits | None = None) -> None:
    """Unpack *data* somewhere below *folder*; it must become *outcome* and leave everything else alone."""
    yard = folder / "yard"
    (yard / "results").mkdir(parents=True)
    (folder / "evil.jpg").write_bytes(b"of somebody else")
    (yard / "results" / "1.jpg").write_bytes(b"of somebody else")
    archive, output = yard / "archive", yard / "results" / "images"
    archive.write_bytes(data)
    before = listing(folder)
    try:
        unpack(archive, output, limits or Limits())
    except UserError as error:
        assert isinstance(outcome, str), f"refused: {error}"
        assert outcome in str(error)
        assert str(error) == one_line(error) and str(archive) in str(error)
        assert listing(folder) == before
        return
    inside = listing(output)
    assert {kind for kind, _ in inside.values()} <= {stat.S_IFREG, stat.S_IFDIR}
    files = {name: content for name, (kind, content) in inside.items() if kind == stat.S_IFREG}
    assert files == outcome
    prefix = "yard/results/images"
    assert {name: what for name, what in listing(folder).items() if not name.startswith(prefix)} == before


def as_zip(name: bytes | str, content: bytes = b"evil", mode: int = stat.S_IFREG | 0o644) -> bytes:
    raw = name.encode() if isinstance(name, str) else name
    return zip_of(Zipped(raw, content, mode=mode), DOG_ZIPPED)


def as_tar(name: bytes | str, content: bytes = b"evil", kind: bytes = tarfile.REGTYPE, link: bytes = b"") -> bytes:
    raw = name.encode() if isinstance(name, str) else name
    long = long_name(raw) if len(raw) > 100 else b""
    return tar_of(long, member(raw, content, kind, link), DOG_TARRED)


def as_kind(kind: str, name: bytes | str, content: bytes = b"evil") -> bytes:
    return as_zip(name, content) if kind == "zip" else compress(as_tar(name, content), kind)


# --- path escapes, absolute names -----------------------------------------------------------------------------------

ESCAPES = {
    "parent": "../evil.jpg",
    "parent inside": "cat/../../evil.jpg",
    "parent at the end": "cat/..",
    "parent that stays inside": "cat/../dog/evil.jpg",
    "backslashes": "..\\evil.jpg",
    "backslashes inside": "cat/a\\..\\..\\evil.jpg",
    "absolute": "/evil.jpg",
    "two slashes": "//evil.jpg",
    "drive": "C:/evil.jpg",
    "drive, backslash": "c:\\evil.jpg",
    "network share": "\\\\server\\share\\evil.jpg",
    "device path": "\\\\?\\C:\\evil.jpg",
}


@pytest.mark.parametrize("kind", ["zip", *TARS])
@pytest.mark.parametrize("name", ESCAPES.values(), ids=ESCAPES)
def test_a_name_that_leads_outside_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    becomes(tmp_path, as_kind(kind, name), "would land outside")


@pytest.mark.parametrize("kind", ["zip", *TARS])
def test_an_absolute_name_of_a_file_that_is_there_is_refused(tmp_path: Path, kind: str) -> None:
    becomes(tmp_path, as_kind(kind, f"{tmp_path}/evil.jpg"), "would land outside")


# --- links, devices -------------------------------------------------------------------------------------------------

SYM, HARD = tarfile.SYMTYPE, tarfile.LNKTYPE
OUT, LEFT_OUT = "is a link out of it", DOG
LINKS_OF_TAR: dict[str, tuple[bytes, Outcome]] = {
    "symbolic, absolute": (member(b"cat/l.jpg", b"", SYM, b"/etc/passwd"), OUT),
    "symbolic, parent": (member(b"cat/l.jpg", b"", SYM, b"../../evil.jpg"), OUT),
    "symbolic, parent after a folder": (member(b"cat/l.jpg", b"", SYM, b"x/../../../evil.jpg"), OUT),
    "symbolic, folder": (member(b"cat", b"", SYM, b".."), OUT),
    "symbolic, folder, then a file through it": (
        member(b"cat", b"", SYM, b"../..") + member(b"cat/evil.jpg", b"evil"),
        OUT,
    ),
    "symbolic inside, then a file through it": (
        member(b"cat", b"", SYM, b"dog") + member(b"cat/evil.jpg", b"evil"),
        {"cat/evil.jpg": b"evil"} | DOG,
    ),
    "two links that lead outside together": (
        member(b"a/b", b"", SYM, b".") + member(b"a/b/c.jpg", b"", SYM, b"../../evil.jpg"),
        LEFT_OUT,  # neither is ever made
    ),
    "symbolic, long target": (
        long_name(b"../" * 50 + b"evil.jpg", tarfile.GNUTYPE_LONGLINK) + member(b"cat/l.jpg", b"", SYM, b"x"),
        OUT,
    ),
    "symbolic, target of 5 kB": (
        long_name(b"d/" * 2500, tarfile.GNUTYPE_LONGLINK) + member(b"cat/l.jpg", b"", SYM, b"x"),
        "longer than",
    ),
    "symbolic, by a pax header": (
        pax({"linkpath": b"../../evil.jpg"}) + member(b"cat/l.jpg", b"", SYM, b"harmless.jpg"),
        OUT,
    ),
    "symbolic, inside": (member(b"cat/l.jpg", b"", SYM, b"../dog/1.jpg"), LEFT_OUT),
    "symbolic, to itself": (member(b"cat/l.jpg", b"", SYM, b"l.jpg"), LEFT_OUT),
    "hard, absolute": (member(b"cat/l.jpg", b"", HARD, b"/etc/passwd"), OUT),
    "hard, parent": (member(b"cat/l.jpg", b"", HARD, b"../evil.jpg"), OUT),
    "hard, with content": (member(b"cat/l.jpg", b"evil", HARD, b"../evil.jpg"), "damaged or truncated"),
    "hard, inside": (member(b"cat/l.jpg", b"", HARD, b"dog/1.jpg"), LEFT_OUT),
}


@pytest.mark.parametrize("kind", ["tar", "gz", "zst"])
@pytest.mark.parametrize("case", LINKS_OF_TAR)
def test_links_of_a_tar_are_never_made(tmp_path: Path, case: str, kind: str) -> None:
    entries, outcome = LINKS_OF_TAR[case]
    becomes(tmp_path, compress(tar_of(entries, DOG_TARRED), kind), outcome)


LINKS_OF_ZIP: dict[str, tuple[bytes, Outcome]] = {
    "absolute": (b"/etc/passwd", OUT),
    "parent": (b"../../evil.jpg", OUT),
    "inside": (b"../dog/1.jpg", LEFT_OUT),
    "target of 1 MB": (b"d/" * 500_000, LEFT_OUT),
    "empty": (b"", LEFT_OUT),
}


@pytest.mark.parametrize("method", [STORED, DEFLATED, BZ2, LZMA])
@pytest.mark.parametrize("case", LINKS_OF_ZIP)
def test_links_of_a_zip_are_never_made(tmp_path: Path, case: str, method: int) -> None:
    target, outcome = LINKS_OF_ZIP[case]
    becomes(tmp_path, zip_of(Zipped(b"cat/l.jpg", target, method, mode=stat.S_IFLNK | 0o777), DOG_ZIPPED), outcome)


def test_a_zip_writes_no_file_through_its_own_link(tmp_path: Path) -> None:
    link = Zipped(b"cat", b"dog", mode=stat.S_IFLNK | 0o777)
    becomes(tmp_path, zip_of(link, Zipped(b"cat/1.jpg"), DOG_ZIPPED), CAT_AND_DOG)


@pytest.mark.parametrize("kind", TARS)
@pytest.mark.parametrize("device", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE], ids=["chr", "blk", "fifo"])
def test_devices_and_pipes_of_a_tar_are_refused(tmp_path: Path, device: bytes, kind: str) -> None:
    becomes(tmp_path, compress(as_tar("cat/1.jpg", b"", device), kind), "is a device or a pipe")


@pytest.mark.parametrize("device", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_devices_and_pipes_of_a_zip_are_refused(tmp_path: Path, device: int) -> None:
    becomes(tmp_path, as_zip("cat/1.jpg", mode=device | 0o666), "is a device or a pipe")


@pytest.mark.parametrize("kind", [b"V", b"M", b"D", b"Z", b"\x00", b"7"])
def test_entries_of_other_kinds_are_refused_or_files(tmp_path: Path, kind: bytes) -> None:
    """Volume labels, parts of several volumes and the like; an empty kind and 7 (contiguous) are files."""
    outcome: Outcome = {"cat/1.jpg": b"evil"} | DOG if kind in b"\x007" else "is a device or a pipe"
    becomes(tmp_path, as_tar("cat/1.jpg", b"evil", kind), outcome)


# --- bombs: ratio, count, total, overlap ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", "gz", "bz2", "xz", "zst"])
def test_a_bomb_by_ratio_is_refused(tmp_path: Path, kind: str) -> None:
    bomb = bytes(20 * 2**20)
    tar = b"" if kind == "zip" else as_tar("cat/1.jpg", bomb)
    data = zip_of(Zipped(content=bomb, method=DEFLATED), DOG_ZIPPED) if kind == "zip" else compress(tar, kind)
    becomes(tmp_path, data, "decompression bomb")


@pytest.mark.parametrize("kind", ["gz", "xz"])
def test_a_bomb_in_what_is_left_out_is_refused_too(tmp_path: Path, kind: str) -> None:
    becomes(tmp_path, compress(as_tar("cat/notes.txt", bytes(20 * 2**20)), kind), "decompression bomb")
    becomes(tmp_path / "after", compress(tar_of(DOG_TARRED) + bytes(20 * 2**20), kind), "decompression bomb")


@pytest.mark.parametrize("kind", ["zip", *TARS])
def test_more_images_than_allowed_are_refused(tmp_path: Path, kind: str) -> None:
    becomes(tmp_path, as_kind(kind, "cat/1.jpg"), "2 images, more than 1 (--max-images)", Limits(images=1))


@pytest.mark.parametrize("kind", ["zip", *TARS])
def test_more_entries_than_allowed_are_refused(tmp_path: Path, kind: str) -> None:
    names = [b"cat/%d.txt" % number for number in range(1100)]
    if kind == "zip":
        data = zip_of(DOG_ZIPPED, *(Zipped(name, b"") for name in names))
    else:
        data = compress(tar_of(DOG_TARRED, *(member(name, b"") for name in names)), kind)
    becomes(tmp_path, data, "more than 1040 entries (--max-images)", Limits(images=10))


@pytest.mark.parametrize("kind", ["zip", *TARS])
def test_more_bytes_than_allowed_are_refused(tmp_path: Path, kind: str) -> None:
    becomes(tmp_path, as_kind(kind, "cat/1.jpg", b"1" * 50_000), "(--max-bytes)", Limits(bytes=20_000))


def test_an_archive_inside_an_archive_is_not_opened(tmp_path: Path) -> None:
    inner = zip_of(Zipped(content=bytes(2**20), method=DEFLATED))
    becomes(tmp_path, zip_of(Zipped(b"cat/inner.zip", inner), DOG_ZIPPED), DOG)


def overlapping(count: int, content: bytes) -> bytes:
    """Return a zip of *count* entries that are one and the same piece of it."""
    entries = [Zipped(content=content, method=DEFLATED)]
    single = zip_of(*entries)
    entry = single[single.index(b"PK\x01\x02") : single.index(b"PK\x05\x06")]
    start = single.index(b"PK\x01\x02")
    return single[:start] + entry * count + end_of_zip(count, len(entry) * count, start)


def quoted(count: int) -> bytes:
    """Return a zip whose entries each quote the headers of the following ones (Fifield's better zip bomb).

    Each is deflated: one stored block that holds the next local header, then the deflated content of the next entry.
    """
    entries: list[Zipped] = []
    content, compressed = b"k" * 4000, zlib.compress(b"k" * 4000, 9)[2:-4]
    out = b""
    for number in reversed(range(count)):
        entry = Zipped(b"cat/%d.jpg" % number, content, DEFLATED, compressed=compressed)
        header = zip_of(entry)[: 30 + len(entry.name)]
        entries.insert(0, entry)
        out = header + compressed
        content = header + content
        compressed = struct.pack("<BHH", 0, len(header), len(header) ^ 0xFFFF) + out
    central, offset = b"", 0
    for entry in entries:
        entry.offset = offset
        plain = zip_of(entry)
        central += plain[30 + len(entry.name) + len(entry.data()) : -22]
        offset += 30 + len(entry.name) + 5
    return out + central + end_of_zip(count, len(central), len(out))


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    becomes(tmp_path, overlapping(50, b"cat " * 1000), "overlaps another one")


def test_a_bomb_that_quotes_its_own_headers_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "quoted.zip"
    archive.write_bytes(quoted(20))
    with zipfile.ZipFile(archive) as zipped:  # Python before 3.11.8 unpacks it
        assert len(zipped.infolist()) == 20
    becomes(tmp_path, quoted(20), "overlaps another one")


def test_entries_that_share_their_bytes_are_refused_by_their_total_first(tmp_path: Path) -> None:
    data = overlapping(50, bytes(2**20))
    assert len(data) < 5000
    becomes(tmp_path, data, "decompression bomb")


def test_an_entry_that_reaches_into_the_next_is_refused(tmp_path: Path) -> None:
    second = zip_of(DOG_ZIPPED)
    second = second[: second.index(b"PK\x01\x02")]
    first = Zipped(content=b"cat" + second)  # the second entry is quoted by the first
    data = zip_of(first, Zipped(b"dog/1.jpg", b"dog one", offset=30 + 9 + 3, local={"name": b"x"}))
    becomes(tmp_path, data, "overlaps another one")


def test_an_entry_that_reaches_into_the_directory_is_refused(tmp_path: Path) -> None:
    becomes(tmp_path, zip_of(DOG_ZIPPED, Zipped(packed_size=60, size=60)), "overlaps another one")


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["zip", *TARS])
def test_names_of_4_kB_are_handled_and_longer_ones_refused(tmp_path: Path, kind: str) -> None:
    deep = "cat/" + "d/" * 2043 + "1.jpg"
    long = "cat/" + "n" * 4087 + ".jpg"
    assert len(deep) == len(long) == 4095
    for number, name in enumerate((deep, long)):
        archive = tmp_path / f"{number}"
        archive.write_bytes(as_kind(kind, name))
        unpack(archive, tmp_path / f"images{number}", Limits())
        files = [path.relative_to(tmp_path / f"images{number}") for path in tmp_path.glob(f"images{number}/cat/**/*")]
        assert len(files) == 1 and files[0].suffix == ".jpg" and len(str(files[0])) < 300
    becomes(tmp_path, as_kind(kind, "cat/" + "n" * 5000 + ".jpg"), "is longer than 4096 bytes")


@pytest.mark.parametrize("kind", ["zip", *TARS])
def test_duplicate_names_are_numbered(tmp_path: Path, kind: str) -> None:
    if kind == "zip":
        data = zip_of(*(Zipped(content=b"%d" % number) for number in range(3)), DOG_ZIPPED)
    else:
        data = compress(tar_of(*(member(content=b"%d" % number) for number in range(3)), DOG_TARRED), kind)
    becomes(tmp_path, data, {"cat/1.jpg": b"0", "cat/1~2.jpg": b"1", "cat/1~3.jpg": b"2"} | DOG)


@pytest.mark.parametrize("kind", ["zip", "tar", "gz"])
def test_a_file_and_a_folder_of_one_name_are_both_there(tmp_path: Path, kind: str) -> None:
    names = [b"cat/a.jpg", b"cat/a.jpg/b.jpg"]
    if kind == "zip":
        data = zip_of(*(Zipped(name, name) for name in names), DOG_ZIPPED)
    else:
        data = compress(tar_of(*(member(name, name) for name in names), DOG_TARRED), kind)
    becomes(tmp_path, data, {"cat/a.jpg": names[0], "cat/a~2.jpg/b.jpg": names[1]} | DOG)


NAMES: dict[str, tuple[str, str | None]] = {
    "backslash": ("cat/a\\b.jpg", "cat/a%5Cb.jpg"),
    "drive, relative": ("C:evil.jpg", None),  # outside any class folder
    "drive inside": ("cat/C:/evil.jpg", "cat/C:/evil.jpg"),
    "alternate stream": ("cat/a.jpg:evil.jpg", "cat/a.jpg:evil.jpg"),
    "reserved in Windows": ("CON/nul.jpg", "CON/nul.jpg"),
    "trailing dots": ("cat./1.jpg", "cat./1.jpg"),
    "three dots": ("cat/.../1.jpg", None),  # hidden, as all that begins with a dot
    "dots and spaces": ("cat/ .. /1.jpg", "cat/%20..%20/1.jpg"),
    "trailing space": ("cat /1.jpg", "cat%20/1.jpg"),
    "one dot and empty parts": ("./cat//./1.jpg", "cat/1.jpg"),
    "full width dots": ("cat/\uff0e\uff0e/1.jpg", "cat/\uff0e\uff0e/1.jpg"),
    "two dot leader": ("cat/\u2025/1.jpg", "cat/\u2025/1.jpg"),
    "division slash": ("cat\u2215..\u2215evil/1.jpg", "cat\u2215..\u2215evil/1.jpg"),
    "right to left": ("cat/\u202egpj.exe.jpg", "cat/%E2%80%AEgpj.exe.jpg"),
    "line end": ("cat/a\n1 2.jpg", "cat/a%0A1 2.jpg"),
    "escape sequence": ("cat/\x1b[2J.jpg", "cat/%1B[2J.jpg"),
    "other case": ("DOG/1.JPG", "DOG/1.JPG"),
    "decomposed": ("cafe\u0301/1.jpg", "cafe\u0301/1.jpg"),
    "percent": ("cat/%2e%2e%2f1.jpg", "cat/%2e%2e%2f1.jpg"),
    "shell": ("cat/$(touch evil);`x`.jpg", "cat/$(touch evil);`x`.jpg"),
    "option": ("-rf/--evil.jpg", "-rf/--evil.jpg"),
    "home": ("~/evil.jpg", "~/evil.jpg"),
}


@pytest.mark.parametrize("kind", ["zip", "tar", "gz"])
@pytest.mark.parametrize("case", NAMES)
def test_tricks_with_names_stay_inside(tmp_path: Path, case: str, kind: str) -> None:
    name, result = NAMES[case]
    becomes(tmp_path, as_kind(kind, name), ({result: b"evil"} if result else {}) | DOG)


@pytest.mark.parametrize("raw", [b"cat/\xff\xa0\xff\xa0.jpg", b"cat/\xed\xa0\x80.jpg"])
def test_names_of_no_encoding_are_percent_encoded(tmp_path: Path, raw: bytes) -> None:
    encoded = "cat/" + "".join(f"%{byte:02X}" for byte in raw[4:-4]) + ".jpg"
    becomes(tmp_path, as_tar(raw), {encoded: b"evil"} | DOG)
    unflagged = zip_of(Zipped(raw, b"evil", flags=0), DOG_ZIPPED)
    becomes(tmp_path / "zip", unflagged, {encoded: b"evil"} | DOG)
    becomes(tmp_path / "flagged", zip_of(Zipped(raw, b"evil"), DOG_ZIPPED), "damaged or truncated")


@pytest.mark.parametrize("flags", [0, 0x800])
def test_a_name_with_a_nul_is_refused(tmp_path: Path, flags: int) -> None:
    """Some programs see all of it, others what stands before it."""
    becomes(tmp_path, zip_of(Zipped(b"cat/evil.exe\0.jpg", flags=flags), DOG_ZIPPED), "has a NUL in its name")
    data = tar_of(pax({"path": b"cat/evil.exe\0.jpg"}), member(), DOG_TARRED)
    becomes(tmp_path / "tar", data, "has a NUL in its name")


def test_what_follows_the_nul_in_a_name_of_a_tar_is_no_part_of_it(tmp_path: Path) -> None:
    becomes(tmp_path, as_tar(b"cat/1.jpg\0/../../evil.jpg"), {"cat/1.jpg": b"evil"} | DOG)


def test_an_entry_without_a_name_is_left_out(tmp_path: Path) -> None:
    becomes(tmp_path, as_zip(b""), DOG)
    becomes(tmp_path / "tar", as_tar(b""), DOG)


def unicode_path(name: bytes, of: bytes) -> bytes:
    field = struct.pack("<BL", 1, zlib.crc32(of)) + name
    return struct.pack("<HH", 0x7075, len(field)) + field


@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        (b"../../evil.jpg", "would land outside"),
        (b"cat/\0.jpg", "has a NUL"),
        ("猫/1.jpg".encode(), {"猫/1.jpg": b"evil"} | DOG),
        (b"\xff\xff", DOG),
    ],
)
def test_the_unicode_path_of_a_zip_is_judged_like_a_name(tmp_path: Path, name: bytes, outcome: Outcome) -> None:
    entry = Zipped(b"cat/1.jpg", b"evil", flags=0, extra=unicode_path(name, b"cat/1.jpg"))
    becomes(tmp_path, zip_of(entry, DOG_ZIPPED), outcome)


# --- encrypted entries ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (Zipped(flags=0x801), "encrypted entries ('cat/1.jpg')"),
        (Zipped(flags=0x841), "encrypted entries ('cat/1.jpg')"),
        (Zipped(b"cat/notes.txt", flags=0x801), "encrypted entries"),
        (Zipped(b"cat/notes/", b"", flags=0x801), "encrypted entries"),
        (Zipped(flags=0x840), "damaged or truncated"),  # strong encryption alone
        (Zipped(method=99, flags=0x801), "encrypted entries"),  # AES
        (Zipped(method=99), "compressed by method 99"),
        (Zipped(method=9), "Deflate64"),
    ],
)
def test_encrypted_entries_are_refused(tmp_path: Path, entry: Zipped, message: str) -> None:
    becomes(tmp_path, zip_of(entry, DOG_ZIPPED), message)


# --- declared sizes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [STORED, DEFLATED, BZ2, LZMA])
def test_an_empty_file_of_a_zip_is_an_empty_file(tmp_path: Path, method: int) -> None:
    becomes(tmp_path, zip_of(Zipped(content=b"", method=method), DOG_ZIPPED), {"cat/1.jpg": b""} | DOG)


@pytest.mark.parametrize("kind", TARS)
def test_an_empty_file_of_a_tar_is_an_empty_file(tmp_path: Path, kind: str) -> None:
    becomes(tmp_path, compress(as_tar("cat/1.jpg", b""), kind), {"cat/1.jpg": b""} | DOG)


@pytest.mark.parametrize("method", [STORED, DEFLATED, BZ2, LZMA])
@pytest.mark.parametrize("size", [0, 1, 6, 8, 5000])
def test_a_zip_that_declares_another_size_than_it_holds_is_refused(tmp_path: Path, method: int, size: int) -> None:
    entry = Zipped(content=b"cat one", method=method, size=size)
    becomes(tmp_path, zip_of(entry, DOG_ZIPPED), "damaged or truncated")


@pytest.mark.parametrize("kind", TARS)
def test_a_tar_that_declares_no_content_but_has_some_is_refused(tmp_path: Path, kind: str) -> None:
    becomes(tmp_path, compress(tar_of(member(size=0), DOG_TARRED), kind), "damaged or truncated")


@pytest.mark.parametrize("method", [STORED, DEFLATED, BZ2, LZMA])
def test_a_zip_that_declares_10_GB_is_refused(tmp_path: Path, method: int) -> None:
    becomes(tmp_path, zip_of(Zipped(method=method, size=10**10, zip64=True), DOG_ZIPPED), "decompression bomb")


@pytest.mark.parametrize("kind", TARS)
@pytest.mark.parametrize(
    "size", [10**10, 2**63 - 512, 2**80, b"77777777777\0"], ids=["10 GB", "2**63", "2**80", "8 GB"]
)
def test_a_tar_that_declares_10_GB_and_more_is_refused(tmp_path: Path, kind: str, size: int | bytes) -> None:
    data = compress(tar_of(member(size=size)), kind)
    becomes(tmp_path, data, "nothing was written")
    generous = Limits(bytes=2**90, ratio=1e30)
    becomes(tmp_path / "generous", data, "damaged or truncated", generous)


SIZES_OF_TAR: dict[str, tuple[bytes, Outcome]] = {
    "base 256": (member(size=base256(7)), CAT_AND_DOG),
    "base 256, negative": (member(size=base256(-1024)), "damaged or truncated"),
    "octal, negative": (member(size=b"-0000000010\0"), "damaged or truncated"),
    "octal, spaces": (member(size=b"         7 \0"), CAT_AND_DOG),
    "octal, no number": (member(size=b"seven bytes\0"), "damaged or truncated"),
    "octal, underscores": (member(size=b"0000000_007\0"), CAT_AND_DOG),
    "pax, the true size": (pax({"size": b"7"}) + member(), CAT_AND_DOG),
    "pax, other than the header": (pax({"size": b"7"}) + member(size=0), CAT_AND_DOG),
    "pax, smaller": (pax({"size": b"3"}) + member(), {"cat/1.jpg": b"cat"} | DOG),
    "pax, none": (pax({"size": b"0"}) + member(), "damaged or truncated"),
    "pax, negative": (pax({"size": b"-1024"}) + member(), "a size of -1024 bytes"),
    "pax, 10 GB": (pax({"size": b"10000000000"}) + member(), "nothing was written"),
    "pax, no number": (pax({"size": b"many"}) + member(), "damaged or truncated"),
    "pax, 4,000 digits": (pax({"size": b"9" * 4000}) + member(), "damaged or truncated"),
    "pax, for all": (pax({"size": b"-1024"}, tarfile.XGLTYPE) + member(), "damaged or truncated"),
    "folder with a size": (member(b"cat/", b"", tarfile.DIRTYPE, size=512), DOG),
}


@pytest.mark.parametrize("kind", ["tar", "gz"])
@pytest.mark.parametrize("case", SIZES_OF_TAR)
def test_sizes_of_a_tar(tmp_path: Path, case: str, kind: str) -> None:
    entries, outcome = SIZES_OF_TAR[case]
    becomes(tmp_path, compress(tar_of(NOTES_TARRED, entries, DOG_TARRED), kind), outcome)


# --- zip64, truncated and lying central directories -----------------------------------------------------------------

FULL = struct.pack("<HHQQQ", 1, 24, 7, 7, 0)
ZIP64: dict[str, tuple[bytes, Outcome]] = {
    "entry": (zip_of(Zipped(zip64=True), DOG_ZIPPED), CAT_AND_DOG),
    "end": (zip_of(Zipped(), DOG_ZIPPED, zip64_end={}, end={"count": 0xFFFF, "offset": WHOLE}), CAT_AND_DOG),
    "both": (zip_of(Zipped(zip64=True), DOG_ZIPPED, zip64_end={}, end={"offset": WHOLE}), CAT_AND_DOG),
    "end, count of 2**60": (zip_of(Zipped(), DOG_ZIPPED, zip64_end={"count": 2**60}), CAT_AND_DOG),
    "end, size of 2**60": (zip_of(Zipped(), DOG_ZIPPED, zip64_end={"size": 2**60}), "damaged or truncated"),
    "end, offset of 2**60": (zip_of(Zipped(), DOG_ZIPPED, zip64_end={"offset": 2**60}), "its begin is missing"),
    "end is missing": (zip_of(Zipped(), DOG_ZIPPED, end={"offset": WHOLE, "size": WHOLE}), "damaged or truncated"),
    "field is missing": (zip_of(Zipped(size=WHOLE, packed_size=WHOLE), DOG_ZIPPED), "nothing was written"),
    "field is too short": (
        zip_of(Zipped(size=WHOLE, packed_size=7, extra=b"\x01\x00\x04\x00abcd"), DOG_ZIPPED),
        "damaged or truncated",
    ),
    "field is cut off": (
        zip_of(Zipped(size=WHOLE, packed_size=7, extra=b"\x01\x00\x18\x00abcd"), DOG_ZIPPED),
        "damaged or truncated",
    ),
    "packed size of 2**63": (zip_of(Zipped(packed_size=2**63, zip64=True), DOG_ZIPPED), "overlaps"),
    "size of 2**64 - 1": (zip_of(Zipped(size=2**64 - 1, zip64=True), DOG_ZIPPED), "nothing was written"),
    "offset of 2**63": (zip_of(Zipped(offset=2**63, zip64=True), DOG_ZIPPED), "overlaps"),
}


@pytest.mark.parametrize("case", ZIP64)
def test_zip64(tmp_path: Path, case: str) -> None:
    data, outcome = ZIP64[case]
    becomes(tmp_path, data, outcome)


def test_a_truncated_central_directory_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    whole = zip_of(Zipped(), DOG_ZIPPED)
    start = whole.index(b"PK\x01\x02")
    for end in range(start, len(whole)):
        becomes(tmp_path / str(end), whole[:end], "damaged or truncated")
    becomes(tmp_path / "whole", whole, CAT_AND_DOG)


def test_a_truncated_tar_is_refused_wherever_a_block_ends(tmp_path: Path) -> None:
    whole = tar_of(pax({"path": b"cat/1.jpg"}), member(), DOG_TARRED)
    for end in range(512, len(whole) - 1024, 512):
        for kind in ("tar", "zst"):
            becomes(tmp_path / f"{kind}{end}", compress(whole[:end], kind), "damaged or truncated")


TWO = (Zipped(), DOG_ZIPPED)
LOCAL_LIES: dict[str, tuple[bytes, Outcome]] = {
    "count too large": (zip_of(*TWO, end={"count": 9}), CAT_AND_DOG),  # the directory's size decides
    "count too small": (zip_of(*TWO, end={"count": 1}), CAT_AND_DOG),
    "directory too large": (zip_of(*TWO, end={"size": 500}), "damaged or truncated"),
    "directory of 4 GB": (zip_of(*TWO, end={"size": WHOLE}), "damaged or truncated"),
    "directory too small": (zip_of(*TWO, end={"size": 60}), "damaged or truncated"),
    "no directory": (zip_of(*TWO, end={"size": 0}), "no image in a class folder"),
    "directory elsewhere": (zip_of(*TWO, end={"offset": 3}), "or a damaged archive"),
    "directory after the end": (zip_of(*TWO, end={"offset": 10**6}), "its begin is missing"),
    "other name": (zip_of(Zipped(local={"name": b"../e.jpg1"}), DOG_ZIPPED), "damaged or truncated"),
    "other length of the name": (zip_of(Zipped(local={"name": b"cat/1.jp"}), DOG_ZIPPED), "damaged or truncated"),
    "other method": (zip_of(Zipped(local={"method": DEFLATED}), DOG_ZIPPED), CAT_AND_DOG),  # the directory decides
    "other size": (zip_of(Zipped(local={"size": 10**9}), DOG_ZIPPED), CAT_AND_DOG),
    "other packed size": (zip_of(Zipped(local={"packed_size": 10**9}), DOG_ZIPPED), CAT_AND_DOG),
    "other check sum": (zip_of(Zipped(local={"crc": 1}), DOG_ZIPPED), CAT_AND_DOG),
    "sizes after the content": (
        zip_of(Zipped(flags=0x808, local={"size": 0, "packed_size": 0, "crc": 0}), DOG_ZIPPED),
        CAT_AND_DOG,
    ),
    "more extra fields": (zip_of(Zipped(local={"extra": b"\x99\x99\x04\x00abcd"}), DOG_ZIPPED), CAT_AND_DOG),
    "wrong check sum": (zip_of(Zipped(crc=1), DOG_ZIPPED), "damaged or truncated"),
    "wrong check sum, bz2": (zip_of(Zipped(crc=1, method=BZ2), DOG_ZIPPED), "damaged or truncated"),
    "wrong check sum, lzma": (zip_of(Zipped(crc=1, method=LZMA), DOG_ZIPPED), "damaged or truncated"),
    "says deflated, is stored": (zip_of(Zipped(method=DEFLATED, compressed=b"cat one"), DOG_ZIPPED), "damaged or"),
    "says bz2, is stored": (zip_of(Zipped(method=BZ2, compressed=b"cat one"), DOG_ZIPPED), "damaged or truncated"),
    "says lzma, is stored": (zip_of(Zipped(method=LZMA, compressed=b"cat one"), DOG_ZIPPED), "damaged or truncated"),
    "lzma, no settings": (zip_of(Zipped(method=LZMA, compressed=b"cat"), DOG_ZIPPED), "damaged or truncated"),
    "lzma, wrong settings": (
        zip_of(Zipped(method=LZMA, compressed=b"\x09\x04\x05\x00\xff\0\0\1\0" + bytes(9)), DOG_ZIPPED),
        "damaged or truncated",
    ),
    "no local header": (zip_of(Zipped(offset=2), DOG_ZIPPED), "damaged or truncated"),
}


@pytest.mark.parametrize("case", LOCAL_LIES)
def test_directory_and_headers_that_disagree(tmp_path: Path, case: str) -> None:
    data, outcome = LOCAL_LIES[case]
    becomes(tmp_path, data, outcome)


ENDS: dict[str, tuple[bytes, Outcome]] = {
    "comment": (zip_of(*TWO, comment=b"a comment"), CAT_AND_DOG),
    "comment of 64 kB": (zip_of(*TWO, comment=b"c" * 65535), CAT_AND_DOG),
    "comment with a signature": (zip_of(*TWO, comment=b"PK\x05\x06"), "damaged or truncated"),
    "comment is another end, empty": (zip_of(*TWO, comment=end_of_zip(0, 0, 0)), "no image in a class folder"),
    "comment is another zip": (zip_of(*TWO, comment=zip_of(DOG_ZIPPED)), DOG),  # the last directory counts
    "two zips in a row": (zip_of(Zipped(b"cat/evil.jpg")) + zip_of(*TWO), "another zip stands before it"),
    "end twice": (zip_of(*TWO) + zip_of(*TWO)[-22:], "damaged or truncated"),
    "bytes after the end": (zip_of(*TWO, after=b"after"), CAT_AND_DOG),
    "64 kB after the end": (zip_of(*TWO, after=b"a" * 65536), CAT_AND_DOG),
    "1 MB after the end": (zip_of(*TWO, after=b"a" * 2**20), "damaged or truncated"),
    "a program before it": (zip_of(*TWO, before=b"MZ" + b"program" * 100), "not a zip or tar"),
    "a zip's header before it": (zip_of(*TWO, before=b"PK\x03\x04" + b"before" * 100), CAT_AND_DOG),
    "a photograph before it": (zip_of(*TWO, before=b"\xff\xd8\xff\xe0" * 200), "not a zip or tar"),
    "a tar before it": (tar_of(DOG_TARRED) + zip_of(*TWO), DOG),  # is a tar, and has ended
}


@pytest.mark.parametrize("case", ENDS)
def test_what_stands_before_and_after_a_zip(tmp_path: Path, case: str) -> None:
    data, outcome = ENDS[case]
    becomes(tmp_path, data, outcome)


# --- headers of tars ------------------------------------------------------------------------------------------------

MAP = blocks(b"1\n0\n7\n")
HEADERS: dict[str, tuple[bytes, Outcome]] = {
    "pax path": (pax({"path": b"cat/new.jpg"}) + member(), {"cat/new.jpg": b"cat one"} | DOG),
    "pax path, outside": (pax({"path": b"../../evil.jpg"}) + member(), "would land outside"),
    "pax path, absolute": (pax({"path": b"/evil.jpg"}) + member(), "would land outside"),
    "pax path, twice": (pax({"path": b"../a.jpg"}) + pax({"path": b"cat/b.jpg"}) + member(), "would land outside"),
    "pax path, 5 kB": (pax({"path": b"cat/" + b"n" * 5000}) + member(), "longer than"),
    "pax path for all, outside": (pax({"path": b"../evil.jpg"}, tarfile.XGLTYPE) + member(), "would land outside"),
    "pax header of Solaris": (
        pax({"path": b"../evil.jpg"}, tarfile.SOLARIS_XHDTYPE) + member(),
        "would land outside",
    ),
    "pax, empty": (pax(b"") + member(), CAT_AND_DOG),
    "pax, no list of fields": (pax(b"hello") + member(), "damaged or truncated"),
    "pax, length of 0": (pax(b"0 path=a\n") + member(), "damaged or truncated"),
    "pax, length too large": (pax(b"99 path=a\n") + member(), "damaged or truncated"),
    "pax, length too small": (pax(b"2 path=a\n") + member(), "damaged or truncated"),
    "pax, length of 5,000 digits": (pax(b"1" * 5000 + b" path=a\n") + member(), "damaged or truncated"),
    "pax, without an equals sign": (pax(b"7 path\n") + member(), "damaged or truncated"),
    "pax, nothing follows": (pax({"path": b"cat/1.jpg"}) + bytes(512), "damaged or truncated"),
    "long name": (long_name(b"cat/" + b"n" * 150 + b".jpg") + member(), {f"cat/{'n' * 150}.jpg": b"cat one"} | DOG),
    "long name, outside": (long_name(b"../" * 50 + b"evil.jpg") + member(b"cat/1.jpg"), "would land outside"),
    "long name of 2 MB": (long_name(b"n" * 2**21) + member(), "a header of"),
    "long name of 10 GB": (member(b"././@LongLink", b"", tarfile.GNUTYPE_LONGNAME, size=10**10), "a header of"),
    "pax header of 10 GB": (member(b"pax", b"", tarfile.XHDTYPE, size=10**10), "a header of"),
    "header for all of 100 kB": (pax({"comment": b"c" * 10**5}, tarfile.XGLTYPE) + member(), "a header of"),
    "10,000 fields for all": (
        pax({f"c{number}": b"c" for number in range(3000)}, tarfile.XGLTYPE) * 2 + member(),
        "fields for all entries",
    ),
    "comment of git archive": (pax({"comment": b"0" * 40}, tarfile.XGLTYPE) + member(), CAT_AND_DOG),
    "5,000 headers for one entry": (pax({"comment": b"c"}) * 5000 + member(), "damaged or truncated"),
    "5,000 long names for one entry": (long_name(b"n") * 5000 + member(), "damaged or truncated"),
    "sparse, GNU": (member(kind=tarfile.GNUTYPE_SPARSE), "sparse files"),
    "sparse, 0.0": (
        pax({"GNU.sparse.size": b"10000000000", "GNU.sparse.numblocks": b"0"}) + member(),
        "sparse files",
    ),
    "sparse, 0.1": (pax({"GNU.sparse.map": b"0,7", "GNU.sparse.size": b"7"}) + member(), "sparse files"),
    "sparse, 1.0": (
        pax({"GNU.sparse.major": b"1", "GNU.sparse.minor": b"0", "GNU.sparse.name": b"../evil.jpg"})
        + member(content=MAP + b"cat one"),
        "sparse files",
    ),
    "sparse, for all": (pax({"GNU.sparse.size": b"7"}, tarfile.XGLTYPE) + member(), "sparse files"),
    "wrong check sum": (b"x" + member()[1:], "damaged or truncated"),
    "zeros in the middle": (bytes(1024), "another tar stands behind its end"),
    "one block of zeros in the middle": (bytes(512), "another tar stands behind its end"),
}


@pytest.mark.parametrize("kind", ["tar", "gz"])
@pytest.mark.parametrize("case", HEADERS)
def test_headers_of_a_tar(tmp_path: Path, case: str, kind: str) -> None:
    entries, outcome = HEADERS[case]
    becomes(tmp_path, compress(tar_of(NOTES_TARRED, entries, DOG_TARRED), kind), outcome)


def test_a_header_whose_own_check_sum_fits_but_whose_numbers_do_not_is_refused(tmp_path: Path) -> None:
    header = bytearray(member(size=7)[:512])
    header[136:148] = b"not a number"
    becomes(tmp_path, tar_of(DOG_TARRED, seal(header) + blocks(b"cat one")), "damaged or truncated")


# --- compressed streams ---------------------------------------------------------------------------------------------

PLAIN = tar_of(member(), DOG_TARRED)
STREAMS: dict[str, tuple[str, Outcome]] = {
    "several members": ("join", CAT_AND_DOG),
    "empty members between": ("empty", CAT_AND_DOG),
    "zeros after the end": ("zeros", CAT_AND_DOG),
    "a second tar after the end": ("second", "another tar stands behind its end"),
    "last byte missing": ("cut", "damaged or truncated"),
    "half missing": ("half", "damaged or truncated"),
    "check sum wrong": ("sum", "damaged or truncated"),
    "something else after the end": ("junk", "damaged or truncated"),
}


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
@pytest.mark.parametrize("case", STREAMS)
def test_streams_one_after_the_other(tmp_path: Path, case: str, kind: str) -> None:
    what, outcome = STREAMS[case]
    whole = compress(PLAIN, kind)
    flipped = bytearray(whole)
    flipped[{"gz": -5, "bz2": 12, "xz": -30, "zst": -1}[kind]] ^= 1
    data = {
        "join": compress(PLAIN[:700], kind) + compress(PLAIN[700:], kind),
        "empty": compress(PLAIN[:700], kind) + compress(b"", kind) * 3 + compress(PLAIN[700:], kind),
        "zeros": whole + bytes(1024),
        "second": whole + compress(tar_of(member(b"cat/evil.jpg")), kind),
        "cut": whole[:-1],
        "half": whole[: len(whole) // 2],
        "sum": bytes(flipped),
        "junk": whole + b"something else, and more of it",
    }[what]
    if kind == "zst" and what == "zeros":
        outcome = "damaged or truncated"  # zstd pads with frames of its own
    if kind == "zst" and what == "cut":
        outcome = CAT_AND_DOG  # of a check sum that is cut off, zstd says nothing; the content is whole
    becomes(tmp_path, data, outcome)


@pytest.mark.parametrize(("widen", "kind"), [(wide_xz, "xz"), (wide_zst, "zst")])
def test_a_window_of_gigabytes_is_refused(tmp_path: Path, widen, kind: str) -> None:  # type: ignore[no-untyped-def]
    becomes(tmp_path, widen(PLAIN), "takes more than 134.2 MB of memory: repack it with a smaller window")
    becomes(tmp_path / "narrow", compress(PLAIN, kind), CAT_AND_DOG)


def test_a_window_of_gigabytes_in_a_zip_is_refused(tmp_path: Path) -> None:
    entry = Zipped(method=LZMA)
    entry.compressed = entry.data()[:5] + struct.pack("<L", WHOLE) + entry.data()[9:]
    becomes(tmp_path, zip_of(entry, DOG_ZIPPED), "takes more than 134.2 MB of memory")


# --- memory and time ------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(("method", "name"), [(BZ2, "bz2"), (LZMA, "lzma")])
def test_an_entry_that_declares_a_byte_and_holds_gigabytes_takes_no_memory(
    tmp_path: Path, method: int, name: str
) -> None:
    compressed = zeros(name, 200 * 2**20)
    if method == LZMA:
        compressed = struct.pack("<BBHBL", 9, 4, 5, (2 * 5 + 0) * 9 + 3, 1 << 16) + compressed
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_of(Zipped(content=b"1", method=method, compressed=compressed), DOG_ZIPPED))
    peak, _, message = measured(archive, tmp_path / "images")
    assert peak < MEMORY
    assert "damaged or truncated" in message


@pytest.mark.parametrize("kind", ["zip", "tar", "gz", "xz", "zst", "wide xz", "wide zst"])
def test_ten_declared_gigabytes_and_wide_windows_take_no_memory(tmp_path: Path, kind: str) -> None:
    archive = tmp_path / "a"
    if kind == "zip":
        archive.write_bytes(zip_of(Zipped(size=10**10, zip64=True, method=DEFLATED), DOG_ZIPPED))
    else:
        large = tar_of(member(size=10**10))
        writers = {"wide xz": wide_xz, "wide zst": wide_zst}
        archive.write_bytes(writers[kind](large) if kind in writers else compress(large, kind))
    peak, seconds, message = measured(archive, tmp_path / "images", Limits(ratio=1e12))
    assert peak < MEMORY and seconds < 30
    assert "nothing was written" in message or "damaged or truncated" in message
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_zip_of_more_entries_than_allowed_is_refused_before_they_are_read(tmp_path: Path) -> None:
    """zipfile makes an object of some 600 bytes of each: 200,000 would take 120 MB."""
    archive = tmp_path / "a.zip"
    whole = zip_of(DOG_ZIPPED)
    start = whole.index(b"PK\x01\x02")
    central = whole[start : whole.index(b"PK\x05\x06")] * 200_000
    archive.write_bytes(whole[:start] + central + end_of_zip(1, len(central), start))
    peak, _, message = measured(archive, tmp_path / "images", Limits(images=1000))
    assert "more than 5000 entries" in message
    assert peak < MEMORY


@pytest.mark.long
def test_a_tar_of_tiny_headers_takes_less_than_100_bytes_of_memory_for_each(tmp_path: Path) -> None:
    """Two million, the most images that are allowed, then take less than 200 MB (measured: 31 bytes, 62 MB)."""
    count = 5000
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_of(*(member(b"cat/%07d.txt" % number, b"") for number in range(count))))
    read_entries(archive, "tar", Limits())  # what is imported and cached on first use
    tracemalloc.start()
    try:
        entries = read_entries(archive, "tar", Limits())
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len(entries) == count and entries[count - 1] == Entry(b"cat/%07d.txt" % (count - 1), 0, "file")
    assert held < 100 * count


def test_names_that_fill_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_entries, "ALL_NAMES", 1000)
    data = tar_of(*(member(b"cat/%090d.jpg" % number) for number in range(12)))
    becomes(tmp_path, data, "of names")
    becomes(tmp_path / "zip", zip_of(*(Zipped(b"cat/%090d.jpg" % n) for n in range(12))), "a central directory of more")


@pytest.mark.parametrize(
    "body",
    [b"2 " * 50_000 + b"=", b"1" * 500_000, b"9 " + b"a" * 500_000, b"500017 comment=" + b"1" * 500_001 + b"\n"],
    ids=["overlapping fields", "digits", "no equals sign", "a field of digits"],
)
def test_a_malformed_pax_header_takes_no_time(tmp_path: Path, body: bytes) -> None:
    """CVE-2024-6232 and its neighbours: tarfile before 3.11.10 takes the square of the length, in memory too."""
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_of(pax(body), member()))
    peak, seconds, message = measured(archive, tmp_path / "images")
    assert "damaged or truncated" in message
    assert peak < MEMORY and seconds < 10


@pytest.mark.long
def test_bz2_streams_are_unpacked_a_piece_at_a_time(tmp_path: Path) -> None:
    bomb = compress(tar_of(DOG_TARRED), "bz2") + bz2.compress(bytes(60 * 2**20)) * 20
    archive = tmp_path / "a.tar.bz2"
    archive.write_bytes(bomb)
    peak, _, message = measured(archive, tmp_path / "images")
    assert "decompression bomb" in message and peak < MEMORY
