"""What a run can be doing, how far it is, and what the rules' files tell of it: the data of `make watch`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from scripts.lib.base.outcome import Ending
from scripts.lib.runs.run_folder import RunFolder


class State(StrEnum):
    """What a run does, or what became of it."""

    WAITING = "waiting"
    FETCHING = "fetching"
    UNPACKING = "unpacking"
    AUDITING = "looking for bad data"
    SPLITTING = "splitting"
    PACKING = "packing"
    STARTING = "starting"
    FITTING_HEAD = "fitting the head"
    TRAINING = "training"
    PREDICTING = "predicting"
    EVALUATING = "evaluating"
    REPORTING = "reporting"
    STALE = "stale"
    STOPPED = "stopped"
    FAILED = "failed"
    DONE = "done"


#: States in which a run needs somebody's attention.
TROUBLED = frozenset({State.FAILED, State.STOPPED, State.STALE})
#: States of a run of which nothing has begun; its data set may be on its way.
WAITING = frozenset({State.WAITING, State.FETCHING, State.UNPACKING, State.AUDITING, State.SPLITTING, State.PACKING})
#: What a run is after one of its commands, or an attempt to train, did not finish.
STATE_AFTER = {
    Ending.FAILED: State.FAILED,
    Ending.STOPPED: State.STOPPED,
    Ending.INTERRUPTED: State.STOPPED,
    Ending.KILLED: State.STALE,
}
#: The rules of a run in their order: a file that each makes, and what the run does meanwhile. The others only report.
#: The log of a rule is called after it.
STEPS = {
    "patch_config": (RunFolder.config.name, State.STARTING),
    "fit_head": (RunFolder.init.name, State.FITTING_HEAD),
    "train_model": (RunFolder.last.name, State.STARTING),
    "predict_images": (RunFolder.predictions.name, State.PREDICTING),
    "evaluate_model": (RunFolder.metrics.name, State.EVALUATING),
    "record_provenance": (RunFolder.provenance.name, State.REPORTING),
}


class DataStep(NamedTuple):
    """A rule of a data set: how the names of its outputs begin, its log, and what the runs wait for meanwhile."""

    rule: str
    output: re.Pattern[str]
    log: str
    state: State


DATA_STEPS = (
    DataStep("fetch_archive", re.compile(r"archive\.\w"), "fetch_archive.log", State.FETCHING),
    DataStep("fetch_archive", re.compile(r"((?:archive|labels)\w*\..+)"), r"fetch_\1.log", State.FETCHING),
    DataStep("unpack_archive", re.compile(r"images$"), "unpack_archive.log", State.UNPACKING),
    DataStep("audit_images", re.compile(r"audit\.csv$"), "audit_images.log", State.AUDITING),
    DataStep("split_dataset", re.compile(r"splits/"), "split_dataset.log", State.SPLITTING),
    DataStep("pack_images", re.compile(r"packed/(\d+)$"), r"pack_images_\1.log", State.PACKING),
    DataStep("fetch_checkpoint", re.compile(r"([^/]+)\.pth$"), r"\1.log", State.FETCHING),
)


@dataclass(frozen=True)
class RunProgress:
    """How far one run is. None: not known.

    Attributes
    ----------
    fraction : of the training steps that are done, 0 to 1.
    best_val_accuracy : 0 to 1, so far.
    loss : mean training loss of the epoch so far.
    elapsed_seconds : of all attempts to train together.
    seconds_left : of training, at this run's own rate.
    silent_seconds : since it last wrote anything; heartbeats do not count.
    holder : the process that trains it, its machine and Slurm job.
    reason : why it failed, stopped or is stale.
    fold : of cross-validation, None where there is none.
    """

    dataset: str
    experiment: str
    seed: int
    state: State
    epochs_done: int | None = None
    max_epochs: int | None = None
    fraction: float | None = None
    best_val_accuracy: float | None = None
    loss: float | None = None
    images_per_second: float | None = None
    elapsed_seconds: float | None = None
    seconds_left: float | None = None
    silent_seconds: float | None = None
    holder: str = ""
    reason: str = ""
    fold: int | None = None

    @property
    def which(self) -> str:
        """Return seed and fold as people read them: ``0``, ``0 fold 1``."""
        return str(self.seed) if self.fold is None else f"{self.seed} fold {self.fold}"

    @property
    def is_running(self) -> bool:
        """Tell whether one of its own steps runs."""
        return self.state not in TROUBLED | WAITING and self.state != State.DONE


@dataclass(frozen=True)
class Overview:
    """All runs at one moment.

    Attributes
    ----------
    problems : what went wrong with a data set, a line each.
    controller : the Snakemake that runs this workflow, empty where none does.
    complete : all runs are done, and so is what is made of all of them.
    time : seconds since 1970.
    """

    runs: tuple[RunProgress, ...]
    problems: tuple[str, ...]
    controller: str
    complete: bool
    time: float
