"""Unpack the images of an archive as images/[train|val|test/]<class>/<file>, trusting nothing in it.

Zip and tar (plain, gz, bz2, xz, zst), told by content. Two passes: the first reads every name and decides what goes
where, so that a hostile archive is refused before a byte is written; the second writes the images, and only them.
"""

from __future__ import annotations

import argparse
import logging
import posixpath
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.console import UserError, run_cli
from scripts.data.archives import (
    CHUNK,
    DEFAULT_MAX_BYTES,
    DEFAULT_MAX_IMAGES,
    DEFAULT_MAX_RATIO,
    Damaged,
    Entry,
    Limits,
    damage,
    open_contents,
    read_entries,
    sniff_format,
)
from scripts.data.image_paths import (
    PARTS,
    Parts,
    Taken,
    decode_name,
    encoding_of,
    find_layout,
    is_image,
    is_junk,
    safe_component,
)
from scripts.data.leftovers import remove_leftovers
from scripts.download import Progress, megabytes
from scripts.files import atomic_path

logger = logging.getLogger(__name__)

NOT_AN_IMAGE = "not an image"
IS_JUNK = "junk (hidden files, __MACOSX, Thumbs.db and the like)"
IS_LINK = "a link"


@dataclass(frozen=True)
class Plan:
    """``targets[i]``: where entry i goes below images/, None: nowhere; ``left_out``: how often for each reason."""

    targets: list[str | None]
    left_out: Counter[str]
    examples: dict[str, str]


def check_name(archive: Path, name: str) -> None:
    """Refuse a name that would land outside the folder it is unpacked to."""
    parts = re.split(r"[/\\]", name)
    if "\0" in name:
        raise UserError(f"{archive}: refused: its entry {name!r} has a NUL in its name; nothing was written")
    if name[:1] in ("/", "\\") or ".." in parts or re.match(r"[A-Za-z]:([/\\]|$)", name):
        raise UserError(f"{archive}: refused: its entry {name!r} would land outside the folder; nothing was written")


def check_link(archive: Path, name: str, target: str) -> None:
    """Refuse a link out of the archive; *target* is relative to its root."""
    inside = posixpath.normpath(target)
    if target.startswith("/") or inside == ".." or inside.startswith("../"):
        raise UserError(f"{archive}: refused: its entry {name!r} is a link out of it; nothing was written")


def plan(archive: Path, entries: Sequence[Entry], limits: Limits) -> Plan:
    """Decide where each entry goes, or why it does not.

    Raises
    ------
    UserError : an entry, or the archive as a whole, is refused.
    """
    encoding = encoding_of(entry.name for entry in entries)  # names are decoded one by one: all would fill memory
    names = (decode_name(entry.name, encoding) for entry in entries)
    backslashes = not any("/" in name for name in names)  # some Windows tools write them between folders
    folders: dict[str, str] = {}  # each is held once
    left_out: Counter[str] = Counter()
    examples: dict[str, str] = {}
    images: list[int] = []
    paths: list[Parts] = []

    def leave_out(name: str, reason: str) -> None:
        left_out[reason] += 1
        examples.setdefault(reason, name)
        logger.debug("left out: %r: %s", name, reason)

    for index, entry in enumerate(entries):
        name = decode_name(entry.name, encoding)
        check_name(archive, name)
        if entry.kind == "device":
            raise UserError(f"{archive}: refused: its entry {name!r} is a device or a pipe; nothing was written")
        if entry.kind == "link":
            check_link(archive, name, entry.target)
        if entry.kind == "folder":
            continue
        components = tuple(c for c in re.split(r"[/\\]" if backslashes else "/", name) if c not in ("", "."))
        if not components or is_junk(components):
            leave_out(name, IS_JUNK)
        elif entry.kind == "link":
            leave_out(name, IS_LINK)
        elif not is_image(components[-1]):
            leave_out(name, NOT_AN_IMAGE)
        else:
            images.append(index)
            paths.append((*(folders.setdefault(part, part) for part in components[:-1]), components[-1]))
    if len(images) > limits.images:
        raise UserError(
            f"{archive}: refused: {len(images)} images, more than {limits.images} (--max-images); nothing was written"
        )
    targets: list[str | None] = [None] * len(entries)
    taken = Taken()
    for index, target in zip(images, find_layout(paths) if paths else [], strict=True):
        if isinstance(target, str):
            leave_out(decode_name(entries[index].name, encoding), target)
        else:
            targets[index] = taken.take([safe_component(part) for part in target])
    return Plan(targets, left_out, examples)


def extract(archive: Path, kind: str, limits: Limits, targets: Sequence[str | None], folder: Path, total: int) -> None:
    """Write the entries that have a target below *folder*, which exists and is ours alone."""
    made = {folder}
    with damage(archive), Progress("unpacking", 0, total) as progress:
        for target, size, content in open_contents(archive, kind, limits, targets):
            path = folder / target
            if path.parent not in made:
                path.parent.mkdir(parents=True, exist_ok=True)
                made.add(path.parent)
            written = 0
            with open(path, "xb") as file:
                while chunk := content.read(CHUNK):
                    written += len(chunk)
                    if written > size:
                        raise Damaged(f"{archive}: refused: {target!r} holds more than the {size} bytes it declares")
                    file.write(chunk)
                    progress.advance(len(chunk))
            if written != size:
                raise Damaged(f"{archive}: damaged or truncated ({target!r} ends after {written} of {size} bytes)")


def unpack(archive: Path, output: Path, limits: Limits) -> None:
    """Unpack *archive* as the folder *output*, which appears only when it is whole."""
    kind = sniff_format(archive)
    entries = read_entries(archive, kind, limits)
    planned = plan(archive, entries, limits)
    report(planned, archive)
    total = sum(entry.size for entry, target in zip(entries, planned.targets, strict=True) if target is not None)
    del entries
    output.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(output)
    free = shutil.disk_usage(output.parent).free
    if total > free:
        raise UserError(
            f"no space left for {output}: the images take {megabytes(total)}, {megabytes(free)} are free:"
            " free some and run the same command again"
        )
    with atomic_path(output) as temporary:
        temporary.mkdir()
        extract(archive, kind, limits, planned.targets, temporary, total)
    logger.info("unpacked %s", summary(planned.targets))


def report(planned: Plan, archive: Path) -> None:
    """Say what is left out, one line a reason; stop when nothing remains."""
    for reason, count in sorted(planned.left_out.items()):
        logger.info("left out %d: %s, such as %r", count, reason, planned.examples[reason])
    if not any(target is not None for target in planned.targets):
        why = "; ".join(f"{count} files: {reason}" for reason, count in sorted(planned.left_out.items()))
        raise UserError(
            f"{archive}: no image in a class folder (left out: {why or 'nothing, it is empty'}):"
            " an archive must hold one folder a class with its images in it"
        )


def summary(targets: Sequence[str | None]) -> str:
    """Return one line: how many images of how many classes, and in which parts."""
    parts: Counter[str] = Counter()
    classes = set()
    for target in targets:
        if target is not None:
            first, *rest = target.split("/")
            part, name = (first, rest[0]) if first in PARTS.values() and len(rest) > 1 else ("", first)
            parts[part] += 1
            classes.add(name)
    by_part = ", ".join(f"{part} {parts[part]}" for part in ("train", "val", "test") if parts[part])
    return f"{sum(parts.values())} images of {len(classes)} classes" + (f" ({by_part})" if by_part else "")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--archive", type=Path, required=True, help="zip or tar (plain, gz, bz2, xz, zst)")
    parser.add_argument("--output", type=Path, required=True, help="folder to write; replaced when it exists")
    parser.add_argument(
        "--max-images", type=int, default=DEFAULT_MAX_IMAGES, help="refuse more images than this (default: %(default)s)"
    )
    parser.add_argument(
        "--max-bytes", type=int, default=DEFAULT_MAX_BYTES, help="refuse a larger content (default: %(default)s)"
    )
    parser.add_argument(
        "--max-ratio",
        type=float,
        default=DEFAULT_MAX_RATIO,
        help="refuse a content that is more times as large as the archive (default: %(default)s)",
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Unpack one archive."""
    unpack(args.archive, args.output, Limits(args.max_images, args.max_bytes, args.max_ratio))


if __name__ == "__main__":
    run_cli(build_parser, main)
