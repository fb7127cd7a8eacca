"""Run `python -m MODULE ...` as a fork of the workflow's server: same arguments, files, environment, signals and end.

`python -I -S fork_client.py SOCKET -m MODULE ...`, from the shell lines of the rules. Standard library only, and little
of it: it starts in a few hundredths of a second.
"""

from __future__ import annotations

import marshal
import os
import signal
import socket
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # a quarter of the time in which this starts
    from collections.abc import Iterable
    from typing import NoReturn

#: What a request begins with: the number of its bytes. Beside it go the files 0, 1 and 2.
HEAD = struct.Struct("!Q")
#: What the server says: first the number of the process (0: none of its own), then the status of its end.
ANSWER = struct.Struct("!i")
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def become_python(mask: Iterable[int]) -> NoReturn:
    """Run the command as if there were no server.

    Parameters
    ----------
    mask : the signals that were blocked when this process began.
    """
    if callable(signal.getsignal(signal.SIGINT)):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.execvp("python", ["python", *sys.argv[2:]])


def ask(connection: socket.socket, ignored: list[int], mask: Iterable[int]) -> int:
    """Ask the server for a process; return its number, or 0.

    Parameters
    ----------
    connection : not connected yet.
    ignored, mask : the signals that this process was started with ignored, and blocked.

    Raises
    ------
    OSError : the server is not there.
    """
    connection.connect(sys.argv[1])
    request = {
        "arguments": sys.argv[2:],
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "ignored": ignored,
        "mask": [int(number) for number in mask],
    }
    body = marshal.dumps(request)  # the server is the same Python; json would double the time of this process
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
    os._exit(128 + number)  # where it is blocked


def main() -> NoReturn:
    """Wait for the end of the step, and end as it did."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for the step
    ignored = [int(number) for number in FORWARDED if signal.getsignal(number) == signal.SIG_IGN]
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            process = ask(connection, ignored, mask)
        except OSError:
            process = 0
        if not process:
            become_python(mask)

        def forward(number: int, _frame: object) -> None:
            try:
                os.kill(process, number)
            except ProcessLookupError:  # it has just ended
                pass

        for number in FORWARDED:
            if number not in ignored:
                signal.signal(number, forward)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        try:
            status = answer(connection)
        except OSError:
            end_by(signal.SIGKILL)  # as the step did: the server has ended, and the workflow with it
    if os.WIFSIGNALED(status):
        end_by(os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


if __name__ == "__main__":
    main()
