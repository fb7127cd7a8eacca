"""label_suspects.csv: the images whose label may be wrong, the most striking first."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from scripts.lib.base.files import atomic_path
from scripts.lib.base.problems import UserError

#: Images of each of the two classes that stand beside a suspect.
NEIGHBOURS = 3
_NEAR = ("near_label", "near_suggested")


@dataclass(frozen=True)
class LabelSuspect:
    """A row of label_suspects.csv.

    Attributes
    ----------
    path : relative to images/; of several with the same bytes, the first.
    label, suggested : the class that it has, and the one that it is more likely of.
    confidence : that the label is wrong, 0 to 1: what the label's probability lacks to 1; the rows are sorted by it.
    label_probability, suggested_probability : by a probe that was fitted without this image and its copies.
    split : train, val or test; empty where there are folds.
    sha256 : of the file.
    near_label, near_suggested : the images of either class that are most like it, NEIGHBOURS at most; a column for
        each (``near_label_1``, ...).
    """

    path: str
    label: str
    suggested: str
    confidence: float
    label_probability: float
    suggested_probability: float
    split: str
    sha256: str
    near_label: tuple[str, ...] = ()
    near_suggested: tuple[str, ...] = ()


_PLAIN = tuple(field.name for field in fields(LabelSuspect) if field.name not in _NEAR)
_NUMBERS = ("confidence", "label_probability", "suggested_probability")
COLUMNS = (*_PLAIN, *(f"{name}_{number}" for name in _NEAR for number in range(1, NEIGHBOURS + 1)))


def write_suspects(path: Path, suspects: Iterable[LabelSuspect]) -> None:
    """Write label_suspects.csv, atomically."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for suspect in suspects:
            row = asdict(suspect)
            near = {f"{name}_{number}": like for name in _NEAR for number, like in enumerate(row.pop(name), 1)}
            writer.writerow(row | {name: f"{row[name]:.4f}" for name in _NUMBERS} | near)


def read_suspects(path: Path) -> list[LabelSuspect]:
    """Read label_suspects.csv.

    Raises
    ------
    UserError : it is missing, or not a file of this form.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            if tuple(rows.fieldnames or ()) != COLUMNS:
                raise UserError(f"{path}: not a label_suspects.csv (columns {', '.join(COLUMNS)}); make it again")
            return [_suspect(row) for row in rows]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; make it with scripts.data.find_label_suspects") from None
    except (OSError, csv.Error, ValueError, TypeError) as error:
        raise UserError(f"{path}: not a label_suspects.csv ({error}); make it again") from error


def _suspect(row: dict[str, str]) -> LabelSuspect:
    values: dict[str, object] = {name: float(row[name]) if name in _NUMBERS else row[name] for name in _PLAIN}
    for name in _NEAR:
        values[name] = tuple(filter(None, (row[f"{name}_{number}"] for number in range(1, NEIGHBOURS + 1))))
    return LabelSuspect(**values)  # type: ignore[arg-type]
