"""Ctrl-C that comes before a command can end calmly waits for it, and is not lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from dag import ROOT

from scripts.lib.base import interrupts

COMMAND = """
import argparse, atexit, logging, os, time
atexit.register(lambda: logging.getLogger("a library").info("its statistics"))
print("loading", flush=True)
time.sleep(0.5)

from scripts.lib.base.console import run_cli

def main(args):
    print("began", flush=True)
    time.sleep(30)

run_cli(argparse.ArgumentParser, main)
"""


@pytest.mark.parametrize("shown", ["loading", "began"])
def test_ctrl_c_while_a_command_loads_ends_it_in_one_line(shown: str, tmp_path: Path) -> None:
    (tmp_path / "command.py").write_text(COMMAND)
    process = subprocess.Popen(
        [sys.executable, "command.py"],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path},
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        preexec_fn=interrupts.hold,
    )
    assert process.stdout
    while process.stdout.readline().strip() != shown:
        pass
    process.send_signal(signal.SIGINT)
    words, errors = process.communicate(timeout=20)
    assert process.returncode == 130 and "began" not in words
    assert errors == "stopped; the same command goes on\n"


def test_helpers_that_are_started_meanwhile_never_see_it() -> None:
    with interrupts.held():
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"])
    helper.send_signal(signal.SIGINT)  # while it loads its modules
    with pytest.raises(subprocess.TimeoutExpired):
        helper.wait(1)
    helper.terminate()
    assert helper.wait(10) == -signal.SIGTERM
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_one_that_came_in_between_is_delivered_at_the_end() -> None:
    done = []
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)  # takes the signal that the main thread blocks
    other.start()
    try:
        with pytest.raises(KeyboardInterrupt), interrupts.held():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            done.append("all")
    finally:
        stop.set()
        other.join()
    assert done
    with pytest.raises(KeyboardInterrupt):  # as before
        signal.raise_signal(signal.SIGINT)
