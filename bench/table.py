"""What the bench says of its rows: stopping points, times and accuracies, as a table and a figure."""

from __future__ import annotations

import logging
import math
import os
import re
import shlex
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path

from scipy import stats

from bench.processes import THREADS, Row
from scripts.lib.base.files import atomic_path, read_json, write_text
from scripts.lib.base.units import in_percent
from scripts.lib.cluster.gpus import gpus_of_machine

logger = logging.getLogger(__name__)
PEER_ROWS = ("timm", "fastai")
#: Every row, in the order in which they are run (fast+ needs the times of plain and fast), and its name in the table.
NAMES = {
    "plain": "(a) plain mim, tutorial's config",
    "tutorial": "(b) mimflow, recipe tutorial",
    "fast": "(c) mimflow, recipe fast",
    "fast+": "(c) fast, given (a)'s time",
    "timm": "(d) timm's parts",
    "fastai": "(d) fastai's fine_tune",
    "limit": "(e) limit: bare loop in memory",
}
ROWS = tuple(NAMES)
HEAD = (
    "row", "seconds to (a)'s accuracy", "test accuracy there, %", "final test accuracy, %", "seconds in all",
    "start-up seconds", "images/s", "share of the limit", "peak memory, MB",
)  # fmt: skip
#: Okabe and Ito's colours, which colour-blind people can tell apart.
COLOURS = ("#000000", "#E69F00", "#D55E00", "#CC79A7", "#0072B2", "#009E73")
CONFIDENCE = 0.95
#: Below one image of any val split; fastai's accuracies are float32, and a mean over seeds is rounded as well.
ROUNDING = 1e-6


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and half the width of its 95 % interval (Student's t); None of one value, which has none."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return mean, quantile * statistics.stdev(values) / math.sqrt(len(values))


def stopping_point(checkpoints: Sequence[Row], target: float) -> int | None:
    """Return the position of the first checkpoint whose accuracy on val reaches *target*, None when none does."""
    return next((i for i, point in enumerate(checkpoints) if point["val_accuracy"] >= target - ROUNDING), None)


def chosen_checkpoint(row: str, checkpoints: Sequence[Row], within: float = math.inf) -> int:
    """Return the position of the row's own result: plain mim's last, else the first that is the best on val.

    Parameters
    ----------
    within : seconds; what came later does not count, as a machine may be slower than the row was planned for.
    """
    if row == "plain":
        return len(checkpoints) - 1
    in_time = [i for i, point in enumerate(checkpoints) if point["seconds"] <= within]
    return max(in_time, key=lambda i: (checkpoints[i]["val_accuracy"], -i))


def target_accuracy(rows: Sequence[Row]) -> float | None:
    """Return plain mim's final accuracy on val, the mean over its seeds; None where it was not run."""
    finals = [row["checkpoints"][-1]["val_accuracy"] for row in rows if row["row"] == "plain"]
    return statistics.fmean(finals) if finals else None


def checkpoint_there(row: Row, target: float | None) -> int | None:
    """Return the position of the checkpoint with (a)'s accuracy on val: of plain mim, which sets it, the last."""
    if target is None or "checkpoints" not in row:
        return None
    return row["chosen"] if row["row"] == "plain" else stopping_point(row["checkpoints"], target)


def time_to_target(row: Row, target: float | None) -> float | None:
    """Return the seconds to the checkpoint with (a)'s accuracy on val; of plain mim, all of its."""
    position = checkpoint_there(row, target)
    return None if position is None else row["checkpoints"][position]["seconds"]


def checkpoints_to_read(row: Row, target: float | None) -> list[int]:
    """Return the positions of the checkpoints whose accuracy on test the table shows."""
    return sorted({row.get("chosen"), checkpoint_there(row, target)} - {None})


def speed_up(rows: Sequence[Row]) -> float | None:
    """Return by how much fast reaches plain mim's accuracy sooner than plain mim; None where a seed of it does not."""
    target = target_accuracy(rows)
    plain = [row["seconds"] for row in rows if row["row"] == "plain"]
    fast = [time_to_target(row, target) for row in rows if row["row"] == "fast"]
    reached = [seconds for seconds in fast if seconds is not None]
    if not plain or not reached or len(reached) < len(fast):
        return None
    return statistics.fmean(plain) / statistics.fmean(reached)


def last_line(rows: Sequence[Row]) -> str:
    """Return the line that the bench ends with."""
    factor = speed_up(rows)
    return f"speed-up to the tutorial's accuracy: {'not reached' if factor is None else f'{factor:.1f}'}"


def epochs_within(seconds: float, row: Row) -> int:
    """Return how many epochs the fast recipe finishes in *seconds*, by the times of a *row* of it; at least one."""
    start = row["seconds_of"]["pack_images"] + row["seconds_of"]["fit_head"]
    before, after = row["training_seconds"]
    trained = sum(point["name"].startswith("epoch") for point in row["checkpoints"])
    return max(1, math.floor((seconds - start - before) / (after / trained)))


def limits_by_size(rows: Sequence[Row]) -> dict[int, float]:
    """Return the limit's images/s by pixels a side, the median over its seeds."""
    rates = defaultdict(list)
    for row in rows:
        if row["row"] == "limit":
            for size, rate in row["images_per_second_by_size"].items():
                rates[int(size)].append(rate)
    return {size: statistics.median(values) for size, values in rates.items()}


def shares_in_turns(rows: Sequence[Row], loop: str) -> list[float]:
    """Return images/s of each epoch of fast that took turns with the limit's bare loop, as a share of it.

    Parameters
    ----------
    loop : ``plain``, or ``absorbed``; its turns before and after the epoch count.
    """
    shares = []
    for row in rows:
        if turns := row.get("in_turns"):
            around = zip(turns[loop], turns[loop][1:], strict=False)
            shares += [rate / statistics.fmean(both) for rate, both in zip(turns["fast"], around, strict=True)]
    return shares


def table_line(rows: Sequence[Row], target: float | None, limits: Mapping[int, float]) -> tuple[str, ...]:
    """Return the cells of one line: the *rows* are one row's, a seed each."""
    name, size = rows[0]["row"], rows[0]["size"]
    rates = [row["images_per_second"] for row in rows]
    rate = statistics.fmean(rates)
    share = f"{rate / limits[size]:.2f}" if size in limits else "-"
    common = (f"{rate:.1f} ({size} px)", share, f"{max(row['peak_mb'] for row in rows):.0f}")
    if "checkpoints" not in rows[0]:
        return (NAMES[name], "-", "-", "-", "-", "-", *common)
    reached = [(row, there) for row in rows if (there := checkpoint_there(row, target)) is not None]
    times = [row["checkpoints"][there]["seconds"] for row, there in reached]
    accuracies = [row["test"][str(there)] for row, there in reached]
    of_all = "" if len(times) == len(rows) else f" ({len(times)} of {len(rows)} seeds)"
    to_target = f"{statistics.fmean(times):.1f}{of_all}" if times else "not reached" if target is not None else "-"
    mean, half = interval([100 * row["test"][str(row["chosen"])] for row in rows])
    final = f"{mean:.1f}" + (f" ± {half:.1f}" if half is not None else "") + f" (n={len(rows)})"
    return (
        NAMES[name],
        to_target,
        in_percent(statistics.fmean(accuracies)) if accuracies else "-",
        final,
        f"{statistics.fmean(row['seconds'] for row in rows):.1f}",
        f"{statistics.fmean(row['startup_seconds'] for row in rows):.1f}",
        *common,
    )


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown: names in its first column, numbers in the others."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(head)} |", f"|{'|'.join(rule)}|", *(f"| {' | '.join(cells)} |" for cells in rows)]


def section(data: str, rows: Sequence[Row]) -> str:
    """Return the table of one data set, in Markdown."""
    target, limits = target_accuracy(rows), limits_by_size(rows)
    by_row = {name: [row for row in rows if row["row"] == name] for name in ROWS}
    lines = [f"## {data}", "", rows[0]["data_line"], ""]
    lines += [*markdown(HEAD, [table_line(seeds, target, limits) for seeds in by_row.values() if seeds]), ""]
    if target is not None:
        lines += [f"(a)'s accuracy on val, which stops the clocks: {100 * target:.2f} % (mean over its seeds).", ""]
    at_fast = [row["rate_at_fast_size"] for row in by_row["timm"] if row.get("rate_at_fast_size")]
    if by_row["fast"] and at_fast:
        fast, size = statistics.fmean(row["images_per_second"] for row in by_row["fast"]), by_row["fast"][0]["size"]
        timm = statistics.fmean(at_fast)
        lines += [f"At fast's size, {size} px: timm {timm:.1f}, fast {fast:.1f} images/s: {fast / timm:.2f} of it.", ""]
    if shares := shares_in_turns(rows, "plain"):
        absorbed = statistics.median(shares_in_turns(rows, "absorbed"))
        lines += [
            f"In turns with the loop in memory, epoch by epoch in one process, fast has {statistics.median(shares):.2f}"
            f" of it (median of {len(shares)}, from {min(shares):.2f} to {max(shares):.2f}), and {absorbed:.2f} where"
            " that loop absorbs normalisation into the convolutions, too, as fast does.",
            "",
        ]
    return "\n".join([*lines, last_line(rows), ""])


def table(results: Mapping[str, Sequence[Row]], machine: str, gpu: str) -> str:
    """Return table.md: a section for each data set, of its rows."""
    head = (
        f"# Bench\n\n{machine}\n\n{gpu}\n\n"
        f"{THREADS} threads, batch 32, the same ImageNet weights (of MobileNetV2, where no other model is named) and"
        " as many data-loader workers in every row (on a GPU, all but (a), whose config says 2). Seconds run from the"
        " first image opened, packing included, to the checkpoint; imports are the start-up. The stopping point is"
        " chosen on val, accuracy is read on test; ± is half the 95 % interval of the mean over n seeds (Student's t)."
        " Images/s: median epoch, waiting for data included; share: of the limit at the same size. Memory: proportional"
        " set size of all processes of a row together, the most of its seeds.\n"
    )
    return "\n".join([head, *(section(data, rows) for data, rows in sorted(results.items()) if rows)])


def draw(results: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Write the figure: accuracy on val against seconds, one panel a data set, one line a row and seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    panels = {data: [row for row in rows if "checkpoints" in row] for data, rows in sorted(results.items())}
    panels = {data: rows for data, rows in panels.items() if rows}
    if not panels:
        return
    figure, axes = plt.subplots(1, len(panels), figsize=(6.4 * len(panels), 4.2), squeeze=False, layout="constrained")
    for axis, (data, rows) in zip(axes[0], panels.items(), strict=True):
        for row in sorted(rows, key=lambda row: ROWS.index(row["row"])):
            colour = COLOURS[ROWS.index(row["row"])]
            points = row["checkpoints"]
            label = NAMES[row["row"]] if row["seed"] == min(r["seed"] for r in rows if r["row"] == row["row"]) else None
            seconds = [point["seconds"] for point in points]
            accuracies = [100 * point["val_accuracy"] for point in points]
            axis.plot(seconds, accuracies, color=colour, linewidth=1.4, marker=".", markersize=5, label=label)
            end = 100 * row["test"][str(row["chosen"])]
            axis.plot(row["seconds"], end, color=colour, marker="D", markersize=6, markerfacecolor="none")
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set(title=data, xlabel="seconds since the first image was opened", ylabel="accuracy, %")
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=8, title="lines: val; diamonds: test, at the end", title_fontsize=8)
    with atomic_path(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "mimflow"}):
        figure.savefig(temporary, metadata={"Date": None})
    plt.close(figure)


def machine_line() -> str:
    """Return the processor, the cores, the date and the command."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", info, flags=re.MULTILINE)
    command = shlex.join(["python", "-m", f"bench.{Path(sys.argv[0]).stem}", *sys.argv[1:]])
    return f"{model[1] if model else 'unknown processor'}, {os.cpu_count()} cores, {date.today()}: `{command}`"


def report(path: Path, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Log each row as soon as it is measured; then write the table, below the machine, to *path*, and print it."""
    measured = []
    for row in rows:
        logger.info("%s", " | ".join(row))
        measured.append(row)
    text = "\n".join([machine_line(), "", *markdown(head, measured)])
    write_text(path, text + "\n")
    print(text)


def gpu_line(results: Iterable[str]) -> str:
    """Say which sections are of a GPU, or why there is none."""
    if of_gpu := sorted(name for name in results if name.endswith("-cuda")):
        return f"GPU: {', '.join(of_gpu)}. Memory there is the GPU's, of tensors."
    if gpus_of_machine():
        return "GPU: there is one, but nothing was measured on it."
    return "GPU: none here, not measured."


def load_rows(output: Path) -> dict[str, list[Row]]:
    """Return the finished rows of all data sets in an output folder."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for path in sorted((output / "rows").glob("*/*.json")):
        rows[path.parent.name].append(read_json(path))
    return rows


def is_read(rows: Sequence[Row], row: Row) -> bool:
    """Tell whether the accuracies on test of a row that the table shows have been read."""
    return all(str(position) in row["test"] for position in checkpoints_to_read(row, target_accuracy(rows)))
