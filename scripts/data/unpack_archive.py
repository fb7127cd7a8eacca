"""Unpack the images of an archive as images/[train|val|test/]<class>/<file>, trusting nothing in it.

Zip and tar (plain, gz, bz2, xz, zst), told by content. Two passes: the first reads every name and decides what goes
where, so that a hostile archive is refused before a byte is written; the second writes the images, and only them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from scripts.lib.base import long_values, products
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import write_json
from scripts.lib.base.problems import UserError
from scripts.lib.data.archive_entries import DEFAULT_MAX_BYTES, DEFAULT_MAX_IMAGES, DEFAULT_MAX_RATIO, Limits
from scripts.lib.data.archives import check_fetched
from scripts.lib.data.folders import known_files
from scripts.lib.data.unpacking import Origin, unpack_all

ORIGIN = TypeAdapter(Origin)


def parse_origins(archives: Sequence[Path], text: str) -> list[Origin]:
    """Return the archives with what *text*, a JSON list of one object an archive, says of them.

    Raises
    ------
    UserError : no such JSON.
    """
    try:
        sources = json.loads(long_values.take(text))
    except ValueError as error:
        raise UserError(f"--sources is no JSON ({error})") from error
    if (
        not isinstance(sources, list)
        or len(sources) != len(archives)
        or not all(isinstance(item, dict) for item in sources)
    ):
        raise UserError(f"--sources: expected a JSON list of {len(archives)} objects, one an archive")
    keys = [field.name for field in fields(Origin) if field.name not in ("archive", "is_shard")]
    if unknown := sorted({key for item in sources for key in item} - set(keys)):
        raise UserError(f"--sources: unknown key {unknown[0]!r}; allowed: {', '.join(keys)}")
    try:
        pairs = zip(archives, sources, strict=True)
        return [ORIGIN.validate_python({**item, "archive": archive}) for archive, item in pairs]
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        raise UserError(f"--sources: {'.'.join(map(str, detail['loc']))}: {detail['msg']}") from None


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--archive",
        type=Path,
        required=True,
        nargs="+",
        help="zip or tar (plain, gz, bz2, xz, zst); several: one data set",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write; replaced when it exists")
    parser.add_argument("--record", type=Path, metavar="JSON", help="write what was left out, and what was guessed")
    parser.add_argument(
        "--sources",
        metavar="JSON",
        help="what is known of each archive, a list of objects with any of split, label, labels, folders (as in"
        " dataset.source), name, kept (label files that are in no archive) and folder (the archive is this folder's"
        " manifest)",
    )
    for option, default, text in (
        ("--max-images", DEFAULT_MAX_IMAGES, "refuse more images than this"),
        ("--max-bytes", DEFAULT_MAX_BYTES, "refuse a larger content"),
        ("--max-ratio", DEFAULT_MAX_RATIO, "refuse a content that is more times as large as the archive"),
    ):
        parser.add_argument(option, type=type(default), default=default, help=f"{text} (default: %(default)s)")
    return parser


def main(args: argparse.Namespace) -> None:
    """Unpack the archives of one data set."""
    origins = parse_origins(args.archive, args.sources or json.dumps([{} for _ in args.archive]))
    # Here they are read for the last time.
    kept = [Path(path) for origin in origins for path in origin.kept.values()]
    for path in dict.fromkeys([*(origin.archive for origin in origins), *kept]):
        check_fetched(path)
    left_out = unpack_all(origins, args.output, Limits(args.max_images, args.max_bytes, args.max_ratio))
    if args.record:
        write_json(args.record, {"notes": left_out.remarks, "left_out": left_out.lines()})
    linked = [(origin.archive, origin.folder) for origin in origins if origin.folder]
    known = {str(file): sha256 for archive, folder in linked for file, sha256 in known_files(archive, folder)}
    products.record(args.output.name, [args.output], known)


if __name__ == "__main__":
    run_cli(build_parser, main)
