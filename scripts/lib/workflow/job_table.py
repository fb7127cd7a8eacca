"""This project's Slurm jobs as a table: run, state, node, time, progress."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scripts.lib.base.files import find_json
from scripts.lib.base.language import heading, titled, tr_line
from scripts.lib.base.text import columns
from scripts.lib.base.units import duration
from scripts.lib.cluster.slurm import Job
from scripts.lib.runs.progress_line import progress_line
from scripts.lib.runs.run_folder import RunFolder, WorkFolder, run_name
from scripts.lib.workflow.controller import RECORD, Controller

HEADER = ("job", "state", "run", "node", "time", "limit", "GPUs", "progress")


@dataclass(frozen=True)
class JobRun:
    """A run as the comment of its job names it."""

    dataset: str
    experiment: str
    seed: str
    fold: str = ""

    def __str__(self) -> str:
        return f"{self.experiment}, seed {self.seed}" + (f", fold {self.fold}" if self.fold else "")

    def folder(self, root: Path) -> Path:
        """Return where its results lie, below the project's folder."""
        folder = root / "results" / self.dataset / self.experiment / f"seed{self.seed}"
        return folder / f"fold{self.fold}" if self.fold else folder


def run_of(comment: str, root: Path) -> JobRun | None:
    """Return the run that a job is for, None where it is for none, or for several.

    Snakemake's executor calls a job ``rule_<group>_<rules>``, and the group of a run is
    ``run_<dataset>_<experiment>_<seed>``, with ``_fold<fold>`` where there are folds. Names may hold underscores
    themselves: of the ways to read them, one whose folder is there is taken.
    """
    match = re.match(r"rule_run_(.+)_(\d+)(?:_fold(\d+))?_[a-z_.]+$", comment)
    if not match:
        return None
    words, seed, fold = match[1].split("_"), match[2], match[3] or ""
    readings = [JobRun("_".join(words[:cut]), "_".join(words[cut:]), seed, fold) for cut in range(1, len(words))]
    there = [run for run in readings if run.folder(root).is_dir()]
    there += [run for run in readings if (root / "results" / run.dataset).is_dir()]
    return next(iter([*there, *readings]), None)


def label(job: Job, root: Path) -> str:
    """Return what a job is for, in words."""
    if job.is_allocation:
        return "the whole workflow"
    if run := run_of(job.comment, root):
        return str(run)
    data = re.match(r"rule_data_(.+?)(?:_(?:split|unpack|audit|pack)_.*)?$", job.comment)
    return titled(heading("data"), data[1]) if data else job.comment.removeprefix("rule_") or job.name


def progress(job: Job, root: Path) -> list[str]:
    """Return how far the runs of a job are, a line a run; none where nothing is known yet.

    Who trains in a folder says so in its lease, with the number of its job; a run that waits has at most what an
    earlier job of it left.
    """
    leases = sorted(file for run in ("", "/fold*") for file in root.glob(f"results/*/*/seed*{run}/work/*/lease.json"))
    by_lease = [file.parent for file in leases if find_json(file).get("job") == job.id]
    if job.is_allocation:
        names = {folder: ", ".join([*run_name(folder.parents[1]).values()][1:]) for folder in by_lease}
        return [titled(name, line) for folder, name in names.items() if (line := _line(folder))]
    run = run_of(job.comment, root)
    folders = by_lease or (_newest(run.folder(root)) if run else [])
    lines = [line for line in map(_line, folders) if line]
    return [titled(heading("so far"), line) for line in lines] if lines and job.state == "PENDING" else lines


def _newest(run: Path) -> list[Path]:
    """Return the folder in which a run was trained last, as a list of one or none."""
    states = [(file.stat().st_mtime, file.parent) for file in RunFolder(run).work.glob(f"*/{WorkFolder.progress}")]
    return [max(states)[1]] if states else []


def _line(work_dir: Path) -> str:
    with suppress(KeyError, TypeError, ValueError):
        parts = progress_line(find_json(WorkFolder(work_dir).progress)).split("  ")
        return "  ".join(map(tr_line, parts))
    return ""


def render(jobs: Sequence[Job], root: Path) -> str:
    """Return the jobs as a table of aligned columns, and below it what to do about those that wait for ever."""
    rows = []
    for job in jobs:
        lines = progress(job, root) or [""]
        state = heading(job.state.lower())
        state += f" ({job.reason})" if job.state == "PENDING" and job.reason else ""
        cells = [job.id, state, tr_line(label(job, root)), job.nodes or "-", duration(job.used), duration(job.limit)]
        rows.append([*cells, str(job.gpus), lines[0]])
        rows += [[""] * (len(HEADER) - 1) + [line] for line in lines[1:]]
    right = {HEADER.index(name) for name in ("time", "limit", "GPUs")}
    table = columns([list(map(heading, HEADER)), *rows], right)
    waiting = [tr_line(f"{job.id} will not start by itself: {job.remedy}") for job in jobs if job.remedy]
    return "\n".join([*table, *waiting])


def describe_controller(root: Path, jobs: Sequence[Job]) -> str:
    """Return a line on the Snakemake that submits this project's jobs; empty where there is nothing to say."""
    controller = Controller(root / RECORD)
    if (record := controller.record()) is not None and controller.is_alive():
        return f"controlled by {record.holder}"
    if any(not job.is_allocation for job in jobs):
        return "no snakemake waits for these jobs: the next start settles them first, and `make cancel` ends them"
    return ""
