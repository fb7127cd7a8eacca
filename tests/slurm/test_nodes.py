"""Runs on several nodes: the weights of as many processes on one node, whatever happens on the way."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from checkout import Checkout, finish
from cluster import Cluster
from daemons import wait_until
from dag import QUICK, archive_bytes, settings
from pair import ranks_of

from scripts.lib.base.outcome import Outcome
from scripts.lib.runs.attempts import read_attempts

pytestmark = pytest.mark.timeout(1200)

#: Long enough to be met in the middle on a slow machine; a state of every iteration.
LONG: dict[str, Any] = {
    **QUICK,
    "epochs": 40,
    "batch_size": 4,
    "overrides": {**QUICK["overrides"], "runner.checkpoint_minutes": 0},
}
#: Of three and more processes there are few images for each; at the usual learning rate the loss becomes infinite.
SMALL: dict[str, Any] = {**LONG, "batch_size": 3, "learning_rate": 1e-5}
WAITING = {"custom_imports.imports": ["scripts.mmcls_plugins", "waiting_plugin"]}
#: By name: how one trains on several nodes, and the same number of processes on one.
EXPERIMENTS = {
    "two": {**LONG, "nodes": 2},
    "pair": {**LONG, "gpus": 2},
    "four": {**SMALL, "nodes": 2, "gpus": 2},
    "quartet": {**SMALL, "gpus": 4},
    "three": {**SMALL, "nodes": 3},
    "trio": {**SMALL, "gpus": 3},
    "waiting": {**LONG, "nodes": 2, "overrides": {**LONG["overrides"], **WAITING}},
    "waiting-pair": {**LONG, "gpus": 2, "overrides": {**LONG["overrides"], **WAITING}},
}
OPTIONS = ("--configfile", "configs/nodes.yaml")
LOCAL = ("--profile", "profiles/local", *OPTIONS)


@pytest.fixture(scope="module")
def checkout(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy set up for the test cluster."""
    folder = tmp_path_factory.mktemp("nodes")
    (folder / "data.zip").write_bytes(archive_bytes(["apple", "pear", "plum"], per_class=10))
    checkout = Checkout(folder / "mimflow")
    checkout.edit(
        "profiles/slurm/profile.yaml",
        ("# slurm_partition: gpu", "slurm_partition: many"),
        ("# slurm_account: my_lab", "slurm_account: lab"),
        ("# gpu_model: rtx3090", "gpu_model: rtx3090"),
    )
    checkout.edit("profiles/slurm/site.yaml", ("device: cuda", "device: cuda\ncpu_jobs: false"))
    checkout.write_settings("nodes.yaml", settings({"path": str(folder / "data.zip")}, **EXPERIMENTS))
    return checkout


def make_here(checkout: Checkout, *targets: str) -> None:
    """Make files without Slurm, if they are not there."""
    if missing := [target for target in targets if not (checkout.folder / target).exists()]:
        status, output = checkout.run("snakemake", *missing, *LOCAL)
        assert status == 0, output


def on_one_node(checkout: Checkout, experiment: str) -> str:
    """Return the weights of a run that nothing disturbs, without Slurm."""
    make_here(checkout, f"results/small/{experiment}/seed0/last.pth")
    return checkout.weights(f"{experiment}/seed0")


class Job:
    """A training on several nodes, as a Slurm job without Snakemake, in a folder of its own."""

    def __init__(self, checkout: Checkout, experiment: str, name: str) -> None:
        self.checkout, self.experiment, self.name = checkout, experiment, name
        self.run = checkout.folder / "results" / "small" / name / "seed0"
        self.id = ""

    def submit(self, *options: str) -> None:
        """Put it into the queue."""
        run, config = f"results/small/{self.name}/seed0", f"results/small/{self.experiment}/seed0/config.py"
        command = ["python", "-m", "scripts.train.train_model", "--config", config, "--seed", "0"]
        command += ["--work-dir", f"{run}/work", "--best", f"{run}/best.pth", "--last", f"{run}/last.pth"]
        command += ["--train-log", f"{run}/train_log.csv", "--log", f"{run}/train_model.log"]
        make_here(self.checkout, config)
        self.run.mkdir(parents=True, exist_ok=True)
        nodes, gpus = EXPERIMENTS[self.experiment]["nodes"], EXPERIMENTS[self.experiment].get("gpus", 1)
        words = ["sbatch", "--parsable", "--account=lab", f"--nodes={nodes}", f"--ntasks={nodes}", f"--gres=gpu:{gpus}"]
        words += ["--requeue", "--mem=8000", f"--output={self.run}/job.out", "--open-mode=append"]
        options = ("--partition=many", "--time=30", *options)
        status, output = self.checkout.run(*words, *options, "--wrap", shlex.join(command))
        assert status == 0, output
        self.id = output.strip()

    def work_dir(self) -> Path:
        """Return the folder of its states, as its processes name it."""
        (folder,) = (self.run / "work").iterdir()
        return folder.relative_to(self.checkout.folder)

    def epochs(self) -> int:
        """Return how many epochs are done."""
        logs = list((self.run / "work").glob("*/train_log.csv"))
        return max((len(log.read_text().splitlines()) - 1 for log in logs), default=0)

    def wait_for_training(self) -> None:
        """Wait until it is in its fourth epoch or later."""
        assert wait_until(lambda: self.epochs() >= 3, 180, every=0.2), self.output()
        assert self.epochs() < LONG["epochs"]

    def finish(self, cluster: Cluster, seconds: float = 400) -> str:
        """Wait for its end; return its state."""
        assert wait_until(lambda: self.id not in cluster.queue(), seconds, every=0.5), self.output()
        rows: list[str] = []

        def recorded() -> bool:
            rows[:] = [row["State"] for row in cluster.jobs() if row["JobIDRaw"] == self.id and row["End"]]
            return bool(rows)

        assert wait_until(recorded, 30, every=0.5)
        return rows[0]

    def output(self) -> str:
        """Return what it printed."""
        file = self.run / "job.out"
        return file.read_text() if file.exists() else "no output"

    def weights(self) -> str:
        """Return the hash of the tensors that it ended with."""
        return self.checkout.weights(f"{self.name}/seed0")


def assert_one_file_each(job: Job) -> None:
    """Make sure that one process alone wrote, and that nothing of the meeting of nodes is left."""
    folder = job.checkout.folder / job.work_dir()
    assert not (folder / "processes").exists() and not list(folder.glob("*.tmp*"))


def test_a_run_on_two_nodes_through_snakemake_survives_a_killed_process_and_equals_one_node(
    cluster: Cluster, checkout: Checkout
) -> None:
    results = "results/small/{}/seed0"
    make_here(checkout, f"{results.format('pair')}/last.pth", f"{results.format('two')}/config.py")
    last = f"{results.format('two')}/last.pth"
    controller = checkout.start("snakemake", last, "--profile", "slurm", *OPTIONS)
    work = checkout.folder / "results/small/two/seed0/work"

    def epochs() -> int:
        logs = list(work.glob("*/train_log.csv"))
        return max((len(log.read_text().splitlines()) - 1 for log in logs), default=0)

    assert wait_until(lambda: epochs() >= 3 or controller.poll() is not None, 240, every=0.2)
    assert controller.poll() is None, controller.communicate()[0]
    (folder,) = work.iterdir()
    os.kill(ranks_of(folder.relative_to(checkout.folder))[1], signal.SIGKILL)
    status, output = finish(controller, 500)
    assert status == 0, output
    rows = [row for row in cluster.jobs() if row["WorkDir"] == str(checkout.folder)]
    assert [row["State"] for row in rows] == ["FAILED", "COMPLETED"], output
    assert all(row["NodeList"] == "m[1-2]" and "gres/gpu=2" in row["AllocTRES"] for row in rows)
    first, second = read_attempts(folder)
    assert "process 2 of 2 was killed by SIGKILL" in first["reason"] and "(on m2)" in first["reason"]
    assert second["outcome"] == "finished"
    assert not (folder / "processes").exists()
    assert checkout.weights("two/seed0") == checkout.weights("pair/seed0")


@pytest.mark.on_demand
@pytest.mark.parametrize("node", ["m1", "m2"])
def test_a_run_goes_on_after_one_of_its_nodes_has_died(cluster: Cluster, checkout: Checkout, node: str) -> None:
    job = Job(checkout, "two", f"node-{node}")
    job.submit("--nodelist=m1,m2")
    job.wait_for_training()
    cluster.kill_node(node)
    # It is queued again, or has failed before Slurm missed the node; then a queue of mimflow submits another.
    cluster.start_node(node)
    if job.finish(cluster) != "COMPLETED":
        assert "the same command goes on" in job.output()
        assert Outcome.read(job.run / "train_model.outcome.json").again
        job.submit()
        assert job.finish(cluster) == "COMPLETED", job.output()
    assert job.weights() == on_one_node(checkout, "pair")
    assert_one_file_each(job)


@pytest.mark.on_demand
def test_a_job_that_others_displace_goes_on_when_slurm_starts_it_again(cluster: Cluster, checkout: Checkout) -> None:
    job = Job(checkout, "two", "displaced")
    job.submit("--partition=spare")
    job.wait_for_training()
    whole = ["sbatch", "--parsable", "--partition=many", "--account=lab", "--nodes=3", "--exclusive"]
    subprocess.run([*whole, "--output=/dev/null", "--wrap", "sleep 5"], check=True, capture_output=True)
    assert job.finish(cluster) == "COMPLETED", job.output()
    first, *later = read_attempts(checkout.folder / job.work_dir())
    assert later and {attempt["slurm_job_id"] for attempt in (first, *later)} == {job.id}
    assert later[-1]["outcome"] == "finished"
    assert job.weights() == on_one_node(checkout, "pair")


@pytest.mark.on_demand
def test_a_training_longer_than_its_time_saves_on_all_nodes_and_goes_on(cluster: Cluster, checkout: Checkout) -> None:
    job = Job(checkout, "waiting", "limited")
    states = []
    # It waits twice for its end (waiting_plugin), on a slow machine it may stop before that.
    while "COMPLETED" not in states and len(states) < 8:
        job.submit("--time=2")
        states.append(job.finish(cluster))
    assert states == ["FAILED"] * (len(states) - 1) + ["COMPLETED"], job.output()  # by itself, not by Slurm: TIMEOUT
    assert len(states) > 2 and job.output().count("its state is in") == len(states) - 1
    assert job.weights() == on_one_node(checkout, "waiting-pair")


@pytest.mark.on_demand
def test_a_cancelled_job_leaves_no_process_on_any_node(cluster: Cluster, checkout: Checkout) -> None:
    job = Job(checkout, "three", "cancelled")
    job.submit()
    job.wait_for_training()
    assert len(ranks_of(job.work_dir())) == 3
    subprocess.run(["scancel", job.id], check=True)
    assert job.finish(cluster) == "CANCELLED"
    assert wait_until(lambda: not ranks_of(job.work_dir()), 30)
    job.submit()
    assert job.finish(cluster) == "COMPLETED", job.output()
    assert job.weights() == on_one_node(checkout, "trio")


@pytest.mark.on_demand
def test_the_other_nodes_end_when_the_first_ones_processes_are_killed(cluster: Cluster, checkout: Checkout) -> None:
    """As the system does when memory is short: all of the trainer's group, so that nobody can tell the others."""
    job = Job(checkout, "two", "first-killed")
    job.submit()
    job.wait_for_training()
    first, second = ranks_of(job.work_dir())
    os.kill(second, signal.SIGSTOP)  # as one that waits in a GPU's kernel: it cannot notice by itself
    launcher = int(re.search(r"PPid:\s+(\d+)", Path(f"/proc/{first}/status").read_text())[1])
    os.killpg(os.getpgid(launcher), signal.SIGKILL)
    assert wait_until(lambda: not ranks_of(job.work_dir()), 30)
    assert job.finish(cluster) == "FAILED"
    job.submit()
    assert job.finish(cluster) == "COMPLETED", job.output()
    assert job.weights() == on_one_node(checkout, "pair")


@pytest.mark.on_demand
@pytest.mark.parametrize(("experiment", "on_one"), [("four", "quartet"), ("three", "trio")])
def test_more_nodes_and_gpus_equal_as_many_processes_on_one_node(
    cluster: Cluster, checkout: Checkout, experiment: str, on_one: str
) -> None:
    job = Job(checkout, experiment, f"all-{experiment}")
    job.submit()
    assert job.finish(cluster) == "COMPLETED", job.output()
    assert job.weights() == on_one_node(checkout, on_one)


@pytest.mark.on_demand
def test_an_allocation_of_two_nodes_trains_a_run_on_them(cluster: Cluster, checkout: Checkout) -> None:
    words = ["--nodes=2", "--gres=gpu:2", "--partition=many", "--account=lab", "--mem=8000", "--cpus-per-task=2"]
    script = checkout.folder / "profiles" / "slurm" / "run.sbatch"
    text = re.sub(r"#SBATCH --(gpus|cpus-per-gpu|mem-per-gpu|nodes).*\n", "", script.read_text())
    script.write_text(text)
    config = checkout.write_settings(
        "allocated.yaml",
        {**settings({"path": str(checkout.folder.parent / "data.zip")}, two=EXPERIMENTS["two"])},
    )
    status, output = checkout.run("sbatch", "--parsable", "--wait", *words, "profiles/slurm/run.sbatch", config)
    job = output.strip().splitlines()[0]
    printed = (checkout.folder / f"slurm-{job}.out").read_text()
    assert status == 0, printed
    assert (checkout.folder / "results/small/report.html").exists()
    assert checkout.weights("two/seed0") == on_one_node(checkout, "pair")


def test_more_nodes_than_the_job_has_are_refused_in_one_line(cluster: Cluster, checkout: Checkout) -> None:
    status, output = checkout.run("snakemake", "results/small/three/seed0/last.pth", *LOCAL)
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert status == 1 and "experiments.three.nodes: 3 needs a Slurm job of 3 nodes" in line
    assert "sbatch --nodes=N profiles/slurm/run.sbatch" in line
    job = Job(checkout, "three", "few")
    job.submit("--nodes=2", "--ntasks=2")
    assert job.finish(cluster) == "FAILED"
    assert "nodes: 3, and this Slurm job has 2 nodes" in job.output()
