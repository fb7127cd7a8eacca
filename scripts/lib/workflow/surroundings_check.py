"""What of a user's surroundings would make a run fail, or mimflow sets aside: the clone, folders, the shell, Slurm.

Standard library only: `make doctor` works without a .venv.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from scripts.lib.base.environment import (
    CACHE_VARIABLES,
    CACHES,
    ROOT,
    Variable,
    home_of,
    is_stopped,
    variables_of_shell,
    writing_problem,
)
from scripts.lib.base.problems import Problem, UserError
from scripts.lib.cluster import slurm

#: Variables of the shell that every machine sets: no finding where they mean UTF-8, or no language.
LOCALE = ("LC_ALL", "LC_CTYPE", "LANG")
ABSENT = "there is no such folder"
#: The links of the repository: where each leads, and what does without it.
LINKS = {
    "slurm": ("profiles/slurm", "PROFILE=profiles/slurm"),
    "config/config.yaml": ("../configs/demo.yaml", "CONFIG=configs/demo.yaml"),
}
#: What make and sh read; with carriage returns in it, none of it runs.
SHELL_FILES = ("Makefile", "envs/setup.sh", "envs/find_python.sh")


def surroundings_problems(environment: Mapping[str, str], root: Path = ROOT) -> list[Problem]:
    """Return what is wrong around this folder.

    Parameters
    ----------
    environment : of this process; what the user's shell had set otherwise is found in it.
    """
    shell = variables_of_shell(environment)
    by_start = Variable.SHELL in environment
    of_shell = [locale_problem(shell, by_start), shell_problem(shell)]
    problems = [*checkout_problems(root), *folder_problems(shell, root), *of_shell, *slurm_problems(shell, root)]
    return [problem for problem in problems if problem]


def checkout_problems(root: Path) -> list[Problem]:
    """Judge whether git wrote the files as they are: links as links, line ends as line ends."""
    problems = []
    for name, (target, otherwise) in LINKS.items():
        link = root / name
        if link.is_file() and not link.is_symlink() and link.read_bytes()[:99].strip() == target.encode():
            what = f"`{name}` is a text file, not a link to {target} (git's core.symlinks is false, or a zip lost it)"
            problems.append(Problem(what, f"ln -sfn {target} {name}; or use {otherwise}", fatal=False))
    for file in (root / name for name in SHELL_FILES):
        if file.is_file() and b"\r\n" in file.read_bytes():
            what = f"{file.relative_to(root)} has the line ends of Windows (git's core.autocrlf), which sh cannot read"
            problems.append(
                Problem(what, "git config core.autocrlf false; git rm -rq --cached . && git reset -q --hard")
            )
            break
    return problems


def folder_problems(shell: Mapping[str, str], root: Path) -> list[Problem]:
    """Judge by writing whether the folders that a run writes to can be written."""
    problems = []
    for name in ("", "results", "logs", ".snakemake"):
        folder = root / name
        if (not name or os.path.lexists(folder)) and (reason := writing_problem(folder)):
            what = f"the folder {folder} cannot be written to ({reason})"
            problems.append(Problem(what, "check who owns it and what is free, or copy the project to another disk"))
            break
    home = home_of(shell)
    reasons = {f"home ({home or 'HOME is not set'})": writing_problem(Path(home)) if os.path.isdir(home) else ABSENT}
    of_caches = {name: shell[name] for name in ("XDG_CACHE_HOME", *CACHE_VARIABLES) if shell.get(name)}
    reasons |= {f"{name} ({folder})": writing_problem(Path(folder)) for name, folder in of_caches.items()}
    for folder_name, reason in reasons.items():
        if reason:
            remedy = (
                f"caches go to {CACHES.relative_to(ROOT)} in the project, unless `caches` of the site names a folder"
            )
            problems.append(Problem(f"{folder_name} cannot be written to ({reason})", remedy, fatal=False))
    try:
        temporary = Path(shell.get("TMPDIR") or tempfile.gettempdir())
        reason = writing_problem(temporary, 1 << 20) if temporary.is_dir() else ABSENT
    except FileNotFoundError:  # tempfile has tried them all
        temporary, reason = Path("/tmp"), "nor can any other"
    if reason:
        what = f"the folder for temporary files, {temporary}, cannot be written to ({reason})"
        problems.append(Problem(what, "export TMPDIR=<a folder with room>"))
    return problems


def locale_problem(shell: Mapping[str, str], by_start: bool) -> Problem | None:
    """Judge the shell's locale, by which programs take the names of files and classes."""
    locale = next((shell[name] for name in LOCALE if shell.get(name)), "")
    if is_usual(locale):
        return None
    what = f"the locale of this shell is {locale}: its names of files and classes are not UTF-8"
    remedy = "`make` takes them as UTF-8 by itself" if by_start else "export LC_ALL=C.UTF-8, or use `make`"
    return Problem(what, remedy, fatal=not by_start)


def is_usual(locale: str) -> bool:
    """Tell whether a locale means UTF-8, or names no encoding."""
    return bool(re.fullmatch(r"(C|POSIX)?|.*\.utf-?8(@.*)?", locale, re.IGNORECASE))


def shell_problem(shell: Mapping[str, str]) -> Problem | None:
    """Say which variables of the shell would change Python or its numbers, and do not reach mimflow."""
    # What many systems set for everybody: the locale, and functions of the shell (`which` of RHEL).
    usual = [name for name in shell if name.startswith(("LC_", "BASH_FUNC_")) or name in ("LANG", "LANGUAGE")]
    names = sorted(name for name in shell if is_stopped(name) and name not in usual)
    if not names:
        return None
    what = "variables of this shell that do not reach mimflow: " + ", ".join(f"{name}={shell[name]}" for name in names)
    return Problem(what[:300], "what is started by `make` or Snakemake runs without them", fatal=False)


def slurm_problems(shell: Mapping[str, str], root: Path) -> list[Problem]:
    """Judge how Slurm is reached from here, and whether a controller of jobs was killed where it cannot be asked."""
    problems = []
    conf = shell.get("SLURM_CONF")
    if conf and not os.path.exists(conf):
        problems.append(
            Problem(f"SLURM_CONF={conf}: no such file, so that no job can be submitted", "unset SLURM_CONF")
        )
    if job := shell.get("SLURM_JOB_ID"):
        what = f"this shell runs in Slurm job {job}, and a workflow that submits jobs from here ends with it"
        problems.append(Problem(what, "start it on the login node, or use run.sbatch of the profile", fatal=False))
    record = root / ".snakemake" / "mimflow-controller.json"
    try:
        if json.loads(record.read_text(encoding="utf-8"))["slurm"]:
            slurm.my_jobs(root)
    except (OSError, ValueError, TypeError, KeyError):
        pass  # no record, or one that was cut short
    except UserError as error:
        what = f"Slurm jobs were submitted from this folder, and may still run ({error.what})"
        problems.append(Problem(what, f"{error.remedy}; if none does: make run CONFIG=... ARGS=--unlock"))
    return problems
