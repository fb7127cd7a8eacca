"""Run many stand-ins for trainings on a virtual cluster whose nodes, jobs and programs fail, and count what is lost.

``python -m bench.cluster --nodes 100 --runs 1000`` brings up a real Slurm (Debian, root) with that many nodes on this
machine, each with two fake GPUs, and runs the workflow there. The DAG, the controller, Slurm and each job's processes
are the real ones; the scripts only wait (`bench.stand_in`). All nodes share this machine's cores.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench import footprint, stand_in
from bench.stand_in import Beat
from bench.table import machine_line, markdown
from scripts.lib.base.console import run_cli
from scripts.lib.base.problems import UserError

# Where the test cluster, and the copy of the repository that it works in, are defined.
sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests" / name) for name in ("helpers", "slurm")]
from checkout import Checkout  # noqa: E402
from cluster import VIRTUAL_GPUS, Cluster, ClusterError, running_folder  # noqa: E402
from dag import QUICK, archive_bytes, settings  # noqa: E402

logger = logging.getLogger(__name__)
WORDS = ("snakemake", "--configfile", "configs/many.yaml", "--until", "train_model")
#: By profile: its partition among the virtual nodes. That of n30 refuses jobs that ask for cores, memory or no GPU.
PARTITIONS = {"slurm": "virtual", "n30": "n30_virtual"}
#: Starts of the workflow, each after one that ended with failed runs, until none is left to do.
MOST_STARTS = 4
#: MiB that the processes of a job take: Snakemake, srun and Slurm's own.
JOB_MIB = 160
#: Seconds for which a node that failed is away, and for which the disk is full.
AWAY_SECONDS, FULL_SECONDS = 30.0, 60.0
#: In the place of a program: it fails one time in twenty, and is slow as often.
UNRELIABLE = """#!/bin/sh
draw=$(( $(od -An -N2 -tu2 /dev/urandom) % 20 ))
[ $draw = 0 ] && {{ echo 'error: Socket timed out on send/recv operation' >&2; exit 1; }}
[ $draw = 1 ] && sleep 10
exec {program} "$@"
"""


@dataclass
class Faults:
    """What goes wrong while the workflow runs: one fault every so many seconds, drawn from those that are left."""

    cluster: Cluster
    disk: Path
    seconds: float
    seed: int
    done: Counter[str] = field(default_factory=Counter)
    stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Cause faults until told to stop; a thread's work."""
        draw = random.Random(self.seed)
        faults: dict[str, Callable[[random.Random], None]] = {
            "node killed": self._kill_node,
            "job cancelled": self._cancel_job,
            "time limit reached": self._shorten_job,
            "jobs preempted": self._preempt,
            "slurmctld killed": lambda _draw: self.cluster.restart_slurmctld(kill=True),
            "disk full": self._fill_disk,
        }
        for name in itertools.cycle(faults):
            if self.stopping.wait(self.seconds):
                return
            try:
                faults[name](draw)
            except ClusterError as error:
                logger.warning("%s: %s", name, error)
            else:
                self.done[name] += 1

    def _running(self, draw: random.Random) -> str | None:
        partitions = ",".join(PARTITIONS.values())
        jobs = self.cluster.command("squeue", "-h", "-t", "R", "-p", partitions, "-o", "%i").split()
        return draw.choice(sorted(jobs)) if jobs else None

    def _kill_node(self, draw: random.Random) -> None:
        node = draw.choice(self.cluster.virtual)
        self.cluster.kill_node(node)
        self.stopping.wait(AWAY_SECONDS)
        self.cluster.start_slurmd(node)

    def _cancel_job(self, draw: random.Random) -> None:
        if job := self._running(draw):
            self.cluster.command("scancel", job, check=False)

    def _shorten_job(self, draw: random.Random) -> None:
        if job := self._running(draw):
            self.cluster.command("scontrol", "update", f"JobId={job}", "TimeLimit=1", check=False)

    def _preempt(self, _draw: random.Random) -> None:
        whole = f"--gpus={VIRTUAL_GPUS}"
        words = ["sbatch", "--parsable", "-p", "urgent", whole, "-t", "1", "-o", "/dev/null", "--wrap", "sleep 20"]
        for _ in range(max(1, len(self.cluster.virtual) // 20)):
            self.cluster.command(*words, check=False)

    def _fill_disk(self, _draw: random.Random) -> None:
        ballast = self.disk / "ballast"
        try:
            with ballast.open("wb") as stream:
                while True:
                    stream.write(b"\0" * 65536)
                    stream.flush()
        except OSError:
            pass
        self.stopping.wait(FULL_SECONDS)
        ballast.unlink()


@dataclass(frozen=True)
class Result:
    """What a workflow did: its beats, what it cost the controller, and what is left."""

    beats: list[Beat]
    starts: int
    wall: float
    cpu: float
    peak_mib: float
    calls: list[footprint.Call]
    left: int
    runs: list[str]


def prepare(folder: Path, args: argparse.Namespace) -> Checkout:
    """Return a copy of the repository whose scripts are stand-ins, set up for the virtual nodes."""
    checkout = Checkout(folder / "mimflow")
    (folder / "data.zip").write_bytes(archive_bytes(["apple", "pear", "plum"], per_class=10))
    jobs = ("jobs: 8", f"jobs: {args.jobs or VIRTUAL_GPUS * args.nodes}")
    partition = f"slurm_partition: {PARTITIONS[args.profile]}"
    if args.profile == "n30":
        checkout.edit("profiles/n30/profile.yaml", ("slurm_partition: gpu", partition), jobs)
    else:
        account = ("# slurm_account: my_lab", "slurm_account: lab")
        checkout.edit("profiles/slurm/profile.yaml", ("# slurm_partition: gpu", partition), account, jobs)
        checkout.edit("profiles/slurm/site.yaml", ("device: cuda", "device: cuda\ncpu_jobs: false"))
    snakefile = checkout.folder / "Snakefile"
    text = snakefile.read_text(encoding="utf-8")
    snakefile.write_text(stand_in.HEAD + text + stand_in.TAIL, encoding="utf-8")
    plan = {"median": args.seconds, "spread": args.spread, "seed": args.seed}
    (checkout.folder / stand_in.PLAN).write_text(json.dumps(plan), encoding="utf-8")
    checkout.write_settings("many.yaml", settings({"path": str(folder / "data.zip")}, range(args.runs), many=QUICK))
    return checkout


def run(checkout: Checkout, cluster: Cluster, args: argparse.Namespace, faults: Faults | None) -> Result:
    """Start the workflow until every run has ended, with faults beside it."""
    calls = checkout.folder.parent / "calls.txt"
    counting, unreliable = checkout.folder.parent / "counting", checkout.folder.parent / "unreliable"
    footprint.write_scripts(counting, calls)
    unreliable.mkdir()
    for name in ("sbatch", "squeue") if faults else ():
        (unreliable / name).write_text(UNRELIABLE.format(program=counting / name), encoding="utf-8")
        (unreliable / name).chmod(0o755)
    environment = checkout.environment()
    environment["PATH"] = f"{unreliable}:{counting}:{environment['PATH']}"
    began, starts, peak, cpu = time.monotonic(), 0, 0.0, 0.0
    thread = threading.Thread(target=faults.run) if faults else None
    if thread:
        thread.start()
    try:
        for starts in range(1, MOST_STARTS + 1):
            log = checkout.folder.parent / f"start{starts}.txt"
            with log.open("wb") as stream:
                words = [*WORDS, "--profile", f"profiles/{args.profile}"]
                process = subprocess.Popen(words, cwd=checkout.folder, env=environment, stdin=subprocess.DEVNULL,
                                           stdout=stream, stderr=subprocess.STDOUT)  # fmt: skip
                try:
                    _, status, usage = os.wait4(process.pid, 0)
                except BaseException:  # it would go on alone, and its jobs, too
                    process.send_signal(signal.SIGINT)
                    process.wait()
                    raise
                process.returncode = os.waitstatus_to_exitcode(status)
            peak, cpu = max(peak, usage.ru_maxrss / 1024), cpu + usage.ru_utime + usage.ru_stime
            if process.returncode == 0:
                break
            last = log.read_text(encoding="utf-8", errors="replace").rstrip().rpartition("\n")[2]
            logger.warning("start %d ended with status %d: %s", starts, process.returncode, last)
    finally:
        if faults and thread:
            faults.stopping.set()
            thread.join()
    wall = time.monotonic() - began
    names = [f"many-{seed}" for seed in range(args.runs)]
    left = [row for row in cluster.jobs() if row["WorkDir"] == str(checkout.folder) and not row["End"]]
    return Result(
        stand_in.read_beats(checkout.folder), starts, wall, cpu, peak, footprint.read_calls(calls), len(left), names
    )


@dataclass(frozen=True)
class Verdict:
    """What became of the runs.

    ``together``: trained by two processes at once; ``again``: trained to the end more than once; ``used``: share of the
    GPUs' time, from the first beat to the last, in which a training came nearer to its end.
    """

    ended: int
    lost: list[str]
    together: list[str]
    again: list[str]
    attempts: int
    seconds: float
    best: float
    used: float


def judge(result: Result, gpus: int, seconds: dict[str, float]) -> Verdict:
    """Return what became of the runs.

    Parameters
    ----------
    seconds : how long each run trains.
    """
    ends = Counter(beat.run for beat in result.beats if beat.word == "end")
    together, attempts = set(), 0
    by_run = sorted(result.beats, key=lambda beat: (beat.run, beat.when))
    for run, beats in itertools.groupby(by_run, key=lambda beat: beat.run):
        when: dict[str, list[float]] = {}
        for beat in beats:
            when.setdefault(beat.attempt, []).append(beat.when)
        spans = sorted((times[0], times[-1]) for times in when.values())
        attempts += len(spans)
        if any(later[0] < earlier[1] for earlier, later in itertools.pairwise(spans)):
            together.add(run)
    took = result.beats[-1].when - result.beats[0].when if result.beats else 0.0
    needed = sum(seconds[run] for run in ends)
    return Verdict(
        ended=len(ends),
        lost=sorted(set(result.runs) - ends.keys()),
        together=sorted(together),
        again=sorted(run for run, count in ends.items() if count > 1),
        attempts=attempts,
        seconds=took,
        best=max(max(seconds.values()), needed / gpus),
        used=needed / (gpus * took) if took else 0.0,
    )


def tables(result: Result, verdict: Verdict, faults: Faults | None) -> str:
    """Return what happened as text."""
    here = [call for call in result.calls if not call.is_in_job]
    count = len(result.runs)
    rows = [
        ["runs, ended", f"{count}, {verdict.ended}"],
        ["lost; trained by two processes at once; trained to the end twice",
         f"{len(verdict.lost)}; {len(verdict.together)}; {len(verdict.again)}"],
        ["Slurm jobs left behind", str(result.left)],
        ["starts of the workflow; attempts of trainings", f"{result.starts}; {verdict.attempts}"],
        ["seconds of the workflow; from the first training to the last", f"{result.wall:.0f}; {verdict.seconds:.0f}"],
        ["the same, at best", f"{verdict.best:.0f}"],
        ["share of the GPUs' time in which trainings went on", f"{verdict.used:.2f}"],
        ["controller: processor seconds, of each run; peak MiB",
         f"{result.cpu:.0f}, {result.cpu / count:.2f}; {result.peak_mib:.0f}"],
        ["controller: calls of Slurm's programs, a minute; in the busiest minute",
         f"{60 * len(here) / result.wall:.1f}; {footprint.busiest_minute(here)}"],
    ]  # fmt: skip
    text = "\n".join(markdown(["what", "number"], rows))
    if faults:
        happened = ", ".join(f"{name} ({number})" for name, number in sorted(faults.done.items()))
        text += (
            f"\n\nFaults: {happened}; sbatch and squeue fail one time in twenty and are slow as often; limits on jobs."
        )
    return text


def measure(folder: Path, cluster: Cluster, args: argparse.Namespace) -> tuple[Result, Verdict, Faults | None]:
    """Run the workflow in *folder*, a file system of its own, on *cluster*."""
    checkout = prepare(folder, args)
    faults = Faults(cluster, folder, args.fault_seconds, args.seed) if args.fault_seconds else None
    user = ("sacctmgr", "-i", "modify", "user", "root", "set")
    gpus = VIRTUAL_GPUS * len(cluster.virtual)
    jobs = args.jobs or gpus
    if faults:  # as a site has limits that are below what the profile says
        cluster.command(*user, f"MaxSubmitJobs={max(2, int(0.9 * jobs))}", f"MaxJobs={max(2, int(0.8 * jobs))}")
    try:
        result = run(checkout, cluster, args, faults)
    finally:
        cluster.command(*user, "MaxSubmitJobs=-1", "MaxJobs=-1")
    seconds = {name: stand_in.seconds_of(name, args.seconds, args.spread, args.seed) for name in result.runs}
    return result, judge(result, min(gpus, jobs), seconds), faults


@contextmanager
def small_file_system(megabytes: int) -> Iterator[Path]:
    """Make a file system in memory that can be filled without harm to the others."""
    folder = Path(tempfile.mkdtemp(prefix="mimflow-many-"))
    words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "mimflow", str(folder)]
    subprocess.run(words, check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=__doc__)
    parser.add_argument("--nodes", type=int, default=100, help="nodes with two GPUs each (%(default)s)")
    parser.add_argument("--runs", type=int, default=1000, help="(%(default)s)")
    parser.add_argument("--jobs", type=int, help="jobs at a time, as the profile says it (as many as GPUs)")
    parser.add_argument("--seconds", type=float, default=500.0, help="median of a training (%(default)s)")
    parser.add_argument("--spread", type=float, default=0.5, help="standard deviation of its logarithm (%(default)s)")
    parser.add_argument("--fault-seconds", type=float, default=30.0, help="between two faults; 0: none (%(default)s)")
    parser.add_argument("--profile", choices=PARTITIONS, default="slurm", help="folder of profiles/ (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    return parser


def main(args: argparse.Namespace) -> None:
    """Measure, print the table, and fail where a run was lost or trained twice at once."""
    if other := running_folder():
        raise UserError(f"a test cluster is up in {other}", "take it down first: tests/slurm/cluster.py down")
    jobs = min(args.runs, args.jobs or VIRTUAL_GPUS * args.nodes)
    if jobs > (fit := int(psutil.virtual_memory().available / 2**20 / JOB_MIB)):
        raise UserError(f"{jobs} jobs at a time do not fit into this machine's memory", f"give --jobs {fit} or fewer")
    home = Path(tempfile.mkdtemp(prefix="mimflow-slurm-"))
    with small_file_system(1024) as folder, Cluster(home, virtual=args.nodes) as cluster:
        result, verdict, faults = measure(folder, cluster, args)
    shutil.rmtree(home)
    print(f"{machine_line()}\n\n{tables(result, verdict, faults)}")
    if verdict.lost or verdict.together or result.left:
        raise UserError(f"lost: {verdict.lost[:5]}; two at once: {verdict.together[:5]}; jobs left: {result.left}")


if __name__ == "__main__":
    run_cli(build_parser, main)
