"""Run the whole workflow inside one Slurm allocation, with all of its GPUs; run.sbatch starts it."""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

from scripts.lib.base.console import run_cli
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.cluster import slurm
from scripts.lib.cluster.gpus import Gpus, cores_of_this_job
from scripts.lib.settings.load import load_settings, read_file
from scripts.lib.settings.site import enter_site
from scripts.lib.workflow.layout import Layout

logger = logging.getLogger(__name__)

#: A workflow that ended with less than this left of the allocation ended because of that; trainers save 60 s before.
END_SECONDS = 90.0
#: Allocations after the first, when the workflow does not fit into one.
REQUEUES = 20


def missing_downloads(layout: Layout) -> list[str]:
    """Return the files of the fetch_* rules that are not there."""
    return [path for path in dict.fromkeys(layout.downloads()) if not Path(path).exists()]


def workflow_command(config: Path, gpus: int, cores: int, options: list[str]) -> list[str]:
    """Return Snakemake's command line: as many runs at a time as there are GPUs, each on one of its own."""
    command = [str(Path(sys.executable).with_name("snakemake")), "--profile", "profiles/local"]
    command += [
        "--configfile",
        str(config),
        "--cores",
        str(cores),
        "--resources",
        f"gpu={max(gpus, 1)}",
        "trainings_on_nodes=1",
    ]
    return [*command, *options]


def requeue_if_out_of_time(end: float | None) -> bool:
    """Have Slurm queue this job again when its time is up; return whether it will be.

    Slurm itself queues a job again after a node has failed or another took its place, but not at its time limit.
    """
    job = os.environ.get("SLURM_JOB_ID")
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    if not job or end is None or time.time() < end - END_SECONDS or restarts >= REQUEUES:
        return False
    result = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    if result.returncode != 0:
        logger.warning("scontrol requeue: %s", result.stderr.strip())
    return result.returncode == 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.allocation", description=__doc__)
    parser.add_argument("config", type=Path, help="the configuration, as configs/fruit30.yaml")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="further options for Snakemake")
    return parser


def main(args: argparse.Namespace) -> None:
    """Check that nothing is left to download, then run Snakemake until all is done or the time is up."""
    layout = Layout(load_settings(read_file(args.config), [args.config]))
    enter_site([], os.environ)
    if missing := missing_downloads(layout):
        remedy = f"on the login node, run `make fetch CONFIG={args.config}` first, then sbatch again"
        raise UserError(f"{', '.join(missing)}: not there yet, and a compute node has no internet", remedy)
    gpus, cores = Gpus.of(os.environ).names, cores_of_this_job(os.environ)
    end = slurm.job_end_time()
    logger.info(
        "%s, %s: up to %s at a time",
        *(plural(len(gpus), "GPU"), plural(cores, "core"), plural(max(len(gpus), 1), "run")),
    )
    command = workflow_command(args.config, len(gpus), max(cores, len(gpus)), args.options)
    status = subprocess.run(command, stdin=subprocess.DEVNULL).returncode
    if status == 0:
        return
    if requeue_if_out_of_time(end):
        logger.info("the time of this allocation is over: it is queued again, and goes on where it was")
        return
    hint = f"sbatch it again: it goes on from what is done (snakemake ended with status {status})"
    raise UserError(f"{args.config}: the workflow did not end: read the lines above, then {hint}")


if __name__ == "__main__":
    run_cli(build_parser, main)
