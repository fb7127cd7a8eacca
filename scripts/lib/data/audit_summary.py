"""What audit_images found: audit.json, and what it and the findings say in one sentence."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.data.findings import DUPLICATE, LEAK, LEAKED, LEFT_OUT, NEAR_DUPLICATE, WHOLE, Finding


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


def has_parts(summary: Mapping[str, Any]) -> bool:
    """Tell whether the data set brought its parts, as folders above the classes."""
    return any(part != WHOLE for counts in summary["classes"].values() for part in counts)


def label_of(file: str, parts: bool) -> str:
    """Return the class of an image, the name of its folder.

    >>> label_of("train/apple/red/1.jpg", parts=True), label_of("apple/1.jpg", parts=False)
    ('apple', 'apple')
    """
    folders = file.split("/")[:-1][int(parts) :]
    return folders[0] if folders else ""


def still_trained_on(findings: Sequence[Finding]) -> list[str]:
    """Return the contaminated files whose like was not left out of the lower split: of a known group, not copies."""
    mended = {row.group for row in findings if row.finding == LEAK and row.action == LEFT_OUT and row.group}
    return sorted({row.file for row in findings if row.finding == LEAKED and row.group not in mended})


def verdict(summary: Mapping[str, Any]) -> str:
    """Return what the audit found in a sentence or two: the first line of the page, and a line of the model card."""
    total, found = int(summary["images"]), Counter(summary["findings"])
    aside, left_out, contaminated = int(summary["set_aside"]), int(summary["left_out"]), found[LEAKED]
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
    copies = [
        plural(found[name], word) for name, word in ((DUPLICATE, "copy"), (NEAR_DUPLICATE, "near copy")) if found[name]
    ]
    if copies:
        stay = "stays" if found[DUPLICATE] + found[NEAR_DUPLICATE] == 1 else "stay"
        text += f", {' and '.join(copies)} {stay} in one split"
    if left_out:
        text += f", {left_out:,} {_was(left_out)} left out of training"
    return f"{text}, none is contaminated."


def _was(count: int) -> str:
    return "was" if count == 1 else "were"
