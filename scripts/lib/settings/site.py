"""Which site this is: the folder of the Snakemake profile with its site.yaml, and what follows for each job."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path

from scripts.lib.base.environment import CACHES as FALLBACK
from scripts.lib.base.environment import Variable, expand, unset_in_shell
from scripts.lib.settings.load import load_site, read_file
from scripts.lib.settings.schema import Site

#: Variables by which libraries find a folder for their caches, and the folder of each below ``caches``.
CACHES = {"XDG_CACHE_HOME": "", "PIP_CACHE_DIR": "pip", "TORCH_HOME": "torch", "MPLCONFIGDIR": "matplotlib"}


#: How Snakemake calls the file of a profile.
PROFILE_FILES = ("profile.yaml", "profile.yml", "config.yaml", "config.yml")


def current_site() -> Site:
    """Return the site of this process; a site with nothing set where no folder is named.

    Raises
    ------
    UserError : the folder named has no good site.yaml.
    """
    folder = os.environ.get(Variable.SITE)
    return load_site(Path(folder)) if folder else Site()


def enter_site(arguments: Sequence[str], environment: MutableMapping[str, str]) -> Site:
    """Make the site of Snakemake's command line this process's, and its jobs'; return it.

    A profile without a site.yaml beside it, as one below ~/.config, is no site: then nothing is set.

    Parameters
    ----------
    arguments : the command line after the program's name.
    environment : the environment, changed in place: the site's folder, and its caches where they are not set yet.
    """
    folder = environment.get(Variable.SITE) or next(
        filter(None, map(_profile_folder, profiles(arguments, environment))), ""
    )
    if not folder:
        return Site()
    environment[Variable.SITE] = os.path.abspath(folder)
    site = load_site(Path(folder))
    if site.caches:
        for name, below in CACHES.items():
            # What stands in for a home that takes nothing gives way to the site's folder.
            if environment.get(name, str(FALLBACK)).startswith(str(FALLBACK)):
                environment[name] = os.path.join(expand(site.caches, environment), below).rstrip("/")
    return site


def profiles(arguments: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Return the profiles that a Snakemake command line names, the one that has the last word first."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--profile", action="append", default=[])
    parser.add_argument("--workflow-profile", action="append", default=[])
    known, _ = parser.parse_known_args([word for word in arguments if word != "--"])
    named = known.profile or environment.get("SNAKEMAKE_PROFILE", "").split(",")
    return [profile for profile in [*known.workflow_profile, *reversed(named)] if profile not in ("", "none")]


def executor_of(arguments: Sequence[str], environment: Mapping[str, str]) -> str:
    """Return who runs the jobs of a Snakemake command line: ``local``, ``slurm``, ...

    Its workflow knows it only when it executes, and by then the executor is made.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--executor", "-e")
    known, _ = parser.parse_known_args([word for word in arguments if word != "--"])
    if known.executor:
        return str(known.executor)
    for profile in profiles(arguments, environment):
        paths = (Path(folder, name) for folder in (profile, Path("profiles", profile)) for name in PROFILE_FILES)
        for path in (Path(profile), *paths):
            if path.is_file() and (executor := read_file(path, empty={}).get("executor")):
                return str(executor)
    return "local"


def check_profiles(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Read the profiles of Snakemake's command line strictly: its own reader takes the last of two equal keys.

    Raises
    ------
    UserError : one of them is no clear YAML.
    """
    for profile in profiles(arguments, environment):
        for path in (Path(profile), Path("profiles", profile)):
            for file in sorted(path.glob("*.yaml")) if path.is_dir() else [path] * path.is_file():
                read_file(file, empty={})


def _profile_folder(profile: str) -> str | None:
    """Return the folder of a profile if it is a site: as a path, else below profiles/."""
    for path in (profile, os.path.join("profiles", profile)):
        folder = os.path.dirname(path) if path.endswith((".yaml", ".yml")) else path
        if os.path.isfile(os.path.join(folder, "site.yaml")):
            return folder
    return None


def module_prefix(site: Site) -> str:
    """Return what stands before each shell line so that the site's modules are loaded; "" where there are none.

    ``module`` is a shell function that a job's shell may not have yet; a module may put its own Python in front.
    """
    if not site.modules:
        return ""
    modules = shlex.join(site.modules)
    python = shlex.quote(str(Path(sys.executable).parent))
    return (
        "{ command -v module >/dev/null 2>&1 || . /etc/profile; "
        f"module load {modules} || {{ echo 'error: module load {modules} failed: see `module avail`' >&2; exit 1; }}; "
        f'export PATH={python}:"$PATH"; {unset_in_shell()}; }} >&2; '
    )
