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
from scripts.lib.pages.templates import render
from scripts.lib.settings.schema import Settings, Site

logger = logging.getLogger(__name__)

SCHEMA = Path("configs/schema.json")
REFERENCE = Path("docs/settings.md")


def schema_text() -> str:
    """Return the JSON schema of a configuration file."""
    return json.dumps(Settings.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


def reference_text() -> str:
    """Return the reference of all keys as Markdown."""
    described = []
    for prefix, section in sections(Settings, ""):
        described.append((f"`{prefix}`" if prefix else "Top level", (section.__doc__ or "").strip(), _rows(section)))
    return render("settings.md", sections=described, site=_rows(Site))


def _rows(section: type[BaseModel]) -> Iterator[tuple[str, str, str, str]]:
    """Yield key, type, default and meaning of each field."""
    for name, field in section.model_fields.items():
        default = "required" if field.is_required() else f"`{_yaml(field.get_default(call_default_factory=True))}`"
        meaning = (field.description or "").replace("|", "\\|").replace("\n", " ")
        yield name, type_text(field.annotation), default, meaning


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
        for alternative in get_args(annotation):
            yield from _nested(alternative)


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
    if all(isinstance(value, str) for value in parts):
        return " or ".join(f"`{value}`" for value in parts)
    if hasattr(annotation, "__metadata__"):
        return type_text(parts[0])
    return " or ".join(dict.fromkeys(filter(None, map(type_text, parts))))


def _yaml(value: Any) -> str:
    if value is PydanticUndefined or value is None or isinstance(value, str):
        return value if isinstance(value, str) else "none"
    return json.dumps(value.model_dump() if isinstance(value, BaseModel) else value, ensure_ascii=False)


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
