"""mmcls config files of the user's own (``base_config: path/to/config.py``), read as data: nothing in them is run.

The language of mmcls 0.x's configs as far as it is plain values: assignments of numbers, texts, lists and dicts
(``dict(...)`` too), names that were assigned above, sums and products of numbers, ``_base_`` with ``_delete_`` and
``{{_base_.name}}``. Anything else is refused with its line.
"""

from __future__ import annotations

import ast
import copy
import importlib.util
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from scripts.lib.base.problems import UserError
from scripts.lib.data.image_formats import in_words

Config = dict[str, Any]
#: Of which mmcls's own configs begin in MMEngine's notation, ``mmcls::resnet/resnet18_8xb32_in1k.py``.
PACKAGE = "mmcls::"
#: Bytes of a config file, at most: the longest of mmcls has 4 kB.
LARGEST = 1_000_000
#: Configs that inherit from each other, one below the other, at most.
DEEPEST = 16
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}  # fmt: skip
#: What mmcls's train.py reads of every config: as its ``default_runtime.py`` and most of its schedules have it.
RUNTIME: Config = {"log_level": "INFO", "dist_params": {"backend": "nccl"}, "optimizer_config": {"grad_clip": None}}
#: What a base must have: keys, dotted, and what they are for.
NEEDED = {
    "model.backbone.type": "the network",
    "model.head.type": "the network's last layer",
    "data.train.pipeline": "how a training image is read and augmented",
    "data.test.pipeline": "how a test image is read",
    "optimizer.type": "the optimizer",
    "optimizer.lr": "its learning rate",
    "lr_config.policy": "the schedule of the learning rate",
    "runner.type": "how long training is: dict(type='EpochBasedRunner', max_epochs=...)",
    "runner.max_epochs": "the length of the schedule",
}


def is_file(base_config: str) -> bool:
    """Tell whether a base config is a file of the user's, not a name: it ends in ``.py`` and is in a folder."""
    return base_config.endswith(".py") and "/" in base_config


@cache
def mim_folder() -> Path:
    """Return the folder of the installed mmcls that holds its configs and metafiles.

    Raises
    ------
    UserError : mmcls is not installed.
    """
    spec = importlib.util.find_spec("mmcls")  # finds, does not import
    folder = Path(spec.origin).parent / ".mim" if spec and spec.origin else None
    if not folder or not (folder / "configs").is_dir():
        raise UserError("mmcls's model zoo is not installed beside this Python: run `make setup`, then use .venv")
    return folder


@dataclass
class Reading:
    """What was read of a config file and of the files that it inherits from.

    Attributes
    ----------
    values : all keys, those of the bases included.
    files : the user's own files among those that were read, the config itself first.
    of_mmcls : paths in ``_base_`` that are not there beside the file, and stand for mmcls's own config.
    """

    values: Config = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    of_mmcls: list[str] = field(default_factory=list)


def read(path: Path) -> Reading:
    """Read a config file of the user's and what it inherits.

    Raises
    ------
    UserError : one line with file and line: there is no such file, or it holds more than plain values.
    """
    result = Reading()
    values = _read(Path(path).expanduser(), result, [])
    values.pop("_deprecation_", None)
    result.values = values
    return result


def read_base(base_config: str) -> Config:
    """Return a config file of the user's that can be a base: it has a network, pipelines, an optimizer and a schedule.

    Raises
    ------
    UserError : as :func:`read`; what a base needs is missing; or it imports code, which mimflow does not run.
    """
    values = copy.deepcopy(_cached(base_config, _state(base_config)).values)
    for key, meaning in NEEDED.items():
        node: Any = values
        for step in key.split("."):
            while isinstance(node, Mapping) and step in ("pipeline",) and isinstance(node.get("dataset"), Mapping):
                node = node["dataset"]  # RepeatDataset, ClassBalancedDataset
            node = node.get(step) if isinstance(node, Mapping) else None
        if node is None:
            raise UserError(
                f"{base_config}: it has no {key} ({meaning}), which a base config needs", "add it to the file"
            )
    if imported := (values.get("custom_imports") or {}).get("imports"):
        names = ", ".join(imported) if isinstance(imported, list) else str(imported)
        raise UserError(
            f"{base_config}: custom_imports ({names}) would run code of yours, which a base config cannot",
            "leave it out, and use what mmcls and mmcv have",
        )
    return copy.deepcopy(RUNTIME) | values


def samples_per_gpu(base_config: str) -> int | None:
    """Return the images a step and GPU of a config file of the user's; None where it does not say."""
    data = read_base(base_config)["data"]
    value = data.get("samples_per_gpu") or (data.get("train_dataloader") or {}).get("samples_per_gpu")
    return value if isinstance(value, int) and value > 0 else None


def max_epochs(base_config: str) -> int:
    """Return the length of training, in epochs, of a config file of the user's."""
    return int(read_base(base_config)["runner"]["max_epochs"])


def files(base_config: str) -> list[Path]:
    """Return the user's files that a config file is made of: itself, then those that it inherits from."""
    return list(_cached(base_config, _state(base_config)).files)


def replaced_bases(base_config: str) -> list[str]:
    """Return the entries of ``_base_`` that stand for mmcls's own configs."""
    return list(_cached(base_config, _state(base_config)).of_mmcls)


def _state(base_config: str) -> tuple[int, int]:
    try:
        state = Path(base_config).expanduser().stat()
    except OSError:
        return 0, 0
    return state.st_mtime_ns, state.st_size


@cache
def _cached(base_config: str, _state: tuple[int, int]) -> Reading:
    return read(Path(base_config))


def _read(path: Path, result: Reading, above: list[Path]) -> Config:
    if path.resolve() in above or len(above) > DEEPEST:
        raise UserError(f"{above[-1]}: its _base_ leads back to itself: {path}")
    if not _is_of_mmcls(path):
        result.files.append(path)
    bases: Config = {}
    values: Config = {}
    inherited: list[str] = []
    for node in _parse(path).body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
            raise _refusal(path, node)
        name = node.targets[0].id
        value = _value(node.value, path, values, bases)
        if name == "_base_":
            inherited = [value] if isinstance(value, str) else list(value)
            for entry in inherited:
                _add_base(bases, _read(_base_path(path, node, entry, result), result, [*above, path.resolve()]), path)
            continue
        values[name] = value
    return _merged(bases, values, path)


def _parse(path: Path) -> ast.Module:
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path}: larger than {LARGEST // 1000} kB, which no config file is: check the path")
        content = path.read_bytes()
        if (what := in_words(content)) and what != "a text" and what != "the file is empty":
            raise UserError(f"{path}: {what}, no config file", "name a .py of mmcls")
        return ast.parse(content.decode("utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such config file: check the path") from None
    except SyntaxError as error:
        raise UserError(f"{path}, line {error.lineno}: it is no Python: {error.msg}") from None
    except (OSError, ValueError, MemoryError, RecursionError) as error:
        raise UserError(f"{path}: it cannot be read as a config file: {error}") from None


def _is_of_mmcls(path: Path) -> bool:
    return path.resolve().is_relative_to(mim_folder().resolve())


def _base_path(path: Path, node: ast.stmt, entry: Any, result: Reading) -> Path:
    """Return the file that an entry of ``_base_`` names: beside the config, else mmcls's of that folder and name."""
    if not isinstance(entry, str):
        raise _refusal(path, node)
    beside = path.parent / entry
    if not entry.startswith(PACKAGE) and beside.is_file():
        return beside
    steps = [step for step in PurePosixPath(entry.removeprefix(PACKAGE)).parts if step not in ("..", ".", "configs")]
    folder = mim_folder() / "configs"
    matches = [folder.joinpath(*steps)] if len(steps) > 1 else sorted(folder.glob(f"*/{steps[0] if steps else '-'}"))
    for match in matches:
        if match.is_file() and _is_of_mmcls(match):
            if not _is_of_mmcls(path):
                result.of_mmcls.append(entry)
            return match
    raise UserError(
        f"{path}, line {node.lineno}: _base_: there is no {entry}, beside it or in mmcls's configs",
        f"give a path relative to the file, or {PACKAGE}FOLDER/NAME.py",
    )


def _add_base(bases: Config, base: Config, path: Path) -> None:
    if twice := sorted(bases.keys() & base.keys()):
        raise UserError(f"{path}: two files of its _base_ have the key {twice[0]}, which mmcv refuses: keep one")
    bases |= base


def _merged(base: Config, new: Config, path: Path) -> Config:
    """Return *base* changed by *new* as mmcv merges: dicts key by key, unless ``_delete_``, all else as a whole."""
    result = dict(base)
    for key, value in new.items():
        if not isinstance(value, dict):
            result[key] = value
            continue
        value = dict(value)
        replaces = bool(value.pop("_delete_", False))
        old = result.get(key)
        if old is not None and not replaces and not isinstance(old, dict):
            raise UserError(
                f"{path}: {key} is a dict here and a {type(old).__name__} in its _base_, which mmcv refuses to merge",
                f"add _delete_=True to {key}",
            )
        result[key] = _merged(old if isinstance(old, dict) and not replaces else {}, value, path)
    return result


# --- values -----------------------------------------------------------------------------------------------------------


def _value(node: ast.expr, path: Path, names: Mapping[str, Any], bases: Mapping[str, Any]) -> Any:
    """Return the plain value of an expression, a copy of its own."""

    def value(inner: ast.expr) -> Any:
        return _value(inner, path, names, bases)

    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None):
            if isinstance(node.value, str) and "{{" in node.value:
                raise _refusal(path, node)  # mmcv would put names of folders in its place
            return node.value
        case ast.List(elts=items):
            return [value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(value(item) for item in items)
        case ast.Dict(keys=keys, values=values):
            return _pairs(((key and value(key), inner) for key, inner in zip(keys, values, strict=True)), value, path)
        case ast.Call(func=ast.Name(id="dict"), args=[], keywords=keywords):
            return _pairs(((word.arg, word.value) for word in keywords), value, path)
        case ast.Name(id=name) if name in names:
            return copy.deepcopy(names[name])
        case ast.Set(elts=[ast.Set(elts=[ast.Attribute() as attribute])]):
            return _of_base(attribute, path, bases)
        case ast.UnaryOp(op=ast.USub(), operand=operand) if _is_number(number := value(operand)):
            return -number
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in ARITHMETIC:
            numbers = value(left), value(right)
            joins = isinstance(sign, ast.Add) and all(isinstance(item, str) for item in numbers)  # data_root + 'train'
            if joins or all(map(_is_number, numbers)):
                try:
                    return ARITHMETIC[type(sign)](*numbers)
                except (ArithmeticError, ValueError):
                    raise _refusal(path, node) from None
        case ast.ListComp() | ast.Subscript() if _is_of_mmcls(
            path
        ):  # the installed package's own words, which mmcv runs as well
            return eval(ast.unparse(node), {"__builtins__": {"round": round, "range": range}, **names})
    raise _refusal(path, node)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _pairs(pairs: Iterator[tuple[Any, ast.expr]], value: Callable[[ast.expr], Any], path: Path) -> Config:
    """Return a dict; a key of None stands for ``**other``."""
    result: Config = {}
    for key, inner in pairs:
        if key is None:
            other = value(inner)
            if not isinstance(other, dict):
                raise _refusal(path, inner)
            result |= other
        elif isinstance(key, str):
            result[key] = value(inner)
        else:
            raise _refusal(path, inner)
    return result


def _of_base(node: ast.expr, path: Path, bases: Mapping[str, Any]) -> Any:
    """Return what ``{{_base_.a.b}}`` stands for."""
    match node:
        case ast.Name(id="_base_"):
            return bases
        case ast.Attribute(value=inner, attr=name):
            above = _of_base(inner, path, bases)
            if isinstance(above, Mapping) and name in above:
                return copy.deepcopy(above[name])
    raise _refusal(path, node)


def _refusal(path: Path, node: ast.AST) -> UserError:
    """Return the error of a line that is more than plain values."""
    text = " ".join(ast.unparse(node).split())
    text = text if len(text) <= 60 else text[:57] + "..."
    return UserError(
        f"{path}, line {getattr(node, 'lineno', 1)}: more than plain values, so it is not run: {text!a}",
        "write it as numbers, texts, lists and dicts: `mim run mmcls print_config FILE` prints a config so",
    )
