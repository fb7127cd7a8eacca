"""A command that cannot be loaded ends in one line, too, and the step of a rule leaves its outcome and its log."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType


def watch(words: Sequence[str]) -> None:
    """Have an error end in one line that comes before ``run_cli``, as where a package is missing.

    Parameters
    ----------
    words : the arguments of the command, with ``--log FILE`` where it has one.
    """

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        from pathlib import Path  # late, as the next: each process that loads mimflow loads this module

        from scripts.lib.base.console import tell_early_error

        log = Path(words[words.index("--log") + 1]) if "--log" in words[:-1] else None
        if not (isinstance(error, Exception) and tell_early_error(log, error)):
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = hook
