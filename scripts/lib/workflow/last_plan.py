"""The last plan of a command, if it found nothing to do: where nothing that decided it has changed, none is made.

A plan builds Snakemake's whole graph, 30 ms a run. What decides it are the command, the settings, the code, and names,
sizes and times of files; they are looked at here in a fraction of that. In any doubt the plan is made.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import stat
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from scripts.lib.base.environment import ROOT, Variable
from scripts.lib.base.files import find_json, write_json
from scripts.lib.runs.machine import STAMP

#: Below the working directory: a file for each command.
FOLDER = Path(".snakemake/mimflow-nothing-to-do")
#: What Snakemake and mimflow leave there, and a plan looks at.
LEFT = [
    f".snakemake/{name}"
    for name in ("incomplete", "iocache", "locks", "metadata", "mimflow-controller.json", "mimflow-links")
]
#: The code that plans, and that jobs would run.
CODE = [*(f"{ROOT}/{name}" for name in ("Snakefile", "rules", "scripts", "envs")), str(STAMP)]
#: The options of commands whose plan is remembered. Another one may ask for more than a plan.
OPTIONS = frozenset(
    {"--profile", "--workflow-profile", "--configfile", "--configfiles", "--config", "--cores", "--directory"}
    | {"--snakefile", "-c", "-d", "-s"}
)
#: Snakemake's settings, of its command line, its profile and its variables together.
SNAKEMAKE_SETTINGS = ("dag", "deployment", "execution", "storage", "workflow")
#: Two changes of a file within this time may bear the same time: clocks of file systems are coarse.
CLOCK_SECONDS = 2.0


class Look(NamedTuple):
    """A hash of the names, sizes and times of files, and when the newest of them changed, in ns since 1970."""

    sha256: str
    newest: int


class LastPlan:
    """Whether the last plan of a command found nothing to do, and was decided by the same as one would be now.

    Parameters
    ----------
    facts : what is no file, beside the command: the settings, the environment.
    products : files and folders that the plan looks at.
    named : files that the settings may name; a folder among them is not looked into.
    """

    def __init__(self, facts: Any, products: list[str], named: Iterable[str]) -> None:
        self._facts = json.dumps([facts, sys.argv[1:], os.getcwd()], default=_plain)
        self._products, self._named = products, list(dict.fromkeys(named))
        self._file = FOLDER / f"{hashlib.sha256(repr(sys.argv[1:]).encode()).hexdigest()}.json"
        self._before = self._look()

    def note(self) -> str | None:
        """Return what a plan would say beside that there is nothing to do; None where one must be made."""
        known = find_json(self._file)
        is_same = self._before is not None and known.get("sha256") == self._before
        return str(known.get("note", "")) if is_same else None

    def remember(self, note: str) -> None:
        """Remember a plan that has found nothing to do, unless something has changed while it was made."""
        with suppress(OSError):  # no room, or somebody else's folder
            if self._before is not None and self._look() == self._before:
                write_json(self._file, {"sha256": self._before, "note": note})

    def _look(self) -> str | None:
        """Return the hash of all that decides a plan; None where some of it is too new to be sure of, or hidden."""
        try:
            now, age = _time_of_files(), time.time() - psutil.Process().create_time()
            code, products = look(CODE), look(self._products, self._named)
        except OSError:
            return None
        clock = round(CLOCK_SECONDS * 1e9)
        if code.newest > now - round(age * 1e9) - clock or products.newest > now - clock:
            return None
        return hashlib.sha256("\0".join([self._facts, code.sha256, products.sha256]).encode()).hexdigest()


def is_plain(workflow: Any, arguments: Iterable[str]) -> bool:
    """Tell whether a command's plan may be remembered: mimflow's workflow, without options that ask for more.

    Parameters
    ----------
    workflow : Snakemake's.
    arguments : the command line after the program's name.
    """
    is_ours = os.path.realpath(workflow.main_snakefile) == CODE[0] and not workflow.modifier.skip_configfile
    return is_ours and all(word.split("=")[0] in OPTIONS for word in arguments if word.startswith("-"))


def facts_of(workflow: Any, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return how Snakemake understood its command line, which Python this is, and variables that have a say.

    Parameters
    ----------
    workflow : Snakemake's.
    """
    names = sorted(name for name in environment if name.startswith(("MIMFLOW_", "SNAKEMAKE_")) or name == "HOME")
    of_process = {Variable.SHELL, Variable.CONFIG_FILES, Variable.LIVE}
    return {
        "snakemake": {name: getattr(workflow, f"{name}_settings") for name in SNAKEMAKE_SETTINGS},
        "python": [sys.version, os.path.realpath(sys.prefix)],
        "packages": sorted(os.listdir(sysconfig.get_path("purelib"))),  # with their versions
        "variables": {name: environment[name] for name in names if name not in of_process},
    }


def named_files(value: Any) -> Iterator[str]:
    """Yield each text in the settings as a path: a plan depends on whether there is such a file, and on which."""
    if isinstance(value, str):
        yield os.path.expanduser(value)
    elif isinstance(value, Mapping | list):
        values = [*value, *value.values()] if isinstance(value, Mapping) else value
        yield from (path for item in values for path in named_files(item))


def look(trees: list[str], files: list[str] | None = None) -> Look:
    """Look at files and, through links, at all that is below folders.

    Parameters
    ----------
    files : of a folder among these, that it is one is all that counts.

    Raises
    ------
    OSError : a folder that cannot be read, or that changes meanwhile.
    """
    digest, newest = hashlib.sha256(), 0
    seen: set[tuple[int, int]] = set()  # no link leads in circles
    entries = [_entry(path) for path in [*trees, *(files or [])]]
    folders = list(filter(os.path.isdir, trees))
    while True:
        digest.update("\n".join(text for text, _changed in entries).encode("utf-8", "surrogateescape"))
        newest = max([newest, *(changed for _text, changed in entries)])
        if not folders:
            return Look(digest.hexdigest(), newest)
        folder = folders.pop()
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:
            entries = []
            continue
        seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as files_there:
            below = sorted((file for file in files_there if file.name != "__pycache__"), key=lambda file: file.name)
        entries = [_entry(file.path, file) for file in below]
        folders += [file.path for file in below if file.is_dir()]


def _entry(path: str, file: os.DirEntry[str] | None = None) -> tuple[str, int]:
    """Return a line that another state of a file would differ in, and when it changed; of a folder only its name."""
    try:
        status = file.stat(follow_symlinks=False) if file else os.lstat(path)
        target = os.stat(path) if stat.S_ISLNK(status.st_mode) else status
    except (OSError, ValueError):
        return f"{path}\0", 0  # there is none: also where a link leads nowhere
    if stat.S_ISDIR(target.st_mode):
        return f"{path}/", 0
    times = [(it.st_mode, it.st_size, it.st_mtime_ns, it.st_ctime_ns, it.st_ino) for it in (status, target)]
    return f"{path}\0{times}", max(status.st_ctime_ns, target.st_ctime_ns)


def _time_of_files() -> int:
    """Return the time by the clock of the file system, which may be another machine's; in ns since 1970."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    probe = FOLDER / f".clock.{os.getpid()}"
    probe.touch()
    try:
        return probe.stat().st_ctime_ns
    finally:
        probe.unlink()


def _plain(value: Any) -> Any:
    """Return a value of Snakemake's as JSON can hold it, the same in every process; else no plan is remembered."""
    if dataclasses.is_dataclass(value):
        return vars(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return value.name if isinstance(value, Enum) else repr(value)
