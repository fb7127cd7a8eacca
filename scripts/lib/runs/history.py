"""How a run was trained, for its provenance: what config.py asked for, and the times and attempts that it took."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.lib.base.files import sha256_of
from scripts.lib.runs.attempts import read_attempts
from scripts.lib.runs.config_file import read_config
from scripts.lib.runs.run_folder import RunFolder, WorkFolder
from scripts.lib.runs.train_log import read_train_log


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
