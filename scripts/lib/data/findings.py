"""What an audit of the images found: audit.csv and audit.json, which carry it to the split and the report."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from scripts.lib.base.files import atomic_path
from scripts.lib.base.language import tr
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural

#: What became of an image: never used; not used for training; used.
SET_ASIDE, LEFT_OUT, KEPT = "set_aside", "left_out", "kept"
#: An image that is not used, since a higher given split has a copy; and one of whose kind a lower split has another.
TRAIN_COPY, CONTAMINATED = "leak", "leaked"  # aliases of long standing in audit.csv
#: What a person decided about an image: another class, or to do without it.
RELABELLED, DROPPED = "relabelled", "dropped"
DUPLICATE, NEAR_DUPLICATE, CONFLICTING_LABELS = "duplicate", "near_duplicate", "conflicting_labels"
#: How the detail of a near copy begins, and how it ends where its like has another class.
LOOKS_LIKE, OF_ANOTHER_CLASS = "looks like ", ", of another class"
#: In audit.json, the split of the images of a data set that brings no splits.
WHOLE = "all"


@dataclass(frozen=True)
class Finding:
    """A row of audit.csv.

    ``file``: relative to images/; ``group``: findings of one group are about copies of each other, "" where there is
    none; ``detail``: for the reader.
    """

    file: str
    finding: str
    action: str
    group: str
    detail: str


COLUMNS = tuple(field.name for field in fields(Finding))


def write_findings(path: Path, findings: Iterable[Finding]) -> None:
    """Write audit.csv, atomically."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(astuple(finding) for finding in findings)


def read_findings(path: Path) -> list[Finding]:
    """Read audit.csv.

    Raises
    ------
    UserError : it is missing, or not a file of this form.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = csv.reader(file, strict=True)
            if tuple(next(rows, ())) != COLUMNS:
                raise UserError(f"{path}: not an audit.csv (columns {', '.join(COLUMNS)}); make it again")
            return [Finding(*row) for row in rows]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; make it with scripts.data.audit_images") from None
    except (OSError, csv.Error, UnicodeDecodeError, TypeError) as error:
        raise UserError(f"{path}: not an audit.csv ({error}); make it again") from error


def read_summary(path: Path) -> dict[str, Any]:
    """Read audit.json.

    Raises
    ------
    UserError : it is missing, or not a file of this form.
    """
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        int(summary["images"]), int(summary["set_aside"]), int(summary["left_out"])
        dict(summary["findings"]), dict(summary["classes"])
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; make it with scripts.data.audit_images") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the summary of an audit ({error!r}); make it again") from error
    return dict(summary)


def has_given_splits(summary: Mapping[str, Any]) -> bool:
    """Tell whether the data set brought its splits, as folders above the classes."""
    return any(split != WHOLE for counts in summary["classes"].values() for split in counts)


def label_of(file: str, given_splits: bool) -> str:
    """Return the class of an image, the name of its folder.

    >>> label_of("train/apple/red/1.jpg", given_splits=True), label_of("apple/1.jpg", given_splits=False)
    ('apple', 'apple')
    """
    folders = file.split("/")[:-1][int(given_splits) :]
    return folders[0] if folders else ""


def still_trained_on(findings: Sequence[Finding]) -> list[str]:
    """Return the contaminated files whose like was not left out of the lower split: of a known group, not copies."""
    mended = {row.group for row in findings if row.finding == TRAIN_COPY and row.action == LEFT_OUT and row.group}
    return sorted({row.file for row in findings if row.finding == CONTAMINATED and row.group not in mended})


def verdict(summary: Mapping[str, Any]) -> str:
    """Return what the audit found in a sentence or two: the first line of the page, and a line of the model card."""
    total, counts = int(summary["images"]), Counter(summary["findings"])
    aside, left_out, contaminated = int(summary["set_aside"]), int(summary["left_out"]), counts[CONTAMINATED]
    left_out -= counts[DROPPED]  # by the user: the page and the notes say so
    if aside:
        text = tr(f"{aside:,} of {plural(total, 'image')} {_was(aside)} set aside")
    else:
        text = tr(f"None of {plural(total, 'image')} had to be set aside")
    if contaminated:
        out = tr(f"; {left_out:,} {_was(left_out)} left out of training for it") if left_out else ""
        are = "is" if contaminated == 1 else "are"
        first = tr(
            f"Contaminated: {plural(contaminated, 'given val or test image')} {are} in a lower split too, as a copy,"
            " near copy or by its group"
        )
        return f"{first}{out}{tr('. ')}{text}{tr('.')}"
    words = {DUPLICATE: "copy", NEAR_DUPLICATE: "near copy"}
    copies = [tr(plural(counts[name], word)) for name, word in words.items() if counts[name]]
    if copies:
        stay = "stays" if counts[DUPLICATE] + counts[NEAR_DUPLICATE] == 1 else "stay"
        text += tr(f", {tr(' and ').join(copies)} {stay} in one split")
    if left_out:
        text += tr(f", {left_out:,} {_was(left_out)} left out of training")
    return text + tr(", none is contaminated.")


def _was(count: int) -> str:
    return "was" if count == 1 else "were"
