"""Does a profile fit the cluster that it stands on? Asked of Slurm before anything is submitted, for `make doctor`."""

from __future__ import annotations

import functools
import getpass
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.lib.base.console import one_line
from scripts.lib.base.environment import expand
from scripts.lib.base.problems import Problem, UserError
from scripts.lib.cluster import slurm
from scripts.lib.settings.load import load_settings, load_site, read_file
from scripts.lib.settings.schema import Settings, Site
from scripts.lib.settings.site import module_prefix
from scripts.lib.workflow.profile_problems import (
    Node,
    Partition,
    account_problem,
    caches_problem,
    gpu_model_problem,
    key_problems,
    leading_number,
    name_problem,
    node_problem,
    parse_nodes,
    parse_partitions,
    partition_problem,
    preemption_problem,
    refusal_problem,
    requeue_problem,
    status_problem,
    time_problem,
    whole_minutes,
)
from scripts.lib.workflow.rehearse import Submission, rehearse


@dataclass
class Findings:
    """What was found: facts for people to read, problems for them to mend."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def fail(self, what: str, remedy: str) -> None:
        """Add what would make a run fail."""
        self.problems.append(Problem(one_line(what), remedy))

    def note(self, what: str, remedy: str) -> None:
        """Add what a run survives."""
        self.problems.append(Problem(one_line(what), remedy, fatal=False))


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
    found = Findings()
    file = next((folder / name for name in ("profile.yaml", "config.yaml") if (folder / name).is_file()), None)
    if file is None:
        raise UserError(f"{folder}: there is no profile.yaml: PROFILE is a folder such as profiles/slurm")
    profile = read_file(file, empty={})
    executor = str(profile.get("executor", "local"))
    found.facts.append(("profile", f"{folder}: executor {executor}, up to {profile.get('jobs', 'any number of')} jobs"))
    found.problems += key_problems(profile, snakemake_options())
    if executor == "slurm":
        check_path(sys.executable)
    if not (folder / "site.yaml").is_file():
        if executor == "slurm":
            found.fail(f"{folder}: there is no site.yaml", "make one; docs/slurm.md shows the least")
        return found
    site = load_site(folder)
    set_keys = {key: value for key, value in site.model_dump(exclude_defaults=True).items()}
    found.facts.append(("site", ", ".join(f"{key} {value}" for key, value in set_keys.items()) or "nothing is set"))
    _check_site(found, site, home_is_small)
    if executor == "slurm" and not any(problem.fatal for problem in found.problems):
        _check_cluster(found, folder, profile, site, load_settings(read_file(config), [config]))
    return found


@functools.cache
def snakemake_options() -> frozenset[str]:
    """Return every option that a profile may hold, those of the plugins too."""
    from snakemake.cli import get_argument_parser

    options = (option for action in get_argument_parser()._actions for option in action.option_strings)
    return frozenset(option.removeprefix("--") for option in options if option.startswith("--"))


def _check_site(found: Findings, site: Site, home_is_small: bool) -> None:
    caches = None
    if site.caches:
        try:
            caches = Path(expand(site.caches, os.environ)).absolute()
        except UserError as error:
            found.fail(str(error), "name a folder that every node has")
            return
    home = Path(os.path.expanduser("~"))
    in_home = caches is not None and home.exists() and _device(caches) == _device(home)
    found.problems += filter(None, [caches_problem(site, caches, home_is_small, in_home)])
    if site.modules:
        result = subprocess.run(["bash", "-c", f"{module_prefix(site)} true"], capture_output=True, text=True)
        if result.returncode:
            said = result.stderr or f"exit status {result.returncode}"
            found.fail(f"site.yaml: modules: {said}", "`module avail` lists the names; remove what is not needed")


def _check_cluster(found: Findings, folder: Path, profile: Mapping[str, Any], site: Site, settings: Settings) -> None:
    found.problems += filter(None, [name_problem(profile)])
    try:
        slurm.ask("squeue", "--noheader", f"--user={os.getuid()}")
        slurm.ask("sbatch", "--version")
        partitions = parse_partitions(slurm.ask("scontrol", "--oneliner", "show", "partition"))
        nodes = parse_nodes(slurm.ask("scontrol", "--oneliner", "show", "node"))
        settings_of_slurm = slurm.ask("scontrol", "show", "config")
    except UserError as error:
        found.fail(error.what, error.remedy)
        return
    accounting = slurm.has_accounting()
    job_age = leading_number(slurm.parse_setting(settings_of_slurm, "MinJobAge") or "")
    requeue = slurm.parse_setting(settings_of_slurm, "JobRequeue") == "1"
    found.facts.append(("accounting", "sacct answers" if accounting else "none"))
    found.problems += filter(None, [status_problem(profile, accounting, job_age), requeue_problem(profile, requeue)])

    asked = profile.get("default-resources")
    default = asked.get("slurm_partition") if isinstance(asked, dict) else None
    # Before the rehearsal, since what Snakemake or sbatch says of it is less clear.
    wrong = [gpu_model_problem(profile, site), partition_problem(default, partitions)]
    wrong.append(account_problem(asked.get("slurm_account") if isinstance(asked, dict) else None, allowed_accounts()))
    if any(wrong):
        found.problems += filter(None, wrong)
        return
    try:
        submissions = rehearse(folder, settings)
    except UserError as error:
        found.fail(f"snakemake does not take this profile: {error}", "correct profile.yaml as it says")
        return
    _check_submissions(found, submissions, partitions, nodes)


def _check_submissions(
    found: Findings, submissions: Sequence[Submission], partitions: Sequence[Partition], nodes: Sequence[Node]
) -> None:
    used: dict[str, Partition] = {}
    tested: dict[tuple[str, ...], Problem | None] = {}
    problems: list[Problem | None] = []
    faulty: set[str] = set()
    for submission in submissions:
        if submission.experiment in faulty:
            continue  # its next attempt has the same fault, or asks for yet more
        # sbatch takes several names with commas between; Slurm then chooses one.
        names = (submission.option("-p", "--partition") or "").split(",")
        own = [part for part in partitions if (part.name in names if names != [""] else part.is_default)]
        unknown = [name for name in names if name and name not in {part.name for part in partitions}]
        used |= {partition.name: partition for partition in own}
        wrong = [partition_problem(name, partitions) for name in unknown]
        if len(own) == 1:
            wrong += [partition_problem(own[0].name, partitions), node_problem(submission, own[0], nodes)]
            wrong.append(time_problem(submission, own[0]))
        if not any(wrong):
            shown = tuple(submission.shown().split())
            if shown not in tested:
                tested[shown] = _test(submission)
            wrong = [tested[shown]]
        problems += wrong
        faulty |= {submission.experiment} if any(wrong) else set()
    problems += map(preemption_problem, used.values())
    for partition in used.values():
        found.facts.append(("partition", _describe(partition, nodes)))
    found.problems += {problem.what: problem for problem in problems if problem}.values()
    first = [submission for submission in submissions if submission.attempt == 1]
    for submission in first:
        found.facts.append((submission.experiment or "data job", submission.shown()))
        later = [other.minutes for other in submissions if other.experiment == submission.experiment]
        if len(set(later)) > 1:
            found.facts.append(("  attempts", ", ".join(f"-t {minutes:.0f}" for minutes in later if minutes)))


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
    own = [node for node in nodes if partition.name in node.partitions]
    kinds: dict[str, int] = {}
    for node in own:
        for kind, count in node.gpus.items():
            kinds[kind] = kinds.get(kind, 0) + count
    gpus = ", ".join(f"{count} x {kind or 'GPU'}" for kind, count in sorted(kinds.items())) or "no GPUs"
    longest = "no time limit" if partition.longest is None else f"at most {whole_minutes(partition.longest)} a job"
    usual = f" ({whole_minutes(partition.usual)} without -t)" if partition.usual is not None else ""
    serving = sum(node.in_service for node in own)
    preempted = "" if partition.preemption in ("OFF", "") else f", jobs may be preempted ({partition.preemption})"
    return f"{partition.name}: {serving} of {len(own)} nodes in service, {gpus}, {longest}{usual}{preempted}"


def allowed_accounts() -> set[str]:
    """Return the accounts that this user may use; empty where Slurm does not say."""
    try:
        options = ["--noheader", "--parsable2", "show", "assoc", f"user={getpass.getuser()}", "format=account"]
        return set(slurm.ask("sacctmgr", *options).split())
    except (UserError, KeyError):  # KeyError: an uid without a name
        return set()


def _device(path: Path) -> int:
    return next(place for place in (path, *path.parents) if place.exists()).stat().st_dev


def check_path(python: str) -> None:
    """Make sure that Snakemake can start jobs on other machines: it writes its Python's path there without quotes.

    Raises
    ------
    UserError : a shell would take the path apart.
    """
    if shlex.quote(python) != python:
        raise UserError(
            f"{python}: Slurm jobs cannot start from a path with spaces or signs of the shell (Snakemake does not quote"
            " it): move the project to another folder, and run `make setup` there"
        )
