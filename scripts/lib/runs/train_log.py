"""How a run was trained: train_log.csv read back, one row an epoch, and its history for the provenance."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from scripts.lib.base.files import sha256_of
from scripts.lib.base.problems import UserError
from scripts.lib.runs.attempts import read_attempts
from scripts.lib.runs.config_file import read_config
from scripts.lib.runs.run_folder import RunFolder, WorkFolder

NUMBERS = ("epoch", "train_loss", "val_accuracy", "val_loss", "images_per_second", "train_seconds", "val_seconds")


def read_train_log(path: Path) -> pd.DataFrame:
    """Read a train_log.csv; its numeric columns are floats, NaN where empty.

    Raises
    ------
    UserError : it is missing or empty, or lacks a column.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; it is written by scripts.train.train_model")
    try:
        log = pd.read_csv(path, encoding="utf-8")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a train_log.csv ({error}); train the run again") from error
    missing = [name for name in NUMBERS if name not in log]
    if missing or log.empty:
        what = f"lacks the column {missing[0]}" if missing else "holds no epoch"
        raise UserError(f"{path}: {what}; train the run again")
    for name in NUMBERS:
        log[name] = pd.to_numeric(log[name], errors="coerce")
    return log


def kept_epoch(log: pd.DataFrame) -> pd.Series | None:
    """Return the row of the epoch that best.pth is of; None where no epoch was validated.

    It is the last that became the best. An earlier version did not write which: then the one of the highest accuracy.
    """
    if not log["val_accuracy"].notna().any():
        return None
    if "is_best" in log and (log["is_best"] == 1).any():
        return log[log["is_best"] == 1].iloc[-1]
    return log.iloc[int(log["val_accuracy"].fillna(-1).argmax())]


def describe_training(config_file: Path) -> dict[str, Any]:
    """Return seed, device, threads and the promise of deterministic kernels, as config.py says."""
    config = read_config(config_file)
    runner = config.get("runner", {})
    return {"seed": config.get("seed"), **{key: runner.get(key) for key in ("device", "threads", "deterministic")}}


def describe_history(run: RunFolder, config_file: Path) -> dict[str, Any]:
    """Return how training went: command, times, attempts, job ids, operations that promise no equal bits."""
    first = config_file.read_text(encoding="utf-8").split("\n", 1)[0]
    work = find_work_folder(run, sha256_of(config_file))
    attempts = read_attempts(work.path) if work else []
    history: dict[str, Any] = {
        "folder": str(run.path),
        "command": first.removeprefix("# ") if first.startswith("# ") else None,
        "started": attempts[0]["start"] if attempts else None,
        "ended": attempts[-1]["end"] if attempts else None,
        "attempts": attempts,
        "slurm_job_ids": sorted({attempt["slurm_job_id"] for attempt in attempts if attempt["slurm_job_id"]}),
        "nondeterministic_operations": _nondeterministic_operations(work),
    }
    if run.train_log.is_file():
        log = read_train_log(run.train_log)
        history |= {
            "epochs": len(log),
            "train_seconds": round(float(log["train_seconds"].sum()), 3),
            "val_seconds": round(float(log["val_seconds"].sum()), 3),
        }
        # The last attempt's end may be missing: a kill between the end of training and its record.
        history["ended"] = history["ended"] or utc(run.train_log.stat().st_mtime)
    return history


def find_work_folder(run: RunFolder, config_sha256: str) -> WorkFolder | None:
    """Return the newest work folder of a run in which this very config.py was trained."""
    folders = [
        folder
        for folder in map(WorkFolder, run.work.glob("*"))
        if folder.identity.is_file()
        and config_sha256 in json.loads(folder.identity.read_text(encoding="utf-8")).values()
    ]
    return max(folders, key=lambda folder: folder.identity.stat().st_mtime, default=None)


def _nondeterministic_operations(work: WorkFolder | None) -> list[str]:
    """Return the operations of which torch said, while it trained, that they have no deterministic form."""
    if work is None or not work.output.is_file():
        return []
    text = work.output.read_text(encoding="utf-8", errors="replace")
    return sorted(set(re.findall(r"(\S+) does not have a deterministic implementation", text)))


def utc(seconds: float) -> str:
    """Return a time as people and programs read it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
