"""A web server for one person on a machine of many: on the loopback address, and for who knows its token.

Everybody who is logged in here reaches the port, so each answer needs a secret. The address that is printed holds it
once, as ``?token=``; from then on it is a cookie, since an address is seen over a shoulder and stays in the history
(and a fragment would need a page for everybody, which reads it). Browsers send a cookie to every port of a host, thus
to the servers of others; so it is of one folder, whose name is the token's hash and which no other server can guess.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import re
import secrets
import shutil
import socketserver
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from scripts.lib.base.console import describe_os_error, one_line
from scripts.lib.base.problems import UserError

logger = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
#: What a browser on this machine, or behind a tunnel to it, calls the server; its port may be another one. A page of
#: elsewhere whose name leads here (DNS rebinding) is refused.
HOST = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.ASCII | re.IGNORECASE)
#: Ports that are tried, from the one that is asked for.
TRIED = 50
COOKIE = "mimflow"


@dataclass(frozen=True)
class Answer:
    """What is sent: bytes or a file, their media type, and the policy of a page (Content-Security-Policy)."""

    body: bytes | Path
    kind: str
    policy: str = "default-src 'none'"


#: Returns what stands at a path below the server's folder; None where nothing does.
Respond = Callable[[str], Answer | None]


class PrivateServer(ThreadingHTTPServer):
    """Serves what *respond* returns on a port of the loopback address.

    Attributes
    ----------
    token : the secret, 256 bits, of this start only: a page that is still open after it sends its cookie to whoever
        listens on the port then.
    folder : the path, with a slash at each end, below which it serves.

    Raises
    ------
    OSError : the port is taken, or not to be had.
    """

    def __init__(self, port: int, respond: Respond) -> None:
        self.respond = respond
        self.token = secrets.token_urlsafe(32)
        self.folder = f"/{hashlib.sha256(self.token.encode()).hexdigest()[:32]}/"
        super().__init__((ADDRESS, port), _Handler)

    @property
    def url(self) -> str:
        """Return the address to open, with the token."""
        return f"http://{ADDRESS}:{self.server_port}/?token={self.token}"

    def server_bind(self) -> None:
        """Bind without asking a name server, as HTTPServer does, which may take a minute without a network."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in a line what went wrong with an answer; a browser that went away is no error."""
        error = sys.exc_info()[1]
        if not isinstance(error, ConnectionError | TimeoutError):
            logger.error("error: an answer was not sent: %s: %s", type(error).__name__, one_line(error))
            logger.debug("unexpected error", exc_info=True)


def open_server(port: int, respond: Respond) -> PrivateServer:
    """Return a server on *port*, or on the next one that is free.

    Raises
    ------
    UserError : none of the next 50 is free.
    """
    last = min(port + TRIED, 1 << 16) - 1
    for candidate in range(port, last + 1):
        try:
            return PrivateServer(candidate, respond)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
    raise UserError(f"the ports {port} to {last} of {ADDRESS} are all taken", "choose another: PORT=9000")


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD. Who is not allowed in learns nothing, not even what is there."""

    server: PrivateServer
    timeout = 10  # seconds for a request: who only connects holds a thread no longer

    def do_GET(self) -> None:
        """Let in, answer or refuse."""
        path, _, query = self.path.partition("?")
        if not self._is_addressed():
            self.send_error(403)
        elif path == "/" and self._is_token(dict(parse_qsl(query)).get("token", "")):
            # Lax: a link in another page, such as a terminal in a browser, still opens it.
            cookie = f"{COOKIE}={self.server.token}; Path={self.server.folder}; HttpOnly; SameSite=Lax"
            self._send(303, {"Location": self.server.folder, "Set-Cookie": cookie})
        elif not (path.startswith(self.server.folder) and self._has_cookie()):
            self.send_error(403)
        else:
            self._answer(path.removeprefix(self.server.folder))

    do_HEAD = do_GET

    def _is_addressed(self) -> bool:
        hosts = self.headers.get_all("Host", [])
        return len(hosts) == 1 and HOST.fullmatch(hosts[0].strip()) is not None

    def _is_token(self, text: str) -> bool:
        return secrets.compare_digest(text.encode(), self.server.token.encode())

    def _has_cookie(self) -> bool:
        pairs = [pair.strip().partition("=") for pair in self.headers.get("Cookie", "").split(";")]
        return any(name == COOKIE and self._is_token(value) for name, _, value in pairs)

    def _answer(self, path: str) -> None:
        try:
            answer = self.server.respond(path)
        except (UserError, OSError) as error:
            line = one_line(error if isinstance(error, UserError) else describe_os_error(error))
            answer, status = Answer(f"error: {line}\n".encode(), "text/plain"), 500
        else:
            status = 200
        if answer is None:
            self.send_error(404)
        elif isinstance(answer.body, bytes):
            self._send(status, self._headers_of(answer, len(answer.body)), answer.body)
        else:
            with open(answer.body, "rb") as file:
                size = file.seek(0, 2)
                file.seek(0)
                self._send(status, self._headers_of(answer, size))
                if self.command != "HEAD":
                    shutil.copyfileobj(file, self.wfile)

    def _headers_of(self, answer: Answer, size: int) -> dict[str, str]:
        # frame-ancestors counts only here, not in a page.
        policy = f"{answer.policy}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        kind = f"{answer.kind}; charset=utf-8"
        return {"Content-Type": kind, "Content-Length": str(size), "Content-Security-Policy": policy}

    def _send(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response_only(status)  # without the versions of server and Python
        fixed = {
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Connection": "close",
        }
        for name, value in (fixed | {"Content-Length": str(len(body))} | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send a status and no more; of a method that is not known http.server would name it."""
        self._send(405 if code == 501 else code, {"Allow": "GET, HEAD"} if code == 501 else {})

    def log_message(self, format: str, *args: Any) -> None:
        """Write no log: the first address holds the token."""
