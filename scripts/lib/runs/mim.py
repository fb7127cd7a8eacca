"""The command ``mim``, quicker to start: ``python -m scripts.lib.runs.mim train mmcls config.py ...``.

Before each training ``mim`` starts mmcls's ``train.py -h``, to learn whether that has an option ``--gpus``: seconds of
imports, in which a GPU waits. The release of mmcls that mimflow pins has it, as a test makes sure.
"""

from __future__ import annotations

import subprocess
from typing import Any

from mim.cli import cli

_check_output = subprocess.check_output


def check_output_but_help(command: Any, *arguments: Any, **options: Any) -> Any:
    """Answer for ``train.py -h``; run every other command as subprocess.check_output does."""
    if isinstance(command, list) and command[-1] == "-h" and str(command[-2]).endswith("train.py"):
        return b"--gpus"
    return _check_output(command, *arguments, **options)


if __name__ == "__main__":
    subprocess.check_output = check_output_but_help  # type: ignore[assignment]
    cli(prog_name="mim")
