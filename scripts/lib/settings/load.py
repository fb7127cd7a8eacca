"""Read configuration files and the site's into checked settings."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from scripts.lib.base.problems import UserError
from scripts.lib.settings.messages import describe
from scripts.lib.settings.schema import Settings, Site
from scripts.lib.settings.sections import Section

S = TypeVar("S", bound=Section)


def load_site(folder: Path) -> Site:
    """Return what site.yaml in *folder* says.

    Raises
    ------
    UserError : there is no such file, or one line that names its first wrong key and what is allowed.
    """
    file = folder / "site.yaml"
    try:
        return Site.model_validate(read_file(file, empty={}))
    except ValidationError as error:
        raise UserError(f"{file}: {describe(error, Site)}") from None


def load_settings(config: Mapping[str, Any], files: Sequence[str | Path] = ()) -> Settings:
    """Check *config*, the parsed content of *files*.

    Raises
    ------
    UserError : one line that names the file, the first wrong key and what is allowed.
    """
    try:
        return Settings.model_validate(config)
    except ValidationError as error:
        raise UserError(f"{file_names(files)}: {describe(error)}") from None


def parse_section(model: type[S], text: str, option: str, name: str) -> S:
    """Return the section in *text*, JSON, as a rule's script is given it; null counts as absent.

    Parameters
    ----------
    model : the section.
    option : the option that *text* is of, for messages.
    name : the section's dotted key, for messages.

    Raises
    ------
    UserError : no JSON object, or one line that names the first wrong key and what is allowed.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UserError(f"{option} is no JSON ({error}): give the section {name}") from error
    if not isinstance(values, dict):
        raise UserError(f"{option}: expected a JSON object, the section {name}")
    try:
        return model.model_validate({key: value for key, value in values.items() if value is not None})
    except ValidationError as error:
        raise UserError(describe(error, model, name)) from None


def file_names(files: Sequence[str | Path]) -> str:
    """Return the configuration files as a message names them."""
    return ", ".join(os.path.relpath(file) for file in files) or "the configuration"


def read_file(path: Path, empty: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the content of a YAML (or JSON) configuration file; *empty*, where given, for one without any key.

    Raises
    ------
    UserError : no such file, no YAML, or no keys in it.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{path}: there is no such configuration file; examples are in configs/") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text: save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        raise UserError(f"{path}:{position} no valid YAML ({error.problem}): check quotes and indentation") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: no valid YAML ({error}): check quotes and indentation") from None
    if content is None and empty is not None:
        return empty
    if not isinstance(content, dict):
        raise UserError(f"{path}: it has no keys; it needs at least dataset and experiments (see configs/demo.yaml)")
    return content
