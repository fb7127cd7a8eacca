"""Measure what the workflow itself costs: seconds of a Slurm job beside its own run time, and the plan of many runs.

``python -m bench.workflow_cost`` does both; the first part brings up the cluster of the tests (Debian, root) or uses
the one that is up. ``--only grid`` runs anywhere, ``--seeds 300`` plans 3,000 runs in place of 300.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from bench.table import machine_line
from scripts.lib.base.console import run_cli
from scripts.lib.base.problems import UserError
from scripts.lib.base.products import FILES, RECORDS, Entry
from scripts.lib.workflow.last_plan import FOLDER

# Where the test cluster, and the copy of the repository that it works in, are defined.
sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests" / name) for name in ("helpers", "slurm")]
from checkout import Checkout  # noqa: E402
from cluster import Cluster, running_folder  # noqa: E402
from dag import QUICK, archive_bytes, settings  # noqa: E402

EXPERIMENTS, SEEDS = 10, 30
#: Runs through Slurm.
ROUNDS = 3
#: Appended to the copy's Snakefile: what each rule would run is replaced by writing its outputs, so that a whole grid
#: is there in a minute, with Snakemake's own records of it. The DAG, the settings and the records are the real ones.
STAND_IN = """

import inspect as _inspect
from pathlib import Path as _Path


def _write_outputs(*_words, **_options):
    names = _inspect.currentframe().f_back.f_locals
    if "output" in names:
        for path in map(_Path, names["output"]):
            if path.name == "images":
                path.mkdir(parents=True, exist_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("stand-in")


shell = _write_outputs
"""


class Cost(NamedTuple):
    """What one command took: seconds, seconds of the processor, peak memory; and what it printed."""

    seconds: float
    processor: float
    peak_mib: float
    output: str


def measured(checkout: Checkout, *command: str) -> Cost:
    """Run *command* in *checkout*; return what its process took, and its output.

    Raises
    ------
    UserError : it failed.
    """
    with tempfile.TemporaryFile("w+") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            command, cwd=checkout.folder, env=checkout.environment(), stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode != 0:
        raise UserError(f"{' '.join(command)} failed in {checkout.folder}: {text.strip()[-300:]}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text)


def grid(folder: Path, seeds: int) -> dict[str, Any]:
    """Return what the plan of a grid takes: of one that is to be made, and of one that is made, with nothing to do."""
    experiments = {
        f"lr{number}": {**QUICK, "overrides": {"optimizer.lr": 0.001 * (number + 1)}} for number in range(EXPERIMENTS)
    }
    checkout = Checkout(folder / "grid")
    source = {"path": str(folder / "data.zip")}
    config = checkout.write_settings("grid.yaml", settings(source, range(seeds), **experiments))
    first = checkout.write_settings("first.yaml", settings(source, **experiments))
    with (checkout.folder / "Snakefile").open("a", encoding="utf-8") as snakefile:
        snakefile.write(STAND_IN)
    command = ["snakemake", "--profile", "profiles/local", "--configfile"]
    costs = {"dry_run": measured(checkout, *command, config, "--dry-run")}
    print("making the grid, with stand-ins for the scripts", file=sys.stderr, flush=True)
    measured(checkout, *command, first)
    repeat_runs(checkout.folder / "results" / "small", seeds)
    measured(checkout, *command, config)  # without further options: with them, no plan is remembered
    costs["nothing_to_do"] = rerun(checkout, *command, config)
    shutil.rmtree(checkout.folder / FOLDER)
    costs["planned_anew"] = rerun(checkout, *command, config)
    result: dict[str, Any] = {"runs": EXPERIMENTS * seeds}
    for name, cost in costs.items():
        result[f"{name}_seconds"] = round(cost.seconds, 1)
        result[f"{name}_processor_seconds"] = round(cost.processor, 1)
        result[f"{name}_peak_mib"] = round(cost.peak_mib)
    return result


def repeat_runs(results: Path, seeds: int) -> None:
    """Copy each run of seed 0 for the other seeds, with the records of what made it."""
    for first in sorted(results.glob("*/seed0")):
        files = {
            path.relative_to(first): path.read_text(encoding="utf-8") for path in first.rglob("*.*") if path.is_file()
        }
        for seed in range(1, seeds):
            run = first.with_name(f"seed{seed}")
            for name, text in files.items():
                (run / name).parent.mkdir(parents=True, exist_ok=True)
                there = text.replace("seed0", f"seed{seed}").replace(r"seeds\": [0]", rf"seeds\": [{seed}]")
                (run / name).write_text(there, encoding="utf-8")
            for record in run.rglob(f"{RECORDS}/*.json"):
                content = json.loads(record.read_text(encoding="utf-8"))
                for name, entry in content[FILES].items():
                    entry.update(vars(Entry.of(record.parents[1] / name, entry["sha256"])))
                record.write_text(json.dumps(content), encoding="utf-8")


def rerun(checkout: Checkout, *command: str) -> Cost:
    """Run a command that finds nothing to do, and return what it took.

    Raises
    ------
    UserError : it failed, or did something.
    """
    cost = measured(checkout, *command)
    if "nothing to do: " not in cost.output:
        raise UserError(f"the rerun in {checkout.folder} did something: {cost.output.strip()[-300:]}")
    return cost


def slurm_overhead(folder: Path) -> dict[str, Any]:
    """Return the seconds of one run through Slurm that its jobs did not run, per job in the chain, of each repeat."""
    running = running_folder()
    cluster = Cluster(running or Path(tempfile.mkdtemp(prefix="mimflow-slurm-")))
    rounds = []
    try:
        cluster.up()
        for number in range(ROUNDS):
            checkout = Checkout(folder / f"slurm{number}")
            checkout.edit(
                "profiles/slurm/profile.yaml",
                ("# slurm_partition: gpu", "slurm_partition: gpu"),
                ("# slurm_account: my_lab", "slurm_account: lab"),
            )
            checkout.edit("profiles/slurm/site.yaml", ("device: cuda", "device: cuda\ncpu_jobs: false"))
            config = checkout.write_settings("small.yaml", settings({"path": str(folder / "data.zip")}))
            cost = measured(checkout, "snakemake", "--profile", "slurm", "--configfile", config)
            jobs = [job for job in cluster.jobs() if job["WorkDir"] == str(checkout.folder)]
            ran = sum(float(job["ElapsedRaw"]) for job in jobs)
            costs = {"wall_seconds": round(cost.seconds, 1), "jobs": len(jobs), "jobs_ran_seconds": ran}
            rounds.append(costs | {"overhead_per_job_seconds": round((cost.seconds - ran) / len(jobs), 1)})
            print(json.dumps(rounds[-1]), file=sys.stderr, flush=True)
    finally:
        if not running:
            cluster.down()
            shutil.rmtree(cluster.folder)
    median = statistics.median(costs["overhead_per_job_seconds"] for costs in rounds)
    return {"rounds": rounds, "median_overhead_per_job_seconds": median}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.workflow_cost", description=__doc__)
    parser.add_argument("--only", choices=["slurm", "grid"], help="measure this part alone")
    parser.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help="of each of 10 experiments (%(default)s)")
    return parser


def main(args: argparse.Namespace) -> None:
    """Measure, and print one JSON object."""
    result: dict[str, Any] = {"machine": machine_line()}
    with tempfile.TemporaryDirectory(prefix="mimflow-bench-") as name:
        folder = Path(name)
        (folder / "data.zip").write_bytes(archive_bytes(["apple", "pear", "plum"], per_class=10))
        if args.only != "grid":
            result["slurm"] = slurm_overhead(folder)
        if args.only != "slurm":
            result["grid"] = grid(folder, args.seeds)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    run_cli(build_parser, main)
