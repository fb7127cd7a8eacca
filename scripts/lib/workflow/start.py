"""Snakemake, as `make` starts it: Ctrl-C while it is being loaded ends in one line, as it does later."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from scripts.lib.base import interrupts
from scripts.lib.base.problems import STOPPED


def stop(_number: int, _frame: FrameType | None) -> NoReturn:
    """End at once: nothing has begun."""
    os.write(2, f"{STOPPED}\n".encode())
    os._exit(128 + signal.SIGINT)


if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as of a job in the background
        signal.signal(signal.SIGINT, stop)  # until the workflow's own takes its place
    interrupts.take()

    from snakemake.cli import main

    main(sys.argv[1:])
