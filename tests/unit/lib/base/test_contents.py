"""A file's content is told by its size and times where they are known, and by its bytes where they are others."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from scripts.lib.base.contents import content_of


def flipped(path: Path) -> None:
    path.write_bytes(b"b" + path.read_bytes()[1:])


def flipped_and_back_dated(path: Path) -> None:
    times = path.stat()
    flipped(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def replaced(path: Path) -> None:
    (path.parent / "other").write_bytes(b"b" * path.stat().st_size)
    os.replace(path.parent / "other", path)


def truncated(path: Path) -> None:
    os.truncate(path, 1)


@pytest.mark.parametrize("damage", [flipped, flipped_and_back_dated, replaced, truncated])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_was_changed_is_seen(tmp_path: Path, damage: object, what: str) -> None:
    path = tmp_path / "folder" / "deep" / "a.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"aaaa")
    target = path if what == "file" else tmp_path / "folder"
    known = content_of(target)
    assert known
    damage(path)  # type: ignore[operator]
    now = content_of(target, known.as_json())
    assert now and now.sha256 != known.sha256


def test_a_copy_is_the_same_by_its_bytes_and_what_file_managers_leave_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(b"1")
    known = content_of(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for name in (".DS_Store", "Thumbs.db", ".snakemake_timestamp"):
        (tmp_path / "b" / name).touch()
    copy = content_of(tmp_path / "b", known.as_json() if known else None)
    assert known and copy and copy.sha256 == known.sha256 and copy.seen != known.seen
    assert content_of(tmp_path / "c") is None


def test_what_nobody_touched_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    known = content_of(tmp_path / "a")
    assert known and content_of(tmp_path / "a", known.as_json() | {"sha256": "remembered"}).sha256 == "remembered"  # type: ignore[union-attr]
