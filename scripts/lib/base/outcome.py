"""How a command, or an attempt to train, ended: as data, for those who repeat it, show it or go on from there."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from scripts.lib.base.files import find_json, write_json

#: Of the files beside the logs; it takes the place of a log's own suffix.
SUFFIX = ".outcome.json"


#: Exceptions that another attempt may not meet: of a GPU, the network between them, memory, a worker that was killed.
PASSING = re.compile(
    r"^(\w+\.)*(MemoryError|ConnectionError|TimeoutError|BrokenPipeError|BrokenProcessPool|OSError)\b"
    r"|CUDA error|cudnn|cublas|nccl|DataLoader worker|can't allocate memory|timed out",
    re.IGNORECASE,
)


class Ending(StrEnum):
    """The ways in which a command ends."""

    FINISHED = "finished"
    STOPPED = "stopped"  # it was asked to, has saved its state, and the same command goes on from there
    INTERRUPTED = "interrupted"  # by Ctrl-C
    FAILED = "failed"
    KILLED = "killed"  # nobody can write this for a process that was killed; whoever finds no end on record says it


@dataclass(frozen=True)
class Outcome:
    """How something ended; *what* went wrong and the *remedy* are one line each, empty where there is none.

    *again*: another attempt may succeed though nobody mends anything.
    """

    ending: Ending
    what: str = ""
    remedy: str = ""
    again: bool = False

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}" if self.remedy else self.what

    @classmethod
    def read(cls, path: Path) -> Outcome | None:
        """Return the outcome in a file; None where there is none."""
        content = find_json(path)
        try:
            if not content:
                return None
            again = content.get("again") is True
            return cls(Ending(content["outcome"]), str(content["what"]), str(content["remedy"]), again)
        except (KeyError, ValueError):
            return None

    def write(self, path: Path) -> None:
        """Write it to a file; on a full disk there is none."""
        with suppress(OSError):
            # A name of a file need not be UTF-8.
            what, remedy = (text.encode("utf-8", "backslashreplace").decode() for text in (self.what, self.remedy))
            write_json(path, {"outcome": self.ending, "what": what, "remedy": remedy, "again": self.again})


def may_pass(error: str) -> bool:
    """Tell whether an exception, ``RuntimeError: CUDA error: ...``, comes from the machine rather than the program."""
    return PASSING.search(error) is not None


def is_recent(path: Path, since: float) -> bool:
    """Tell whether a file is there that was written after *since*."""
    return path.is_file() and path.stat().st_mtime >= since


def outcome_path(log: Path) -> Path:
    """Return where a command leaves its outcome, if it does not finish: beside its log."""
    return log.with_suffix(SUFFIX)
