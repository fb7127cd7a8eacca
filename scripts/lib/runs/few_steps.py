"""Training that is so short that its result means little: said before it, at the end, and in the model card."""

from __future__ import annotations

import csv
from collections.abc import Collection
from pathlib import Path

from scripts.lib.base.files import read_lines
from scripts.lib.base.units import plural
from scripts.lib.runs.config_file import read_config
from scripts.lib.runs.run_folder import RunFolder

#: With fewer steps in all, a network has hardly left its start: each step renews a tenth of the averages of batch
#: normalisation, so that 50 leave 0.5 % of their first values, and warm-ups of the learning rate are longer.
FEW_STEPS = 50
REMEDY = "set more epochs or a smaller batch_size, or use recipe: fast"


def too_few_steps(epochs: Collection[int], n_train: int, batch: int) -> int | None:
    """Return the steps of a training where they are too few; None where they are enough.

    Also None where it began with a fitted head, whose weights were measured as epoch 0: they are kept unless training
    brings something better.

    Parameters
    ----------
    epochs : those of the log.
    n_train : training images.
    batch : images of a step, of all GPUs.
    """
    steps = max(epochs, default=FEW_STEPS) * max(1, n_train // batch)
    return steps if steps < FEW_STEPS and 0 not in epochs else None


def describe_few_steps(run: Path) -> str:
    """Say in one line that a run was trained for too few steps; "" where they are enough, or it is not all there."""
    folder = RunFolder(run)
    if not (folder.config.is_file() and folder.train_log.is_file()):
        return ""
    config = read_config(folder.config)
    data = config.get("data", {})
    images, batch = Path(data.get("train", {}).get("ann_file", "")), data.get("samples_per_gpu")
    if not (images.is_file() and batch):
        return ""
    with open(folder.train_log, encoding="utf-8", newline="") as log:
        epochs = [int(row["epoch"]) for row in csv.DictReader(log)]
    runner = config["runner"]
    processes = runner.get("gpus", 1) * runner.get("nodes", 1)
    steps = too_few_steps(epochs, len(read_lines(images)), batch * processes)
    return (
        "" if steps is None else f"{run}: trained for {plural(steps, 'step')} only, its numbers mean little: {REMEDY}"
    )
