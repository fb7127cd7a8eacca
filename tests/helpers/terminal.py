"""A program on a terminal of its own, a real pseudo-terminal: what it shows, when, and what is typed."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

CTRL_C = b"\x03"


class Terminal:
    """Runs a command as the foreground job of a terminal.

    Attributes
    ----------
    output : all that came, as it came.
    silence : the longest time in seconds without a new word.
    """

    def __init__(
        self,
        command: Sequence[str],
        cwd: Path,
        environment: Mapping[str, str] | None = None,
        columns: int = 160,
        encoding: str = "utf-8",
    ) -> None:
        self.encoding = encoding
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        variables = {**os.environ, "TERM": "xterm", **(environment or {})}

        def enter() -> None:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a test runner in the background ignores it
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        streams = {"stdin": slave, "stdout": slave, "stderr": slave}
        self.process = subprocess.Popen(
            command, cwd=cwd, env=variables, start_new_session=True, preexec_fn=enter, **streams
        )
        os.close(slave)
        self.output, self.silence, self._last = "", 0.0, time.monotonic()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(OSError):  # the end of a terminal
            while chunk := os.read(self.master, 1 << 16):
                now = time.monotonic()
                self.silence, self._last = max(self.silence, now - self._last), now
                self.output += chunk.decode(self.encoding, "replace")

    def wait_for(self, words: str, seconds: float) -> None:
        """Wait until *words* were shown."""
        deadline = time.monotonic() + seconds
        while words not in self.output:
            assert self.process.poll() is None and time.monotonic() < deadline, self.output
            time.sleep(0.05)

    def press(self, keys: bytes) -> None:
        """Type on the terminal."""
        os.write(self.master, keys)

    def end(self, seconds: float) -> int:
        """Wait for the end of the command and return its status."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(self.output) from None
        self._thread.join(2)
        return status

    def lines(self) -> list[str]:
        """Return the lines that remain on the screen, without those that were rewritten."""
        shown = self.output.replace("\r\x1b[2K", "\0").replace("^C", "")  # the terminal's own echo
        lines = [line.rstrip("\r").rpartition("\0")[2].rpartition("\r")[2] for line in shown.split("\n")]
        return [line for line in (re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in lines) if line]
