"""Cancel this project's Slurm jobs, all or some, and no others; what they have trained is saved and goes on later."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from scripts.lib.base.console import confirmed, run_cli, say
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.cluster import slurm
from scripts.lib.cluster.slurm import Job
from scripts.lib.workflow.controller import CANCEL_PATIENCE_SECONDS, RECORD, Controller
from scripts.lib.workflow.job_table import render


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.cancel", description=__doc__)
    parser.add_argument("jobs", nargs="*", metavar="JOBID", help="jobs to cancel; default: all of this project")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--folder", type=Path, default=Path("."), help="the project's folder; default: this one")
    return parser


def choose(jobs: Sequence[Job], wanted: Sequence[str]) -> list[Job]:
    """Return the jobs with the ids *wanted*, all where none is.

    Raises
    ------
    UserError : one of them is not a job of this project.
    """
    foreign = [job_id for job_id in wanted if job_id not in {job.id for job in jobs}]
    if foreign:
        what = f"{', '.join(foreign)}: no queued or running job of this project"
        raise UserError(what, "`make jobs` lists those that are")
    return [job for job in jobs if not wanted or job.id in wanted]


def main(args: argparse.Namespace) -> None:
    """List the jobs, cancel them and wait for their end."""
    jobs = choose(slurm.my_jobs(args.folder), args.jobs)
    if not jobs:
        say(f"no Slurm job of {args.folder.resolve()} is queued or running: nothing to cancel")
        return
    print(render(jobs, args.folder))
    ids = [job.id for job in jobs]
    controller = Controller(args.folder / RECORD)
    record = controller.record()
    if record is not None and controller.is_alive() and record.holder.job not in ids:
        say(f"snakemake still runs here ({record.holder}) and may submit them again: stop it first with Ctrl-C")
    what = plural(len(ids), "job")
    if not args.yes and not confirmed(f"cancel {'this' if len(ids) == 1 else 'these'} {what}?"):
        say("nothing was cancelled")
        return
    say(f"cancelling {what}: {', '.join(ids)}")
    slurm.cancel(ids)
    if left := sorted(slurm.wait_gone(ids, CANCEL_PATIENCE_SECONDS)):
        remedy = f"look at `squeue -j {','.join(left)}`; if it lasts, ask the cluster's support"
        raise UserError(f"Slurm jobs {', '.join(left)} do not end", remedy)
    say("they are gone; their last saved states are kept: the command that started them goes on from there")


if __name__ == "__main__":
    run_cli(build_parser, main)
