"""Processes that mimflow starts: what a trainer and train_model agree on, and how a signal reaches a whole group."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Exit status of a trainer that was asked to stop, saved its state and can go on (EX_TEMPFAIL of sysexits.h).
EXIT_STOPPED = 75


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
