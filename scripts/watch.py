"""Watch all runs below results/: what each does, how good it is, how long it will take. Only looks, never writes."""

from __future__ import annotations

import argparse
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.live import Live
from rich.text import Text

from scripts.lib.base.console import run_cli, terminal_width
from scripts.lib.base.language import tr_line
from scripts.lib.base.problems import UserError
from scripts.lib.workflow.progress import Overview, Watcher, check_unedited
from scripts.lib.workflow.run_table import as_json, render

FOOTER = "Ctrl-C ends this view; the runs go on"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.watch", description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="where runs are (results)")
    parser.add_argument("--dataset", metavar="NAME", help="only the runs of this data set")
    parser.add_argument("--once", action="store_true", help="print the table once; so it is without a terminal, too")
    parser.add_argument("--json", action="store_true", help="print all that is known once, as JSON")
    parser.add_argument("--interval", type=parse_seconds, default=2.0, metavar="SECONDS", help="between two looks (2)")
    return parser


def parse_seconds(text: str) -> float:
    """Read a time between two looks; raise ArgumentTypeError where it is no number, or not above 0."""
    with suppress(ValueError):
        if 0 < (value := float(text)) < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is no time: give seconds, for example 2")


def first_look(watcher: Watcher, dataset: str | None) -> Overview:
    """Return the runs there are.

    Raises
    ------
    UserError : there are none.
    """
    overview = watcher.look(dataset)
    if overview.runs:
        return overview
    others = list(dict.fromkeys(run.dataset for run in watcher.look().runs)) if dataset else []
    if others:
        raise UserError(f"{watcher.results}: no runs of the data set {dataset}: there are {', '.join(others)}")
    problems = "".join(f" ({problem})" for problem in overview.problems[:1])
    remedy = "start some with `make run CONFIG=configs/mine.yaml`, or say by --results where they are"
    raise UserError(f"{watcher.results}: there are no runs{problems}", remedy)


def conclude(overview: Overview, results: Path) -> str:
    """Return what is to be said when all runs are done: that they are, and the leaderboards that there are."""
    from scripts.lib.metrics.leaderboard import read_leaderboard, render_text  # late: pandas takes a second

    number = len(overview.runs)
    parts = [tr_line(f"all {number} runs are done" if number > 1 else "the run is done")]
    for dataset in dict.fromkeys(run.dataset for run in overview.runs):
        path = results / dataset / "leaderboard.csv"
        try:
            if path.is_file():
                parts.append(f"\n{path}\n{render_text(read_leaderboard(path), width=terminal_width()).rstrip()}")
        except UserError as error:
            parts.append(tr_line(str(error)))
    return "\n".join(filter(None, parts))


def check_shown(overview: Overview, results: Path) -> None:
    """Refuse to leave numbers uncommented that are not those that were measured.

    Raises
    ------
    UserError : a table that they were read from was changed since it was made.
    """
    for dataset in dict.fromkeys(run.dataset for run in overview.runs):
        check_unedited(results / dataset / "leaderboard.csv")
    for run in overview.runs:
        check_unedited(run.folder(results).train_log)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as an exception does, so that the terminal is given back as it was."""

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    previous = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def follow(overview: Overview, look: Callable[[], Overview], interval: float) -> Overview:
    """Show the runs on the terminal until all are done or Ctrl-C comes; return the last look."""
    console = Console(highlight=False)
    live = Live(console=console, screen=True, auto_refresh=False)
    with suppress(KeyboardInterrupt), _ended_by_signals(), live:
        while not overview.complete:
            width, height = console.size
            lines = [*render(overview, width, height - 1), Text(tr_line(FOOTER), "dim")]
            live.update(Text("\n", no_wrap=True, overflow="ellipsis").join(lines), refresh=True)
            time.sleep(interval)
            overview = look()
    return overview


def main(args: argparse.Namespace) -> None:
    """Look once, or until all runs are done."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # names that the terminal's encoding lacks
    watcher = Watcher(args.results)
    overview = first_look(watcher, args.dataset)
    if args.json:
        print(as_json(overview))
        check_shown(overview, args.results)
        return
    at_terminal = sys.stdout.isatty()
    can_draw = at_terminal and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    if can_draw and not args.once and not overview.complete:
        overview = follow(overview, lambda: watcher.look(args.dataset), args.interval)
    size = shutil.get_terminal_size() if at_terminal else None
    height = size.lines - 1 if size and not args.once else None
    for line in render(overview, size.columns if size else None, height):
        print(line.plain)
    if overview.complete:
        print(conclude(overview, args.results))
    check_shown(overview, args.results)


if __name__ == "__main__":
    run_cli(build_parser, main)
