"""The runs as `make watch` shows them: a table that fits into a window, what went wrong, and all of it as JSON."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from scripts.lib.base.language import heading, titled, tr, tr_line
from scripts.lib.base.text import columns, shorten_all
from scripts.lib.base.units import duration, plural
from scripts.lib.workflow.progress import TROUBLED, WAITING, Overview, RunProgress, State

HEADER = ("run", "seed", "state", "progress", "val %", "loss", "img/s", "elapsed", "left", "silent")
NUMBERS = frozenset({"seed", "val %", "loss", "img/s", "elapsed", "left", "silent"})
#: In a narrow window: columns that go, one after the other, and the width that names keep before the first and the
#: second of them goes.
SPARED = ("elapsed", "silent", "loss", "img/s", "progress", "left", "val %", "seed")
NAME_WIDTHS = (14, 10)
LONG_BAR, SHORT_BAR = 10, 8
#: Lines that the reasons of failed runs may take of a window.
MOST_REASONS = 1 / 4


def interest(run: RunProgress) -> int:
    """Return how early a run gets its line where there are fewer lines than runs: 0 first."""
    if run.is_running:
        return 0
    return 1 if run.state in TROUBLED else 2 if run.state in WAITING else 3


def choose(runs: Sequence[RunProgress], lines: int | None) -> list[RunProgress]:
    """Return the most interesting runs for so many *lines*, in the order of *runs*; all for None."""
    indices = sorted(range(len(runs)), key=lambda index: interest(runs[index]))
    return [runs[index] for index in sorted(indices if lines is None else indices[: max(0, lines)])]


def count(runs: Sequence[RunProgress]) -> str:
    """Return e.g. ``5 runs: 2 training, 3 done``, the most interesting states first."""
    states = Counter(run.state for run in sorted(runs, key=interest))
    listed = tr(", ").join(f"{number} {tr(str(state))}" for state, number in states.items())
    return titled(tr_line(plural(len(runs), "run")), listed)


def bar(fraction: float | None, width: int) -> str:
    """Return a bar of *width* signs, empty for None: of ASCII, since terminals differ on how wide a block is."""
    return "" if fraction is None else ("#" * int(fraction * width)).ljust(width, ".")


def silence(seconds: float | None) -> str:
    """Return e.g. ``4 s``, ``12 min``, ``3 h``; ``-`` for None."""
    if seconds is None:
        return "-"
    units = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    size, unit = next((entry for entry in units if seconds >= entry[0]), units[-1])
    return f"{int(seconds / size)} {unit}"


def cells(run: RunProgress, bar_width: int) -> list[str]:
    """Return the line of a run, a text a column."""

    def number(value: float | None, text: str, factor: float = 1) -> str:
        return "-" if value is None else text.format(factor * value)

    state = tr(str(run.state))
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
    name_width = max(map(cell_len, [heading("run"), *names]))
    bar_width, gap, left_out = LONG_BAR, 2, 0
    while True:
        rows = [list(map(heading, HEADER)), *(cells(run, bar_width) for run in runs)]
        kept = [index for index, name in enumerate(HEADER) if name not in SPARED[:left_out]]
        widths = [name_width, *(max(cell_len(row[index]) for row in rows) for index in kept[1:])]
        excess = sum(widths) + gap * (len(kept) - 1) - (width or math.inf)
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
    shown = [[short.get(row[0], row[0]), *(row[index] for index in kept[1:])] for row in rows]
    right = {position for position, index in enumerate(kept) if HEADER[index] in NUMBERS}
    header, *lines = columns(shown, right, gap)
    return header, lines


def reasons_of(overview: Overview) -> list[str]:
    """Return what went wrong, a line each in English, what needs attention first."""
    seeds: dict[tuple[str, str, State, str], list[str]] = {}
    for run in overview.runs:
        if run.reason:
            seeds.setdefault((run.dataset, run.experiment, run.state, run.reason), []).append(run.which)
    paragraphs = [*overview.problems]
    failed_first = sorted(seeds.items(), key=lambda item: item[0][2] != State.FAILED)
    for (dataset, experiment, state, reason), runs in failed_first:
        which = (", " if any(" " in name for name in runs) else " ").join(runs)  # 0 1 2, or 0 fold 0, 0 fold 1
        paragraphs.append(f"{dataset}, {experiment}, seed {which} {state}: {reason}")
    return paragraphs


def explain(overview: Overview, width: int | None) -> list[str]:
    """Return the same in the language that is spoken, in lines of at most *width* letters; None: a line each."""
    paragraphs = list(map(tr_line, reasons_of(overview)))
    if width is None:
        return paragraphs
    console, indent = Console(color_system=None), "  "
    lines = []
    for paragraph in paragraphs:
        folded = Text(paragraph).wrap(console, max(width, 20) - len(indent))
        lines += [indent * (index > 0) + line.plain.rstrip() for index, line in enumerate(folded)]
    return lines


def render(overview: Overview, width: int | None = None, height: int | None = None) -> list[Text]:
    """Return all that is shown, in at most *width* columns and *height* lines; None: as much as there is."""
    names = list(dict.fromkeys(run.dataset for run in overview.runs))
    reasons = explain(overview, width)
    now = datetime.fromtimestamp(overview.time).strftime("%H:%M:%S")
    control = f"snakemake is {overview.controller}" if overview.controller else "no snakemake runs here"
    head = [Text(f"{now}  {tr_line(control)}", "dim")]
    room = None
    if height is not None:
        shown = min(len(reasons), max(1, int(height * MOST_REASONS)))
        if shown < len(reasons):
            reasons = [
                *reasons[: shown - 1],
                tr_line(f"and {plural(len(reasons) - shown + 1, 'more line')}: --once shows them all"),
            ]
        room = height - len(head) - 1 - len(names) - len(reasons) - 1  # 1 the header, 1 what is hidden
    chosen = choose(overview.runs, room)
    header, lines = table(chosen, width)
    line_of = dict(zip((run.key for run in chosen), lines, strict=True))
    body = [Text(header, "bold")] if chosen else []
    for name in names:
        runs = [run for run in overview.runs if run.dataset == name]
        body.append(Text(titled(name, count(runs)), "bold"))
        body += [Text(line_of[run.key], style(run)) for run in runs if run.key in line_of]
    if hidden := [run for run in overview.runs if run.key not in line_of]:
        body.append(Text(titled(tr_line("not shown"), count(hidden)), "dim"))
    body += [Text(reason, "red") for reason in reasons]
    texts = [*head, *body][:height]
    if width is not None:
        for text in texts:
            text.truncate(width, overflow="ellipsis")
    return texts


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
