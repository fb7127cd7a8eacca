"""Folders that are read in place, and several archives that are one data set."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from planted_images import photograph

from scripts.data.unpack_archive import parse_origins
from scripts.lib.base.files import sha256_of
from scripts.lib.base.problems import UserError
from scripts.lib.data.archive_entries import Limits
from scripts.lib.data.folders import (
    list_folder,
    manifest_entries,
    manifest_sha256,
    pack_folder,
    walk_files,
    write_manifest,
)
from scripts.lib.data.layouts import find_classes, find_splits_of_class
from scripts.lib.data.splits import find_images
from scripts.lib.data.unpacking import Origin, unpack_all
from scripts.lib.settings.load import load_settings
from scripts.lib.settings.schema import Settings, Site
from scripts.lib.workflow.layout import Layout
from scripts.lib.workflow.options import Options
from scripts.lib.workflow.resources import Resources

EXPERIMENTS = {"m": {"base_config": "mobilenet-v2_8xb32_in1k"}}


def settings_of(source: Any) -> Settings:
    return load_settings({"dataset": {"name": "d", "source": source}, "experiments": EXPERIMENTS})


def options_of(source: Any) -> Options:
    settings = settings_of(source)
    return Options(settings, Site(), Layout(settings))


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_zip(path: Path, names: Iterable[str]) -> Path:
    with zipfile.ZipFile(path, "w") as zipped:
        for name in names:
            zipped.writestr(name, f"{path.name} {name}")
    return path


def images(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# --- in place ---------------------------------------------------------------------------------------------------------

FILES = {"set/cat/1.jpg": b"one", "set/cat/b\n.jpg": b"two", "set/狗/2.jpg": b"three", "set/notes.txt": b"x"}


@pytest.fixture
def listed(tmp_path: Path) -> Origin:
    """A folder with its manifest, all of it older than now."""
    folder = write(tmp_path / "photos", FILES)
    (folder / os.fsdecode(b"set/cat/\xb2\xdd.jpg")).write_bytes(b"a name in GBK")
    manifest = tmp_path / "archive.jsonl"
    write_manifest(folder, walk_files(folder, Counter()), manifest)
    return Origin(manifest, folder=folder)


def test_images_are_links_with_the_names_that_a_copy_would_have(listed: Origin, tmp_path: Path) -> None:
    assert listed.folder
    unpack_all([listed], tmp_path / "images", Limits())
    tar = tmp_path / "archive.tar"
    pack_folder(listed.folder, tar, tar)
    unpack_all([Origin(tar)], tmp_path / "copies", Limits())
    names = images(tmp_path / "images")
    assert names == images(tmp_path / "copies") == ["cat/1.jpg", "cat/b%0A.jpg", "cat/草.jpg", "狗/2.jpg"]
    for name in names:
        link = tmp_path / "images" / name
        assert link.is_symlink() and Path(os.readlink(link)).is_absolute()
        assert link.read_bytes() == (tmp_path / "copies" / name).read_bytes()


def test_links_hold_whatever_folder_the_path_is_relative_to(
    listed: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    unpack_all([Origin(listed.archive, folder=Path("photos"))], tmp_path / "images", Limits())
    assert (tmp_path / "images/cat/1.jpg").read_bytes() == b"one"


def test_the_tar_of_a_folder_has_the_hash_of_its_manifest(listed: Origin, tmp_path: Path) -> None:
    assert listed.folder
    tar = tmp_path / "a.tar"
    pack_folder(listed.folder, tar, tar)
    assert manifest_sha256(tar) == sha256_of(listed.archive)
    (listed.folder / "set/cat/1.jpg").write_bytes(b"0ne")
    pack_folder(listed.folder, tar, tar)
    assert manifest_sha256(tar) != sha256_of(listed.archive)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.write_bytes(b"longer"), "changed since"),
        (lambda path: path.write_bytes(b"0ne"), "changed since"),
        (lambda path: path.unlink(), "gone since"),
    ],
    ids=["size", "content", "gone"],
)
def test_a_file_that_changed_after_it_was_listed_is_one_line(
    listed: Origin, tmp_path: Path, change: Any, words: str
) -> None:
    assert listed.folder
    os.utime(listed.archive, (1, 1))
    change(listed.folder / "set/cat/1.jpg")
    with pytest.raises(UserError, match=f"1.jpg: {words} the folder was listed: run the same command again"):
        unpack_all([listed], tmp_path / "images", Limits())
    assert not (tmp_path / "images").exists() and not list(tmp_path.glob(".*"))


def test_another_size_is_seen_whatever_the_times_are(listed: Origin, tmp_path: Path) -> None:
    assert listed.folder
    (listed.folder / "set/cat/1.jpg").write_bytes(b"longer")
    later = os.stat(listed.archive).st_mtime + 1e6
    os.utime(listed.archive, (later, later))
    with pytest.raises(UserError, match=r"1\.jpg: changed since"):
        unpack_all([listed], tmp_path / "images", Limits())


def test_a_file_that_was_only_touched_is_no_other(listed: Origin, tmp_path: Path) -> None:
    assert listed.folder
    os.utime(listed.archive, (1, 1))
    os.utime(listed.folder / "set/cat/1.jpg")
    unpack_all([listed], tmp_path / "images", Limits())


def test_labels_are_read_from_the_folder_and_must_be_those_that_were_listed(tmp_path: Path) -> None:
    folder = write(tmp_path / "p", {"i/1.jpg": b"1", "i/2.jpg": b"2", "l.csv": b"file,label\n1,cat\n2,dog\n"})
    manifest = tmp_path / "archive.jsonl"
    write_manifest(folder, walk_files(folder, Counter()), manifest)
    origin = Origin(manifest, folder=folder, labels="l.csv")
    unpack_all([origin], tmp_path / "images", Limits())
    assert images(tmp_path / "images") == ["cat/1.jpg", "dog/2.jpg"]
    times = os.stat(folder / "l.csv")
    (folder / "l.csv").write_bytes(b"file,label\n1,dog\n2,cat\n")
    os.utime(folder / "l.csv", ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(UserError, match=r"l.csv: changed since"):
        unpack_all([origin], tmp_path / "images", Limits())


def test_a_damaged_manifest_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "archive.jsonl").write_text('["abc", 1')
    with pytest.raises(UserError, match=r"archive\.jsonl: damaged"):
        manifest_entries(tmp_path / "archive.jsonl", tmp_path)


def test_an_archive_cannot_pass_for_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "archive.zip").write_text(json.dumps(["0" * 64, 1, "/etc/passwd"]) + "\n")
    with pytest.raises(UserError, match="not a zip or tar"):
        unpack_all([Origin(tmp_path / "archive.zip")], tmp_path / "images", Limits())


def test_a_changed_folder_is_another_state(tmp_path: Path) -> None:
    folder = write(tmp_path / "p", {"a/1.jpg": b"1"})
    other = write(tmp_path / "q", {"2.jpg": b"2"})
    (folder / "b").symlink_to(other)
    settings = settings_of({"path": str(folder), "in_place": True})
    read = Resources(settings, Site(), Layout(settings))
    states = [read.folder_state(None)]
    (other / "2.jpg").write_bytes(b"22")
    states.append(read.folder_state(None))
    write(folder, {"a/.DS_Store": b""})
    states.append(read.folder_state(None))
    assert states[0] != states[1] == states[2]


# --- several archives -------------------------------------------------------------------------------------------------


def unpacked(tmp_path: Path, *origins: Origin) -> list[str]:
    unpack_all(origins, tmp_path / "images", Limits())
    return images(tmp_path / "images")


def test_archives_without_a_word_are_looked_at_as_one(tmp_path: Path) -> None:
    first = write_zip(tmp_path / "one.zip", ["set/train/cat/1.jpg", "set/train/dog/2.jpg"])
    second = write_zip(tmp_path / "two.zip", ["set/test/cat/1.jpg", "set/test/dog/2.jpg"])
    assert unpacked(tmp_path, Origin(first), Origin(second)) == [
        "test/cat/1.jpg", "test/dog/2.jpg", "train/cat/1.jpg", "train/dog/2.jpg",
    ]  # fmt: skip


def test_an_archive_a_part_whatever_its_top_folder(tmp_path: Path) -> None:
    first = write_zip(tmp_path / "one.zip", ["a_train/cat/1.jpg", "a_train/dog/2.jpg", "a_train/dog/sub/2.jpg"])
    second = write_zip(tmp_path / "two.zip", ["x/y/cat/1.jpg", "x/y/dog/2.jpg"])
    assert unpacked(tmp_path, Origin(first, split="train"), Origin(second, split="val")) == [
        "train/cat/1.jpg", "train/dog/2.jpg", "train/dog/sub/2.jpg", "val/cat/1.jpg", "val/dog/2.jpg",
    ]  # fmt: skip
    three = write_zip(tmp_path / "three.zip", ["train/cat/1.jpg", "val/dog/2.jpg"])
    assert unpacked(tmp_path, Origin(first, split="train"), Origin(three, split="test"))[:2] == [
        "test/cat/1.jpg",
        "test/dog/2.jpg",
    ]


def test_an_archive_a_class_with_and_without_parts(tmp_path: Path) -> None:
    first = write_zip(tmp_path / "one.zip", ["x/1.jpg", "x/y/2.jpg"])
    second = write_zip(tmp_path / "two.zip", ["1.jpg"])
    assert unpacked(tmp_path, Origin(first, label="草莓/1"), Origin(second, label="b")) == [
        "b/1.jpg", "草莓%2F1/1.jpg", "草莓%2F1/y/2.jpg",
    ]  # fmt: skip
    assert unpacked(tmp_path, Origin(first, label="a", split="train"), Origin(second, label="b", split="test")) == [
        "test/b/1.jpg", "train/a/1.jpg", "train/a/y/2.jpg",
    ]  # fmt: skip
    parted = write_zip(tmp_path / "parted.zip", ["a/train/1.jpg", "a/val/1.jpg"])
    assert unpacked(tmp_path, Origin(parted, label="a"), Origin(second, label="b", split="train")) == [
        "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg",
    ]  # fmt: skip


def test_files_of_one_name_in_two_archives_are_both_kept(tmp_path: Path) -> None:
    first, second = (write_zip(tmp_path / name, ["cat/1.jpg", "dog/2.jpg"]) for name in ("one.zip", "two.zip"))
    assert unpacked(tmp_path, Origin(first), Origin(second)) == ["cat/1.jpg", "cat/1~2.jpg", "dog/2.jpg", "dog/2~2.jpg"]
    assert (tmp_path / "images/cat/1~2.jpg").read_text() == "two.zip cat/1.jpg"


@pytest.mark.parametrize("names", [("train.zip", "test.zip"), ("seg_train.tar", "seg_test.zip"), ("训练集", "测试集")])
def test_archives_called_as_splits_are_splits(tmp_path: Path, names: tuple[str, str]) -> None:
    first, second = (write_zip(tmp_path / name, ["cat/1.jpg", "dog/2.jpg"]) for name in names)
    origins = Origin(first, name=names[0].replace(".tar", ".zip")), Origin(second, name=names[1])
    left_out = unpack_all(origins, tmp_path / "images", Limits())
    assert images(tmp_path / "images") == ["test/cat/1.jpg", "test/dog/2.jpg", "train/cat/1.jpg", "train/dog/2.jpg"]
    assert left_out.remarks[1] == f"dataset.source.1 is read as test by its name, {names[1]!r}"
    other = Origin(first, name="train.zip"), Origin(second, name="more.zip")
    assert unpacked(tmp_path / "other", *other) == ["cat/1.jpg", "cat/1~2.jpg", "dog/2.jpg", "dog/2~2.jpg"]


@pytest.mark.parametrize("table", ["file,label\na,train\nb,test\n", "file,label\na,val\nb,train\n"])
def test_classes_that_would_be_read_as_splits_are_refused(tmp_path: Path, table: str) -> None:
    (tmp_path / "l.csv").write_text(table)
    archive, kept = write_zip(tmp_path / "a.zip", ["a.jpg", "b.jpg"]), {"l.csv": str(tmp_path / "l.csv")}
    origin = Origin(archive, labels="l.csv", kept=kept)
    with pytest.raises(UserError, match="and no others, cannot be told from splits: rename one"):
        unpack_all([origin], tmp_path / "images", Limits())


def test_one_table_for_all_archives_lies_in_one_of_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = write_zip(tmp_path / "one.zip", ["1.jpg"]), write_zip(tmp_path / "two.zip", ["2.jpg"])
    labels = tmp_path / "notes.zip"
    with zipfile.ZipFile(labels, "w") as zipped:
        zipped.writestr("annotations/l.csv", "file,label\n1,cat\n2,dog\n")
    origins = (Origin(first, labels="l.csv"), Origin(second, labels="l.csv"), Origin(labels))
    assert unpacked(tmp_path, *origins) == ["cat/1.jpg", "dog/2.jpg"]
    assert "name no image" not in caplog.text


def test_a_part_of_the_archive_chooses_the_rows_of_a_table(tmp_path: Path) -> None:
    first, second = write_zip(tmp_path / "one.zip", ["1.jpg"]), write_zip(tmp_path / "two.zip", ["1.jpg"])
    table = tmp_path / "l.csv"
    table.write_text("file,label,split\n1,cat,train\n1,dog,test\n")
    kept = {"l.csv": str(table)}
    origins = [
        Origin(path, split=split, labels="l.csv", kept=kept) for path, split in ((first, "train"), (second, "test"))
    ]
    assert unpacked(tmp_path, *origins) == ["test/dog/1.jpg", "train/cat/1.jpg"]


def test_the_number_of_images_is_limited_for_all_archives_together(tmp_path: Path) -> None:
    first, second = (write_zip(tmp_path / name, ["cat/1.jpg", "dog/2.jpg"]) for name in ("one.zip", "two.zip"))
    with pytest.raises(UserError, match="4 images, more than 3"):
        unpack_all([Origin(first), Origin(second)], tmp_path / "images", Limits(images=3))


def test_one_bad_archive_of_two_leaves_nothing(tmp_path: Path) -> None:
    first = write_zip(tmp_path / "one.zip", ["cat/1.jpg", "dog/2.jpg"])
    second = write_zip(tmp_path / "two.zip", ["cat/3.jpg"])
    second.write_bytes(second.read_bytes().replace(b"two.zip cat", b"two.zip c_t"))
    with pytest.raises(UserError, match=r"two\.zip: damaged"):
        unpack_all([Origin(first), Origin(second)], tmp_path / "images", Limits())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.zip", "two.zip"]


@pytest.mark.parametrize(
    ("text", "words"), [("{", "no JSON"), ("[{}]", "list of 2 objects"), ('[{"prt": "x"}, {}]', "unknown key 'prt'")]
)
def test_options_that_make_no_sense_are_one_line(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_origins([Path("a"), Path("b")], text)


def test_names_alone_decide() -> None:
    assert find_classes([("x", "1.jpg"), ("x", "2.jpg")]).targets == [("x", "1.jpg"), ("x", "2.jpg")]
    parted = [("cat", "train", "1.jpg"), ("dog", "train", "1.jpg"), ("dog", "val", "2.jpg")]
    assert find_classes(parted).targets == [("cat", "1.jpg"), ("dog", "1.jpg"), ("dog", "2.jpg")]
    assert find_classes([]).targets == find_splits_of_class([], "x").targets == []
    assert find_splits_of_class([("train", "1.jpg"), ("2.jpg",)], "x").targets == [
        ("x", "train", "1.jpg"),
        ("x", "2.jpg"),
    ]


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        ("middle", "should be 'outer' or 'inner'"),
        ({"tain": "a"}, "folders.tain: unknown key, did you mean train"),
        ({"train": "a", "test": ["b", "a"]}, "the folder 'a' stands there twice"),
        ({}, "name a folder for train, val or test"),
    ],
)
def test_a_setting_of_folders_that_makes_no_sense_is_one_line(folders: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        settings_of({"url": "http://h/a.zip", "folders": folders})
    with pytest.raises(UserError, match="give one of the two"):
        settings_of({"url": "http://h/a.zip", "folders": "outer", "labels": "l.csv"})


def test_unpack_archive_is_told_what_folders_are_and_how_archives_are_called() -> None:
    source = [
        {"url": "http://h/train.zip?x=1", "folders": {"train": ["a", "b"]}},
        {"url": "http://h/test.zip", "split": "test"},
    ]
    assert json.loads(options_of(source).sources.removeprefix("--sources ").strip("'")) == [
        {"folders": {"train": ["a", "b"]}, "name": "train.zip"}, {"split": "test"},
    ]  # fmt: skip


# --- what the workflow is told ----------------------------------------------------------------------------------------


def test_a_plain_source_is_told_as_ever(tmp_path: Path) -> None:
    options = options_of({"url": "http://h/a.zip"})
    layout = options.layout
    assert layout.archives == ["results/d/archive.zip"] == layout.all_fetched() == [layout.fetched]
    assert (options.sources, options.labels, layout.fetch_log) == ("", "", "logs/d/fetch_archive.log")
    assert layout.records() == ["results/d/archive.sha256"]
    assert options.source_json(None) == '{"url":"http://h/a.zip"}'


def test_each_of_several_sources_is_fetched_and_recorded_by_itself(tmp_path: Path) -> None:
    table = tmp_path / "my labels.tsv"
    table.touch()
    folder = tmp_path / "p"
    folder.mkdir()
    source = [
        {"url": "http://h/a.tar.gz", "labels": str(table), "part": "train"},
        {"path": str(folder), "in_place": True, "labels": {"test": "test.txt"}},
    ]
    options = options_of(source)
    layout = options.layout
    names = ["archive_0.tar.gz", "archive_1.jsonl", "labels_0.tsv"]
    assert layout.fetched_names() == names and layout.fetched == "results/d/{fetched}"
    assert layout.records() == [f"results/d/{stem}.sha256" for stem in ("archive_0", "archive_1", "labels_0")]

    class Wildcards:
        def __init__(self, fetched: str) -> None:
            self.fetched = fetched

    assert [json.loads(options.source_json(Wildcards(name))) for name in names] == [
        {"url": "http://h/a.tar.gz"}, {"path": str(folder), "in_place": True}, {"file": str(table)},
    ]  # fmt: skip
    assert json.loads(options.sources.removeprefix("--sources ").strip("'")) == [
        {"labels": str(table), "split": "train", "kept": {str(table): "results/d/labels_0.tsv"}},
        {"labels": {"test": "test.txt"}, "folder": str(folder)},
    ]


PICTURES = {"jfif": "JPEG", "jpe": "JPEG", "avif": "AVIF", "jp2": "JPEG2000", "JPG_original": "PNG", "": "WEBP"}
FOREIGN = {
    "a.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
    "b.NEF": (b"II*\0\x08\0\0\0", "camera raw"),
    "c": (b"%PDF-1.4", "PDF"),
    "d.svg": (b"<svg xmlns=''>", "SVG"),
    "e.mov": (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", "video"),
    "f.txt": (b"text", "not an image"),
    "g.csv": (b"a,b", "not an image"),
}


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "folder"])
def test_pictures_are_told_by_content_and_none_vanishes(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for label in ("cat", "dog"):
        (source / label).mkdir(parents=True)
        for suffix, name in PICTURES.items():
            photograph(1, (40, 40)).save(source / label / f"1.{suffix}".removesuffix("."), name)
        for name, (content, _) in FOREIGN.items():
            (source / label / name).write_bytes(content)
    if kind == "folder":
        os.mkfifo(source / "cat" / "pipe.jpg")
        (source / "cat" / "gone.jpg").symlink_to("nowhere")
        (source / "cat" / "round.jpg").symlink_to("round.jpg")
        list_folder(source, tmp_path / "list.jsonl", tmp_path / "list.jsonl")
        origin = Origin(tmp_path / "list.jsonl", folder=source)
    else:
        format_name = {"zip": "zip", "tar.gz": "gztar"}[kind]
        origin = Origin(Path(shutil.make_archive(str(tmp_path / "a"), format_name, source)))
    lines = unpack_all([origin], tmp_path / "images", Limits()).lines()

    images = find_images(tmp_path / "images")
    assert len(images) == 2 * len(PICTURES) and {image.label for image in images} == {"cat", "dog"}
    counts = {line.split(": ")[1].split(",")[0]: int(line.split()[2].rstrip(":")) for line in lines}
    expected = {"HEIC": 2, "camera raw": 2, "PDF": 2, "SVG": 2, "video": 2, "not an image": 4}
    special = {"links to nothing": 2, "pipes": 1} if kind == "folder" else {}
    assert counts == expected | special
    assert any("convert to JPEG (magick mogrify -format jpg *.heic), such as '" in line for line in lines)
