"""The server of one person on a machine of many: who has not the token learns nothing, no file is served by name."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.lib.base import private_server
from scripts.lib.base.private_server import Answer, PrivateServer, open_server
from scripts.lib.base.problems import UserError

PORT = 8765


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PrivateServer]:
    """A server of a text, a file, and something that cannot be read."""
    (tmp_path / "file.html").write_text("a file")

    def answer(path: str) -> Answer | None:
        if path == "broken":
            raise UserError("results: cannot be read", "look there")
        kinds = {"": Answer(b"a text", "text/html", "default-src 'self'"),
                 "file.html": Answer(tmp_path / "file.html", "text/html")}  # fmt: skip
        return kinds.get(path)

    with open_server(PORT, answer) as opened:
        thread = threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield opened
        opened.shutdown()
        thread.join()


def ask(server: PrivateServer, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Send one request as it stands; return status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    return response.status, dict(response.getheaders()), response.read()


def cookie(server: PrivateServer) -> str:
    return f"other=1; mimflow={server.token}"


def test_the_printed_address_gives_a_cookie_of_a_folder_that_no_other_server_can_guess(server: PrivateServer) -> None:
    status, headers, _ = ask(server, server.url.partition(str(server.server_port))[2])
    assert (status, headers["Location"]) == (303, server.folder)
    assert headers["Set-Cookie"] == f"mimflow={server.token}; Path={server.folder}; HttpOnly; SameSite=Lax"
    assert server.token not in server.folder and len(server.token) >= 43
    assert ask(server, f"{server.folder}?x=1", Cookie=cookie(server))[::2] == (200, b"a text")


@pytest.mark.parametrize(
    "path",
    ["/", "/?token=", "/?token=x", "/?token={token}x", "/?token=%ff", "{folder}", "{folder}file.html", "/etc/passwd"],
)
@pytest.mark.parametrize("wrong", ["", "mimflow=", "mimflow=x", "mimflow={token}x", "other={token}"])
def test_without_the_token_each_answer_is_the_same_empty_one(server: PrivateServer, path: str, wrong: str) -> None:
    known = {"token": server.token, "folder": server.folder}
    nothing = ask(server, "/nothing/here")
    assert nothing[0] == 403 and nothing[2] == b""
    assert ask(server, path.format(**known), Cookie=wrong.format(**known)) == nothing
    assert not any("Python" in value or "HTTP" in value for value in nothing[1].values())


def test_the_cookie_alone_opens_nothing_outside_its_folder(server: PrivateServer) -> None:
    assert ask(server, "/", Cookie=cookie(server))[0] == 403
    assert ask(server, server.folder.rstrip("/"), Cookie=cookie(server))[0] == 403


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:8765", "localhost.evil.example", "", "0.0.0.0"]
)
def test_a_page_of_elsewhere_whose_name_leads_here_is_refused(server: PrivateServer, host: str) -> None:
    assert ask(server, server.folder, Host=host, Cookie=cookie(server))[::2] == (403, b"")
    assert ask(server, f"/?token={server.token}", Host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1:1234", "LOCALHOST", "[::1]:9000"])
def test_the_end_of_a_tunnel_has_any_port(server: PrivateServer, host: str) -> None:
    assert ask(server, server.folder, Host=host, Cookie=cookie(server))[0] == 200


ELSEWHERE = ["../", "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "..%2f", "//etc/passwd", "private_server.py"]
ELSEWHERE += ["file.html/..", "file.html%00", "\\..\\", "."]


@pytest.mark.parametrize("path", ELSEWHERE)
def test_there_is_no_way_to_other_files(server: PrivateServer, path: str) -> None:
    assert ask(server, server.folder + path, Cookie=cookie(server))[::2] == (404, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "nonsense"])
def test_only_get_and_head_are_answered(server: PrivateServer, method: str) -> None:
    status, headers, body = ask(server, server.folder, method, Cookie=cookie(server))
    assert (status, headers["Allow"], body) == (405, "GET, HEAD", b"")


@pytest.mark.parametrize("path", ["", "file.html"])
def test_head_says_what_get_sends(server: PrivateServer, path: str) -> None:
    _, of_get, body = ask(server, server.folder + path, Cookie=cookie(server))
    status, of_head, _ = ask(server, server.folder + path, "HEAD", Cookie=cookie(server))
    assert (status, of_head) == (200, of_get) and int(of_get["Content-Length"]) == len(body) > 0
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as connection:
        lines = [f"HEAD {server.folder}{path} HTTP/1.0", "Host: localhost", f"Cookie: {cookie(server)}", "", ""]
        connection.sendall("\r\n".join(lines).encode())
        assert b"".join(iter(lambda: connection.recv(4096), b"")).endswith(b"\r\n\r\n")


def test_a_page_is_kept_nowhere_and_may_be_framed_by_none(server: PrivateServer) -> None:
    _, headers, _ = ask(server, server.folder, Cookie=cookie(server))
    assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Content-Security-Policy"].startswith("default-src 'self'; ")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_what_cannot_be_read_is_said_in_one_line(server: PrivateServer) -> None:
    status, headers, body = ask(server, f"{server.folder}broken", Cookie=cookie(server))
    assert (status, body) == (500, b"error: results: cannot be read: look there\n")
    assert headers["Content-Type"].startswith("text/plain")


def test_only_this_machine_reaches_it(server: PrivateServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", server.server_port), timeout=5)


def test_a_port_that_is_taken_gives_the_next_free_one(server: PrivateServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_server(server.server_port, lambda path: None) as second:
        assert second.server_port > server.server_port and second.token != server.token
    monkeypatch.setattr(private_server, "TRIED", 1)
    with pytest.raises(UserError, match=f"the ports {server.server_port} to {server.server_port} .*: choose another"):
        open_server(server.server_port, lambda path: None)
