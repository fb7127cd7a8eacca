"""The whole workflow through Slurm, in each of the ways that a user starts it, against the same runs made locally."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from accounts import at_the_same_time, jobs_in
from checkout import Checkout
from cluster import Cluster
from daemons import wait_until
from dag import QUICK, archive_bytes, settings

from scripts.lib.workflow import fork_server

#: The DAG of four seeds takes minutes on two cores, and counts as the set-up of the first test that looks at it.
pytestmark = pytest.mark.timeout(1500)

#: The config's own imports, and the one that writes down which GPU each process has.
IMPORTS = {"custom_imports.imports": ["scripts.mmcls_plugins", "gpu_plugin"]}
# Without model.onnx, whose making has nothing to do with Slurm.
NARROW: dict[str, Any] = {**QUICK, "export": False, "overrides": {**QUICK["overrides"], **IMPORTS}}
#: Differs in what decides the result: network, learning rate, batch, length.
WIDE: dict[str, Any] = {
    **NARROW,
    "batch_size": 4,
    "epochs": 2,
    "learning_rate": 0.002,
    "overrides": {"model.backbone.widen_factor": 0.35, **IMPORTS},
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The source of a small data set."""
    path = tmp_path_factory.mktemp("data") / "data.zip"
    path.write_bytes(archive_bytes(["apple", "pear", "plum"], per_class=10))
    return {"path": str(path)}


@pytest.fixture(scope="module")
def local(archive: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Both experiments trained on this machine without Slurm."""
    checkout = Checkout(tmp_path_factory.mktemp("local") / "mimflow")
    config = checkout.write_settings("both.yaml", settings(archive, narrow=NARROW, wide=WIDE))
    words = ("--profile", "profiles/local", "--configfile", config, "--until", "train_model")
    status, output = checkout.run("snakemake", *words)
    assert status == 0, output
    return checkout


# --- snakemake --profile slurm ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def four_seeds(
    cluster: Cluster, archive: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Checkout, str]:
    """A DAG of four seeds through the generic profile; the folder, and what Snakemake said."""
    checkout = Checkout(tmp_path_factory.mktemp("slurm") / "mimflow")
    # As the profile's comments tell the user to do.
    checkout.edit(
        "profiles/slurm/profile.yaml",
        ("# slurm_partition: gpu", "slurm_partition: gpu"),
        ("# slurm_account: my_lab", "slurm_account: lab"),
        ("# gpu_model: rtx3090", "gpu_model: rtx3090"),
    )
    # The GPUs are not real: runs on the CPU take one all the same.
    checkout.edit("profiles/slurm/site.yaml", ("device: cuda", "device: cuda\ncpu_jobs: false"))
    config = checkout.write_settings("four.yaml", settings(archive, seeds=range(4), narrow=NARROW))
    status, output = checkout.run("snakemake", "--profile", "slurm", "--configfile", config)
    assert status == 0, output
    return checkout, output


def test_one_job_a_run_and_one_for_the_data(cluster: Cluster, four_seeds: tuple[Checkout, str]) -> None:
    checkout, _ = four_seeds
    rows = jobs_in(cluster, checkout.folder)
    assert [row["State"] for row in rows] == ["COMPLETED"] * (4 + 1)
    assert all(row["Partition"] == "gpu" and row["NodeList"] == "g1" for row in rows)
    assert all("gres/gpu=1" in row["AllocTRES"] for row in rows)


def test_four_runs_at_the_same_time_each_on_its_own_card(cluster: Cluster, four_seeds: tuple[Checkout, str]) -> None:
    checkout, _ = four_seeds
    data, *runs = jobs_in(cluster, checkout.folder)
    assert data["End"] <= min(row["Start"] for row in runs)
    assert at_the_same_time(runs)
    seen = checkout.gpus_of_runs()
    assert set(seen) == {f"narrow/seed{seed}" for seed in range(4)}
    assert {job for job, _ in seen.values()} == {row["JobIDRaw"] for row in runs}
    assert sorted(gpu for _, gpu in seen.values()) == ["0", "1", "2", "3"]


def test_through_slurm_the_report_is_complete(four_seeds: tuple[Checkout, str]) -> None:
    checkout, output = four_seeds
    assert (checkout.folder / "results/small/report.html").stat().st_size > 100_000
    assert "narrow" in output and "results/small/report.html" in output
    assert not list((checkout.folder / "results").rglob("*.tmp*"))


def test_the_steps_of_a_job_load_torch_once_together(four_seeds: tuple[Checkout, str]) -> None:
    lines = [json.loads(line) for line in four_seeds[0].usage.read_text().splitlines()]
    forked = [line for line in lines if line["step"] in fork_server.RULES and "/seed" in line["log"]]
    assert {line["step"] for line in forked} >= {"patch_config", "predict_images", "explain_model", "write_model_card"}
    assert not any(line["loads_torch"] for line in forked)


def test_a_run_through_slurm_equals_the_local_one_bit_for_bit(
    four_seeds: tuple[Checkout, str], local: Checkout
) -> None:
    assert four_seeds[0].weights("narrow/seed0") == local.weights("narrow/seed0")
    assert four_seeds[0].weights("narrow/seed1") != local.weights("narrow/seed0")


def test_a_second_start_has_nothing_to_do(cluster: Cluster, four_seeds: tuple[Checkout, str]) -> None:
    checkout, _ = four_seeds
    before = len(jobs_in(cluster, checkout.folder))
    status, output = checkout.run("snakemake", "--profile", "slurm", "--configfile", "configs/four.yaml")
    assert status == 0, output
    assert "nothing to do" in output and "report.html" in output
    assert len(jobs_in(cluster, checkout.folder)) == before


# --- the strict cloud -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strict(archive: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy whose n30 profile names the partition as the test cluster does; the partition itself refuses the rest."""
    checkout = Checkout(tmp_path_factory.mktemp("n30") / "mimflow")
    checkout.edit("profiles/n30/profile.yaml", ("slurm_partition: gpu", "slurm_partition: n30"))
    checkout.write_settings("one.yaml", settings(archive, wide=WIDE))
    two = settings(archive, seeds=(0, 1), narrow=NARROW)
    checkout.write_settings("two.yaml", {**two, "dataset": {**two["dataset"], "name": "allocated"}})
    return checkout


def test_the_strict_partition_takes_the_jobs_of_its_profile(
    cluster: Cluster, strict: Checkout, local: Checkout
) -> None:
    status, output = strict.run("snakemake", "--profile", "profiles/n30", "--configfile", "configs/one.yaml")
    assert status == 0, output
    rows = jobs_in(cluster, strict.folder)
    assert [(row["State"], row["Partition"]) for row in rows] == [("COMPLETED", "n30")] * 2
    # Every job has a GPU, and with it what the partition gives: nothing else was asked for.
    assert all({"cpu=6", "gres/gpu=1", "mem=60000M"} <= set(row["AllocTRES"].split(",")) for row in rows)
    assert strict.weights("wide/seed0") == local.weights("wide/seed0")


def sbatch(cluster: Cluster, checkout: Checkout, *words: str, seconds: float = 900) -> tuple[dict[str, Any], str]:
    """Submit the script of the profile; return what the accounts say of the job in the end, and its output."""
    status, output = checkout.run("sbatch", "--parsable", "--partition=n30", *words)
    assert status == 0, output
    job = output.strip()
    assert wait_until(lambda: job not in cluster.queue(), seconds, every=0.5), f"job {job} still runs"
    rows: list[dict[str, Any]] = []

    def in_the_accounts() -> bool:  # which hear of it a little later than the queue
        rows[:] = [row for row in jobs_in(cluster, checkout.folder) if row["JobIDRaw"] == job and row["End"]]
        return bool(rows)

    assert wait_until(in_the_accounts, 30, every=0.5), f"the accounts do not know job {job}"
    return rows[0], (checkout.folder / f"slurm-{job}.out").read_text()


def test_an_allocation_says_in_one_line_that_the_downloads_are_missing(cluster: Cluster, strict: Checkout) -> None:
    row, output = sbatch(cluster, strict, "profiles/n30/run.sbatch", "configs/two.yaml")
    assert row["State"] == "FAILED"
    [line] = [line for line in output.splitlines() if line.strip()]
    assert line.startswith("error: results/allocated/archive.zip: not there yet")
    assert "make fetch CONFIG=configs/two.yaml" in line


def test_an_allocation_runs_the_whole_dag_with_a_card_for_each_run(
    cluster: Cluster, strict: Checkout, local: Checkout
) -> None:
    # READY_TO_RUN=true: the copy's .venv is the one that runs these tests, and not to be built anew.
    status, output = strict.run("make", "fetch", "CONFIG=configs/two.yaml", "READY_TO_RUN=true")
    assert status == 0, output
    row, output = sbatch(cluster, strict, "--gpus=2", "profiles/n30/run.sbatch", "configs/two.yaml")
    assert row["State"] == "COMPLETED", output
    assert "gres/gpu=2" in row["AllocTRES"]
    assert (strict.folder / "results/allocated/report.html").exists(), output
    seen = strict.gpus_of_runs()
    assert {seen["narrow/seed0"], seen["narrow/seed1"]} == {(row["JobIDRaw"], "0"), (row["JobIDRaw"], "1")}
    assert strict.weights("narrow/seed0", "allocated") == local.weights("narrow/seed0")


# --- without accounting -----------------------------------------------------------------------------------------------


def test_without_accounting_the_end_of_a_job_is_seen_by_squeue(
    cluster: Cluster, archive: dict[str, Any], tmp_path: Path
) -> None:
    checkout = Checkout(tmp_path / "mimflow")
    config = checkout.write_settings("one.yaml", settings(archive, narrow=NARROW))
    with cluster.without_accounting():
        # The data job and the first step of a run: two jobs, the second of which waits for the end of the first.
        target = "results/small/narrow/seed0/config.py"
        began = time.monotonic()
        status, output = checkout.run("snakemake", target, "--profile", "slurm", "--configfile", config, seconds=600)
        took = time.monotonic() - began
        states = [row["State"] for row in cluster.jobs() if row["WorkDir"] == str(checkout.folder)]
    assert status == 0, output
    assert states == ["COMPLETED"] * 2
    assert took < 300, output  # with a busy machine; else the plugin asks the accounting for as long as it may
