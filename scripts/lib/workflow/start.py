"""Snakemake, as `make` starts it: Ctrl-C while it is being loaded, and words that it does not know, end in one line."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from scripts.lib.base import interrupts
from scripts.lib.base.problems import STOPPED, UserError
from scripts.lib.workflow.module import is_module


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


def check_profiles(words: Sequence[str], environment: Mapping[str, str]) -> None:
    """Make sure that each profile of a command line is one.

    Raises
    ------
    UserError : it is none, here or in Snakemake's own folders.
    """
    from snakemake.cli import get_profile_dir

    from scripts.lib.settings.site import profiles  # late: Ctrl-C is caught before it is loaded

    for profile in profiles(words, environment):
        if get_profile_dir(profile) is None:
            known = ", ".join(sorted(path.name for path in Path("profiles").glob("*") if path.is_dir()))
            raise UserError(f"PROFILE: {profile} has no profile.yaml", f"choose one of {known}, or name its folder")


def refuse(_parser: argparse.ArgumentParser, message: str) -> NoReturn:
    """Say in one line what Snakemake does not understand, in the place of a page of all its options."""
    remedy = "correct ARGS or the profile; `.venv/bin/snakemake --help` lists the options"
    sys.exit(f"error: Snakemake: {message}: {remedy}")


if __name__ == "__main__":
    catch_interrupts()
    interrupts.take()

    from snakemake.cli import main

    try:
        check_profiles(sys.argv[1:], os.environ)
    except UserError as error:
        sys.exit(f"error: {error}")
    argparse.ArgumentParser.error = refuse  # type: ignore[method-assign, assignment]
    main(sys.argv[1:])
