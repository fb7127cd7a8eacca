"""The page of a run's provenance: config, data, weights, machine, software."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from scripts.lib.pages import html


def render_html(provenance: Mapping[str, Any], config_text: str) -> str:
    """Return the record as a self-contained page: tables of it all, and config.py's text."""
    inputs, circumstances = provenance["inputs"], provenance["circumstances"]
    parts = []
    for title, content in (
        ("Run", provenance["run"] | inputs["training"]),
        ("Settings", inputs["settings"]),
        ("Code", inputs["code"]),
        ("Environment", inputs["environment"]),
        ("Versions", inputs["versions"]),
        ("What went in", None),
        ("What came out", None),
        ("Training", circumstances["training"]),
        ("Machine", circumstances["machine"]),
        ("Set-up", circumstances["setup"]),
    ):
        files = {"What went in": inputs["files"], "What came out": provenance["outputs"]}.get(title)
        parts.append(html.section(title))
        parts += _file_tables(files) if files is not None else [html.table((), _flatten(content))]
    parts += [html.section("config.py"), html.preformatted(config_text)]
    return html.page(f"Config and environment: {circumstances['training']['folder']}", parts)


def _file_tables(files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    rows = [
        (name, str(entry["path"]), f"{entry['bytes']:,}" if entry["bytes"] is not None else "-", entry["sha256"])
        for name, entry in files.items()
    ]
    weights = [
        (f"{name}: weights_sha256", entry["weights_sha256"])
        for name, entry in files.items()
        if "weights_sha256" in entry
    ]
    tables = [html.table(("file", "path", "bytes", "sha256"), rows, numbers=(2,))]
    if weights:
        tables.append(html.table((), weights, caption="Hashes over the tensors: equal for equal models"))
    return tables


def _flatten(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Return nested mappings and lists as (dotted name, text) rows."""
    if isinstance(value, Mapping):
        items = [(f"{name}.{key}" if name else str(key), entry) for key, entry in value.items()]
    elif isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        items = [(f"{name}[{place}]", entry) for place, entry in enumerate(value)]
    else:
        return [(name, "-" if value is None else value if isinstance(value, str) else json.dumps(value))]
    return [row for key, entry in items for row in _flatten(entry, key)]
