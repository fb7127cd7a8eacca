"""Read annotation files as mmcls reads them: a line `path label` an image; a file with the names of the classes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from scripts.lib.base.problems import UserError
from scripts.lib.data.image_paths import is_image
from scripts.lib.data.label_text import KEY


@dataclass(frozen=True, slots=True)
class Row:
    """What a file of labels says of one image; ``split`` is "" where it says none; ``source``: file and line."""

    file: str
    label: str
    split: str
    source: tuple[str, int]

    def __str__(self) -> str:
        return f"{self.source[0]}, line {self.source[1]}"


def lines_of(text: str) -> list[str]:
    """Return the lines of a file, whose ends may be those of any system."""
    # Not splitlines(): it would also split at U+2028 and form feeds, which names may hold.
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read_annotations(name: str, text: str, split: str, classes: Sequence[str] | None = None) -> list[Row]:
    """Return the rows of a file with lines ``path label``; a path may hold blanks, a label only as *classes* has it.

    Raises
    ------
    UserError : a line has fewer columns or more, or its path comes last.
    """
    rows = []
    by_length = sorted(classes or (), key=len, reverse=True)
    spaced = [label for label in by_length if any(char.isspace() for char in label)]
    for number, line in enumerate(lines_of(text), 1):
        line = line.strip()
        if not line:
            continue
        label = next((label for label in spaced if line.endswith((f" {label}", f"\t{label}"))), None)
        if label is None:
            pieces = line.split("\t") if line.count("\t") == 1 else line.rsplit(maxsplit=1)
            if len(pieces) != 2:
                raise UserError(f"{KEY}: {name}, line {number}: expected `path label`, not {line[:80]!r}")
            label = pieces[1].strip()
        file = line[: len(line) - len(label)].strip()
        if not is_image(file):
            _check_columns(f"{KEY}: {name}, line {number}", line, file, label)
        rows.append(Row(file, label, split, (name, number)))
    if not rows:
        raise UserError(f"{KEY}: {name} is empty: it must have a line `path label` an image")
    return rows


def _check_columns(where: str, line: str, file: str, label: str) -> None:
    """Refuse a line whose image is not all that stands before the label."""
    if any(map(is_image, file.split())):
        columns = line.split("\t") if "\t" in line else line.split()
        raise UserError(
            f"{where}: {len(columns)} columns, where `path label` has two: {line[:80]!r}",
            "leave path and label, a tab before a label of several words; or write a table with the heading"
            " file,label,split",
        )
    if is_image(label):
        raise UserError(f"{where}: the path of the image comes last: {line[:80]!r}", "write it first: path label")


def name_labels(rows: Sequence[Row], classes: Sequence[str], name: str) -> list[Row]:
    """Return *rows* with the names of their classes: labels are all positions in *classes*, from 0, or all names.

    Raises
    ------
    UserError : a label is neither.
    """
    names = {str(index): label for index, label in enumerate(classes)}
    # As mmcls reads them: a number is a position, also where a class is called by a number.
    if all(row.label in names for row in rows):
        return [replace(row, label=names[row.label]) for row in rows]
    known = set(classes)
    # What is neither comes before a position where others are names.
    for row in sorted(rows, key=lambda row: row.label in names):
        if row.label not in known:
            close = difflib.get_close_matches(row.label, classes, n=1)
            hint = f", the closest is {close[0]!r}" if close else ""
            raise UserError(
                f"{KEY}: {row}: {row.label!r} is neither one of the {len(classes)} classes in {name}{hint},"
                f" nor are all labels positions in it (0 to {len(classes) - 1})"
            )
    return list(rows)
