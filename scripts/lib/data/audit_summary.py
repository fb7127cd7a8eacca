"""What audit_images found: audit.json, and what it and the findings say in one sentence."""

from __future__ import annotations

import json
import statistics
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.data import findings as audit_csv
from scripts.lib.data.findings import (
    CONTAMINATED,
    LEFT_OUT,
    LOOKS_LIKE,
    NEAR_DUPLICATE,
    OF_ANOTHER_CLASS,
    WHOLE,
    Finding,
)
from scripts.lib.data.image_checks import Checked, Status
from scripts.lib.data.splits import SPLITS, Image


def summarise(images: Sequence[Image], checks: Sequence[Checked], findings: Sequence[Finding]) -> dict[str, Any]:
    """Return what audit.json says."""
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    for image in images:
        classes[image.label][image.split or WHOLE] += 1
    sizes = [sum(counts.values()) for counts in classes.values()]
    readable = [checked for checked in checks if checked.status is Status.READABLE]
    return {
        "images": len(images),
        "set_aside": len({row.file for row in findings if row.action == audit_csv.SET_ASIDE}),
        "left_out": len({row.file for row in findings if row.action == LEFT_OUT}),
        "findings": dict(sorted(Counter(row.finding for row in findings).items())),
        "classes": {
            label: {split: counts[split] for split in (WHOLE, *SPLITS) if split in counts}
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
    contradicting = [row for row in findings if row.finding == NEAR_DUPLICATE and row.detail.endswith(OF_ANOTHER_CLASS)]
    if not contradicting:
        return []
    first = contradicting[0]
    return [
        f"{len(contradicting)} images look like one of another class, {first.file} like"
        f" {first.detail.removeprefix(LOOKS_LIKE).removesuffix(OF_ANOTHER_CLASS)} for one: a label of each pair may be"
        " wrong"
    ]


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
    mended = {
        row.group for row in findings if row.finding == audit_csv.TRAIN_COPY and row.action == LEFT_OUT and row.group
    }
    return sorted({row.file for row in findings if row.finding == CONTAMINATED and row.group not in mended})


def verdict(summary: Mapping[str, Any]) -> str:
    """Return what the audit found in a sentence or two: the first line of the page, and a line of the model card."""
    total, counts = int(summary["images"]), Counter(summary["findings"])
    aside, left_out, contaminated = int(summary["set_aside"]), int(summary["left_out"]), counts[CONTAMINATED]
    if aside:
        text = f"{aside:,} of {plural(total, 'image')} {_was(aside)} set aside"
    else:
        text = f"None of {plural(total, 'image')} had to be set aside"
    if contaminated:
        out = f"; {left_out:,} {_was(left_out)} left out of training for it" if left_out else ""
        are = "is" if contaminated == 1 else "are"
        return (
            f"Contaminated: {plural(contaminated, 'given val or test image')} {are} in a lower split too, as a copy,"
            f" near copy or by its group{out}. {text}."
        )
    words = {audit_csv.DUPLICATE: "copy", NEAR_DUPLICATE: "near copy"}
    copies = [plural(counts[name], word) for name, word in words.items() if counts[name]]
    if copies:
        stay = "stays" if counts[audit_csv.DUPLICATE] + counts[NEAR_DUPLICATE] == 1 else "stay"
        text += f", {' and '.join(copies)} {stay} in one split"
    if left_out:
        text += f", {left_out:,} {_was(left_out)} left out of training"
    return f"{text}, none is contaminated."


def _was(count: int) -> str:
    return "was" if count == 1 else "were"
