"""Tell what this machine has and what would make a run fail here: what a helper would ask for first."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.lib.base.console import run_cli
from scripts.lib.base.environment import ROOT
from scripts.lib.base.problems import Problem
from scripts.lib.cluster.gpus import Gpus
from scripts.lib.workflow.machine_facts import (
    describe,
    look_at_gpus,
    look_at_quotas,
    look_at_sacct,
    look_at_torch,
    output_of,
    same_device,
)
from scripts.lib.workflow.machine_problems import (
    HOME_QUOTA_LEAST,
    Gpu,
    Quota,
    TorchBuild,
    disk_problem,
    encoding_problem,
    environment_problem,
    gpu_problems,
    inodes_problem,
    python_problem,
    quota_problems,
    shm_problem,
    slurm_problems,
    variable_problems,
)


def judge(
    status: Mapping[str, Any],
    torch: TorchBuild,
    gpus: Sequence[Gpu],
    quotas: Sequence[Quota],
    home: Path | None,
    with_profile: bool = False,
) -> list[Problem]:
    """Return what is wrong with this machine, what stops a run first.

    Parameters
    ----------
    with_profile : a profile is checked as well, which knows how it asks Slurm.
    """
    # A folder below home may be a file system of its own (~/run), with a quota of its own.
    in_home = home is not None and home != Path("/") and ROOT.is_relative_to(home) and same_device(ROOT, home)
    room = os.statvfs(ROOT)
    problems: list[Problem | None] = [
        python_problem(sys.version_info[:2]),
        environment_problem(status),
        *gpu_problems(torch, gpus, Gpus.of(os.environ).variable),
        disk_problem(f"the project ({ROOT})", shutil.disk_usage(ROOT).free),
        inodes_problem("the project", room.f_favail, room.f_files),
        *quota_problems(quotas, in_home),
        shm_problem(shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else None),
        encoding_problem(sys.getfilesystemencoding()),
        *variable_problems(os.environ),
        *slurm_problems(None if with_profile else look_at_sacct()),
    ]
    if not os.access(ROOT, os.W_OK):
        problems.append(Problem(f"the project folder {ROOT} cannot be written to", "check who owns it, or copy it"))
    if torch.error and status.get("problem"):
        # An environment that is not there says it all.
        problems = [problem for problem in problems if problem is None or not problem.what.startswith("torch cannot")]
    return sorted((problem for problem in problems if problem), key=lambda problem: not problem.fatal)


def look_at_profile(profile: str, config: str, home: Path | None) -> tuple[list[tuple[str, str]], list[Problem]]:
    """Return what is to be said about a profile on this cluster, and what is wrong with it.

    Raises
    ------
    UserError : the profile or the configuration cannot be read.
    """
    try:
        # Only here: everything else that doctor says, it says without .venv too.
        from scripts.lib.workflow.profile_check import check_profile
    except ImportError as error:
        what = f"the profile {profile} cannot be checked yet ({error})"
        return [], [Problem(what, "make setup ENV=cuda11 (or another), then this command again")]
    folder = Path(profile) if Path(profile).is_dir() else Path("profiles") / profile
    home_is_small = home is not None and any(q.limit < HOME_QUOTA_LEAST for q in look_at_quotas([home]))
    found = check_profile(folder if folder.is_dir() else Path(profile), Path(config), home_is_small)
    return found.facts, list(found.problems)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.doctor", description=__doc__)
    parser.add_argument("--profile", metavar="DIR", help="also check this profile against the cluster it stands on")
    parser.add_argument(
        "--config",
        metavar="FILE",
        default="configs/demo.yaml",
        help="with --profile: whose experiments to look at (%(default)s)",
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Print the facts, then the problems; exit with 1 if one of them would make a run fail."""
    status = json.loads(output_of(sys.executable, str(ROOT / "envs" / "install.py"), "--status") or "{}")
    torch, gpus = look_at_torch(), look_at_gpus()
    # A user without a home folder (a container's odd uid) is no reason to fail.
    home = Path(os.path.expanduser("~"))
    home_or_none = home.resolve() if home.is_dir() else None
    quotas = look_at_quotas([ROOT, *([home_or_none] if home_or_none else [])])
    facts = describe(status, torch, gpus, quotas, home_or_none)
    problems = judge(status, torch, gpus, quotas, home_or_none, args.profile is not None)
    for name, value in facts:
        print(f"{name:<14} {value}")
    if args.profile:
        print(flush=True)
        facts, found = look_at_profile(args.profile, args.config, home_or_none)
        for name, value in facts:
            print(f"{name:<14} {value}")
        problems = sorted([*problems, *found], key=lambda problem: not problem.fatal)
    print()
    for problem in problems:
        print(" ".join(str(problem).split()))
    if not problems:
        print("nothing is wrong here")
    if any(problem.fatal for problem in problems):
        sys.exit(1)


if __name__ == "__main__":
    run_cli(build_parser, main)
