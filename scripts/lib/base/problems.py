"""What is wrong, and what to do about it: an error that the user can mend, a problem that a check finds."""

from __future__ import annotations

from dataclasses import dataclass

#: The last line after Ctrl-C.
STOPPED = "stopped; the same command goes on"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: what, and what to do ("": nobody can say). *fatal*: a run would fail because of it."""

    what: str
    remedy: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{'problem' if self.fatal else 'note'}: {self.what}" + (f": {self.remedy}" if self.remedy else "")


class UserError(Exception):
    """A mistake that the user can mend; as text it is one line: what and where, and what to do.

    Parameters
    ----------
    what : what is wrong, and where.
    remedy : what to do; "" where *what* says it already.

    Attributes
    ----------
    again : whether another attempt may succeed though nobody has mended anything. A queue tries only such errors again.
    """

    again = False

    def __init__(self, what: object, remedy: str = "") -> None:
        super().__init__(f"{what}: {remedy}" if remedy else f"{what}")
        self.what = str(what)
        self.remedy = remedy


class PassingError(UserError):
    """What may be over at the next attempt: a network that is down, a GPU that is taken."""

    again = True


class Stopped(PassingError):
    """Training was stopped, its state is saved; the same command goes on from it."""
