"""What a run is called: data set, experiment, seed and, where there are folds, fold, as its folder has them."""

from __future__ import annotations

import re
from pathlib import Path

#: Of the parts of a run's folder, in their order.
FIELDS = ("dataset", "experiment", "seed", "fold")
FOLD = re.compile(r"fold(\d{1,10})", re.ASCII)


def run_name(folder: Path) -> dict[str, str]:
    """Return the last parts of a run's folder by what they are: ``seed0``, and ``fold1`` where it is a fold's run."""
    found = FIELDS if FOLD.fullmatch(folder.name) else FIELDS[:-1]
    return dict(zip(found, folder.parts[-len(found) :], strict=False))


def dataset_folder(folder: Path) -> Path:
    """Return the folder of the data set in which a run's *folder* lies."""
    return folder.parents[len(run_name(folder)) - 2]
