"""The findings of an audit, and audit.csv, which carries them from audit_images to the split and the report."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from scripts.lib.base.files import atomic_path
from scripts.lib.base.problems import UserError

#: What became of an image: never used; not used for training; used.
SET_ASIDE, LEFT_OUT, KEPT = "set_aside", "left_out", "kept"
#: An image that is not used, since a higher given split has a copy; and one of whose kind a lower split has another.
TRAIN_COPY, CONTAMINATED = "leak", "leaked"  # aliases of long standing in audit.csv
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
