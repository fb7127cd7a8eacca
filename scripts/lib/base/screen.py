"""What a process and its children print, line by line; on a terminal, above one line that says how things stand."""

from __future__ import annotations

import os
import re
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from scripts.lib.base.text import shorten

#: Moves of the cursor and colours; the line at the bottom has none of them.
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CLEAR = "\r\x1b[2K"
TICK_SECONDS = 0.5


class Screen:
    """Leads standard output and error of this process, and of all that it starts, through one thread that prints them.

    Two programs that rewrite a line each would destroy each other's; here a line that is not complete, and begins
    anew by a carriage return, is shown in the line at the bottom.

    Parameters
    ----------
    shown : returns what is printed of a line; None: nothing.
    status : what the line at the bottom says, given what was last rewritten by a child and how many columns there are;
        called twice a second. Two spaces separate what a child says from what else it says.
    """

    def __init__(self, shown: Callable[[str], str | None], status: Callable[[str, int], str]) -> None:
        self._of_line, self._status = shown, status
        self._lock = threading.Lock()
        self._numbers = [2] + [1] * _same_file(1, 2)
        self._real = {number: os.dup(number) for number in self._numbers}
        self.is_live = os.isatty(2) and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
        self._shown, self._rewritten, self._rest = "", "", b""
        self._pipe, write = os.pipe()
        for number in self._numbers:
            os.dup2(write, number)
        os.close(write)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="screen", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Print what is left, and give the terminal back."""
        if self._closed.is_set():
            return
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        for number in self._numbers:
            os.dup2(self._real[number], number)
        self._closed.set()
        self._thread.join(5)

    def say(self, line: str) -> None:
        """Print a line."""
        with self._lock:
            self._write(f"{CLEAR if self._shown else ''}{line}\n")
            self._shown = ""

    def forget(self) -> None:
        """Show no longer what a child rewrote: it has ended."""
        self._rewritten = ""

    def _follow(self) -> None:
        drawn = 0.0
        while True:
            ready = select.select([self._pipe], [], [], 0 if self._closed.is_set() else TICK_SECONDS)[0]
            if ready and (chunk := os.read(self._pipe, 1 << 16)):
                self._take(chunk)
            elif self._closed.is_set() or ready:
                break
            if self.is_live and time.monotonic() - drawn > TICK_SECONDS / 2:
                self._draw()
                drawn = time.monotonic()
        if self._rest.strip():
            self._take(b"\n")
        with self._lock:
            self._write(CLEAR if self._shown else "")

    def _take(self, chunk: bytes) -> None:
        if self._rest.startswith(b"\r"):  # another program's words follow, unless it ends the line that it rewrote
            chunk = self._rest + chunk if chunk.startswith(b"\n") else chunk
            self._rest = b""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2].replace("\x1b[2K", "")
            if (line_shown := self._of_line(text)) is not None:
                self.say(line_shown)
        if b"\r" in self._rest:
            self._rest = b"\r" + self._rest.rpartition(b"\r")[2]
            self._rewritten = ESCAPES.sub("", self._rest.decode("utf-8", "replace")).strip()

    def _draw(self) -> None:
        columns = self._columns() - 1
        text = shorten(self._status(self._rewritten, columns), columns)
        with self._lock:
            if text != self._shown:
                self._write(f"{CLEAR}{text}")
                self._shown = text

    def _columns(self) -> int:
        with suppress(OSError):  # shutil asks standard output, which is a pipe by now
            return os.get_terminal_size(self._real[2]).columns or 80
        return 80

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        with suppress(OSError):  # the terminal was closed; what runs, runs on
            while data:
                data = data[os.write(self._real[2], data) :]


def _same_file(left: int, right: int) -> bool:
    with suppress(OSError):
        first, second = os.fstat(left), os.fstat(right)
        return (first.st_dev, first.st_ino, first.st_rdev) == (second.st_dev, second.st_ino, second.st_rdev)
    return False
