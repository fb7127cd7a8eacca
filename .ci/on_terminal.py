"""Run a command on a terminal, as people do: fail where it was silent for too long, or said too much.

``python .ci/on_terminal.py SECONDS LINES COMMAND...``
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "helpers")]
from terminal import Terminal  # noqa: E402


def main(seconds: str, most: str, *command: str) -> int:
    """Return the command's exit status; 1 where it kept quiet, or did not."""
    terminal = Terminal(command, ROOT)
    status = terminal.end(3600)
    lines = terminal.lines()
    print("\n".join(lines))
    print(f"on a terminal: {len(lines)} lines, silent for {terminal.silence:.1f} s at most")
    if terminal.silence > float(seconds):
        print(f"error: it was silent for more than {seconds} s", file=sys.stderr)
        return 1
    if len(lines) > int(most):
        print(f"error: it said more than {most} lines", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
