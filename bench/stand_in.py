"""Stand-ins for the scripts of a workflow on a cluster: a training that only waits, and outputs without content.

A copy of the repository whose Snakefile ends with `SNAKEFILE` runs them: the DAG, the jobs, Slurm and the controller
are the real ones. A training goes on where the last attempt was, as a real one does, and writes down when it ran.
"""

from __future__ import annotations

import errno
import inspect
import json
import math
import os
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scripts.lib.base import products
from scripts.lib.runs.lease import Lease

#: Before the rest of the Snakefile: no process that loads torch; after it: what `shell` does.
HEAD = "from scripts.lib.workflow import fork_server\n\nfork_server.are_wanted = lambda rules, modules: False\n"
TAIL = "\n\nfrom bench.stand_in import act as shell\n"
#: In the working folder: how long the trainings take, and what they did, one line a beat.
PLAN, BEATS = Path("stand_in.json"), Path("beats.jsonl")
#: Seconds between two lines of a training.
BEAT_SECONDS = 2.0


class Beat(NamedTuple):
    """A moment of a training: *word* is begin, beat or end; an attempt is one process."""

    run: str
    attempt: str
    job: str
    when: float
    word: str


def seconds_of(run: str, median: float, spread: float, seed: int) -> float:
    """Return how long a run trains: log-normal, by its name.

    Parameters
    ----------
    median : seconds.
    spread : standard deviation of the logarithm.
    """
    words = [seed, *run.encode()]
    return median * math.exp(spread * float(np.random.default_rng(words).standard_normal()))


def act(*_words: Any, **_options: Any) -> None:
    """Do what a rule's shell line would: train for a while, and write the outputs."""
    frame = inspect.currentframe()
    assert frame and frame.f_back
    names = frame.f_back.f_locals
    if names.get("rule") == "train_model":
        _train("{experiment}-{seed}".format(**dict(names["wildcards"].items())))
    outputs = [Path(name) for name in names.get("output", ())]
    for path in outputs:
        if path.suffix:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("stand-in", encoding="utf-8")
        else:
            path.mkdir(parents=True, exist_ok=True)
    if outputs:  # none where the Snakefile's onsuccess calls `shell`
        products.record(names["rule"], outputs)


def _train(run: str) -> None:
    plan = json.loads(PLAN.read_text(encoding="utf-8"))
    needed = seconds_of(run, plan["median"], plan["spread"], plan["seed"])
    lease = Lease(Path("states", run))  # as train_model has it: what it lets through is what the count tells
    lease.acquire()
    state = Path("states", f"{run}.txt")
    done = float(state.read_text()) if state.exists() else 0.0
    attempt = uuid.uuid4().hex
    _write(run, attempt, "begin")
    while done < needed:
        step = min(BEAT_SECONDS, needed - done)
        time.sleep(step)
        done += step
        lease.heartbeat()
        _write(run, attempt, "beat")
        temporary = state.with_suffix(f".{attempt}")
        temporary.write_text(str(done))
        temporary.replace(state)
    _write(run, attempt, "end")
    lease.release()


def _write(run: str, attempt: str, word: str) -> None:
    line = "\n" + json.dumps(Beat(run, attempt, os.environ.get("SLURM_JOB_ID", ""), time.time(), word))
    file = os.open(BEATS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        if os.write(file, line.encode()) < len(line):  # one call: lines of several processes do not mix
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(BEATS))
    finally:
        os.close(file)


def read_beats(folder: Path) -> list[Beat]:
    """Return what the trainings in *folder* have written, in the order of time, without what a full disk cut off."""
    file = folder / BEATS
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return sorted((Beat(*json.loads(line)) for line in lines if line.endswith("]")), key=lambda beat: beat.when)
