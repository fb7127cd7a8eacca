"""Show this project's Slurm jobs: what is queued and what runs, where, for how long, and how far training is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from scripts.lib.base.console import run_cli
from scripts.lib.base.language import tr_line
from scripts.lib.cluster import slurm
from scripts.lib.workflow.job_table import describe_controller, render


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.jobs", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("."), help="the project's folder; default: this one")
    return parser


def main(args: argparse.Namespace) -> None:
    """Print the table."""
    jobs = slurm.my_jobs(args.folder)
    none = f"no Slurm job of {args.folder.resolve()} is queued or running"
    lines = [render(jobs, args.folder) if jobs else tr_line(none)]
    if text := describe_controller(args.folder, jobs):
        lines.append(tr_line(text))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    run_cli(build_parser, main)
