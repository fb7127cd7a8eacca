"""Write what is generated from the settings: the JSON schema for editors and the reference of all keys."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from scripts.lib.base.console import run_cli
from scripts.lib.base.files import write_text
from scripts.lib.base.problems import UserError
from scripts.lib.settings.schema import Settings, Site

logger = logging.getLogger(__name__)

SCHEMA = Path("configs/schema.json")
REFERENCE = Path("docs/settings.md")

HEADER = """# All keys

Every key of a file in `configs/`. This page is generated from `scripts/lib/settings/` by `make docs`; a test fails if
they differ. Editors that support JSON schemas complete and check the keys if a file in `configs/` begins with the line
`# yaml-language-server: $schema=schema.json`.

An unknown key, a wrong type, a missing file or an impossible value stops the workflow before anything runs, with one
line that names the file, the key and what is allowed. To check a file without running it:
`python -m scripts.check_settings configs/mine.yaml`.
"""

SITE_HEADER = """# Keys of a site

Every key of `profiles/<site>/site.yaml`; Snakemake's own options are in `profile.yaml` beside it. Only `device`
influences a result, and it is recorded in config.py. In paths of folders, `~` and `$VARIABLES` are replaced on the node
where they are used.
"""


def schema_text() -> str:
    """Return the JSON schema of a configuration file."""
    return json.dumps(Settings.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def reference_text() -> str:
    """Return the reference of all keys as Markdown."""
    parts = [HEADER]
    for prefix, section in sections(Settings, ""):
        title = f"`{prefix}`" if prefix else "Top level"
        parts.append(f"## {title}\n\n{(section.__doc__ or '').strip()}\n")
        parts += _table(section)
    parts += [SITE_HEADER, *_table(Site)]
    return "\n".join(parts)


def _table(section: type[BaseModel]) -> list[str]:
    rows = ["| key | type | default | meaning |\n|---|---|---|---|"]
    for name, field in section.model_fields.items():
        default = "required" if field.is_required() else f"`{_yaml(field.get_default(call_default_factory=True))}`"
        rows.append(f"| `{name}` | {type_text(field.annotation)} | {default} | {_cell(field.description or '')} |")
    return [*rows, ""]


def sections(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield every section with its dotted key, in the order of the file."""
    yield prefix, model
    for name, field in model.model_fields.items():
        key = f"{prefix}.{name}" if prefix else name
        for nested, suffix in dict.fromkeys(_nested(field.annotation)):  # a section may stand alone or in a list
            yield from sections(nested, key + suffix)


def _nested(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, ""
    elif get_origin(annotation) is dict:
        for model, suffix in _nested(get_args(annotation)[1]):
            yield model, ".<name>" + suffix
    else:
        for part in get_args(annotation):
            yield from _nested(part)


def type_text(annotation: Any) -> str:
    """Return a type as a user would say it."""
    if annotation is type(None):
        return ""
    if isinstance(annotation, type):
        names = {int: "whole number", float: "number", str: "text", bool: "true or false", dict: "section"}
        return "section" if issubclass(annotation, BaseModel) else names.get(annotation, "any value")
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is list:
        items = type_text(parts[0])
        return f"list of {'sections' if items == 'section' else items}"
    if origin is dict:
        return "names to sections" if list(_nested(annotation)) else "keys to values"
    if origin is None:
        return "any value"
    if all(isinstance(part, str) for part in parts):
        return " or ".join(f"`{part}`" for part in parts)
    if hasattr(annotation, "__metadata__"):
        return type_text(parts[0])
    return " or ".join(dict.fromkeys(text for part in parts if (text := type_text(part))))


def _yaml(value: Any) -> str:
    if value is PydanticUndefined or value is None:
        return "none"
    if isinstance(value, BaseModel):
        value = value.model_dump()
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.document_settings", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is not up to date")
    return parser


def main(args: argparse.Namespace) -> None:
    """Write, or check, both files."""
    for path, text in ((SCHEMA, schema_text()), (REFERENCE, reference_text())):
        if args.check:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                raise UserError(f"{path} differs from scripts/lib/settings/: run `make docs` and commit the result")
        else:
            write_text(path, text)
            logger.info("%s written", path)


if __name__ == "__main__":
    run_cli(build_parser, main)
