"""Snakemake, as `make` starts it: Ctrl-C while it is being loaded ends in one line, as it does later."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

from scripts.lib.base import interrupts
from scripts.lib.base.problems import STOPPED
from scripts.lib.workflow.module import is_module


def stop(_number: int, _frame: FrameType | None) -> NoReturn:
    """End at once: nothing has begun."""
    os.write(2, f"{STOPPED}\n".encode())
    os._exit(128 + signal.SIGINT)


def catch_interrupts(workflow: Any = None) -> None:
    """Have Ctrl-C end in one line until the session's own handler takes this one's place.

    Parameters
    ----------
    workflow : Snakemake's, where it was started without make; its processes for single jobs stay as they are.
    """
    is_alone = workflow is None or workflow.is_main_process
    if is_alone and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as of a job in the background
        # As a module, Snakemake's own way: it ends the jobs of all rules.
        of_another = workflow is not None and is_module(workflow)
        signal.signal(signal.SIGINT, signal.default_int_handler if of_another else stop)


if __name__ == "__main__":
    catch_interrupts()
    interrupts.take()

    from snakemake.cli import main

    main(sys.argv[1:])
