"""What goes wrong on a cluster, and that each time the same command ends in the weights of an undisturbed run."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from checkout import Checkout, finish
from cluster import ETC, Cluster
from daemons import wait_until
from dag import QUICK, archive_bytes, settings

from scripts.lib.runs.attempts import read_attempts

pytestmark = pytest.mark.timeout(1200)

#: Long enough to be met in the middle on a slow machine.
LONG: dict[str, Any] = {**QUICK, "epochs": 60}
WHOLE = ("snakemake", "--profile", "slurm", "--configfile", "configs/long.yaml")
#: What happens to a training ends with its weights: one test of a controller and one of a job go on to the report.
WORDS = (*WHOLE, "--until", "train_model")
RUN = "long/seed0"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("data") / "data.zip"
    path.write_bytes(archive_bytes(["apple", "pear", "plum"], per_class=10))
    return settings({"path": str(path)}, long=LONG)


@pytest.fixture(scope="module")
def undisturbed(source: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of the run without Slurm and without faults."""
    return weights_without_slurm(tmp_path_factory.mktemp("local") / "mimflow", source)


def weights_without_slurm(folder: Path, source: dict[str, Any]) -> str:
    checkout = Checkout(folder)
    config = checkout.write_settings("long.yaml", source)
    words = ("--profile", "profiles/local", "--configfile", config, "--until", "train_model")
    status, output = checkout.run("snakemake", *words)
    assert status == 0, output
    return checkout.weights(RUN)


def report_is_there(checkout: Checkout) -> bool:
    return (checkout.folder / "results/small/report.html").stat().st_size > 100_000


@pytest.fixture
def checkout(cluster: Cluster, source: dict[str, Any], tmp_path: Path) -> Iterator[Checkout]:
    """A copy set up for the test cluster; whatever it leaves in the queue is cancelled."""
    checkout = Checkout(tmp_path / "mimflow")
    checkout.edit(
        "profiles/slurm/profile.yaml",
        ("# slurm_partition: gpu", "slurm_partition: gpu"),
        ("# slurm_account: my_lab", "slurm_account: lab"),
    )
    checkout.edit("profiles/slurm/site.yaml", ("device: cuda", "device: cuda\ncpu_jobs: false"))
    checkout.write_settings("long.yaml", source)
    yield checkout
    checkout.end()
    for row in cluster.jobs():
        if row["WorkDir"] == str(checkout.folder) and not row["End"]:
            subprocess.run(["scancel", row["JobIDRaw"]], check=False)


def epochs_done(checkout: Checkout) -> int:
    logs = list((checkout.folder / "results/small" / RUN / "work").glob("*/train_log.csv"))
    return max((len(log.read_text().splitlines()) - 1 for log in logs), default=0)


def jobs_of(cluster: Cluster, checkout: Checkout) -> list[dict[str, Any]]:
    return [row for row in cluster.jobs() if row["WorkDir"] == str(checkout.folder)]


def training_job(cluster: Cluster, checkout: Checkout) -> str:
    """Wait until training is under way; return its job."""
    assert wait_until(lambda: epochs_done(checkout) >= 3, 180, every=0.2)
    return next(row["JobIDRaw"] for row in reversed(jobs_of(cluster, checkout)) if row["State"] == "RUNNING")


def attempts_of(checkout: Checkout) -> list[dict[str, Any]]:
    (work_dir,) = (checkout.folder / "results/small" / RUN / "work").iterdir()
    return read_attempts(work_dir)


def one_writer(checkout: Checkout) -> bool:
    """Tell whether no attempt of the run began before the one before it had ended."""
    attempts = attempts_of(checkout)
    assert len(attempts) > 1
    return all(
        before["end"] is None or before["end"] <= after["start"] for before, after in itertools.pairwise(attempts)
    )


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=lambda number: number.name)
def test_a_killed_controller_is_started_again(
    cluster: Cluster, checkout: Checkout, undisturbed: str, number: signal.Signals
) -> None:
    words = WHOLE if number == signal.SIGKILL else WORDS
    controller = checkout.start(*words)
    job = training_job(cluster, checkout)
    os.kill(controller.pid, number)
    controller.communicate(timeout=60)
    alive = any(row["JobIDRaw"] == job and row["State"] == "RUNNING" for row in jobs_of(cluster, checkout))
    assert alive == (number == signal.SIGKILL)  # SIGINT has Snakemake cancel its jobs
    before = epochs_done(checkout)
    assert before < LONG["epochs"]
    status, output = checkout.run(*words)
    assert status == 0, output
    if number == signal.SIGKILL:
        assert report_is_there(checkout)
        assert f"note: 1 Slurm job of an earlier run ({job}) still there" in output
        assert "unlocking" in output
    assert checkout.weights(RUN) == undisturbed
    assert one_writer(checkout)


def test_a_controller_that_is_told_to_end_waits_for_its_jobs(
    cluster: Cluster, checkout: Checkout, undisturbed: str
) -> None:
    controller = checkout.start(*WORDS)
    training_job(cluster, checkout)
    os.kill(controller.pid, signal.SIGTERM)
    finish(controller, 300)
    assert all(row["End"] for row in jobs_of(cluster, checkout))
    status, output = checkout.run(*WORDS)
    assert status == 0, output
    assert "still there" not in output
    assert checkout.weights(RUN) == undisturbed
    assert len(attempts_of(checkout)) == 1


def test_a_second_controller_is_told_of_the_first(cluster: Cluster, checkout: Checkout) -> None:
    controller = checkout.start(*WORDS)
    try:
        assert wait_until(lambda: (checkout.folder / ".snakemake/mimflow-controller.json").exists(), 60, every=0.2)
        status, output = checkout.run(*WORDS)
        assert status == 1
        (line,) = [line for line in output.splitlines() if line.startswith("error:")]
        assert f"another snakemake runs this workflow in this folder (process {controller.pid} on" in line
        status, output = checkout.run(*WORDS, "-n")  # only looking is allowed
        assert "another snakemake" not in output
    finally:
        os.kill(controller.pid, signal.SIGINT)
        finish(controller, 60)


def test_a_mistake_is_submitted_once_and_is_the_last_line(
    cluster: Cluster, checkout: Checkout, source: dict[str, Any]
) -> None:
    wrong = {**QUICK, "overrides": {"model.nope.depth": 1}}
    config = checkout.write_settings("wrong.yaml", settings(source["dataset"]["source"], wrong=wrong))
    status, output = checkout.run("snakemake", "--profile", "slurm", "--configfile", config)
    assert status == 1 and len(jobs_of(cluster, checkout)) == 2, output  # the data, and one attempt of the run
    last = output.splitlines()[-1]
    assert last.startswith("error: ") and "overrides.model.nope.depth" in last and output.count(last) == 1, output
    assert "Error in rule" not in output and len(output.splitlines()) < 25, output


def disturb_cancel(cluster: Cluster, job: str) -> None:
    subprocess.run(["scancel", job], check=True)


def disturb_restart(cluster: Cluster, job: str) -> None:
    time.sleep(5)  # a job that has just started may be lost with a controller that is killed
    cluster.restart_slurmctld(kill=True)


def disturb_node(cluster: Cluster, job: str) -> None:
    cluster.kill_node("g1")
    time.sleep(3)
    cluster.start_node("g1")


DISTURBANCES = [disturb_cancel, disturb_restart, disturb_node]


@pytest.mark.parametrize("disturb", DISTURBANCES, ids=lambda disturb: disturb.__name__)
def test_a_job_that_is_disturbed_goes_on(
    cluster: Cluster, checkout: Checkout, undisturbed: str, disturb: Callable[[Cluster, str], None]
) -> None:
    controller = checkout.start(*(WHOLE if disturb is disturb_node else WORDS))
    job = training_job(cluster, checkout)
    disturb(cluster, job)
    status, output = finish(controller, 500)
    assert status == 0, output
    assert checkout.weights(RUN) == undisturbed
    assert disturb is not disturb_node or report_is_there(checkout)
    if disturb is not disturb_restart:  # which a job survives
        assert one_writer(checkout)


def test_a_run_longer_than_its_time_limit_goes_on_in_the_next_job(
    cluster: Cluster, checkout: Checkout, source: dict[str, Any], tmp_path: Path
) -> None:
    plugins = {"custom_imports.imports": ["scripts.mmcls_plugins", "waiting_plugin"]}
    longer = {**source, "experiments": {"long": {**LONG, "overrides": {**LONG["overrides"], **plugins}}}}
    checkout.write_settings("long.yaml", longer)
    # Three minutes for a job: it stops one minute before its end, and two are enough to begin on a busy machine.
    checkout.edit(
        "profiles/slurm/profile.yaml",
        ("runtime: 10", "runtime: 0"),
        ("runtime: 660", "runtime: 3"),
        ("retries: 3", "retries: 12"),
    )
    status, output = checkout.run(*WORDS, seconds=1100)
    assert status == 0, output
    attempts = attempts_of(checkout)
    assert len(attempts) >= 3  # twice at the limit, more often on a slow machine; then to the end
    assert len({attempt["slurm_job_id"] for attempt in attempts}) == len(attempts)
    assert all(attempt["outcome"] == "stopped" and "its state is in" in attempt["reason"] for attempt in attempts[:-1])
    assert attempts[-1]["outcome"] == "finished"
    # None was ended by Slurm at its limit: each had saved and stopped before.
    assert not [row for row in jobs_of(cluster, checkout) if row["State"] == "TIMEOUT"]
    assert one_writer(checkout)
    assert checkout.weights(RUN) == weights_without_slurm(tmp_path / "local", longer)


def test_a_preempted_job_goes_on_when_slurm_starts_it_again(
    cluster: Cluster, checkout: Checkout, undisturbed: str
) -> None:
    checkout.edit(
        "profiles/slurm/profile.yaml",
        ("slurm_partition: gpu", "slurm_partition: low"),
        ("runtime: 660", "runtime: 20"),
    )
    controller = checkout.start(*WORDS)
    job = training_job(cluster, checkout)
    whole = ["sbatch", "--parsable", "--partition=gpu", "--account=lab", "--gpus=4", "--cpus-per-task=32", "--mem=0"]
    urgent = subprocess.run(
        [*whole, "--output=/dev/null", "--wrap", "sleep 5"], check=True, capture_output=True, text=True
    ).stdout.strip()
    status, output = finish(controller, 500)
    assert status == 0, output
    assert next(row["State"] for row in cluster.jobs() if row["JobIDRaw"] == urgent) == "COMPLETED"
    attempts = attempts_of(checkout)
    assert [attempt["slurm_job_id"] for attempt in attempts] == [job, job]
    assert one_writer(checkout)
    assert checkout.weights(RUN) == undisturbed


@contextmanager
def forgetting(cluster: Cluster, seconds: int) -> Iterator[None]:
    """Have Slurm forget a job so many seconds after its end, and up to a minute later."""
    configuration = ETC / "slurm.conf"
    text = configuration.read_text(encoding="utf-8")
    configuration.write_text(text.replace("MinJobAge=300", f"MinJobAge={seconds}"), encoding="utf-8")
    try:
        cluster.command("scontrol", "reconfigure")
        yield
    finally:
        configuration.write_text(text, encoding="utf-8")
        cluster.command("scontrol", "reconfigure")


@pytest.mark.on_demand
def test_a_job_that_slurm_has_forgotten_ends_by_what_it_has_made(
    cluster: Cluster, checkout: Checkout, undisturbed: str
) -> None:
    checkout.edit("scripts/lib/workflow/slurm_executor.py", ("LOOK_SECONDS = 120.0", "LOOK_SECONDS = 15.0"))
    controller = checkout.start(*WORDS)

    def is_forgotten(job: str) -> bool:
        return job not in cluster.command("squeue", "-h", "--states=all", "-o", "%i").split()

    def suspend_until_forgotten(job: str) -> None:
        os.kill(controller.pid, signal.SIGSTOP)  # as on a login node that hangs
        if job != data:
            cluster.command("scancel", job)
        assert wait_until(lambda: is_forgotten(job), 240, every=1)
        os.kill(controller.pid, signal.SIGCONT)

    with forgetting(cluster, 5):
        assert wait_until(lambda: bool(cluster.queue()), 120, every=0.2)
        (data,) = cluster.queue()
        suspend_until_forgotten(data)
        training = training_job(cluster, checkout)
        suspend_until_forgotten(training)
        status, output = finish(controller, 500)
    assert status == 0, output
    assert f"note: job {data} (" in output and "has made its files: it counts as finished" in output
    assert f"note: job {training} (" in output and "has not made its files: it counts as failed" in output
    assert checkout.weights(RUN) == undisturbed
    assert one_writer(checkout)
    assert len(jobs_of(cluster, checkout)) == 3
