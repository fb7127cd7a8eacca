"""Run a command as `make` does: in the known environment, with the words of ARGS after it.

`python -I scripts/start.py COMMAND WORD...`: `-I` makes Python deaf to the user's shell; the command then starts with
what `scripts.lib.base.environment` lets through. Standard library only: `make doctor` works without a .venv.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # python -I leaves out the current folder

from scripts.lib.base import interrupts  # noqa: E402
from scripts.lib.base.environment import Variable, job_environment  # noqa: E402

#: Commands that take seconds to load, and then tell how it goes.
SLOW = ("scripts.check_settings", "scripts.lib.workflow.start")


def command_line(words: Sequence[str], arguments: str) -> list[str]:
    """Return *words* and, after them, the words of *arguments*, which only quotes and backslashes hold together.

    Raises
    ------
    ValueError : a quote is not closed.
    """
    # As a shell splits words, but nothing is expanded: $, `, ;, * and ~ are characters like others.
    return [*words, *shlex.split(arguments)]


def environment_of(shell: Mapping[str, str], programs: Path) -> dict[str, str]:
    """Return the environment of the command, in which the programs of a folder come first."""
    known = job_environment(shell)
    replaced = {name: shell.get(name) for name in shell.keys() | known.keys() if known.get(name) != shell.get(name)}
    known["PATH"] = os.pathsep.join([str(programs), known.get("PATH", os.defpath)])
    # A command of make within another keeps what the first one wrote down.
    return {str(Variable.SHELL): json.dumps(replaced), **known}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = argparse.ArgumentParser(prog="python -I scripts/start.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", help="a program of .venv, or python")
    parser.add_argument("words", nargs=argparse.REMAINDER, help="its arguments")
    return parser


def main(args: argparse.Namespace) -> None:
    """Become the command."""
    shell = dict(os.environ)
    try:
        words = command_line([args.command, *args.words], shell.pop("ARGS", ""))
    except ValueError as error:
        sys.exit(f"error: ARGS: {error}: quote each word that holds spaces or quotes, as in ARGS='-k \"a word\"'")
    # Not by the link .venv: what runs keeps its environment when a new one takes its place.
    programs = Path(sys.prefix).resolve() / "bin"
    if words[0] == "python":
        words[0] = str(programs / "python") if (programs / "python").exists() else sys.executable
    if words[1:2] == ["-m"] and words[2].startswith("scripts."):
        if Path("scripts/__init__.py").exists() and Path.cwd() != ROOT:
            sys.exit("error: scripts/ of this folder is a Python package and hides mimflow's: remove its __init__.py")
        interrupts.hold()  # until the command can end in one line
        if words[2] in SLOW and sys.stderr.isatty():
            print("mimflow ...", end="\r", file=sys.stderr, flush=True)  # the command's first line takes its place
    try:
        os.execvpe(words[0], words, environment_of(shell, programs))
    except OSError as error:
        sys.exit(f"error: {words[0]}: {error.strerror}: `make setup` installs what belongs into .venv")


if __name__ == "__main__":
    main(build_parser().parse_args())
