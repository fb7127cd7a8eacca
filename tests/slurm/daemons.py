"""Background processes that outlive the command that started them, and the ending of exactly those."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None when there is none, or a zombie.

    With the id it names one process for ever: ids are given again.
    """
    try:
        # The name in brackets may hold spaces and brackets itself: state and the rest follow the last one.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def descendants(pid: int) -> list[int]:
    """Return the children of a process, their children, and so on."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    pids, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        pids += below
        waiting += below
    return pids


def wait_until(condition: Callable[[], bool], seconds: float, every: float = 0.1) -> bool:
    """Return whether *condition* came true within *seconds*."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


class Daemons:
    """Processes by name, written down in a file so that another command can end them."""

    def __init__(self, record: Path) -> None:
        self.record = record

    def start(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        """Start a process that stays in the foreground of a session of its own; nothing to do when it is alive."""
        if self.alive(name):
            return
        with log.open("ab") as stream:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                cwd="/",
                start_new_session=True,
            )
        began = start_time(process.pid)
        if began is not None:
            self._write({**self._read(), name: [process.pid, began]})

    def pid(self, name: str) -> int | None:
        """Return the id of a process of ours that is alive."""
        pid, began = self._read().get(name, (0, 0))
        self._reap(pid)
        return pid if pid and start_time(pid) == began else None

    def alive(self, name: str) -> bool:
        """Return whether a process of ours is alive."""
        return self.pid(name) is not None

    def names(self) -> list[str]:
        """Return the names of the processes that are alive."""
        return [name for name in self._read() if self.alive(name)]

    def stop(self, name: str, signum: int = signal.SIGTERM, seconds: float = 20) -> None:
        """End a process and wait until it is gone; KILL after *seconds*."""
        pid = self.pid(name)
        if pid is not None:
            for attempt in (signum, signal.SIGKILL):
                try:
                    os.kill(pid, attempt)
                except ProcessLookupError:
                    break
                if wait_until(lambda: not self.alive(name), seconds):
                    break
        self._write({other: entry for other, entry in self._read().items() if other != name})

    def _reap(self, pid: int) -> None:
        # Only the process that started a daemon is its parent; for all others there is nothing to reap.
        try:
            if pid:
                os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass

    def _read(self) -> dict[str, tuple[int, int]]:
        try:
            return {name: (pid, began) for name, (pid, began) in json.loads(self.record.read_text()).items()}
        except FileNotFoundError:
            return {}

    def _write(self, entries: Mapping[str, Sequence[int]]) -> None:
        temporary = self.record.with_suffix(".new")
        temporary.write_text(json.dumps(entries))
        temporary.replace(self.record)
