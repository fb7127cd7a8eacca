"""Findings on the images of a data set: of each by itself, of copies, and of copies in several splits."""

from __future__ import annotations

import math
import os
import statistics
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.data import findings as audit_csv
from scripts.lib.data.auditing import Audited
from scripts.lib.data.findings import (
    CONTAMINATED,
    KEPT,
    LOOKS_LIKE,
    NEAR_DUPLICATE,
    OF_ANOTHER_CLASS,
    SET_ASIDE,
    Finding,
)
from scripts.lib.data.image_checks import HUGE_PIXELS, TINY_EDGE, Checked, Oddity, Status
from scripts.lib.data.image_formats import SUFFIXES
from scripts.lib.data.image_paths import group_of, group_pattern
from scripts.lib.data.near_duplicates import find_near_duplicates
from scripts.lib.data.odd_pictures import find_odd
from scripts.lib.data.reading import FULL_DEPTH
from scripts.lib.data.splits import SPLITS, Image
from scripts.lib.data.squares import cropped_share

#: Images of 16 bits of which all together use no more are a quarter as bright as they could be, or less.
DARK_DEPTH = 14
#: More than this share of an image lies outside the square in its middle if it is wider than 3 : 2.
MOST_OUTSIDE = 0.34
#: Where most images are transparent, `fit: pad` was more accurate from about this share on (bench/fit.py): its bars
#: continue the background.
MOST_OUTSIDE_CUT_OUTS = 0.2
#: How many files a message lists.
LISTED = 3
#: What each oddity is called in audit.csv, and what it means for training.
ODDITIES = {
    Oddity.ANIMATED: ("animated", "more than one picture; training uses the first"),
    Oddity.CMYK: ("cmyk", "CMYK colours; training converts them to RGB without their profile"),
    Oddity.SIXTEEN_BIT: ("sixteen_bit", "more than 8 bits a channel; training uses the upper 8 of those in use"),
    Oddity.ALPHA: ("alpha", "transparency; a background shows through"),
    Oddity.PALETTE: ("palette", "colours from a palette of at most 256"),
    Oddity.BLANK: ("blank", "one colour all over, or nearly"),
}
TURNS = {2: "mirrored", 3: "180 degrees", 4: "upside down", 5: "mirrored, 90 degrees", 6: "90 degrees", 7: "mirrored, 270 degrees", 8: "270 degrees"}  # fmt: skip  # noqa: E501


def find_all(images: Sequence[Image], audited: Audited, group_by: str | None = None, threads: int = 1) -> list[Finding]:
    """Return everything that there is to say about the images, sorted by file and finding.

    Parameters
    ----------
    images : their ``split`` says to which they are given.
    group_by : regular expression that tells known groups (patients, videos) from the paths.
    threads : how many search for near copies.
    """
    findings = [row for image, checked in zip(images, audited.checks, strict=True) for row in describe(image, checked)]
    usable = [index for index, checked in enumerate(audited.checks) if checked.status is Status.READABLE]
    conflicts, copies = group_exact(images, [audited.digests[index] for index in usable], usable)
    findings += conflicts
    conflicting = {finding.file for finding in conflicts}
    rest = [index for index in usable if images[index].path not in conflicting]
    groups, how = join_groups(audited, rest, copies, threads)
    findings += [row for group in groups for row in describe_copies(images, group, audited.digests, how)]
    findings += find_copies_across_splits(images, groups)
    contaminated = {row.file for row in findings if row.finding == CONTAMINATED}
    findings += find_groups_across_splits(images, rest, group_by, contaminated)
    seen = [index for index in usable if Oddity.BLANK not in audited.checks[index].oddities]
    odd = find_odd(audited, np.array(seen, np.intp))
    findings += [Finding(images[index].path, name, KEPT, "", detail) for index, name, detail in odd]
    return sorted(findings, key=lambda row: (row.file, row.finding))


def describe(image: Image, checked: Checked) -> list[Finding]:
    """Return the findings on one image by itself."""
    if checked.status is not Status.READABLE:
        return [Finding(image.path, checked.status.name.lower(), SET_ASIDE, "", checked.detail)]
    remarks = []
    if checked.oddities:
        remarks += [(name, detail) for oddity, (name, detail) in ODDITIES.items() if oddity in checked.oddities]
    suffix = os.path.splitext(image.path)[1].lower()
    if suffix not in SUFFIXES.get(checked.format, ()):
        remarks.append(("wrong_extension", f"its content is {checked.format}"))
    if checked.orientation != 1:
        remarks.append(("rotated", f"turned by its EXIF data ({TURNS[checked.orientation]}), which training follows"))
    size = f"{checked.width} x {checked.height} pixels"
    if min(checked.width, checked.height) < TINY_EDGE:
        remarks.append(("tiny", size))
    if checked.width * checked.height > HUGE_PIXELS:
        remarks.append(("huge", size))
    return [Finding(image.path, name, KEPT, "", detail) for name, detail in remarks]


#: Indices of images that are copies of each other, ascending.
Group = list[int]


def group_exact(
    images: Sequence[Image], digests: Sequence[bytes], indices: Sequence[int]
) -> tuple[list[Finding], list[Group]]:
    """Return the findings on copies under different classes, and the groups of copies under one."""
    by_content: dict[bytes, Group] = defaultdict(list)
    for index, digest in zip(indices, digests, strict=True):
        by_content[digest].append(index)
    conflicts, copies = [], []
    for group in by_content.values():
        if len(group) < 2:
            continue
        first_of = {images[index].label: images[index].path for index in reversed(group)}
        if len(first_of) == 1:
            copies.append(group)
            continue
        name = images[group[0]].path
        for index in group:
            other = next(path for label, path in sorted(first_of.items()) if label != images[index].label)
            detail = f"exact copy under another class: {other}"
            conflicts.append(Finding(images[index].path, audit_csv.CONFLICTING_LABELS, SET_ASIDE, name, detail))
    return conflicts, copies


#: How pairs of images, the lower index first, became different, in words.
How = Mapping[tuple[int, int], str]


def join_groups(
    audited: Audited, indices: Sequence[int], copies: Sequence[Group], threads: int = 1
) -> tuple[list[Group], How]:
    """Return the groups of exact and near copies among *indices*, in their order, and how near copies differ."""
    stand_in = {index: group[0] for group in copies for index in group}
    compared = [
        index
        for index in indices
        if stand_in.get(index, index) == index and Oddity.BLANK not in audited.checks[index].oddities
    ]
    near = find_near_duplicates(audited.grey, audited.colour, threads, np.array(compared, np.intp))
    groups = {group[0]: list(group) for group in copies}
    for members in near.groups:
        joined = [index for member in members for index in groups.pop(member, [member])]
        groups[min(joined)] = sorted(joined)
    return [groups[first] for first in sorted(groups)], near.how


def describe_copies(images: Sequence[Image], group: Group, digests: Sequence[bytes], how: How) -> list[Finding]:
    """Return the findings on one group of copies."""
    name = images[group[0]].path
    contents = Counter(digests[index] for index in group)
    findings = []
    for index in group:
        image, digest = images[index], digests[index]
        if contents[digest] > 1:
            twin = next(other for other in group if other != index and digests[other] == digest)
            findings.append(Finding(image.path, audit_csv.DUPLICATE, KEPT, name, f"exact copy of {images[twin].path}"))
        if len(contents) > 1:
            others = [other for other in group if digests[other] != digest]
            foreign = [other for other in others if images[other].label != image.label]
            pairs = [(min(index, other), max(index, other)) for other in foreign or others]
            pair = next((pair for pair in pairs if pair in how), pairs[0])  # rather one of which there is more to say
            words = f" ({how[pair]})" if pair in how else ""
            detail = f"{LOOKS_LIKE}{images[sum(pair) - index].path}{words}" + (OF_ANOTHER_CLASS if foreign else "")
            findings.append(Finding(image.path, NEAR_DUPLICATE, KEPT, name, detail))
    return findings


RANK = {"": 0} | {split: rank for rank, split in enumerate(SPLITS)}


def find_copies_across_splits(images: Sequence[Image], groups: Iterable[Group]) -> list[Finding]:
    """Return which images have copies in another given split."""
    findings = []
    for group in groups:
        ranks = [RANK[images[index].split] for index in group]
        name = images[group[0]].path
        for index, rank in zip(group, ranks, strict=True):
            if rank < max(ranks):
                detail = f"a higher part has a copy: {images[group[ranks.index(max(ranks))]].path}"
                findings.append(Finding(images[index].path, audit_csv.TRAIN_COPY, audit_csv.LEFT_OUT, name, detail))
            if rank > min(ranks):
                detail = f"a lower part has a copy: {images[group[ranks.index(min(ranks))]].path}"
                findings.append(Finding(images[index].path, CONTAMINATED, KEPT, name, detail))
    return findings


def find_groups_across_splits(
    images: Sequence[Image], indices: Sequence[int], pattern: str | None, known: set[str]
) -> list[Finding]:
    """Return which images of a given val or test, other than *known* ones, are of a group that a lower split has."""
    if not pattern:
        return []
    compiled = group_pattern(pattern)
    groups: dict[str, Group] = defaultdict(list)
    for index in indices:
        if name := group_of(images[index].path, compiled):
            groups[name].append(index)
    findings = []
    for name, group in sorted(groups.items()):
        lowest = min(group, key=lambda index: RANK[images[index].split])
        for index in group:
            if RANK[images[index].split] > RANK[images[lowest].split] and images[index].path not in known:
                detail = f"a lower part has images of its group {name!r}: {images[lowest].path}"
                findings.append(Finding(images[index].path, CONTAMINATED, KEPT, "", detail))
    return findings


def summarise(images: Sequence[Image], checks: Sequence[Checked], findings: Sequence[Finding]) -> dict[str, Any]:
    """Return what audit.json says."""
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    for image in images:
        classes[image.label][image.split or audit_csv.WHOLE] += 1
    sizes = [sum(counts.values()) for counts in classes.values()]
    readable = [checked for checked in checks if checked.status is Status.READABLE]
    outside = outside_square(images, checks)
    return {
        "images": len(images),
        "set_aside": len({row.file for row in findings if row.action == SET_ASIDE}),
        "left_out": len({row.file for row in findings if row.action == audit_csv.LEFT_OUT}),
        "findings": dict(sorted(Counter(row.finding for row in findings).items())),
        "classes": {
            label: {split: counts[split] for split in (audit_csv.WHOLE, *SPLITS) if split in counts}
            for label, counts in sorted(classes.items())
        },
        "formats": dict(sorted(Counter(checked.format for checked in readable).items())),
        "widths": _spread([checked.width for checked in readable]),
        "heights": _spread([checked.height for checked in readable]),
        "imbalance": round(max(sizes) / min(sizes), 3),
        "outside_square": outside,
        "notes": [
            *notes_on_classes(sorted(classes)),
            *notes_on_copies(findings),
            *notes_on_shapes(outside, _share_of_cut_outs(readable)),
        ],
    }


def outside_square(images: Sequence[Image], checks: Sequence[Checked]) -> dict[str, Any]:
    """Return the share of the pixels of an image, 0 to 1, that `fit: crop` leaves out: on average, and where most."""
    shares = [
        (cropped_share(checked.width, checked.height), image.path)
        for image, checked in zip(images, checks, strict=True)
        if checked.status is Status.READABLE
    ]
    if not shares:
        return {}
    most, path = max(shares, key=lambda share: share[0])
    mean = math.fsum(share for share, _ in shares) / len(shares)
    return {"mean": round(mean, 4), "most": round(most, 4), "file": path}


def _share_of_cut_outs(readable: Sequence[Checked]) -> float:
    return sum(Oddity.ALPHA in checked.oddities for checked in readable) / max(1, len(readable))


def notes_on_shapes(outside: Mapping[str, Any], cut_outs: float) -> list[str]:
    """Return a sentence on images of which a crop shows little, if they are so on average.

    Parameters
    ----------
    outside : of :func:`outside_square`.
    cut_outs : share of the images that are transparent.
    """
    are_cut_outs = cut_outs > 0.5
    if outside.get("mean", 0) <= (MOST_OUTSIDE_CUT_OUTS if are_cut_outs else MOST_OUTSIDE):
        return []
    mean, most = (f"{100 * outside[key]:.0f} %" for key in ("mean", "most"))
    left_out = f"fit: crop leaves out {mean} of the pixels of an image on average, {most} of {outside['file']}"
    if are_cut_outs:
        return [f"{left_out}: try fit: pad, which was more accurate on other transparent images"]
    return [f"{left_out}: fit: pad or squash shows the network all of it"]


def judge_depth(checks: Sequence[Checked], bit_depth: int | None) -> list[str]:
    """Return what there is to say of the bits that images of 16 bits a channel use: one rule holds for all of them.

    Parameters
    ----------
    bit_depth : what the user says; None: nothing.

    Raises
    ------
    UserError : nobody said anything, and most of the images would be nearly black; a single bright one, or one broken
        pixel, does not hide that.
    """
    peaks = [checked.peak for checked in checks if checked.status is Status.READABLE and checked.peak]
    if not peaks:
        return []
    highest, dark = max(peaks), [peak for peak in peaks if peak.bit_length() <= DARK_DEPTH]
    of_these = f"{plural(len(peaks), 'image')} of 16 bits a channel: the largest value is {highest:,}"
    if bit_depth is None and 2 * len(dark) > len(peaks):
        most = "" if len(dark) == len(peaks) else f", but {max(dark):,} in {len(dark)} of them"
        remedy = f"set dataset.bit_depth: {max(9, max(dark).bit_length())} (or 16, to train on them as they are)"
        raise UserError(f"{of_these}{most}, so that they would be nearly black", remedy)
    white = sum(peak >> (bit_depth or FULL_DEPTH) > 0 for peak in peaks)
    clipped = f"; in {plural(white, 'image')} some are larger than that, and become white" if white else ""
    black = f"; {len(dark)} of them have no value above {max(dark):,}: nearly black" if dark and not bit_depth else ""
    return [f"{of_these}; they are scaled as {bit_depth or FULL_DEPTH} bits (dataset.bit_depth){clipped}{black}"]


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


def notes_on_groups(paths: Sequence[str], pattern: str) -> list[str]:
    """Return a sentence on the images that are in no known group, if there are any."""
    alone = [path for path in paths if not group_of(path, pattern)]
    if not alone:
        return []
    images = f"{len(alone):,} of {plural(len(paths), 'image')}"
    return [f"dataset.split.group_by: {images} do not match, for example {alone[0]!r}: each is a group of its own"]


def notes_on_copies(findings: Sequence[Finding]) -> list[str]:
    """Return a sentence on the near copies whose labels contradict each other, if there are any."""
    contradicting = [row for row in findings if row.finding == NEAR_DUPLICATE and row.detail.endswith(OF_ANOTHER_CLASS)]
    if not contradicting:
        return []
    first = contradicting[0]
    look = f"{plural(len(contradicting), 'image')} {'looks' if len(contradicting) == 1 else 'look'}"
    return [
        f"{look} like one of another class, {first.file} like"
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
    bad = [row for row in findings if row.action == SET_ASIDE]
    if not bad:
        return
    audit_csv.write_findings(listing, bad)
    first = "; ".join(f"{row.file} ({row.finding}: {row.detail})" for row in bad[:LISTED])
    more = f" and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
    raise UserError(
        f"{folder}: {plural(len(bad), 'image')} cannot be used: {first}{more}; all are in {listing}:"
        " repair or remove them in the source, or let dataset.on_bad_image be set_aside"
    )
