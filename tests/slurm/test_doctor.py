"""`make doctor PROFILE=...` on the test cluster: nothing is submitted, and what would go wrong is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cluster import Cluster

from scripts.lib.base import strict_yaml
from scripts.lib.base.problems import Problem
from scripts.lib.settings.load import load_settings, read_file
from scripts.lib.workflow.profile_check import check_profile
from scripts.lib.workflow.rehearse import ROOT, SUSPECTS, Submission, rehearse

DEMO = ROOT / "configs" / "demo.yaml"


@pytest.fixture(autouse=True)
def no_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIMFLOW_SITE", raising=False)


def edited(profile: str, folder: Path, *changes: tuple[str, str], site: str = "") -> Path:
    """Return a copy of a profile with each first text replaced by the second."""
    target = folder / "site"
    target.mkdir()
    for name in ("profile.yaml", "site.yaml"):
        text = (ROOT / "profiles" / profile / name).read_text(encoding="utf-8")
        for old, new in changes if name == "profile.yaml" else []:
            assert old in text, f"{profile} has no line {old!r} any more"
            text = text.replace(old, new, 1)
        (target / name).write_text(text + (site if name == "site.yaml" else ""), encoding="utf-8")
    return target


def fatal(folder: Path, config: Path = DEMO) -> Problem:
    """Return the first fatal problem of a profile."""
    return next(problem for problem in check_profile(folder, config, home_is_small=False).problems if problem.fatal)


def training(submissions: list[Submission]) -> Submission:
    """The job that trains, which is neither the data's nor that of the label suspects."""
    return next(submission for submission in submissions if submission.experiment not in ("", SUSPECTS))


def jobs_ever(cluster: Cluster) -> int:
    return len(cluster.jobs())


def test_the_generic_profile_fits_this_cluster_and_nothing_is_submitted(cluster: Cluster) -> None:
    before, written = jobs_ever(cluster), sorted(path.name for path in ROOT.iterdir())
    command = [sys.executable, "-m", "scripts.doctor", "--profile", "profiles/slurm"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    # The site says device: cuda, and the machine that runs these tests may have an environment without it.
    problems = [line for line in result.stdout.splitlines() if line.startswith("problem: ")]
    assert all("is a CPU build: make setup ENV=cuda" in line for line in problems), result.stdout + result.stderr
    assert (result.returncode != 0) == bool(problems)
    assert "4 x rtx3090" in result.stdout and "--gpus=1" in result.stdout
    assert jobs_ever(cluster) == before
    assert sorted(path.name for path in ROOT.iterdir()) == written


def test_each_attempt_of_a_job_is_looked_at(cluster: Cluster, tmp_path: Path) -> None:
    """The second attempt's limit is twice the first's: Slurm would take the job, and let it wait for ever."""
    folder = edited("slurm", tmp_path, ("runtime: 660", "runtime: attempt * 1300"))
    [note] = check_profile(folder, DEMO, home_is_small=False).problems
    assert not note.fatal and "attempt 2" in note.what and "for ever" in note.remedy
    with_cap = tmp_path / "capped"
    with_cap.mkdir()
    folder = edited("slurm", with_cap, ("runtime: 660", "runtime: min(attempt * 720, 1200)"))
    assert check_profile(folder, DEMO, home_is_small=False).problems == []


def test_the_strict_profile_asks_for_a_card_and_nothing_else(cluster: Cluster, tmp_path: Path) -> None:
    folder = edited("n30", tmp_path, ("slurm_partition: gpu", "slurm_partition: n30"))
    assert [str(problem) for problem in check_profile(folder, DEMO, home_is_small=False).problems] == []
    submissions = rehearse(folder, load_settings(read_file(DEMO), [DEMO]))
    assert {submission.experiment for submission in submissions} == {"", SUSPECTS, "mobilenet-v2"}
    for submission in submissions:
        assert submission.gpus == 1
        assert not any(word.startswith(("--mem", "--cpus", "-t", "--time")) for word in submission.words)


@pytest.mark.parametrize(
    ("changes", "what", "remedy"),
    [
        ([("# slurm_partition: gpu", "slurm_partition: gpus")], "there is no partition gpus", "gpu, cpu, n30, low"),
        ([("# slurm_partition: gpu", "slurm_partition: cpu")], "1 GPU, and no node of partition cpu", "with GPUs"),
        ([("# gpu_model: rtx3090", "gpu_model: a100")], "GPU of the kind a100", "rtx3090"),
        ([("# slurm_account: my_lab", "slurm_account: theirs")], "you have no account theirs", "lab"),
        ([("cpus_per_gpu: 8", "cpus_per_gpu: 200")], "200 cores", "cpus_per_gpu"),
        ([("mem_mb: 32000", "mem_mb: 300000")], "300,000 MB", "mem_mb"),
        (
            [("runtime: 660", "runtime: attempt * 2000")],
            "attempt 1 of the training of mobilenet-v2 asks for 2100 min",
            "lower",
        ),
        ([("runtime: 660", "runtime: attempts * 720")], "does not take this profile", "correct"),
        ([("mem_mb: 4000", "mem_mb: 4000\n  gpu_model: rtx3090")], "gpu_model in default-resources", "set-resources"),
        ([("mem_mb: 4000", "mem_mb: 4000\n  slurm_extra: --time=1")], "does not take this profile", "correct"),
        ([("jobs: 8", "job: 8")], "Snakemake has no such option", "option"),
        ([("prefix: mimflow", "prefix: mine")], "slurm-jobname-prefix", "mimflow"),
    ],
)
def test_what_would_go_wrong_is_said_in_one_line(
    cluster: Cluster, tmp_path: Path, changes: list[tuple[str, str]], what: str, remedy: str
) -> None:
    problem = fatal(edited("slurm", tmp_path, *changes))
    assert what in problem.what and remedy in problem.remedy
    assert "\n" not in str(problem)


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (("mem_mb: 0", "mem_mb: 1000"), "mem_mb: 0"),
        (("cpus_per_task: 0 - 1", "cpus_per_task: 2"), "cpus_per_task: 0 - 1"),
    ],
)
def test_the_rules_of_the_site_itself_are_asked(
    cluster: Cluster, tmp_path: Path, change: tuple[str, str], remedy: str
) -> None:
    folder = edited("n30", tmp_path, ("slurm_partition: gpu", "slurm_partition: n30"), change)
    problems = check_profile(folder, DEMO, home_is_small=False).problems
    assert problems and all(problem.fatal and remedy in problem.remedy for problem in problems)


def test_a_partition_that_refuses_jobs_without_a_card_is_told_from_the_data_job(
    cluster: Cluster, tmp_path: Path
) -> None:
    folder = edited("n30", tmp_path, ("slurm_partition: gpu", "slurm_partition: n30"))
    (folder / "site.yaml").write_text("device: cuda\n", encoding="utf-8")
    problem = fatal(folder)
    assert "the data job" in problem.what and "cpu_jobs: false" in problem.remedy


def test_the_gpus_of_one_run_are_asked_for_on_one_node_with_cores_for_each(cluster: Cluster, tmp_path: Path) -> None:
    folder = edited("slurm", tmp_path)
    config = read_file(DEMO)
    config["experiments"]["mobilenet-v2"] |= {"device": "cuda", "gpus": 2, "batch_size": 16}
    run = training(rehearse(folder, load_settings(config, [DEMO])))
    assert {"--nodes=1", "--gpus=2", "--cpus-per-gpu=8"} <= set(run.words)
    assert (run.gpus, run.cores) == (2, 16)


def test_the_training_of_a_run_on_two_nodes_is_judged_as_it_would_be_submitted(
    cluster: Cluster, tmp_path: Path
) -> None:
    folder = edited("slurm", tmp_path, ("# slurm_partition: gpu", "slurm_partition: many"))
    config = read_file(DEMO)
    config["experiments"]["mobilenet-v2"] |= {"device": "cuda", "gpus": 2, "nodes": 2, "batch_size": 16}
    file = tmp_path / "two.yaml"
    file.write_text(strict_yaml.dump(config), encoding="utf-8")
    run = training(rehearse(folder, load_settings(config, [DEMO])))
    assert {"--nodes=2", "--ntasks=2", "--gres=gpu:2", "--cpus-per-gpu=8"} <= set(run.words)
    assert not [word for word in run.words if word.startswith(("--gpus", "--ntasks-per-gpu"))]
    assert (run.gpus, run.cores) == (2, 16)
    config["experiments"]["mobilenet-v2"]["gpus"] = 3
    file.write_text(strict_yaml.dump(config), encoding="utf-8")
    assert "asks for 3 GPUs, and no node of partition many has more than 2" in fatal(folder, file).what


@pytest.mark.parametrize("gpus", [1, 4])
def test_slurm_takes_the_script_for_one_allocation(cluster: Cluster, gpus: int) -> None:
    words = ["--test-only", "--partition=gpu", "--account=lab", f"--gpus={gpus}", "profiles/slurm/run.sbatch"]
    result = subprocess.run(["sbatch", *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def test_a_partition_for_the_data_job_alone(cluster: Cluster, tmp_path: Path) -> None:
    folder = edited(
        "slurm",
        tmp_path,
        ("# slurm_partition: gpu", "slurm_partition: gpu"),
        *[("# slurm_partition: cpu", "slurm_partition: cpu")] * 6,
    )
    assert [str(problem) for problem in check_profile(folder, DEMO, home_is_small=False).problems] == []
    submissions = rehearse(folder, load_settings(read_file(DEMO), [DEMO]))
    asked = {(submission.experiment, submission.option("-p")) for submission in submissions}
    assert asked == {("", "cpu"), (SUSPECTS, "gpu"), ("mobilenet-v2", "gpu")}
