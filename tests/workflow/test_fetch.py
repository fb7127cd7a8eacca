"""The data stage as commands, end to end: a real server that misbehaves, real files, a real full disk."""

from __future__ import annotations

import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from http_server import HttpServer, refused_url

from scripts.lib.base.products import RECORDS

ROOT = Path(__file__).resolve().parents[2]

HOSTILE_CLASSES = ['it\'s "quoted"', "two  spaces", "$(touch pwned)", "<script>alert(1)<", "哈密瓜", "a;b&c|d"]


def zip_bytes(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
    return buffer.getvalue()


def photos(classes: list[str], each: int = 5, size: int = 2000) -> bytes:
    noise = random.Random(0).randbytes
    return zip_bytes({f"set/{label}/{label} {n}.jpg": noise(size) for label in classes for n in range(each)})


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with HttpServer() as running:
        yield running


def command(script: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"scripts.data.{script}", *(str(argument) for argument in arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(script, *arguments), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120
    )


def fetch(source: str, folder: Path, log: Path | None = None) -> subprocess.CompletedProcess[str]:
    files = ("--output", folder / "archive.zip", "--record", folder / "archive.sha256")
    return run("fetch_archive", "--source", source, *files, "--log", log or folder / "fetch.log")


def unpack(archive: Path, folder: Path, *options: object) -> subprocess.CompletedProcess[str]:
    return run("unpack_archive", "--archive", archive, "--output", folder / "images", *options)


def split(folder: Path, *options: object) -> subprocess.CompletedProcess[str]:
    outputs = ("--output", folder / "splits", "--class-list", folder / "classes.txt")
    return run("split_dataset", "--images", folder / "images", *outputs, *options)


def is_one_error(result: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that the command failed in one line that has these words (warnings may stand before it)."""
    assert result.returncode == 1
    *_, last = result.stderr.splitlines()
    assert last.startswith("error: ")
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in last


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != RECORDS) if folder.exists() else []


@pytest.mark.long
def test_from_a_breaking_server_to_a_split_with_hostile_names(server: HttpServer, tmp_path: Path) -> None:
    content = photos(HOSTILE_CLASSES, each=6)
    server.serve("a.zip", content, break_after=20_000, breaks=1)
    fetched = fetch(f'{{"url": "{server.url("a.zip")}"}}', tmp_path)
    assert fetched.returncode == 0, fetched.stderr
    assert "trying again in 1 s" in fetched.stderr and "\r" not in fetched.stderr
    assert (tmp_path / "archive.zip").read_bytes() == content
    assert [request.status for request in server.requests] == [200, 206]
    unpacked = unpack(tmp_path / "archive.zip", tmp_path)
    assert unpacked.returncode == 0, unpacked.stderr
    assert names(tmp_path / "images") == sorted(HOSTILE_CLASSES)
    result = split(tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "classes.txt").read_text(encoding="utf-8").split("\n")[:-1] == sorted(HOSTILE_CLASSES)
    lines = [
        line
        for name in ("train", "val", "test")
        for line in (tmp_path / "splits" / f"{name}.txt").read_text(encoding="utf-8").split("\n")[:-1]
    ]
    assert len(lines) == 36 and all((tmp_path / "images" / line.rpartition(" ")[0]).is_file() for line in lines)
    assert names(tmp_path) == ["archive.sha256", "archive.zip", "classes.txt", "fetch.log", "images", "splits"]
    assert not (ROOT / "pwned").exists() and not (tmp_path / "pwned").exists()


@pytest.mark.long
def test_a_killed_fetch_goes_on_where_it_stopped(server: HttpServer, tmp_path: Path) -> None:
    content = photos(["a", "b"], each=100, size=10_000)
    resource = server.serve("a.zip", content, bytes_per_second=1_000_000)
    source = f'{{"url": "{server.url("a.zip")}"}}'
    files = ("--output", tmp_path / "archive.zip", "--record", tmp_path / "archive.sha256")
    with subprocess.Popen(command("fetch_archive", "--source", source, *files), cwd=ROOT, env=environment()) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not any(p.stat().st_size > 200_000 for p in tmp_path.glob(".*.part")):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "archive.zip").exists()
    (partial,) = tmp_path.glob(".*.part")
    have = partial.stat().st_size
    assert have > 200_000
    resource.bytes_per_second = None
    assert fetch(source, tmp_path).returncode == 0
    assert server.requests[-1].range == f"bytes={have}-" and server.requests[-1].status == 206
    assert (tmp_path / "archive.zip").read_bytes() == content
    assert names(tmp_path) == ["archive.sha256", "archive.zip", "fetch.log"]


@pytest.mark.long
def test_mirrors_are_tried_in_order(server: HttpServer, tmp_path: Path) -> None:
    content = photos(["a", "b"])
    server.serve("wrong.zip", photos(["x", "y"]))
    server.serve("right.zip", content)
    expected = hashlib.sha256(content).hexdigest()
    mirrors = f'["{server.url("wrong.zip")}", "{server.url("right.zip")}"]'
    result = fetch(f'{{"url": "{server.url("gone.zip")}", "mirrors": {mirrors}, "sha256": "{expected}"}}', tmp_path)
    assert result.returncode == 0
    gone, wrong, *_ = result.stderr.splitlines()
    assert "gone.zip: the server answered 404" in gone and "wrong.zip: wrong sha256" in wrong
    assert (tmp_path / "archive.zip").read_bytes() == content


@pytest.mark.long
def test_an_unreachable_host_is_one_line(tmp_path: Path) -> None:
    result = fetch(f'{{"url": "{refused_url("mine.zip")}"}}', tmp_path)
    is_one_error(result, "mine.zip", "Connection refused", "proxy")
    assert names(tmp_path) == ["fetch.log", "fetch.outcome.json"]


@pytest.mark.long
def test_wrong_bytes_are_one_line_and_leave_nothing(server: HttpServer, tmp_path: Path) -> None:
    content = photos(["a", "b"])
    server.serve("a.zip", content)
    result = fetch(f'{{"url": "{server.url("a.zip")}", "sha256": "{"0" * 64}"}}', tmp_path)
    is_one_error(result, "0" * 64, hashlib.sha256(content).hexdigest(), "dataset.source.sha256")
    assert len(result.stderr.splitlines()) == 1
    assert names(tmp_path) == ["fetch.log", "fetch.outcome.json"]


@pytest.mark.long
@pytest.mark.parametrize("damage", ["truncated", "text"])
def test_a_truncated_or_foreign_archive_is_one_line(tmp_path: Path, damage: str) -> None:
    content = photos(["a", "b"])
    archive = tmp_path / "archive.zip"
    archive.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"no archive at all")
    is_one_error(unpack(archive, tmp_path), str(archive), "truncated" if damage == "truncated" else "not a zip or tar")
    assert names(tmp_path) == ["archive.zip"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a/1.jpg": b"1", "a/2.jpg": b"2", "a/3.jpg": b"3"}, ("only 'a' was found", "at least 2")),
        ({"b/1.jpg": b"1"} | {f"a/{n}.jpg": b"a%d" % n for n in range(9)}, ("'b' has 1", "at least 3")),
        (
            {f"{name}/1.jpg": b"" for name in ("train/a", "train/b", "val/a", "val/c")},
            ("train lacks 'c'", "val lacks 'b'"),
        ),
    ],
)
def test_data_that_cannot_be_split_is_one_line(tmp_path: Path, files: dict[str, bytes], words: tuple[str, ...]) -> None:
    (tmp_path / "archive.zip").write_bytes(zip_bytes(files))
    assert unpack(tmp_path / "archive.zip", tmp_path).returncode == 0
    is_one_error(split(tmp_path), *words)
    assert names(tmp_path) == ["archive.zip", "images"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.long
@pytest.mark.parametrize("declare_length", [True, False])
def test_a_full_disk_stops_a_fetch_in_one_line(
    server: HttpServer, small_disk: Path, tmp_path: Path, declare_length: bool
) -> None:
    server.serve("a.zip", photos(["a", "b"], each=10, size=100_000), declare_length=declare_length)
    result = fetch(f'{{"url": "{server.url("a.zip")}"}}', small_disk, log=tmp_path / "fetch.log")
    is_one_error(result, "no space left" if declare_length else "full", "free some")
    assert not (small_disk / "archive.zip").exists() and not (small_disk / "archive.sha256").exists()
    assert len(server.requests) == 1  # not tried again


@pytest.mark.long
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_full_disk_stops_a_copy_in_one_line(small_disk: Path, tmp_path: Path, kind: str) -> None:
    source = tmp_path / "given"
    source.mkdir()
    (source / "a.zip").write_bytes(photos(["a", "b"], each=10, size=100_000))
    result = fetch(f'{{"path": "{source / "a.zip" if kind == "file" else source}"}}', small_disk)
    is_one_error(result, "no space left", "free some")
    assert names(small_disk) == ["fetch.log", "fetch.outcome.json"]


@pytest.mark.long
def test_a_full_disk_stops_unpacking_in_one_line(small_disk: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive.zip"
    archive.write_bytes(photos(["a", "b"], each=10, size=100_000))
    is_one_error(unpack(archive, small_disk), "no space left", "free some")
    archive.write_bytes(photos(["a", "b"], each=200, size=100))  # fits by its bytes, not by its files
    is_one_error(unpack(archive, small_disk), "no space left", "free some")
    assert names(small_disk) == []


@pytest.mark.long
def test_a_full_disk_stops_a_split_in_one_line(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "archive.zip").write_bytes(photos(["a", "b"]))
    assert unpack(tmp_path / "archive.zip", tmp_path).returncode == 0
    (small_disk / "filler").write_bytes(bytes(1024 * 1024))
    outputs = ("--output", small_disk / "splits", "--class-list", small_disk / "classes.txt")
    is_one_error(run("split_dataset", "--images", tmp_path / "images", *outputs), "no space left")
    assert names(small_disk) == ["filler"]


@pytest.mark.long
@pytest.mark.parametrize("script", ["fetch_archive", "unpack_archive", "split_dataset"])
def test_every_option_has_help(script: str) -> None:
    result = run(script, "--help")
    assert result.returncode == 0
    assert "--log FILE" in result.stdout
