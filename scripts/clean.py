"""Remove a run, all runs of an experiment, or a data set with all its runs, and their logs: `make clean RUN=...`.

Weights that were downloaded, in results/checkpoints/, stay: other runs may start from them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
from pathlib import Path

from scripts.lib.base.console import confirmed, run_cli, say
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import megabytes
from scripts.lib.runs.run_folder import FIELDS, FOLD, RESERVED_NAMES
from scripts.lib.workflow.progress import Watcher

SEED = re.compile(r"seed\d{1,10}", re.ASCII)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.clean", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="results/NAME, or a folder in it")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR", help="where runs are (results)")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    return parser


def names_of(folder: Path, results: Path) -> tuple[str, ...]:
    """Return data set, experiment, seed and fold of what is to be removed, as many as there are.

    Raises
    ------
    UserError : it is not there, or neither a run, nor an experiment, nor a data set.
    """
    names = Path(os.path.relpath(folder, results)).parts
    is_one = 1 <= len(names) <= len(FIELDS) and ".." not in names and not RESERVED_NAMES & {*names}
    patterns = (SEED, FOLD)[: max(0, len(names) - 2)]
    is_one = is_one and all(map(re.Pattern.fullmatch, patterns, names[2:]))
    if not is_one:
        remedy = f"give {results}/NAME, {results}/NAME/EXPERIMENT or {results}/NAME/EXPERIMENT/seed0"
        raise UserError(f"{folder}: neither a run, nor an experiment, nor a data set", remedy)
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder", "`make watch ARGS=--once` lists the runs")
    return names


def check_unused(names: tuple[str, ...], results: Path) -> None:
    """Raise UserError if a Snakemake runs here, or somebody trains one of these runs."""
    overview = Watcher(results).look(names[0])
    if overview.controller:
        raise UserError(f"snakemake runs here ({overview.controller})", "wait for it, or stop it with Ctrl-C")
    for run in overview.runs:
        if run.holder and run.folder(results).path.relative_to(results).parts[: len(names)] == names:
            raise UserError(f"{run.experiment}, seed {run.which}: {run.state} ({run.holder})", "stop it first")


def size_of(folder: Path) -> tuple[int, int]:
    """Return files and bytes below a folder; links count as they are, not as what they lead to."""
    sizes = [os.lstat(os.path.join(where, name)).st_size for where, _, names in os.walk(folder) for name in names]
    return len(sizes), sum(sizes)


def remove(folder: Path) -> None:
    """Remove a folder; of a link to one, as to another disk, both."""
    shutil.rmtree(folder.resolve())
    if folder.is_symlink():
        folder.unlink()


def main(args: argparse.Namespace) -> None:
    """Say what goes, ask, and remove it."""
    names = names_of(args.run, args.results)
    check_unused(names, args.results)
    count, size = size_of(args.run)
    say(f"{args.run}: {count} files, {megabytes(size)}" + (", its images among them" if len(names) == 1 else ""))
    if not args.yes and not confirmed("remove it?"):
        say("nothing was removed")
        return
    remove(args.run)
    if (logs := Path(os.path.abspath(args.results)).parent.joinpath("logs", *names)).is_dir():
        remove(logs)
    again = "" if len(names) == 1 else "; the next `make run` makes it again, or leaderboard and report without it"
    say(f"removed{again}")


if __name__ == "__main__":
    run_cli(build_parser, main)
