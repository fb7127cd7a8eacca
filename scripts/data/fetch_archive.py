"""Bring the data set's archive here, whole and verified: from a url, its mirrors, a local path, or the sample."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
from pathlib import Path
from urllib.parse import urlsplit

from scripts.lib.base import long_values
from scripts.lib.base.console import run_cli
from scripts.lib.base.download import download, shown
from scripts.lib.base.files import atomic_path, copy_file, remove_leftovers, sha256_of, write_text
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import megabytes
from scripts.lib.data.archives import HashRecord, NoArchive, format_record, read_record, sniff_format
from scripts.lib.data.file_kinds import piece_of
from scripts.lib.data.folders import list_folder, pack_folder
from scripts.lib.settings.dataset import Source
from scripts.lib.settings.load import parse_section

logger = logging.getLogger(__name__)


def parse_source(text: str) -> Source | Path:
    """Return what *text*, JSON, describes: a section ``dataset.source``, or of ``{"file": path}`` the path.

    Such a file, of labels, is taken over as it is, whatever it is.

    Raises
    ------
    UserError : no JSON, an unknown key, not exactly one of url, path and sample, or no sha256.
    """
    with contextlib.suppress(ValueError, AttributeError, KeyError):
        section = json.loads(long_values.take(text))
        if section.keys() == {"file"}:
            return Path(section["file"])
    return parse_section(Source, text, "--source", "dataset.source")


def name_of(source: Source | Path) -> str:
    """Return a source as the record names it: no password, no token, but another query is another source."""
    if isinstance(source, Path):
        return str(source)
    if source.url:
        query = urlsplit(source.url).query
        return shown(source.url) + (f" (query {hashlib.sha256(query.encode()).hexdigest()[:12]})" if query else "")
    if source.sample is not None:
        return f"sample {json.dumps(source.sample.model_dump(exclude_unset=True), sort_keys=True)}"
    return f"{source.path}, in place" if source.in_place else str(source.path)


def fetch(source: Source | Path, output: Path, record: Path) -> None:
    """Write the archive, or file of labels, that *source* is to *output* and its hash to *record*."""
    name = name_of(source)
    known = read_record(record)
    if known and known.source != name:
        logger.info("%s belongs to another source (%s): recorded anew", record, known.source or "not named")
        known = None
    verb = "recorded"
    if isinstance(source, Path) or source.url is None:
        digest = take_over(source, output)
        if known and known.sha256 != digest:
            logger.info("%s changed since it was last read: its sha256 was %s", name, known.sha256)
    else:
        digest = fetch_url(source, source.url, output, known, record)
        verb = "recorded" if known else "enforced from now on"
    if isinstance(source, Source) and source.sha256:
        verb = "verified"
    write_text(record, format_record(HashRecord(digest, name), output.name))
    logger.info("%s: %s, sha256 %s (%s, in %s)", output, megabytes(output.stat().st_size), digest, verb, record)


def fetch_url(source: Source, url: str, output: Path, known: HashRecord | None, record: Path) -> str:
    """Fetch *url* or a mirror, against the sha256 that was given or else recorded, and return the sha256."""
    expected = source.sha256 or (known.sha256 if known else None)
    if expected and output.is_file() and sha256_of(output) == expected:
        logger.info("%s is there already", output)
        return expected
    mismatch = (
        "dataset.source.sha256 names another file: correct it, or find another mirror"
        if source.sha256
        else f"it is not the file of the first fetch; to accept it, delete {record} and fetch again"
    )
    check_whole(urlsplit(url).path.rpartition("/")[2])
    result = download((url, *source.mirrors), output, sha256=expected, check=_check_archive, mismatch=mismatch)
    return result.sha256


def check_whole(name: str) -> None:
    """Refuse what is called as a piece of an archive: that a piece is damaged would lead nowhere."""
    if remedy := piece_of(name):
        raise UserError(f"dataset.source: {name} is one of the pieces of an archive", remedy)


def _check_archive(path: Path) -> None:
    """Refuse what is no archive at once: login pages of networks are served as 200, too."""
    try:
        sniff_format(path)
    except NoArchive as error:
        raise UserError(f"the server sent {error.content}", error.remedy) from error


def take_over(source: Source | Path, output: Path) -> str:
    """Write a local archive or file, a folder or the sample to *output* and return its sha256.

    A local archive shares its blocks with the user's file where the file system can do that (a reflink), but never the
    file itself: what is written to the one never reaches the other.
    """
    remove_leftovers(output)
    with atomic_path(output) as temporary:
        if isinstance(source, Path):
            copy_file(source.expanduser(), temporary)
        elif source.sample is not None:
            # Here, not above: rendering needs OpenCV, fetching does not.
            from scripts.lib.data.sample.render import write_archive

            write_archive(temporary, **source.sample.model_dump())
        else:
            path = Path(str(source.path)).expanduser()
            if source.in_place and path.is_dir():
                list_folder(path, temporary, output)
            elif path.is_dir():
                pack_folder(path, temporary, output)
            elif path.is_file():
                check_whole(path.name)
                sniff_format(path)
                copy_file(path, temporary)
            else:
                raise UserError(f"dataset.source.path: no such file or folder: {path}")
        digest = sha256_of(temporary)
        expected = source.sha256 if isinstance(source, Source) else None
        if expected and digest != expected:
            raise UserError(
                f"{name_of(source)}: wrong sha256: expected {expected}, got {digest}",
                "correct dataset.source.sha256, or bring the right file",
            )
    return digest


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
