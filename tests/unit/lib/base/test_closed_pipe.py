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
    assert ended('"$0" -c "$1" | (exec <&-; sleep 0.5)', program) == (141, "")


def test_a_pipe_to_another_process_that_breaks_is_an_error() -> None:
    program = (
        "import argparse, os; from scripts.lib.base.console import run_cli\n"
        "reader, writer = os.pipe(); os.close(reader)\n"
        "run_cli(argparse.ArgumentParser, lambda args: os.write(writer, b'x'))"
    )
    status, line = ended('"$0" -c "$1" | cat', program)
    assert status == 1 and line.startswith("error: Broken pipe") and line.count("\n") == 1


def ended(command: str, program: str) -> tuple[int, str]:
    """Return the exit status of a program in a pipe, and what it wrote to stderr."""
    command = "set -o pipefail; " + command
    result = subprocess.run(["bash", "-c", command, sys.executable, program], cwd=ROOT, capture_output=True, text=True)
    return result.returncode, result.stderr
