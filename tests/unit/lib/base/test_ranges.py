"""Images that are ranges of tar shards: found by name, read as they were indexed, refused when they are others."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from scripts.lib.base import products, ranges
from scripts.lib.base.problems import UserError
from scripts.lib.base.ranges import INDEX, Range, write_index
from scripts.lib.workflow.renewal import is_edited

NAMES = ["a/1.jpg", "a/1.jpg~2", "a/1!.jpg", 'b "/梨.jpg', "test/a/1.jpg", "test/c/1.jpg", "z.jpg"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with an index of two shards, which lie beside it, in another order than that of the names."""
    folder, rows = tmp_path / "images", []
    folder.mkdir()
    for number, shard in enumerate(("y.tar", "x.tar")):
        path = tmp_path / shard
        with open(path, "wb") as file:
            for name in NAMES[::-1][number::2]:
                content = f"picture of {name}".encode()
                rows.append(Range(name, str(path), file.tell(), len(content), sha256(content).hexdigest()))
                file.write(content)
    write_index(folder, rows)
    return folder


def test_each_image_is_found_by_its_name_and_no_other_is(images: Path) -> None:
    assert [image.name for image in ranges.images_in(images)] == sorted(NAMES)
    for name in NAMES:
        assert ranges.read_bytes(images / name) == f"picture of {name}".encode()
        assert ranges.read_bytes(images / name, 3) == b"pic"
    for name in ("a", "a/1", "a/1.jpg~", "test/a", "zz", "", "images/a/1.jpg"):
        assert ranges.find(images / name) is None
        with pytest.raises((FileNotFoundError, IsADirectoryError)):
            ranges.read_bytes(images / name)


def test_a_folder_within_the_images_is_one_though_it_is_not_there(images: Path) -> None:
    assert sorted(ranges.names_below(images / "test")) == ["a/1.jpg", "c/1.jpg"]
    assert list(ranges.names_below(images)) == sorted(NAMES) and not list(ranges.names_below(images / "tes"))
    assert not list(ranges.images_in(images / "test")) and not list(ranges.names_below(images.parent))


def test_images_are_read_in_the_order_of_the_shards(images: Path) -> None:
    in_shards = NAMES[::-1][1::2] + NAMES[::-1][0::2]
    assert [NAMES[index] for index in ranges.reading_order(images, NAMES)] == in_shards
    prefixed = [f"images/{name}" for name in NAMES]
    assert ranges.reading_order(images.parent, prefixed) == ranges.reading_order(images, NAMES)
    assert ranges.reading_order(images.parent, ["x.tar", "y.tar"]) == [0, 1]


def test_files_beside_the_index_are_read_as_well(images: Path) -> None:
    (images / "a").mkdir()
    (images / "a/new.jpg").write_bytes(b"a file")
    assert ranges.read_bytes(images / "a/new.jpg") == b"a file"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    os.truncate(path, 5)


@pytest.mark.parametrize(
    ("fault", "message"),
    [(flip, "x.tar: changed since it was indexed"), (truncate, "x.tar: changed"), (Path.unlink, "x.tar: cannot be")],
)
def test_a_shard_that_is_not_what_was_indexed_is_one_line(
    images: Path, fault: Callable[[Path], None], message: str
) -> None:
    fault(images.parent / "x.tar")
    with pytest.raises(UserError, match=message) as raised:
        for name in NAMES:
            ranges.read_bytes(images / name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("line", [b"", b"no json\n", b'["a.jpg", 7, 0, 1, ""]\n', b'["a.jpg", 0, 99999999, 1, ""]\n'])
def test_a_damaged_index_is_one_line(images: Path, line: bytes) -> None:
    head = (images / INDEX).read_bytes().partition(b"\n")[0] + b"\n"
    (images / INDEX).write_bytes(head + line if line else b"")
    with pytest.raises(UserError, match=r"damaged|changed"):
        ranges.read_bytes(images / "a.jpg")


def test_the_recorded_hash_is_that_of_files_and_a_changed_shard_is_named(images: Path) -> None:
    files = images.with_name("unpacked")
    for name in NAMES:
        (files / name).parent.mkdir(parents=True, exist_ok=True)
        (files / name).write_bytes(ranges.read_bytes(images / name))
    products.record("job", [images, files])
    assert products.recorded_sha256(images) == products.recorded_sha256(files) == products.sha256_now(images)
    assert len((images.parent / ".made/images.files.jsonl").read_text().splitlines()) == 3
    shard = images.parent / "x.tar"
    os.utime(shard)
    assert not list(products.changes(images)) and not list(products.changes(images, thorough=False))
    flip(shard)
    changes = list(products.changes(images, thorough=False))
    assert [change.path for change in changes] == [shard] and not is_edited(changes[0], images)
    with pytest.raises(UserError, match=r"x.tar is not what was made"):
        products.check_files(images, NAMES)
    flip(shard)
    products.check_files(images, NAMES)
    flip(images / INDEX)
    changes = list(products.changes(images, thorough=False))
    assert changes and is_edited(changes[0], images)
