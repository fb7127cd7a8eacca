"""Count what a workflow asks of Slurm and of the file system: calls a minute, files and bytes of a run.

``python -m bench.footprint -- snakemake --profile slurm --configfile configs/mine.yaml`` in the project's folder runs
the command with Slurm's programs replaced by scripts that write down each call and then are the program.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import shlex
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.table import machine_line, markdown
from scripts.lib.base.console import run_cli
from scripts.lib.base.problems import UserError

logger = logging.getLogger(__name__)
PROGRAMS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo", "sacctmgr", "srun")
#: Where the scripts lie, and what they write down: on the file system that the nodes share.
FOLDER = Path(".snakemake/mimflow-footprint")
SCRIPT = """#!/bin/sh
echo "$(date +%s) {name} ${{SLURM_JOB_ID:-login}}" >> {calls}
exec {program} "$@"
"""
WHERE = ("results", "logs", ".snakemake")


@dataclass(frozen=True)
class Call:
    """One call of a program of Slurm's; *is_in_job*: from a Slurm job, else from where the workflow was started."""

    when: int
    program: str
    is_in_job: bool


def write_scripts(folder: Path, calls: Path) -> None:
    """Write a script for each of Slurm's programs that is here.

    Raises
    ------
    UserError : there is no Slurm.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in PROGRAMS:
        if program := shutil.which(name):
            script = folder / name
            text = SCRIPT.format(name=name, calls=shlex.quote(str(calls)), program=shlex.quote(program))
            script.write_text(text, encoding="utf-8")
            script.chmod(0o755)
    if not (folder / "sbatch").exists():
        raise UserError("there is no Slurm on this machine", "run it on a cluster's login node")


def read_calls(file: Path) -> list[Call]:
    """Return the calls that the scripts have written down, the oldest first."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    rows = [line.split() for line in lines]
    return sorted(
        (Call(int(row[0]), row[1], row[2] != "login") for row in rows if len(row) == 3), key=lambda call: call.when
    )


def busiest_minute(calls: Iterable[Call]) -> int:
    """Return the most calls in any sixty seconds."""
    times = [call.when for call in calls]
    return max((sum(begin <= when < begin + 60 for when in times) for begin in times), default=0)


def kind_of(path: Path) -> str:
    """Return to what a file or folder below results/, logs/ or .snakemake/ belongs."""
    parts = path.parts
    if parts[0] != "results":
        return parts[0] + "/"
    is_of_run = any(re.fullmatch(r"seed\d+", name) for name in parts[3:4])
    return "runs" if is_of_run else "data set and report"


def count_files(folders: Sequence[str] = WHERE) -> tuple[Counter[str], Counter[str]]:
    """Return how many files and folders there are, and their bytes, by :func:`kind_of`."""
    entries, size = Counter[str](), Counter[str]()
    for folder in folders:
        for parent, names, files in os.walk(folder):
            for name in (*names, *files):
                path = Path(parent, name)
                entries[kind_of(path)] += 1
                size[kind_of(path)] += path.lstat().st_size if name in files else 0
    return entries, size


def table_of_calls(calls: Sequence[Call], seconds: float) -> str:
    """Return the calls by program as a table."""
    rows = []
    for name in [*PROGRAMS, "all"]:
        of_name = [call for call in calls if name in (call.program, "all")]
        here = [call for call in of_name if not call.is_in_job]
        if of_name:
            rate = f"{60 * len(here) / max(seconds, 1):.1f}"
            rows.append([name, str(len(here)), rate, str(busiest_minute(here)), str(len(of_name) - len(here))])
    return "\n".join(
        markdown(["program", "calls of the controller", "a minute", "busiest minute", "calls in jobs"], rows)
    )


def table_of_files(before: tuple[Mapping[str, int], Mapping[str, int]], runs: int) -> str:
    """Return files and bytes that were added since *before*, as a table."""
    entries, size = count_files()
    rows = []
    for kind in sorted(entries):
        added, grown = entries[kind] - before[0].get(kind, 0), size[kind] - before[1].get(kind, 0)
        name = f"{kind} ({runs})" if kind == "runs" else kind
        each = [f"{added / runs:.0f}", f"{grown / runs / 1e6:.1f}"] if kind == "runs" and runs else ["", ""]
        rows.append([name, str(added), f"{grown / 1e6:.1f}", *each])
    return "\n".join(markdown(["what", "files and folders", "MB", "a run", "MB a run"], rows))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.footprint", description=__doc__)
    parser.add_argument("command", nargs="+", help="the command, after --")
    return parser


def main(args: argparse.Namespace) -> None:
    """Run the command and print the tables."""
    folder = FOLDER.resolve()
    calls = folder / "calls.txt"
    write_scripts(folder, calls)
    calls.unlink(missing_ok=True)
    before = count_files()
    began = time.monotonic()
    environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"}
    status = subprocess.run(args.command, env=environment, stdin=subprocess.DEVNULL).returncode
    seconds = time.monotonic() - began
    runs = len({path for path in Path("results").glob("*/*/seed*") if path.is_dir()})
    print(f"\n{seconds:.0f} s; {machine_line()}\n")
    print(table_of_calls(read_calls(calls), seconds), end="\n\n")
    print(table_of_files(before, runs))
    shutil.rmtree(folder)
    if status:
        raise UserError(f"the command ended with status {status}: the numbers are those of a part")


if __name__ == "__main__":
    run_cli(build_parser, main)
