"""Run `python -m MODULE ...` as a fork of the workflow's server: same arguments, files, environment, signals and end.

`python -I -S fork_client.py -m MODULE ...`, from the shell lines of the rules. Standard library only, and little of
it: it starts in a few hundredths of a second.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import sys
from typing import NoReturn

#: What a request begins with: the number of its bytes. Beside it go the files 0, 1 and 2.
HEAD = struct.Struct("!Q")
#: What the server says: first the number of the process (0: none of its own), then the status of its end.
ANSWER = struct.Struct("!i")
#: The variable that says where the server is.
VARIABLE = "MIMFLOW_FORK"
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def become_python() -> NoReturn:
    """Run the command as if there were no server."""
    for number in FORWARDED:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    os.execvp("python", ["python", *sys.argv[1:]])


def ask(connection: socket.socket, ignored: list[int]) -> int:
    """Ask the server for a process; return its number, or 0.

    Raises
    ------
    OSError : the server is not there.
    """
    connection.connect(os.environ[VARIABLE])
    request = {
        "arguments": sys.argv[1:],
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "ignored": ignored,
    }
    body = json.dumps(request).encode()  # ASCII: names that are no UTF-8 are escaped
    socket.send_fds(connection, [HEAD.pack(len(body))], [0, 1, 2])
    connection.sendall(body)
    return answer(connection)


def answer(connection: socket.socket) -> int:
    """Return the next number that the server says.

    Raises
    ------
    ConnectionError : it ended.
    """
    data = connection.recv(ANSWER.size, socket.MSG_WAITALL)
    if len(data) < ANSWER.size:
        raise ConnectionError("the server ended")
    number: int = ANSWER.unpack(data)[0]
    return number


def end_by(number: int) -> NoReturn:
    """End as a process that a signal has ended."""
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.pause()
    os._exit(1)


def main() -> NoReturn:
    """Wait for the end of the step, and end as it did."""
    process, early = 0, list[int]()

    def forward(number: int, _frame: object) -> None:
        if process:
            os.kill(process, number)
        else:
            early.append(number)

    ignored = [number for number in FORWARDED if signal.getsignal(number) == signal.SIG_IGN]
    for number in FORWARDED:
        if number not in ignored:
            signal.signal(number, forward)
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            process = ask(connection, [int(number) for number in ignored])
        except OSError:
            process = 0
        if early:
            end_by(early[0])  # the server ends a process whose client is gone
        if not process:
            become_python()
        try:
            status = answer(connection)
        except OSError:
            end_by(signal.SIGKILL)  # as the step did: nobody but the system kills the server
    if os.WIFSIGNALED(status):
        end_by(os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main()
