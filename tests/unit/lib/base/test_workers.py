"""Workers end with the process that started them, whenever that is killed, and print nothing of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from dag import ROOT
from planted_images import encoded, photograph

RENDER = """
from pathlib import Path
from scripts.lib.data.sample.render import write_archive
write_archive(Path("x.zip"), 2000, processes=3)
"""
CHECK = """
from pathlib import Path
import numpy as np
from scripts.lib.data.auditing import check_files
names = [path.name for path in Path().glob("*.jpg")] * 5000
for _ in check_files(Path(), names, np.zeros((0, 32), np.uint8), 3): pass
"""


@pytest.mark.long
@pytest.mark.parametrize("code", [RENDER, CHECK], ids=["render", "check"])
@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.4, 1.0])
def test_workers_of_a_killed_process_end_without_a_word(tmp_path: Path, code: str, seconds: float) -> None:
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(photograph(number, (400, 400))))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    started = psutil.Process(process.pid)
    while not (workers := started.children()):
        assert process.poll() is None
        time.sleep(0.002)
    time.sleep(seconds)  # they load their modules, wait for work, or work
    workers = started.children()
    process.kill()
    _, errors = process.communicate(timeout=10)  # until the last one that could print has ended
    assert process.returncode == -signal.SIGKILL
    assert errors == ""
    assert not psutil.wait_procs(workers, 5)[1]


@pytest.mark.long
def test_a_renderer_that_is_killed_ends_the_rendering_in_one_line(tmp_path: Path) -> None:
    code = """
import signal, threading, time
from pathlib import Path
import psutil
from scripts.lib.base.problems import UserError
from scripts.lib.data.sample.render import write_archive
def kill():
    while len(workers := psutil.Process().children()) < 2: time.sleep(0.01)
    workers[1].kill()
threading.Thread(target=kill).start()
try:
    write_archive(Path("x.zip"), 100, processes=2)
except UserError as error:
    print(str(error))
"""
    command = [sys.executable, "-c", code]
    options = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "capture_output": True, "text": True}
    ended = subprocess.run(command, check=True, timeout=120, **options)  # type: ignore[call-overload]
    assert "a process that renders images was killed" in ended.stdout and "Traceback" not in ended.stderr
    assert not list(tmp_path.iterdir())
