"""Values of options that are too long for a shell line: Linux takes one word of 128 kB at most, and a line is one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from scripts.lib.base.files import write_text

#: Bytes of a value that stands in the shell line itself.
LONGEST = 16_000
#: Where the others lie, by their hash, below the working directory: of a job on another machine, too.
FOLDER = Path(".snakemake/mimflow-values")
#: No JSON begins with it.
MARK = "@"


def pass_on(value: str) -> str:
    """Return *value*, JSON, for a shell line; of a long one, the name of a file that holds it."""
    data = value.encode("utf-8", "surrogatepass")
    if len(data) <= LONGEST:
        return value
    path = FOLDER / f"{hashlib.sha256(data).hexdigest()}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, value)
    return f"{MARK}{path}"


def take(value: str) -> str:
    """Return what :func:`pass_on` was given."""
    return Path(value.removeprefix(MARK)).read_text(encoding="utf-8") if value.startswith(MARK) else value
