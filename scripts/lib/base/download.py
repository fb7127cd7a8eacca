"""Fetch one file over http(s): resumed, retried, from the first of several mirrors that works, verified."""

# Why not pooch: it verifies hashes, but cannot resume a broken download, has no mirrors and keeps no partial file.
# On a login node with a poor line that is the whole job, so this is a loop around requests, with tqdm for the bar.

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from requests import Response
from tqdm import tqdm

from scripts.lib.base.console import can_rewrite, one_line
from scripts.lib.base.files import sha256_of, sync_file, sync_folder, write_json
from scripts.lib.base.http_request import (
    AttemptFailed,
    Identity,
    NoRoom,
    Pace,
    Session,
    SourceFailed,
    check_status,
    continues,
    identity_of,
    request,
)
from scripts.lib.base.problems import PassingError, UserError
from scripts.lib.base.text import shorten
from scripts.lib.base.units import megabytes, plural

logger = logging.getLogger(__name__)
#: How often one address may fail in a row before the next mirror is tried.
ATTEMPTS = 4
#: Seconds before the second attempt; doubled for each one after it.
FIRST_BACKOFF = 1.0
#: The longest wait between two attempts, in seconds, whatever a server's Retry-After asks for.
LONGEST_BACKOFF = 60.0
#: An attempt that brought at least this many new bytes does not count as a failure: a line that breaks every few
#: megabytes still gets the whole file, and the number of attempts stays bounded by the size of the file.
PROGRESS_BYTES = 1024 * 1024
#: Seconds between two lines of progress where stderr is no terminal.
PROGRESS_SECONDS = 10.0
#: Bytes read at once; what a breaking connection can lose.
CHUNK = 16 * 1024
#: A file whose size nobody says is broken off when it leaves less than this share of the disk, or this many bytes.
RESERVED_SHARE, RESERVED_BYTES = 0.05, 10**9
#: The shortest prefix of a sha256 that counts as a check (the model zoo's file names carry 8 digits).
SHORTEST_PREFIX = 8

#: Of an address, this many columns are shown in the last line.
URL_SHOWN = 120
NO_ANSWER = "check the address, that this machine reaches the internet, and the proxy variables"
MAKE_ROOM = "free some space and run the same command again, or find a mirror that has the right file"


class NotFetched(PassingError):
    """No address gave the file; ``refusals`` says why for each."""

    def __init__(self, what: str, remedy: str, refusals: Mapping[str, SourceFailed]) -> None:
        super().__init__(what, remedy)
        self.refusals = refusals


@dataclass(frozen=True)
class Download:
    """What was fetched: the address that served it, its sha256 (64 hex digits) and its size in bytes."""

    url: str
    sha256: str
    size: int


def download(
    urls: Sequence[str],
    destination: Path | str,
    *,
    sha256: str | None = None,
    size: int | None = None,
    check: Callable[[Path], None] | None = None,
    mismatch: str = "if the file was changed on purpose, put the new hash in its place, else find another mirror",
    tokens: Mapping[str, str] | None = None,
) -> Download:
    """Fetch a file to *destination*, which appears only when it is whole and verified.

    A broken transfer leaves a hidden ``.part`` file beside *destination*; the next attempt, or the next run, goes on
    from its end when the server still has the same file (ETag, Last-Modified, size). Proxies are taken from the
    environment (``http_proxy``, ``https_proxy``, ``no_proxy``).

    Parameters
    ----------
    urls : the address and its mirrors, tried in this order; each failure is said in one line.
    destination : the file to write; its folder is made.
    sha256 : the expected hash, 64 hex digits or a prefix of at least 8 of them; None: not checked.
    size : the expected size in bytes; None: what the server declares is checked.
    check : looks at the whole file before it gets its name, and raises UserError when it is not what it should be.
    mismatch : what to do about a wrong sha256, for the message.
    tokens : what some of the addresses ask for, sent as ``Authorization: Bearer`` to their own host only.

    Raises
    ------
    NotFetched : no address gave the right file; the message says why for each.
    UserError : an address or a hash that is none.
    OSError : the disk is full, the folder not writable.
    """
    destination = Path(destination)
    _check_arguments(urls, sha256)
    destination.parent.mkdir(parents=True, exist_ok=True)
    refusals: dict[str, SourceFailed] = {}
    for url in urls:
        try:
            partial = _fetch(url, destination, size, (tokens or {}).get(url))
            _examine(partial, check)  # first: "a web page" says more than a wrong hash
            digest = _verify(partial, sha256, size, mismatch)
        except SourceFailed as failure:
            refusals[url] = failure
            if len(urls) > 1:
                logger.warning("%s: %s: %s", shown(url), one_line(failure), failure.remedy)
            continue
        result = Download(url, digest, partial.stat().st_size)
        sync_file(partial)
        os.replace(partial, destination)
        sync_folder(destination.parent)
        for leftover in destination.parent.glob(f".{glob.escape(destination.name)}.*.part*"):
            leftover.unlink(missing_ok=True)  # of mirrors that broke, of an address that was given before
        return result
    failures = list(refusals.values())
    what = f"could not fetch {destination.name} from {shorten(shown(urls[0]), URL_SHOWN)}: {one_line(failures[0])}"
    if len(urls) > 1:
        what += f"; nor from {plural(len(urls) - 1, 'mirror')}, for the reasons above and in the log"
    telling = next((failure for failure in failures if isinstance(failure, NoRoom)), failures[0])
    raise NotFetched(what, telling.remedy, refusals)


def shown(url: str) -> str:
    """Return *url* as it may be shown: no user name, no password, no query (signatures, tokens)."""
    try:
        parts = urlsplit(url)
    except ValueError:  # a bracket without its partner
        return "an address that cannot be read"
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def part_path(destination: Path, url: str) -> Path:
    """Return the name of the partial file of *url*: one for each address, hidden, beside *destination*."""
    key = hashlib.sha256(url.encode()).hexdigest()[:12]
    return destination.with_name(f".{destination.name}.{key}.part")


def _check_arguments(urls: Sequence[str], sha256: str | None) -> None:
    if not urls:
        raise UserError("no address to fetch from: give a url")
    for url in urls:
        try:
            parts = urlsplit(url)
            right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError as error:
            raise UserError(f"a url or mirror that is no address: {error}", "correct it") from error
        if not right:
            raise UserError(f"url {shown(url)!r}: only http:// and https:// addresses can be fetched")
    if sha256 is not None:
        digits = set("0123456789abcdef")
        if not (SHORTEST_PREFIX <= len(sha256) <= 64 and set(sha256.lower()) <= digits):
            raise UserError(f"sha256 {sha256!r}: expected 64 hexadecimal digits")


def _examine(partial: Path, check: Callable[[Path], None] | None) -> None:
    """Let *check* look at the file; delete it and raise SourceFailed when it complains."""
    if check is None:
        return
    encoded = _encoding_note(partial)
    try:
        check(partial)
    except UserError as error:
        _discard(partial)
        raise SourceFailed(f"{error}{encoded}; the file was deleted") from error


def _verify(partial: Path, sha256: str | None, size: int | None, mismatch: str) -> str:
    """Return the sha256 of *partial*; delete it and raise SourceFailed when it is not what was expected."""
    got_size = partial.stat().st_size
    if size is not None and got_size != size:
        _discard(partial)
        raise SourceFailed(f"wrong size: expected {size} bytes, got {got_size}; the file was deleted")
    digest = sha256_of(partial)
    known = _read_identity(partial)
    if sha256 is None and known and known.sha256:
        sha256, mismatch = known.sha256, "the server announced the one and sent the other; find another mirror"
    if sha256 is not None and not digest.startswith(sha256.lower()):
        encoded = _encoding_note(partial)
        _discard(partial)
        raise SourceFailed(
            f"wrong sha256: expected {sha256.lower()}, got {digest} ({got_size} bytes){encoded}; the file was deleted",
            mismatch,
        )
    return digest


def _encoding_note(partial: Path) -> str:
    """Say that the server compressed the file on its way, which explains why it is another; "" if it did not."""
    known = _read_identity(partial)
    if known is None or known.encoding is None:
        return ""
    return f" (the server compressed it, with Content-Encoding {known.encoding}, though it was asked not to)"


def _fetch(url: str, destination: Path, size: int | None, token: str | None) -> Path:
    """Return the whole partial file of *url*, after as many attempts as it may take."""
    partial = part_path(destination, url)
    failed_in_a_row = 0
    reached = partial.stat().st_size if partial.exists() else 0
    with Session() as session:
        while True:
            try:
                _attempt(session, url, partial, destination.name, size, token)
                return partial
            except AttemptFailed as failure:
                now = partial.stat().st_size if partial.exists() else 0
                failed_in_a_row = 0 if now >= reached + PROGRESS_BYTES else failed_in_a_row + 1
                reached = max(reached, now)
                if failed_in_a_row >= ATTEMPTS:
                    raise SourceFailed(f"{one_line(failure)} ({ATTEMPTS} attempts)", NO_ANSWER) from failure
                wait = max(FIRST_BACKOFF * 2 ** max(failed_in_a_row - 1, 0), failure.wait)
                wait = min(wait, LONGEST_BACKOFF)
                logger.warning("%s: %s; trying again in %.0f s", shown(url), one_line(failure), wait)
                time.sleep(wait)


def _attempt(
    session: Session, url: str, partial: Path, name: str, expected_size: int | None, token: str | None = None
) -> None:
    """Make *partial* whole by one request: its missing end, or all of it where the server cannot resume."""
    known = _read_identity(partial)
    have = partial.stat().st_size if known and partial.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # the bytes as they lie on the server, so that sizes and ranges agree
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if known and have:
        headers["Range"] = f"bytes={have}-"
        if known.validator:
            headers["If-Range"] = known.validator
    with Pace() as pace, request(session, url, headers) as response:
        if response.status_code == 416 and have and known and known.size in (None, have):
            return  # nothing is missing
        if response.status_code in (206, 416) and not (
            response.status_code == 206 and known and continues(response, known, have)
        ):
            _discard(partial)
            raise AttemptFailed("the file on the server changed, or its answer does not fit; starting again from 0")
        check_status(response)
        if response.status_code == 200:  # a fresh start, or a server that ignores Range
            if have:
                logger.info("%s: the server cannot resume this file; starting again from 0", shown(url))
            _discard(partial)
            have, known = 0, identity_of(response)
            write_json(_identity_path(partial), asdict(known))
        assert known is not None
        total = known.size
        if expected_size is not None and total is not None and total != expected_size:
            _discard(partial)
            raise SourceFailed(f"wrong size: expected {expected_size} bytes, the server has {total}")
        end = total if total is not None else expected_size
        _check_space(partial, end, have)
        if have:
            logger.info("%s: going on at %s", shown(url), megabytes(have))
        _receive(response, partial, have, end, name, pace)
    got = partial.stat().st_size
    if not got:
        _discard(partial)
        raise SourceFailed("the server sent nothing")
    if total is not None and got < total:  # urllib3 1 ends a short body in silence
        raise AttemptFailed(f"the connection broke after {got} of {total} bytes")
    if total is not None and got > total:
        _discard(partial)
        raise SourceFailed(f"wrong size: the server declared {total} bytes and sent {got}; the file was deleted")


def _identity_path(partial: Path) -> Path:
    return partial.with_name(partial.name + ".json")


def _read_identity(partial: Path) -> Identity | None:
    """Return what is known of the partial file, None when there is nothing to go on from."""
    try:
        return Identity(**json.loads(_identity_path(partial).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _discard(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _identity_path(partial).unlink(missing_ok=True)


def _check_space(partial: Path, total: int | None, have: int) -> None:
    """Refuse a file of *total* bytes, of which *have* are here, that the disk has no room for."""
    free = shutil.disk_usage(partial.parent).free
    if total is not None and total - have > free:
        if not have:
            _discard(partial)
        raise NoRoom(
            f"no space left for {partial.parent}: {megabytes(total - have)} are to be fetched,"
            f" {megabytes(free)} are free",
            MAKE_ROOM,
        )


def _receive(response: Response, partial: Path, have: int, total: int | None, name: str, pace: Pace) -> None:
    """Append the body of *response* to *partial* (of *have* bytes).

    Raises
    ------
    NoRoom : it has no end in sight, and the disk has.
    """
    disk = shutil.disk_usage(partial.parent)
    most = have + disk.free - min(RESERVED_SHARE * disk.total, RESERVED_BYTES) if total is None else total
    with open(partial, "ab") as file, Progress(name, have, total) as progress:
        while chunk := response.raw.read(CHUNK, decode_content=False):
            pace.received += len(chunk)
            if progress.have + len(chunk) > most:
                break
            file.write(chunk)
            progress.advance(len(chunk))
    if chunk:
        _discard(partial)
        if total is not None:
            raise SourceFailed(f"wrong size: expected {total} bytes, the server sends more; the file was deleted")
        raise NoRoom(
            f"it sent {megabytes(progress.have)} without saying how many there are, and the disk of {partial.parent}"
            " is nearly full; the file was deleted",
            MAKE_ROOM,
        )


class Progress:
    """A bar on a terminal; elsewhere (a log file, a Slurm job) a line every few seconds."""

    def __init__(self, name: str, have: int, total: int | None) -> None:
        self.name, self.have, self.total = name, have, total
        self.begun = self.said = time.monotonic()
        self.first = have
        self.bar = None
        if can_rewrite():
            self.bar = tqdm(
                desc=name, initial=have, total=total, unit="B", unit_scale=True, leave=False, dynamic_ncols=True
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def advance(self, count: int) -> None:
        """Count *count* more bytes."""
        self.have += count
        if self.bar is not None:
            self.bar.update(count)
            return
        now = time.monotonic()
        if now - self.said >= PROGRESS_SECONDS:
            self.said = now
            rate = (self.have - self.first) / (now - self.begun)
            of = f" of {megabytes(self.total)} ({100 * self.have / self.total:.0f} %)" if self.total else ""
            logger.info("%s: %s%s, %s/s", self.name, megabytes(self.have), of, megabytes(int(rate)))
