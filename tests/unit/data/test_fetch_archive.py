"""Where archives come from, and what is recorded of them."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_server import HttpServer

from scripts.data.fetch_archive import fetch, name_of, parse_source
from scripts.lib.base import download
from scripts.lib.base.problems import UserError
from scripts.lib.data.archives import HashRecord, format_record, read_record
from scripts.lib.settings.dataset import Sample, Source


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download.time, "sleep", lambda _: None)
    with HttpServer() as running:
        yield running


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "given" / "mine.zip"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("cat/1.jpg", b"1")
        zipped.writestr("dog/2.jpg", b"2")
    return path


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def get(source: Source | Path, folder: Path) -> Path:
    output = folder / "d" / "archive.zip"
    fetch(source, output, folder / "d" / "archive.sha256")
    return output


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_the_first_fetch_records_the_hash_so_that_sha256sum_checks_it(
    server: HttpServer, archive: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    server.serve("a.zip", archive.read_bytes())
    output = get(Source(url=server.url("a.zip")), tmp_path)
    assert "enforced from now on" in caplog.text
    assert (tmp_path / "d" / "archive.sha256").read_text().startswith(f"{sha256(output.read_bytes())}  archive.zip\n")
    checked = subprocess.run(["sha256sum", "-c", "archive.sha256"], cwd=tmp_path / "d", capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "archive.zip: OK\n")
    assert names(tmp_path / "d") == ["archive.sha256", "archive.zip"]


def test_a_recorded_hash_is_enforced_at_the_next_fetch(server: HttpServer, archive: Path, tmp_path: Path) -> None:
    server.serve("a.zip", archive.read_bytes())
    output = get(Source(url=server.url("a.zip")), tmp_path)
    output.unlink()
    server.serve("a.zip", archive.read_bytes() + b"changed")
    with pytest.raises(UserError, match="not the file of the first fetch") as caught:
        get(Source(url=server.url("a.zip")), tmp_path)
    assert "delete" in str(caught.value) and "archive.sha256" in str(caught.value)
    assert names(tmp_path / "d") == ["archive.sha256"]


def test_another_url_is_recorded_anew_and_said_so(
    server: HttpServer, archive: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    server.serve("a.zip", archive.read_bytes())
    server.serve("b.zip", archive.read_bytes() + b"more")
    get(Source(url=server.url("a.zip")), tmp_path)
    get(Source(url=server.url("b.zip?id=1")), tmp_path)
    assert "belongs to another source" in caplog.text
    record = read_record(tmp_path / "d" / "archive.sha256")
    assert record and record.sha256 == sha256(archive.read_bytes() + b"more")
    caplog.clear()
    get(Source(url=server.url("b.zip?id=2")), tmp_path)
    assert "belongs to another source" in caplog.text


def test_a_given_hash_is_enforced(server: HttpServer, archive: Path, tmp_path: Path) -> None:
    server.serve("a.zip", archive.read_bytes())
    get(Source(url=server.url("a.zip"), sha256=sha256(archive.read_bytes())), tmp_path)
    wrong = sha256(b"another")
    with pytest.raises(UserError, match=wrong) as caught:
        get(Source(url=server.url("a.zip"), sha256=wrong), tmp_path / "other")
    assert sha256(archive.read_bytes()) in str(caught.value) and "dataset.source.sha256" in str(caught.value)
    assert names(tmp_path / "other" / "d") == []


def test_an_archive_that_is_there_is_not_fetched_again(server: HttpServer, archive: Path, tmp_path: Path) -> None:
    server.serve("a.zip", archive.read_bytes())
    for _ in range(2):
        get(Source(url=server.url("a.zip")), tmp_path)
    assert len(server.requests) == 1


def test_mirrors_help_out(server: HttpServer, archive: Path, tmp_path: Path) -> None:
    server.serve("b.zip", archive.read_bytes())
    source = Source(url=server.url("a.zip"), mirrors=[server.url("b.zip")])
    assert get(source, tmp_path).read_bytes() == archive.read_bytes()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\nPK", "Content-Length is not a size"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n", "leads to no address"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"<html>" * 99, mtime=0),
            "Content-Encoding gzip",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>\x1b[31m</html>", "a web page"),
        (b"HTTP/1.1 404 \x1b[31mgone\r\nContent-Length: 0\r\n\r\n", r"404 \?\[31mgone"),
    ],
)
def test_a_server_that_answers_nonsense_is_passed_over(
    server: HttpServer, archive: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, raw: bytes, words: str
) -> None:
    server.serve("a.zip", b"", raw=raw)
    server.serve("b.zip", archive.read_bytes())
    source = Source(url=server.url("a.zip"), mirrors=[server.url("b.zip")], sha256=sha256(archive.read_bytes()))
    assert get(source, tmp_path).read_bytes() == archive.read_bytes()
    assert re.search(words, caplog.text)
    assert names(tmp_path / "d") == ["archive.sha256", "archive.zip"]


def test_a_login_page_is_no_archive(server: HttpServer, tmp_path: Path) -> None:
    server.serve("a.zip", b"<html>Welcome to our guest network</html>")
    with pytest.raises(UserError, match="the server sent a web page"):
        get(Source(url=server.url("a.zip")), tmp_path)
    assert names(tmp_path / "d") == []


def test_a_local_archive_is_taken_over_untouched(
    archive: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    output = get(Source(path=str(archive)), tmp_path)
    assert output.read_bytes() == archive.read_bytes()
    assert not os.path.samefile(output, archive)
    before = output.read_bytes()
    with open(archive, "r+b") as file:  # as `cp new.zip mine.zip` does
        file.write(b"other images")
    assert output.read_bytes() == before
    assert "recorded" in caplog.text


def test_a_changed_local_archive_is_recorded_and_said(
    archive: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    before = sha256(archive.read_bytes())
    get(Source(path=str(archive)), tmp_path)
    archive.write_bytes(archive.read_bytes() + b"more")
    get(Source(path=str(archive)), tmp_path)
    assert f"changed since it was last read: its sha256 was {before}" in caplog.text
    record = read_record(tmp_path / "d" / "archive.sha256")
    assert record == HashRecord(sha256(archive.read_bytes()), str(archive))


def test_a_wrong_hash_of_a_local_archive_leaves_both_alone(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="wrong sha256"):
        get(Source(path=str(archive), sha256="0" * 64), tmp_path)
    assert archive.exists()
    assert names(tmp_path / "d") == []


def test_a_missing_path_and_a_non_archive_are_named(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file or folder '.*nowhere': check dataset\.source\.path"):
        get(parse_source(json.dumps({"path": str(tmp_path / "nowhere")})), tmp_path)
    archive.write_bytes(b"just text")
    with pytest.raises(UserError, match="not a zip or tar"):
        get(Source(path=str(archive)), tmp_path)
    assert names(tmp_path / "d") == []


def make_folder(folder: Path, order: list[str]) -> Path:
    for name in order:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


FILES = ["cat/1.jpg", "cat/b\n.jpg", "dog/西瓜.jpg", ".git/config", "dog/.DS_Store", "__MACOSX/x.jpg"]


def test_a_folder_becomes_the_same_tar_each_time(tmp_path: Path) -> None:
    first = get(Source(path=str(make_folder(tmp_path / "a", FILES))), tmp_path / "1")
    folder = make_folder(tmp_path / "b", FILES[::-1])
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    second = get(Source(path=str(folder)), tmp_path / "2")
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as tar:
        assert tar.getnames() == ["cat/1.jpg", "cat/b\n.jpg", "dog/西瓜.jpg"]
        assert {(m.mtime, m.uid, m.uname, m.mode) for m in tar.getmembers()} == {(0, 0, "", 0o644)}


def test_links_in_a_folder_are_followed_but_not_in_circles(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    folder = make_folder(tmp_path / "a", ["cat/1.jpg"])
    (folder / "dog").symlink_to(make_folder(tmp_path / "elsewhere", ["2.jpg"]))
    (folder / "cat" / "up").symlink_to(folder)
    (folder / "cat" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "cat" / "pipe.jpg")
    with tarfile.open(get(Source(path=str(folder)), tmp_path)) as tar:
        assert tar.getnames() == ["cat/1.jpg", "dog/2.jpg"]
        assert all(member.isreg() for member in tar.getmembers())
    for line in ("links to a folder above", "links to nothing", "pipes, sockets or devices"):
        assert f"left out 1 of {folder}: {line}" in caplog.text


def test_an_empty_folder_and_a_folder_around_the_results_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no files in"):
        get(Source(path=str(tmp_path / "empty")), tmp_path)
    with pytest.raises(UserError, match=r"holds .* itself"):
        get(Source(path=str(tmp_path)), tmp_path)
    assert names(tmp_path / "d") == []


def test_a_folder_in_place_becomes_the_same_manifest_wherever_it_lies(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    first = get(Source(path=str(make_folder(tmp_path / "a", FILES)), in_place=True), tmp_path / "1")
    assert "listed 3 files" in caplog.text and "left out 3 of" in caplog.text and "junk" in caplog.text
    folder = make_folder(tmp_path / "b", FILES[::-1])
    for path in folder.rglob("*"):
        os.utime(path, (1, 1))
    second = get(Source(path=str(folder), in_place=True), tmp_path / "2")
    assert first.read_bytes() == second.read_bytes()
    names = ["cat/1.jpg", "cat/b\n.jpg", "dog/西瓜.jpg"]
    lines = [json.dumps([sha256(name.encode()), len(name.encode()), name], ensure_ascii=False) for name in names]
    assert first.read_text(encoding="utf-8") == "\n".join(lines) + "\n"
    record = read_record(tmp_path / "1/d/archive.sha256")
    assert record == HashRecord(sha256(first.read_bytes()), f"{tmp_path / 'a'}, in place")


def test_a_folder_in_place_may_not_be_empty_nor_hold_the_results(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no files in"):
        get(Source(path=str(tmp_path / "empty"), in_place=True), tmp_path)
    with pytest.raises(UserError, match=r"holds .* itself"):
        get(Source(path=str(tmp_path), in_place=True), tmp_path)


def test_a_file_of_labels_is_copied_whatever_it_holds(tmp_path: Path) -> None:
    table = tmp_path / "my labels.csv"
    table.write_bytes(b"file,label\n")
    output = get(parse_source(json.dumps({"file": str(table)})), tmp_path)
    assert output.read_bytes() == table.read_bytes()
    assert not os.path.samefile(output, table)  # people edit tables; a link would change with them
    assert read_record(tmp_path / "d" / "archive.sha256") == HashRecord(sha256(b"file,label\n"), str(table))


def test_what_a_killed_copy_left_is_removed(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / ".archive.99999.tmp.zip").write_bytes(b"half a copy")
    get(Source(path=str(archive)), tmp_path)
    assert names(tmp_path / "d") == ["archive.sha256", "archive.zip"]


@pytest.mark.long
def test_the_sample_is_rendered(tmp_path: Path) -> None:
    output = get(Source(sample=Sample(images_per_class=4, size=32)), tmp_path)
    assert zipfile.ZipFile(output).namelist()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("{", "no JSON"),
        ("[]", "JSON object"),
        ("{}", "exactly one of url, path and sample .given: none"),
        ('{"url": "http://a/b", "path": "c"}', "given: url, path"),
        ('{"path": "c", "sha265": "d"}', "dataset.source.sha265: unknown key, did you mean sha256"),
        ('{"path": "c", "sha256": "d"}', "64 hexadecimal digits"),
    ],
)
def test_a_source_that_makes_no_sense_is_refused(text: str, match: str) -> None:
    with pytest.raises(UserError, match=match):
        parse_source(text)


def test_absent_keys_may_be_null() -> None:
    text = {"url": None, "mirrors": [], "path": "README.md", "sample": None, "sha256": "AB" * 32}
    assert parse_source(json.dumps(text)) == Source(path="README.md", sha256="ab" * 32)


def test_the_record_holds_no_secrets_and_survives_hostile_names(tmp_path: Path) -> None:
    source = Source(url="https://me:secret@host/a.zip?token=abc")
    assert name_of(source).startswith("https://host/a.zip (query ")
    record = HashRecord("0" * 64, "/data/a\nb.zip")
    (tmp_path / "r").write_text(format_record(record, "archive.zip"))
    assert read_record(tmp_path / "r") == HashRecord("0" * 64, "/data/a b.zip")
    (tmp_path / "r").write_text("something else")
    assert read_record(tmp_path / "r") is None
