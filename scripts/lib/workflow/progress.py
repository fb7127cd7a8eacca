"""How far every run is, from the files that runs write: nothing is written, and only what has changed is read again."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from scripts.lib.runs.attempts import NAME as ATTEMPTS
from scripts.lib.runs.attempts import NO_END, read_attempts
from scripts.lib.runs.lease import EXPIRY_SECONDS, HEARTBEAT_SECONDS, Holder
from scripts.lib.runs.run_folder import FOLD
from scripts.lib.workflow.controller import LOCKS, RECORD, Controller

#: Data set, experiment, seed and fold of a run; the fold is -1 where there are none.
Key = tuple[str, str, int, int]
NO_FOLD = -1
#: What os.stat says of the entries of a folder, by name.
Entries = Mapping[str, os.stat_result]

#: Folders of a data set, and of results/, that hold no runs (settings.RESERVED_NAMES): some have thousands of entries.
NO_EXPERIMENTS = frozenset({"checkpoints", "figures", "images", "packed", "splits"})
#: What the weights that runs start from are filed under, below results/ and logs/.
CHECKPOINTS = "checkpoints"
#: Bytes at the end of a log in which its error stands.
LOG_TAIL = 16384
ERROR_LINE = re.compile(r"^.* ERROR \S+: (?:error: )?(.*)$", re.MULTILINE)
#: How train_model and run_cli say that somebody ended it: no failure.
STOPPED_WORDS = re.compile(r"training was stopped|^interrupted|^KeyboardInterrupt")


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
#: The rules of a run in their order: what each makes, and what the run does meanwhile. Others only report.
STEPS = {
    "patch_config": ("config.py", State.STARTING),
    "fit_head": ("init.pth", State.FITTING_HEAD),
    "train_model": ("last.pth", State.STARTING),
    "predict_images": ("predictions.csv", State.PREDICTING),
    "evaluate_model": ("metrics.json", State.EVALUATING),
    "record_provenance": ("provenance.json", State.REPORTING),
}
#: What a data set's rules make begins so; the log that each writes, and what its runs wait for meanwhile.
DATA_STEPS = (
    (re.compile(r"archive\.\w"), "fetch_archive.log", State.FETCHING),
    (re.compile(r"((?:archive|labels)\w*\..+)"), r"fetch_\1.log", State.FETCHING),
    (re.compile(r"images$"), "unpack_archive.log", State.UNPACKING),
    (re.compile(r"audit\.csv$"), "audit_images.log", State.AUDITING),
    (re.compile(r"splits/"), "split_dataset.log", State.SPLITTING),
    (re.compile(r"packed/(\d+)$"), r"pack_images_\1.log", State.PACKING),
    (re.compile(r"([^/]+)\.pth$"), r"\1.log", State.FETCHING),
)


@dataclass(frozen=True)
class Run:
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

    runs: tuple[Run, ...]
    problems: tuple[str, ...]
    controller: str
    complete: bool
    time: float


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


@dataclass(frozen=True)
class Work:
    """A folder in which a run is, or was, trained, and whether somebody trains there now."""

    path: str
    files: Entries
    holder: Holder | None
    is_alive: bool

    @property
    def lease_time(self) -> float | None:
        """Return the last heartbeat of a lease that is still there."""
        return self.files["lease.json"].st_mtime if "lease.json" in self.files else None


class Ages:
    """How long ago a file changed, though the clocks of this machine and of the file server may differ.

    At first their difference cannot be told from age; once a file was seen to change, this machine's clock counts on
    from there. Lease measures with a file of its own; who only looks on writes none.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, float, float]] = {}

    def of(self, name: str, changed: float) -> float:
        """Return the seconds since *name* changed, which has the modification time *changed*."""
        now = time.monotonic()
        before = self._seen.get(name)
        if before is None:
            self._seen[name] = before = (changed, now, max(0.0, time.time() - changed))
        elif before[0] != changed:
            self._seen[name] = before = (changed, now, 0.0)
        return before[2] + now - before[1]


class Watcher:
    """Looks at all runs below a results folder, again and again."""

    def __init__(self, results: Path) -> None:
        # Not resolved: results may be a link to a larger disk; what Snakemake and the logs say lies beside the link.
        self.results = Path(os.path.abspath(results))
        self.project = self.results.parent
        self._ages = Ages()
        self._contents: dict[str, tuple[tuple[int, int, int], Any]] = {}
        self._dead: set[str] = set()

    def look(self, dataset: str | None = None) -> Overview:
        """Return how far the runs are, those of *dataset* only where it is given."""
        controller = self._controller()
        plan = self._plan(bool(controller))
        found = self._find(plan)
        keys = sorted(key for key in found if dataset in (None, key[0]))
        names = list(dict.fromkeys(key[0] for key in keys))
        waits_for, problems = {}, []
        for name in [CHECKPOINTS, *names]:
            waits_for[name], wrong = self._data(name, plan)
            problems += wrong
        for name in names:
            if waits_for[name] == State.WAITING:
                waits_for[name] = waits_for[CHECKPOINTS]
        runs = tuple(self._run(key, plan, waits_for[key[0]]) for key in keys)
        to_come = plan.is_live and any(
            not _is_made(_stat(f"{self.results}/{name}/{output}"), plan.started)
            for name in names
            for output in plan.data.get(name, ())
        )
        complete = bool(runs) and all(run.state == State.DONE for run in runs) and not to_come
        return Overview(runs, tuple(problems), controller, complete, time.time())

    # -- what there is, and what is planned -----------------------------------------------------------------------

    def _controller(self) -> str:
        """Return who controls the folder; Controller.is_alive itself would write a file and ask Slurm."""
        path = self.project / RECORD
        stat = _stat(str(path))
        record = self._cached(str(path), stat, Controller(path).record, None) if stat else None
        if record is None or stat is None:
            return ""
        holder = record.holder if _is_sound(record.holder) else None
        return str(record.holder) if self._is_alive(holder, str(path), stat) else ""

    def _plan(self, is_live: bool) -> Plan:
        locks = _entries(str(self.project / LOCKS))
        names = [name for name in locks if name.endswith(".output.lock")]
        if not names:
            return Plan()
        newest = max(names, key=lambda name: locks[name].st_mtime)
        path = str(self.project / LOCKS / newest)
        runs, data = self._cached(path, locks[newest], lambda: self._read_lock(path), ({}, {}))
        return Plan(runs, data, locks[newest].st_mtime, is_live)

    def _read_lock(self, path: str) -> tuple[dict[Key, tuple[str, ...]], dict[str, tuple[str, ...]]]:
        runs: dict[Key, tuple[str, ...]] = {}
        data: dict[str, tuple[str, ...]] = {}
        for line in _read(path).split("\n"):
            top, *parts = line.split("/")
            if top != self.results.name or len(parts) < 2:
                continue
            seed = _seed(parts[2]) if len(parts) > 3 else None
            if seed is not None:
                fold = _fold(parts[3]) if len(parts) > 4 else None
                key = (parts[0], parts[1], seed, NO_FOLD if fold is None else fold)
                runs[key] = (*runs.get(key, ()), "/".join(parts[3 if fold is None else 4 :]))
            else:
                data[parts[0]] = (*data.get(parts[0], ()), "/".join(parts[1:]))
        return runs, data

    def _find(self, plan: Plan) -> set[Key]:
        """Return the runs that have a folder, and those that are planned: by Snakemake's lock or, of a data set that
        is not in it, by the settings of its last whole run.
        """
        found = set(plan.runs)
        planned = {key[0] for key in found}
        for dataset in _folders(str(self.results)):
            folder = f"{self.results}/{dataset}"
            for experiment in _folders(folder):
                for name in _folders(f"{folder}/{experiment}"):
                    seed = _seed(name)
                    if seed is not None:
                        folds = _folds_in(f"{folder}/{experiment}/{name}")
                        found |= {(dataset, experiment, seed, fold) for fold in folds}
            path = f"{folder}/settings.yaml"
            settings = _stat(path) if dataset not in planned else None
            if settings:
                runs = self._cached(path, settings, partial(_read_settings, path), [])
                found |= {(dataset, *run) for run in runs}
        return found

    # -- a data set ---------------------------------------------------------------------------------------------------

    def _data(self, dataset: str, plan: Plan) -> tuple[State, list[str]]:
        """Return what the runs of a data set wait for, and what went wrong with it."""
        folder = f"{self.project}/logs/{dataset}"
        logs = {name: stat for name, stat in _entries(folder).items() if name.endswith(".log")}
        since = plan.started if plan.is_live and dataset in plan.data else 0.0
        problems = []
        for name in sorted(logs):
            error = self._error(f"{folder}/{name}", logs[name]) if logs[name].st_mtime >= since else ""
            if error:
                problems.append(f"{dataset}: {name.removesuffix('.log')}: {error}")
        for pattern, log, state in DATA_STEPS if since else ():
            for output in plan.data[dataset]:
                match = pattern.match(output)
                begun = logs.get(match.expand(log)) if match else None
                if (
                    begun
                    and begun.st_mtime >= since
                    and not _is_made(_stat(f"{self.results}/{dataset}/{output}"), since)
                ):
                    return state, problems
        return State.WAITING, problems

    # -- a run --------------------------------------------------------------------------------------------------------

    def _run(self, key: Key, plan: Plan, waits_for: State) -> Run:
        dataset, experiment, seed, fold = key
        name = f"{dataset}/{experiment}/seed{seed}" + ("" if fold == NO_FOLD else f"/fold{fold}")
        folder = f"{self.results}/{name}"
        logs_folder = f"{self.project}/logs/{name}"
        files = _entries(folder)
        logs = {name: stat for name, stat in _entries(logs_folder).items() if name.endswith(".log")}
        work = self._newest_work(f"{folder}/work") if "work" in files else None
        attempts = self._attempts(work)
        numbers = self._numbers(folder, files, work)
        outputs = plan.runs.get(key, ()) if plan.is_live else ()
        evidence = _Evidence(
            folder,
            files,
            logs,
            work,
            attempts,
            outputs,
            since=plan.started if outputs else 0.0,
            error=lambda log: self._error(f"{logs_folder}/{log}", logs[log]),
            silence=lambda log: self._ages.of(f"{logs_folder}/{log}", logs[log].st_mtime),
        )
        state, reason = evidence.judge(bool(numbers))
        if state == State.WAITING:
            state = waits_for
        if state == State.DONE and numbers:
            numbers |= {"fraction": 1.0}  # patience may have ended training before max_epochs
        if state != State.TRAINING:
            numbers.pop("seconds_left", None)
        written = [*logs.values(), *files.values()]
        written += [stat for name, stat in work.files.items() if name != "lease.json"] if work else []
        newest = max((stat.st_mtime for stat in written), default=None)
        return Run(
            dataset,
            experiment,
            seed,
            state,
            **numbers,
            elapsed_seconds=_elapsed(attempts, bool(work and work.is_alive)),
            silent_seconds=None if newest is None else self._ages.of(folder, newest),
            holder=str(work.holder) if work and work.holder and work.is_alive else "",
            reason=reason,
            fold=None if fold == NO_FOLD else fold,
        )

    def _newest_work(self, folder: str) -> Work | None:
        """Return where the run was trained last: a changed config is trained in a folder of its own."""
        works = []
        for name in _folders(folder):
            path = f"{folder}/{name}"
            files = _entries(path)
            told = [
                files[name].st_mtime
                for name in ("lease.json", "progress.json", ATTEMPTS, "identity.json")
                if name in files
            ]
            if told:
                works.append((max(told), path, files))
        if not works:
            return None
        _, path, files = max(works, key=lambda work: work[:2])
        lease = files.get("lease.json")
        if lease is None:
            return Work(path, files, None, False)
        file = f"{path}/lease.json"
        holder = self._cached(file, lease, lambda: _read_holder(file), None)
        return Work(path, files, holder, self._is_alive(holder, file, lease))

    def _is_alive(self, holder: Holder | None, path: str, stat: os.stat_result) -> bool:
        """Tell whether a holder lives: here by its process, elsewhere by its heartbeat, the file's time."""
        age = self._ages.of(path, stat.st_mtime)
        if holder is not None:
            if holder.is_alive_here():
                return True
            if holder.token not in self._dead and holder.is_dead_here():
                self._dead.add(holder.token)  # it looks through all processes: once is enough
            if holder.token in self._dead:
                return False
        return age <= EXPIRY_SECONDS

    def _attempts(self, work: Work | None) -> list[dict[str, Any]]:
        if work is None or ATTEMPTS not in work.files:
            return []
        return self._cached(f"{work.path}/{ATTEMPTS}", work.files[ATTEMPTS], lambda: read_attempts(Path(work.path)), [])

    def _numbers(self, folder: str, files: Entries, work: Work | None) -> dict[str, Any]:
        """Return how far training is, as fields of Run; empty where nothing tells."""
        if work is not None and "progress.json" in work.files:
            path = f"{work.path}/progress.json"
            numbers = self._cached(path, work.files["progress.json"], lambda: _read_progress(path), {})
            if numbers:
                return dict(numbers)
        if "train_log.csv" in files:
            path = f"{folder}/train_log.csv"
            numbers = self._cached(path, files["train_log.csv"], lambda: _read_train_log(path), {})
            return dict(numbers)
        return {}

    def _error(self, path: str, stat: os.stat_result) -> str:
        """Return the last error in a log, empty where there is none."""
        return self._cached(path, stat, lambda: _last_error(path), "")

    def _cached(self, path: str, stat: os.stat_result, load: Callable[[], Any], default: Any) -> Any:
        """Return what *load* makes of a file, anew when it has changed; *default* where it never was what it should be.

        A file that is being replaced may be gone, or cut short on a network file system: the next look sees it whole.
        """
        state = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        known = self._contents.get(path)
        if known is None or known[0] != state:
            try:
                content = load()
            except (OSError, ValueError, TypeError, KeyError, AttributeError):
                return default if known is None else known[1]
            self._contents[path] = known = (state, content)
        return known[1]


@dataclass(frozen=True)
class _Evidence:
    """What a run has left behind. Where a living Snakemake has it in hand, only what came after its start counts.

    Attributes
    ----------
    files : what is in the run's folder.
    logs : of its rules, by name.
    outputs : what a living Snakemake is to make of it, relative to its folder.
    since : when that Snakemake began; 0 where none has it in hand.
    error, silence : the error in one of the logs (empty: none), and the seconds since somebody wrote to it.
    """

    folder: str
    files: Entries
    logs: Entries
    work: Work | None
    attempts: Sequence[Mapping[str, Any]]
    outputs: tuple[str, ...]
    since: float
    error: Callable[[str], str]
    silence: Callable[[str], float]

    def judge(self, has_trained: bool) -> tuple[State, str]:
        """Return the state and, where it needs attention, the reason."""
        if self.work is not None and self.work.is_alive:
            return (State.TRAINING if has_trained else State.STARTING), ""
        error = next(filter(None, (self.error(f"{rule}.log") for rule in self._begun())), "")
        if error:
            return (State.STOPPED if STOPPED_WORDS.search(error) else State.FAILED), error
        return self._in_hand() if self.outputs else self._left_alone()

    def _begun(self) -> list[str]:
        """Return the rules that have begun and not made what they make, by their order, others last."""
        rules = [name.removesuffix(".log") for name, stat in self.logs.items() if stat.st_mtime >= self.since]
        order = {rule: place for place, rule in enumerate(STEPS)}
        open_ = [rule for rule in rules if rule not in STEPS or not self._has(STEPS[rule][0])]
        return sorted(open_, key=lambda rule: (order.get(rule, len(STEPS)), rule))

    def _has(self, output: str) -> bool:
        stat = _stat(f"{self.folder}/{output}") if "/" in output else self.files.get(output)
        return _is_made(stat, self.since if output in self.outputs else 0.0)

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
        if (dead := self._dead_lease(self.since)) and not self._has("last.pth"):
            return State.STALE, dead
        begun = self._begun()
        steps = [rule for rule in begun if rule in STEPS]
        if steps:
            return STEPS[steps[-1]][1], ""
        return (State.REPORTING if begun and self._has("metrics.json") else State.WAITING), ""

    def _left_alone(self) -> tuple[State, str]:
        evaluated = self.files["metrics.json"].st_mtime if "metrics.json" in self.files else 0.0
        if dead := self._dead_lease(evaluated):
            return State.STALE, dead
        outcome = self._outcome(evaluated)
        if outcome == NO_END:
            return State.STALE, f"{outcome}; its last saved state is kept"
        if outcome:
            return (State.STOPPED if STOPPED_WORDS.search(outcome) else State.FAILED), outcome
        if evaluated:
            return State.DONE, ""
        steps = [rule for rule in self._begun() if rule in STEPS]
        if not steps:
            return State.WAITING, ""
        if self.silence(f"{steps[-1]}.log") <= EXPIRY_SECONDS:
            return STEPS[steps[-1]][1], ""
        return State.STALE, f"{steps[-1]} began and left nothing; no snakemake runs here: start it again"

    def _outcome(self, since: float) -> str:
        """Return how the last attempt to train ended, if not well."""
        if not self.attempts or self.work is None or self.work.files[ATTEMPTS].st_mtime < since:
            return ""
        outcome = str(self.attempts[-1].get("outcome"))
        return "" if outcome == "finished" else outcome


# -- files of other processes -----------------------------------------------------------------------------------------


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON file of another process, empty where there is none or where it is not one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def _read_holder(path: str) -> Holder:
    """Return who holds a lease.

    Raises
    ------
    TypeError, ValueError : the file does not say so.
    """
    holder = Holder(**json.loads(_read(path)))
    if not _is_sound(holder):
        raise ValueError(path)
    return holder


def _is_sound(holder: Holder) -> bool:
    numbers = [holder.pid, holder.started, holder.group or 0]
    return isinstance(holder.token, str) and all(isinstance(number, int | float) for number in numbers)


def _read_progress(path: str) -> dict[str, Any]:
    """Return progress.json as fields of Run.

    Raises
    ------
    ValueError, AttributeError : it is cut short, or no such file.
    """
    content = json.loads(_read(path))
    iteration, most = _number(content.get("iteration")), _number(content.get("max_iterations"))
    return {
        "epochs_done": _count(content.get("epochs_done")),
        "max_epochs": _count(content.get("max_epochs")),
        "fraction": min(1.0, max(0.0, iteration / most)) if iteration is not None and most else None,
        "best_val_accuracy": _number(content.get("best_accuracy")),
        "loss": _number(content.get("loss")),
        "images_per_second": _number(content.get("images_per_second")),
        "seconds_left": _number(content.get("seconds_left")),
    }


def _read_train_log(path: str) -> dict[str, Any]:
    """Return what train_log.csv tells, as fields of Run: of a run whose work/ is gone."""
    rows = list(csv.DictReader(_read(path).splitlines()))
    accuracies = [value for row in rows if (value := _number(row.get("val_accuracy"))) is not None]
    last = rows[-1] if rows else {}
    return {
        "epochs_done": _count(last.get("epoch")),
        "best_val_accuracy": max(accuracies, default=None),
        "loss": _number(last.get("train_loss")),
        "images_per_second": _number(last.get("images_per_second")),
    }


def _read_settings(path: str) -> list[tuple[str, int, int]]:
    """Return experiment, seed and fold of the runs of a settings.yaml, whose content was checked when it was run."""
    import yaml  # late: only finished data sets have one

    try:
        content = yaml.safe_load(_read(path))
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    seeds = [seed for seed in content.get("seeds", [0]) if isinstance(seed, int)]
    number = ((content.get("dataset") or {}).get("split") or {}).get("folds")
    folds = range(number) if isinstance(number, int) else (NO_FOLD,)
    return [(str(experiment), *run) for experiment in content["experiments"] for run in product(seeds, folds)]


def _last_error(path: str) -> str:
    with open(path, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_TAIL))
        found = ERROR_LINE.findall(file.read().decode("utf-8", "replace"))
    return found[-1].strip() if found else ""


def _elapsed(attempts: Iterable[Mapping[str, Any]], goes_on: bool) -> float | None:
    """Return the seconds of all attempts; of one that was killed, those until its last note."""
    attempts = list(attempts)
    seconds = []
    for attempt in attempts:
        try:
            start = datetime.fromisoformat(attempt["start"]).timestamp()
            end = attempt.get("end") or (
                None if goes_on and attempt is attempts[-1] else attempt.get("seen", attempt["start"])
            )
            seconds.append(max(0.0, (datetime.fromisoformat(end).timestamp() if end else time.time()) - start))
        except (KeyError, TypeError, ValueError):
            continue
    return sum(seconds) if seconds else None


def _entries(folder: str) -> dict[str, os.stat_result]:
    entries = {}
    try:
        with os.scandir(folder) as found:
            for entry in found:
                try:
                    entries[entry.name] = entry.stat()
                except OSError:  # gone since, or a link to nowhere
                    continue
    except OSError:
        return {}
    return entries


def _folders(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as found:
            return sorted(entry.name for entry in found if entry.name not in NO_EXPERIMENTS and entry.is_dir())
    except OSError:
        return []


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _is_made(stat: os.stat_result | None, since: float) -> bool:
    return stat is not None and stat.st_mtime >= since


def _seed(name: str) -> int | None:
    found = re.fullmatch(r"seed(\d{1,10})", name, re.ASCII)
    return int(found[1]) if found else None


def _fold(name: str) -> int | None:
    found = FOLD.fullmatch(name)
    return int(found[1]) if found else None


def _folds_in(folder: str) -> list[int]:
    """Return the folds below the folder of a seed; NO_FOLD where it is, or was, a run of its own."""
    names = _folders(folder)
    folds = [fold for fold in map(_fold, names) if fold is not None]
    return folds if folds and "work" not in names and _stat(f"{folder}/config.py") is None else [*folds, NO_FOLD]


def _number(value: Any) -> float | None:
    """Return a finite number, also out of a text; None for all else."""
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _count(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)
