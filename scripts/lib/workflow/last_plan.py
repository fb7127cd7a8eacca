"""The last plan of a command, if it found nothing to do: where nothing that decided it has changed, none is made.

A plan builds Snakemake's whole graph and compares all records, 12 ms a run. What decides it are the command, the
settings, the code, and names, sizes and times of files; they are looked at here in a fraction of that. In any doubt
the plan is made.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import re
import stat
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from scripts.lib.base.environment import ROOT, Variable
from scripts.lib.base.files import find_json, sha256_of, write_json
from scripts.lib.base.products import ALWAYS_BYTES
from scripts.lib.runs.machine import STAMP
from scripts.lib.runs.run_folder import RunFolder
from scripts.lib.settings.starting_runs import RUN
from scripts.lib.workflow.controller import LOCKS

#: Below the working directory: a file for each command.
FOLDER = Path(".snakemake/mimflow-nothing-to-do")
#: What Snakemake and mimflow leave there, and a plan looks at.
LEFT = [
    f".snakemake/{name}" for name in ("incomplete", "iocache", "metadata", "mimflow-controller.json", "mimflow-links")
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
NEVER = 1 << 63


class State(NamedTuple):
    """What tells that a file is another one, or has been changed; times in ns since 1970."""

    mode: int
    size: int
    mtime: int
    ctime: int
    inode: int


class LastPlan:
    """Whether the last plan of a command found nothing to do, and was decided by the same as one would be now.

    Parameters
    ----------
    facts : what is no file, beside the command: the settings, the environment.
    products : files and folders that the plan looks at.
    named : files that the settings may name; a folder among them is not looked into.
    folder_states : returns the state of the folders that images come from.
    """

    def __init__(
        self, facts: Any, products: list[str], named: Iterable[str], folder_states: Callable[[], list[str]]
    ) -> None:
        self._folder_states = folder_states
        self._facts = json.dumps([facts, sys.argv[1:], os.getcwd()], default=_plain)
        self._products, self._named = products, list(dict.fromkeys(named))
        self._file = FOLDER / f"{hashlib.sha256(repr(sys.argv[1:]).encode()).hexdigest()}.json"
        known = find_json(self._file)
        since, self._note = known.pop("since", None), known.pop("note", "")
        self._state = self._look(since) if isinstance(since, int) else None
        is_locked = LOCKS.is_dir() and any(LOCKS.iterdir())
        self._is_same = not is_locked and self._state is not None and self._state == {**known, "since": since}
        if not self._is_same:
            self._state = self._look()

    def note(self) -> str | None:
        """Return what a plan would say beside that there is nothing to do; None where one must be made."""
        return str(self._note) if self._is_same else None

    def remember(self, note: str) -> None:
        """Remember a plan that has found nothing to do, unless something has changed while it was made."""
        if self._state is not None and self._look(self._state["since"]) == self._state:
            self._write(self._state, note)

    def remember_run(self, find_note: Callable[[], str | None]) -> None:
        """Remember that a plan after this run finds nothing to do, unless something else has changed meanwhile.

        Parameters
        ----------
        find_note : compares all products with what would be made now; returns what such a plan would say beside that
            there is nothing to do, None if there is.
        """
        after = self._look()
        if self._state is None or after is None or after["others"] != self._state["others"]:
            return
        with suppress(OSError):  # somebody changes files at this moment: no reason for a good run to fail
            note = find_note()
            if note is not None and self._look(after["since"]) == after:
                self._write(after, note)

    def _write(self, state: Mapping[str, Any], note: str) -> None:
        with suppress(OSError):  # no room, or somebody else's folder
            write_json(self._file, {**state, "note": note})

    def _look(self, since: int | None = None) -> dict[str, Any] | None:
        """Return the state of all that decides a plan; None where that is not sure.

        Parameters
        ----------
        since : files that have changed later, in ns since 1970, are told by their content too; the default is now.
        """
        try:
            now, age = _time_of_files(), time.time() - psutil.Process().create_time()
            since = now - round(CLOCK_SECONDS * 1e9) if since is None else since
            began = now - round((age + CLOCK_SECONDS) * 1e9)
            others = hashlib.sha256(f"{self._facts}{self._folder_states()}".encode("utf-8", "surrogatepass"))
            look(others, CODE, latest=began)  # this process has read some of it already
            look(others, files=self._named, since=since)
            products = hashlib.sha256()
            look(products, self._products, since=since)
        except OSError:
            return None
        return {"others": others.hexdigest(), "products": products.hexdigest(), "since": since}


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
    """Yield each text in the settings as a path: a plan depends on whether there is such a file, and on which.

    Of a run to start from, also its weights.
    """
    if isinstance(value, str):
        yield os.path.expanduser(value)
        if re.match(RUN, value):
            yield str(RunFolder(Path(value)).best)
    elif isinstance(value, Mapping | list):
        values = [*value, *value.values()] if isinstance(value, Mapping) else value
        yield from (path for item in values for path in named_files(item))


def look(
    digest: hashlib._Hash,
    trees: Iterable[str] = (),
    files: Iterable[str] = (),
    *,
    since: int = NEVER,
    latest: int = NEVER,
) -> None:
    """Add to a hash the names, sizes and times of files and, through links, of all that is below folders.

    Parameters
    ----------
    files : of a folder among these, that it is one is all that counts.
    since : of files that have changed later, in ns since 1970, also their content: another change may bear one time.
    latest : none may have changed later.

    Raises
    ------
    OSError : what cannot be read, or changes meanwhile, or has changed too late; or too much has since *since*.
    """
    new_bytes = 0
    for path, states in _walk(trees, files):
        digest.update(f"{path}\0{states}\n".encode("utf-8", "surrogateescape"))
        changed = max((state.ctime for state in states or ()), default=0)
        if changed > latest:
            raise OSError(errno.ESTALE, "it has changed since this process began", path)
        if changed >= since and states:
            new_bytes += states[-1].size
            if new_bytes > ALWAYS_BYTES:
                raise OSError(errno.EFBIG, "too much has changed of late", path)
            digest.update(sha256_of(path).encode())


def _walk(trees: Iterable[str], files: Iterable[str]) -> Iterator[tuple[str, list[State] | None]]:
    """Yield each path with the states of the file; of a folder none, of what is not there None."""
    yield from ((path, _states(path)) for path in files)
    waiting, seen = list(trees), set()
    while waiting:
        path = waiting.pop()
        states = _states(path)
        yield path, states
        if states == []:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) not in seen:  # no link leads in circles
                seen.add((status.st_dev, status.st_ino))
                waiting += [f"{path}/{name}" for name in sorted(os.listdir(path)) if name != "__pycache__"]


def _states(path: str) -> list[State] | None:
    """Return the state of a file, and of what it leads to where it is a link; nothing of a folder."""
    try:
        status = os.lstat(path)
        target = os.stat(path) if stat.S_ISLNK(status.st_mode) else status
    except (OSError, ValueError):
        return None  # also of a link that leads nowhere
    if stat.S_ISDIR(target.st_mode):
        return []
    return [State(it.st_mode, it.st_size, it.st_mtime_ns, it.st_ctime_ns, it.st_ino) for it in (status, target)]


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
