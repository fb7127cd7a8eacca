"""What each step cost, for `python -m bench.end_to_end`: a line of JSON a step, where the bench asks for it."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

from scripts.lib.base.environment import Variable

#: Set in the process of a step that was forked: it has loaded nothing itself.
is_fork = False


def note(step: str, log: Path | None) -> None:
    """Add the line of this process, at its end, to the file of the bench; without one, do nothing.

    Parameters
    ----------
    step : the rule's name.
    log : of the step; its folder tells the run.
    """
    file = os.environ.get(Variable.USAGE)
    if not file:
        return
    itself, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    line = {
        "step": step,
        "log": str(log or ""),
        "began": _began(),
        "ended": time.time(),
        "processor_seconds": itself.ru_utime + itself.ru_stime,
        "children_processor_seconds": children.ru_utime + children.ru_stime,
        "peak_mib": max(itself.ru_maxrss, children.ru_maxrss) / 1024,
        "loads_torch": "torch" in sys.modules and not is_fork,
    }
    with suppress(OSError), open(file, "a", encoding="utf-8") as stream:  # one write: several steps end at a time
        stream.write(json.dumps(line) + "\n")


def _began() -> float:
    """Return when this process was started, or forked: seconds since 1970 (proc_pid_stat(5), field 22).

    To a hundredth of a second; psutil's counts from the boot time, which the kernel tells in whole seconds.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    since_boot = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - since_boot + int(fields[19]) / os.sysconf("SC_CLK_TCK")
