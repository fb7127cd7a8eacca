"""What a step cost stands in the file that the bench names, and nowhere else."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.lib.base.environment import ROOT, Variable

BUSY = """
import argparse, subprocess, sys, time
from scripts.lib.base.console import run_cli
def main(_args):
    end = time.process_time() + 0.3
    while time.process_time() < end: pass
    subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.3: pass"], check=True)
    {last}
run_cli(argparse.ArgumentParser, main)
"""


@pytest.mark.parametrize("last", ["pass", "import torch"])
def test_a_step_writes_down_its_processor_time_and_whether_it_loads_torch(last: str, tmp_path: Path) -> None:
    if last != "pass":  # a stand-in: what counts is that a module of this name is loaded
        (tmp_path / "torch.py").write_text("")
    (tmp_path / "busy.py").write_text(BUSY.format(last=last))
    usage = tmp_path / "usage.jsonl"
    began = time.time()
    subprocess.run(
        [sys.executable, "busy.py", "--log", "logs/a/train_model.log"],
        cwd=tmp_path, env={str(Variable.USAGE): str(usage), "PYTHONPATH": f"{tmp_path}:{ROOT}"}, check=True,
    )  # fmt: skip
    (line,) = map(json.loads, usage.read_text().splitlines())
    assert (line["step"], line["log"]) == ("train_model", "logs/a/train_model.log")
    assert line["loads_torch"] == (last != "pass")
    assert 0.3 <= line["processor_seconds"] < 3 and 0.3 <= line["children_processor_seconds"] < 3
    assert began - 0.1 <= line["began"] < line["ended"] <= time.time()
    assert line["peak_mib"] > 5


def test_a_step_that_fails_writes_nothing_down(tmp_path: Path) -> None:
    (tmp_path / "busy.py").write_text(BUSY.format(last="raise ValueError"))
    usage = tmp_path / "usage.jsonl"
    command = [sys.executable, "busy.py", "--log", "a.log"]
    environment = {str(Variable.USAGE): str(usage), "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, cwd=tmp_path, env=environment).returncode == 1
    assert not usage.exists()
