"""`make jobs`, `make cancel` and the accounting of costs, asked of a real Slurm."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cluster import Cluster, clean_environment
from dag import ROOT

from scripts.lib.cluster import slurm
from scripts.lib.metrics import cost
from scripts.lib.metrics.cost import Attempt, RunHistory

JOBS, CANCEL = "scripts.jobs", "scripts.cancel"
PROGRESS = {"epochs_done": 3, "max_epochs": 5, "iteration": 30, "loss": 0.412, "val_accuracy": 0.912}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "a project"
    folder.mkdir()
    return folder


def submit(cluster: Cluster, folder: Path, *options: str, name: str = "mimflow_1", command: str = "sleep 300") -> str:
    words = ["sbatch", "--parsable", f"--job-name={name}", f"--chdir={folder}", "--output=/dev/null", *options]
    return cluster.command(*words, f"--wrap={command}").strip().split(";")[0]


def until_running(job_id: str) -> slurm.Job:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        job = slurm.job(job_id)
        if job is not None and job.state == "RUNNING":
            return job
        time.sleep(0.3)
    raise AssertionError(f"job {job_id} does not run: {slurm.job(job_id)}")


def call(module: str, folder: Path, *options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", module, "--folder", str(folder), *options]
    result = subprocess.run(
        command,
        cwd=ROOT,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )
    return result.returncode, result.stdout + result.stderr


def test_jobs_shows_what_runs_and_what_waits(cluster: Cluster, project: Path) -> None:
    assert call(JOBS, project) == (0, f"no Slurm job of {project} is queued or running\n")
    comment = "rule_run_demo_a_b_0_evaluate_model_train_model"
    running = submit(cluster, project, "--partition=gpu", "--gpus=2", "--time=7", f"--comment={comment}")
    held = submit(cluster, project, "--partition=cpu", "--hold", "--comment=rule_data_demo_split_dataset")
    foreign = submit(cluster, project.parent, "--partition=cpu", "--hold")
    other = submit(cluster, project, "--partition=cpu", "--hold", name="other")
    try:
        job = until_running(running)
        work = project / "results/demo/a_b/seed0/work/abc"
        work.mkdir(parents=True)
        (work / "progress.json").write_text(json.dumps(PROGRESS))
        (work / "lease.json").write_text(json.dumps({"job": running}))
        status, output = call(JOBS, project)
        lines = {line.split()[0]: line for line in output.splitlines() if line}
        assert status == 0 and foreign not in lines and other not in lines
        assert " running " in lines[running] and "a_b, seed 0" in lines[running] and " g1 " in lines[running]
        assert "7:00     2  epoch 3/5  loss 0.412  val accuracy 91.2 %" in lines[running]
        assert "pending (JobHeldUser)" in output and "data: demo" in output
        assert f"{held} will not start by itself: it is held" in output
        ends = slurm.job_end_time(running)
        assert job.gpus == 2 and ends is not None and job.started is not None and ends == job.started + 7 * 60
        assert cluster.command("scontrol", "update", f"jobid={running}", "timelimit=9") is not None
        assert slurm.job_end_time(running) == ends + 120, "an administrator gave it more time"
    finally:
        cluster.command("scancel", running, held, foreign, other)
        assert slurm.wait_gone([running, held, foreign, other], 60) == set()


def test_cancel_ends_this_projects_jobs_and_no_others(cluster: Cluster, project: Path) -> None:
    assert call(CANCEL, project) == (
        0,
        f"no Slurm job of {project} is queued or running: nothing to cancel\n",
    )
    mine = [submit(cluster, project, "--partition=cpu") for _ in range(3)]
    other = submit(cluster, project.parent, "--partition=cpu")
    named = submit(cluster, project, "--partition=cpu", name="other")
    try:
        for job_id in (*mine, other, named):
            until_running(job_id)
        status, output = call(CANCEL, project, other)
        assert status == 1 and f"error: {other}: no queued or running job of this project" in output
        status, output = call(CANCEL, project, mine[0])
        assert status == 0 and f"cancelling 1 job: {mine[0]}" in output
        assert {job.id for job in slurm.my_jobs(project)} == set(mine[1:])
        status, output = call(CANCEL, project)
        assert status == 0 and "they are gone; their last saved states are kept" in output
        assert slurm.my_jobs(project) == []
        assert [until_running(job_id).state for job_id in (other, named)] == ["RUNNING"] * 2
    finally:
        cluster.command("scancel", other, named, *mine)


def test_at_a_terminal_a_person_is_asked(cluster: Cluster, project: Path) -> None:
    job_id = submit(cluster, project, "--partition=cpu", "--hold")
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-m", CANCEL, "--folder", str(project)]
        for answer, left in [("n\n", [job_id]), ("y\n", [])]:
            process = subprocess.Popen(
                command, cwd=ROOT, env=clean_environment(), stdin=theirs, stdout=subprocess.PIPE, text=True
            )
            os.write(ours, answer.encode())
            output, _ = process.communicate(timeout=120)
            assert "cancel this 1 job? [y/N]" in output and process.returncode == 0
            assert [job.id for job in slurm.my_jobs(project)] == left
    finally:
        os.close(ours)
        os.close(theirs)
        cluster.command("scancel", job_id)


def test_the_cost_of_a_requeued_job_is_that_of_all_its_stays(cluster: Cluster, project: Path) -> None:
    assert slurm.has_accounting()
    job_id = submit(cluster, project, "--partition=gpu", "--gpus=2", "--requeue", command="sleep 4")
    begun = until_running(job_id).started
    assert begun is not None
    time.sleep(2)
    cluster.command("scontrol", "requeue", job_id)
    assert slurm.wait_gone([job_id], 120) == set()
    deadline = time.monotonic() + 30
    while True:  # slurmctld tells slurmdbd a little later
        stays = slurm.accounting([job_id], begun - 60)[job_id]
        if (len(stays) == 2 and stays[-1].state == "COMPLETED") or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    first, second = stays
    assert 2 <= first.elapsed <= 60 and 4 <= second.elapsed <= 60  # seconds; on a busy machine jobs end late
    assert first.gpus == second.gpus == 2 and second.queued is not None and second.queued >= 1
    history = RunHistory("a", 0, 1, 3.0, (Attempt(job_id, begun, begun + 1, 2, None),))
    row = cost.estimate([history], cost.find_records([history]), price=3.6, currency="CNY").iloc[0]
    assert row["source"] == "accounting" and row["gpu_seconds"] == 2 * (first.elapsed + second.elapsed)
    assert row["cost"] == pytest.approx(row["gpu_seconds"] / 1000)


def test_without_accounting_there_is_none(cluster: Cluster, project: Path) -> None:
    with cluster.without_accounting():
        assert not slurm.has_accounting()
        job_id = submit(cluster, project, "--partition=gpu", "--gpus=1")
        try:
            job = until_running(job_id)
            assert job.gpus == 1 and [queued.id for queued in slurm.my_jobs(project)] == [job_id]
            attempt = Attempt(job_id, time.time(), time.time() + 10, 1, None)
            assert cost.find_records([RunHistory("a", 0, 1, 3.0, (attempt,))]) == {}
        finally:
            cluster.command("scancel", job_id)
        assert slurm.wait_gone([job_id], 60) == set()


def test_a_restart_of_slurm_is_waited_for(cluster: Cluster, project: Path) -> None:
    job_id = submit(cluster, project, "--partition=cpu", command="sleep 6")
    until_running(job_id)
    cluster.stop_slurmctld()
    with pytest.raises(slurm.SlurmSilent, match="try again in a few minutes"):
        slurm.my_jobs(project)
    cluster.start_slurmctld()
    assert slurm.wait_gone([job_id], 120) == set()
