"""What runs cost: time in the queue, wall time, GPU-seconds, energy and money, from Slurm's accounting where it is."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scripts.lib.base.language import tr
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.cluster import slurm
from scripts.lib.cluster.slurm import JobRecord
from scripts.lib.runs.config_file import read_config
from scripts.lib.runs.run_folder import RunFolder
from scripts.lib.runs.train_log import read_train_log

logger = logging.getLogger(__name__)

#: Of costs.csv, one row a run.
COLUMNS = (
    "experiment", "seed", "attempts", "jobs", "queue_seconds", "wall_seconds", "gpus", "gpu_seconds", "energy_kwh",
    "energy_of", "cost", "currency", "source",
)  # fmt: skip
#: Of leaderboard.csv: sums over the runs of an experiment.
SUMS = ("queue_seconds_sum", "wall_seconds_sum", "gpu_seconds_sum", "energy_kwh_sum", "cost_sum")
#: What costs.csv says in `source`.
ACCOUNTING, ATTEMPTS, TRAIN_LOG = "accounting", "attempts", "train log"
#: What costs.csv says in `energy_of`: the GPUs, by their driver, or the nodes with all that is in them, by Slurm.
OF_GPUS, OF_NODES = "GPUs", "nodes"
JOULES_PER_KWH = 3.6e6
#: Experiment, seed and fold of a run.
Key = tuple[str, int, int | None]
#: Clocks of two machines may differ by this much.
CLOCK_SECONDS = 300.0
#: What ended so long before a run's first attempt is none of its jobs, though it may have the same number.
PAST_SECONDS = 30 * 86400.0


@dataclass(frozen=True)
class Attempt:
    """One attempt to train: which Slurm job it ran in, from when to when (seconds since 1970), on how many GPUs."""

    job: str | None
    start: float
    end: float | None
    gpus: int | None
    joules: float | None

    @property
    def seconds(self) -> float:
        """Return how long it took; 0 where its end is on no record."""
        return max(0.0, self.end - self.start) if self.end is not None else 0.0


@dataclass(frozen=True)
class RunHistory:
    """What is on record of a run's training.

    ``busy`` are the seconds of training and validation in train_log.csv, ``gpus`` what config.py trains on:
    None where there is no such file. ``fold`` is None without cross-validation.
    """

    experiment: str
    seed: int
    gpus: int | None
    busy: float
    attempts: tuple[Attempt, ...] = ()
    fold: int | None = None

    @property
    def key(self) -> Key:
        """Return what tells it from the other runs of its data set."""
        return self.experiment, self.seed, self.fold

    @property
    def jobs(self) -> dict[str | None, list[Attempt]]:
        """Return the attempts by Slurm job; those outside of Slurm under None."""
        jobs: dict[str | None, list[Attempt]] = {}
        for attempt in self.attempts:
            jobs.setdefault(attempt.job, []).append(attempt)
        return jobs


def read_history(folder: Path, experiment: str, seed: int, fold: int | None = None) -> RunHistory:
    """Return the history of the run in *folder*: from its provenance.json, config.py and train_log.csv.

    Raises
    ------
    UserError : train_log.csv is missing or not one.
    """
    run = RunFolder(folder)
    log = read_train_log(run.train_log)
    busy = float(log["train_seconds"].sum()) + float(log["val_seconds"].sum())
    attempts = tuple(_attempts(run.provenance))
    return RunHistory(experiment, seed, gpus_of(run.config), busy, attempts, fold)


def gpus_of(config: Path) -> int | None:
    """Return the GPUs that config.py trains on, 0 for the CPU; None where it is missing or does not say."""
    runner = read_config(config).get("runner", {}) if config.is_file() else {}
    gpus = int(runner.get("gpus", 1)) * int(runner.get("nodes", 1))
    return {"cuda": gpus, "cpu": 0}.get(str(runner.get("device", "")))


def _attempts(provenance: Path) -> list[Attempt]:
    try:
        record = json.loads(provenance.read_text(encoding="utf-8"))
        return [
            Attempt(
                job=str(entry["slurm_job_id"]) if entry.get("slurm_job_id") else None,
                start=datetime.fromisoformat(entry["start"]).timestamp(),
                # Of an attempt that was killed, its last note is all that is known of its end.
                end=datetime.fromisoformat(end).timestamp() if (end := entry["end"] or entry.get("seen")) else None,
                gpus=entry.get("gpus"),
                joules=entry.get("energy_joules"),
            )
            for entry in record["circumstances"]["training"]["attempts"]
        ]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("%s: its attempts are not to be read (%r): the cost comes from train_log.csv", provenance, error)
        return []


def find_records(histories: Iterable[RunHistory]) -> dict[str, list[JobRecord]]:
    """Return what Slurm's accounting knows of the runs' jobs; nothing where there is none."""
    attempts = [attempt for history in histories for attempt in history.attempts if attempt.job]
    if not attempts:
        return {}
    since = min(attempt.start for attempt in attempts) - PAST_SECONDS
    try:
        return slurm.accounting({attempt.job for attempt in attempts if attempt.job}, since)
    except slurm.SlurmAbsent:
        return {}
    except UserError as error:
        logger.warning("no accounting for the runs' Slurm jobs (%s): their cost comes from their own record", error)
        return {}


def estimate(
    histories: Sequence[RunHistory],
    records: Mapping[str, Sequence[JobRecord]],
    price: float | None = None,
    currency: str = "",
) -> pd.DataFrame:
    """Return costs.csv: what each run cost.

    What Slurm bills is counted: all records of a job, each from its start to its end, times its GPUs. A job in which
    several runs trained (a whole workflow in one allocation) is divided among them by GPU-seconds of training, so that
    their sum is the whole job. Runs outside of Slurm, or without accounting, count from the start to the end of each
    attempt.

    Parameters
    ----------
    histories : of the runs.
    records : Slurm's accounting of their jobs, by job id.
    price : of one GPU for an hour, None where nothing is known of it.
    currency : of the price.
    """
    weights: dict[str, dict[Key, float]] = {}
    for history in histories:
        for job, attempts in history.jobs.items():
            if job is not None:
                weight = sum(attempt.seconds * max(1, _n_gpus(attempt, history) or 0) for attempt in attempts)
                weights.setdefault(job, {})[history.key] = weight
    shares = {job: _shares(of_runs) for job, of_runs in weights.items()}
    rows = [_cost_of(history, records, shares, price, currency) for history in histories]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    if any(history.fold is not None for history in histories):
        table.insert(2, "fold", [history.fold for history in histories])
    return table


def _shares(weights: Mapping[Key, float]) -> dict[Key, float]:
    whole = sum(weights.values())
    return {run: weight / whole if whole else 1 / len(weights) for run, weight in weights.items()}


def _n_gpus(attempt: Attempt, history: RunHistory) -> int | None:
    return attempt.gpus if attempt.gpus is not None else history.gpus


def _cost_of(
    history: RunHistory,
    records: Mapping[str, Sequence[JobRecord]],
    shares: Mapping[str, Mapping[Key, float]],
    price: float | None,
    currency: str,
) -> dict[str, Any]:
    queued, wall, gpu_seconds, node_joules = np.nan, 0.0, 0.0, 0.0
    sources = set()
    for job, attempts in history.jobs.items():
        job_records = records.get(job, ()) if job is not None else ()
        if job is not None and _belong_together(job_records, attempts):
            sources.add(ACCOUNTING)
            share = shares[job][history.key]
            waits = [record.queued for record in job_records if record.queued is not None]
            queued = np.nansum([queued, share * sum(waits)])
            wall += sum(record.elapsed for record in job_records) if share == 1 else sum(a.seconds for a in attempts)
            # A site that does not account for GPUs says 0 of every job.
            gpu_seconds += share * sum(record.elapsed * (record.gpus or history.gpus or 0) for record in job_records)
            node_joules += share * sum(record.joules or np.nan for record in job_records if record.elapsed)
        else:
            sources.add(ATTEMPTS)
            wall += sum(attempt.seconds for attempt in attempts)
            gpu_seconds += sum(attempt.seconds * _number(_n_gpus(attempt, history)) for attempt in attempts)
            node_joules = np.nan
    if ACCOUNTING not in sources and wall < history.busy:
        # An attempt whose end is on no record took at least what train_log.csv has of it.
        sources = {TRAIN_LOG}
        wall, gpu_seconds = history.busy, history.busy * _number(history.gpus)
    joules, energy_of = _energy(history, node_joules)
    return {
        "experiment": history.experiment,
        "seed": history.seed,
        "attempts": len(history.attempts),
        "jobs": len({attempt.job for attempt in history.attempts} - {None}),
        "queue_seconds": round(float(queued), 1),
        "wall_seconds": round(float(wall), 1),
        "gpus": _number(history.gpus),
        "gpu_seconds": round(float(gpu_seconds), 1),
        "energy_kwh": round(float(joules / JOULES_PER_KWH), 6),
        "energy_of": energy_of,
        "cost": np.nan if price is None else round(float(gpu_seconds / 3600 * price), 4),
        "currency": "" if price is None else currency,
        "source": ", ".join(sorted(sources)),
    }


def _belong_together(job_records: Sequence[JobRecord], attempts: Sequence[Attempt]) -> bool:
    """Tell whether the accounting is about the job of these attempts: job ids are used again, and results copied."""
    return bool(job_records) and all(
        any(
            (record.submitted or 0.0) - CLOCK_SECONDS <= attempt.start <= (record.ended or math.inf) + CLOCK_SECONDS
            for record in job_records
        )
        for attempt in attempts
    )


def _energy(history: RunHistory, node_joules: float) -> tuple[float, str]:
    """Return the energy of a run in joules (NaN where unknown) and of what it is."""
    on_gpus = [attempt for attempt in history.attempts if _n_gpus(attempt, history)]
    if on_gpus and all(attempt.joules is not None for attempt in on_gpus):
        return sum(attempt.joules or 0.0 for attempt in on_gpus), OF_GPUS
    if node_joules > 0:
        return node_joules, OF_NODES
    return np.nan, ""


def _number(count: int | None) -> float:
    return np.nan if count is None else count


def sum_up(costs: pd.DataFrame) -> dict[str, Any]:
    """Return the sums over some runs; a sum of which a part is unknown is unknown.

    Two parts do not have to be known: a queue where there was none, and the energy of a run without a GPU.
    """
    measured = costs["energy_kwh"].where(costs["energy_kwh"].notna() | (costs["gpu_seconds"] != 0), 0.0)
    currencies = [name for name in costs["currency"].unique() if name]
    return {
        "queue_seconds_sum": costs["queue_seconds"].sum(min_count=1),
        "wall_seconds_sum": costs["wall_seconds"].sum(skipna=False),
        "gpu_seconds_sum": costs["gpu_seconds"].sum(skipna=False),
        "energy_kwh_sum": measured.sum(skipna=False) if costs["energy_kwh"].notna().any() else np.nan,
        "cost_sum": costs["cost"].sum(skipna=False),
        "currency": currencies[0] if currencies else "",
    }


def number(value: Any, digits: int = 0) -> str:
    """Return a number of a table as people read it."""
    return "-" if pd.isna(value) else f"{value:,.{digits}f}"


def cells(costs: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Return header and rows of the costs as people read them, a row of sums at the end; no column of nothing."""
    total = sum_up(costs) | {"attempts_sum": costs["attempts"].sum(), "jobs_sum": costs["jobs"].sum()}
    money = f"cost {total['currency']}".strip()
    run = ["experiment", "seed", *(["fold"] if "fold" in costs else [])]
    header = [*run, "attempts", "Slurm jobs", "queue s", "wall s", "GPU s", "energy kWh", money]
    digits = dict.fromkeys(("attempts", "jobs", "queue_seconds", "wall_seconds", "gpu_seconds"), 0)
    digits |= {"energy_kwh": 3, "cost": 2}
    rows = [
        [*(str(row[name]) for name in run), *(number(row[name], places) for name, places in digits.items())]
        for _, row in costs.iterrows()
    ]
    sums = [tr("in sum"), *[""] * (len(run) - 1), *(number(total[f"{name}_sum"], digits[name]) for name in digits)]
    nothing = {"-", "0", "0.00", "0.000"}
    kept = [i for i in range(len(header)) if i < len(run) or any(row[i] not in nothing for row in rows)]
    return [tr(header[i]) for i in kept], [[row[i] for i in kept] for row in [*rows, sums]]


def remarks(costs: pd.DataFrame) -> list[str]:
    """Return what a reader of the costs should know."""
    accounted, energy_of = costs["source"].str.contains(ACCOUNTING).any(), set(costs["energy_of"])
    remarks = {
        "Times by Slurm's accounting: whole jobs, with their idle parts.": accounted,
        "Energy: of the GPUs alone, while they trained, as their driver counts it.": OF_GPUS in energy_of,
        "Energy: of whole nodes, as Slurm counts it, with what else ran there.": OF_NODES in energy_of,
    }
    return [tr(remark) for remark, holds in remarks.items() if holds]


def in_sum(leaderboard: pd.DataFrame) -> str:
    """Return a line on what all experiments of a leaderboard cost; empty where no GPU took part and nothing is paid."""
    if any(name not in leaderboard for name in SUMS):  # written by an earlier version
        return ""
    sums = leaderboard[list(SUMS)].sum(skipna=True, min_count=1)
    if not sums["gpu_seconds_sum"] > 0 and not sums["cost_sum"] > 0:
        return ""
    incomplete = " at least" if leaderboard["gpu_seconds_sum"].isna().any() else ""
    parts = [f"{sums['gpu_seconds_sum']:,.0f} GPU-seconds"]
    if sums["queue_seconds_sum"] > 0:
        parts.append(f"{sums['queue_seconds_sum']:,.0f} s in the queue")
    if sums["energy_kwh_sum"] > 0:
        parts.append(f"{sums['energy_kwh_sum']:,.3f} kWh")
    if not math.isnan(sums["cost_sum"]):
        currency = next((name for name in leaderboard["currency"] if isinstance(name, str) and name), "")
        parts.append(f"{sums['cost_sum']:,.2f} {currency}".strip())
    runs = leaderboard["runs" if "runs" in leaderboard else "seeds"].sum()
    return f"In sum, {plural(int(runs), 'run')} took{incomplete} {', '.join(parts)}."
