"""The page of a data set: what the audit found, its classes, sizes and examples."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from markupsafe import Markup
from PIL import Image

from scripts.lib.base import ranges
from scripts.lib.base.language import tr
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.data import findings
from scripts.lib.data.findings import (
    CONFLICTING_LABELS,
    CONTAMINATED,
    DUPLICATE,
    NEAR_DUPLICATE,
    TRAIN_COPY,
    Finding,
    has_given_splits,
    label_of,
    still_trained_on,
    verdict,
)
from scripts.lib.data.reading import WHITE
from scripts.lib.data.splits import SPLITS, Splits
from scripts.lib.pages import templates
from scripts.lib.pages.data_summary import assumptions, meanings, order_of
from scripts.lib.pages.thumbnails import Picture, thumbnail

#: Pixels of the longer side of a picture.
LONGEST = 128
#: Of each finding; and of the pictures of one group of copies.
MOST_EXAMPLES, MOST_IN_GROUP = 12, 3
#: Pixels beyond which an image is not opened for an example, unless its format can be decoded at a fraction (JPEG).
MOST_PIXELS = 40_000_000
#: Findings whose files are never opened: the decoder's answer is known, or it is a bomb.
NEVER_OPENED = ("too_many_pixels", "unreadable", "truncated")
#: Findings whose examples are groups of copies side by side.
OF_GROUPS = (CONTAMINATED, CONFLICTING_LABELS, NEAR_DUPLICATE, DUPLICATE)


def group_of(row: Finding) -> str:
    """Return the group of a row; without one it is a group of its own."""
    return row.group or f"file:{row.file}"


def choose_examples(name: str, rows: Sequence[Finding], findings: Sequence[Finding]) -> list[list[Finding]]:
    """Return the examples of a finding, each a list of rows: the members of a group, or one image.

    Examples of more classes come first, as far as they go: a dozen of one class say little.
    """
    if name not in OF_GROUPS:
        return [[row] for row in _spread(rows)[:MOST_EXAMPLES]]
    first = {group_of(row): row for row in reversed(rows)}
    wanted = [group_of(row) for row in _spread(list(first.values())[::-1])[:MOST_EXAMPLES]]
    rank = {TRAIN_COPY: 0, CONTAMINATED: 1}  # the row that says most of a file
    of_group: dict[str, dict[str, Finding]] = {group: {} for group in wanted}
    of_these = [row for row in findings if group_of(row) in of_group]
    for row in sorted(of_these, key=lambda row: (row.finding != name, rank.get(row.finding, 2), row.file)):
        if row.group or row.finding == name:
            of_group[group_of(row)].setdefault(row.file, row)
    return [sorted(of_group[group].values(), key=_split_and_file) for group in wanted]


def _split_and_file(row: Finding) -> tuple[int, str]:
    """Sort train before val before test, where the images have given splits."""
    split = row.file.split("/")[0]
    return SPLITS.index(split) if split in SPLITS else 0, row.file


def _spread(rows: Sequence[Finding]) -> list[Finding]:
    """Return rows of as many folders as there are, one of each in turn."""
    seen: Counter[str] = Counter()
    turns: list[tuple[int, Finding]] = []
    for row in rows:
        folder = row.file.rpartition("/")[0]
        turns.append((seen[folder], row))
        seen[folder] += 1
    return [row for _, row in sorted(turns, key=lambda turn: turn[0])]


def of_all_folders(rows: Sequence[Finding]) -> list[Finding]:
    """Return MOST_IN_GROUP rows of as many folders as there are, in the order of *rows*."""
    chosen = {row.file for row in _spread(rows)[:MOST_IN_GROUP]}
    return [row for row in rows if row.file in chosen]


def open_small(path: Path, closed: bool, background: tuple[int, int, int] = WHITE) -> tuple[Picture | None, str]:
    """Return a small picture of an image, or None and why there is none; *closed*: it must not be opened."""
    if closed:
        return None, "not opened"
    if is_too_large(path):
        return None, "too large to show"
    try:
        return Picture.of(thumbnail(path, LONGEST, background)), ""
    except UserError:
        return None, "no picture"


def is_too_large(path: Path) -> bool:
    """Tell from its header alone whether an image is too large to be decoded for a small picture of it."""
    try:
        with Image.open(io.BytesIO(ranges.read_bytes(path))) as image:
            image.draft("RGB", (2 * LONGEST, 2 * LONGEST))
            return image.width * image.height > MOST_PIXELS
    except Image.DecompressionBombError:
        return True
    except (OSError, SyntaxError, ValueError):
        return False  # no image at all: thumbnail() says so


TITLE = "The data"
#: Characters of HTML that all examples together take at most.
MOST_CHARACTERS = 1_000_000
#: More classes than these have no bars but the largest and the smallest.
MOST_CLASSES = 400
#: More classes than these stand in columns beside each other, where the window is wide enough.
MOST_IN_ONE_COLUMN = 12
DONE = {findings.SET_ASIDE: "Set aside.", findings.LEFT_OUT: "Left out of training.", findings.KEPT: "Used."}


@dataclass(frozen=True)
class Data:
    """All that the page tells."""

    findings: Sequence[Finding]  # audit.csv
    summary: Mapping[str, Any]  # audit.json
    splits: Splits  # the files of train, val and test
    classes: Sequence[str]  # the names, in the order of their labels
    images: Path  # the folder of the files
    background: tuple[int, int, int] = WHITE  # of transparent images
    corrected: Mapping[str, str] = field(default_factory=dict)  # the class of each image with another than its folder's
    labels_page: str = ""  # the name of the page of label suspects beside this one; empty where there will be none

    def label(self, file: str) -> str:
        return self.corrected.get(file) or label_of(file, has_given_splits(self.summary))


def data_page(data: Data, title: str = "") -> str:
    """Return the page."""
    counts = _count_classes(data)
    order = sorted(counts, key=lambda label: (-counts[label].total(), label))
    hidden, half = len(order) - MOST_CLASSES, MOST_CLASSES // 2
    n_found = Counter(row.finding for row in data.findings)
    return templates.page(
        "data.html",
        templates.heading(TITLE) + (f": {title}" if title else ""),
        style=("pictures.css", "data.css"),
        verdict=verdict(data.summary),
        state=_state(data.summary),
        contaminated=_contaminated(data),
        notes=assumptions(data.summary, data.classes),
        findings=[(n_found[name], _meaning(name, data)) for name in order_of(n_found)],
        absent=[meaning["title"] for name, meaning in meanings().items() if not n_found[name]],
        folds=data.splits.folds,
        classes=data.classes,
        splits=SPLITS,
        totals={name: len(split.images) for name, split in data.splits.by_name.items()},
        unused=sum(of_class["unused"] for of_class in counts.values()),
        imbalance=_imbalance({label: counts[label]["train"] for label in data.classes}),
        counts=counts,
        largest=max((counts[label].total() for label in order), default=1),
        shown=order if hidden <= 0 else order[:half] + order[-half:],
        hidden=hidden,
        half=half,
        many=len(order) > MOST_IN_ONE_COLUMN,
        pixels={name: data.summary.get(name) or {} for name in ("widths", "heights")},
        outside=data.summary.get("outside_square"),
        formats=sorted(data.summary.get("formats", {}).items(), key=lambda entry: (-entry[1], entry[0])),
        examples=_examples(data),
        labels_page=data.labels_page,
    )


def _state(summary: Mapping[str, Any]) -> str:
    """Return the class of the verdict: contaminated, aside, or none."""
    return "contaminated" if summary["findings"].get(CONTAMINATED) else "aside" if summary["set_aside"] else ""


def _contaminated(data: Data) -> dict[str, int]:
    """Count the test images, those that are contaminated, and of these those of a group that was trained on."""
    test = data.splits.by_name["test"].images
    images = {row.file for row in data.findings if row.finding == CONTAMINATED}.intersection(test)
    return {
        "test": len(test),
        "images": len(images),
        "trained_on": len(images.intersection(still_trained_on(data.findings))),
    }


def _meaning(name: str, data: Data) -> dict[str, str]:
    """Return the texts of a finding; of one that is not known, what became of its images."""
    if known := meanings().get(name):
        return known
    action = [row.action for row in data.findings if row.finding == name][-1]
    return {"title": name, "meaning": "", "done": tr(DONE.get(action, "")), "advice": ""}


def _count_classes(data: Data) -> dict[str, Counter[str]]:
    """Count the images of each class: of each split, and ``unused``."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for name, split in data.splits.by_name.items():
        for label, n in Counter(map(data.label, split.images)).items():
            counts[label][name] += n
    for label, of_splits in data.summary["classes"].items():
        if (unused := sum(of_splits.values()) - counts[label].total()) > 0:
            counts[label]["unused"] = unused
    return counts


def _imbalance(sizes: Mapping[str, int]) -> dict[str, Any] | None:
    """Return the largest and the smallest class by their images in train, and their ratio; None where one is empty."""
    if not sizes or min(sizes.values()) == 0:
        return None
    largest, smallest = max(sizes, key=sizes.__getitem__), min(sizes, key=sizes.__getitem__)
    ratio = sizes[largest] / sizes[smallest]
    return {"largest": (largest, sizes[largest]), "smallest": (smallest, sizes[smallest]), "ratio": ratio}


def _examples(data: Data) -> list[dict[str, Any]]:
    """Return some examples of each finding; fewer of each where they would make the page too large.

    Of each: title, HTML of its figures, which are of *total* images or groups, and *count*, that number in words.
    """
    by_finding: dict[str, list[Finding]] = defaultdict(list)
    for row in data.findings:
        by_finding[row.finding].append(row)
    contaminated = CONTAMINATED in by_finding
    if contaminated:  # the pair is one example, and not shown a second time as copies
        by_finding.pop(TRAIN_COPY, None)
        groups = {row.group for row in by_finding[CONTAMINATED]} - {""}
        for name in {DUPLICATE, NEAR_DUPLICATE} & by_finding.keys():
            rest = [row for row in by_finding.pop(name) if row.group not in groups]
            by_finding.update({name: rest} if rest else {})
    names = order_of(by_finding)
    sections: dict[str, dict[str, Any]] = {}
    for name in names:
        title, rows, grouped = _meaning(name, data)["title"], by_finding[name], name in OF_GROUPS
        total = len({group_of(row) for row in rows} if grouped else rows)
        sections[name] = {
            "title": f"{title[0].upper()}{title[1:]}",
            "count": plural(total, "group" if grouped else "image"),
            "total": total,
            "besides_copies": contaminated and name in (DUPLICATE, NEAR_DUPLICATE),
            "figures": [],
        }
    examples = {name: choose_examples(name, by_finding[name], data.findings) for name in names}
    closed = {row.file for row in data.findings if row.finding in NEVER_OPENED}
    room = MOST_CHARACTERS
    # The first of each, then the second of each: so that no finding takes another's room.
    for turn in zip_longest(*(examples[name] for name in names)):
        for name, example in zip(names, turn, strict=True):
            if example and room > 0:
                figure = _figure(name, example, data, closed)
                sections[name]["figures"].append(figure)
                room -= len(figure)
    return list(sections.values())


def _figure(name: str, rows: Sequence[Finding], data: Data, closed: Collection[str]) -> Markup:
    """Return the HTML of an example: of a group, its pictures side by side."""
    shown = of_all_folders(rows)
    pictures = (open_small(data.images / row.file, row.file in closed, data.background) for row in shown)
    images = [(row, data.label(row.file), *picture) for row, picture in zip(shown, pictures, strict=True)]
    contaminated = name in (TRAIN_COPY, CONTAMINATED)
    return templates.render("data_example.html", images=images, contaminated=contaminated, more=len(rows) - len(shown))
