"""Read a provenance.json: what record_provenance wrote, and what verify, bundle and the crate build on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from scripts.lib.base.problems import UserError

#: Of provenance.json; another one is refused.
FORMAT = 1
#: What it calls archives, and all files that the images and their labels came from.
ARCHIVE = re.compile(r"archive(_\d+)?")
DATA = re.compile(r"archive(_\d+)?|labels(_\d+)?(_[a-z]+)?\.[a-z]+")
#: What it has at least, and what may be relied on.
SECTIONS = {
    "run": {"dataset", "experiment", "seed"},
    "inputs": {"training", "settings", "files", "code", "environment", "versions"},
    "outputs": set(),
    "circumstances": {"training", "files", "machine", "recorded"},
}


def read_provenance(path: Path) -> dict[str, Any]:
    """Return a provenance.json.

    Raises
    ------
    UserError : it is missing, or not one that this version writes.
    """
    try:
        provenance = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file: give the folder of a finished run, results/.../seed0") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}): it was changed, or cut short") from error
    if not isinstance(provenance, dict) or provenance.get("format") != FORMAT:
        raise UserError(f"{path}: written by another version of mimflow: `make run` writes it anew")
    for section, keys in SECTIONS.items():
        if not isinstance(provenance.get(section), dict) or keys - provenance[section].keys():
            raise UserError(f"{path}: its section {section!r} is not complete: it was changed, or cut short")
    return provenance
