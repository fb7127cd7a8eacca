"""What people offer as an archive is unpacked where that is safe, else said what it is, with what to do."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from scripts.data.fetch_archive import check_whole
from scripts.lib.base.language import speaking, tr_line
from scripts.lib.base.problems import UserError
from scripts.lib.data.archive_entries import Limits
from scripts.lib.data.file_kinds import piece_of
from scripts.lib.data.unpacking import Origin, unpack_all

FILES = {"cat/1.jpg": b"one", "cat/2.jpg": b"two", "dog/1.jpg": b"three"}


def zipped(files: Mapping[str, bytes] = FILES) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: Mapping[str, bytes] = FILES, links: Mapping[str, str] | None = None) -> bytes:
    """Return a tar of *files* and, behind them, of hard *links* to names."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE, target
            tar.addfile(info)
    return buffer.getvalue()


def unpacked(folder: Path, content: bytes, limits: Limits | None = None) -> dict[str, bytes]:
    (folder / "archive.bin").write_bytes(content)
    try:
        unpack_all([Origin(folder / "archive.bin")], folder / "images", limits or Limits())
    finally:
        assert set(os.listdir(folder)) <= {"archive.bin", "images"}
    images = folder / "images"
    return {path.relative_to(images).as_posix(): path.read_bytes() for path in images.rglob("*") if path.is_file()}


def refused(folder: Path, content: bytes, limits: Limits | None = None) -> str:
    with pytest.raises(UserError) as caught:
        unpacked(folder, content, limits)
    assert "\n" not in str(caught.value)
    assert not (folder / "images").exists()
    return str(caught.value)


# --- what is just unpacked --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_an_archive_that_was_compressed_again_is_unpacked(tmp_path: Path, compress: type) -> None:
    assert unpacked(tmp_path, compress(zipped())) == FILES  # type: ignore[call-arg]
    assert unpacked(tmp_path, compress(gzip.compress(tarred()))) == FILES  # type: ignore[call-arg]


def test_layers_of_compression_have_one_limit(tmp_path: Path) -> None:
    zeros = {"cat/1.jpg": bytes(40_000_000), "dog/1.jpg": b"x"}
    assert "bomb" in refused(tmp_path, gzip.compress(zipped(zeros)))
    assert "--max-bytes" in refused(tmp_path, gzip.compress(zipped()), Limits(bytes=100))
    assert "again and again" in refused(tmp_path, gzip.compress(gzip.compress(gzip.compress(tarred()))))


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_hard_links_of_a_tar_are_the_files_that_they_are(tmp_path: Path, compress: type) -> None:
    links = {"set/cat/1.jpg": "all/1.jpg", "set/dog/2.jpg": "./all/2.jpg", "set/dog/3.jpg": "set/dog/2.jpg"}
    content = tarred({"all/1.jpg": b"one", "all/2.jpg": b"two"}, links)
    images = unpacked(tmp_path, compress(content))  # type: ignore[call-arg]
    assert {name: images[name] for name in images if "all" not in name} == {
        "set/cat/1.jpg": b"one", "set/dog/2.jpg": b"two", "set/dog/3.jpg": b"two",
    }  # fmt: skip
    hidden = tarred({".store/a": b"one", ".store/b": b"two"}, {"cat/1.jpg": ".store/a", "dog/2.jpg": ".store/b"})
    assert unpacked(tmp_path, hidden) == {"cat/1.jpg": b"one", "dog/2.jpg": b"two"}


def test_hard_links_count_as_what_they_unpack_to(tmp_path: Path) -> None:
    links = {f"dog/{number}.jpg": "cat/1.jpg" for number in range(100)}
    content = tarred({"cat/1.jpg": bytes(1000)}, links)
    assert "--max-bytes" in refused(tmp_path, content, Limits(bytes=50_000))
    assert "no image" in refused(tmp_path, tarred({"notes.txt": b""}, {"cat/1.jpg": "cat/2.jpg"}))


# --- what is said -----------------------------------------------------------------------------------------------------

INNER = {
    "a zip in a zip": zipped({"data/photos.zip": zipped()}),
    "a tar of tars": tarred({"n01440764.tar": tarred(), "n01443537.tar": tarred()}),
    "a tar of 7z": tarred({"train.7z": b"x", "test.7z": b"x"}),
}


@pytest.mark.parametrize("case", INNER)
def test_archives_inside_an_archive_are_said(tmp_path: Path, case: str) -> None:
    message = refused(tmp_path, INNER[case])
    assert "an archive inside the archive" in message and "unpack it once and give the folder" in message


PIECES = {
    "b/a.zip.001": "unpack it once, then join the pieces: cat a.zip.0* > a.zip",
    "photos.tar.gz.aa": "unpack it once, then join the pieces: cat photos.tar.gz.a* > photos.tar.gz",
    "a.z01": "unpack it once, then join the pieces: zip -s 0 a.zip --out whole.zip",
    "a.part1.rar": "unpack it once, then put all pieces in one folder, unpack the first (7z x), and give the folder",
    "c/a.7z.001": "unpack it once, then put all pieces in one folder, unpack the first (7z x), and give the folder",
}


@pytest.mark.parametrize("name", PIECES)
def test_pieces_of_an_archive_inside_an_archive_are_to_be_joined(tmp_path: Path, name: str) -> None:
    message = refused(tmp_path, zipped({name: b"x"}))
    assert "a piece of an archive inside the archive" in message and message.endswith(PIECES[name])
    with speaking("zh"):
        assert tr_line(PIECES[name]).startswith("请先解压一层，再")


KINDS = {
    "a RAR archive": b"Rar!\x1a\x07\x01\x00 and so on",
    "a 7z archive": b"7z\xbc\xaf\x27\x1c\x00\x04",
    "a web page": b"\n <!DOCTYPE html><html>please log in</html>",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "an empty file": b"",
    "a JSON text": b'{"error": "not found"}',
    "a text ('404: Not Found')": b"404: Not Found\n",
    "an Office document": zipped({"[Content_Types].xml": b"", "xl/workbook.xml": b""}),
    "a Python pickle": pickle.dumps({"data": b"x"}),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n\x00",
    "a Parquet table": b"PAR1\x15\x00",
    "a JPEG image": b"\xff\xd8\xff\xe0 a photograph",
    "inside it an IDX file": gzip.compress(b"\x00\x00\x08\x03\x00\x00\xea\x60"),
    "inside it a web page": gzip.compress(b"<html></html>"),
    "the first part of a split zip": b"PK\x07\x08PK\x03\x04",
    "no archive that mimflow knows": b"\x01\x02\x03\xff" * 300,
    "video, not a zip": b"\0\0\0\x20ftypisom" + bytes(99),
    "DICOM, not a zip": bytes(128) + b"DICM" + b"\2" * 99,
    "GIF, not a zip or tar (.gz, .bz2, .xz, .zst): give the folder": b"GIF89a\1\0\1\0",
    "HEIC, not a zip": b"\0\0\0\x18ftypheic" + bytes(99),
    "a text ('提取码错误')": "提取码错误".encode(),
    "a text ('log in')": "log in".encode("utf-16"),
    "a text ('[InternetShortcut] URL=http://x')": b"[InternetShortcut]\r\nURL=http://x",
    "a file of lzma": lzma.compress(b"x" * 999, lzma.FORMAT_ALONE),
    "an ALZ archive": b"ALZ\x01" + bytes(99),
    "inside it an empty file": gzip.compress(b""),
    "inside it NIfTI": gzip.compress(bytes(344) + b"n+1\0" + bytes(99)),
}


@pytest.mark.parametrize("what", KINDS)
def test_what_is_no_archive_is_said_with_what_to_do(tmp_path: Path, what: str) -> None:
    message = refused(tmp_path, KINDS[what])
    assert what in message
    assert "not a zip or tar (.gz, .bz2, .xz, .zst): " in message


def test_the_last_part_of_a_split_zip_is_said(tmp_path: Path) -> None:
    content = bytearray(zipped())
    end = content.rindex(b"PK\x05\x06")
    content[end + 4 : end + 6] = b"\x02\x00"  # the number of this disk
    for last in (bytes(content), bytes(content[40:])):  # as zip -s makes it, it begins within an entry
        message = refused(tmp_path, last)
        assert "only the last part of a zip that was split into 3: join them" in message and "zip -s 0" in message
    assert "first part of a split zip" in refused(tmp_path, zipped()[:-40])
    assert "its begin is missing" in refused(tmp_path, zipped()[40:])


def test_a_zip_behind_something_else_is_read(tmp_path: Path) -> None:
    assert unpacked(tmp_path, b"HTTP/1.1 200 OK\r\n\r\n" + zipped()).items() >= FILES.items()


@pytest.mark.parametrize(
    "name",
    [
        "a.zip.001", "a.7z.002", "a.z01", "a.part2.rar", "a.r00", "a.tar.gz.003", "A.ZIP.001", "a.tar.gz.aa",
        "a.tar.gz.partab", "a.zip.part-ac", "a.tgz-part-01", "a.tar.part1", "a.tgzaa", "a.tar.gz_part_02", "a.zip_aa",
    ],
)  # fmt: skip
def test_a_piece_of_an_archive_is_known_by_its_name(name: str) -> None:
    with pytest.raises(UserError, match=r"is one of the pieces of an archive: .*piece"):
        check_whole(name)


@pytest.mark.parametrize(
    "name", ["a.zip", "a.tar.gz", "photos.tar.2024", "a.rar", "zip", "archive.0", "a.tar.xz", "a.zip.part"]
)
def test_a_whole_archive_is_no_piece(name: str) -> None:
    check_whole(name)


def test_the_command_that_joins_pieces_names_all_of_them() -> None:
    joins = {
        "a b.zip.001": "cat 'a b.zip.'0* > 'a b.zip'", "a.tar.gz.ab": "cat a.tar.gz.a* > a.tar.gz",
        "a.tgz-part-03": "cat a.tgz-part-0* > a.tgz", "a.tar.part2": "cat a.tar.part* > a.tar",
        "a.zip.PartAB": "cat a.zip.PartA* > a.zip",
    }  # fmt: skip
    assert {name: piece_of(name).removeprefix("join the pieces: ") for name in joins} == joins


MORE = {"bird/1.jpg": b"four", "fish/1.jpg": b"five"}


@pytest.mark.parametrize(
    "content",
    [
        tarred() + tarred(MORE),
        gzip.compress(tarred()) + gzip.compress(tarred(MORE)),
        bz2.compress(tarred() + tarred(MORE)),
        lzma.compress(tarred()) + lzma.compress(tarred(MORE)),
        zipped() + zipped(MORE),
    ],
    ids=["tar", "tar.gz", "tar.bz2", "tar.xz", "zip"],
)
def test_archives_that_were_joined_are_refused_since_one_of_them_would_vanish(tmp_path: Path, content: bytes) -> None:
    assert "which would not be read" in refused(tmp_path, content)


def test_what_stands_behind_or_before_an_archive_without_being_one_does_no_harm(tmp_path: Path) -> None:
    appended = io.BytesIO(zipped())
    with zipfile.ZipFile(appended, "a") as archive:
        archive.writestr("cat/3.jpg", b"more")
        archive.comment = b"a comment"
    for number, content in enumerate((tarred() + b"junk" * 99, tarred() + bytes(99999), appended.getvalue())):
        (tmp_path / str(number)).mkdir()
        assert unpacked(tmp_path / str(number), content).items() >= FILES.items()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"batches/data_batch_1": pickle.dumps({"data": bytes(99)})}, "Python pickle, which mimflow does not read"),
        ({"train-images-idx3-ubyte": b"\0\0\x08\x03" + bytes(99)}, "IDX (MNIST), which mimflow does not read"),
        ({"train-images-idx3-ubyte.gz": gzip.compress(b"\0\0\x08\x03" + bytes(99))}, "gzip data"),
        ({"train.parquet": b"PAR1" + bytes(99)}, "Parquet, which mimflow does not read: write its images as files"),
        ({"data.mdb": bytes(16) + b"\xde\xc0\xef\xbe" + bytes(99)}, "LMDB"),
        ({"a.tfrecord": bytes(99)}, "TFRecord"),
        ({"a.h5": b"\x89HDF\r\n\x1a\n" + bytes(99)}, "HDF5"),
        ({"data.tar.gz": gzip.compress(tarred())}, "an archive inside the archive"),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:6],
)
def test_images_that_lie_in_other_containers_are_said(tmp_path: Path, files: Mapping[str, bytes], words: str) -> None:
    message = refused(tmp_path, zipped(files))
    assert "no image in a class folder" in message and words in message


def test_the_image_of_a_disc_is_no_empty_tar(tmp_path: Path) -> None:
    assert "an ISO image of a disc" in refused(tmp_path, bytes(32769) + b"CD001" + bytes(9999))
    (tmp_path / "archive.bin").unlink()
    assert "perhaps the image of a disk" in refused(tmp_path, bytes(9999) + b"LVM2")
    (tmp_path / "archive.bin").unlink()
    assert "it is empty" in refused(tmp_path, tarred({}))
