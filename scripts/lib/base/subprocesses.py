"""Processes that mimflow starts: what a trainer and train_model agree on, their signals, and who kills them."""

from __future__ import annotations

import ctypes
import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

#: Exit status of a trainer that was asked to stop, saved its state and can go on (EX_TEMPFAIL of sysexits.h).
EXIT_STOPPED = 75
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process when the thread that started it ends, also if its process is killed.

    Parameters
    ----------
    parent : id of the process that started this one; where it has ended already, this one ends at once.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def kills_for_memory() -> int | None:
    """Return how many processes Linux has killed since it started, because memory ran out; None where it is not told.

    As ``oom_kill`` of /proc/vmstat, which counts the limit of a container or a Slurm job, too (Linux 4.13 and later).
    """
    with suppress(OSError):
        if count := re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(), re.MULTILINE):
            return int(count[1])
    return None


#: How libraries tell that a process of theirs was killed.
KILLED_WORKER = re.compile(r"BrokenProcessPool\b|DataLoader worker .*(killed by signal: Killed|exited unexpectedly)")
#: Their number when this process began.
KILLS_AT_START = kills_for_memory()
#: What to do where memory ran out, of any process.
OF_ALL = "run fewer jobs at once (ARGS='--cores 1'), or with Slurm ask for more memory (mem_mb in the profile)"


def memory_ran_out() -> bool | None:
    """Tell whether Linux has killed a process for memory since this one began; None where it does not tell."""
    now = kills_for_memory()
    return None if now is None or KILLS_AT_START is None else now > KILLS_AT_START


def was_killed(what: str, ran_out: bool | None, remedies: Sequence[str] = ()) -> tuple[str, str]:
    """Return what is to be said of a process that SIGKILL has ended, and what to do.

    Parameters
    ----------
    what : the process, as the subject of a sentence.
    ran_out : whether memory did, on its machine; None: not known.
    remedies : what takes its memory, and can be changed.
    """
    if ran_out is False:
        by_whom = "by a person or a program (Linux counts no kill for want of memory)"
        return f"{what} was killed {by_whom}", "run the same command again"
    how = "because memory ran out" if ran_out else "most likely because memory ran out"
    return f"{what} was killed, {how}", "; ".join([*remedies, OF_ALL])


@contextmanager
def signals_forwarded(group: int, number: signal.Signals, once: bool) -> Iterator[list[int]]:
    """Pass SIGTERM, SIGINT and SIGHUP of this process on to a process group, and live on.

    Parameters
    ----------
    group : the process group.
    number : the signal that it gets, whichever came.
    once : pass on the first only.

    Yields
    ------
    list of int : the signals that came; it grows.
    """
    received: list[int] = []

    def forward(came: int, _frame: FrameType | None) -> None:
        if not (once and received):
            signal_group(group, number)
        received.append(came)

    previous = {ends: signal.signal(ends, forward) for ends in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield received
    finally:
        for ends, handler in previous.items():
            signal.signal(ends, handler)


def signal_group(group: int, number: signal.Signals) -> None:
    """Send a signal to a process group, which may have ended."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass
