"""What became of each attempt to train: lines in work_dir/attempts.jsonl when it starts, now and then, when it ends."""

from __future__ import annotations

import json
import logging
import os
import socket
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from scripts.lib.base.console import one_line
from scripts.lib.base.outcome import Ending
from scripts.lib.base.problems import Stopped, UserError
from scripts.lib.runs.run_folder import WorkFolder

logger = logging.getLogger(__name__)
NAME = WorkFolder.attempts.name
#: Reason of an attempt that wrote no second line: nobody can write one for a process that was killed.
NO_END = "killed, or the machine went down: its end is not on record"


class Attempt:
    """An attempt that goes on. What is in ``extra`` when it ends goes on record with its end."""

    def __init__(self, work_dir: Path, token: str) -> None:
        self._work_dir = work_dir
        self._token = token
        self.extra: dict[str, Any] = {}

    def note(self) -> None:
        """Record that it goes on, with ``extra`` as it is now: all that is known of it if it is killed later."""
        _append(self._work_dir, {"attempt": self._token, "seen": _now(), **self.extra})


@contextmanager
def recorded(work_dir: Path) -> Iterator[Attempt]:
    """Record the start, the end and the outcome of the block; its exceptions pass."""
    token = uuid.uuid4().hex[:12]
    start = {"attempt": token, "start": _now(), "host": socket.gethostname(), "pid": os.getpid()}
    _append(work_dir, start | {"slurm_job_id": os.environ.get("SLURM_JOB_ID")})
    attempt = Attempt(work_dir, token)
    end: dict[str, str] = {"outcome": Ending.FINISHED}
    try:
        yield attempt
    except BaseException as error:  # KeyboardInterrupt too: whatever ends it is on record
        was_stopped = isinstance(error, Stopped | KeyboardInterrupt)
        words = [*([] if isinstance(error, UserError) else [type(error).__name__]), *filter(None, [one_line(error)])]
        end = {"outcome": Ending.STOPPED if was_stopped else Ending.FAILED, "reason": ": ".join(words)}
        raise
    finally:
        _append(work_dir, {"attempt": token, "end": _now(), **end, **attempt.extra})


def read_attempts(work_dir: Path) -> list[dict[str, Any]]:
    """Return the attempts in *work_dir*, oldest first: start, end (or None), host, pid, slurm_job_id, outcome
    (finished, stopped, failed or killed) and, unless it finished, the reason.

    Where they were noted: ``seen`` (when it last said that it goes on), and what was in ``extra``.
    """
    try:
        lines = (work_dir / NAME).read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return []
    attempts: dict[str, dict[str, Any]] = {}
    for line in lines:
        try:
            entry = json.loads(line)
            token = entry.pop("attempt")
        except (ValueError, AttributeError, KeyError, TypeError):
            continue  # an empty line, or one that a kill or a full disk cut short
        if "start" in entry:
            attempts[token] = entry | {"end": None, "outcome": Ending.KILLED, "reason": NO_END}
        elif token in attempts:
            attempts[token] |= entry
    for attempt in attempts.values():
        if attempt["outcome"] == Ending.FINISHED:
            del attempt["reason"]
    return list(attempts.values())


def _append(work_dir: Path, entry: Mapping[str, Any]) -> None:
    # An earlier line may have been cut short: begin on a new one. A record that fails must not end a training.
    try:
        with open(work_dir / NAME, "a", encoding="utf-8") as file:
            file.write("\n" * (file.tell() > 0) + json.dumps(entry, ensure_ascii=False))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        logger.warning("%s: this attempt could not be recorded (%s)", work_dir / NAME, error.strerror)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
