"""Why a training stops before its end, and how all of its processes learn of it at the same iteration."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from scripts.lib.base.environment import Variable
from scripts.mmcls_plugins.processes import Processes

#: Seconds before its end (Variable.END_TIME) at which training stops: enough to save a large model on a slow disk.
END_MARGIN_SECONDS = 60.0
#: Why training stops before its end; processes that train together tell each other the number. The last one wins.
STOP_REASONS = ("", "the end of train_model", "the end of its time", "SIGINT", "SIGTERM")


class StopRequests:
    """Requests to stop: a signal, the end of the job's time, or of train_model, which passes signals on."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._reason = self._agreed = 0  # indices of STOP_REASONS: of this process, and of all
        self._parent = int(os.environ.get(Variable.PARENT, "0"))
        self._end_time = float(os.environ.get(Variable.END_TIME, "inf"))

    @contextmanager
    def signals_noticed(self) -> Iterator[None]:
        """Turn SIGTERM and SIGINT into a request that is met at the end of the iteration."""

        def notice(number: int, _frame: FrameType | None) -> None:
            self._reason = STOP_REASONS.index(signal.Signals(number).name)

        previous = {number: signal.signal(number, notice) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def agree(self, due: bool = False) -> bool:
        """Tell whether any process is asked to stop, or finds that saving is *due*: one answer for all of them."""
        if self._parent and not _is_alive(self._parent):
            self._reason = self._reason or STOP_REASONS.index("the end of train_model")
        if time.time() > self._end_time - END_MARGIN_SECONDS:
            self._reason = self._reason or STOP_REASONS.index("the end of its time")
        # A signal that comes after this line waits for the next round: all processes know the same.
        self._agreed, saving = self._processes.highest(self._reason, due)
        return bool(self._agreed or saving)

    @property
    def agreed(self) -> str:
        """Why all processes stop, by the last round of :meth:`agree`; "" where they go on."""
        return STOP_REASONS[self._agreed]


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Keep SIGTERM and SIGINT from this process during the block, and from those that start in it for ever.

    A data-loader worker would die of the signal that asks its trainer to save and stop, before it has read anything
    (``SeededCustomDataset`` shields it from then on), and with it the trainer.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
