"""A problem that a check finds: what is wrong, and what to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: what, and what to do. *fatal*: a run would fail because of it."""

    what: str
    remedy: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{'problem' if self.fatal else 'note'}: {self.what}: {self.remedy}"
