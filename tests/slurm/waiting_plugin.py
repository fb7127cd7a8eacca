"""Makes a training meet the time limit of its job twice, on a machine of any speed; the config of a test loads it.

It waits before two iterations until the time of the job is over. Without a time limit it does nothing.
"""

from __future__ import annotations

import math
import os
import time
from typing import Any

from scripts.lib.base.environment import Variable
from scripts.mmcls_plugins.processes import END_MARGIN_SECONDS
from scripts.mmcls_plugins.runner import ReproducibleRunner

#: A training that goes on begins after the iteration at which it stopped, so that it waits once at each.
WAIT_AT = (20, 60)
_stop_time = float(os.environ.get(Variable.END_TIME, "inf")) - END_MARGIN_SECONDS
_call_hook = ReproducibleRunner.call_hook


def _call_hook_late(runner: ReproducibleRunner, name: str, *arguments: Any) -> None:
    if name == "before_train_iter" and runner.iter in WAIT_AT and not math.isinf(_stop_time):
        time.sleep(max(0.0, _stop_time - time.time()) + 0.1)
    _call_hook(runner, name, *arguments)


ReproducibleRunner.call_hook = _call_hook_late  # type: ignore[method-assign]
