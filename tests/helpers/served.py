"""A server that somebody starts by a line in a shell: asked until it answers, and ended with all of its processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any


def free_port() -> int:
    """Return a port of the loopback address that nobody listens at just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def answer_of(
    line: str, folder: Path, environment: dict[str, str], address: str, data: Any = None, seconds: float = 180
) -> Any:
    """Return the first answer in JSON that is not empty of the server that a line in bash starts.

    Parameters
    ----------
    address : what is asked for, at the loopback address.
    data : sent along as JSON; None: nothing is.
    """
    request = urllib.request.Request(address, headers={"Content-Type": "application/json"})
    request.data = None if data is None else json.dumps(data).encode()
    process = subprocess.Popen(
        ["bash", "-euc", line], cwd=folder, env=environment, start_new_session=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    last: OSError | None = None
    try:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert process.poll() is None, f"{line}: ended by itself, with {process.returncode}"
            try:
                with urllib.request.urlopen(request, timeout=60) as reply:
                    if answer := json.load(reply):
                        return answer
            except OSError as error:
                last = error
            time.sleep(0.5)
        raise TimeoutError(f"{line}: no answer at {address}: {last}")
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):  # of its session, in which nobody else is
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
