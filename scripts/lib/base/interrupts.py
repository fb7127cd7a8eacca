"""Ctrl-C, held back until a process can end in one calm line.

Ctrl-C reaches every process of a terminal at once. One that is still loading its modules, or what another has just
begun to tell it, would show a traceback. So mimflow starts its commands with the signal blocked: it waits, and is
delivered as soon as :func:`take` is called.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_CTRL_C = {signal.SIGINT}


def hold() -> None:
    """Hold Ctrl-C back in this thread, and in all that it starts."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _CTRL_C)


def take() -> None:
    """Take Ctrl-C again, and at once if it came in between.

    Raises
    ------
    KeyboardInterrupt : it did, and nobody has set another handler.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _CTRL_C)


@contextmanager
def held() -> Iterator[None]:
    """Hold Ctrl-C back while helper processes are started, which never see it: this process ends them.

    In the main thread only: others cannot change what happens at a signal.

    Raises
    ------
    KeyboardInterrupt : at the end, if it came in between.
    """
    came: list[int] = []
    # Both: a library's thread would take the signal that this one blocks, and helpers inherit what is blocked.
    handler = signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _CTRL_C)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        if came:
            signal.raise_signal(signal.SIGINT)
