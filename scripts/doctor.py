"""Tell what this machine has and what would make a run fail here: what a helper would ask for first."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from pathlib import Path

from scripts.lib.base.console import described, one_line, run_cli, say
from scripts.lib.base.environment import ROOT
from scripts.lib.base.problems import Problem, UserError
from scripts.lib.cluster.gpus import Gpus
from scripts.lib.workflow import machine_check

#: Columns of the names of facts.
NAME_WIDTH = 14


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
    limits = [quota.limit for quota in machine_check.look_at_quotas([home])] if home else []
    home_is_small = min(limits, default=math.inf) < machine_check.HOME_QUOTA_LEAST
    findings = check_profile(folder if folder.is_dir() else Path(profile), Path(config), home_is_small)
    return findings.facts, findings.problems


def look_at_devices(profile: str, config: str) -> Problem | None:
    """Judge whether the experiments of a configuration find the torch, and here the GPU, that the site, or they, want.

    Raises
    ------
    UserError : the configuration or site.yaml cannot be read.
    """
    try:
        from scripts.lib.settings.load import load_settings, load_site, read_file
        from scripts.lib.workflow.resources import check_devices, missing_gpu, with_device_of
    except ImportError:
        return None  # without .venv, which is a problem of its own
    folder = next((path for path in (Path(profile), Path("profiles") / profile) if path.is_dir()), None)
    settings = load_settings(read_file(Path(config)), [Path(config)])
    if folder is not None and (folder / "site.yaml").is_file():
        settings = with_device_of(load_site(folder), settings)
    devices = {name: experiment.device for name, experiment in settings.experiments.items()}
    here = Path(folder or ".", "profile.yaml")
    runs_here = not here.is_file() or read_file(here, empty={}).get("executor", "local") == "local"
    has_gpu = runs_here and bool(Gpus.of(os.environ))
    if unfit := machine_check.device_problem(devices, machine_check.built_torch(), has_gpu):
        return unfit
    try:
        check_devices(settings, missing_gpu(os.environ) if runs_here else "")
    except UserError as error:
        return Problem(error.what, error.remedy)
    return None


def look_at_weights(config: str) -> list[Problem]:
    """Return a note for each experiment whose pretrained weights are not for every use.

    Raises
    ------
    UserError : the configuration cannot be read.
    """
    try:
        from scripts.lib.settings.load import load_settings, read_file
        from scripts.lib.workflow.weights_check import weights_notes
    except ImportError:
        return []  # without .venv, which is a problem of its own
    return weights_notes(load_settings(read_file(Path(config)), [Path(config)]))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.doctor", description=__doc__)
    parser.add_argument("--profile", metavar="DIR", help="also check this profile against the cluster it stands on")
    parser.add_argument(
        "--config",
        metavar="FILE",
        default="configs/demo.yaml",
        help="whose experiments to look at (%(default)s)",
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Print the facts, then the problems; exit with 1 if one of them would make a run fail."""
    status = json.loads(machine_check.output_of(sys.executable, str(ROOT / "envs" / "install.py"), "--status") or "{}")
    torch, (gpus, silence) = machine_check.look_at_torch(), machine_check.ask_nvidia_smi()
    # A user without a home folder (a container's odd uid) is no reason to fail.
    homes = [folder.resolve() for folder in [Path(os.path.expanduser("~"))] if folder.is_dir()]
    home = next(iter(homes), None)
    quotas = machine_check.look_at_quotas([ROOT, *homes])
    problems = machine_check.judge(status, torch, gpus, quotas, home, args.profile is not None, silence)
    for fact in machine_check.describe(status, torch, gpus, quotas, home, silence):
        print(described(*fact, NAME_WIDTH))
    try:
        if unfit := look_at_devices(args.profile or "profiles/local", args.config):
            problems.append(unfit)
        problems += look_at_weights(args.config)
        if args.profile:
            print(flush=True)
            facts, of_profile = look_at_profile(args.profile, args.config, home)
            for fact in facts:
                print(described(*fact, NAME_WIDTH))
            problems += of_profile
    except UserError as error:  # beside it, what is wrong with the machine is told all the same
        problems.append(Problem(error.what, error.remedy))
    print()
    for problem in sorted(problems, key=lambda problem: not problem.fatal):
        say(one_line(problem))
    if not problems:
        say("nothing is wrong here")
    if any(problem.fatal for problem in problems):
        sys.exit(1)


if __name__ == "__main__":
    run_cli(build_parser, main)
