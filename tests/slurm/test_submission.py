"""Where Slurm does not take a job now, does not answer or is slow, no job is lost, there twice, or failed for it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkout import Checkout, finish
from cluster import Cluster
from daemons import wait_until
from dag import QUICK, archive_bytes, settings

pytestmark = pytest.mark.timeout(900)
WORDS = ("snakemake", "--profile", "slurm", "--configfile", "configs/seeds.yaml")
TIMED_OUT = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation"
#: Counts its calls. The first is lost; the second arrives, but its answer is lost.
SBATCH = """#!/bin/sh
echo call >> {calls}
number=$(wc -l < {calls})
[ $number = 1 ] || {program} "$@"
[ $number -gt 2 ] || {{ echo '{timed_out}' >&2; exit 1; }}
"""
#: Of forty calls after the tenth, none is answered: more than the plugin asks in one check.
SQUEUE = """#!/bin/sh
echo call >> {calls}
number=$(wc -l < {calls})
[ $number -le 10 ] || [ $number -gt 50 ] || {{ echo '{timed_out}' >&2; exit 1; }}
exec {program} "$@"
"""
SLOW = """#!/bin/sh
sleep 4
exec {program} "$@"
"""


@pytest.fixture
def checkout(cluster: Cluster, tmp_path: Path) -> Iterator[Checkout]:
    """A copy with three runs and no second attempt; whatever it leaves in the queue is cancelled."""
    checkout = Checkout(tmp_path / "mimflow")
    (tmp_path / "data.zip").write_bytes(archive_bytes(["apple", "pear", "plum"], per_class=10))
    checkout.edit(
        "profiles/slurm/profile.yaml",
        ("# slurm_partition: gpu", "slurm_partition: gpu"),
        ("# slurm_account: my_lab", "slurm_account: lab"),
        ("retries: 3", "retries: 0"),
    )
    checkout.edit("profiles/slurm/site.yaml", ("device: cuda", "device: cuda\ncpu_jobs: false"))
    checkout.write_settings("seeds.yaml", settings({"path": str(tmp_path / "data.zip")}, range(3), quick=QUICK))
    yield checkout
    checkout.end()
    cluster.command("scancel", "--user=root", check=False)


def program(checkout: Checkout, name: str, text: str) -> tuple[str, ...]:
    """Put a script in the place of a program of Slurm's; return the words that have a command find it."""
    folder = checkout.folder.parent / "bin"
    folder.mkdir(exist_ok=True)
    text = text.format(calls=folder / f"{name}.calls", program=shutil.which(name), timed_out=TIMED_OUT)
    (folder / name).write_text(text, encoding="utf-8")
    (folder / name).chmod(0o755)
    return "env", f"PATH={folder}:{checkout.environment()['PATH']}"


def test_what_slurm_does_not_take_or_tell_now_is_asked_again(cluster: Cluster, checkout: Checkout) -> None:
    program(checkout, "squeue", SQUEUE)
    words = program(checkout, "sbatch", SBATCH)
    user = ("sacctmgr", "-i", "modify", "user", "root", "set")
    cluster.command(*user, "MaxSubmitJobs=2")  # three runs are to be submitted
    try:
        status, output = checkout.run(*words, *WORDS, "--until", "train_model")
    finally:
        cluster.command(*user, "MaxSubmitJobs=-1")
    assert status == 0, output
    assert "Socket timed out on send/recv operation" in output
    assert "MaxSubmitJob" in output
    jobs = jobs_of(cluster, checkout)
    assert len(jobs) == 4, jobs  # the data and three runs: also of the one whose answer was lost
    assert {job["State"] for job in jobs} == {"COMPLETED"}
    assert len((checkout.folder.parent / "bin/squeue.calls").read_text().splitlines()) > 50


def test_after_ctrl_c_nothing_is_submitted(cluster: Cluster, checkout: Checkout) -> None:
    words = program(checkout, "sbatch", SLOW)
    controller = checkout.start(*words, *WORDS)
    assert wait_until(lambda: len(jobs_of(cluster, checkout)) >= 2, 300)  # the data and a run; another run waits
    os.kill(controller.pid, signal.SIGINT)
    _, output = finish(controller, 120)
    assert wait_until(lambda: all(job["End"] for job in jobs_of(cluster, checkout)), 30), output
    assert len(jobs_of(cluster, checkout)) < 4


def jobs_of(cluster: Cluster, checkout: Checkout) -> list[dict[str, Any]]:
    return [job for job in cluster.jobs() if job["WorkDir"] == str(checkout.folder)]
