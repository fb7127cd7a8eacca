"""Processes that mimflow starts: what a trainer and train_model agree on, and how a signal reaches a whole group."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Exit status of a trainer that was asked to stop, saved its state and can go on (EX_TEMPFAIL of sysexits.h).
EXIT_STOPPED = 75
#: How its last line ends then: mim passes no exit status on.
STOPPED_LINE_END = "; the state is saved"
#: Environment variable with the process id of train_model, which a trainer must not outlive.
PARENT_VARIABLE = "MIMFLOW_TRAIN_MODEL_PID"
#: Environment variable with the time (seconds since 1970) at which a trainer will be ended, as by a job's limit.
END_VARIABLE = "MIMFLOW_END_TIME"
#: Environment variable with a copy of the images on a faster disk.
IMAGES_VARIABLE = "MIMFLOW_IMAGES"
#: Environment variable with a copy of the packed images on a faster disk.
PACKED_VARIABLE = "MIMFLOW_PACKED"


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
