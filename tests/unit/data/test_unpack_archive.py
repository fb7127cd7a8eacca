"""Archives of every kind, well-meant and hostile, become class folders or are refused in one line."""

from __future__ import annotations

import io
import json
import lzma
import os
import random
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest
import zstandard
from raw_zip import zip_of_raw_names

from scripts.data.unpack_archive import build_parser, main
from scripts.lib.base.problems import UserError
from scripts.lib.data import archive_entries, unpacking
from scripts.lib.data.archive_entries import Damaged, Limits
from scripts.lib.data.archives import sniff_format
from scripts.lib.data.image_paths import (
    Taken,
    is_image,
    is_junk,
    safe_component,
    shorten,
)
from scripts.lib.data.layouts import NO_CLASS, NO_SPLIT, find_layout
from scripts.lib.data.unpacking import unpack

Files = Mapping[str, bytes]
TWO_CLASSES: Files = {"cat/1.jpg": b"cat one", "cat/2.jpg": b"cat two", "dog/1.jpg": b"dog one"}


def write_zip(path: Path, files: Files, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
    return path


def tar_bytes(files: Mapping[str, bytes | tarfile.TarInfo], **options: object) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def compress(data: bytes, kind: str) -> bytes:
    import bz2
    import gzip

    if kind == "zst":
        return zstandard.ZstdCompressor().compress(data)
    return {"tar": bytes, "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[kind](data)  # type: ignore[operator]


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def unpacked(archive: Path, **limits: float) -> dict[str, bytes]:
    output = archive.parent / "out" / "images"
    unpack(archive, output, Limits(**limits))  # type: ignore[arg-type]
    assert os.listdir(output.parent) == ["images"]
    return contents(output)


def refused(archive: Path, match: str, **limits: float) -> str:
    """Unpack what must be refused; nothing may be written, and the message is one line."""
    before = contents(archive.parent)
    with pytest.raises(UserError, match=match) as caught:
        unpack(archive, archive.parent / "out" / "images", Limits(**limits))  # type: ignore[arg-type]
    assert contents(archive.parent) == before
    assert not (archive.parent / "out" / "images").exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- kinds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tar", "gz", "bz2", "xz", "zst"])
def test_every_tar_is_unpacked_whatever_its_name(tmp_path: Path, kind: str) -> None:
    archive = tmp_path / "archive.zip"
    archive.write_bytes(compress(tar_bytes(TWO_CLASSES), kind))
    assert sniff_format(archive) == kind
    assert unpacked(archive) == TWO_CLASSES


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_is_unpacked_whatever_its_name(tmp_path: Path, method: int) -> None:
    assert unpacked(write_zip(tmp_path / "archive.tar.gz", TWO_CLASSES, method)) == TWO_CLASSES


def test_several_zstd_frames_are_one_archive(tmp_path: Path) -> None:
    data = tar_bytes(TWO_CLASSES)
    archive = tmp_path / "a.tar.zst"
    archive.write_bytes(compress(data[:1000], "zst") + compress(data[1000:], "zst"))
    assert unpacked(archive) == TWO_CLASSES


def test_a_zip64_is_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for name, content in TWO_CLASSES.items():
            with zipped.open(name, "w", force_zip64=True) as file:
                file.write(content)
    assert unpacked(archive) == TWO_CLASSES


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html>please log in</html>", "a web page"),
        (b"Rar!\x1a\x07\x01\x00 and so on", "a RAR archive"),
        (b"\x01\xd8\xff\xe0 something else" * 100, "no archive"),
    ],
)
def test_what_is_no_archive_is_said_so(tmp_path: Path, content: bytes, what: str) -> None:
    archive = tmp_path / "archive.zip"
    archive.write_bytes(content)
    assert "archive.zip" in refused(archive, what)


@pytest.mark.parametrize("kind", ["zip", "tar", "gz", "bz2", "xz", "zst"])
@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
def test_a_truncated_archive_is_refused(tmp_path: Path, kind: str, keep: float) -> None:
    noise = random.Random(0).randbytes
    files = {f"{name}/{number}.jpg": noise(5000) for name in ("cat", "dog") for number in range(20)}
    archive = tmp_path / "archive.zip"
    if kind == "zip":
        write_zip(archive, files)
    else:
        archive.write_bytes(compress(tar_bytes(files), kind))
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * keep)])
    refused(archive, "damaged or truncated")


def test_a_tar_cut_exactly_between_two_files_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_bytes(TWO_CLASSES)[:2048])  # two entries of a header and a block each
    refused(archive, "damaged or truncated")


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    data = bytearray(tar_bytes(TWO_CLASSES))
    data[1024:1030] = b"broken"
    archive.write_bytes(data)
    refused(archive, "damaged or truncated")


def test_damaged_content_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", {"cat/1.jpg": b"content " * 50, "dog/1.jpg": b"b"}, zipfile.ZIP_STORED)
    archive.write_bytes(archive.read_bytes().replace(b"content ", b"CONTENT ", 1))
    refused(archive, "damaged or truncated")


# --- layout ---------------------------------------------------------------------------------------------------------


def layout(*names: str) -> list[str]:
    targets = find_layout([tuple(name.split("/")) for name in names]).targets
    return [target if isinstance(target, str) else "/".join(target) for target in targets]


def test_shared_leading_folders_are_stripped() -> None:
    assert layout("a/b/cat/1.jpg", "a/b/dog/2.jpg") == ["cat/1.jpg", "dog/2.jpg"]


def test_folders_inside_a_class_stay() -> None:
    assert layout("cat/2020/1.jpg", "cat/2021/1.jpg", "dog/1.jpg") == ["cat/2020/1.jpg", "cat/2021/1.jpg", "dog/1.jpg"]


def test_a_single_class_folder_stays_a_class() -> None:
    assert layout("cat/1.jpg", "cat/2.jpg") == ["cat/1.jpg", "cat/2.jpg"]
    assert layout("data/cat/1.jpg", "data/cat/2.jpg") == ["cat/1.jpg", "cat/2.jpg"]
    assert layout("cat/1.jpg", "cat/more/2.jpg") == ["cat/1.jpg", "cat/more/2.jpg"]


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("Training", "VALID", "testing"), ("TRAIN", "validation", "Test")],
)
def test_parts_are_found_by_their_usual_names(train: str, val: str, test: str) -> None:
    assert layout(f"set/{train}/cat/1.jpg", f"set/{val}/cat/2.jpg", f"set/{test}/dog/3.jpg") == [
        "train/cat/1.jpg",
        "val/cat/2.jpg",
        "test/dog/3.jpg",
    ]


def test_folders_between_part_and_class_are_stripped() -> None:
    names = ["train/images/cat/1.jpg", "train/images/dog/1.jpg", "val/images/cat/2.jpg", "val/images/dog/2.jpg"]
    assert layout(*names) == ["train/cat/1.jpg", "train/dog/1.jpg", "val/cat/2.jpg", "val/dog/2.jpg"]


def test_parts_inside_classes_are_turned_round() -> None:
    assert layout("cat/train/1.jpg", "cat/test/2.jpg", "dog/train/1.jpg", "dog/test/2.jpg") == [
        "train/cat/1.jpg",
        "test/cat/2.jpg",
        "train/dog/1.jpg",
        "test/dog/2.jpg",
    ]


def test_a_class_may_be_called_train() -> None:
    assert layout("bus/1.jpg", "car/1.jpg", "train/1.jpg") == ["bus/1.jpg", "car/1.jpg", "train/1.jpg"]
    assert layout("bus/1.jpg", "train/old/1.jpg") == ["bus/1.jpg", "train/old/1.jpg"]


def test_images_outside_the_classes_are_left_out() -> None:
    assert layout("set/cover.jpg", "set/cat/1.jpg", "set/dog/1.jpg") == [NO_CLASS, "cat/1.jpg", "dog/1.jpg"]
    assert layout("train/cat/1.jpg", "train/dog/1.jpg", "val/cat/2.jpg", "docs/figure.png", "cover.png") == [
        "train/cat/1.jpg",
        "train/dog/1.jpg",
        "val/cat/2.jpg",
        NO_SPLIT,
        NO_SPLIT,
    ]


def test_an_unlabelled_test_folder_is_no_class() -> None:
    assert layout("train/cat/1.jpg", "train/dog/1.jpg", "test/1.jpg") == [
        "train/cat/1.jpg",
        "train/dog/1.jpg",
        NO_CLASS,
    ]


def test_hidden_folders_are_not_classes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    junk = {
        "set/.ipynb_checkpoints/1-checkpoint.jpg": b"x",
        "__MACOSX/set/cat/._1.jpg": b"x",
        "set/cat/.DS_Store": b"x",
        "set/cat/Thumbs.db": b"x",
        "set/@eaDir/1.jpg": b"x",
    }
    archive = write_zip(
        tmp_path / "a.zip",
        {f"set/{name}": content for name, content in TWO_CLASSES.items()}
        | junk
        | {"set/readme.txt": b"", "set/c.jpg": b""},
    )
    assert unpacked(archive) == TWO_CLASSES
    assert "left out 5: junk" in caplog.text
    assert "left out 1: not an image, such as 'set/readme.txt'" in caplog.text
    assert f"left out 1: {NO_CLASS}, such as 'set/c.jpg'" in caplog.text
    assert "unpacked 3 images of 2 classes" in caplog.text


def test_what_was_guessed_and_left_out_is_recorded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = {f"{split}/{label}/1.jpg": b"x" for split in ("seg_train", "seg_test") for label in ("cat", "dog")}
    archive = write_zip(tmp_path / "a.zip", files | {"seg_pred/2.jpg": b"y", "readme.txt": b"z"})
    words = f"--archive {archive} --output {tmp_path}/images --record {tmp_path}/unpacked.json"
    main(build_parser().parse_args(words.split()))
    record = json.loads((tmp_path / "unpacked.json").read_text())
    assert record == {
        "notes": ["folders are read as splits by their names: 'seg_test' as test, 'seg_train' as train"],
        "left_out": [
            "left out 1: not an image, such as 'readme.txt'",
            f"left out 1: {NO_SPLIT}, such as 'seg_pred/2.jpg'",
        ],
    }
    assert record["notes"][0] in caplog.text


def test_an_archive_without_class_folders_is_refused(tmp_path: Path) -> None:
    message = refused(write_zip(tmp_path / "a.zip", {"1.jpg": b"1", "notes.txt": b""}), "no image in a class folder")
    assert "1 file: not an image" in message
    refused(write_zip(tmp_path / "b.zip", {}), "it is empty")


def test_image_names_are_told_by_their_suffix_in_any_case() -> None:
    assert all(is_image(f"a{suffix}") for suffix in (".JPG", ".jpeg", ".Png", ".webp", ".TIF", ".pgm"))
    assert not any(is_image(name) for name in ("a.txt", "jpg", "a.jpg.zip", "a.jpg~"))
    assert is_junk(["a", ".git", "b"]) and is_junk(["THUMBS.DB"]) and not is_junk(["a", "b.jpg"])


# --- names ----------------------------------------------------------------------------------------------------------

HOSTILE = [
    'it\'s "quoted"',
    "two  spaces",
    "$(touch pwned)",
    "`id`;&|<>*?",
    "<script>alert(1)</script>".replace("/", "∕"),
    "-rf",
    "哈密瓜",
    "naïve %41 %0A",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_people_stay_as_they_are(tmp_path: Path, name: str) -> None:
    assert safe_component(name) == name
    files = {f"{name}/{name}.jpg": b"1", "other/2.jpg": b"2"}
    assert unpacked(write_zip(tmp_path / "a.zip", files)) == files


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a\nb", "a%0Ab"),
        ("a\r\tb\x7f", "a%0D%09b%7F"),
        ("a\u2028b\u2029c\x85", "a%E2%80%A8b%E2%80%A9c%C2%85"),
        (" a b ", "%20a b%20"),
        ("\u3000西瓜\xa0", "%E3%80%80西瓜%C2%A0"),
        ("   ", "%20%20%20"),
        ("a\\b", "a%5Cb"),
        ("\u202egpj.exe", "%E2%80%AEgpj.exe"),
        (b"\xff\xfe.jpg".decode("utf-8", "surrogateescape"), "%FF%FE.jpg"),
        ("\ufeffcat", "%EF%BB%BFcat"),
        ("👩\u200d🔬", "👩\u200d🔬"),
    ],
)
def test_what_breaks_a_line_of_text_is_percent_encoded(name: str, safe: str) -> None:
    assert safe_component(name) == safe


def test_newlines_in_names_reach_no_file(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_bytes({"a\nb/ 1\r.jpg": b"1", "c/2.jpg": b"2"}))
    assert unpacked(archive) == {"a%0Ab/%201%0D.jpg": b"1", "c/2.jpg": b"2"}


def test_chinese_names_in_a_zip_of_windows_come_out_right(tmp_path: Path) -> None:
    # 荔枝 in GBK is valid UTF-8 nowhere, but 履 (C2 C4) is not either; 痛 (CD B4) is valid UTF-8 by chance.
    names = ["水果/痛/1.jpg", "水果/哈密瓜/图片 2.jpg", "水果/車厘子/3.jpg"]
    archive = zip_of_raw_names(tmp_path / "a.zip", {name.encode("gbk"): name.encode() for name in names})
    assert unpacked(archive) == {name.removeprefix("水果/"): name.encode() for name in names}


def test_utf8_names_without_the_flag_come_out_right(tmp_path: Path) -> None:
    names = ["哈密瓜/1.jpg", "山竹/2.jpg"]
    archive = zip_of_raw_names(tmp_path / "a.zip", {name.encode(): b"" for name in names})
    assert set(unpacked(archive)) == set(names)


def test_gbk_names_in_a_tar_come_out_right(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    names = ["哈密瓜/1.jpg", "痛/2.jpg"]
    archive.write_bytes(tar_bytes(dict.fromkeys(names, b""), format=tarfile.GNU_FORMAT, encoding="gbk"))
    assert set(unpacked(archive)) == set(names)


def test_the_unicode_path_field_of_a_zip_is_used(tmp_path: Path) -> None:
    raw = b"??/1.jpg"
    field = struct.pack("<BL", 1, zlib.crc32(raw)) + "西瓜/1.jpg".encode()
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        info = zipfile.ZipInfo(raw.decode())
        info.extra = struct.pack("<HH", 0x7075, len(field)) + field
        zipped.writestr(info, b"1")
        zipped.writestr("b/2.jpg", b"2")
    assert set(unpacked(archive)) == {"西瓜/1.jpg", "b/2.jpg"}


def test_backslashes_between_folders_of_a_windows_zip_are_separators(tmp_path: Path) -> None:
    archive = zip_of_raw_names(tmp_path / "a.zip", {rb"train\cat\1.jpg": b"1", rb"val\cat\2.jpg": b"2"})
    assert unpacked(archive) == {"train/cat/1.jpg": b"1", "val/cat/2.jpg": b"2"}


def test_names_longer_than_a_file_system_takes_are_cut(tmp_path: Path) -> None:
    long = "瓜" * 500
    files = {f"cat/{long}{number}.jpg": bytes([number]) for number in (1, 2)} | {"cat/" + "d/" * 700 + "3.jpg": b"3"}
    result = unpacked(write_zip(tmp_path / "a.zip", files | {"dog/1.jpg": b""}))
    assert len(result) == 4
    assert all(len(component.encode()) <= 255 for name in result for component in name.split("/"))
    assert all(name.endswith(".jpg") and len(name.encode()) < 1100 for name in result)
    assert len(shorten("a" * 300 + ".jpg").encode()) == 255


def test_a_later_file_of_the_same_name_gets_a_number(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number, name in enumerate(["cat/1.jpg", "cat/1.jpg", "cat/./1.jpg", "dog/1.jpg"]):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"%d" % number))
    archive.write_bytes(buffer.getvalue())
    assert unpacked(archive) == {"cat/1.jpg": b"0", "cat/1~2.jpg": b"1", "cat/1~3.jpg": b"2", "dog/1.jpg": b"3"}


def test_a_file_and_a_folder_of_the_same_name_both_fit() -> None:
    taken = Taken()
    assert taken.take(["cat", "a.jpg"]) == "cat/a.jpg"
    assert taken.take(["cat", "a.jpg", "b.jpg"]) == "cat/a~2.jpg/b.jpg"
    assert taken.take(["cat", "c.jpg", "d.jpg"]) == "cat/c.jpg/d.jpg"
    assert taken.take(["cat", "c.jpg"]) == "cat/c~2.jpg"


# --- what is refused ------------------------------------------------------------------------------------------------

ESCAPES = [
    "../evil.jpg",
    "cat/../../evil.jpg",
    "/tmp/evil.jpg",
    "C:/evil.jpg",
    "C:\\evil.jpg",
    "..\\evil.jpg",
    "\\\\x\\e.jpg",
]


@pytest.mark.parametrize("name", ESCAPES)
@pytest.mark.parametrize("kind", ["zip", "tar", "gz"])
def test_an_entry_that_would_land_outside_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    archive = tmp_path / "a"
    files = dict(TWO_CLASSES) | {name: b"evil"}
    if kind == "zip":
        write_zip(archive, files)
    else:
        archive.write_bytes(compress(tar_bytes(files), kind))
    assert name.rpartition("\\")[2][-5:] in refused(archive, "outside")


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("target", ["/etc/passwd", "../../evil", "x/../../../evil"])
def test_a_link_out_of_the_archive_is_refused(tmp_path: Path, target: str) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_bytes(dict(TWO_CLASSES) | {"l": link("cat/l.jpg", target)}))
    refused(archive, "is a link out of it")
    archive.write_bytes(tar_bytes(dict(TWO_CLASSES) | {"l": link("cat/l.jpg", "../evil", tarfile.LNKTYPE)}))
    refused(archive, "is a link out of it")
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("cat/1.jpg", b"1")
        info = zipfile.ZipInfo("cat/l.jpg")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(info, target)
    refused(archive, "is a link out of it")


def test_symbolic_links_inside_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    archive = tmp_path / "a.tar"
    links = {"l": link("cat/l.jpg", "../dog/1.jpg"), "h": link("cat/h.jpg", "dog/1.jpg", tarfile.LNKTYPE)}
    archive.write_bytes(tar_bytes(dict(TWO_CLASSES) | links))
    assert unpacked(archive) == {**TWO_CLASSES, "cat/h.jpg": b"dog one"}  # a hard link is a file by another name
    assert "left out 1: a link" in caplog.text


@pytest.mark.parametrize("classes", [("cat", "dog"), ("train/cat", "train/dog", "val/cat", "val/dog")])
def test_what_the_only_class_lacks_is_said(
    tmp_path: Path, classes: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    archive = tmp_path / "a.tar"
    up = "../" * (1 + classes[0].count("/"))
    links = {name: link(f"{name}/{i}.jpg", f"{up}all/{i}.jpg") for i, name in enumerate(classes)}
    archive.write_bytes(tar_bytes({f"all/{i}.jpg": b"%d" % i for i in range(len(classes))} | links))
    unpacked(archive)
    line = next(line for line in caplog.messages if line.startswith("images in one class folder only"))
    assert f"left out: {len(classes)} files: a link" in line and "tar --dereference" in line


def test_writing_through_a_link_is_impossible(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_bytes({"1": link("cat", "dog"), "cat/evil.jpg": b"evil", "dog/1.jpg": b"1"}))
    assert unpacked(archive) == {"cat/evil.jpg": b"evil", "dog/1.jpg": b"1"}


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_bytes(dict(TWO_CLASSES) | {"d": link("cat/d.jpg", "", kind)}))
    refused(archive, "is a device or a pipe")


def test_encrypted_entries_are_refused(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", TWO_CLASSES)
    data = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        position = data.find(signature)
        while position >= 0:
            data[position + offset] |= 1
            position = data.find(signature, position + 4)
    archive.write_bytes(data)
    refused(archive, "encrypted entries")


def test_methods_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", TWO_CLASSES)
    data = archive.read_bytes()
    position = data.find(b"PK\x01\x02")
    archive.write_bytes(data[: position + 10] + b"\x09\x00" + data[position + 12 :])
    refused(archive, "Deflate64")


@pytest.mark.parametrize("kind", ["zip", "gz", "xz", "zst", "bz2"])
def test_a_bomb_by_ratio_is_refused(tmp_path: Path, kind: str) -> None:
    archive = tmp_path / "a"
    files = dict(TWO_CLASSES) | {"cat/bomb.jpg": bytes(24_000_000)}
    if kind == "zip":
        write_zip(archive, files)
    else:
        archive.write_bytes(compress(tar_bytes(files), kind))
    refused(archive, "bomb")


def test_too_many_bytes_and_too_many_images_are_refused(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", TWO_CLASSES)
    refused(archive, "--max-bytes", bytes=10)
    refused(archive, "--max-images", images=2)
    archive.write_bytes(tar_bytes(TWO_CLASSES))
    refused(archive, "--max-bytes", bytes=10)
    refused(archive, "--max-images", images=2)
    assert unpacked(archive, images=3, bytes=21)


def test_too_many_entries_of_any_kind_are_refused(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", dict(TWO_CLASSES) | {f"junk/.{n}": b"" for n in range(1100)})
    refused(archive, "entries", images=3)


def test_a_huge_declared_size_costs_no_memory(tmp_path: Path) -> None:
    """A name of 10 GB (GNU long name) would be read whole by tarfile."""
    archive = tmp_path / "a.tar"
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 10 * 10**9
    data = header.tobuf(tarfile.GNU_FORMAT)
    with open(archive, "wb") as file:
        file.write(data)
        file.truncate(10**10 + 2048)  # a sparse file: takes no room
    with pytest.raises(UserError, match="a header of 10000000000 bytes"):
        unpack(archive, tmp_path / "out" / "images", Limits())
    huge = tarfile.TarInfo("cat/1.jpg")
    huge.size = 10 * 10**9
    archive.write_bytes(huge.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(UserError):
        unpack(archive, tmp_path / "out" / "images", Limits())


def test_a_zip_that_declares_less_than_it_holds_is_refused(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", {"cat/1.jpg": b"x" * 5000, "dog/1.jpg": b"1"})
    data = archive.read_bytes()
    archive.write_bytes(data.replace(struct.pack("<L", 5000), struct.pack("<L", 50)))
    refused(archive, "damaged or truncated")


# --- writing --------------------------------------------------------------------------------------------------------


def test_what_was_there_is_replaced_and_leftovers_go(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", TWO_CLASSES)
    output = tmp_path / "out" / "images"
    (output / "old").mkdir(parents=True)
    (output.parent / ".images.99999.tmp" / "cat").mkdir(parents=True)
    assert unpacked(archive) == TWO_CLASSES


def test_a_disk_too_small_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda _: type("usage", (), {"free": 5})())
    with pytest.raises(UserError, match="no space left"):
        unpack(write_zip(tmp_path / "a.zip", TWO_CLASSES), tmp_path / "out" / "images", Limits())
    assert contents(tmp_path / "out") == {}


@pytest.mark.long
def test_random_damage_ends_in_one_line_or_in_images(tmp_path: Path) -> None:
    """A small fuzz: whatever byte is wrong, the answer is a UserError or files below the output, never a traceback."""
    generator = random.Random(1)
    kinds = {
        "zip": write_zip(tmp_path / "a", TWO_CLASSES).read_bytes(),
        "tar": tar_bytes(TWO_CLASSES, format=tarfile.PAX_FORMAT, pax_headers={"comment": "é"}),
        "gz": compress(tar_bytes(TWO_CLASSES), "gz"),
        "zst": compress(tar_bytes(TWO_CLASSES), "zst"),
        "bz2": compress(tar_bytes(TWO_CLASSES), "bz2"),
        "xz": compress(tar_bytes(TWO_CLASSES), "xz"),
    }
    archive, output = tmp_path / "fuzzed", tmp_path / "out" / "images"
    for data in kinds.values():
        for _ in range(60):
            damaged = bytearray(data)
            for _ in range(generator.randint(1, 4)):
                damaged[generator.randrange(len(damaged))] = generator.randrange(256)
            archive.write_bytes(damaged)
            try:
                unpack(archive, output, Limits(images=100, bytes=10**7))
            except UserError:
                pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "fuzzed", "out"]


def test_damaged_is_a_mistake_that_users_can_mend() -> None:
    assert issubclass(Damaged, UserError)
    assert archive_entries.DEFAULT_MAX_IMAGES == 2_000_000
