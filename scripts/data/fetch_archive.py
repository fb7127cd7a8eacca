"""Bring the data set's archive here, whole and verified: from a url, its mirrors, a local path, or the sample."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from scripts.lib.base.console import run_cli
from scripts.lib.base.download import download, shown
from scripts.lib.base.files import atomic_path, sha256_of, write_text
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import megabytes
from scripts.lib.data.archives import NoArchive, sniff_format
from scripts.lib.data.hash_records import HashRecord, format_record, read_record
from scripts.lib.data.leftovers import remove_leftovers
from scripts.lib.data.packing import list_folder, pack_folder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """The section ``dataset.source`` of the settings: exactly one of url, path, sample and file.

    ``in_place``: the folder ``path`` is listed, not packed; ``file``: taken over as it is, whatever it is.
    """

    url: str | None = None
    mirrors: tuple[str, ...] = ()
    path: str | None = None
    sample: dict[str, int] | None = None
    sha256: str | None = None
    in_place: bool = False
    file: str | None = None

    @property
    def name(self) -> str:
        """The source as the record names it: no password, no token, but another query is another source."""
        if self.url:
            query = urlsplit(self.url).query
            return shown(self.url) + (f" (query {hashlib.sha256(query.encode()).hexdigest()[:12]})" if query else "")
        if self.sample is not None:
            return f"sample {json.dumps(self.sample, sort_keys=True)}"
        return f"{self.path}, in place" if self.in_place else str(self.path or self.file)


def parse_source(text: str) -> Source:
    """Return the source that *text*, the JSON of ``dataset.source``, describes; null counts as absent.

    Raises
    ------
    UserError : no JSON, an unknown key, not exactly one of url, path, sample and file, or no sha256.
    """
    try:
        given = json.loads(text)
    except ValueError as error:
        raise UserError(f"--source is no JSON ({error}): give the section dataset.source") from error
    if not isinstance(given, dict):
        raise UserError("--source: expected a JSON object, the section dataset.source")
    given = {key: value for key, value in given.items() if value is not None}
    if unknown := sorted(set(given) - {"url", "mirrors", "path", "sample", "sha256", "in_place", "file"}):
        allowed = "url, mirrors, path, sample, sha256, in_place, file"
        raise UserError(f"dataset.source: unknown key {unknown[0]!r}; allowed: {allowed}")
    kinds = [key for key in ("url", "path", "sample", "file") if key in given]
    if len(kinds) != 1:
        raise UserError(
            f"dataset.source: give exactly one of url, path and sample (found: {', '.join(kinds) or 'none'})"
        )
    sha256 = given.get("sha256")
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", str(sha256)):
        raise UserError(f"dataset.source.sha256: expected 64 hexadecimal digits, not {sha256!r}")
    return Source(
        given.get("url"),
        tuple(given.get("mirrors", ())),
        given.get("path"),
        given.get("sample"),
        sha256.lower() if sha256 else None,
        bool(given.get("in_place")),
        given.get("file"),
    )


def fetch(source: Source, output: Path, record: Path) -> None:
    """Write the archive of *source* to *output* and its hash to *record*."""
    known = read_record(record)
    if known and known.source != source.name:
        logger.info("%s belongs to another source (%s): recorded anew", record, known.source or "not named")
        known = None
    if source.url is not None:
        digest = fetch_url(source, output, known, record)
    else:
        digest = take_over(source, output)
        if known and known.sha256 != digest:
            logger.info("%s changed since it was last read: its sha256 was %s", source.name, known.sha256)
    write_text(record, format_record(HashRecord(digest, source.name), output.name))
    verb = "verified" if source.sha256 else "enforced from now on" if source.url and not known else "recorded"
    logger.info("%s: %s, sha256 %s (%s, in %s)", output, megabytes(output.stat().st_size), digest, verb, record)


def fetch_url(source: Source, output: Path, known: HashRecord | None, record: Path) -> str:
    """Fetch by http(s), against the sha256 that was given or else recorded, and return the sha256."""
    assert source.url is not None
    expected = source.sha256 or (known.sha256 if known else None)
    if expected and output.is_file() and sha256_of(output) == expected:
        logger.info("%s is there already", output)
        return expected
    mismatch = (
        "dataset.source.sha256 names another file: correct it, or find another mirror"
        if source.sha256
        else f"it is not the file of the first fetch; to accept it, delete {record} and fetch again"
    )
    result = download((source.url, *source.mirrors), output, sha256=expected, check=_check_archive, mismatch=mismatch)
    return result.sha256


def _check_archive(path: Path) -> None:
    """Refuse what is no archive at once: login pages of networks are served as 200, too."""
    try:
        sniff_format(path)
    except NoArchive as error:
        raise UserError(f"the server sent {error.content}", error.remedy) from error


def take_over(source: Source, output: Path) -> str:
    """Write a local archive or file, a folder or the sample to *output* and return its sha256.

    A local archive is hard-linked where that is possible, since data sets are large and disks have quotas.
    """
    remove_leftovers(output)
    with atomic_path(output) as temporary:
        if source.sample is not None:
            # Here, not above: rendering needs OpenCV, fetching does not.
            from scripts.lib.data.sample.render import write_archive

            write_archive(temporary, **source.sample)
        elif source.file is not None:
            shutil.copyfile(Path(source.file).expanduser(), temporary)
        else:
            path = Path(str(source.path)).expanduser()
            if source.in_place and path.is_dir():
                list_folder(path, temporary, output)
            elif path.is_dir():
                pack_folder(path, temporary, output)
            elif path.is_file():
                sniff_format(path)
                _link_or_copy(path, temporary)
            else:
                raise UserError(f"dataset.source.path: no such file or folder: {path}")
        digest = sha256_of(temporary)
        if source.sha256 and digest != source.sha256:
            raise UserError(
                f"{source.name}: wrong sha256: expected {source.sha256}, got {digest}:"
                " correct dataset.source.sha256, or bring the right file"
            )
    return digest


def _link_or_copy(path: Path, target: Path) -> None:
    try:
        os.link(path.resolve(), target)
        # atomic_path opens it for writing to sync it: not every file that can be read can be.
        if not os.access(target, os.W_OK):
            target.unlink()
            raise PermissionError
    except OSError:  # another file system, a file of someone else's
        shutil.copyfile(path, target)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--source", required=True, metavar="JSON", help='the section dataset.source, such as \'{"url": "https://..."}\''
    )
    parser.add_argument("--output", type=Path, required=True, help="the archive to write")
    parser.add_argument(
        "--record", type=Path, required=True, help="file for the sha256, which is enforced at the next fetch of the url"
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Fetch one archive."""
    fetch(parse_source(args.source), args.output, args.record)


if __name__ == "__main__":
    run_cli(build_parser, main)
