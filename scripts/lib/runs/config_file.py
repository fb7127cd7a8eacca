"""A run's config.py: written as plain Python literals, read back without running it, checked before mmcv runs it."""

from __future__ import annotations

import ast
import hashlib
import pprint
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts.lib.base.environment import ROOT
from scripts.lib.base.files import atomic_path, write_text
from scripts.lib.base.problems import UserError
from scripts.lib.runs import config_values

#: Names of the configs that patch_config of this checkout wrote with values that may import code: their sha256.
WRITTEN = ROOT / ".mimflow" / "configs"
#: By which Python would read a file in another encoding than we do, and with it other code.
CODING = re.compile(r"coding[:=]")
HEADER_LINES = 3


def render(config: Mapping[str, Any], command: str, base_config: str) -> str:
    """Return *config* as a Python file: values by repr, so that no name from outside can become code."""
    # The name of a file, not its path: the same file in another folder makes the same config.
    name = repr(base_config.rsplit("/", 1)[-1])
    origin = base_config if base_config.startswith("timm/") else f"mmcls's {base_config}"
    origin = f"the file {name}" if base_config.endswith(".py") else origin
    lines = [
        f"# {command}",
        f"# Made by mimflow's patch_config from {origin}; to change it, change configs/*.yaml.",
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
    if any(config_values.unknown(config, with_paths=True)):  # overrides of the settings' owner, who thereby trusts them
        _trust(path)


def copy_config(source: Path, target: Path, start: Path) -> None:
    """Copy a config.py to another folder, for a training that starts from the weights *start*.

    Raises
    ------
    UserError : as :func:`read_trusted`.
    """
    config = read_trusted(source) | {"load_from": str(start)}
    header = source.read_text(encoding="utf-8").split("\n", HEADER_LINES)[:HEADER_LINES]
    header[0] = header[0].replace(str(source), str(target)).replace(str(source.parent), str(target.parent))
    body = render(config, "", "").split("\n", HEADER_LINES)[HEADER_LINES:]
    write_text(target, "\n".join([*header, *body]))
    if was_written_here(source):
        _trust(target)


def _trust(path: Path) -> None:
    """Note that this checkout wrote a config with values that may import code: its owner trusts them."""
    write_text(WRITTEN / _digest(path.read_text(encoding="utf-8")), f"{path}\n")


def read_config(path: Path) -> dict[str, Any]:
    """Return the values of a config.py that :func:`write_config` wrote; nothing in it is executed, nothing imported.

    Raises
    ------
    UserError : the file is absent, or holds more than assignments of plain values.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        return {_name(node): ast.literal_eval(node.value) for node in tree.body}  # type: ignore[attr-defined]
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such config: check the path") from None
    except (SyntaxError, ValueError, AttributeError, TypeError, MemoryError, RecursionError):
        raise UserError(f"{path} is not a config.py of mimflow's: it holds more than plain values") from None


def _name(node: ast.AST) -> str:
    """Return the one plain name that an assignment has on its left."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    raise ValueError("more than an assignment to a name")


def read_trusted(path: Path, *, trust: bool = False) -> dict[str, Any]:
    """Return the values of a config.py from which mmcls may build what they name.

    Parameters
    ----------
    trust : accept any values; the word of the person who typed the command.

    Raises
    ------
    UserError : no config.py of mimflow's, or one with a value that is not known to be harmless
        (:mod:`scripts.lib.runs.config_values`) and that patch_config of this checkout did not write.
    """
    config = read_config(path)
    if trust or was_written_here(path):
        return config
    for key, value in config_values.unknown(config, with_paths=True):
        raise UserError(
            f"{path}: refused: {config_values.described(key, value)} is not known to be harmless",
            "of a run of yours, remove it and `make run` makes it again; if you trust its maker, predict takes --trust",
        )
    return config


def check_executable(path: Path) -> dict[str, Any]:
    """Return the values of a config.py that a trainer may execute, as mmcv does; it is exactly what we would write.

    Raises
    ------
    UserError : as :func:`read_trusted`, or the file is not as patch_config writes it.
    """
    config, text = read_trusted(path), path.read_text(encoding="utf-8")
    header, body = text.split("\n", HEADER_LINES)[:HEADER_LINES], text.split("\n", HEADER_LINES)[HEADER_LINES:]
    written = render(config, "", "").split("\n", HEADER_LINES)[HEADER_LINES:]
    comments = all(line.startswith("# ") and not CODING.search(line) for line in header[:2]) and header[2:] == [""]
    if body != written or not comments or "{{" in text:
        raise UserError(
            f"{path} is not as patch_config writes it, so it is not executed", "remove it: it is made again"
        )
    return config


def was_written_here(path: Path) -> bool:
    """Tell whether patch_config of this checkout wrote a config.py with values that may import code."""
    return (WRITTEN / _digest(path.read_text(encoding="utf-8"))).is_file()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


Config = dict[str, Any]


def pixel_cache_folder(config: Mapping[str, Any]) -> Path | None:
    """Return the folder of the pixel cache that the train split of *config* is read from, or None."""
    steps = [step for step in config["data"]["train"]["pipeline"] if step["type"] == "LoadPackedImage"]
    return Path(steps[0]["folder"]) if steps else None


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
