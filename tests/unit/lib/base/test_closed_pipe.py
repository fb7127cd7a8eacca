"""A reader that has seen enough, as `head`, ends a command without a word."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scripts.lib.base.environment import ROOT


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_closed_pipe_is_no_error(lines: int) -> None:
    program = (
        "import argparse; from scripts.lib.base.console import run_cli\n"
        f"run_cli(argparse.ArgumentParser, lambda args: print('a line\\n' * {lines}))"
    )
    command = 'set -o pipefail; "$0" -c "$1" | (exec <&-; sleep 0.5)'
    result = subprocess.run(["bash", "-c", command, sys.executable, program], cwd=ROOT, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (141, "")
