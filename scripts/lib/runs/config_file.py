"""A run's config.py: written as plain Python literals, read back without running it."""

from __future__ import annotations

import ast
import pprint
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.lib.base.files import atomic_path
from scripts.lib.base.problems import UserError


def render(config: Mapping[str, Any], command: str, base_config: str) -> str:
    """Return *config* as a Python file: values by repr, so that no name from outside can become code."""
    lines = [
        f"# {command}",
        f"# Made by mimflow's patch_config from mmcls's {base_config}; to change it, change configs/*.yaml.",
        "",
    ]
    for key, value in config.items():
        text = pprint.pformat(value, width=120, sort_dicts=False)
        # mmcv substitutes {{ fileDirname }} and the like in the text of a config; no name may trigger it.
        lines.append(f"{key} = " + text.replace("{{", "{\\x7b"))
    return "\n".join(lines) + "\n"


def write_config(path: Path, config: dict[str, Any], command: str, base_config: str) -> None:
    """Write *config* and read it back with mmcv: it must hold what was meant."""
    from mmcv import Config

    with atomic_path(path) as temporary:
        temporary.write_text(render(config, command, base_config), encoding="utf-8")
        read = Config.fromfile(str(temporary), import_custom_modules=False)
        if plain(read._cfg_dict.to_dict()) != config:
            raise UserError(f"{path}: mmcv reads other values than were written; please report this config")


def read_config(path: Path) -> dict[str, Any]:
    """Return the values of a config.py that :func:`write_config` wrote; nothing in it is executed, nothing imported.

    Raises
    ------
    UserError : the file is absent, or holds more than assignments of plain values.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        return {ast.unparse(node.targets[0]): ast.literal_eval(node.value) for node in tree.body}  # type: ignore
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such config: check the path") from None
    except (SyntaxError, ValueError, AttributeError):
        raise UserError(f"{path} is not a config.py of mimflow's: it holds more than plain values") from None


Config = dict[str, Any]


def plain(value: Any) -> Any:
    """Return *value* with mmcv's ConfigDicts as dicts, so that it can be written and compared."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value


def nodes(value: Any) -> Iterator[Config]:
    """Yield every dict in *value*, at any depth."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from nodes(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from nodes(item)
