"""The page of a run's provenance: config, data, weights, machine, software."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from scripts.lib.pages import templates


def provenance_page(provenance: Mapping[str, Any], config_text: str) -> str:
    """Return the record as a self-contained page: tables of it all, and config.py's text."""
    inputs, circumstances = provenance["inputs"], provenance["circumstances"]
    facts = {
        "Run": provenance["run"] | inputs["training"],
        "Settings": inputs["settings"],
        "Code": inputs["code"],
        "Environment": inputs["environment"],
        "Versions": inputs["versions"],
    }
    history = {
        "Training": circumstances["training"],
        "Machine": circumstances["machine"],
        "Set-up": circumstances["setup"],
    }
    return templates.page(
        "provenance.html",
        f"Config and environment: {circumstances['training']['folder']}",
        facts={title: flatten(content) for title, content in facts.items()},
        files={"What went in": inputs["files"], "What came out": provenance["outputs"]},
        history={title: flatten(content) for title, content in history.items()},
        config=config_text,
    )


def flatten(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Return nested mappings and lists as (dotted name, text) rows."""
    if isinstance(value, Mapping):
        items = [(f"{name}.{key}" if name else str(key), entry) for key, entry in value.items()]
    elif isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        items = [(f"{name}[{index}]", entry) for index, entry in enumerate(value)]
    else:
        return [(name, "-" if value is None else value if isinstance(value, str) else json.dumps(value))]
    return [row for key, entry in items for row in flatten(entry, key)]
