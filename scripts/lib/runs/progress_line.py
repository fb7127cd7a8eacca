"""How far a training is, as one line for people."""

from __future__ import annotations

import csv
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.lib.base.console import can_rewrite
from scripts.lib.base.files import find_json, is_whole
from scripts.lib.base.units import duration_in_words, plural
from scripts.lib.runs.run_folder import WorkFolder

logger = logging.getLogger(__name__)


class Progress:
    """One line on stderr that says how far training is: rewritten on a terminal, one an epoch elsewhere.

    Parameters
    ----------
    file : progress.json.
    may_end_early : before its last epoch, so that the time left is the longest.
    """

    def __init__(self, file: Path, may_end_early: bool = False) -> None:
        self.file, self.may_end_early = file, may_end_early
        self.live = can_rewrite()
        self.shown: int | None = None

    def update(self) -> None:
        """Show what progress.json says, if it is new."""
        state = find_json(self.file)
        if not state:
            return
        key = state["iteration"] if self.live else state["epochs_done"]
        has_news = self.live or state["epochs_done"] or state.get("val_accuracy") is not None
        if key == self.shown or not has_news:
            return
        self.shown = key
        if self.live:
            sys.stderr.write(f"\r\x1b[2K{progress_line(state, self.may_end_early)}")
            sys.stderr.flush()
        else:
            logger.info("%s", progress_line(state, self.may_end_early))

    def close(self) -> None:
        """Leave the cursor on a line of its own."""
        self.update()
        if self.live and self.shown:
            sys.stderr.write("\n")


def progress_line(state: Mapping[str, Any], may_end_early: bool = False) -> str:
    """Return e.g. ``epoch 3/5  loss 0.412  val accuracy 91.2 %  27 images/s  48 s left``; epoch 0 is the start."""
    parts = [f"epoch {state['epochs_done']}/{state['max_epochs']}"]
    if state.get("loss") is not None:
        parts.append(f"loss {state['loss']:.3f}")
    if state.get("val_accuracy") is not None:
        parts.append(f"val accuracy {100 * state['val_accuracy']:.1f} %")
    if state.get("images_per_second"):
        parts.append(f"{state['images_per_second']:.0f} images/s")
    if state.get("seconds_left") is not None:
        at_most = "at most " if may_end_early else ""
        parts.append(f"{at_most}{duration_in_words(state['seconds_left'])} left")
    return "  ".join(parts)


def resuming_line(work: WorkFolder) -> str:
    """Return at which epoch training goes on, and from which state; "" where it begins at its start."""
    saved = next((path for path in sorted(work.states.glob("state_*.pth"), reverse=True) if is_whole(path)), None)
    if saved is None:
        return ""
    step, state = int(saved.stem.removeprefix("state_")), find_json(work.progress) or {}
    try:
        epochs = state["max_epochs"]
        where = f"epoch {min(step * epochs // state['max_iterations'] + 1, epochs)} of {epochs}"
    except (KeyError, TypeError, ZeroDivisionError):
        where = f"step {step + 1}"
    return f"training resumes at {where} from {saved}"


def closing_line(train_log: str, max_epochs: int, patience: int) -> str:
    """Return how a training ended, of the text of its train_log.csv: whether early, and which epoch best.pth is of."""
    rows = list(csv.DictReader(train_log.splitlines()))
    done = max((int(row["epoch"]) for row in rows), default=0)
    parts = [f"trained {done} of {plural(max_epochs, 'epoch')}"]
    if done < max_epochs:
        parts[0] += f", ended early: {plural(patience, 'epoch')} brought nothing better on val"
    if best := next((row for row in reversed(rows) if row.get("is_best") == "1"), None):
        value = f", val accuracy {100 * float(best['val_accuracy']):.1f} %" if best["val_accuracy"] else ""
        start = ", the weights that training began with: no epoch was better" if int(best["epoch"]) == 0 else ""
        parts.append(f"best.pth is of epoch {best['epoch']}{value}{start}")
    return "; ".join(parts)
