"""The folder of a run and every file in it: the one place that knows their names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

#: Of the parts of a run's folder, in their order.
FIELDS = ("dataset", "experiment", "seed", "fold")
#: The folder below results/ of the weights that runs start from.
CHECKPOINTS = "checkpoints"
#: Entries of results/<dataset>/ and results/ that a data set or an experiment may not be named after.
RESERVED_NAMES = frozenset({"checkpoints", "figures", "images", "packed", "splits"})
FOLD = re.compile(r"fold(\d{1,10})", re.ASCII)


class _File:
    """A file of a folder: ``name`` in the class, its path in an instance."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: _Folder | None, _owner: type | None = None) -> Path:
        return Path(self.name) if folder is None else folder.path / self.name


@dataclass(frozen=True)
class _Folder:
    path: Path


@dataclass(frozen=True)
class WorkFolder(_Folder):
    """Where one training goes on after an interruption: ``work/<identity>`` of a run.

    ``WorkFolder.progress`` is a file's name, ``WorkFolder(path).progress`` its path.
    """

    identity = _File("identity.json")  # what the training depends on
    lease = _File("lease.json")  # which process trains, and its heartbeat
    attempts = _File("attempts.jsonl")
    progress = _File("progress.json")
    outcome = _File("outcome.json")  # why the trainer ended: it was stopped, or cannot go on
    states = _File("states")  # from which training goes on
    output = _File("output.log")  # of the trainer
    processes = _File("processes")  # errors of the processes that train together
    best = _File("best.pth")
    last = _File("last.pth")
    train_log = _File("train_log.csv")
    provenance = _File("provenance.json")  # as it was first recorded


@dataclass(frozen=True)
class RunFolder(_Folder):
    """``results/<dataset>/<experiment>/seed<k>``, and ``/fold<j>`` below it where there are folds.

    ``RunFolder.best`` is a file's name, ``RunFolder(path).best`` its path. The path may hold Snakemake's wildcards.
    """

    config = _File("config.py")  # what determines the result; its hash is the run's identity
    init = _File("init.pth")  # pretrained weights with a head fitted to the training images
    work = _File("work")  # a folder for each identity: WorkFolder
    best = _File("best.pth")
    last = _File("last.pth")
    train_log = _File("train_log.csv")
    predictions = _File("predictions.csv")  # of the test split
    val_predictions = _File("val_predictions.csv")
    features = _File("features.npy")  # of the test split's images
    known = _File("known.npy")  # features of some training images, which others are compared with
    certainty = _File("certainty.json")  # thresholds of val: from where on predictions are sure
    metrics = _File("metrics.json")
    per_class = _File("per_class.csv")
    figures = _File("figures")
    onnx = _File("model.onnx")
    onnx_example = _File("onnx_example.py")
    export = _File("export.json")
    export_page = _File("export.html")
    model = _File("model.json")
    model_page = _File("model.html")
    provenance = _File("provenance.json")
    provenance_page = _File("provenance.html")
    model_card = _File("model_card.md")
    model_card_page = _File("model_card.html")

    @property
    def names(self) -> dict[str, str]:
        """The last parts of the path by what they are: ``seed0``, and ``fold1`` where it is a fold's run."""
        return run_name(self.path)

    @property
    def dataset(self) -> Path:
        """The folder of its data set."""
        return dataset_folder(self.path)


def run_name(folder: Path) -> dict[str, str]:
    """Return the last parts of a run's folder by what they are: ``seed0``, and ``fold1`` where it is a fold's run."""
    fields = FIELDS if FOLD.fullmatch(folder.name) else FIELDS[:-1]
    return dict(zip(fields, folder.parts[-len(fields) :], strict=False))


def dataset_folder(folder: Path) -> Path:
    """Return the folder of the data set in which a run's *folder* lies."""
    return folder.parents[len(run_name(folder)) - 2]
