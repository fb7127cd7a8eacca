"""Checkpoint files: foreign ones are read as hostile data, ours hold tensors only and always the same bytes."""

from __future__ import annotations

import logging
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from scripts.lib.base import tensor_file
from scripts.lib.base.console import one_line
from scripts.lib.base.files import atomic_path
from scripts.lib.base.problems import UserError
from scripts.lib.base.tensor_file import LEGACY_MAGIC
from scripts.lib.base.units import plural
from scripts.lib.data.image_formats import in_words

logger = logging.getLogger(__name__)
#: Where training codes keep the weights in a checkpoint, in the order tried; else the checkpoint is the weights itself.
WEIGHTS_KEYS = ("state_dict", "model_state_dict", "model_state", "model", "net", "params")
#: How files begin that people give as checkpoints: what each is, and what to do.
OTHERS = {
    b"version https://git-lfs": ("a Git LFS pointer, no checkpoint", "run `git lfs pull` there, or download the file"),
    b"\x08": ("an ONNX model or another protobuf, no checkpoint", "give the .pth that it was exported from"),
    b"\x1f\x8b": ("compressed by gzip", "unpack it with gunzip"),
    b"Rar!": ("a RAR archive", "unpack it and give the .pth that is in it"),
    b"7z\xbc\xaf": ("a 7z archive", "unpack it and give the .pth that is in it"),
    b"GGUF": ("a GGUF file of a language model", "give the .pth or .safetensors of an image model"),
    b"\x93NUMPY": ("an array of NumPy's, no checkpoint", "give the .pth of the model"),
    b"{": ("a JSON text, perhaps the index of weights in several files", "give the weights themselves, as one file"),
    b"\x80": ("a pickle that torch.save did not write", "load it in Python, and torch.save its dictionary of tensors"),
}


def read_foreign(path: Path, name: str, *, trust_pickle: bool = False) -> dict[str, torch.Tensor]:
    """Return the weights in a PyTorch checkpoint of unknown origin.

    It is read by :mod:`scripts.lib.base.tensor_file`: tensors and plain values are made, nothing in it is run.

    Parameters
    ----------
    path : the file.
    name : what to call it in messages.
    trust_pickle : open the file even if it needs more; **whatever it holds is then run**.

    Raises
    ------
    UserError : no PyTorch checkpoint, truncated, without weights, or one that holds more or declares more than it has.
    """
    _check_format(path, name)
    try:
        content = tensor_file.read(path)
    except tensor_file.HoldsMore as error:
        if not trust_pickle:
            more = printable(", ".join(error.names[:4]))
            raise UserError(
                f"{name} holds more than weights ({more}), and opening such a file can run any code; "
                "if you trust its origin, allow this one file with checkpoint.trust_pickle: true and its sha256"
            ) from error
        logger.warning("%s holds more than weights and is trusted by the settings (checkpoint.trust_pickle)", name)
        content = _load_trusted(path, name)
    except tensor_file.TooLarge as error:
        what = f"{name} is refused: {printable(error)}"
        raise UserError(
            what,
            "save its weights as tensors of torch, if it holds others; else it is damaged, or made to fill the memory",
        ) from error
    except tensor_file.Unreadable as error:
        logger.debug("reading %s", path, exc_info=True)
        raise UserError(f"{name} is damaged (cut short?), or no PyTorch checkpoint: fetch it again") from error
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
        logger.info("%s: %s left out, of things other than tensors", name, plural(len(items) - len(tensors), "entry"))
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


def check_values(weights: Mapping[str, torch.Tensor], name: str) -> None:
    """Refuse weights from which nothing can be trained.

    Raises
    ------
    UserError : a tensor holds numbers that are not finite, or complex ones, or those of a quantised network; or all of
        them are 0.
    """
    for key, value in weights.items():
        if value.is_complex():
            raise UserError(f"{name}: {printable(key)} is of complex numbers", "give weights of real numbers")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(
                f"{name}: {printable(key)} holds numbers that are not finite",
                "the training that wrote it had failed: give an earlier checkpoint",
            )
        if value.dim() > 1 and value.dtype in (torch.int8, torch.uint8):
            what = f"{name}: {printable(key)} is of whole numbers, as of a quantised network"
            raise UserError(what, "give the weights from which it was made, of floating-point numbers")
    matrices = [value for value in weights.values() if value.dim() > 1 and value.is_floating_point()]
    if matrices and not any(bool(value.any()) for value in matrices):
        raise UserError(f"{name} holds nothing but zeros", "its download or export had failed: give another file")


def read_meta(path: Path) -> dict[str, Any]:
    """Return what a checkpoint of mimflow says of itself (``meta``); empty for every other file."""
    if not zipfile.is_zipfile(path):
        return {}
    try:
        content = tensor_file.read(path)
    except tensor_file.Unreadable:
        return {}
    meta = content.get("meta") if isinstance(content, dict) else None
    return meta if isinstance(meta, dict) else {}


#: In the meta of a checkpoint without weights: why it has none, and whether they may be had another time.
MISSING, AGAIN = "missing", "again"


def write_checkpoint(weights: Mapping[str, torch.Tensor], path: Path, meta: Mapping[str, Any] | None = None) -> None:
    """Write ``{"meta": meta, "state_dict": weights}``, atomically; the same content gives the same bytes."""
    # A tensor may be a view of something larger, which torch.save would write whole.
    state_dict = {key: value.detach().cpu().contiguous().clone() for key, value in weights.items()}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        # Given a name, torch.save would put it, process id and all, into the file; given an open file it cannot.
        torch.save({"meta": dict(meta or {}), "state_dict": state_dict}, file)


def printable(text: object) -> str:
    """Return the beginning of a text out of a foreign file or its error, as one line that is safe on a terminal."""
    line = one_line(text) or type(text).__name__
    return "".join(c if c.isprintable() else "?" for c in line.split(". ")[0][:200])


def _check_format(path: Path, name: str) -> None:
    """Say in one line what a file is that no PyTorch can open."""
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        raise UserError(f"{name} is empty", "fetch it again")
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
    if head[257:262] == b"ustar":
        raise UserError(f"{name} is a tar archive, no checkpoint", "unpack it and give the .pth that is in it")
    if LEGACY_MAGIC not in head[:64]:
        what, remedy = next((told for begin, told in OTHERS.items() if head.startswith(begin)), ("", ""))
        what = what or f"{in_words(head)}, no PyTorch checkpoint (.pth)".removeprefix(", ")
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
    except (*tensor_file.FAILURES, ImportError) as error:
        raise UserError(f"{name} cannot be opened even when trusted: {printable(error)}") from error


def _is_plain(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta
