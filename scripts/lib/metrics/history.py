"""history.csv: how accurate each experiment was whenever its results changed, and the difference to the last time.

No step makes the file or reads it: lines are added to it, and it may be removed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from scripts.lib.base.files import write_text
from scripts.lib.base.language import tr
from scripts.lib.metrics.paired import Correct, CorrectBySeed

logger = logging.getLogger(__name__)
NAME = "history.csv"
#: Of the leaderboard.
NUMBERS = ("seeds", "accuracy_top1_mean", "accuracy_top1_ci95_low", "accuracy_top1_ci95_high")
#: ``test_sha256`` tells test images and their labels from others.
COLUMNS = ("recorded", "experiment", *NUMBERS, "n_test", "classes", "test_sha256")


def add(path: Path, board: pd.DataFrame, correct: CorrectBySeed, now: datetime) -> None:
    """Add a line for each experiment whose numbers are not those of its last line.

    Parameters
    ----------
    path : the table; where it is damaged, nothing is added.
    board : the leaderboard: ``experiment`` and NUMBERS.
    correct : of each experiment, which test images its runs got right.
    now : with a time zone.
    """
    try:
        rows = read(path)
    except (ValueError, OSError) as error:
        logger.warning("%s: %s: nothing is added to it; remove it to begin a new one", path, error)
        return
    last = {row["experiment"]: row for row in rows}
    for line in board.to_dict("records"):
        name = str(line["experiment"])
        images = next(iter(correct[name].values()))
        numbers = {key: f"{line[key]:.10g}" for key in NUMBERS}
        row = {"recorded": now.astimezone(UTC).isoformat(timespec="seconds"), "experiment": name, **numbers,
               "n_test": str(len(images.files)), "classes": str(len(set(images.labels))),
               "test_sha256": _hash(images)}  # fmt: skip
        before = last.get(name, {})
        if any(row[key] != before.get(key) for key in COLUMNS[1:]):
            rows.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read(path: Path) -> list[dict[str, str]]:
    """Return the lines of a history.csv, the oldest first; none where there is none yet.

    Raises
    ------
    OSError, ValueError : it cannot be read, or is none.
    """
    if not path.is_file():
        return []
    reader = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    rows = list(reader)
    if tuple(reader.fieldnames or ()) != COLUMNS or any(None in row.values() or None in row for row in rows):
        raise ValueError("not the columns of a history")
    for row in rows:
        datetime.fromisoformat(row["recorded"]), [float(row[key]) for key in NUMBERS]
    return rows


def differences(path: Path) -> list[str]:
    """Return a line for each experiment that the newest entry is of: how accurate it was before, and now."""
    try:
        rows = read(path)
    except (ValueError, OSError):
        return []  # told when it was to be added to
    newest = [row for row in rows if row["recorded"] == rows[-1]["recorded"]]
    lines = []
    for now in newest:
        earlier = [row for row in rows if row["experiment"] == now["experiment"] and row not in newest]
        lines += [_line(earlier[-1], now)] if earlier else []
    return lines


def _line(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    old, new = (100 * float(row["accuracy_top1_mean"]) for row in (before, now))
    when = datetime.fromisoformat(before["recorded"]).astimezone().strftime("%Y-%m-%d %H:%M")
    if before["test_sha256"] == now["test_sha256"]:
        images = tr("the same test images")
    else:
        then, today = (tr(f"{row['n_test']} images of {row['classes']} classes") for row in (before, now))
        images = tr(f"not the same test images: {then} before, {today} now")
    return tr(f"{now['experiment']}: {old:.1f} % on {when}, {new:.1f} % now ({new - old:+.1f}); {images}")


def _hash(images: Correct) -> str:
    text = "\n".join(f"{label}/{file}" for label, file in zip(images.labels, images.files, strict=True))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
