"""Does a profile fit the cluster that it stands on? Asked of Slurm before anything is submitted, for `make doctor`."""

from __future__ import annotations

import difflib
import functools
import getpass
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.lib.base.console import one_line
from scripts.lib.base.environment import expand
from scripts.lib.base.problems import Problem, UserError
from scripts.lib.base.units import plural
from scripts.lib.cluster import slurm
from scripts.lib.settings.load import load_settings, load_site, read_file
from scripts.lib.settings.schema import Settings, Site
from scripts.lib.settings.site import module_prefix
from scripts.lib.workflow.rehearse import SUSPECTS, Submission, gpu_kind, rehearse
from scripts.lib.workflow.start import load_snakemake

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


@dataclass
class Findings:
    """What was found: facts for people to read, problems for them to mend."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def fail(self, what: str, remedy: str) -> None:
        """Add what would make a run fail."""
        self.problems.append(Problem(one_line(what), remedy))

    def add(self, *problems: Problem | None) -> None:
        """Add the problems that there are."""
        self.problems += filter(None, problems)


def check_profile(folder: Path, config: Path, home_is_small: bool) -> Findings:
    """Return what is wrong with a profile on this cluster, and what its jobs would be submitted with.

    Parameters
    ----------
    folder : of the profile, with profile.yaml (or config.yaml) and site.yaml.
    config : the configuration whose experiments are looked at.
    home_is_small : whether the user's home has a quota too small for an environment.

    Raises
    ------
    UserError : a file that cannot be read, or does not parse.
    """
    findings = Findings()
    file = next((folder / name for name in ("profile.yaml", "config.yaml") if (folder / name).is_file()), None)
    if file is None:
        raise UserError(f"{folder}: there is no profile.yaml: PROFILE is a folder such as profiles/slurm")
    profile = read_file(file, empty={})
    executor = str(profile.get("executor", "local"))
    jobs = profile.get("jobs", "any number of")
    findings.facts.append(
        ("profile", f"{folder}: executor {executor}, up to {plural(jobs, 'job') if isinstance(jobs, int) else jobs}")
    )
    findings.add(*key_problems(profile, snakemake_options()))
    if executor == "slurm":
        check_path(sys.executable)
    if not (folder / "site.yaml").is_file():
        if executor == "slurm":
            findings.fail(f"{folder}: there is no site.yaml", "make one; docs/slurm.md shows the least")
        return findings
    site = load_site(folder)
    keys = [f"{key} {value}" for key, value in site.model_dump(exclude_defaults=True).items()]
    findings.facts.append(("site", ", ".join(keys) or "nothing is set"))
    _check_site(findings, site, home_is_small)
    if executor == "slurm" and not any(problem.fatal for problem in findings.problems):
        _check_cluster(findings, folder, profile, site, load_settings(read_file(config), [config]))
    return findings


@functools.cache
def snakemake_options() -> frozenset[str]:
    """Return every option that a profile may hold, those of the plugins too.

    Raises
    ------
    UserError : Snakemake cannot be loaded here.
    """
    options = (option for action in load_snakemake().get_argument_parser()._actions for option in action.option_strings)
    return frozenset(option.removeprefix("--") for option in options if option.startswith("--"))


def _check_site(findings: Findings, site: Site, home_is_small: bool) -> None:
    caches = None
    if site.caches:
        try:
            caches = Path(expand(site.caches, os.environ)).absolute()
        except UserError as error:
            findings.fail(str(error), "name a folder that every node has")
            return
    home = Path(os.path.expanduser("~"))
    in_home = caches is not None and home.exists() and _existing(caches).stat().st_dev == home.stat().st_dev
    findings.add(caches_problem(site, caches, home_is_small, in_home))
    if site.modules:
        result = subprocess.run(["bash", "-c", f"{module_prefix(site)} true"], capture_output=True, text=True)
        if result.returncode:
            reason = result.stderr or f"exit status {result.returncode}"
            findings.fail(f"site.yaml: modules: {reason}", "`module avail` lists the names; remove what is not needed")


def _check_cluster(
    findings: Findings, folder: Path, profile: Mapping[str, Any], site: Site, settings: Settings
) -> None:
    findings.add(name_problem(profile))
    try:
        slurm.ask("squeue", "--noheader", f"--user={os.getuid()}")
        slurm.ask("sbatch", "--version")
        partitions = parse_partitions(slurm.ask("scontrol", "--oneliner", "show", "partition"))
        nodes = parse_nodes(slurm.ask("scontrol", "--oneliner", "show", "node"))
        settings_of_slurm = slurm.ask("scontrol", "show", "config")
    except UserError as error:
        findings.fail(error.what, error.remedy)
        return
    accounting = slurm.has_accounting()
    job_age = leading_number(slurm.parse_setting(settings_of_slurm, "MinJobAge") or "")
    requeue = slurm.parse_setting(settings_of_slurm, "JobRequeue") == "1"
    findings.facts.append(("accounting", "sacct answers" if accounting else "none"))
    findings.add(status_problem(profile, accounting, job_age), requeue_problem(profile, requeue))

    defaults = profile.get("default-resources")
    defaults = defaults if isinstance(defaults, dict) else {}
    # Before the rehearsal, since what Snakemake or sbatch says of it is less clear.
    wrong = [gpu_model_problem(profile, site), partition_problem(defaults.get("slurm_partition"), partitions)]
    wrong.append(account_problem(defaults.get("slurm_account"), allowed_accounts()))
    findings.add(*wrong)
    if any(wrong):
        return
    try:
        submissions = rehearse(folder, settings)
    except UserError as error:
        findings.fail(f"snakemake does not take this profile: {error}", "correct profile.yaml as it says")
        return
    _check_submissions(findings, submissions, partitions, nodes)


def _check_submissions(
    findings: Findings, submissions: Sequence[Submission], partitions: Sequence[Partition], nodes: Sequence[Node]
) -> None:
    used: dict[str, Partition] = {}
    tested: dict[str, Problem | None] = {}
    problems: list[Problem | None] = []
    faulty: set[str] = set()
    for submission in submissions:
        if submission.experiment in faulty:
            continue  # its next attempt has the same fault, or asks for yet more
        # sbatch takes several names with commas between; Slurm then chooses one.
        names = (submission.option("-p", "--partition") or "").split(",")
        known = {partition.name: partition for partition in partitions}
        defaults = [partition.name for partition in partitions if partition.is_default]
        chosen = [known[name] for name in known if name in (defaults if names == [""] else names)]
        used |= {partition.name: partition for partition in chosen}
        wrong = [partition_problem(name, partitions) for name in names if name and name not in known]
        if len(chosen) == 1:
            wrong += [partition_problem(chosen[0].name, partitions), node_problem(submission, chosen[0], nodes)]
            wrong.append(time_problem(submission, chosen[0]))
        if not any(wrong):
            shown = submission.shown()
            if shown not in tested:
                tested[shown] = _test(submission)
            wrong = [tested[shown]]
        problems += wrong
        faulty |= {submission.experiment} if any(wrong) else set()
    problems += map(preemption_problem, used.values())
    findings.facts += [("partition", _describe(partition, nodes)) for partition in used.values()]
    findings.add(*{problem.what: problem for problem in problems if problem}.values())
    for submission in (submission for submission in submissions if submission.attempt == 1):
        findings.facts.append((submission.experiment or "data job", submission.shown()))
        limits = [other.minutes for other in submissions if other.experiment == submission.experiment]
        if len(set(limits)) > 1:
            findings.facts.append(("  attempts", ", ".join(f"-t {minutes:.0f}" for minutes in limits if minutes)))


def _test(submission: Submission) -> Problem | None:
    """Have sbatch go through a submission without doing it: the site's own rules are asked too."""
    words = [word for word in submission.words if not word.startswith("--wrap")]
    try:
        slurm.ask("sbatch", "--test-only", *words, "--wrap=true")
    except slurm.SlurmSilent as error:
        return Problem(str(error), "then ask `make doctor` again")
    except UserError as error:
        return refusal_problem(submission, str(error))
    return None


def _describe(partition: Partition, nodes: Sequence[Node]) -> str:
    nodes = [node for node in nodes if partition.name in node.partitions]
    kinds: Counter[str] = Counter()
    for node in nodes:
        kinds.update(node.gpus)
    gpus = ", ".join(f"{count} x {kind or 'GPU'}" for kind, count in sorted(kinds.items())) or "no GPUs"
    longest = "no time limit" if partition.longest is None else f"at most {partition.longest:.0f} min a job"
    usual = f" ({partition.usual:.0f} min without -t)" if partition.usual is not None else ""
    serving = sum(node.in_service for node in nodes)
    preempted = "" if partition.preemption in ("OFF", "") else f", jobs may be preempted ({partition.preemption})"
    return f"{partition.name}: {serving} of {len(nodes)} nodes in service, {gpus}, {longest}{usual}{preempted}"


def allowed_accounts() -> set[str]:
    """Return the accounts that this user may use; empty where Slurm does not say."""
    try:
        options = ["--noheader", "--parsable2", "show", "assoc", f"user={getpass.getuser()}", "format=account"]
        return set(slurm.ask("sacctmgr", *options).split())
    except (UserError, KeyError):  # KeyError: an uid without a name
        return set()


def _existing(path: Path) -> Path:
    """Return *path*, or the nearest folder above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def check_path(python: str) -> None:
    """Make sure that Snakemake can start jobs on other machines: it writes its Python's path there without quotes.

    Raises
    ------
    UserError : a shell would take the path apart.
    """
    if shlex.quote(python) != python:
        what = "Slurm jobs cannot start from a path with spaces or signs of the shell (Snakemake does not quote it)"
        raise UserError(f"{python}: {what}", "move the project to another folder, and run `make setup` there")


# --- judgements of what Slurm tells -----------------------------------------------------------------------------------


def key_problems(profile: Mapping[str, Any], known: Collection[str]) -> list[Problem]:
    """Judge the keys of profile.yaml by the options that Snakemake has."""
    problems = []
    remedy = "remove it or correct it; `snakemake --help` lists the options, site.yaml holds what is no option"
    for key in (key for key in profile if key not in known):
        close = difflib.get_close_matches(str(key), list(known), n=1)
        hint = f", did you mean {close[0]}?" if close else ""
        problems.append(Problem(f"profile.yaml: {key}: Snakemake has no such option{hint}", remedy))
    return problems


def name_problem(profile: Mapping[str, Any]) -> Problem | None:
    """Judge the names of the jobs, by which this project's are found."""
    if str(profile.get("slurm-jobname-prefix") or "").startswith(slurm.JOB_NAME_PREFIX):
        return None
    what = "by this name `make cancel` and the next start find the jobs of this folder"
    remedy = f"set `slurm-jobname-prefix: {slurm.JOB_NAME_PREFIX}`"
    return Problem(f"profile.yaml: slurm-jobname-prefix: {what}", remedy)


def status_problem(profile: Mapping[str, Any], accounting: bool, job_age: float | None) -> Problem | None:
    """Judge how the end of a job is seen.

    Parameters
    ----------
    accounting : whether sacct knows the jobs.
    job_age : seconds for which squeue shows a job that has ended (MinJobAge); None where nobody says.
    """
    if profile.get("slurm-status-command") != "squeue":
        what = "this cluster has no accounting that sacct can ask, so that no job would ever be seen to end"
        return None if accounting else Problem(what, "set `slurm-status-command: squeue` in profile.yaml")
    first = profile.get("slurm-init-seconds-before-status-checks") or 40
    if job_age is None or job_age >= max(LONGEST_PAUSE, 3 * first):
        return None
    what = f"squeue forgets a job {job_age:.0f} s after its end (MinJobAge), and may not be asked before"
    remedy = "remove `slurm-status-command: squeue`" if accounting else "ask for MinJobAge=300 in slurm.conf"
    return Problem(what, remedy, fatal=False)


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
        remedy = f"set `slurm_partition` in default-resources of profile.yaml to one of: {names}"
        problem = Problem("profile.yaml names no partition, and the cluster has no default one", remedy)
        return None if any(partition.is_default for partition in partitions) else problem
    state = next((partition.state for partition in partitions if partition.name == name), None)
    if state is None:
        return Problem(f"there is no partition {name}", f"set `slurm_partition` in profile.yaml to one of: {names}")
    remedy = "jobs wait until it is up: choose another one, or ask when it opens"
    return Problem(f"partition {name} is {state}", remedy) if state != "UP" else None


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
    return Problem(
        f"you have no account {account}", f"set `slurm_account` in profile.yaml to one of: {', '.join(sorted(allowed))}"
    )


def time_problem(submission: Submission, partition: Partition) -> Problem | None:
    """Judge the time limit: Slurm takes a job that asks for too much as a rule, and lets it wait for ever."""
    if submission.minutes is None or partition.longest is None or submission.minutes <= partition.longest:
        return None
    limit = f"partition {partition.name} allows {partition.longest:.0f} min"
    asked = f"{job_name(submission)} asks for {submission.minutes:.0f} min"
    remedy = "lower `runtime` in profile.yaml; a job's runtimes add up along its chain of steps"
    if submission.attempt > 1:
        remedy = "such a job would wait for ever: cap `runtime` by min(), with room for the other steps of the job"
    return Problem(f"attempt {submission.attempt} of {asked}, {limit}", remedy, fatal=submission.attempt == 1)


def node_problem(submission: Submission, partition: Partition, nodes: Sequence[Node]) -> Problem | None:
    """Judge whether a node of the partition has what a job asks for, even when it is empty."""
    nodes = [node for node in nodes if partition.name in node.partitions]
    job, model, where = job_name(submission), submission.gpu_model, f"partition {partition.name}"
    kinds = sorted({kind for node in nodes for kind in node.gpus if kind})
    fitting = [node for node in nodes if not model or model in node.gpus]
    if model and not fitting:
        remedy = f"set `gpu_model` in profile.yaml to one of: {', '.join(kinds)}" if kinds else "remove `gpu_model`"
        return Problem(f"no node of {where} has a GPU of the kind {model}", remedy)

    def gpus_of(node: Node) -> int:
        return node.gpus[model] if model else sum(node.gpus.values())

    limits = (
        ("GPU", submission.gpus, gpus_of, "choose a partition with GPUs (`sinfo -o '%P %G'`), or lower `gpus`"),
        ("core", submission.cores, lambda node: node.cores, "lower `cpus_per_gpu` in profile.yaml, or `threads`"),
        ("MB of memory", submission.memory_mb, lambda node: node.memory_mb, "lower `mem_mb` in profile.yaml"),
    )
    for what, wanted, has, remedy in limits:
        largest = max(map(has, fitting), default=0)
        if nodes and wanted > largest:
            has_less = f"and no node of {where} has more than {largest:,}"
            asked = f"{wanted:,} {what}" if " " in what else plural(wanted, what)
            return Problem(f"{job} asks for {asked}, {has_less}", remedy)
        fitting = [node for node in fitting if has(node) >= wanted]
    if partition.memory_mb is not None and submission.memory_mb > partition.memory_mb:
        what = f"{job} asks for {submission.memory_mb:,} MB of memory, and {where} allows {partition.memory_mb:,}"
        return Problem(what, "lower `mem_mb` in profile.yaml")
    if nodes and not any(node.in_service for node in fitting):
        what = f"no node of {where} that fits {job} is in service now"
        return Problem(what, "jobs wait until one is: `sinfo -R` says why, or choose another partition", fatal=False)
    return None


def refusal_problem(submission: Submission, answer: str) -> Problem:
    """Say why sbatch refuses a job and what to do, by the words of Slurm or of the site's own rules."""
    answer = one_line(answer).removeprefix("sbatch: ").removeprefix("sbatch: ").removeprefix("error: ")
    answer = answer.replace(" allocation failure: Unspecified error", "").removeprefix("allocation failure: ")
    remedy = next((text for words, text in REFUSALS if re.search(words, answer)), "ask the cluster's support about it")
    what = f"Slurm would refuse attempt {submission.attempt} of {job_name(submission)}: {answer}"
    return Problem(what, remedy, fatal=submission.attempt == 1)


def caches_problem(site: Site, caches: Path | None, home_is_small: bool, in_home: bool) -> Problem | None:
    """Judge where pip and other libraries keep their caches.

    Parameters
    ----------
    caches : the site's folder for them, None where it names none.
    in_home : whether that folder lies on home's own file system.
    """
    if caches is not None and not os.access(_existing(caches), os.W_OK):
        return Problem(f"site.yaml: caches: {site.caches} cannot be written to", "name another folder")
    if home_is_small and (caches is None or in_home):
        what = "home has a small quota, and caches of pip and other libraries go there"
        return Problem(what, "set `caches` in site.yaml to a folder on the large file system", fatal=False)
    return None


def job_name(submission: Submission) -> str:
    """Return what a job is for, as a sentence has it."""
    if submission.experiment == SUSPECTS:
        return "the search for wrong labels"
    return f"the training of {submission.experiment}" if submission.experiment else "the data job"


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
    for row in (row for row in _rows(text) if "NodeName" in row):
        gpus: Counter[str] = Counter()
        # Commas stand inside brackets too: gpu:rtx3090:8(S:0-1),gpu:a100:2(S:0,2)
        for entry in re.findall(r"(?:^|,)(gpu(?::[^(),]+)?)", row.get("Gres", "")):
            gpus[gpu_kind(entry) or ""] += slurm.count_gpus(entry)
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
    """Return the number with which *text* begins."""
    match = re.match(r"\d+", text)
    return int(match[0]) if match else None


def _minutes(text: str) -> float | None:
    return None if (seconds := slurm.parse_duration(text)) is None else seconds / 60
