"""The recorded sha256 of a fetched file, in the format of `sha256sum -c`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class HashRecord:
    """A known hash and the source that it belongs to."""

    sha256: str
    source: str


def read_record(path: Path) -> HashRecord | None:
    """Return what an earlier fetch recorded, None when there is nothing, or nothing that can be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    match = re.match(r"([0-9a-f]{64})  [^\n]*\n(?:# source: ([^\n]*)\n)?", text)
    return HashRecord(match[1], match[2] or "") if match else None


def format_record(record: HashRecord, archive: str) -> str:
    """Return the record as text that ``sha256sum -c`` reads; the source stands in a comment."""
    return f"{record.sha256}  {archive}\n# source: {' '.join(record.source.split())}\n"
