"""The files of other processes, read for `make watch`: nothing is written, and only what has changed is read again."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from scripts.lib.base.outcome import SUFFIX, Outcome
from scripts.lib.base.problems import UserError
from scripts.lib.runs.attempts import read_attempts
from scripts.lib.runs.lease import EXPIRY_SECONDS, Holder
from scripts.lib.runs.run_folder import FOLD, RESERVED_NAMES, RunFolder, WorkFolder
from scripts.lib.workflow.controller import Controller

#: Data set, experiment, seed and fold of a run; the fold is -1 where there are none.
Key = tuple[str, str, int, int]
NO_FOLD = -1
#: What os.stat says of the entries of a folder, by name.
Entries = Mapping[str, os.stat_result]
LEASE, PROGRESS, ATTEMPTS, IDENTITY, TRAIN_LOG = (
    file.name
    for file in (WorkFolder.lease, WorkFolder.progress, WorkFolder.attempts, WorkFolder.identity, RunFolder.train_log)
)
#: Columns of train_log.csv that are drawn by epoch.
CURVES = ("val_accuracy", "train_loss", "val_loss")


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
        return self.files[LEASE].st_mtime if LEASE in self.files else None


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


class Reader:
    """Reads the files of runs, each again only when it has changed."""

    def __init__(self) -> None:
        self.ages = Ages()
        self._contents: dict[str, tuple[tuple[int, int, int], Any]] = {}
        self._dead: set[str] = set()

    def cached(self, path: str, stat: os.stat_result | None, load: Callable[[], Any], default: Any) -> Any:
        """Return what *load* makes of a file, anew when it has changed; *default* where it never was what it should be,
        or where *stat* is None.

        A file that is being replaced may be gone, or cut short on a network file system: the next look sees it whole.
        """
        if stat is None:
            return default
        state = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        known = self._contents.get(path)
        if known is None or known[0] != state:
            try:
                content = load()
            except (OSError, ValueError, TypeError, KeyError, AttributeError):
                return default if known is None else known[1]
            self._contents[path] = known = (state, content)
        return known[1]

    def controller(self, path: Path) -> str:
        """Return who controls the folder; Controller.is_alive itself would write a file and ask Slurm."""
        stat = stat_of(str(path))
        record = self.cached(str(path), stat, Controller(path).record, None)
        if record is None or stat is None:
            return ""
        holder = record.holder if _is_sound(record.holder) else None
        return str(record.holder) if self.is_alive(holder, str(path), stat) else ""

    def planned_runs(self, path: str) -> list[tuple[str, int, int]]:
        """Return experiment, seed and fold of the runs of a settings.yaml; none where there is no such file."""
        return self.cached(path, stat_of(path), partial(_read_settings, path), [])

    def find_runs(self, results: str, planned: set[Key]) -> set[Key]:
        """Return the runs that have a folder, and those that are planned: by Snakemake's lock or, of a data set that
        is not in it, by the settings of its last whole run.
        """
        keys = set(planned)
        for dataset in folders(results):
            folder = f"{results}/{dataset}"
            for experiment in folders(folder):
                for name in folders(f"{folder}/{experiment}"):
                    if (seed := seed_of(name)) is not None:
                        folds = folds_in(f"{folder}/{experiment}/{name}")
                        keys |= {(dataset, experiment, seed, fold) for fold in folds}
            if not any(key[0] == dataset for key in planned):
                keys |= {(dataset, *run) for run in self.planned_runs(f"{folder}/settings.yaml")}
        return keys

    def failed_early(self, logs: str, results: str) -> set[Key]:
        """Return the runs of which a command failed, though it may have left nothing but its log.

        Not where a report came later: it is made of all runs, so that this one is not asked for any more.
        """
        keys: set[Key] = set()
        for depth in ("", "fold*/"):
            for file in Path(logs).glob(f"*/*/seed*/{depth}*{SUFFIX}"):
                dataset, experiment, seed_folder, *others = file.relative_to(logs).parts[:-1]
                if has_report_since(f"{results}/{dataset}", stat_of(str(file))):
                    continue
                seed, fold = seed_of(seed_folder), fold_of(others[0]) if others else NO_FOLD
                keys |= set() if seed is None or fold is None else {(dataset, experiment, seed, fold)}
        return keys

    def newest_work(self, folder: str) -> Work | None:
        """Return where the run was trained last: a changed config is trained in a folder of its own."""
        works = []
        for path in (f"{folder}/{name}" for name in folders(folder)):
            files = entries(path)
            times = [files[name].st_mtime for name in (LEASE, PROGRESS, ATTEMPTS, IDENTITY) if name in files]
            works += [(max(times), path, files)] if times else []
        if not works:
            return None
        _, path, files = max(works, key=lambda work: work[:2])
        lease, file = files.get(LEASE), f"{path}/{LEASE}"
        holder = self.cached(file, lease, partial(_read_holder, file), None)
        return Work(path, files, holder, lease is not None and self.is_alive(holder, file, lease))

    def is_alive(self, holder: Holder | None, path: str, stat: os.stat_result) -> bool:
        """Tell whether a holder lives: here by its process, elsewhere by its heartbeat, the file's time."""
        age = self.ages.of(path, stat.st_mtime)
        if holder is not None:
            if holder.is_alive_here():
                return True
            if holder.token not in self._dead and holder.is_dead_here():
                self._dead.add(holder.token)  # it looks through all processes: once is enough
            if holder.token in self._dead:
                return False
        return age <= EXPIRY_SECONDS

    def attempts(self, work: Work | None) -> list[dict[str, Any]]:
        """Return the attempts to train, the oldest first."""
        if work is None:
            return []
        load = partial(read_attempts, Path(work.path))
        return self.cached(f"{work.path}/{ATTEMPTS}", work.files.get(ATTEMPTS), load, [])

    def numbers(self, folder: str, files: Entries, work: Work | None) -> dict[str, Any]:
        """Return how far training is, as fields of RunProgress; empty where nothing tells."""
        numbers: dict[str, Any] = {}
        if work is not None:
            path = f"{work.path}/{PROGRESS}"
            numbers = self.cached(path, work.files.get(PROGRESS), partial(_read_progress, path), {})
        if not numbers:
            path = f"{folder}/{TRAIN_LOG}"
            numbers = self.cached(path, files.get(TRAIN_LOG), partial(_read_train_log, path), {})
        return dict(numbers)

    def curve(self, folder: str) -> dict[str, Any] | None:
        """Return the epochs of the run in *folder* as :func:`read_curve` reads them; None before the first one.

        Of the training that goes on, or of the last one: a finished run may be trained again with other settings.
        """
        work = self.newest_work(f"{folder}/{RunFolder.work}")
        file = f"{folder}/{TRAIN_LOG}"
        if work is not None and (work.is_alive or TRAIN_LOG in work.files):
            file = f"{work.path}/{TRAIN_LOG}"
        # What `numbers` made of the same file has its path alone.
        return self.cached(f"{file} by epochs", stat_of(file), partial(read_curve, file), None)

    def outcome(self, path: str, stat: os.stat_result | None, since: float) -> Outcome | None:
        """Return how a command ended that did not finish; None where there is no such file, or one from before."""
        return self.cached(path, stat if is_made(stat, since) else None, partial(Outcome.read, Path(path)), None)


# -- one file ----------------------------------------------------------------------------------------------------------


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def read_lock(path: str, results: str) -> tuple[dict[Key, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Return what Snakemake set out to make below *results*: of the runs and of the data sets, relative to each."""
    runs: dict[Key, tuple[str, ...]] = {}
    data: dict[str, tuple[str, ...]] = {}
    for line in _read(path).split("\n"):
        top, *parts = line.split("/")
        if top != results or len(parts) < 2:
            continue
        seed = seed_of(parts[2]) if len(parts) > 3 else None
        if seed is not None:
            fold = fold_of(parts[3]) if len(parts) > 4 else None
            key = (parts[0], parts[1], seed, NO_FOLD if fold is None else fold)
            runs[key] = (*runs.get(key, ()), "/".join(parts[3 if fold is None else 4 :]))
        else:
            data[parts[0]] = (*data.get(parts[0], ()), "/".join(parts[1:]))
    return runs, data


def _read_holder(path: str) -> Holder:
    """Return who holds a lease; raise TypeError or ValueError where the file does not say so."""
    holder = Holder(**json.loads(_read(path)))
    if not _is_sound(holder):
        raise ValueError(path)
    return holder


def _is_sound(holder: Holder) -> bool:
    numbers = [holder.pid, holder.started, holder.group or 0]
    return isinstance(holder.token, str) and all(isinstance(number, int | float) for number in numbers)


def _read_progress(path: str) -> dict[str, Any]:
    """Return progress.json as fields of RunProgress; raise ValueError or AttributeError where it is cut short."""
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
    """Return what train_log.csv tells, as fields of RunProgress: of a run whose work/ is gone."""
    rows = list(csv.DictReader(_read(path).splitlines()))
    accuracies = [value for row in rows if (value := _number(row.get("val_accuracy"))) is not None]
    last = rows[-1] if rows else {}
    return {
        "epochs_done": _count(last.get("epoch")),
        "best_val_accuracy": max(accuracies, default=None),
        "loss": _number(last.get("train_loss")),
        "images_per_second": _number(last.get("images_per_second")),
    }


def read_curve(path: str) -> dict[str, Any]:
    """Return the columns of a train_log.csv that are drawn, and ``kept``, the epoch whose weights are the best so far.

    Raises
    ------
    KeyError, TypeError, ValueError : it is cut short, or none.
    """
    rows = list(csv.DictReader(_read(path).splitlines()))
    best = [float(row["epoch"]) for row in rows if row.get("is_best") == "1"]
    curve: dict[str, Any] = {name: [_number(row[name]) for row in rows] for name in CURVES}
    return {**curve, "epoch": [float(row["epoch"]) for row in rows], "kept": best[-1] if best else None}


def _read_settings(path: str) -> list[tuple[str, int, int]]:
    """Return experiment, seed and fold of the runs of a settings.yaml, whose content was checked when it was run."""
    from scripts.lib.base import strict_yaml  # late: only finished data sets have one

    try:
        content = strict_yaml.parse(_read(path))
    except UserError as error:
        raise ValueError(str(error)) from error
    seeds = [seed for seed in content.get("seeds", [0]) if isinstance(seed, int)]
    number = ((content.get("dataset") or {}).get("split") or {}).get("folds")
    folds = range(number) if isinstance(number, int) else (NO_FOLD,)
    return [(str(experiment), *run) for experiment in content["experiments"] for run in product(seeds, folds)]


def elapsed(attempts: Sequence[Mapping[str, Any]], goes_on: bool) -> float | None:
    """Return the seconds of all attempts; of one that was killed, those until its last note."""
    seconds = []
    for attempt in attempts:
        with suppress(KeyError, TypeError, ValueError):
            start = datetime.fromisoformat(attempt["start"]).timestamp()
            end = attempt.get("end") or attempt.get("seen", attempt["start"])
            is_now = goes_on and attempt is attempts[-1] and not attempt.get("end")
            seconds.append(max(0.0, (time.time() if is_now else datetime.fromisoformat(end).timestamp()) - start))
    return sum(seconds) if seconds else None


def entries(folder: str) -> dict[str, os.stat_result]:
    """Return the entries of a folder; empty where there is none."""
    stats = {}
    with suppress(OSError), os.scandir(folder) as scanned:
        for entry in scanned:
            try:
                stats[entry.name] = entry.stat()
            except OSError:  # gone since, or a link to nowhere
                continue
    return stats


def last_start(folder: str) -> float:
    """Return when the last Snakemake began, in seconds since 1970, by the names of its logs; 0 where none did."""
    starts = [0.0]
    for name in entries(folder):
        with suppress(ValueError):
            starts.append(datetime.strptime(name.partition(".")[0], "%Y-%m-%dT%H%M%S").timestamp())
    return max(starts)


def logs_in(folder: str) -> tuple[Entries, Entries]:
    """Return the logs in a folder, and the outcomes of commands beside them."""
    files = entries(folder)
    logs, outcomes = ({name: files[name] for name in files if name.endswith(end)} for end in (".log", SUFFIX))
    return logs, outcomes


def folders(folder: str) -> list[str]:
    """Return the folders in a folder that may be of experiments and runs, sorted."""
    with suppress(OSError), os.scandir(folder) as scanned:
        return sorted(entry.name for entry in scanned if entry.name not in RESERVED_NAMES and entry.is_dir())
    return []


def stat_of(path: str) -> os.stat_result | None:
    """Return os.stat of a path; None where there is nothing."""
    try:  # suppress() takes twice the time, and this is asked thousands of times a second
        return os.stat(path)
    except OSError:
        return None


def is_made(stat: os.stat_result | None, since: float) -> bool:
    """Tell whether a file is there, written after *since*."""
    return stat is not None and stat.st_mtime >= since


def has_report_since(dataset: str, failed: os.stat_result | None) -> bool:
    """Tell whether the report of a data set, which is made of all that is asked for, came after something failed."""
    return failed is not None and is_made(stat_of(f"{dataset}/report.html"), failed.st_mtime)


def seed_of(name: str) -> int | None:
    """Return the seed that a folder is named after; None where it is no seed's."""
    match = re.fullmatch(r"seed(\d{1,10})", name, re.ASCII)
    return int(match[1]) if match else None


def fold_of(name: str) -> int | None:
    """Return the fold that a folder is named after; None where it is no fold's."""
    match = FOLD.fullmatch(name)
    return int(match[1]) if match else None


def folds_in(folder: str) -> list[int]:
    """Return the folds below the folder of a seed; NO_FOLD where it is, or was, a run of its own."""
    names = folders(folder)
    folds = [fold for fold in map(fold_of, names) if fold is not None]
    is_run = RunFolder.work.name in names or stat_of(f"{folder}/{RunFolder.config}") is not None
    return [*folds, NO_FOLD] if is_run or not folds else folds


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
