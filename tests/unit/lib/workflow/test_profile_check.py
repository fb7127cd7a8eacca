"""The judgements of `make doctor PROFILE=...`: a profile against what a cluster has, as its programs print it."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from scripts.lib.base.problems import UserError
from scripts.lib.settings.schema import Site
from scripts.lib.workflow.profile_check import (
    Node,
    Partition,
    account_problem,
    caches_problem,
    check_profile,
    gpu_model_problem,
    key_problems,
    name_problem,
    node_problem,
    parse_nodes,
    parse_partitions,
    partition_problem,
    preemption_problem,
    refusal_problem,
    requeue_problem,
    snakemake_options,
    status_problem,
    time_problem,
)
from scripts.lib.workflow.rehearse import Submission, refusal_of

ROOT = Path(__file__).resolve().parents[4]
DEMO = ROOT / "configs" / "demo.yaml"

# As Slurm 22.05 prints them; site names are made up.
PARTITIONS = """\
PartitionName=gpu AllowGroups=ALL AllowAccounts=ALL Default=YES QoS=N/A DefaultTime=00:30:00 MaxNodes=UNLIMITED \
MaxTime=1-00:00:00 MinNodes=0 Nodes=g[1-2] PreemptMode=OFF State=UP TotalCPUs=24 JobDefaults=(null) DefMemPerCPU=500 \
MaxMemPerNode=UNLIMITED TRES=cpu=24,mem=250G,node=1,billing=24,gres/gpu=4
PartitionName=night AllowGroups=ALL Default=NO DefaultTime=NONE MaxTime=UNLIMITED Nodes=n1 PreemptMode=REQUEUE \
State=DOWN MaxMemPerNode=8000
"""
NODES = """\
NodeName=g1 Arch=x86_64 CPUAlloc=0 CPUEfctv=24 CPUTot=24 CPULoad=2.78 Gres=gpu:rtx3090:4(S:0,2),gpu:a100:2(S:1) \
OS=Linux 6.1 #1 SMP PREEMPT_DYNAMIC @0  RealMemory=256000 AllocMem=0 State=IDLE Partitions=gpu,low  BootTime=N/A
NodeName=g2 CPUTot=64 Gres=gpu:8 RealMemory=64000 State=MIXED+DRAIN Partitions=gpu
NodeName=n1 CPUTot=8 Gres=(null) RealMemory=16000 State=DOWN*+NOT_RESPONDING Partitions=night
"""
GPU, NIGHT = parse_partitions(PARTITIONS)


def training(*words: str, attempt: int = 1) -> Submission:
    return Submission("resnet18", attempt, ("--parsable", *words))


# --- what scontrol prints ---------------------------------------------------------------------------------------------


def test_partitions_are_read_with_their_limits() -> None:
    assert parse_partitions(PARTITIONS) == [
        Partition("gpu", "UP", True, 1440, 30, "OFF", None),
        Partition("night", "DOWN", False, None, None, "REQUEUE", 8000),
    ]


def test_nodes_are_read_with_their_gpus_by_kind() -> None:
    assert parse_nodes(NODES) == [
        Node("g1", True, 24, 256000, {"rtx3090": 4, "a100": 2}, ("gpu", "low")),
        Node("g2", False, 64, 64000, {"": 8}, ("gpu",)),
        Node("n1", False, 8, 16000, {}, ("night",)),
    ]


# --- the words for sbatch ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "gpus", "model", "cores", "memory", "minutes"),
    [
        (["--gpus=1"], 1, None, 0, 0, None),
        (["--gpus=rtx3090:2", "--ntasks-per-gpu=1", "--cpus-per-task=6"], 2, "rtx3090", 12, 0, None),
        (["--gres=gpu:a100:3", "-t", "90", "--mem", "4000"], 3, "a100", 0, 4000, 90),
        (["--ntasks=1", "--cpus-per-task=4", "--mem-per-cpu", "500", "-t", "1-00:00:00"], 0, None, 4, 2000, 1440),
        (["--gpus=2", "--cpus-per-gpu=5", "--ntasks=1"], 2, None, 10, 0, None),
        (["--gpus=1", "--mem", "1", "--gpus=2", "--mem", "7"], 2, None, 0, 7, None),  # sbatch takes the last one
    ],
)
def test_a_submission_is_read_as_sbatch_reads_it(words, gpus, model, cores, memory, minutes) -> None:
    submission = training(*words)
    asked = (submission.gpus, submission.gpu_model, submission.memory_mb, submission.minutes)
    assert asked == (gpus, model, memory, minutes)
    assert submission.cores == cores


def test_people_see_what_a_job_asks_for_and_not_what_every_job_has() -> None:
    words = ["--parsable", "--job-name", "mimflow_01234567-89ab-cdef-0123-456789abcdef", "--output", "logs/a b/%j.log"]
    words += ["--export=ALL", "--comment", "rule_a", "-p", "gpu", "--gpus=1", "-D", "/x", "--wrap=python -m x"]
    assert Submission("a", 1, tuple(words)).shown() == "sbatch --job-name mimflow_... -p gpu --gpus=1"


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (
            "Using profile x\nWorkflowError:\nThe given account a is invalid. Available\naccounts:\nb\n\nmore",
            "accounts: b",
        ),
        ("usage: snakemake [-h]\nsnakemake: error: unrecognized arguments: --foo=1\n", "unrecognized arguments"),
        ("Using profile x\nerror: configs/x.yaml: seeds: two\n", "configs/x.yaml: seeds: two"),
        ("", "said nothing"),
    ],
)
def test_the_reason_is_found_in_what_snakemake_printed(output: str, reason: str) -> None:
    assert reason in refusal_of(output)
    assert "\n" not in refusal_of(output)


# --- judgements -------------------------------------------------------------------------------------------------------


def test_a_misspelt_key_is_named_with_the_right_one() -> None:
    [problem] = key_problems({"slurm-requeue": True, "slurm-requeu": True}, snakemake_options())
    assert problem.fatal and "slurm-requeu:" in problem.what and "did you mean slurm-requeue?" in problem.what


@pytest.mark.parametrize("profile", sorted(path.name for path in (ROOT / "profiles").iterdir()))
def test_every_profile_here_holds_options_of_snakemake_only(profile: str) -> None:
    import yaml

    content = yaml.safe_load((ROOT / "profiles" / profile / "profile.yaml").read_text(encoding="utf-8"))
    assert key_problems(content, snakemake_options()) == []


@pytest.mark.parametrize(
    ("prefix", "good"), [("mimflow", True), ("mimflow_mine", True), ("mine", False), (None, False)]
)
def test_job_names_must_be_those_that_make_cancel_looks_for(prefix: str | None, good: bool) -> None:
    assert (name_problem({"slurm-jobname-prefix": prefix}) is None) is good


def test_without_accounting_squeue_must_be_asked() -> None:
    problem = status_problem({}, accounting=False, job_age=300)
    assert problem and problem.fatal and "slurm-status-command: squeue" in problem.remedy
    assert status_problem({"slurm-status-command": "squeue"}, accounting=False, job_age=300) is None
    assert status_problem({}, accounting=True, job_age=2) is None


def test_squeue_must_remember_a_job_until_it_is_asked_again() -> None:
    forgetful = status_problem({"slurm-status-command": "squeue"}, accounting=True, job_age=10)
    assert forgetful and not forgetful.fatal and "10 s" in forgetful.what


@pytest.mark.parametrize(
    ("profile", "by_default", "good"),
    [({}, False, False), ({}, True, True), ({"slurm-requeue": True}, False, True), ({"retries": 3}, False, True)],
)
def test_a_job_on_a_node_that_fails_must_come_back(profile, by_default, good) -> None:
    assert (requeue_problem(profile, by_default) is None) is good


def test_the_partition_must_exist_and_be_up() -> None:
    assert partition_problem("gpu", [GPU, NIGHT]) is None
    assert partition_problem(None, [GPU, NIGHT]) is None
    missing, down = partition_problem("gpus", [GPU, NIGHT]), partition_problem("night", [GPU, NIGHT])
    assert missing and missing.fatal and "gpu, night" in missing.remedy
    assert down and "night is DOWN" in down.what
    none = partition_problem(None, [NIGHT])
    assert none and "no default" in none.what


def test_the_kind_of_gpu_must_not_go_to_jobs_without_a_gpu() -> None:
    profile = {"default-resources": {"gpu_model": "rtx3090"}}
    problem = gpu_model_problem(profile, Site())
    assert problem and problem.fatal and "set-resources" in problem.remedy
    assert gpu_model_problem(profile, Site(cpu_jobs=False)) is None
    assert gpu_model_problem({"set-resources": {"train_model": profile}}, Site()) is None


def test_where_jobs_are_cancelled_for_others_people_know_what_to_do() -> None:
    assert preemption_problem(GPU) is None and preemption_problem(NIGHT) is None
    problem = preemption_problem(replace(GPU, preemption="CANCEL"))
    assert problem and not problem.fatal and "start again" in problem.remedy


def test_the_account_must_be_one_of_the_users() -> None:
    assert account_problem("Lab", {"lab", "other"}) is None
    assert account_problem("mine", set()) is None  # Slurm does not say
    problem = account_problem("mine", {"lab", "other"})
    assert problem and problem.fatal and "lab, other" in problem.remedy


def test_a_time_limit_above_the_partitions_would_wait_for_ever() -> None:
    assert time_problem(training("-t", "1440"), GPU) is None
    assert time_problem(training(), GPU) is None
    assert time_problem(training("-t", "99999"), NIGHT) is None
    first = time_problem(training("-t", "1441"), GPU)
    assert first and first.fatal
    later = time_problem(training("-t", "1441", attempt=2), GPU)
    assert later and not later.fatal and "for ever" in later.remedy


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--gpus=9"], "9 GPUs, and no node of partition gpu has more than 8"),
        (["--gpus=rtx3090:5"], "5 GPUs"),
        (["--gpus=h100:1"], "no node of partition gpu has a GPU of the kind h100"),
        (["--gpus=1", "--cpus-per-task=65"], "65 cores"),
        (["--gpus=a100:1", "--cpus-per-task=25"], "25 cores, and no node of partition gpu has more than 24"),
        # Each fits some node; no node has both.
        (["--gpus=1", "--cpus-per-task=30", "--mem", "100000"], "100,000 MB of memory"),
    ],
)
def test_a_job_must_fit_one_node_of_its_partition(words: list[str], what: str) -> None:
    problem = node_problem(training(*words), GPU, parse_nodes(NODES))
    assert problem and problem.fatal and what in problem.what


def test_a_job_that_fits_is_fine_and_one_that_fits_no_node_in_service_gets_a_note() -> None:
    nodes = parse_nodes(NODES)
    assert node_problem(training("--gpus=rtx3090:4", "--mem", "256000"), GPU, nodes) is None
    drained = node_problem(training("--gpus=8"), GPU, nodes)
    assert drained and not drained.fatal and "in service" in drained.what


def test_memory_is_judged_by_the_partition_too() -> None:
    problem = node_problem(training("--mem", "9000"), NIGHT, parse_nodes(NODES))
    assert problem and "night allows 8,000" in problem.what


@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        ("sbatch: sbatch: error: n30: --mem is not allowed allocation failure: Unspecified error", "mem_mb: 0"),
        ("sbatch: n30: --cpus-per-task is not allowed", "cpus_per_task: 0 - 1"),
        ("sbatch: error: n30: a job without --gpus=N is not allowed", "cpu_jobs: false"),
        ("sbatch: allocation failure: Invalid account or account/partition combination specified", "slurm_account"),
        ("sbatch: allocation failure: Requested node configuration is not available", "ask for less"),
        ("sbatch: something new", "support"),
    ],
)  # fmt: skip
def test_a_refusal_comes_with_what_to_do(answer: str, remedy: str) -> None:
    problem = refusal_problem(training("--gpus=1"), answer)
    assert problem.fatal and remedy in problem.remedy
    assert "sbatch:" not in problem.what and "Unspecified" not in problem.what


def test_caches_must_lie_outside_a_small_home(tmp_path: Path) -> None:
    site = Site(caches=str(tmp_path))
    assert caches_problem(site, tmp_path / "not" / "yet", home_is_small=True, in_home=False) is None
    assert caches_problem(Site(), None, home_is_small=False, in_home=False) is None
    for caches in (None, tmp_path):
        problem = caches_problem(site, caches, home_is_small=True, in_home=True)
        assert problem and "small quota" in problem.what


# --- the whole, where there is no Slurm to ask ------------------------------------------------------------------------


def write_profile(folder: Path, profile: str, site: str | None = "device: cuda\n") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "profile.yaml").write_text(profile, encoding="utf-8")
    if site is not None:
        (folder / "site.yaml").write_text(site, encoding="utf-8")
    return folder


def test_a_machine_without_slurm_is_told_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = write_profile(tmp_path / "site", "executor: slurm\nslurm-jobname-prefix: mimflow\n")
    [problem] = check_profile(folder, DEMO, home_is_small=False).problems
    assert problem.fatal and "log in to its login node" in str(problem)


def test_a_profile_without_slurm_needs_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check_profile(ROOT / "profiles" / "local", DEMO, home_is_small=False).problems == []


def test_a_module_that_does_not_load_is_found(tmp_path: Path) -> None:
    folder = write_profile(tmp_path / "site", "cores: 1\n", "modules: [no-such-module/1.0]\n")
    [problem] = check_profile(folder, DEMO, home_is_small=False).problems
    assert problem.fatal and "no-such-module/1.0" in problem.what


@pytest.mark.parametrize(
    ("profile", "site", "message"),
    [("jobs: [\n", "", "no valid YAML"), ("cores: 1\n", "devise: cuda\n", "did you mean device?")],
)
def test_a_file_with_a_mistake_is_named(tmp_path: Path, profile: str, site: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("?", "[?]")):
        check_profile(write_profile(tmp_path / "site", profile, site), DEMO, home_is_small=False)


def test_a_folder_that_is_no_profile_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no profile\.yaml"):
        check_profile(tmp_path, DEMO, home_is_small=False)


# --- the cache of pip, before there is any Python ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "set_before", "cache"),
    [
        ("caches: ~/run/cache  # large", "", "{home}/run/cache/pip"),
        ("caches: '/big disk/cache'", "", "/big disk/cache/pip"),
        ("caches: /big/cache", "/mine", "/mine"),
        ("caches: $WORK/cache", "", ""),
        ("# caches: ~/scratch/cache", "", ""),
    ],
)
def test_setup_puts_pips_cache_where_the_site_says(tmp_path: Path, line: str, set_before: str, cache: str) -> None:
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "setup.sh").write_bytes((ROOT / "envs" / "setup.sh").read_bytes())
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s" "${PIP_CACHE_DIR:-}"\n')
    python.chmod(0o755)
    (tmp_path / "envs" / "find_python.sh").write_text(f"echo {python}\n")
    write_profile(tmp_path / "site", "", f"device: cuda\n{line}\n")
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/home/me", "PROFILE": "site"}
    environment |= {"PIP_CACHE_DIR": set_before} if set_before else {}
    words = ["sh", str(tmp_path / "envs" / "setup.sh")]
    result = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == cache.format(home="/home/me")
