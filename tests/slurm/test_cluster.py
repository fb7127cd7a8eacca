"""The test cluster itself: what the other tests here take for granted."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psutil
import pytest
from cluster import Cluster, ClusterError
from daemons import wait_until


def submit(cluster: Cluster, folder: Path, *options: str, command: str = "sleep 1") -> str:
    """Submit a job that writes into *folder*; return its id."""
    return cluster.command("sbatch", "--parsable", "--chdir", str(folder), *options, f"--wrap={command}").strip()


def finish(cluster: Cluster, *jobs: str, seconds: float = 60) -> list[dict[str, Any]]:
    """Wait for jobs to end; return what the accounts say of them."""
    assert wait_until(lambda: not set(jobs) & set(cluster.queue()), seconds, every=0.3)
    records: list[dict[str, Any]] = []

    def recorded() -> bool:
        # The accounts are written a moment after the job has gone.
        records[:] = [row for row in cluster.jobs() if row["JobIDRaw"] in jobs]
        return len(records) == len(jobs) and all(row["End"] for row in records)

    assert wait_until(recorded, 20), records
    return records


def runs(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and that nobody has asked after does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_four_jobs_have_a_card_each_at_the_same_time(cluster: Cluster, tmp_path: Path) -> None:
    show = "echo $CUDA_VISIBLE_DEVICES > gpu.$SLURM_JOB_ID; sleep 4"
    jobs = [submit(cluster, tmp_path, "--gpus=1", command=show) for _ in range(4)]
    rows = finish(cluster, *jobs)
    assert [row["State"] for row in rows] == ["COMPLETED"] * 4
    assert max(row["Start"] for row in rows) < min(row["End"] for row in rows)
    assert all("gres/gpu=1" in row["AllocTRES"] for row in rows)
    assert sorted((tmp_path / f"gpu.{job}").read_text().strip() for job in jobs) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--gpus=1", "--mem=100"], "n30: --mem is not allowed"),
        (["--gpus=1", "--mem-per-cpu=100"], "n30: --mem is not allowed"),
        (["--gpus=1", "--cpus-per-task=2"], "n30: --cpus-per-task is not allowed"),
        ([], "n30: a job without --gpus=N is not allowed"),
    ],
)
def test_the_strict_partition_refuses(cluster: Cluster, tmp_path: Path, options: list[str], reason: str) -> None:
    with pytest.raises(ClusterError, match=re.escape(reason)):
        submit(cluster, tmp_path, "--partition=n30", *options)


def test_the_strict_partition_gives_six_cores_and_60_gb_a_card(cluster: Cluster, tmp_path: Path) -> None:
    [row] = finish(cluster, submit(cluster, tmp_path, "--partition=n30", "--gpus=2", "--ntasks-per-gpu=1"))
    assert row["State"] == "COMPLETED"
    assert {"cpu=12", "mem=120000M", "gres/gpu=2"} <= set(str(row["AllocTRES"]).split(","))


def test_a_failed_node_loses_its_processes_and_its_jobs_start_again(cluster: Cluster, tmp_path: Path) -> None:
    command = "echo $$ > shell.$SLURM_RESTART_COUNT; sleep ${SLURM_RESTART_COUNT:+1} || sleep 300"
    job = submit(cluster, tmp_path, "--partition=cpu", "--requeue", command=command)
    first = tmp_path / "shell."
    assert wait_until(lambda: first.exists() and first.read_text() != "", 20)
    shell = int(first.read_text())
    try:
        cluster.kill_node("n1")
        assert wait_until(lambda: not runs(shell), 20)
        assert wait_until(lambda: "DOWN" in cluster.node_state("n1"), 90, every=0.5)
    finally:
        cluster.start_node("n1")
    [row] = finish(cluster, job, seconds=90)
    assert row["State"] == "COMPLETED"
    assert (tmp_path / "shell.1").exists()
