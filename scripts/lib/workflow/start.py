"""Snakemake, as `make` starts it: Ctrl-C while it is being loaded, and words that it does not know, end in one line."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import FrameType
from typing import Any, NoReturn

from scripts.lib.base import interrupts
from scripts.lib.base.environment import ROOT
from scripts.lib.base.problems import STOPPED, UserError
from scripts.lib.workflow.module import is_module

#: The profiles that come with mimflow, a folder each, and the options that name one.
PROFILES = ROOT / "profiles"
PROFILE_OPTIONS = ("--profile", "--workflow-profile")


def stop(_number: int, _frame: FrameType | None) -> NoReturn:
    """End at once: nothing has begun."""
    os.write(2, f"{STOPPED}\n".encode())
    os._exit(128 + signal.SIGINT)


def catch_interrupts(workflow: Any = None) -> None:
    """Have Ctrl-C end in one line until the session's own handler takes this one's place.

    Parameters
    ----------
    workflow : Snakemake's, where it was started without make; its processes for single jobs stay as they are.
    """
    is_alone = workflow is None or workflow.is_main_process
    if is_alone and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as of a job in the background
        # As a module, Snakemake's own way: it ends the jobs of all rules.
        of_another = workflow is not None and is_module(workflow)
        signal.signal(signal.SIGINT, signal.default_int_handler if of_another else stop)


def with_profiles(words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return a command line that names mimflow's own profiles by their folders, so that `local` works from any folder.

    Raises
    ------
    UserError : a profile is none, here, in Snakemake's own folders or among mimflow's.
    """
    from snakemake.cli import get_profile_dir

    from scripts.lib.settings.site import profiles  # late: Ctrl-C is caught before it is loaded

    def folder(profile: str) -> str:
        is_own = get_profile_dir(profile) is None and (PROFILES / profile / "profile.yaml").is_file()
        return str(PROFILES / profile) if is_own else profile

    named = []
    for before, word in pairwise(["", *words]):
        option, is_set, value = word.partition("=")
        if before in PROFILE_OPTIONS:
            named.append(folder(word))
        else:
            named.append(f"{option}={folder(value)}" if is_set and option in PROFILE_OPTIONS else word)
    for profile in profiles(named, environment):
        if get_profile_dir(profile) is None:
            known = ", ".join(sorted(path.name for path in PROFILES.glob("*") if path.is_dir()))
            raise UserError(f"PROFILE: {profile} has no profile.yaml", f"choose one of {known}, or name its folder")
    return named


def load_snakemake() -> Any:
    """Return Snakemake's module of its command line.

    Raises
    ------
    UserError : its Slurm plugin, which is loaded too, calls programs, and one of them cannot be started.
    """
    from snakemake_interface_common.exceptions import WorkflowError

    try:
        import snakemake.cli
    except WorkflowError as error:  # the one of the plugin: no program tells how jobs end
        what = f"{shutil.which('sinfo')} is in PATH, squeue and sacct are not"
        raise UserError(what, "complete Slurm on this machine, or take that folder out of PATH") from error
    except OSError as error:
        from scripts.lib.cluster.slurm import cannot_start

        if error.filename == "which":
            remedy = "install it (the package `which`, of Debian `debianutils`)"
            raise UserError("Snakemake needs the program `which`, and it is not in PATH", remedy) from error
        if error.filename != "scontrol":
            raise
        raise cannot_start("scontrol", str(error.strerror)) from error
    return snakemake.cli


def refuse(_parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """Say in one line what Snakemake does not understand, in the place of a page of all its options."""
    remedy = "correct ARGS or the profile; `.venv/bin/snakemake --help` lists the options"
    sys.exit(f"error: Snakemake: {message}: {remedy}")


if __name__ == "__main__":
    catch_interrupts()
    interrupts.take()

    try:
        main = load_snakemake().main
        sys.argv[1:] = with_profiles(sys.argv[1:], os.environ)
    except UserError as error:
        sys.exit(f"error: {error}")
    argparse.ArgumentParser.error = refuse  # type: ignore[method-assign, assignment]
    main(sys.argv[1:])
