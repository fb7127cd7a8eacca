"""Checkpoint files: foreign ones are opened as hostile data, ours hold tensors only and always the same bytes."""

from __future__ import annotations

import logging
import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from scripts.lib.base.console import one_line
from scripts.lib.base.files import atomic_path
from scripts.lib.base.problems import UserError

logger = logging.getLogger(__name__)
#: Where training codes keep the weights in a checkpoint, in the order tried; else the checkpoint is the weights itself.
WEIGHTS_KEYS = ("state_dict", "model_state_dict", "model_state", "model", "net", "params")
#: What torch.load raises on bytes that are not what they claim to be.
UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError,
    OverflowError, struct.error,
)  # fmt: skip
#: How files begin that people give as checkpoints: what each is, and what to do.
OTHERS = {
    b"version https://git-lfs": ("a Git LFS pointer, no checkpoint", "run `git lfs pull` there, or download the file"),
    b"\x08": ("an ONNX model or another protobuf, no checkpoint", "give the .pth that it was exported from"),
    b"\x1f\x8b": ("compressed by gzip", "unpack it with gunzip"),
    b"Rar!": ("a RAR archive", "unpack it and give the .pth that is in it"),
    b"7z\xbc\xaf": ("a 7z archive", "unpack it and give the .pth that is in it"),
    b"\x93NUMPY": ("an array of NumPy's, no checkpoint", "give the .pth of the model"),
    b"\x80": ("a pickle that torch.save did not write", "load it in Python, and torch.save its dictionary of tensors"),
}
#: How torch.save's older format (before torch 1.6) begins: its magic number as a pickle.
LEGACY_MAGIC = bytes.fromhex("6cfc9c46f9206aa85019")


def read_foreign(path: Path, name: str, *, trust_pickle: bool = False) -> dict[str, torch.Tensor]:
    """Return the weights in a PyTorch checkpoint of unknown origin.

    The file is opened with ``weights_only=True``: tensors and plain containers are built, nothing in it is run.

    Parameters
    ----------
    path : the file.
    name : what to call it in messages.
    trust_pickle : open the file even if it needs more; **whatever it holds is then run**.

    Raises
    ------
    UserError : no PyTorch checkpoint, truncated, without weights, or one that needs more than ``weights_only``.
    """
    _check_format(path, name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch 2.0 announces the end of TypedStorage
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        logger.debug("torch.load(weights_only=True) on %s", path, exc_info=True)
        needs = foreign_globals(path)
        if not needs:
            raise UserError(f"{name} is damaged (cut short?), or no PyTorch checkpoint: fetch it again") from error
        if not trust_pickle:
            more = printable(", ".join(needs[:4]))
            raise UserError(
                f"{name} holds more than weights ({more}), and opening such a file can run any code; "
                "if you trust its origin, allow this one file with checkpoint.trust_pickle: true and its sha256"
            ) from error
        logger.warning("%s holds more than weights and is trusted by the settings (checkpoint.trust_pickle)", name)
        content = _load_trusted(path, name)
    return extract_weights(content, name)


def extract_weights(content: Any, name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of the weights in a loaded checkpoint; optimizer, schedule and the like are left behind.

    Prefixes (``module.``, ``ema_``) stay as they are: mmcv knows them.
    """
    weights = _state_dict(content)
    if isinstance(weights, Mapping):
        known = (_state_dict(weights[key]) for key in WEIGHTS_KEYS if key in weights)
        weights = next((value for value in known if isinstance(value, Mapping)), weights)
        if not _tensors(weights) and (below := dict(_tables_below(weights))):
            key, weights = max(below.items(), key=lambda item: (len(_tensors(item[1])), "ema" not in item[0].lower()))
            logger.info("%s: the weights under %r are taken", name, key)
    items = weights.items() if isinstance(weights, Mapping) else ()
    tensors = _tensors(weights)
    if not tensors:
        what = f"{name} holds no weights: neither a dictionary of tensors nor one under {WEIGHTS_KEYS[0]!r}"
        raise UserError(what, "save them by torch.save(model.state_dict(), ...), or give another file")
    if len(tensors) < len(items):
        logger.info("%s: %d entries that are no tensors were left out", name, len(items) - len(tensors))
    return tensors


def _state_dict(value: Any) -> Any:
    return value.state_dict() if isinstance(value, torch.nn.Module) else value


def _tensors(weights: Any) -> dict[str, torch.Tensor]:
    items = weights.items() if isinstance(weights, Mapping) else ()
    return {key: value for key, value in items if isinstance(key, str) and _is_plain(value)}


def _tables_below(content: Mapping[Any, Any], above: str = "", levels: int = 3) -> Iterator[tuple[str, Mapping]]:
    """Yield the tables of tensors below *content* with their dotted keys; an optimizer's state has numbers as keys."""
    for key, value in ((key, _state_dict(value)) for key, value in content.items() if isinstance(key, str)):
        if isinstance(value, Mapping) and levels and "optim" not in key.lower():
            if _tensors(value):
                yield f"{above}{key}", value
            yield from _tables_below(value, f"{above}{key}.", levels - 1)


def write_checkpoint(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write ``{"meta": {}, "state_dict": weights}``, atomically; the same weights give the same bytes."""
    # A tensor may be a view of something larger, which torch.save would write whole.
    state_dict = {key: value.detach().cpu().contiguous().clone() for key, value in weights.items()}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        # Given a name, torch.save would put it, process id and all, into the file; given an open file it cannot.
        torch.save({"meta": {}, "state_dict": state_dict}, file)


def printable(text: object) -> str:
    """Return the beginning of a text out of a foreign file or its error, as one line that is safe on a terminal."""
    line = one_line(text) or type(text).__name__
    return "".join(c if c.isprintable() else "?" for c in line.split(". ")[0][:200])


def foreign_globals(path: Path) -> list[str]:
    """Return the classes and functions, other than torch's own, that the pickles in a checkpoint ask for.

    They are read off the pickle's instructions; nothing is built or run. Unreadable pickles name nothing.
    """
    names: set[str] = set()
    for data in _pickles(path):
        strings: list[str] = []
        try:
            for opcode, argument, _ in pickletools.genops(data):
                if opcode.name == "GLOBAL":
                    names.add(str(argument).replace(" ", "."))
                elif opcode.name == "STACK_GLOBAL":
                    names.add(".".join(strings[-2:]))
                elif isinstance(argument, str):
                    strings.append(argument)
        except UNREADABLE:
            continue
    return sorted(name for name in names if not re.match(r"torch\.|collections\.OrderedDict$", name))


def _pickles(path: Path) -> list[bytes]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return [archive.read(entry) for entry in archive.namelist() if entry.endswith("/data.pkl")]
    data, pickles = path.read_bytes(), []
    for _ in range(4):  # the older format: magic number, version, system, content; then the tensors' bytes
        try:
            end = max((position for _, _, position in pickletools.genops(data) if position is not None), default=0) + 1
        except UNREADABLE:
            break
        pickles.append(data[:end])
        data = data[end:]
    return pickles


def _check_format(path: Path, name: str) -> None:
    """Say in one line what a file is that no PyTorch can open."""
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        raise UserError(f"{name} is empty")
    if head.startswith(b"PK"):
        if not zipfile.is_zipfile(path):
            raise UserError(f"{name} is truncated: its end is missing; fetch it again")
        with zipfile.ZipFile(path) as archive:
            entries = archive.namelist()
        if not any(entry.endswith("/data.pkl") for entry in entries):
            what = f"{name} is a zip archive, but no PyTorch checkpoint"
            raise UserError(what, "unpack it and give the .pth or .safetensors that is in it")
        if any(entry.endswith("/constants.pkl") for entry in entries):
            remedy = "save its weights: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')"
            raise UserError(f"{name} is a TorchScript program, no checkpoint", remedy)
        return
    if head.lstrip()[:1] == b"<":
        remedy = "check the address; a page that asks to log in or to accept terms must be opened in a browser"
        raise UserError(f"{name} is a web page, no checkpoint", remedy)
    if LEGACY_MAGIC not in head:
        what, remedy = next((told for begin, told in OTHERS.items() if head.startswith(begin)), ("", ""))
        what = what or f"no PyTorch checkpoint (.pth): it begins with {head[:8]!r}"
        raise UserError(f"{name} is {what}", remedy or "give a .pth, .safetensors or Keras .h5 file")


class _Missing(dict):
    """In the place of an object whose package is not installed, as mmengine: it takes all, and is left out."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass

    append = extend = add = __setstate__


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            logger.warning("%s.%s is not installed here: what it holds is left out", module, name)
            return type(name, (_Missing,), {"__module__": module})


class _Pickle:
    """What torch.load asks of the module that unpickles."""

    Unpickler = _Unpickler
    UnpicklingError = pickle.UnpicklingError

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        return _Unpickler(file, **options).load()


def _load_trusted(path: Path, name: str) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_Pickle)
    except (*UNREADABLE, ImportError) as error:
        raise UserError(f"{name} cannot be opened even when trusted: {printable(error)}") from error


def _is_plain(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta
