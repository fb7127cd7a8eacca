"""What a training has measured: how good each epoch is on val, train_log.csv, and progress.json, how far it is."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from scripts.lib.base.files import atomic_path, write_sum
from scripts.lib.runs.run_folder import WorkFolder
from scripts.mmcls_plugins.processes import Processes

#: Columns of train_log.csv, one row an epoch; balanced validation adds BALANCED_COLUMNS.
LOG_COLUMNS = (
    "epoch", "iteration", "learning_rate", "train_loss", "val_accuracy", "val_loss", "images_per_second",
    "train_seconds", "val_seconds", "is_best",
)  # fmt: skip


class TrainingLog:
    """The records of all epochs, and the sums over the current one; only the first process writes files.

    Attributes
    ----------
    records : of each epoch, by LOG_COLUMNS.
    best : ``epoch`` and ``val_accuracy`` of best.pth; None before there is one.
    loss_sum, image_count, train_seconds : of the current epoch, in this process.
    """

    def __init__(self, folder: WorkFolder, processes: Processes, balanced: bool) -> None:
        self._folder, self._processes = folder, processes
        self.columns = (*LOG_COLUMNS, *(BALANCED_COLUMNS if balanced else ()))
        self.records: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self._progress_at = time.monotonic()
        self.start_epoch()

    def start_epoch(self) -> None:
        """Set the sums to 0."""
        self.loss_sum = self.image_count = self.train_seconds = 0.0

    def add_loss(self, loss: float, images: int) -> None:
        """Add the mean loss of a step's images to the sums."""
        self.loss_sum += loss * images
        self.image_count += images

    def start_record(self) -> dict[str, Any]:
        """Return the record of the epoch before training: nothing is measured yet."""
        start = {"epoch": 0, "iteration": 0, "train_seconds": 0.0, "val_seconds": 0.0, "is_best": True}
        return dict.fromkeys(self.columns) | start

    def epoch_record(self, epoch: int, iteration: int, learning_rate: float) -> dict[str, Any]:
        """Return the record of the current epoch, not evaluated yet."""
        return dict.fromkeys(self.columns) | {
            "epoch": epoch,
            "iteration": iteration,
            "learning_rate": learning_rate,
            "train_loss": self.loss_sum / max(self.image_count, 1),
            "images_per_second": self.image_count * self._processes.count / max(self.train_seconds, 1e-9),
            "train_seconds": self.train_seconds,
            "val_seconds": 0.0,
            "is_best": False,
        }

    def state(self) -> dict[str, Any]:
        """Return what a saved state holds of this log."""
        sums = [self.loss_sum, self.image_count, self.train_seconds]
        return {"best": self.best, "records": self.records, "sums": sums}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self.best, self.records = state["best"], state["records"]
        self.loss_sum, self.image_count, self.train_seconds = state["sums"]

    def write(self) -> None:
        """Write train_log.csv.

        Raises
        ------
        OSError : it cannot be saved.
        """
        if self._processes.rank:
            return
        with atomic_path(self._folder.train_log) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows({**record, "is_best": int(record["is_best"])} for record in self.records)
        write_sum(self._folder.train_log)

    def write_progress(
        self, epochs_done: int, max_epochs: int, iteration: int, max_iterations: int, force: bool = False
    ) -> None:
        """Tell, at most once a second, how far training is; losing it costs nothing, so no fsync."""
        now = time.monotonic()
        if self._processes.rank or (now - self._progress_at < 1 and not force):
            return
        self._progress_at = now
        last = self.records[-1] if self.records else dict.fromkeys(self.columns)
        loss = self.loss_sum / self.image_count if self.image_count else last["train_loss"]
        rate = last["images_per_second"]
        if self.train_seconds:
            rate = self.image_count * self._processes.count / self.train_seconds
        spent = sum(record["train_seconds"] + record["val_seconds"] for record in self.records) + self.train_seconds
        progress = {
            "epochs_done": epochs_done,
            "max_epochs": max_epochs,
            "iteration": iteration,
            "max_iterations": max_iterations,
            "loss": loss,
            "val_accuracy": last["val_accuracy"],
            "best_accuracy": self.best["val_accuracy"] if self.best else None,
            "images_per_second": rate,
            "seconds_left": spent / iteration * (max_iterations - iteration) if iteration else None,
        }
        temporary = self._folder.progress.with_name("progress.json.tmp")
        with suppress(OSError):  # a full disk stops training where something would be lost by it, not here
            temporary.write_text(json.dumps(progress))
            os.replace(temporary, self._folder.progress)


#: What balanced validation adds to an epoch's record: the means over the classes, by which it is judged.
BALANCED_COLUMNS = ("val_accuracy_balanced", "val_loss_balanced")


def measure(probabilities: np.ndarray, labels: np.ndarray, balanced: bool) -> dict[str, float]:
    """Return top-1 accuracy (0 to 1) and mean cross-entropy, and where *balanced*, their means over the classes.

    Parameters
    ----------
    probabilities : shape (images, classes).
    labels : shape (images,).
    """
    correct = probabilities.argmax(axis=1) == labels
    likelihood = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    losses = -np.log(np.maximum(likelihood, np.finfo(np.float32).tiny))
    measured = {"val_accuracy": float(np.mean(correct)), "val_loss": float(np.mean(losses))}
    if balanced:
        classes = [labels == label for label in np.unique(labels)]
        means = (np.mean([values[chosen].mean() for chosen in classes]) for values in (correct, losses))
        measured |= dict(zip(BALANCED_COLUMNS, map(float, means), strict=True))
    return measured


def is_better(record: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether an epoch is better than the best of those before: by accuracy on val and, of equal ones, by loss.

    Of a hundred images several epochs get as many right; the loss tells them apart.
    """
    best = next((epoch for epoch in reversed(earlier) if epoch["is_best"]), None)
    if best is None:
        return True
    (accuracy, loss), (best_accuracy, least_loss) = _judged(record), _judged(best)
    return accuracy > best_accuracy if accuracy != best_accuracy else loss < least_loss


def has_lost_patience(records: Sequence[Mapping[str, Any]], best_epoch: int, epochs_done: int, patience: int) -> bool:
    """Tell whether the last *patience* epochs brought neither better weights nor a lower loss on val; 0: never.

    Of the records alone, so a restart agrees. The loss too: a lucky accuracy on few images would else end early
    a training that is still getting better.
    """
    evaluated = [record for record in records if record["val_loss"] is not None]
    if not patience or not evaluated:
        return False
    lowest = min(evaluated, key=lambda record: _judged(record)[1])
    return epochs_done - max(best_epoch, lowest["epoch"]) >= patience


def _judged(record: Mapping[str, Any]) -> tuple[float, float]:
    """Return the accuracy and the loss on val by which an epoch is judged: means over the classes, if it has them."""
    ending = "_balanced" if "val_accuracy_balanced" in record else ""
    return record[f"val_accuracy{ending}"], record[f"val_loss{ending}"]
