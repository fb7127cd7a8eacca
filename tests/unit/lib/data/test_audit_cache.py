"""What was checked once is known: by content, whole, of this version."""

from __future__ import annotations

from pathlib import Path

from scripts.lib.data import audit_cache
from scripts.lib.data.audit_cache import HEADER, RECORD, AuditCache, decode, encode
from scripts.lib.data.image_checks import Checked, Oddity, Status

READ = Checked(
    Status.READABLE, "JPEG", 320, 200, Oddity.CMYK | Oddity.BLANK, 6, "", bytes(range(256)), bytes(range(128))
)
BAD = Checked(Status.TRUNCATED, "PNG", detail="图像 " * 12)
DIGESTS = [b"\0" * 31 + b"\1", b"\2" * 31 + b"\0"]


def filled(path: Path) -> AuditCache:
    cache = AuditCache(path)
    cache.append([encode(DIGESTS[0], READ), encode(DIGESTS[1], BAD)])
    return cache


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    filled(tmp_path / "cache")
    records = AuditCache(tmp_path / "cache").records()
    assert [record["sha256"].tobytes() for record in records] == DIGESTS
    assert decode(records) == [Checked(**{**vars(READ), "grey": b"", "colour": b""}), BAD]
    assert records[0]["grey"].tobytes() == READ.grey
    assert records[0]["colour"].tobytes() == READ.colour


def test_a_torn_record_is_dropped_and_the_next_stands_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    filled(path)
    path.write_bytes(path.read_bytes()[:-5])
    cache = AuditCache(path)
    assert len(cache.records()) == 1
    cache.append([encode(DIGESTS[1], BAD)])
    assert [record["sha256"].tobytes() for record in AuditCache(path).records()] == DIGESTS


def test_a_record_of_zeros_after_a_power_cut_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    filled(path)
    with open(path, "ab") as file:
        file.write(bytes(RECORD.itemsize))
    assert len(AuditCache(path).records()) == 2


def test_another_version_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    filled(path)
    path.write_bytes(HEADER.replace(b"audit 1", b"audit 0") + path.read_bytes()[len(HEADER) :])
    assert len(AuditCache(path).records()) == 0
    assert path.read_bytes() == audit_cache.HEADER
