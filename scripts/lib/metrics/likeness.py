"""Which runs were made alike: of the same images, by the same code and packages, on the same kind of machine."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from scripts.lib.base.files import find_json
from scripts.lib.runs.provenance import DATA
from scripts.lib.runs.run_folder import RunFolder

#: In what runs may differ beside their settings, as the leaderboard names it.
KINDS = ("images", "code", "packages", "machine")


def read_likeness(folder: Path) -> tuple[str, ...]:
    """Return what a run was made of, one text for each of KINDS; all empty where its provenance does not say."""
    provenance = find_json(RunFolder(folder).provenance)
    if "inputs" not in provenance:
        return ("",) * len(KINDS)
    inputs, machine = provenance["inputs"], provenance["circumstances"]["machine"]
    is_fold = "fold" in provenance["run"]  # each has a split of its own
    names = [name for name in inputs["files"] if DATA.fullmatch(name) or name == "classes.txt"]
    names += [name for name in inputs["files"] if name.startswith("splits/") and not is_fold]
    device = inputs["training"].get("device")
    code = inputs["code"]
    return (
        _text({name: inputs["files"][name]["sha256"] for name in sorted(names)}),
        str(code.get("computes_sha256") or code.get("sha256")),
        _text([inputs["environment"].get("lock_sha256"), inputs["versions"].get("torch")]),
        _text([device, sorted({gpu["name"] for gpu in machine.get("gpus") or []} if device == "cuda" else [])]),
    )


def _text(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def set_apart(runs: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """Give runs that are not made as most are a name of their own: ``resnet (other code)``.

    So no mean and no test mixes them with others.

    Returns
    -------
    runs : with the names.
    groups : of each experiment what it was made of; those of one group may be compared.
    """
    made = [read_likeness(Path(folder)) for folder in runs["folder"]]
    most, _ = Counter(made).most_common(1)[0]
    tags: dict[tuple[str, ...], str] = {most: ""}
    for each in made:
        if each not in tags:
            tag = "other " + ", ".join(kind for kind, a, b in zip(KINDS, each, most, strict=True) if a != b)
            alike = sum(known.split(" #")[0] == tag for known in tags.values())
            tags[each] = f"{tag} #{alike + 1}" if alike else tag
    names = [f"{name} ({tags[each]})" if tags[each] else str(name)
             for name, each in zip(runs["experiment"], made, strict=True)]  # fmt: skip
    return runs.assign(experiment=names), {name: tags[each] for name, each in zip(names, made, strict=True)}


def difference(a: str, b: str, groups: Mapping[str, str]) -> str:
    """Return how two experiments of *groups* were made differently; empty where they were made alike."""
    if groups.get(a, "") == groups.get(b, ""):
        return ""
    return groups.get(a) or groups.get(b) or ""
