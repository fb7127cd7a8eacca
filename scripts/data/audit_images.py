"""Audit the images: what cannot be read, what is odd, what is there twice, and what leaks between given parts."""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import sys
import tempfile
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from tqdm import tqdm

from scripts.lib.base.console import run_cli
from scripts.lib.base.files import write_json
from scripts.lib.base.problems import UserError
from scripts.lib.data.audit_cache import RECORD, AuditCache, decode, encode
from scripts.lib.data.check_workers import check_files
from scripts.lib.data.findings import (
    CONFLICTING_LABELS,
    DUPLICATE,
    KEPT,
    LEAK,
    LEAKED,
    LEFT_OUT,
    NEAR_DUPLICATE,
    SET_ASIDE,
    WHOLE,
    Finding,
    write_findings,
)
from scripts.lib.data.image_checks import HUGE_PIXELS, SUFFIXES, TINY_EDGE, Checked, Oddity, Status
from scripts.lib.data.image_paths import group_of, group_pattern
from scripts.lib.data.near_duplicates import find_near_duplicates
from scripts.lib.data.splits import SPLITS, Image, find_images, settle_given_splits

logger = logging.getLogger(__name__)

#: How many files a message lists.
LISTED = 3
#: Seconds between two lines of progress where stderr is no terminal.
PROGRESS_SECONDS = 10.0
#: What each oddity is called in audit.csv, and what it means for training.
ODDITIES = {
    Oddity.ANIMATED: ("animated", "more than one picture; training uses the first"),
    Oddity.CMYK: ("cmyk", "CMYK colours; training converts them to RGB without their profile"),
    Oddity.SIXTEEN_BIT: ("sixteen_bit", "more than 8 bits a channel; training uses the upper 8"),
    Oddity.ALPHA: ("alpha", "transparency, which training ignores"),
    Oddity.PALETTE: ("palette", "colours from a palette of at most 256"),
    Oddity.BLANK: ("blank", "one colour all over, or nearly"),
}
TURNS = {2: "mirrored", 3: "180 degrees", 4: "upside down", 5: "mirrored, 90 degrees", 6: "90 degrees", 7: "mirrored, 270 degrees", 8: "270 degrees"}  # fmt: skip  # noqa: E501


@dataclass(frozen=True)
class Audited:
    """The images, what is known of each, and how many were decoded now: the others' checks were known.

    ``grey`` (images, 256) and ``colour`` (images, 128) are thumbnails; ``digests``: sha256, "" where unknown.
    """

    checks: list[Checked]
    digests: list[bytes]
    grey: np.ndarray
    colour: np.ndarray
    decoded: int


def check_all(folder: Path, images: Sequence[Image], cache: AuditCache, processes: int) -> Audited:
    """Check all images; new results are in *cache* as soon as they are there."""
    names = [image.path for image in images]
    digests = np.zeros((len(names), 32), np.uint8)
    failures: dict[int, str] = {}
    decoded = 0
    with _progress(len(names)) as advance:
        for outcomes in check_files(folder, names, np.array(cache.records()["sha256"]), processes):
            for outcome in outcomes:
                if outcome.failure:
                    failures[outcome.place] = outcome.failure
                else:
                    digests[outcome.place] = np.frombuffer(outcome.digest, np.uint8)
            new = [outcome.record for outcome in outcomes if outcome.record]
            cache.append(new)
            decoded += len(new)
            advance(len(outcomes))
    records = _find_records(cache.records(), digests, failures)
    return Audited(
        decode(records),
        [b"" if place in failures else digest.tobytes() for place, digest in enumerate(digests)],
        np.array(records["grey"]),
        np.array(records["colour"]),
        decoded,
    )


def _find_records(records: np.ndarray, digests: np.ndarray, failures: Mapping[int, str]) -> np.ndarray:
    """Return the record of each image; for those without one, a record of the failure."""
    found = np.zeros(len(digests), RECORD)
    keys = np.ascontiguousarray(records["sha256"]).view("S32").ravel()
    order = np.argsort(keys, kind="stable")
    have = np.array([place for place in range(len(digests)) if place not in failures], np.intp)
    if len(have):
        wanted = np.ascontiguousarray(digests[have]).view("S32").ravel()
        found[have] = records[order[np.searchsorted(keys, wanted, sorter=order)]]
    for place, reason in failures.items():
        failed = Checked(Status.UNREADABLE, detail=reason[:100])
        found[place] = np.frombuffer(encode(b"", failed), RECORD)[0]
    return found


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Yield a function that counts images: a bar on a terminal, elsewhere a line every few seconds."""
    with tqdm(total=total, unit=" images", leave=False, dynamic_ncols=True, disable=not sys.stderr.isatty()) as bar:
        began = said = time.monotonic()
        done = 0

        def advance(count: int) -> None:
            nonlocal done, said
            done += count
            bar.update(count)
            now = time.monotonic()
            if bar.disable and now - said >= PROGRESS_SECONDS and done < total:
                said = now
                logger.info(
                    "checked %d of %d images (%d %%), %.0f images/s",
                    done, total, 100 * done // total, done / (now - began),
                )  # fmt: skip

        yield advance


def find_all(images: Sequence[Image], audited: Audited, group_by: str | None = None, threads: int = 1) -> list[Finding]:
    """Return everything that there is to say about the images, sorted by file and finding.

    Parameters
    ----------
    images : their ``part`` says to which side they are given.
    group_by : regular expression that tells known groups (patients, videos) from the paths.
    threads : how many search for near copies.
    """
    found = [one for image, checked in zip(images, audited.checks, strict=True) for one in describe(image, checked)]
    usable = [place for place, checked in enumerate(audited.checks) if checked.status is Status.READABLE]
    conflicts, copies = group_exact(images, [audited.digests[place] for place in usable], usable)
    found += conflicts
    conflicting = {finding.file for finding in conflicts}
    rest = [place for place in usable if images[place].path not in conflicting]
    groups = join_groups(images, audited, rest, copies, threads)
    found += [one for group in groups for one in describe_copies(images, group, audited.digests)]
    found += find_leaks(images, groups)
    found += find_group_leaks(images, rest, group_by, {one.file for one in found if one.finding == LEAKED})
    return sorted(found, key=lambda one: (one.file, one.finding))


def describe(image: Image, checked: Checked) -> list[Finding]:
    """Return what is to be said of one image by itself."""
    if checked.status is not Status.READABLE:
        return [Finding(image.path, checked.status.name.lower(), SET_ASIDE, "", checked.detail)]
    found = []
    if checked.oddities:
        found += [(name, detail) for oddity, (name, detail) in ODDITIES.items() if oddity in checked.oddities]
    suffix = os.path.splitext(image.path)[1].lower()
    if suffix not in SUFFIXES.get(checked.format, ()):
        found.append(("wrong_extension", f"its content is {checked.format}"))
    if checked.orientation != 1:
        found.append(("rotated", f"turned by its EXIF data ({TURNS[checked.orientation]}), which training follows"))
    size = f"{checked.width} x {checked.height} pixels"
    if min(checked.width, checked.height) < TINY_EDGE:
        found.append(("tiny", size))
    if checked.width * checked.height > HUGE_PIXELS:
        found.append(("huge", size))
    return [Finding(image.path, name, KEPT, "", detail) for name, detail in found]


#: How the detail of a near copy begins, and how it ends where its like has another class.
LOOKS_LIKE, OF_ANOTHER_CLASS = "looks like ", ", of another class"
#: Places of images that are copies of each other, ascending.
Group = list[int]


def group_exact(
    images: Sequence[Image], digests: Sequence[bytes], places: Sequence[int]
) -> tuple[list[Finding], list[Group]]:
    """Return the findings on copies under different classes, and the groups of copies under one."""
    by_content: dict[bytes, Group] = defaultdict(list)
    for place, digest in zip(places, digests, strict=True):
        by_content[digest].append(place)
    conflicts, copies = [], []
    for group in by_content.values():
        if len(group) < 2:
            continue
        first_of = {images[place].label: images[place].path for place in reversed(group)}
        if len(first_of) == 1:
            copies.append(group)
            continue
        name = images[group[0]].path
        for place in group:
            other = next(path for label, path in sorted(first_of.items()) if label != images[place].label)
            detail = f"exact copy under another class: {other}"
            conflicts.append(Finding(images[place].path, CONFLICTING_LABELS, SET_ASIDE, name, detail))
    return conflicts, copies


def join_groups(
    images: Sequence[Image], audited: Audited, places: Sequence[int], copies: Sequence[Group], threads: int = 1
) -> list[Group]:
    """Return the groups of exact and near copies among *places*, in their order."""
    stand_in = {place: group[0] for group in copies for place in group}
    compared = [
        place
        for place in places
        if stand_in.get(place, place) == place and Oddity.BLANK not in audited.checks[place].oddities
    ]
    index = np.array(compared, np.intp)
    near = find_near_duplicates(audited.grey[index], audited.colour[index], threads)
    groups = {group[0]: list(group) for group in copies}
    for alike in near:
        members = [compared[number] for number in alike]
        joined = [place for member in members for place in groups.pop(member, [member])]
        groups[min(joined)] = sorted(joined)
    return [groups[first] for first in sorted(groups)]


def describe_copies(images: Sequence[Image], group: Group, digests: Sequence[bytes]) -> list[Finding]:
    """Return the findings on one group of copies."""
    name = images[group[0]].path
    contents = Counter(digests[place] for place in group)
    found = []
    for place in group:
        image, digest = images[place], digests[place]
        if contents[digest] > 1:
            twin = next(other for other in group if other != place and digests[other] == digest)
            found.append(Finding(image.path, DUPLICATE, KEPT, name, f"exact copy of {images[twin].path}"))
        if len(contents) > 1:
            others = [images[other] for other in group if digests[other] != digest]
            foreign = next((other for other in others if other.label != image.label), None)
            detail = f"{LOOKS_LIKE}{(foreign or others[0]).path}" + (OF_ANOTHER_CLASS if foreign else "")
            found.append(Finding(image.path, NEAR_DUPLICATE, KEPT, name, detail))
    return found


RANK = {"": 0} | {part: rank for rank, part in enumerate(SPLITS)}


def find_leaks(images: Sequence[Image], groups: Iterable[Group]) -> list[Finding]:
    """Return which images have copies in another given part."""
    found = []
    for group in groups:
        ranks = [RANK[images[place].split] for place in group]
        name = images[group[0]].path
        for place, rank in zip(group, ranks, strict=True):
            if rank < max(ranks):
                twin = images[group[ranks.index(max(ranks))]].path
                found.append(Finding(images[place].path, LEAK, LEFT_OUT, name, f"a higher part has a copy: {twin}"))
            if rank > min(ranks):
                twin = images[group[ranks.index(min(ranks))]].path
                found.append(Finding(images[place].path, LEAKED, KEPT, name, f"a lower part has a copy: {twin}"))
    return found


def find_group_leaks(
    images: Sequence[Image], places: Sequence[int], pattern: str | None, known: set[str]
) -> list[Finding]:
    """Return which images of a given val or test are of a group that a lower part has, but those *known* to leak."""
    if not pattern:
        return []
    compiled = group_pattern(pattern)
    groups: dict[str, Group] = defaultdict(list)
    for place in places:
        if name := group_of(images[place].path, compiled):
            groups[name].append(place)
    found = []
    for name, group in sorted(groups.items()):
        lowest = min(group, key=lambda place: RANK[images[place].split])
        for place in group:
            if RANK[images[place].split] > RANK[images[lowest].split] and images[place].path not in known:
                detail = f"a lower part has images of its group {name!r}: {images[lowest].path}"
                found.append(Finding(images[place].path, LEAKED, KEPT, "", detail))
    return found


def summarise(images: Sequence[Image], checks: Sequence[Checked], findings: Sequence[Finding]) -> dict[str, Any]:
    """Return what audit.json says."""
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    for image in images:
        classes[image.label][image.split or WHOLE] += 1
    sizes = [sum(counts.values()) for counts in classes.values()]
    readable = [checked for checked in checks if checked.status is Status.READABLE]
    return {
        "images": len(images),
        "set_aside": len({one.file for one in findings if one.action == SET_ASIDE}),
        "left_out": len({one.file for one in findings if one.action == LEFT_OUT}),
        "findings": dict(sorted(Counter(one.finding for one in findings).items())),
        "classes": {
            label: {part: counts[part] for part in (WHOLE, *SPLITS) if part in counts}
            for label, counts in sorted(classes.items())
        },
        "formats": dict(sorted(Counter(checked.format for checked in readable).items())),
        "widths": _spread([checked.width for checked in readable]),
        "heights": _spread([checked.height for checked in readable]),
        "imbalance": round(max(sizes) / min(sizes), 3),
        "notes": [*notes_on_classes(sorted(classes)), *notes_on_copies(findings)],
    }


def _spread(values: Sequence[int]) -> dict[str, int]:
    if not values:
        return {}
    return {"min": min(values), "median": statistics.median_low(values), "max": max(values)}


def notes_on_classes(labels: Sequence[str]) -> list[str]:
    """Return a sentence on each set of class names that are probably meant to be one."""
    alike: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        # unpack_archive writes blanks at the ends as %20
        alike[unicodedata.normalize("NFC", unquote(label)).strip().casefold()].append(label)
    return [
        f"classes {', '.join(map(repr, names))} differ only by case, by the form of their Unicode signs or by blanks:"
        " if they are one class, give their folders one name"
        for names in alike.values()
        if len(names) > 1
    ]


def notes_on_copies(findings: Sequence[Finding]) -> list[str]:
    """Return a sentence on the near copies whose labels contradict each other, if there are any."""
    contradicting = [one for one in findings if one.finding == NEAR_DUPLICATE and one.detail.endswith(OF_ANOTHER_CLASS)]
    if not contradicting:
        return []
    first = contradicting[0]
    return [
        f"{len(contradicting)} images look like one of another class, {first.file} like"
        f" {first.detail.removeprefix(LOOKS_LIKE).removesuffix(OF_ANOTHER_CLASS)} for one: a label of each pair may be"
        " wrong"
    ]


def refuse_bad(findings: Sequence[Finding], folder: Path, listing: Path) -> None:
    """Stop where images are set aside.

    Parameters
    ----------
    listing : file that then lists them, like audit.csv, which Snakemake removes when the step has failed.

    Raises
    ------
    UserError : there are some.
    """
    listing.unlink(missing_ok=True)
    bad = [one for one in findings if one.action == SET_ASIDE]
    if not bad:
        return
    write_findings(listing, bad)
    first = "; ".join(f"{one.file} ({one.finding}: {one.detail})" for one in bad[:LISTED])
    more = f" and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
    raise UserError(
        f"{folder}: {len(bad)} images cannot be used: {first}{more}; all are in {listing}:"
        " repair or remove them in the source, or let dataset.on_bad_image be set_aside"
    )


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.data.audit_images", description=__doc__)
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="[train|val|test/]<class>/<file>")
    parser.add_argument("--output", type=Path, required=True, metavar="CSV", help="findings, one a row")
    parser.add_argument("--summary", type=Path, required=True, metavar="JSON", help="counts, sizes, notes")
    parser.add_argument("--cache", type=Path, metavar="FILE", help="what is known of files by content; is added to")
    parser.add_argument(
        "--on-bad-image", choices=["set_aside", "fail"], default="set_aside",
        help="go on without images that cannot be used, or stop (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--group-by", metavar="PATTERN", help="regular expression: known groups, searched in paths")
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), metavar="N", help="files at a time (all cores)"
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Audit one data set."""
    if args.group_by:
        try:
            group_pattern(args.group_by)
        except ValueError as error:
            raise UserError(f"--group-by: {error}") from error
    images = settle_given_splits(find_images(args.images))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        cache = AuditCache(args.cache or Path(temporary) / "audit.cache")
        audited = check_all(args.images, images, cache, max(1, args.threads))
    findings = find_all(images, audited, args.group_by, args.threads)
    summary = summarise(images, audited.checks, findings)
    write_findings(args.output, findings)
    write_json(args.summary, summary)
    for note in summary["notes"]:
        logger.warning("%s", note)
    if args.on_bad_image == "fail":
        refuse_bad(findings, args.images, args.output.with_name(f"{args.output.stem}_bad.csv"))
    seconds = time.monotonic() - began
    counts = ", ".join(f"{name} {count}" for name, count in summary["findings"].items()) or "no findings"
    logger.info(
        "%d images in %.1f s (%.0f images/s), %d decoded, %d known: %d set aside, %d left out; %s",
        len(images), seconds, len(images) / seconds, audited.decoded, len(images) - audited.decoded,
        summary["set_aside"], summary["left_out"], counts,
    )  # fmt: skip


if __name__ == "__main__":
    run_cli(build_parser, main)
