"""Watch all runs below results/: what each does, how good it is, how long it will take. Only looks, never writes."""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import sys
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import NoReturn

from scripts.lib.base.console import run_cli
from scripts.lib.base.problems import UserError
from scripts.lib.base.text import ELLIPSIS, display_width, pad, shorten_all
from scripts.lib.base.units import duration
from scripts.lib.workflow.progress import Watcher
from scripts.lib.workflow.run_states import TROUBLED, WAITING, Overview, RunProgress, State

#: A line and its style (of rich).
Line = tuple[str, str]

HEADER = ("run", "seed", "state", "progress", "val %", "loss", "img/s", "elapsed", "left", "silent")
NUMBERS = frozenset({"seed", "val %", "loss", "img/s", "elapsed", "left", "silent"})
#: In a narrow window: columns that go, one after the other, and the width that names keep before the first and the
#: second of them goes.
SPARED = ("elapsed", "silent", "loss", "img/s", "progress", "left", "val %", "seed")
NAME_WIDTHS = (14, 10)
LONG_BAR, SHORT_BAR = 10, 8
#: Lines that the reasons of failed runs may take of a window.
MOST_REASONS = 1 / 4
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
    """Read a time between two looks.

    Raises
    ------
    ArgumentTypeError : it is no number, or not above 0.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give seconds, for example 2")
    return value


# -- the table ---------------------------------------------------------------------------------------------------------


def interest(run: RunProgress) -> int:
    """Return how early a run gets its line where there are fewer lines than runs: 0 first."""
    if run.is_running:
        return 0
    return 1 if run.state in TROUBLED else 2 if run.state in WAITING else 3


def choose(runs: Sequence[RunProgress], lines: int | None) -> list[RunProgress]:
    """Return the most interesting runs for so many *lines*, in the order of *runs*; all for None."""
    if lines is None or len(runs) <= lines:
        return list(runs)
    places = sorted(range(len(runs)), key=lambda place: (interest(runs[place]), place))
    return [runs[place] for place in sorted(places[: max(0, lines)])]


def count(runs: Sequence[RunProgress]) -> str:
    """Return e.g. ``5 runs: 2 training, 3 done``, the most interesting states first."""
    states = Counter(run.state for run in sorted(runs, key=interest))
    told = ", ".join(f"{number} {state}" for state, number in states.items())
    return f"{len(runs)} run{'s' * (len(runs) != 1)}: {told}"


def bar(fraction: float | None, width: int) -> str:
    """Return a bar of *width* signs, empty for None: of ASCII, since terminals differ on how wide a block is."""
    if fraction is None:
        return ""
    full = int(fraction * width)
    return "#" * full + "." * (width - full)


def silence(seconds: float | None) -> str:
    """Return e.g. ``4 s``, ``12 min``, ``3 h``; ``-`` for None."""
    if seconds is None:
        return "-"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds / size)} {unit}"
    return f"{int(seconds)} s"


def cells(run: RunProgress, bar_width: int) -> list[str]:
    """Return the line of a run, a text a column."""

    def number(value: float | None, text: str, factor: float = 1) -> str:
        return "-" if value is None else text.format(factor * value)

    state = str(run.state)
    if run.state == State.TRAINING and run.max_epochs:
        state += f" {run.epochs_done or 0}/{run.max_epochs}"
    return [
        run.experiment,
        run.which,
        state,
        bar(run.fraction, bar_width),
        number(run.best_val_accuracy, "{:.1f}", 100),
        number(run.loss, "{:.3f}"),
        number(run.images_per_second, "{:,.0f}"),
        duration(run.elapsed_seconds),
        duration(run.seconds_left),
        silence(run.silent_seconds),
    ]


def style(run: RunProgress) -> str:
    """Return the colour of a run."""
    if run.is_running:
        return "green"
    if run.state in TROUBLED:
        return "red" if run.state == State.FAILED else "yellow"
    return "dim" if run.state == State.DONE else ""


def table(runs: Sequence[RunProgress], width: int | None) -> tuple[str, list[str]]:
    """Return a header and a line for each run, in columns that fit into *width*; None: as wide as they are."""
    names = list(dict.fromkeys(run.experiment for run in runs))
    name_width = max(map(display_width, ["run", *names]))
    bar_width, gap, left_out = LONG_BAR, 2, 0
    while True:
        rows = [cells(run, bar_width) for run in runs]
        kept = [place for place, name in enumerate(HEADER) if name not in SPARED[:left_out]]
        widths = [max(display_width(row[place]) for row in [HEADER, *rows]) for place in range(len(HEADER))]
        widths[0] = name_width
        excess = sum(widths[place] for place in kept) + gap * (len(kept) - 1) - (width or math.inf)
        # What helps, from what costs least to what costs most.
        least_name = NAME_WIDTHS[0] if left_out == 0 else NAME_WIDTHS[1]
        if excess <= 0:
            break
        if gap > 1:
            gap, bar_width = 1, SHORT_BAR
        elif name_width > least_name:
            name_width = max(least_name, name_width - int(excess))
        elif left_out < len(SPARED):
            left_out += 1
        else:
            break
    short = dict(zip(names, shorten_all(names, name_width), strict=True))
    lines = []
    for row in [list(HEADER), *rows]:
        row[0] = short.get(row[0], row[0])
        words = [pad(row[place], widths[place], right=HEADER[place] in NUMBERS) for place in kept]
        lines.append((" " * gap).join(words).rstrip())
    return lines[0], lines[1:]


def cut(text: str, width: int | None) -> str:
    """Return the start of *text* that fits into *width* columns; all of it for None."""
    if width is None or display_width(text) <= width:
        return text
    while display_width(text) > width - 1:
        text = text[:-1]
    return text + ELLIPSIS if width > 0 else ""


def explain(overview: Overview, width: int | None) -> list[str]:
    """Return what went wrong, what needs attention first; lines of at most *width* letters; None: a line each."""
    seeds: dict[tuple[str, str, State, str], list[str]] = {}
    for run in overview.runs:
        if run.reason:
            seeds.setdefault((run.dataset, run.experiment, run.state, run.reason), []).append(run.which)
    paragraphs = [*overview.problems]
    for (dataset, experiment, state, reason), runs in sorted(
        seeds.items(), key=lambda item: item[0][2] != State.FAILED
    ):
        which = (", " if any(" " in name for name in runs) else " ").join(runs)  # 0 1 2, or 0 fold 0, 0 fold 1
        paragraphs.append(f"{dataset}, {experiment}, seed {which} {state}: {reason}")
    if width is None:
        return paragraphs
    wrap = textwrap.TextWrapper(max(width, 20), subsequent_indent="  ", break_on_hyphens=False)
    return [line for paragraph in paragraphs for line in wrap.wrap(paragraph)]


def render(overview: Overview, width: int | None = None, height: int | None = None) -> list[Line]:
    """Return all that is shown, in at most *width* columns and *height* lines; None: as much as there is."""
    names = list(dict.fromkeys(run.dataset for run in overview.runs))
    reasons = explain(overview, width)
    now = datetime.fromtimestamp(overview.time).strftime("%H:%M:%S")
    control = f"snakemake is {overview.controller}" if overview.controller else "no snakemake runs here"
    head: list[Line] = [(f"{now}  {control}", "dim")]
    room = None
    if height is not None:
        shown = min(len(reasons), max(1, int(height * MOST_REASONS)))
        if shown < len(reasons):
            reasons = [*reasons[: shown - 1], f"and {len(reasons) - shown + 1} more lines: --once shows them all"]
        room = height - len(head) - 1 - len(names) - len(reasons) - 1  # 1 the header, 1 what is hidden
    chosen = choose(overview.runs, room)
    header, lines = table(chosen, width)
    shown_lines = dict(zip(map(_key, chosen), lines, strict=True))
    body: list[Line] = [(header, "bold")] if chosen else []
    for name in names:
        runs = [run for run in overview.runs if run.dataset == name]
        body.append((f"{name}: {count(runs)}", "bold"))
        body += [(shown_lines[_key(run)], style(run)) for run in runs if _key(run) in shown_lines]
    hidden = [run for run in overview.runs if _key(run) not in shown_lines]
    if hidden:
        body.append((f"not shown: {count(hidden)}", "dim"))
    body += [(reason, "red") for reason in reasons]
    return [(cut(text, width), colour) for text, colour in [*head, *body]][:height]


def _key(run: RunProgress) -> tuple[str, str, str]:
    return run.dataset, run.experiment, run.which


def as_json(overview: Overview) -> str:
    """Return all that is known as one JSON document."""
    runs = [asdict(run) for run in overview.runs]
    runs = [{key: value for key, value in run.items() if key != "fold" or value is not None} for run in runs]
    content = {
        "time": datetime.fromtimestamp(overview.time, UTC).isoformat(timespec="seconds"),
        "controller": overview.controller or None,
        "complete": overview.complete,
        "counts": Counter(run.state for run in overview.runs),
        "problems": overview.problems,
        "runs": runs,
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


# -- the command -------------------------------------------------------------------------------------------------------


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
    raise UserError(
        f"{watcher.results}: there are no runs{problems}: start some with `make run CONFIG=configs/mine.yaml`,"
        " or say by --results where they are"
    )


def conclude(overview: Overview, results: Path) -> str:
    """Return what is to be said when all runs are done: that they are, and the leaderboards that there are."""
    from scripts.lib.metrics.leaderboard import read_leaderboard, render_text  # late: pandas takes a second

    number = len(overview.runs)
    parts = [f"all {number} runs are done" if number > 1 else "the run is done"]
    for dataset in dict.fromkeys(run.dataset for run in overview.runs):
        path = results / dataset / "leaderboard.csv"
        try:
            parts.append(f"\n{path}\n{render_text(read_leaderboard(path)).rstrip()}" if path.is_file() else "")
        except UserError as error:
            parts.append(str(error))
    return "\n".join(filter(None, parts))


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
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    try:
        with _ended_by_signals(), Live(console=console, screen=True, auto_refresh=False) as live:
            while not overview.complete:
                width, height = console.size
                text = Text(no_wrap=True, overflow="crop", end="")
                for line, colour in render(overview, width, height - 1):
                    text.append(f"{line}\n", colour)
                text.append(cut(FOOTER, width), "dim")
                live.update(text, refresh=True)
                time.sleep(interval)
                overview = look()
    except KeyboardInterrupt:
        pass
    return overview


def main(args: argparse.Namespace) -> None:
    """Look once, or until all runs are done."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # names that the terminal's encoding lacks
    watcher = Watcher(args.results)
    overview = first_look(watcher, args.dataset)
    if args.json:
        print(as_json(overview))
        return
    at_terminal = sys.stdout.isatty()
    if (
        at_terminal
        and not args.once
        and not overview.complete
        and os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    ):
        overview = follow(overview, lambda: watcher.look(args.dataset), args.interval)
    size = shutil.get_terminal_size() if at_terminal else None
    height = size.lines - 1 if size and not args.once else None
    for line, _ in render(overview, size.columns if size else None, height):
        print(line)
    if overview.complete:
        print(conclude(overview, args.results))


if __name__ == "__main__":
    run_cli(build_parser, main)
