"""Read a provenance.json: what record_provenance wrote, and what verify, bundle and the crate build on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scripts.lib.base import products
from scripts.lib.base.files import find_json, sha256_of
from scripts.lib.base.problems import UserError
from scripts.lib.runs.run_folder import RunFolder

#: Of provenance.json; another one is refused.
FORMAT = 1
#: What it calls archives, the decisions on labels, and all files that the images and their labels came from.
ARCHIVE = re.compile(r"archive(_\d+)?")
CORRECTIONS = "corrections.csv"
DATA = re.compile(r"archive(_\d+)?|labels(_\d+)?(_[a-z]+)?\.[a-z]+|corrections\.csv")
#: What it has at least, and what may be relied on.
SECTIONS = {
    "run": {"dataset", "experiment", "seed"},
    "inputs": {"training", "settings", "files", "code", "environment", "versions"},
    "outputs": set(),
    "circumstances": {"training", "files", "machine", "recorded"},
}


def files_of_run(provenance: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return what a run was made of, and what came out, by the files' names: of each its hashes."""
    return {**provenance["inputs"]["files"], **provenance["outputs"]}


def check_made(run: Path, paths: Iterable[Path]) -> None:
    """Refuse files of a run's folder that are not what was made: by their records, else by provenance.json.

    A folder that was copied without its hidden files has no records.

    Raises
    ------
    UserError : the first that is not.
    """
    provenance = find_json(run / RunFolder.provenance)
    known = _hashes(provenance, "outputs") | _hashes(provenance.get("inputs"), "files")
    known |= _hashes(provenance.get("circumstances"), "files")
    for path in paths:
        if products.expected(path) is not None:
            products.check([path])
        elif path.name in known and (not path.is_file() or sha256_of(path) != known[path.name]):
            products.refuse(products.Change(path, path, products.CHANGED if path.is_file() else products.GONE))


def _hashes(section: Any, key: str) -> dict[str, str]:
    files = section.get(key) if isinstance(section, dict) else None
    entries = files.items() if isinstance(files, dict) else ()
    return {name: entry["sha256"] for name, entry in entries if isinstance(entry, dict) and "sha256" in entry}


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
