"""Which images the page of a data set shows as examples of a finding, and small pictures of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from scripts.lib.base.problems import UserError
from scripts.lib.data.findings import CONFLICTING_LABELS, CONTAMINATED, DUPLICATE, NEAR_DUPLICATE, TRAIN_COPY, Finding
from scripts.lib.data.splits import SPLITS
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


def open_small(path: Path, closed: bool) -> tuple[Picture | None, str]:
    """Return a small picture of an image, or None and why there is none; *closed*: it must not be opened."""
    if closed:
        return None, "not opened"
    if is_too_large(path):
        return None, "too large to show"
    try:
        return Picture.of(thumbnail(path, LONGEST)), ""
    except UserError:
        return None, "no picture"


def is_too_large(path: Path) -> bool:
    """Tell from its header alone whether an image is too large to be decoded for a small picture of it."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * LONGEST, 2 * LONGEST))
            return image.width * image.height > MOST_PIXELS
    except Image.DecompressionBombError:
        return True
    except (OSError, SyntaxError, ValueError):
        return False  # no image at all: thumbnail() says so
