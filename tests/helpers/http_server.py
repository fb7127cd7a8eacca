"""A real HTTP server on 127.0.0.1 for tests, which can misbehave in the ways that real ones do."""

from __future__ import annotations

import email.utils
import hashlib
import socket
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit


@dataclass
class Resource:
    """One file on the server, and what goes wrong with it. Counters run down as requests are answered."""

    content: bytes
    #: Break the connection after this many bytes of each body ...
    break_after: int | None = None
    #: ... for this many answers; then behave.
    breaks: int = 10**9
    #: Reset the connection (RST) instead of closing it in order.
    reset: bool = False
    #: Answer a Range request with 206 (False: ignore Range and send everything with 200).
    ranges: bool = True
    #: Answer a Range request from this many bytes further on, and say so: a server that is confused.
    range_shift: int = 0
    #: Send ETag and Last-Modified.
    validators: bool = True
    #: Send Content-Length (False: the body ends when the connection is closed).
    declare_length: bool = True
    #: Added to the Content-Length that is declared: a lie.
    length_lie: int = 0
    #: Answer with this status first, ``failures`` times.
    status: int = 503
    failures: int = 0
    #: Value of Retry-After on those answers.
    retry_after: str | None = None
    #: Send at most this many bytes a second.
    bytes_per_second: float | None = None
    #: Extra or replaced headers.
    headers: dict[str, str] = field(default_factory=dict)
    #: Lead to this address (302), with ``headers``; a path alone is one on this server.
    redirect: str | None = None
    #: Ask for this token (Authorization: Bearer): without it 401, with another one 403, with ``headers``.
    token: str | None = None
    #: Answer with exactly these bytes, header and body, whatever they are.
    raw: bytes | None = None
    #: Go on with the last byte of the body until the client goes away, or this many bytes were sent.
    endless: int = 0
    #: Seconds before anything is answered.
    silence: float = 0.0

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.content).hexdigest()}"'


@dataclass(frozen=True)
class Request:
    """One request as the server saw it."""

    path: str
    range: str | None
    status: int
    authorization: str | None = None


class Loopback:
    """Answers by a handler on a free port of 127.0.0.1, inside its ``with`` block."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    @property
    def port(self) -> int:
        return self._server.server_address[1]


class HttpServer(Loopback):
    """``with HttpServer() as server: server.serve("a.zip", data)`` serves ``server.url("a.zip")``.

    ``server.requests`` lists what was asked, in order. Anything that is not served answers 404.
    """

    def __init__(self) -> None:
        self.resources: dict[str, Resource] = {}
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        outer = self

        class Handler(_Handler):
            owner = outer

        super().__init__(Handler)

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    def serve(self, name: str, content: bytes, **behaviour: object) -> Resource:
        """Serve *content* at ``/name``; *behaviour*: fields of :class:`Resource`."""
        resource = Resource(content, **behaviour)  # type: ignore[arg-type]
        self.resources[name] = resource
        return resource

    def asked(self, name: str) -> list[Request]:
        """Return the requests for *name*."""
        return [request for request in self.requests if request.path == name]


def refused_url(name: str = "archive.zip") -> str:
    """Return an address on this machine where nothing listens: the connection is refused at once."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/{name}"


class _Handler(BaseHTTPRequestHandler):
    owner: HttpServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        name = unquote(urlsplit(self.path).path).lstrip("/")
        asked = self.headers.get("Range")
        resource = self.owner.resources.get(name)
        self._answer(resource, asked)

    def send_response(self, code: int, message: str | None = None) -> None:
        """Note the request before the client can see the answer."""
        name = unquote(urlsplit(self.path).path).lstrip("/")
        with self.owner.lock:
            self.owner.requests.append(
                Request(name, self.headers.get("Range"), code, self.headers.get("Authorization"))
            )
        super().send_response(code, message)

    def _answer(self, resource: Resource | None, asked: str | None) -> None:
        if resource is None:
            return self._plain(404)
        with self.owner.lock:
            failing = resource.failures > 0
            resource.failures -= failing
        if failing:
            return self._plain(resource.status, resource.retry_after)
        time.sleep(resource.silence)
        if resource.token and (authorization := self.headers.get("Authorization")) != f"Bearer {resource.token}":
            return self._plain(403 if authorization else 401, headers=resource.headers)
        if resource.redirect:
            return self._plain(302, headers={"Location": resource.redirect, **resource.headers})
        if resource.raw is not None:
            with self.owner.lock:
                self.owner.requests.append(Request(unquote(urlsplit(self.path).path).lstrip("/"), asked, 0))
            return self._send_body(resource, resource.raw)
        content, start = resource.content, 0
        if asked and resource.ranges and self._same(resource):
            start = int(asked.removeprefix("bytes=").split("-")[0])
            if start >= len(content):
                return self._plain(416)
            start += resource.range_shift
        status = 206 if asked and resource.ranges and self._same(resource) else 200
        body = content[start:]
        self.send_response(status)
        if resource.declare_length:
            self.send_header("Content-Length", str(len(body) + resource.length_lie))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if resource.validators:
            self.send_header("ETag", resource.etag)
            self.send_header("Last-Modified", email.utils.formatdate(1_700_000_000, usegmt=True))
        for header, value in resource.headers.items():
            self.send_header(header, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self._send_body(resource, body)

    def _same(self, resource: Resource) -> bool:
        """Tell whether If-Range, where it was sent, names the file as it is now."""
        condition = self.headers.get("If-Range")
        return condition is None or (resource.validators and condition == resource.etag)

    def _send_body(self, resource: Resource, body: bytes) -> None:
        with self.owner.lock:
            breaking = resource.break_after is not None and resource.breaks > 0
            resource.breaks -= breaking
        if breaking:
            body = body[: resource.break_after]
        pace = resource.bytes_per_second
        step = len(body) or 1 if pace is None else max(1, int(pace / 20))
        try:
            for begin in range(0, len(body), step):
                self.wfile.write(body[begin : begin + step])
                if pace is not None:
                    self.wfile.flush()
                    time.sleep(step / pace)
            for _ in range(0, resource.endless, 65536):
                self.wfile.write(body[-1:] * 65536)
            self.wfile.flush()
        except OSError:  # the client went away
            pass
        self.close_connection = True
        if breaking and resource.reset:
            # Close with unsent data thrown away: the client sees "connection reset by peer".
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _plain(self, status: int, retry_after: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        for header, value in (headers or {}).items():
            self.send_header(header, value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
