"""Archives and images nobody thought of: unpacked whole, or refused in one line; no other exception, ever.

By hand, longer: FUZZ_EXAMPLES=4000 python -m pytest tests/unit/lib/data/test_fuzz_archives.py
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_files import BZ2, DEFLATED, LZMA, STORED, TARS, Zipped, compress, long_name, member, pax, tar_of, zip_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts.lib.base.console import one_line
from scripts.lib.base.problems import UserError
from scripts.lib.data.archive_entries import Limits
from scripts.lib.data.unpacking import unpack

pytestmark = pytest.mark.long

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES == 100,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LIMITS = Limits(images=50, bytes=10**7)


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Path]:
    """Return a folder for archives; nothing may appear beside it."""
    (tmp_path / "yard").mkdir()
    yield tmp_path / "yard"
    assert [path.name for path in tmp_path.iterdir()] == ["yard"]


def outcome(yard: Path, data: bytes) -> Counter[bytes] | None:
    """Return the contents of what *data* unpacks to, None where it is refused; check what holds for every archive."""
    archive, output = yard / "archive", yard / "results" / "images"
    shutil.rmtree(yard / "results", ignore_errors=True)
    archive.write_bytes(data)
    try:
        unpack(archive, output, LIMITS)
    except UserError as error:
        assert str(error) == one_line(error)
        assert str(archive) in str(error) or str(error).startswith("dataset.source: ")  # what the settings can say
        assert not any(path.is_file() for path in (yard / "results").rglob("*"))
        result = None
    else:
        assert os.listdir(yard / "results") == ["images"]
        result = Counter()
        for path in output.rglob("*"):
            mode = path.lstat().st_mode
            assert stat.S_ISREG(mode) or stat.S_ISDIR(mode)
            if stat.S_ISREG(mode):
                assert path.relative_to(output).parts[0] and len(path.relative_to(output).parts) > 1
                result[path.read_bytes()] += 1
    assert sorted(os.listdir(yard)) in (["archive"], ["archive", "results"])
    return result


PARTS_OF_NAMES = st.one_of(
    st.sampled_from(
        ["cat", "dog", "train", "val", "test", "..", ".", "", "C:", "\\", "a\\b", "~", "CON", "cat.", " ", "\n", "猫",
         "e\u0301", "\u202e", "\uff0e\uff0e", "n" * 300, "%2e%2e", "__MACOSX", ".hidden"]
    ),
    st.text(max_size=4),
)  # fmt: skip
NAMES = st.builds(
    lambda folders, stem, suffix: "/".join([*folders, stem + suffix]),
    st.lists(PARTS_OF_NAMES, max_size=4),
    PARTS_OF_NAMES,
    st.sampled_from([".jpg", ".PNG", ".jpg", ".txt", ""]),
)
RAW_NAMES = st.one_of(NAMES.map(lambda name: name.encode("utf-8", "replace")), st.binary(max_size=120))
HONEST = st.builds(
    lambda folder, stem: f"{folder}/{stem}.jpg".encode(),
    st.sampled_from(["cat", "dog", "猫"]),
    st.text("ab", min_size=1, max_size=3),
)
SMALL = st.binary(max_size=40)


def numbered(contents: list[bytes]) -> list[bytes]:
    """Return contents that all differ, so that each file tells which entry it came from."""
    return [b"%d:" % number + content for number, content in enumerate(contents)]


@st.composite
def zips(draw: st.DrawFn, honest: bool) -> tuple[bytes, Counter[bytes], bool]:
    """A zip, the contents of its files, and whether every one of them must come out."""
    count = draw(st.integers(1, 6))
    contents = numbered(draw(st.lists(SMALL, min_size=count, max_size=count)))
    entries = []
    for content in contents:
        entry = Zipped(
            draw(HONEST if honest else RAW_NAMES), content, draw(st.sampled_from([STORED, DEFLATED, BZ2, LZMA]))
        )
        entry.zip64 = draw(st.booleans())
        if not honest:
            entry.flags = draw(st.sampled_from([0, 0x800, 0x808, 0x801, 0x841]))
            kind = draw(
                st.sampled_from([stat.S_IFREG] * 4 + [0, stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR])
            )
            entry.mode = kind | 0o644
            for field in draw(st.sets(st.sampled_from(["size", "packed_size", "crc", "offset"]), max_size=1)):
                setattr(entry, field, draw(st.sampled_from([0, 1, 7, 2**31, 2**32 - 1]) | st.integers(0, 300)))
            if draw(st.booleans()):
                entry.local = {draw(st.sampled_from(["size", "packed_size", "crc", "flags"])): draw(st.integers(0, 9))}
            entry.extra = draw(st.just(b"") | st.binary(max_size=20))
        entries.append(entry)
    options = {} if honest else {
        "comment": draw(SMALL),
        "before": draw(st.just(b"") | SMALL.map(lambda data: b"PK\x03\x04" + data)),
        "after": draw(SMALL),
        "end": draw(st.dictionaries(st.sampled_from(["count", "size", "offset"]), st.integers(0, 1000), max_size=1)),
        "zip64_end": draw(st.none() | st.just({})),
    }  # fmt: skip
    return zip_of(*entries, **options), Counter(contents), honest


@st.composite
def tars(draw: st.DrawFn, honest: bool) -> tuple[bytes, Counter[bytes], bool]:
    """A tar, compressed or not, the contents of its files, and whether every one of them must come out."""
    count = draw(st.integers(1, 6))
    contents = numbered(draw(st.lists(SMALL, min_size=count, max_size=count)))
    pieces = []
    for content in contents:
        name = draw(HONEST if honest else RAW_NAMES)
        if draw(st.booleans()) or (honest and len(name) > 100):
            pieces.append(pax({"path": name}) if draw(st.booleans()) else long_name(name))
        if honest:
            pieces.append(member(name, content))
            continue
        numbers = st.sampled_from([b"0", b"-512", b"7", b"1000", b"9" * 30, b"x"])
        fields = st.dictionaries(
            st.sampled_from(["size", "linkpath", "mtime", "GNU.sparse.size", "hdrcharset"]), numbers
        )
        for _ in range(draw(st.integers(0, 2))):
            kind = draw(st.sampled_from([tarfile.XHDTYPE, tarfile.XGLTYPE]))
            pieces.append(pax(draw(fields), kind) if draw(st.booleans()) else pax(draw(SMALL), kind))
        kind = draw(st.sampled_from([b"0"] * 6 + [b"\0", b"1", b"2", b"3", b"5", b"6", b"7", b"S", b"L", b"V"]))
        size = draw(
            st.none() | st.integers(-600, 3000) | st.integers(2**30, 2**70) | st.binary(min_size=12, max_size=12)
        )
        pieces.append(member(name, content, kind, draw(RAW_NAMES), size if draw(st.booleans()) else None))
    data = compress(tar_of(*pieces), draw(st.sampled_from(TARS)))
    return data, Counter(contents), honest


def check(yard: Path, described: tuple[bytes, Counter[bytes], bool]) -> None:
    data, contents, honest = described
    result = outcome(yard, data)
    if honest:
        assert result == contents


@fuzz
@given(zips(honest=True) | tars(honest=True))
def test_an_honest_archive_comes_out_whole(yard: Path, described: tuple[bytes, Counter[bytes], bool]) -> None:
    check(yard, described)


@fuzz
@given(zips(honest=False))
def test_a_zip_of_any_description_is_unpacked_or_refused(
    yard: Path, described: tuple[bytes, Counter[bytes], bool]
) -> None:
    data, contents, _ = described
    result = outcome(yard, data)
    assert result is None or result <= contents  # each file is an entry's content, and no entry is there twice


@fuzz
@given(tars(honest=False))
def test_a_tar_of_any_description_is_unpacked_or_refused(
    yard: Path, described: tuple[bytes, Counter[bytes], bool]
) -> None:
    check(yard, described)


@st.composite
def mutated(draw: st.DrawFn, archives: st.SearchStrategy[tuple[bytes, Counter[bytes], bool]]) -> bytes:
    """An honest archive with bytes changed, removed, doubled, or numbers put where others stood."""
    data = bytearray(draw(archives)[0])
    for _ in range(draw(st.integers(1, 4))):
        offset = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 40))
        match draw(st.sampled_from(["set", "number", "cut", "double", "end", "zero"])):
            case "set":
                data[offset : offset + 1] = bytes([draw(st.integers(0, 255))])
            case "number":
                number = struct.pack("<Q", draw(st.sampled_from([0, 1, 2**15, 2**31, 2**32 - 1, 2**63, 2**64 - 1])))
                data[offset : offset + 4] = number[: draw(st.sampled_from([2, 4, 8]))]
            case "cut":
                del data[offset : offset + length]
            case "double":
                data[offset:offset] = data[offset : offset + length]
            case "end":
                del data[max(offset, 1) :]
            case "zero":
                data[offset : offset + length] = bytes(length)
    return bytes(data)


@fuzz
@given(mutated(zips(honest=True)))
def test_a_mutated_zip_is_unpacked_or_refused(yard: Path, data: bytes) -> None:
    outcome(yard, data)


@fuzz
@given(mutated(tars(honest=True)))
def test_a_mutated_tar_is_unpacked_or_refused(yard: Path, data: bytes) -> None:
    outcome(yard, data)


@st.composite
def resealed(draw: st.DrawFn) -> bytes:
    """A plain tar whose header bytes are changed and whose check sums fit again."""
    data = bytearray(tar_of(pax({"path": b"cat/1.jpg"}), member(), long_name(b"dog/1.jpg"), member(b"x", b"dog")))
    for _ in range(draw(st.integers(1, 5))):
        block = draw(st.integers(0, len(data) // 512 - 3)) * 512
        offset = draw(st.integers(0, 511) | st.integers(124, 157))
        data[block + offset] = draw(st.integers(0, 255) | st.sampled_from(list(b"01234567-xgLKS\x80\xff")))
        data[block + 148 : block + 156] = b" " * 8
        data[block + 148 : block + 156] = b"%06o\0 " % sum(data[block : block + 512])
    return bytes(data)


@fuzz
@given(resealed())
def test_a_tar_with_changed_headers_is_unpacked_or_refused(yard: Path, data: bytes) -> None:
    outcome(yard, data)
