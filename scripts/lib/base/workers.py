"""Worker processes, each of which runs a function at the other end of a pipe, and never outlives who started it.

Those of multiprocessing do: where only the process that started them is killed, they and the tracker of their
semaphores print tracebacks and warnings over the line that tells of the kill; and its Pool waits for ever for the
results of a worker that was killed.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from typing import Any

from scripts.lib.base.interrupts import held
from scripts.lib.base.subprocesses import die_with_parent


class Worker:
    """A process that runs *function* on its end of a pipe and *arguments*; the main thread starts it.

    Parameters
    ----------
    function : of the top level of a module; a module that runs as a program is imported by its name.
    arguments : for the function, to be pickled.

    Attributes
    ----------
    connection : the end of the pipe of this process; it reads EOFError or OSError once the worker has ended.
    """

    def __init__(self, function: Callable[..., None], *arguments: Any) -> None:
        self.connection, theirs = Pipe()
        code = f"import sys; sys.path[:] = {sys.path!r}; from scripts.lib.base import workers; workers.run()"
        words = [sys.executable, "-c", code, str(os.getpid()), str(theirs.fileno())]
        with theirs, held():
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        with suppress(OSError):  # it has ended: what reads the connection will tell
            self.connection.send((_module_of(function), function.__qualname__, arguments))

    def exit_status(self) -> int:
        """Return the exit status of the worker, which has closed its end of the pipe; as ``Popen.returncode``."""
        return self.process.wait()

    def stop(self) -> None:
        """End the worker, whatever it does."""
        self.connection.close()
        self.process.terminate()
        self.process.wait()


def _module_of(function: Callable[..., None]) -> str:
    if function.__module__ != "__main__":
        return function.__module__
    return str(sys.modules["__main__"].__spec__.name)  # type: ignore[union-attr]


def run() -> None:
    """Be a worker: what its process runs."""
    parent, pipe = map(int, sys.argv[1:])
    die_with_parent(parent)
    connection: Connection[Any, Any] = Connection(pipe)
    try:
        module, name, arguments = connection.recv()
    except (EOFError, OSError):  # ended before it was told what to do
        return
    getattr(importlib.import_module(module), name)(connection, *arguments)
