"""corrections.csv: what a person decided about labels: another class, the same one, or without the image.

A row is about the content of a file, by its sha256, so that it holds wherever the file is moved; the path is for
people, and is used where a row has no sha256. Images are never altered.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from scripts.lib.base.files import atomic_path
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.data.findings import DROPPED, KEPT, LEFT_OUT, RELABELLED, Finding
from scripts.lib.data.splits import Image, Split

#: What is decided: the image is of ``new_label``; it is left out; its label is right.
RELABEL, DROP, KEEP = "relabel", "drop", "keep"
SHA256 = re.compile(r"[0-9a-f]{64}")
#: More bytes than these no table of corrections has.
MOST_BYTES = 200_000_000


@dataclass(frozen=True)
class Correction:
    """A row of corrections.csv; ``line``: where it stands."""

    sha256: str
    path: str
    label: str
    new_label: str
    action: str
    line: int = 0

    def as_row(self) -> dict[str, str]:
        """Return the columns."""
        return {name: getattr(self, name) for name in COLUMNS}

    @property
    def right_label(self) -> str:
        """The class that the image is of by this decision; empty where it is left out."""
        return {RELABEL: self.new_label, KEEP: self.label}.get(self.action, "")


COLUMNS = tuple(field.name for field in fields(Correction))[:-1]


def read_corrections(path: Path) -> list[Correction]:
    """Read corrections.csv, or corrected.csv of audit_images, which has the same form.

    Raises
    ------
    UserError : it is missing, or not of this form: one line that names the row.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path}: more than {MOST_BYTES:,} bytes are no table of corrections")
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = tuple(next(rows, ()))
            if header != COLUMNS:
                raise UserError(
                    f"{path}: the first line must be {','.join(COLUMNS)}", "save it from the page of the suspects"
                )
            return [_correction(path, row, rows.line_num) for row in rows if any(row)]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file: check dataset.corrections") from None
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        remedy = "save it again, in Excel as 'CSV UTF-8 (comma delimited)'"
        raise UserError(f"{path}: not a table of corrections in UTF-8 ({error})", remedy) from error


def _correction(path: Path, row: Sequence[str], line: int) -> Correction:
    where = f"{path}, line {line}"
    if len(row) != len(COLUMNS):
        raise UserError(f"{where}: {len(row)} columns instead of {len(COLUMNS)}: {','.join(COLUMNS)}")
    sha256, image, label, new_label, action = row
    correction = Correction(sha256.strip().lower(), image, label, new_label, action.strip().lower(), line)
    if correction.sha256 and not SHA256.fullmatch(correction.sha256):
        raise UserError(f"{where}: {correction.sha256[:80]!r} is no sha256 of 64 hexadecimal digits")
    if not (correction.sha256 or correction.path):
        raise UserError(f"{where}: it names no image: give sha256 or path")
    if correction.action not in (RELABEL, DROP, KEEP):
        raise UserError(f"{where}: the action {row[-1][:80]!r} is none of {RELABEL}, {DROP}, {KEEP}")
    if correction.action == RELABEL and not correction.new_label:
        raise UserError(f"{where}: {RELABEL} without a new_label")
    return correction


def write_corrections(path: Path, corrections: Iterable[Correction]) -> None:
    """Write a table of corrections, atomically."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(astuple(correction)[:-1] for correction in corrections)


def resolve(
    corrections: Sequence[Correction], labels: Mapping[str, str], digests: Mapping[str, str], file: Path
) -> list[Correction]:
    """Return the decision on each image that one is about, by its path now, in the order of the images.

    Parameters
    ----------
    labels : the class of each image, by its path.
    digests : the sha256 of each image that can be read, by its path.
    file : where the corrections are from, for messages.

    Raises
    ------
    UserError : an image is not there, a class is unknown, two decisions on one image differ, or the image has got
        another label since.
    """
    by_sha256: dict[str, list[str]] = defaultdict(list)
    for path, sha256 in digests.items():
        by_sha256[sha256].append(path)
    decided: dict[str, Correction] = {}
    unknown: list[Correction] = []
    for correction in corrections:
        paths = by_sha256.get(correction.sha256 or digests.get(correction.path, ""), [])
        if not paths:
            unknown.append(correction)
            continue
        _check_labels(correction, {labels[path] for path in paths}, set(labels.values()), file)
        for path in paths:
            other = decided.setdefault(path, correction)
            if (other.action == DROP, other.right_label) != (correction.action == DROP, correction.right_label):
                raise UserError(
                    f"{file}, lines {other.line} and {correction.line}: two decisions on one image, {path}",
                    "remove one of them",
                )
    if unknown:
        _refuse_unknown(unknown, len(corrections), file)
    return [
        Correction(digests[path], path, label, decided[path].right_label, _action_on(label, decided[path]))
        for path, label in labels.items()
        if path in decided
    ]


def _action_on(label: str, correction: Correction) -> str:
    """Return what a decision means for a copy with this label."""
    if correction.action == DROP:
        return DROP
    return KEEP if correction.right_label in ("", label) else RELABEL


def _check_labels(correction: Correction, current: set[str], classes: set[str], file: Path) -> None:
    where = f"{file}, line {correction.line}"
    right = correction.right_label
    if right and right not in classes:
        close = difflib.get_close_matches(right, classes, n=3) or sorted(classes)[:5]
        raise UserError(
            f"{where}: there is no class {right!r}; there are {', '.join(map(repr, close))}",
            "a new class needs a folder with images of its own",
        )
    if correction.label and not current & {correction.label, right}:
        now = ", ".join(map(repr, sorted(current)))
        raise UserError(
            f"{where}: the label of {correction.path or correction.sha256} was {correction.label!r} when this was"
            f" decided, and is {now} now",
            "look at it again, or remove the line",
        )


def _refuse_unknown(unknown: Sequence[Correction], total: int, file: Path) -> None:
    first = unknown[0]
    if len(unknown) == total:
        raise UserError(f"{file}: none of its {total} images is in this data set: it was made for another one")
    what = f"{first.path or 'an image'} with sha256 {first.sha256}" if first.sha256 else first.path
    more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
    raise UserError(
        f"{file}, line {first.line}: {what}{more} is not in this data set, or cannot be read",
        "remove the line, or bring the file back as it was",
    )


def corrected_images(images: Iterable[Image], decided: Iterable[Correction]) -> list[Image]:
    """Return the images that were not dropped, with the labels that they have by these decisions."""
    by_path = {correction.path: correction for correction in decided}
    kept = []
    for image in images:
        correction = by_path.get(image.path)
        if correction is None or correction.action == KEEP:
            kept.append(image)
        elif correction.action == RELABEL:
            kept.append(replace(image, label=correction.new_label))
    return kept


def findings_of(decided: Iterable[Correction], file: Path) -> list[Finding]:
    """Return what the audit says of the images that were changed."""
    rows = []
    for correction in decided:
        if correction.action == RELABEL:
            detail = f"{correction.label!r} became {correction.new_label!r} by {file.name}"
            rows.append(Finding(correction.path, RELABELLED, KEPT, "", detail))
        elif correction.action == DROP:
            rows.append(Finding(correction.path, DROPPED, LEFT_OUT, "", f"dropped by {file.name}"))
    return rows


def note_on(decided: Sequence[Correction], file: Path, sha256: str) -> str:
    """Return a sentence on what a file of corrections changed."""
    counts = Counter(correction.action for correction in decided)
    return (
        f"{file.name} (sha256 {sha256[:16]}) corrects {plural(counts[RELABEL], 'label')}, drops"
        f" {plural(counts[DROP], 'image')}, and confirms {plural(counts[KEEP], 'label')}"
    )


def in_their_class(images: Iterable[Image], decided: Iterable[Correction], classes: Iterable[str]) -> list[Image]:
    """Return the images with their labels of before, except where a class that is not used comes in or goes out.

    The split is drawn by the labels of before, so that the same images are in test whatever is corrected.
    """
    new = {correction.path: correction.new_label for correction in decided if correction.action == RELABEL}
    used = set(classes)
    return [
        replace(image, label=new[image.path])
        if image.path in new and (image.label in used) != (new[image.path] in used)
        else image
        for image in images
    ]


def relabelled(split: Split, decided: Iterable[Correction], classes: Sequence[str]) -> Split:
    """Return a split with the corrected labels, and without the images that were dropped.

    Raises
    ------
    UserError : no image of some class is left in it.
    """
    images = corrected_images(
        (Image(path, classes[label]) for path, label in zip(split.images, split.labels, strict=True)), decided
    )
    corrected = Split.of(split.name, images, classes)
    if gone := [classes[label] for label in sorted(set(split.labels) - set(corrected.labels))]:
        raise UserError(
            f"dataset.corrections: after them {split.name} has no image of {gone[0]!r}",
            "correct fewer of its images, add some, or name the other classes in dataset.classes",
        )
    return corrected
