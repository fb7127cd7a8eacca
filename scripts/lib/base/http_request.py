"""One request over http(s) to a server that may answer anything: what it means, and errors in one line."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import os
import re
import signal
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from urllib.parse import urljoin

import requests
import urllib3

from scripts.lib.base.console import one_line
from scripts.lib.base.proxies import certificates_problem, proxy_problem
from scripts.lib.base.text import shorten
from scripts.lib.base.units import megabytes

#: Seconds to wait for a connection, and for the next bytes.
CONNECT_TIMEOUT, READ_TIMEOUT = 15.0, 60.0
#: An answer that brings less than this many bytes a second, over this many seconds, is broken off: a socket's timeout
#: begins anew with every byte.
SLOWEST_RATE, RATE_WINDOW = 1000.0, 60.0
#: Of the text that a server sends, this many columns are shown.
SHOWN_COLUMNS = 200
#: Answers that another attempt may change: timeouts, too many requests, a server in trouble.
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
#: What a 206 answer holds: its first and last byte, and the size of the file.
CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,30})-([0-9]{1,30})/([0-9]{1,30}|\*)")


class SourceFailed(Exception):
    """One address cannot give the file; the next mirror may. The message is one line.

    Attributes
    ----------
    remedy : what to do.
    status : of the server's answer, where that was the reason; else None.
    code : its header X-Error-Code, by which a hub of models tells why.
    """

    def __init__(
        self,
        message: str,
        remedy: str = "check the address, or add another one to mirrors",
        status: int | None = None,
        code: str = "",
    ) -> None:
        super().__init__(message)
        self.remedy = remedy
        self.status = status
        self.code = code


class NoRoom(SourceFailed):
    """The file is larger than what the disk has left, by the word of the server or by what it sent."""


class AttemptFailed(Exception):
    """One attempt failed; the same address may work after a while. ``wait``: seconds that the server asked for."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


@dataclass(frozen=True)
class Identity:
    """What a server says of a file, to tell whether a partial file is the beginning of the same one."""

    etag: str | None = None
    last_modified: str | None = None
    size: int | None = None
    #: How the server says that it compressed the file, though it was asked not to.
    encoding: str | None = None
    #: The sha256 of the file by the word of a hub of models, whose answer leads to another host.
    sha256: str | None = None

    @property
    def validator(self) -> str | None:
        """The value for If-Range: a strong ETag, else the date (RFC 9110, section 13.1.5)."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified


class Session(requests.Session):
    """Follows redirects without reading the pages that come with them, which need not end."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Return where *resp* leads to, None if it is no redirect."""
        target = super().get_redirect_target(resp)
        if target is not None:
            resp.close()
            check_way(urljoin(resp.url, target))
        return target


class Pace:
    """Breaks off, by a signal, an answer that hardly comes, be it its name, its header or its body."""

    def __init__(self) -> None:
        self.received = self.looked_at = 0

    def __enter__(self) -> Pace:
        self._handler = signal.signal(signal.SIGALRM, self._look)
        # A server may need some time before it begins.
        self._timer = signal.setitimer(signal.ITIMER_REAL, 2 * RATE_WINDOW, RATE_WINDOW)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, *self._timer)
        signal.signal(signal.SIGALRM, self._handler)

    def _look(self, _number: int, _frame: FrameType | None) -> None:
        count = self.received - self.looked_at
        self.looked_at = self.received
        if count < SLOWEST_RATE * RATE_WINDOW:
            raise AttemptFailed(f"the server is too slow: {megabytes(count)} in {RATE_WINDOW:g} s")


@contextlib.contextmanager
def request(session: requests.Session, url: str, headers: dict[str, str]) -> Iterator[requests.Response]:
    """Yield the answer; say network errors, also while it is read, as AttemptFailed or SourceFailed.

    An Authorization among *headers* goes no further than the host of *url*: requests takes it off where a redirect
    leads to another one.
    """
    check_way(url)
    try:
        try:
            response = session.get(url, headers=headers, stream=True, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT))
        except (ValueError, OverflowError) as error:  # an address to which the server leads, in many forms
            if isinstance(error, requests.exceptions.RequestException):
                raise
            raise SourceFailed(f"its answer leads to no address: {_reason(error)}") from error
        with response:
            yield response
    except requests.exceptions.SSLError as error:  # before ConnectionError, its parent
        refused = isinstance(_innermost(error), ssl.SSLCertVerificationError)
        what = "the certificate was not accepted" if refused else "no encrypted connection"
        raise SourceFailed(f"{what}: {_reason(error)}") from error
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
        raise SourceFailed(f"not an address: {foreign(error)}") from error
    except (requests.exceptions.InvalidHeader, urllib3.exceptions.InvalidHeader) as error:
        raise SourceFailed(f"its answer contradicts itself: {_reason(error)}") from error
    except requests.exceptions.TooManyRedirects as error:
        raise SourceFailed("too many redirects") from error
    except requests.exceptions.ProxyError as error:
        raise AttemptFailed(f"the proxy did not answer: {_reason(error)}") from error
    except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise AttemptFailed("the server did not answer in time") from error
    except requests.exceptions.RequestException as error:
        inner = _innermost(error)
        is_foreign = isinstance(inner, http.client.HTTPException) and not isinstance(inner, ConnectionError)
        what = "it does not answer by http" if is_foreign else "no connection"
        raise AttemptFailed(f"{what}: {_reason(error)}") from error
    except urllib3.exceptions.HTTPError as error:  # while the body is read, below requests
        raise AttemptFailed("the connection broke") from error
    except ValueError as error:  # so are the lengths of its pieces, of which urllib3 takes any number
        raise SourceFailed(f"its answer contradicts itself: {_reason(error)}") from error


def check_way(url: str) -> None:
    """Make sure that what the environment says of the way to *url* can be followed.

    Raises
    ------
    SourceFailed : its proxy is none, or there are no certificates where they should be.
    """
    proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
    problem = proxy_problem(proxy) if proxy else None
    if problem is None and url.startswith("https:"):
        problem = certificates_problem(os.environ)
    if problem:
        raise SourceFailed(problem.what, problem.remedy)


def _innermost(error: BaseException) -> BaseException:
    """Return the innermost of a chain of network errors."""
    while True:
        reason = getattr(error, "reason", None) or next((a for a in error.args if isinstance(a, BaseException)), None)
        if not isinstance(reason, BaseException):
            return error
        error = reason


def _reason(error: Exception) -> str:
    """Return the innermost text of a chain of network errors: the outer ones repeat addresses and object ids."""
    inner = _innermost(error)
    if isinstance(inner, OSError) and inner.strerror:
        return foreign(inner.strerror)
    text = foreign(inner)
    return text.rpartition(": ")[2] if "object at 0x" in text else text


def foreign(text: object) -> str:
    """Return what a server says as one short line."""
    return shorten(one_line(text)[: 5 * SHOWN_COLUMNS], SHOWN_COLUMNS)


def check_status(response: requests.Response) -> None:
    if response.status_code in (200, 206):
        return
    message = f"the server answered {response.status_code} {foreign(response.reason or '')}".rstrip()
    if response.status_code in TRANSIENT_STATUS:
        raise AttemptFailed(message, wait=_retry_after(response))
    code = foreign(response.headers.get("X-Error-Code", ""))
    raise SourceFailed(message, status=response.status_code, code=code)


def _retry_after(response: requests.Response) -> float:
    """Return for how many seconds the server wants to be left alone, by a number or a date; 0: it does not say."""
    asked = response.headers.get("Retry-After", "").strip()
    if re.fullmatch("[0-9]+", asked):
        return float(asked)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(asked).timestamp() - time.time())
    except (ValueError, OverflowError, TypeError, IndexError):
        return 0.0


def continues(response: requests.Response, known: Identity, have: int) -> bool:
    """Tell whether a 206 answer is the rest of the file that the partial one began."""
    range_ = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    etag, date = response.headers.get("ETag"), response.headers.get("Last-Modified")
    return (
        range_ is not None
        and int(range_[1]) == have
        and (range_[3] == "*" or known.size is None or int(range_[3]) == known.size)
        and (known.etag is None or etag in (None, known.etag))
        and (known.last_modified is None or date in (None, known.last_modified))
        and (known.sha256 is None or linked_sha256(response) in (None, known.sha256))
    )


def linked_sha256(response: requests.Response) -> str | None:
    """Return the sha256 that a hub of models names where it leads to the file (X-Linked-ETag); None: it does not."""
    names = (answer.headers.get("X-Linked-ETag", "").strip('"') for answer in (*response.history, response))
    return next((name.lower() for name in names if re.fullmatch("[0-9a-fA-F]{64}", name)), None)


def identity_of(response: requests.Response) -> Identity:
    """Return what the header of an answer says of the file.

    Raises
    ------
    SourceFailed : its size is no number; Python's own reader would take "+5" or "1_0" for one, and stop there.
    """
    headers = response.headers
    lengths = {length.strip() for length in headers.get("Content-Length", "").split(",")} - {""}
    if "chunked" in headers.get("Transfer-Encoding", "").lower():
        lengths = set()  # the chunks count, as RFC 9112 has it
    if len(lengths) > 1 or not all(re.fullmatch("[0-9]{1,30}", length) for length in lengths):
        raise SourceFailed(f"Content-Length is not a size: {foreign(repr(headers['Content-Length']))}")
    etag, date = (  # what could not be sent back to the server is of no use
        value if (value := headers.get(name)) and value.isascii() and value.isprintable() else None
        for name in ("ETag", "Last-Modified")
    )
    encoding = foreign(headers.get("Content-Encoding", "identity"))
    size = int(lengths.pop()) if lengths else None
    return Identity(etag, date, size, None if encoding == "identity" else encoding, linked_sha256(response))
