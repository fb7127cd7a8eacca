"""Two users of one group, for tests of a folder that they share. Only root can be others: else the test is skipped."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: Their numbers, by which mimflow names users that the system does not know, and that of their group.
ALICE, BOB, GROUP = 52001, 52002, 52000
#: Starts Python where no user sees the processes of others, in namespaces of its own.
HIDING = (
    "unshare",
    "--mount",
    "--pid",
    "--fork",
    "sh",
    "-c",
    'mount -t proc -o hidepid=2 proc /proc && exec "$@"',
    "-",
)


@contextmanager
def shared_folder() -> Iterator[Path]:
    """Yield a folder that the group shares, in one that all can enter: pytest's own are root's alone."""
    if os.getuid() != 0:
        pytest.skip("needs root, to be two users")
    with tempfile.TemporaryDirectory(prefix="mimflow-people-") as name:
        Path(name).chmod(0o755)
        folder = Path(name, "mimflow")
        folder.mkdir()
        os.chown(folder, ALICE, GROUP)
        folder.chmod(0o2775)
        yield folder


def become(user: int) -> None:
    """Let this process be a user's for good, with the umask of most clusters."""
    os.setgroups([GROUP])
    os.setgid(user)
    os.setuid(user)
    os.umask(0o022)


def as_user(user: int, act: Callable[[], None]) -> str:
    """Do something in a process of a user's; return the one line of the error that it ended with, if any."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            become(user)
            act()
        except Exception as error:
            traceback.print_exc()
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as stream:
        told = stream.read()
    os.waitpid(child, 0)
    return told


def run_where_others_are_hidden(program: str, folder: Path) -> str:
    """Run a program of Python as root in *folder* where a user sees no processes of others; return what it printed."""
    command = [*HIDING, sys.executable, "-c", program]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": PATH})
    if "permission" in result.stderr or "not permitted" in result.stderr:
        pytest.skip(f"needs the right to make namespaces: {result.stderr}")
    assert result.returncode == 0, result.stderr
    return result.stdout


PATH = os.pathsep.join(str(Path(__file__).resolve().parents[number]) for number in (0, 2))
