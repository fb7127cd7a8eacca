"""The downloader against a real server that misbehaves."""

from __future__ import annotations

import email.utils
import hashlib
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_server import HttpServer, refused_url
from small_disk import small_disk

from scripts.lib.base import download as module
from scripts.lib.base import http_request
from scripts.lib.base.download import download, part_path, shown
from scripts.lib.base.problems import UserError

CONTENT = bytes(range(256)) * 1200  # 307,200 bytes: several chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with HttpServer() as running:
        yield running


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    here, sleep = threading.current_thread(), time.sleep

    def wait(seconds: float) -> None:  # threads that other tests left behind sleep on
        waits.append(seconds) if threading.current_thread() is here else sleep(seconds)

    monkeypatch.setattr(module.time, "sleep", wait)
    # The machine's own proxy settings have no say over 127.0.0.1.
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return waits


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_and_verified(server: HttpServer, tmp_path: Path) -> None:
    server.serve("a.zip", CONTENT)
    result = download([server.url("a.zip")], tmp_path / "new" / "a.zip", sha256=SHA256, size=len(CONTENT))
    assert (tmp_path / "new" / "a.zip").read_bytes() == CONTENT
    assert (result.sha256, result.size, result.url) == (SHA256, len(CONTENT), server.url("a.zip"))
    assert leftovers(tmp_path / "new") == ["a.zip"]


@pytest.mark.parametrize("reset", [False, True])
def test_a_broken_connection_is_resumed_where_it_broke(server: HttpServer, tmp_path: Path, reset: bool) -> None:
    server.serve("a.zip", CONTENT, break_after=100_000, breaks=2, reset=reset)
    download([server.url("a.zip")], tmp_path / "a.zip", sha256=SHA256)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    asked = server.asked("a.zip")
    assert asked[0].status == 200
    assert {request.status for request in asked[1:]} == {206}
    assert asked[1].range is not None


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(server: HttpServer, tmp_path: Path) -> None:
    resource = server.serve("a.zip", CONTENT, break_after=20_000)
    with pytest.raises(UserError, match="the connection broke"):
        download([server.url("a.zip")], tmp_path / "a.zip")
    have = part_path(tmp_path / "a.zip", server.url("a.zip")).stat().st_size
    assert have > 0
    assert not (tmp_path / "a.zip").exists()
    resource.break_after = None
    server.requests.clear()
    download([server.url("a.zip")], tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert server.asked("a.zip")[0].range == f"bytes={have}-"


@pytest.mark.parametrize("validators", [True, False])
def test_a_file_that_changed_meanwhile_is_fetched_from_the_start(
    server: HttpServer, tmp_path: Path, validators: bool
) -> None:
    server.serve("a.zip", CONTENT, break_after=50_000, validators=validators)
    with pytest.raises(UserError):
        download([server.url("a.zip")], tmp_path / "a.zip")
    changed = CONTENT[::-1] + b"longer"
    server.serve("a.zip", changed, validators=validators)
    server.requests.clear()
    download([server.url("a.zip")], tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == changed
    assert len(server.requests) == (1 if validators else 2)  # If-Range saves a request


def test_a_rest_that_begins_elsewhere_is_not_appended(server: HttpServer, tmp_path: Path) -> None:
    server.serve("a.zip", CONTENT, break_after=100_000, breaks=1, range_shift=500)
    download([server.url("a.zip")], tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_server_that_ignores_range_still_gives_the_whole_file(
    server: HttpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.serve("a.zip", CONTENT, break_after=100_000, breaks=1, ranges=False)
    download([server.url("a.zip")], tmp_path / "a.zip", sha256=SHA256)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert "cannot resume" in caplog.text


def test_a_server_that_only_breaks_is_given_up_after_a_few_growing_waits(
    server: HttpServer, tmp_path: Path, no_waiting: list[float]
) -> None:
    server.serve("a.zip", CONTENT, break_after=0)
    with pytest.raises(UserError, match="4 attempts"):
        download([server.url("a.zip")], tmp_path / "a.zip")
    assert len(server.asked("a.zip")) == module.ATTEMPTS
    assert no_waiting == [1.0, 2.0, 4.0]


def test_progress_starts_the_count_of_attempts_again(
    server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROGRESS_BYTES", 10_000)
    server.serve("a.zip", CONTENT, break_after=40_000)  # 8 answers are needed, more than ATTEMPTS
    monkeypatch.setattr(module, "CHUNK", 4096)
    download([server.url("a.zip")], tmp_path / "a.zip", sha256=SHA256)
    assert len(server.asked("a.zip")) > module.ATTEMPTS


def test_a_busy_server_is_asked_again(server: HttpServer, tmp_path: Path, no_waiting: list[float]) -> None:
    server.serve("a.zip", CONTENT, status=503, failures=2, retry_after="7")
    download([server.url("a.zip")], tmp_path / "a.zip")
    assert [request.status for request in server.asked("a.zip")] == [503, 503, 200]
    assert no_waiting == [7.0, 7.0]


def test_a_missing_file_is_not_asked_for_again(server: HttpServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="404"):
        download([server.url("a.zip")], tmp_path / "a.zip")
    assert len(server.asked("a.zip")) == 1


def test_mirrors_are_tried_in_order_and_each_failure_is_one_line(
    server: HttpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.serve("good.zip", CONTENT)
    server.serve("wrong.zip", b"something else")
    urls = [server.url("gone.zip"), server.url("wrong.zip"), server.url("good.zip"), server.url("never.zip")]
    result = download(urls, tmp_path / "a.zip", sha256=SHA256)
    assert result.url == server.url("good.zip")
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(lines) == 2
    assert "gone.zip" in lines[0] and "404" in lines[0]
    assert "wrong.zip" in lines[1] and "wrong sha256" in lines[1]
    assert not server.asked("never.zip")
    assert leftovers(tmp_path) == ["a.zip"]


def test_of_many_addresses_the_last_line_is_short_and_the_log_has_each(
    server: HttpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.serve("wrong.zip", b"something else")
    mirrors = [server.url(f"{'a-long-folder/' * 30}{number}.zip") for number in range(5)]
    for urls, beginning, remedy in (
        (
            [server.url("gone.zip"), *mirrors],
            r"404 [^;]*; nor from 5 mirrors, for the reasons above",
            "check the a",
        ),
        ([mirrors[0]], "404", "check the address, or add another one to mirrors"),
        ([refused_url(), server.url("gone.zip")], "Connection refused", module.NO_ANSWER),
        ([server.url("wrong.zip")], "wrong sha256", "if the file was changed on purpose"),
    ):
        with pytest.raises(UserError, match=rf"could not fetch a\.zip from http://.*: .*{beginning}") as caught:
            download(urls, tmp_path / "a.zip", sha256=SHA256)
        assert len(str(caught.value)) < 450 and caught.value.remedy.startswith(remedy)
    assert all(mirror in caplog.text for mirror in mirrors)


def test_a_wrong_hash_leaves_nothing_and_names_both(server: HttpServer, tmp_path: Path) -> None:
    server.serve("a.zip", CONTENT)
    with pytest.raises(UserError) as caught:
        download([server.url("a.zip")], tmp_path / "a.zip", sha256="0" * 64)
    assert "0" * 64 in str(caught.value) and SHA256 in str(caught.value)
    assert leftovers(tmp_path) == []


def test_a_wrong_size_leaves_nothing(server: HttpServer, tmp_path: Path) -> None:
    server.serve("a.zip", CONTENT)
    with pytest.raises(UserError, match=f"expected 5 bytes, the server has {len(CONTENT)}"):
        download([server.url("a.zip")], tmp_path / "a.zip", size=5)
    server.serve("b.zip", CONTENT, declare_length=False)
    with pytest.raises(UserError, match="expected 5 bytes, the server sends more"):
        download([server.url("b.zip")], tmp_path / "b.zip", size=5)
    assert leftovers(tmp_path) == []


def test_a_server_that_promises_too_much_fails_in_the_end(server: HttpServer, tmp_path: Path) -> None:
    server.serve("a.zip", CONTENT, length_lie=1000)
    with pytest.raises(UserError, match=r"a\.zip"):
        download([server.url("a.zip")], tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()
    assert len(server.asked("a.zip")) <= 2 * module.ATTEMPTS


def test_no_declared_length_is_fine(server: HttpServer, tmp_path: Path) -> None:
    server.serve("a.zip", CONTENT, declare_length=False)
    download([server.url("a.zip")], tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_the_bytes_are_kept_as_the_server_has_them(server: HttpServer, tmp_path: Path) -> None:
    server.serve("a.tar.gz", CONTENT, headers={"Content-Encoding": "gzip"})
    download([server.url("a.tar.gz")], tmp_path / "a.tar.gz", sha256=SHA256)
    assert (tmp_path / "a.tar.gz").read_bytes() == CONTENT


def test_a_whole_partial_file_is_not_fetched_twice(server: HttpServer, tmp_path: Path) -> None:
    resource = server.serve("a.zip", CONTENT, break_after=20_000)
    with pytest.raises(UserError):
        download([server.url("a.zip")], tmp_path / "a.zip")
    part_path(tmp_path / "a.zip", server.url("a.zip")).write_bytes(CONTENT)  # killed just before the rename
    resource.break_after = None
    server.requests.clear()
    download([server.url("a.zip")], tmp_path / "a.zip")
    assert [request.status for request in server.requests] == [416]
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_no_partial_file_of_any_address_stays(server: HttpServer, tmp_path: Path) -> None:
    server.serve("old.zip", CONTENT, break_after=20_000)
    with pytest.raises(UserError):
        download([server.url("old.zip")], tmp_path / "a.zip")
    assert len(leftovers(tmp_path)) == 2
    server.serve("new.zip", CONTENT)
    download([server.url("new.zip")], tmp_path / "a.zip")
    assert leftovers(tmp_path) == ["a.zip"]


def test_an_unreachable_host_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Connection refused") as caught:
        download([refused_url()], tmp_path / "a.zip")
    assert "0x" not in str(caught.value)
    with pytest.raises(UserError, match=r"nowhere\.invalid"):
        download(["http://nowhere.invalid/a.zip"], tmp_path / "a.zip")


def test_a_proxy_of_the_environment_is_used(
    server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.port}")
    server.serve("a.zip", CONTENT)
    download(["http://archive.invalid/a.zip"], tmp_path / "a.zip")  # only the proxy can answer for this name
    assert (tmp_path / "a.zip").read_bytes() == CONTENT


def test_a_hash_prefix_is_enough_but_not_a_short_one(server: HttpServer, tmp_path: Path) -> None:
    server.serve("a.pth", CONTENT)
    download([server.url("a.pth")], tmp_path / "a.pth", sha256=SHA256[:8].upper())
    with pytest.raises(UserError, match="hexadecimal"):
        download([server.url("a.pth")], tmp_path / "b.pth", sha256=SHA256[:4])


@pytest.mark.parametrize("url", ["ftp://host/a.zip", "file:///etc/passwd", "a.zip", "http://"])
def test_only_http_addresses_are_fetched(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="http"):
        download([url], tmp_path / "a.zip")


def test_a_disk_too_small_is_said_before_the_transfer(
    server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("usage", (), {"free": 1000})())
    server.serve("a.zip", CONTENT)
    with pytest.raises(UserError, match="no space left"):
        download([server.url("a.zip")], tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_passwords_and_signatures_are_not_shown(tmp_path: Path) -> None:
    assert shown("https://me:secret@host:81/a/b.zip?token=t#f") == "https://host:81/a/b.zip"


def test_progress_without_a_terminal_is_a_line_now_and_then(
    server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(module, "PROGRESS_SECONDS", 0.0)
    server.serve("a.zip", CONTENT)
    download([server.url("a.zip")], tmp_path / "a.zip")
    assert "of 0.3 MB (100 %)" in caplog.text


def answer(*headers: str, status: str = "200 OK", body: bytes = CONTENT) -> bytes:
    """Return an answer as it goes over the line."""
    lines = [f"HTTP/1.1 {status}", *headers, "Connection: close", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


#: What a server may send, and what is said of it.
FAULTS = {
    "superscript length": (answer("Content-Length: \xb2"), "Content-Length is not a size"),
    "negative length": (answer("Content-Length: -5"), "Content-Length is not a size: '-5'"),
    "signed length": (answer("Content-Length: +5"), "Content-Length is not a size"),
    "length of underscores": (answer("Content-Length: 1_0"), "Content-Length is not a size"),
    "length in words": (answer("Content-Length: many\x1b[2J"), "Content-Length is not a size"),
    "length of 5000 digits": (answer("Content-Length: " + "9" * 5000), "Content-Length"),
    "two lengths": (answer("Content-Length: 5", "Content-Length: 6"), "Content-Length"),
    "two lengths in one": (answer("Content-Length: 5, 6"), "Content-Length"),
    "length of 1e20": (answer("Content-Length: 100000000000000000000"), "no space left"),
    "location without its bracket": (answer("Location: http://[::1", status="302 Found"), "leads to no address"),
    "location with a wrong port": (answer("Location: http://127.0.0.1:99999/", status="301 Moved"), "address"),
    "location with words as port": (answer("Location: http://127.0.0.1:x/", status="301 Moved"), "address"),
    "location that is no text": (answer("Location: http://\xff\xfe/", status="302 Found"), "address"),
    "location that is too long": (answer(f"Location: http://{'a' * 70}.b/", status="302 Found"), ""),
    "location on the disk": (answer("Location: file:///etc/passwd", status="302 Found"), "not an address"),
    "location by ftp": (answer("Location: ftp://127.0.0.1/a.zip", status="307 Temporary"), "not an address"),
    "location without host": (answer("Location: http:///a.zip", status="302 Found"), "404 Not Found"),
    "location that is itself": (answer("Location: /bad.zip", status="302 Found"), "too many redirects"),
    "escape codes in the status": (answer(status="404 \x1b[31m\x9b2J\x07red"), "404 ?[31m?2J?red"),
    "endless status": (answer(status="404 " + "x" * 9000), "404 xxx"),
    "no http": (b"\x1b[31mSSH-2.0-OpenSSH_9.2\r\n\r\n", "does not answer by http: ?[31mSSH-2.0"),
    "http 0.9": (b"<html>hello</html>", "does not answer by http"),
    "a status in words": (answer(status="OK"), "does not answer by http: HTTP/1.1 OK"),
    "http 2": (b"HTTP/2 200 OK\r\n\r\n", "does not answer by http"),
    "a header of 70 kB": (answer("X: " + "a" * 70_000), "does not answer by http"),
    "nothing": (b"", "no connection"),
    "range without being asked": (answer("Content-Range: bytes 0-4/5", status="206 Partial"), "does not fit"),
    "chunks that break off": (answer("Transfer-Encoding: chunked", body=b"5\r\nabcde\r\n"), "the connection broke"),
    "chunks of no size": (answer("Transfer-Encoding: chunked", body=b"\xb2\r\nabcde\r\n"), "the connection broke"),
    "chunks of less than nothing": (
        answer("Transfer-Encoding: chunked", body=b"-5\r\nabcde\r\n"),
        "contradicts itself",
    ),
    "chunks without end": (
        answer("Transfer-Encoding: chunked", body=b"ffffffffffffffffffff\r\nabc"),
        "the connection broke",
    ),
    "an empty body": (answer(body=b""), "the server sent nothing"),
    "packed": (answer("Content-Encoding: gzip", body=b"\x1f\x8bxxx"), "though it was asked not to"),
    "too many headers": (answer(*[f"X-{i}: 1" for i in range(200)]), "does not answer by http"),
    "location in a script": (answer("Location: javascript:alert(1)", status="302 Found"), "not an address"),
    "location with a null": (answer("Location: http://127.0.0.1:1/\x00", status="302 Found"), "Connection refused"),
    "continue without end": (b"HTTP/1.1 100 Continue\r\n\r\n" * 3000, "no connection"),
    "not modified": (answer(status="304 Not Modified"), "304 Not Modified"),
    "a page": (answer(body=b"<html>\x1b[31m</html>"), "wrong sha256"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_answers_nonsense_is_one_line_and_the_next_mirror_is_tried(
    server: HttpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    raw, words = FAULTS[fault]
    server.serve("bad.zip", b"", raw=raw)
    server.serve("good.zip", CONTENT)
    result = download([server.url("bad.zip"), server.url("good.zip")], tmp_path / "a.zip", sha256=SHA256)
    assert result.url == server.url("good.zip")
    lines = [record.getMessage() for record in caplog.records if "trying again" not in record.getMessage()]
    assert len(lines) == 1 and lines[0].startswith(server.url("bad.zip")) and words in lines[0]
    assert lines[0].isprintable() and len(lines[0]) < 500
    assert leftovers(tmp_path) == ["a.zip"]
    with pytest.raises(UserError):
        download([server.url("bad.zip")], tmp_path / "b.zip", sha256=SHA256)
    assert not (tmp_path / "b.zip").exists()


@pytest.mark.parametrize(
    ("asked", "waits"),
    [
        ("\xb2", 1.0),
        ("-5", 1.0),
        ("9" * 5000, 60.0),
        ("1e9", 1.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 60.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 1.0),
        ("Sun, 99 Nov 99999999 08:49:37 GMT", 1.0),
        ("soon", 1.0),
        ("", 1.0),
    ],
)
def test_a_server_may_ask_to_wait_in_any_way(
    server: HttpServer, tmp_path: Path, no_waiting: list[float], asked: str, waits: float
) -> None:
    server.serve("a.zip", CONTENT, failures=1, retry_after=asked)
    download([server.url("a.zip")], tmp_path / "a.zip")
    assert no_waiting == [waits]


def test_a_date_in_retry_after_is_waited_for(server: HttpServer, tmp_path: Path, no_waiting: list[float]) -> None:
    server.serve("a.zip", CONTENT, failures=1, retry_after=email.utils.formatdate(time.time() + 20, usegmt=True))
    download([server.url("a.zip")], tmp_path / "a.zip")
    assert 15 < no_waiting[0] <= 20


def test_a_relative_redirect_is_followed_and_its_page_not_read(server: HttpServer, tmp_path: Path) -> None:
    server.serve("good.zip", CONTENT)
    page = server.serve("a.zip", b"", raw=answer("Location: good.zip", status="302 Found"), endless=10**12)
    begun = time.monotonic()
    download([server.url("a.zip")], tmp_path / "a.zip", sha256=SHA256)
    assert time.monotonic() - begun < 5
    assert page.content == b""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_request, "RATE_WINDOW", 0.2)


@pytest.mark.long
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("slow", ["header", "body", "chunks", "redirects", "nothing"])
def test_a_server_that_is_too_slow_is_given_up(
    server: HttpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture, slow: str
) -> None:
    raw = {"header": answer(), "chunks": answer("Transfer-Encoding: chunked", body=b"1\r\na\r\n" * 1000)}.get(slow)
    if slow == "redirects":
        raw = answer("Location: /slow.zip", status="302 Found", body=b"")
    silence = {"nothing": 30, "redirects": 0.15}.get(slow, 0)
    server.serve(
        "slow.zip", CONTENT, raw=raw, bytes_per_second=20 * 16 if slow != "redirects" else None, silence=silence
    )
    server.serve("good.zip", CONTENT)
    begun = time.monotonic()
    result = download([server.url("slow.zip"), server.url("good.zip")], tmp_path / "a.zip", sha256=SHA256)
    assert result.url == server.url("good.zip")
    assert "too slow" in caplog.text
    assert time.monotonic() - begun < 10
    assert leftovers(tmp_path) == ["a.zip"]


@pytest.mark.usefixtures("impatient")
def test_a_slow_line_is_no_reason_to_give_up(server: HttpServer, tmp_path: Path) -> None:
    server.serve("a.zip", CONTENT, bytes_per_second=300_000)
    before = signal.getitimer(signal.ITIMER_REAL)
    download([server.url("a.zip")], tmp_path / "a.zip", sha256=SHA256)
    assert len(server.asked("a.zip")) == 1
    assert abs(signal.getitimer(signal.ITIMER_REAL)[0] - before[0]) < 10  # another's alarm goes on


@pytest.mark.parametrize("body", ["closed", "chunked"])
def test_a_body_without_end_leaves_the_disk_as_it_was(server: HttpServer, tmp_path: Path, body: str) -> None:
    raw = answer() if body == "closed" else answer("Transfer-Encoding: chunked", body=b"ffffffff\r\na")
    server.serve("endless.zip", b"", raw=raw, endless=10**12)
    server.serve("good.zip", CONTENT)
    with small_disk(tmp_path / "small") as disk:
        urls = [server.url("endless.zip"), server.url("good.zip")]
        assert download(urls, disk / "a.zip", sha256=SHA256).url == urls[1]
        assert leftovers(disk) == ["a.zip"]
        with pytest.raises(UserError, match=r"without saying how many there are.*nearly full.*free some space"):
            download(urls[:1], disk / "b.zip")
        assert leftovers(disk) == ["a.zip"]


def test_a_body_longer_than_expected_is_broken_off(server: HttpServer, tmp_path: Path) -> None:
    server.serve("a.zip", b"", raw=answer(), endless=10**12)
    with pytest.raises(UserError, match=f"expected {len(CONTENT)} bytes, the server sends more"):
        download([server.url("a.zip")], tmp_path / "a.zip", size=len(CONTENT))
    assert leftovers(tmp_path) == []


def test_an_etag_that_cannot_be_sent_back_is_not_kept(server: HttpServer, tmp_path: Path) -> None:
    server.serve("a.zip", CONTENT, break_after=50_000, breaks=1, validators=False, headers={"ETag": '"\xe9\x1b[m"'})
    download([server.url("a.zip")], tmp_path / "a.zip", sha256=SHA256)
    assert [request.status for request in server.asked("a.zip")] == [200, 206]


def test_a_server_that_does_not_speak_tls_is_not_called_a_wrong_certificate(server: HttpServer, tmp_path: Path) -> None:
    server.serve("a.zip", CONTENT)
    urls = [server.url("a.zip").replace("http:", "https:"), server.url("a.zip")]
    assert download(urls, tmp_path / "a.zip").url == urls[1]
    with pytest.raises(UserError, match="no encrypted connection") as caught:
        download(urls[:1], tmp_path / "b.zip")
    assert "certificate" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"http_proxy": "not an address"}, r"no address: 'not an address': write it into http_proxy"),
        ({"http_proxy": "http://h:99999"}, "the proxy variables name no address"),
        ({"http_proxy": "http://me:secret@[::1"}, r"no address: 'http://\*\*\*@\[::1'"),
        ({"http_proxy": "ftp://h:1"}, "a proxy by ftp, not by http"),
        ({"all_proxy": "socks5://h:1"}, "a proxy by socks5, not by http"),
        ({"http_proxy": "\x1b[2J"}, "the proxy variables name no address"),
        ({"REQUESTS_CA_BUNDLE": "/nonexistent"}, r"\(/nonexistent\) has no certificates: No such file"),
        ({"CURL_CA_BUNDLE": "/etc/passwd"}, r"\(/etc/passwd\) has no certificates"),
    ],
)
def test_a_way_into_the_internet_that_is_none_is_told_from_a_wrong_address(
    server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], words: str
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    scheme = "https" if "CA_BUNDLE" in str(variables) else "http"
    with pytest.raises(module.NotFetched, match=words) as caught:
        download([f"{scheme}://archive.invalid/a.zip"], tmp_path / "a.zip")
    assert str(caught.value).isprintable() and "secret" not in str(caught.value)
    server.serve("a.zip", b"", redirect=f"{scheme}://archive.invalid/a.zip")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(module.NotFetched, match=words):
        download([server.url("a.zip")], tmp_path / "a.zip")


@pytest.mark.parametrize("url", ["http://[::1", "http://h:99999/a", "http://h:x/a", "https://"])
def test_an_address_that_cannot_be_read_is_one_line(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="url"):
        download([url], tmp_path / "a.zip")
    shown(url)


def test_no_text_of_others_steers_the_terminal(tmp_path: Path) -> None:
    program = (
        "import argparse, logging; from scripts.lib.base.console import run_cli\n"
        "def main(args):\n"
        "    logging.warning('a\\x1b[2Jb\\r\\x9bc')\n"
        "    raise ValueError('\\x1b]0;title\\x07 \\u202egnp.exe \\udcff')\n"
        f"run_cli(argparse.ArgumentParser, main, ['--log', {str(tmp_path / 'log')!r}])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "Traceback" not in result.stderr and (tmp_path / "log.outcome.json").exists()
    for text in (result.stderr, (tmp_path / "log").read_text()):
        assert "a?[2Jb??c" in text and "?]0;title" in text
        assert text.replace("\n", "").isprintable()


# --- a hub of models: it leads to another host, and says the sha256 on the way ----------------------------------------


@pytest.fixture
def storage() -> Iterator[HttpServer]:
    """The host that a hub leads to."""
    with HttpServer() as running:
        yield running


def hub_leads_to(server: HttpServer, storage: HttpServer, sha256: str = SHA256, **behaviour: object) -> str:
    """Have *server* lead to the file on *storage* as a hub does, over a relative redirect; return the address."""
    storage.serve("store/f00", CONTENT, **behaviour)
    headers = {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(len(CONTENT))}
    server.serve("old/model", b"", redirect="/new/model")
    server.serve("new/model", b"", redirect=storage.url("store/f00?signature=secret"), headers=headers)
    return server.url("old/model")


def test_the_hash_that_a_hub_announces_is_compared(server: HttpServer, storage: HttpServer, tmp_path: Path) -> None:
    download([hub_leads_to(server, storage)], tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT
    with pytest.raises(UserError, match=r"wrong sha256: expected 0000.*announced") as caught:
        download([hub_leads_to(server, storage, sha256="0" * 64)], tmp_path / "b")
    assert "signature" not in str(caught.value) and leftovers(tmp_path) == ["a"]


def test_a_file_of_a_hub_is_resumed_and_still_compared(server: HttpServer, storage: HttpServer, tmp_path: Path) -> None:
    url = hub_leads_to(server, storage, break_after=100_000, breaks=1)
    download([url], tmp_path / "a")
    assert [request.range for request in storage.requests] == [None, "bytes=100000-"]
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_another_file_on_the_hub_is_not_joined_to_the_beginning_of_the_first(
    server: HttpServer, storage: HttpServer, tmp_path: Path
) -> None:
    url = hub_leads_to(server, storage, break_after=50_000, validators=False)
    with pytest.raises(UserError, match="attempts"):
        download([url], tmp_path / "a")
    storage.serve("store/f00", CONTENT[::-1], validators=False)
    server.resources["new/model"].headers["X-Linked-ETag"] = hashlib.sha256(CONTENT[::-1]).hexdigest()
    download([url], tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == CONTENT[::-1]


def test_a_token_goes_to_its_own_host_only(
    server: HttpServer, storage: HttpServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = hub_leads_to(server, storage)
    server.resources["new/model"].token = "hf_secret"
    download([url], tmp_path / "a", tokens={url: "hf_secret"})
    assert {request.authorization for request in server.requests} == {"Bearer hf_secret"}
    assert {request.authorization for request in storage.requests} == {None}
    assert "hf_secret" not in caplog.text


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("another", 403)])
def test_a_refusal_is_told_by_its_status_and_code(
    server: HttpServer, tmp_path: Path, token: str | None, status: int
) -> None:
    server.serve("a", CONTENT, token="right", headers={"X-Error-Code": "GatedRepo"})
    url = server.url("a")
    with pytest.raises(module.NotFetched, match=f"answered {status}") as caught:
        download([url], tmp_path / "a", tokens={url: token} if token else None)
    assert (caught.value.refusals[url].status, caught.value.refusals[url].code) == (status, "GatedRepo")
