"""What the bench runs: processes in a clean environment, with their output in a log and their memory watched."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from scripts.lib.base.environment import ROOT
from scripts.lib.base.problems import UserError

Row = dict[str, Any]
THREADS = 2
#: Seconds between two looks at the memory, and the share of a core that looking may take.
MEMORY_SECONDS, MEMORY_SHARE = 0.2, 0.02
#: Where the hooks of the bench write what they measured.
OUTPUT_VARIABLE = "MIMFLOW_BENCH_OUTPUT"


def environment(device: str = "cpu", output: Path | None = None) -> dict[str, str]:
    """Return the environment of a row's processes: two threads, and none of the memory settings of mimflow.

    Parameters
    ----------
    output : what a hook of the bench writes in it; the process can then import the bench.
    """
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    variables["PATH"] = str(Path(sys.executable).parent) + os.pathsep + variables.get("PATH", "")
    variables |= {"OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS)}
    if device == "cpu":  # mmcls and mimflow would take a GPU that they see
        variables["CUDA_VISIBLE_DEVICES"] = ""
    return variables | ({"PYTHONPATH": str(ROOT), OUTPUT_VARIABLE: str(output)} if output else {})


def arguments(**options: object) -> list[str]:
    """Return the words of a command's options: a tuple is several values, None leaves its option out."""
    words: list[str] = []
    for name, value in options.items():
        if value is not None:
            words.append(f"--{name.replace('_', '-')}")
            words += map(str, value if isinstance(value, tuple) else (value,))
    return words


def command(script: str, /, **options: object) -> list[str]:
    """Return the command line of a script of mimflow."""
    return [sys.executable, "-m", script, *arguments(**options)]


def tree_memory(process: psutil.Process) -> int:
    """Return the proportional set size, in bytes, of a process and all below it."""
    total = 0
    with contextlib.suppress(psutil.Error):
        for member in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):  # it has ended
                total += member.memory_full_info().pss
    return total


class MemoryWatch(threading.Thread):
    """Looks at the memory of a process tree all the time; ``peak`` is in bytes."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process = psutil.Process(pid)
        self.over = threading.Event()
        self.peak = 0

    def run(self) -> None:
        while True:
            started = time.thread_time()
            self.peak = max(self.peak, tree_memory(self.process))
            # Looking must not slow down what it looks at: the kernel walks all pages.
            if self.over.wait(max(MEMORY_SECONDS, (time.thread_time() - started) / MEMORY_SHARE)):
                return


@dataclass(frozen=True)
class Ran:
    """One process that ended well: seconds since 1970, bytes."""

    launched: float
    ended: float
    peak: int

    @property
    def seconds(self) -> float:
        return self.ended - self.launched


def execute(words: Sequence[str], log: Path, variables: Mapping[str, str] | None = None, folder: Path = ROOT) -> Ran:
    """Run a command to its end in *folder*, its output into *log*.

    Raises
    ------
    UserError : it failed; the last line of its output says why.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as stream:
        stream.write(f"\n$ {shlex.join(words)}\n".encode())
        stream.flush()
        launched = time.time()
        process = subprocess.Popen(
            words, cwd=folder, env=variables or environment(), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    watch = MemoryWatch(process.pid)
    watch.start()
    try:
        process.wait()
    except BaseException:
        # mim dies of a signal at once and leaves its child behind.
        with contextlib.suppress(psutil.NoSuchProcess):
            for member in [*watch.process.children(recursive=True), watch.process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.terminate()
        process.wait()
        raise
    finally:
        watch.over.set()
    ended = time.time()
    watch.join()
    if process.returncode != 0:
        output = log.read_text(encoding="utf-8", errors="replace").rpartition("\n$ ")[2].strip().splitlines()
        raise UserError(f"{' '.join(words[1:4])} failed: {output[-1] if len(output) > 1 else 'no word'} ({log})")
    return Ran(launched, ended, watch.peak)


def gpu_peak() -> int:
    """Return the most memory, in bytes, that this process had of a GPU for its tensors; 0 where it used none."""
    torch = sys.modules.get("torch")
    return torch.cuda.max_memory_allocated() if torch and torch.cuda.is_initialized() else 0
