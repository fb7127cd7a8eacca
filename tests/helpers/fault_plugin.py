"""Ends a trainer from inside, at a moment that no test could hit from outside; loaded by the config of a test.

MIMFLOW_TEST_FAULT=<moment>:<file name>:<n> kills the whole process group at the n-th time that <moment> happens to a
file whose final name starts with <file name>. Moments: ``before`` and ``after`` its rename.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

_replace = os.replace
_moment, _name, _count = (os.environ.get("MIMFLOW_TEST_FAULT") or "never::0").split(":")
_left = int(_count)


def _maybe_end(moment: str, target: object) -> None:
    global _left
    if moment == _moment and Path(str(target)).name.startswith(_name):
        _left -= 1
        if _left == 0:
            os.killpg(0, signal.SIGKILL)


def _faulty_replace(source: object, target: object, **options: object) -> None:
    _maybe_end("before", target)
    _replace(source, target, **options)  # type: ignore[arg-type]
    _maybe_end("after", target)


os.replace = _faulty_replace  # type: ignore[assignment]
