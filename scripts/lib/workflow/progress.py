"""How far every run is: what its files, its logs and the Snakemake that has it in hand say together."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from scripts.lib.base import products
from scripts.lib.base.outcome import SUFFIX, Ending, Outcome
from scripts.lib.base.problems import UserError
from scripts.lib.runs.lease import EXPIRY_SECONDS, HEARTBEAT_SECONDS
from scripts.lib.runs.run_folder import CHECKPOINTS, RunFolder
from scripts.lib.workflow import run_reader
from scripts.lib.workflow.controller import LOCKS, RECORD, SNAKEMAKE_LOGS
from scripts.lib.workflow.run_reader import ATTEMPTS, LEASE, NO_FOLD, Entries, Key, Work, is_made, stat_of


class State(StrEnum):
    """What a run does, or what became of it."""

    WAITING = "waiting"
    FETCHING = "fetching"
    UNPACKING = "unpacking"
    AUDITING = "looking for bad data"
    SPLITTING = "splitting"
    PACKING = "packing"
    SEARCHING = "choosing the model"
    STARTING = "starting"
    FITTING_HEAD = "fitting the head"
    TRAINING = "training"
    TRAINED = "to be evaluated"
    PREDICTING = "predicting"
    EVALUATING = "evaluating"
    EVALUATED = "to be reported"
    REPORTING = "reporting"
    STALE = "stale"
    STOPPED = "stopped"
    FAILED = "failed"
    DONE = "done"


#: States in which a run needs somebody's attention.
TROUBLED = frozenset({State.FAILED, State.STOPPED, State.STALE})
#: States of a run of which no step is at work just now; its data set may be on its way.
WAITING = frozenset(
    {State.WAITING, State.FETCHING, State.UNPACKING, State.AUDITING, State.SPLITTING, State.PACKING, State.SEARCHING,
     State.TRAINED, State.EVALUATED}
)  # fmt: skip
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
    DataStep("check_images", re.compile(r"audit_(\w+)\.bin$"), r"check_images_\1.log", State.AUDITING),
    DataStep("audit_images", re.compile(r"audit\.csv$"), "audit_images.log", State.AUDITING),
    DataStep("split_dataset", re.compile(r"splits/"), "split_dataset.log", State.SPLITTING),
    DataStep("decode_images", re.compile(r"packed/(\d+_\d+of\d+)$"), r"decode_images_\1.log", State.PACKING),
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
    def key(self) -> tuple[str, str, str]:
        """Return what tells it from all others."""
        return self.dataset, self.experiment, self.which

    @property
    def which(self) -> str:
        """Return seed and fold as people read them: ``0``, ``0 fold 1``."""
        return str(self.seed) if self.fold is None else f"{self.seed} fold {self.fold}"

    def folder(self, results: Path) -> RunFolder:
        """Return its folder below *results*."""
        fold = [] if self.fold is None else [f"fold{self.fold}"]
        return RunFolder(results.joinpath(self.dataset, self.experiment, f"seed{self.seed}", *fold))

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


def check_unedited(path: Path) -> None:
    """Refuse a table whose numbers are shown if it was changed since it was made.

    Raises
    ------
    UserError : it was.
    """
    for change in products.changes(path, thorough=False, keep=False):
        if change.how != products.GONE:  # of a run that is made again just now
            raise UserError(f"{change}: do not trust the numbers of it here", "run the workflow: it is made again")


@dataclass(frozen=True)
class Plan:
    """What Snakemake set out to make, as its lock has it, each name relative to the folder of its key.

    Attributes
    ----------
    started : the lock's time, by the file server's clock.
    is_live : whether that Snakemake still runs; else the lock is what a kill has left.
    """

    runs: Mapping[Key, tuple[str, ...]] = field(default_factory=dict)
    data: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    started: float = 0.0
    is_live: bool = False


class Watcher:
    """Looks at all runs below a results folder, again and again."""

    def __init__(self, results: Path) -> None:
        # Not resolved: results may be a link to a larger disk; what Snakemake and the logs say lies beside the link.
        self.results = Path(os.path.abspath(results))
        self.project = self.results.parent
        self.reader = run_reader.Reader()

    def look(self, dataset: str | None = None) -> Overview:
        """Return how far the runs are, those of *dataset* only where it is given."""
        controller = self.reader.controller(self.project / RECORD)
        plan = self._plan(bool(controller))
        runs_there = self.reader.find_runs(str(self.results), set(plan.runs))
        runs_there |= self.reader.failed_early(str(self.project / "logs"), str(self.results))
        keys = sorted(key for key in runs_there if dataset in (None, key[0]))
        names = list(dict.fromkeys(key[0] for key in keys))
        waits_for, problems = {}, []
        for name in [CHECKPOINTS, *names]:
            waits_for[name], wrong = self._data(name, plan)
            problems += wrong
        for name in names:
            if waits_for[name] == State.WAITING:
                waits_for[name] = waits_for[CHECKPOINTS]
        runs = tuple(self._run(key, plan, waits_for[key[0]]) for key in keys)
        outputs = [f"{self.results}/{name}/{output}" for name in names for output in plan.data.get(name, ())]
        to_come = plan.is_live and not all(is_made(stat_of(path), plan.started) for path in outputs)
        complete = bool(runs) and all(run.state == State.DONE for run in runs) and not to_come
        return Overview(runs, tuple(problems), controller, complete, time.time())

    # -- what there is, and what is planned -----------------------------------------------------------------------

    def _plan(self, is_live: bool) -> Plan:
        locks = run_reader.entries(str(self.project / LOCKS))
        names = [name for name in locks if name.endswith(".output.lock")]
        if not names:
            return Plan()
        newest = max(names, key=lambda name: locks[name].st_mtime)
        path = str(self.project / LOCKS / newest)
        load = partial(run_reader.read_lock, path, self.results.name)
        runs, data = self.reader.cached(path, locks[newest], load, ({}, {}))
        return Plan(runs, data, locks[newest].st_mtime, is_live)

    # -- a data set ---------------------------------------------------------------------------------------------------

    def _data(self, dataset: str, plan: Plan) -> tuple[State, list[str]]:
        """Return what the runs of a data set wait for, and what went wrong with it."""
        folder = f"{self.project}/logs/{dataset}"
        logs, outcomes = run_reader.logs_in(folder)
        since = plan.started if plan.is_live and dataset in plan.data else 0.0
        problems = []
        for name in sorted(outcomes):
            if run_reader.has_report_since(f"{self.results}/{dataset}", outcomes[name]) or self._is_past(
                dataset, name.removesuffix(SUFFIX), outcomes[name].st_mtime, logs
            ):
                continue
            if outcome := self.reader.outcome(f"{folder}/{name}", outcomes[name], since):
                problems.append(f"{dataset}: {name.removesuffix(SUFFIX)}: {outcome}")
        for step in DATA_STEPS if since else ():
            for output in plan.data[dataset]:
                match = step.output.match(output)
                has_begun = match is not None and is_made(logs.get(match.expand(step.log)), since)
                if has_begun and not is_made(stat_of(f"{self.results}/{dataset}/{output}"), since):
                    return step.state, problems
        return State.WAITING, problems

    def _is_past(self, dataset: str, log: str, failed: float, logs: Entries) -> bool:
        """Tell whether what went wrong was mended by other means than the same command: another source, other weights.

        A later step of the data has begun since then; the weights are there, or a Snakemake began that did without.
        """
        if dataset == CHECKPOINTS:
            stat = stat_of(f"{self.results}/{CHECKPOINTS}/{log}.pth")
            return is_made(stat, failed) or run_reader.last_start(str(self.project / SNAKEMAKE_LOGS)) > failed
        order = {step.rule: index for index, step in enumerate(DATA_STEPS)}
        stage = next((index for rule, index in order.items() if log.startswith(rule.partition("_")[0])), len(order))
        later = [name for name in logs if any(name.startswith(rule) for rule, index in order.items() if index > stage)]
        return any(logs[name].st_mtime > failed for name in later)

    # -- a run --------------------------------------------------------------------------------------------------------

    def _run(self, key: Key, plan: Plan, waits_for: State) -> RunProgress:
        dataset, experiment, seed, fold = key
        name = f"{dataset}/{experiment}/seed{seed}" + ("" if fold == NO_FOLD else f"/fold{fold}")
        folder = f"{self.results}/{name}"
        logs_folder = f"{self.project}/logs/{name}"
        files = run_reader.entries(folder)
        logs, outcomes = run_reader.logs_in(logs_folder)
        work = self.reader.newest_work(f"{folder}/{RunFolder.work}") if RunFolder.work.name in files else None
        attempts = self.reader.attempts(work)
        numbers = self.reader.numbers(folder, files, work)
        outputs = plan.runs.get(key, ()) if plan.is_live else ()
        since = plan.started if outputs else 0.0
        evidence = _Evidence(
            *(folder, files, logs, work, attempts, outputs, since),
            outcome=lambda name: self.reader.outcome(f"{logs_folder}/{name}", outcomes.get(name), since),
            silence=lambda log: self.reader.ages.of(f"{logs_folder}/{log}", logs[log].st_mtime),
        )
        state, reason = evidence.judge(bool(numbers))
        if state == State.WAITING:
            state, reason = self._search(dataset, experiment, plan) or (waits_for, "")
        if state == State.DONE and numbers:
            numbers |= {"fraction": 1.0}  # patience may have ended training before max_epochs
        if state != State.TRAINING:
            numbers.pop("seconds_left", None)
        written = [*logs.values(), *files.values()]
        written += [stat for name, stat in work.files.items() if name != LEASE] if work else []
        newest = max((stat.st_mtime for stat in written), default=None)
        return RunProgress(
            *(dataset, experiment, seed, state),
            **numbers,
            elapsed_seconds=run_reader.elapsed(attempts, bool(work and work.is_alive)),
            silent_seconds=None if newest is None else self.reader.ages.of(folder, newest),
            holder=str(work.holder) if work and work.holder and work.is_alive else "",
            reason=reason,
            fold=None if fold == NO_FOLD else fold,
        )

    def _search(self, dataset: str, experiment: str, plan: Plan) -> tuple[State, str] | None:
        """Return what became of the search of `base_config: auto`, and why; None without one that has begun."""
        logs_folder = f"{self.project}/logs/{dataset}/{experiment}/search"
        logs, outcomes = run_reader.logs_in(logs_folder)
        since = plan.started if plan.is_live else 0.0
        chosen = stat_of(f"{self.results}/{dataset}/{experiment}/search/choice.json")
        if is_made(chosen, since) or not any(stat.st_mtime >= since for stat in logs.values()):
            return None
        for name in sorted(outcomes):
            if outcome := self.reader.outcome(f"{logs_folder}/{name}", outcomes[name], since):
                return STATE_AFTER[outcome.ending], f"{name.removesuffix(SUFFIX)}: {outcome}"
        return (State.SEARCHING, "") if plan.is_live else None


@dataclass(frozen=True)
class _Evidence:
    """What a run has left behind. Where a living Snakemake has it in hand, only what came after its start counts.

    Attributes
    ----------
    files : what is in the run's folder.
    logs : of its rules, by name.
    outputs : what a living Snakemake is to make of it, relative to its folder.
    since : when that Snakemake began; 0 where none has it in hand.
    outcome : of a rule that did not finish, by the name of its file.
    silence : the seconds since somebody wrote to one of the logs.
    """

    folder: str
    files: Entries
    logs: Entries
    work: Work | None
    attempts: Sequence[Mapping[str, Any]]
    outputs: tuple[str, ...]
    since: float
    outcome: Callable[[str], Outcome | None]
    silence: Callable[[str], float]

    def judge(self, has_trained: bool) -> tuple[State, str]:
        """Return the state and, where it needs attention, the reason."""
        if self.work is not None and self.work.is_alive:
            return (State.TRAINING if has_trained else State.STARTING), ""
        if outcome := next(filter(None, (self.outcome(rule + SUFFIX) for rule in self._begun())), None):
            return STATE_AFTER[outcome.ending], str(outcome)
        return self._in_hand() if self.outputs else self._left_alone()

    def _begun(self) -> list[str]:
        """Return the rules that have begun and not made what they make, by their order, others last."""
        rules = [name.removesuffix(".log") for name, stat in self.logs.items() if stat.st_mtime >= self.since]
        order = {rule: index for index, rule in enumerate(STEPS)}
        open_ = [rule for rule in rules if rule not in STEPS or not self._has(STEPS[rule][0])]
        return sorted(open_, key=lambda rule: (order.get(rule, len(STEPS)), rule))

    def _has(self, output: str) -> bool:
        stat = stat_of(f"{self.folder}/{output}") if "/" in output else self.files.get(output)
        return is_made(stat, self.since if output in self.outputs else 0.0)

    def _dead_lease(self, since: float) -> str:
        """Return what is to be said of a trainer that has died since then without a word; empty where none has."""
        work = self.work
        if work is None or work.lease_time is None or work.lease_time < since:
            return ""
        log = self.logs.get("train_model.log")
        if log is not None and log.st_mtime > work.lease_time + 2 * HEARTBEAT_SECONDS:
            return ""  # somebody begins anew, and will take the lease over
        who = work.holder or "its trainer"
        return f"{who} died without a word: killed, or the machine went down; its last saved state is kept"

    def _in_hand(self) -> tuple[State, str]:
        if all(map(self._has, self.outputs)):
            return State.DONE, ""
        if (dead := self._dead_lease(self.since)) and not self._has(RunFolder.last.name):
            return State.STALE, dead
        begun = self._begun()
        if steps := [rule for rule in begun if rule in STEPS]:
            return STEPS[steps[-1]][1], ""
        return (State.REPORTING if begun and self._has(RunFolder.metrics.name) else self._idle()), ""

    def _idle(self) -> State:
        """Return what a run waits for of which nothing is at work."""
        if not self._has(RunFolder.last.name):
            return State.WAITING
        return State.EVALUATED if self._has(RunFolder.metrics.name) else State.TRAINED

    def _left_alone(self) -> tuple[State, str]:
        evaluated = self.files[RunFolder.metrics.name].st_mtime if RunFolder.metrics.name in self.files else 0.0
        if dead := self._dead_lease(evaluated):
            return State.STALE, dead
        if attempt := self._bad_attempt(evaluated):
            state, kept = STATE_AFTER[attempt["outcome"]], "; its last saved state is kept"
            return state, str(attempt.get("reason")) + (kept if state == State.STALE else "")
        if evaluated:
            return State.DONE, ""
        steps = [rule for rule in self._begun() if rule in STEPS]
        if not steps:
            return self._idle(), ""
        if self.silence(f"{steps[-1]}.log") <= EXPIRY_SECONDS:
            return STEPS[steps[-1]][1], ""
        return State.STALE, f"{steps[-1]} began and left nothing; no snakemake runs here: start it again"

    def _bad_attempt(self, since: float) -> Mapping[str, Any] | None:
        """Return the last attempt to train, if it did not finish."""
        if not self.attempts or self.work is None or self.work.files[ATTEMPTS].st_mtime < since:
            return None
        return None if self.attempts[-1]["outcome"] == Ending.FINISHED else self.attempts[-1]
