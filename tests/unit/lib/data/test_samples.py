"""Tar shards in the layout of WebDataset: the class of each image is what the file beside it says."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from scripts.lib.base import ranges
from scripts.lib.base.problems import UserError
from scripts.lib.data.archive_entries import Limits
from scripts.lib.data.auditing import AuditCache, check_all
from scripts.lib.data.folders import list_folder
from scripts.lib.data.samples import stem_and_suffix
from scripts.lib.data.scratch import staged
from scripts.lib.data.splits import find_images
from scripts.lib.data.unpacking import LeftOut, Origin, unpack_all


def shard(path: Path, files: Mapping[str, str | bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            data = content.encode() if isinstance(content, str) else content
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def samples(numbers: range, suffix: str = "cls", label: str = "{}", prefix: str = "") -> dict[str, str]:
    """Return the files of samples, three classes in turn, as WebDataset writes them."""
    files = {}
    for number in numbers:
        files[f"{prefix}{number:06d}.{suffix}"] = label.format(number % 3 * 5)
        files[f"{prefix}{number:06d}.jpg"] = f"picture {number}"
    return files


def folder_of_shards(folder: Path, suffix: str = "cls", label: str = "{}") -> Path:
    folder.mkdir()
    for number in range(3):
        shard(folder / f"set-train-{number:04d}.tar", samples(range(6 * number, 6 * number + 6), suffix, label))
    shard(folder / "set-val-0000.tar", samples(range(18, 24), suffix, label))
    (folder / "_info.json").write_text("{}")
    return folder


def listed(folder: Path, **settings: object) -> Origin:
    """Return the folder as it is given with in_place: true."""
    manifest = folder.with_name("archive.jsonl")
    list_folder(folder, manifest, manifest)
    return Origin(manifest, folder=folder, **settings)  # type: ignore[arg-type]


def unpacked(output: Path, *origins: Origin) -> tuple[dict[str, str], LeftOut]:
    """Return the images with their contents, and what was left out."""
    left_out = unpack_all(origins, output, Limits())
    files = {path.relative_to(output).as_posix(): path.read_text() for path in output.rglob("[!.]*") if path.is_file()}
    return files | {image.name: image.read().decode() for image in ranges.images_in(output)}, left_out


def test_shards_of_a_folder_are_one_data_set_with_the_splits_of_their_names(tmp_path: Path) -> None:
    files, left_out = unpacked(tmp_path / "images", listed(folder_of_shards(tmp_path / "shards")))
    expected = {
        f"{'train' if number < 18 else 'val'}/{number % 3 * 5:02d}/{number:06d}.jpg": f"picture {number}"
        for number in range(24)
    }
    assert files == expected
    assert left_out.remarks == [
        "the class of each image is read from the .cls beside it: 3 classes, called by their numbers;"
        " dataset.source.labels: {classes: FILE} names them",
        "read by their names: 3 shards as train, 1 shard as val",
        "images are read where they lie, in 4 tar shards",
    ]
    assert left_out.lines() == ["left out 1: beside the shards, such as '_info.json'"]


@pytest.mark.parametrize(
    ("suffix", "label", "classes"),
    [
        ("cls", "{}\n", ["00", "05", "10"]),
        ("cls", "\ufeff类别{}", ["类别0", "类别10", "类别5"]),
        ("json", '{{"height": 3, "label": {0}, "class_name": "no. {0}"}}', ["no. 0", "no. 10", "no. 5"]),
        ("json", '{{"Label": {0}}}', ["00", "05", "10"]),
        ("txt", "a/b {}", ["a%2Fb 0", "a%2Fb 10", "a%2Fb 5"]),
    ],
)
def test_what_lies_beside_an_image_is_its_class(tmp_path: Path, suffix: str, label: str, classes: list[str]) -> None:
    archive = shard(tmp_path / "a.tar", samples(range(9), suffix, label))
    files, left_out = unpacked(tmp_path / "images", Origin(archive))
    assert Counter(name.split("/")[0] for name in files) == dict.fromkeys(classes, 3)
    assert f"read from the .{suffix} beside it: 3 classes" in left_out.remarks[0] and not left_out.lines()


def test_a_folder_of_samples_is_read_in_place(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, content in samples(range(6)).items():
        (folder / name).write_text(content)
    files, _ = unpacked(tmp_path / "images", listed(folder))
    assert files["05/000004.jpg"] == "picture 4" and (tmp_path / "images/05/000004.jpg").is_symlink()
    (folder / "000003.cls").write_text("9")
    with pytest.raises(UserError, match=r"000003.cls: changed since the folder was listed"):
        unpacked(tmp_path / "again", Origin(tmp_path / "archive.jsonl", folder=folder))


def test_names_of_classes_come_from_a_file(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"name {number}" for number in range(11)))
    origin = listed(folder_of_shards(tmp_path / "shards"), labels={"classes": "n.txt"}, kept={"n.txt": str(names)})
    files, _ = unpacked(tmp_path / "images", origin)
    assert {name.split("/")[1] for name in files} == {"name 0", "name 5", "name 10"}
    names.write_text("a\nb\nc")
    with pytest.raises(UserError, match=r"classes: 3 names, but a .cls holds the number 10, counted from 0"):
        unpacked(tmp_path / "again", origin)
    plain = shard(tmp_path / "plain.tar", {"apple/1.jpg": "1", "pear/2.jpg": "2"})
    with pytest.raises(UserError, match=r"it names only classes, but no image has a .cls"):
        unpacked(tmp_path / "plain", Origin(plain, labels={"classes": "n.txt"}, kept={"n.txt": str(names)}))


def test_folders_are_classes_whatever_texts_lie_beside_the_images(tmp_path: Path) -> None:
    files = samples(range(3), "txt", "0 0.5 0.5 1 1", "apple/") | samples(range(3), "json", '{{"boxes": []}}', "pear/")
    images, _ = unpacked(tmp_path / "images", Origin(shard(tmp_path / "a.tar", files)))
    assert {name.split("/")[0] for name in images} == {"apple", "pear"}
    one_each = [Origin(shard(tmp_path / f"{name}.tar", samples(range(2), "json", "[]", f"{name}/"))) for name in "ab"]
    images, _ = unpacked(tmp_path / "more", *one_each)
    assert {name.split("/")[0] for name in images} == {"a", "b"}


def test_an_image_without_its_class_is_left_out_and_one_name_twice_is_two(tmp_path: Path) -> None:
    first = samples(range(4)) | {"x.jpg": "none", "a.b.jpg": "two", "a.cls": "0"}
    origins = [Origin(shard(tmp_path / "1.tar", first)), Origin(shard(tmp_path / "2.tar", samples(range(4))))]
    files, left_out = unpacked(tmp_path / "images", *origins)
    assert {"00/000000.jpg", "00/000000~2.jpg", "00/a.b.jpg"} <= files.keys() and len(files) == 9
    assert left_out.lines() == ["left out 1: no .cls beside it, such as 'x.jpg'"]


@pytest.mark.parametrize(
    ("suffix", "content", "message"),
    [
        ("cls", "", r"000000.cls: no name or number of a class \(''\)"),
        ("cls", "\xff" * 300, r"no name or number of a class \('ÿÿÿ"),
        ("cls", b"\xff\xfe\x00", "000000.cls: neither UTF-8 nor a class"),
        ("cls", "0" * 1_100_000, "000000.cls is larger than 1.0 MB, and says no class"),
        ("json", "{", "000000.json: neither UTF-8 nor a class"),
        ("json", '{"label": 1, "label": 2}', "000000.json: neither UTF-8 nor a class .'label' stands there twice"),
        ("json", "[1]", r"000000.json: no class in it \(its keys: none\)"),
        ("json", '{"caption": "x"}', r"no class in it \(its keys: 'caption'\): call one `label`, or name"),
        ("json", '{"label": true}', "no class in it"),
    ],
)
def test_what_says_no_class_is_one_line(tmp_path: Path, suffix: str, content: str | bytes, message: str) -> None:
    archive = shard(tmp_path / "a.tar", {f"000000.{suffix}": content, "000000.jpg": "x"})
    with pytest.raises(UserError, match=message) as error:
        unpacked(tmp_path / "images", Origin(archive))
    assert "dataset.source.labels" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "images").exists()


def test_captions_are_no_classes(tmp_path: Path) -> None:
    files = {name.format(n): text for n in range(6) for name, text in (("{}.txt", f"caption {n}"), ("{}.jpg", "x"))}
    with pytest.raises(UserError, match=r"hold 6 texts: captions, not classes: name the classes in a table"):
        unpacked(tmp_path / "images", Origin(shard(tmp_path / "a.tar", files)))


def test_a_shard_that_was_changed_since_is_refused(tmp_path: Path) -> None:
    origin = listed(folder_of_shards(tmp_path / "shards"))
    path = tmp_path / "shards/set-val-0000.tar"
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(data)
    os.utime(path)
    with pytest.raises(UserError, match=r"set-val-0000.tar: changed since the folder was listed"):
        unpacked(tmp_path / "images", origin)


def test_a_name_is_divided_at_its_first_point() -> None:
    assert stem_and_suffix("a/000017.cls") == ("a/000017", "cls")
    assert stem_and_suffix("a.b/x.Seg.PNG") == ("a.b/x", "seg.png")
    assert json.dumps(stem_and_suffix("x")) == '["x", ""]'


def test_the_number_of_files_does_not_grow_with_that_of_images(tmp_path: Path) -> None:
    numbers = []
    for count in (6, 60):
        folder = tmp_path / f"shards{count}"
        folder.mkdir()
        shard(folder / "a.tar", samples(range(count)))
        assert len(unpacked(tmp_path / f"images{count}", listed(folder))[0]) == count
        numbers.append(len(list((tmp_path / f"images{count}").rglob("*"))))
    assert numbers == [1, 1]


def test_a_compressed_shard_is_unpacked_beside_those_that_are_not(tmp_path: Path) -> None:
    folder = folder_of_shards(tmp_path / "shards")
    plain, _ = unpacked(tmp_path / "plain", listed(folder))
    last = folder / "set-val-0000.tar"
    (folder / "set-val-0000.tar.gz").write_bytes(gzip.compress(last.read_bytes()))
    last.unlink()
    files, left_out = unpacked(tmp_path / "images", listed(folder))
    assert files == {name.partition("/")[2]: text for name, text in plain.items()}  # names of two kinds give no splits
    assert [image.path for image in find_images(tmp_path / "images")] == sorted(files)
    assert left_out.remarks[1:] == [
        "images are read where they lie, in 3 tar shards",
        "1 compressed shard cannot be read in place: the images of these are unpacked",
    ]


def test_names_that_are_there_twice_and_hard_links_are_images_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    with tarfile.open(folder / "a.tar", "w") as tar:
        for name, content in [("pear/1.jpg", b"first"), ("pear/1.jpg", b"second"), ("apple/2.jpg", b"third")]:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        entry = tarfile.TarInfo("apple/3.jpg")
        entry.type, entry.linkname = tarfile.LNKTYPE, "apple/2.jpg"
        tar.addfile(entry)
    expected = {"pear/1.jpg": "first", "pear/1~2.jpg": "second", "apple/2.jpg": "third", "apple/3.jpg": "third"}
    assert unpacked(tmp_path / "images", listed(folder))[0] == expected
    assert unpacked(tmp_path / "copies", Origin(folder / "a.tar"))[0] == expected


def test_a_hostile_or_damaged_shard_is_refused_in_one_line(tmp_path: Path) -> None:
    for name, line in [("../1.jpg", "would land outside the folder"), ("/etc/1.jpg", "would land outside the folder")]:
        folder = tmp_path / name.replace("/", "_")
        folder.mkdir()
        shard(folder / "a.tar", samples(range(3)) | {name: "x"})
        with pytest.raises(UserError, match=line):
            unpacked(tmp_path / "images", listed(folder))
    folder = folder_of_shards(tmp_path / "shards")
    with tarfile.open(folder / "set-val-0000.tar", "a") as tar:
        entry = tarfile.TarInfo("9.jpg")
        entry.type, entry.linkname = tarfile.SYMTYPE, "../../../etc/passwd"
        tar.addfile(entry)
    with pytest.raises(UserError, match=r"is a link out of it"):
        unpacked(tmp_path / "images", listed(folder))
    for size in (5200, 3587, 700):  # in a header, in an image, in a label
        os.truncate(folder / "set-val-0000.tar", size)
        with pytest.raises(UserError, match=r"damaged or truncated"):
            unpacked(tmp_path / "images", listed(folder))
    assert not (tmp_path / "images").exists()


def test_a_shard_that_changes_while_it_is_audited_ends_the_audit(tmp_path: Path) -> None:
    folder = folder_of_shards(tmp_path / "shards")
    unpacked(tmp_path / "images", listed(folder))
    images = find_images(tmp_path / "images")
    changed = folder / "set-train-0001.tar"
    changed.write_bytes(changed.read_bytes().replace(b"picture 7", b"picture 8"))
    with pytest.raises(UserError, match=r"set-train-0001.tar: changed .* the bytes of '.*000007.jpg'"):
        check_all(tmp_path / "images", images, AuditCache(tmp_path / "cache"), 1)


def test_images_in_shards_are_copied_to_scratch_as_files(tmp_path: Path) -> None:
    unpacked(tmp_path / "images", listed(folder_of_shards(tmp_path / "shards")))
    split = tmp_path / "train.txt"
    split.write_text("train/00/000000.jpg 0\ntrain/05/000007.jpg 1\n")
    (tmp_path / "scratch").mkdir()
    with staged(tmp_path / "images", [split], [str(tmp_path / "scratch")]) as copy:
        assert copy != tmp_path / "images" and (copy / "train/05/000007.jpg").read_text() == "picture 7"
