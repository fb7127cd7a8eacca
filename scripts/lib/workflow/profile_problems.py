"""What does not fit between a profile and its cluster: judgements of what Slurm tells of partitions and nodes."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.lib.base.console import one_line
from scripts.lib.base.problems import Problem
from scripts.lib.cluster import slurm
from scripts.lib.settings.schema import Site
from scripts.lib.workflow.rehearse import Submission

#: Words in a node's state with which it takes no job.
OUT_OF_SERVICE = re.compile(r"DOWN|DRAIN|FAIL|NOT_RESPONDING|MAINT|POWERED_DOWN|UNKNOWN|\*")
#: The plugin asks squeue again after this many seconds at the latest: what Slurm has forgotten by then looks lost.
LONGEST_PAUSE = 180
#: What sbatch says when it refuses, and what to do.
REFUSALS = (
    (r"(--mem|memory)\S* .*not allowed|not allowed.*--mem", "set `mem_mb: 0` in default-resources of profile.yaml"),
    (r"--cpus-per-task .*not allowed|not allowed.*--cpus", "set `cpus_per_task: 0 - 1` in default-resources"),
    (r"without --gpus|must (request|use).*gpu", "set `cpu_jobs: false` in site.yaml: then every job takes a GPU"),
    (r"[Ii]nvalid partition", "`sinfo -s` lists the partitions: set `slurm_partition` to one of them"),
    (r"[Ii]nvalid account", "`sacctmgr show assoc user=$USER` lists your accounts: set `slurm_account` to one of them"),
    (r"[Ii]nvalid qos", "`sacctmgr show assoc user=$USER format=account,qos` lists what you may use: set `qos`"),
    (r"[Tt]ime limit|Requested time", "lower `runtime` in profile.yaml"),
    (r"node configuration is not available|generic resource", "no node of the partition has that: ask for less"),
    (r"QOS\w*Limit|Assoc\w*Limit|job violates accounting", "ask for less, or ask who manages the account"),
)  # fmt: skip


@dataclass(frozen=True)
class Partition:
    """A partition as scontrol tells of it; times in minutes, None for no limit."""

    name: str
    state: str
    is_default: bool
    longest: float | None
    usual: float | None
    preemption: str
    memory_mb: int | None


@dataclass(frozen=True)
class Node:
    """A node as scontrol tells of it; *gpus* are counts by kind, the kind "" where Slurm knows none."""

    name: str
    in_service: bool
    cores: int
    memory_mb: int
    gpus: Mapping[str, int]
    partitions: tuple[str, ...]


def key_problems(profile: Mapping[str, Any], known: Collection[str]) -> list[Problem]:
    """Judge the keys of profile.yaml by the options that Snakemake has."""
    problems = []
    for key in profile:
        if key not in known:
            close = difflib.get_close_matches(str(key), list(known), n=1)
            hint = f", did you mean {close[0]}?" if close else ""
            remedy = "remove it or correct it; `snakemake --help` lists the options, site.yaml holds what is no option"
            problems.append(Problem(f"profile.yaml: {key}: Snakemake has no such option{hint}", remedy))
    return problems


def name_problem(profile: Mapping[str, Any]) -> Problem | None:
    """Judge the names of the jobs, by which this project's are found."""
    prefix = str(profile.get("slurm-jobname-prefix") or "")
    if prefix.startswith(slurm.JOB_NAME_PREFIX):
        return None
    what = (
        "profile.yaml: slurm-jobname-prefix: by this name `make cancel` and the next start find the jobs of this folder"
    )
    return Problem(what, f"set `slurm-jobname-prefix: {slurm.JOB_NAME_PREFIX}`")


def status_problem(profile: Mapping[str, Any], accounting: bool, job_age: float | None) -> Problem | None:
    """Judge how the end of a job is seen.

    Parameters
    ----------
    accounting : whether sacct knows the jobs.
    job_age : seconds for which squeue shows a job that has ended (MinJobAge); None where nobody says.
    """
    command = profile.get("slurm-status-command")
    if command != "squeue":
        if accounting:
            return None
        what = "this cluster has no accounting that sacct can ask, so that no job would ever be seen to end"
        return Problem(what, "set `slurm-status-command: squeue` in profile.yaml")
    first = profile.get("slurm-init-seconds-before-status-checks") or 40
    if job_age is not None and job_age < max(LONGEST_PAUSE, 3 * first):
        what = f"squeue forgets a job {job_age:.0f} s after its end (MinJobAge), and may not be asked before"
        remedy = "remove `slurm-status-command: squeue`" if accounting else "ask for MinJobAge=300 in slurm.conf"
        return Problem(what, remedy, fatal=False)
    return None


def requeue_problem(profile: Mapping[str, Any], by_default: bool) -> Problem | None:
    """Judge whether Slurm queues a job again whose node failed."""
    if profile.get("slurm-requeue") or by_default or (profile.get("retries") or profile.get("restart-times")):
        return None
    what = "a job whose node fails is lost: the cluster does not queue jobs again by itself (JobRequeue=0)"
    return Problem(what, "set `slurm-requeue: true` or `retries: 3` in profile.yaml", fatal=False)


def partition_problem(name: str | None, partitions: Sequence[Partition]) -> Problem | None:
    """Judge the partition that jobs go to; None: the cluster's default."""
    names = ", ".join(partition.name for partition in partitions) or "none that you may see"
    if name is None:
        if any(partition.is_default for partition in partitions):
            return None
        remedy = f"set `slurm_partition` in default-resources of profile.yaml to one of: {names}"
        return Problem("profile.yaml names no partition, and the cluster has no default one", remedy)
    found = next((partition for partition in partitions if partition.name == name), None)
    if found is None:
        return Problem(f"there is no partition {name}", f"set `slurm_partition` in profile.yaml to one of: {names}")
    if found.state != "UP":
        remedy = "jobs wait until it is up: choose another one, or ask when it opens"
        return Problem(f"partition {name} is {found.state}", remedy)
    return None


def gpu_model_problem(profile: Mapping[str, Any], site: Site) -> Problem | None:
    """Judge where the kind of GPU stands: the plugin (2.6.0) waits for ever on a job that has it and no GPU."""
    defaults = profile.get("default-resources")
    if not site.cpu_jobs or not isinstance(defaults, dict) or "gpu_model" not in defaults:
        return None
    what = "profile.yaml: gpu_model in default-resources goes to the data job too, which has no GPU, and is never sent"
    return Problem(what, "move it to set-resources, below train_model")


def preemption_problem(partition: Partition) -> Problem | None:
    """Judge what happens to a job that another one pushes aside."""
    if "CANCEL" not in partition.preemption.upper().split(","):
        return None
    # The plugin (2.6.0) reports no end of a job in the state PREEMPTED: it expects Slurm to start it again.
    what = f"partition {partition.name} cancels jobs for others (PreemptMode=CANCEL), and snakemake waits on"
    remedy = "if `make jobs` shows none of them any more: Ctrl-C and start again, it goes on where it was"
    return Problem(what, remedy, fatal=False)


def account_problem(account: str | None, allowed: Collection[str]) -> Problem | None:
    """Judge the account; *allowed* is empty where Slurm does not say."""
    if not account or not allowed or account.lower() in {name.lower() for name in allowed}:
        return None
    what = f"you have no account {account}"
    return Problem(what, f"set `slurm_account` in profile.yaml to one of: {', '.join(sorted(allowed))}")


def time_problem(submission: Submission, partition: Partition) -> Problem | None:
    """Judge the time limit: Slurm takes a job that asks for too much as a rule, and lets it wait for ever."""
    if submission.minutes is None or partition.longest is None or submission.minutes <= partition.longest:
        return None
    limit = f"partition {partition.name} allows {whole_minutes(partition.longest)}"
    what = (
        f"attempt {submission.attempt} of {job_name(submission)} asks for {whole_minutes(submission.minutes)}, {limit}"
    )
    remedy = "lower `runtime` in profile.yaml; a job's runtimes add up along its chain of steps"
    if submission.attempt > 1:
        remedy = "such a job would wait for ever: cap `runtime` by min(), with room for the other steps of the job"
    return Problem(what, remedy, fatal=submission.attempt == 1)


def node_problem(submission: Submission, partition: Partition, nodes: Sequence[Node]) -> Problem | None:
    """Judge whether a node of the partition has what a job asks for, even when it is empty."""
    own = [node for node in nodes if partition.name in node.partitions]
    job, model, place = job_name(submission), submission.gpu_model, f"partition {partition.name}"
    kinds = sorted({kind for node in own for kind in node.gpus if kind})
    with_kind = [node for node in own if not model or model in node.gpus]
    if model and not with_kind:
        remedy = f"set `gpu_model` in profile.yaml to one of: {', '.join(kinds)}" if kinds else "remove `gpu_model`"
        return Problem(f"no node of {place} has a GPU of the kind {model}", remedy)

    def gpus_of(node: Node) -> int:
        return node.gpus[model] if model else sum(node.gpus.values())

    limits = (
        ("GPUs", submission.gpus, gpus_of, "choose a partition with GPUs (`sinfo -o '%P %G'`), or lower `gpus`"),
        ("cores", submission.cores, lambda node: node.cores, "lower `cpus_per_gpu` in profile.yaml, or `threads`"),
        ("MB of memory", submission.memory_mb, lambda node: node.memory_mb, "lower `mem_mb` in profile.yaml"),
    )
    fitting = with_kind
    for what, wanted, has, remedy in limits:
        largest = max(map(has, fitting), default=0)
        if own and wanted > largest:
            has_less = f"and no node of {place} has more than {largest:,}"
            return Problem(f"{job} asks for {wanted:,} {what}, {has_less}", remedy)
        fitting = [node for node in fitting if has(node) >= wanted]
    if partition.memory_mb is not None and submission.memory_mb > partition.memory_mb:
        what = f"{job} asks for {submission.memory_mb:,} MB of memory, and {place} allows {partition.memory_mb:,}"
        return Problem(what, "lower `mem_mb` in profile.yaml")
    if own and not any(node.in_service for node in fitting):
        what = f"no node of {place} that fits {job} is in service now"
        return Problem(what, "jobs wait until one is: `sinfo -R` says why, or choose another partition", fatal=False)
    return None


def refusal_problem(submission: Submission, said: str) -> Problem:
    """Say why sbatch refuses a job and what to do, by the words of Slurm or of the site's own rules."""
    said = one_line(said).removeprefix("sbatch: ").removeprefix("sbatch: ").removeprefix("error: ")
    said = said.replace(" allocation failure: Unspecified error", "").removeprefix("allocation failure: ")
    remedy = next((text for words, text in REFUSALS if re.search(words, said)), "ask the cluster's support about it")
    what = f"Slurm would refuse attempt {submission.attempt} of {job_name(submission)}: {said}"
    return Problem(what, remedy, fatal=submission.attempt == 1)


def caches_problem(site: Site, caches: Path | None, home_is_small: bool, in_home: bool) -> Problem | None:
    """Judge where pip and other libraries keep their caches.

    Parameters
    ----------
    caches : the site's folder for them, None where it names none.
    in_home : whether that folder lies on home's own file system.
    """
    if caches is not None and not os.access(next(p for p in (caches, *caches.parents) if p.exists()), os.W_OK):
        return Problem(f"site.yaml: caches: {site.caches} cannot be written to", "name another folder")
    if home_is_small and (caches is None or in_home):
        what = "home has a small quota, and caches of pip and other libraries go there"
        return Problem(what, "set `caches` in site.yaml to a folder on the large file system", fatal=False)
    return None


def job_name(submission: Submission) -> str:
    """Return what a job is for, as a sentence has it."""
    return f"the training of {submission.experiment}" if submission.experiment else "the data job"


def whole_minutes(minutes: float) -> str:
    return f"{minutes:.0f} min"


def parse_partitions(text: str) -> list[Partition]:
    """Read ``scontrol --oneliner show partition``."""
    return [
        Partition(
            name=row["PartitionName"],
            state=row.get("State", "UP"),
            is_default=row.get("Default") == "YES",
            longest=_minutes(row.get("MaxTime", "")),
            usual=_minutes(row.get("DefaultTime", "")),
            preemption=row.get("PreemptMode", "OFF"),
            memory_mb=leading_number(row.get("MaxMemPerNode", "")),
        )
        for row in _rows(text)
        if "PartitionName" in row
    ]


def parse_nodes(text: str) -> list[Node]:
    """Read ``scontrol --oneliner show node``."""
    nodes = []
    for row in _rows(text):
        if "NodeName" not in row:
            continue
        gpus: dict[str, int] = {}
        # Commas stand inside brackets too: gpu:rtx3090:8(S:0-1),gpu:a100:2(S:0,2)
        for entry in re.findall(r"(?:^|,)(gpu(?::[^(),]+)?)", row.get("Gres", "")):
            kind = re.match(r"gpu:([A-Za-z_][^:]*)", entry)
            name = kind[1] if kind else ""
            gpus[name] = gpus.get(name, 0) + slurm.count_gpus(entry)
        nodes.append(
            Node(
                name=row["NodeName"],
                in_service=not OUT_OF_SERVICE.search(row.get("State", "UNKNOWN")),
                cores=leading_number(row.get("CPUEfctv", "")) or leading_number(row.get("CPUTot", "")) or 0,
                memory_mb=leading_number(row.get("RealMemory", "")) or 0,
                gpus=gpus,
                partitions=tuple(filter(None, row.get("Partitions", "").split(","))),
            )
        )
    return nodes


def _rows(text: str) -> list[dict[str, str]]:
    return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in text.splitlines() if line.strip()]


def leading_number(text: str) -> int | None:
    found = re.match(r"\d+", text)
    return int(found[0]) if found else None


def _minutes(text: str) -> float | None:
    seconds = slurm.parse_duration(text)
    return None if seconds is None else seconds / 60
