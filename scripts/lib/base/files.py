"""Files that are either whole or absent: temporary name, fsync, rename."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.lib.base.problems import UserError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

#: Of Linux's linux/fs.h: make a file share another one's blocks until one of them is written to (a reflink).
FICLONE = 0x40049409
COPIED_BYTES = 16 << 20


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside *path*; rename it to *path* when the block succeeds, else remove it.

    The temporary name keeps the suffix, since many writers choose the format by it. A folder works too.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    _remove(temporary)
    try:
        yield temporary
        if temporary.is_file():
            sync_file(temporary)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)  # a folder cannot be renamed over another
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        _remove(temporary)


def sync_file(path: Path) -> None:
    """Force the content of *path* to the disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Force the names in *folder* to the disk: a rename is durable only then."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems cannot sync a folder: the rename stays atomic
        pass
    finally:
        os.close(descriptor)


def create_once(path: Path, text: str, token: str) -> bool:
    """Make a file with its whole content, and tell whether this process did: of several at once, one does.

    By ``link``, which is atomic on NFS too, where O_EXCL was not always.

    Parameters
    ----------
    token : nobody else's, for the name of the file that is linked.
    """
    claim = path.with_name(f".{path.stem}.{token}")
    claim.write_text(text, encoding="utf-8")
    try:
        os.link(claim, path)
    except FileExistsError:
        return False
    finally:
        claim.unlink(missing_ok=True)
    return True


def write_text(path: Path | str, text: str) -> None:
    """Write *text* as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write *value* as indented JSON, keys in the order given, atomically. NaN is refused: JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file that holds one object.

    Raises
    ------
    UserError : it is missing, or not one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; finish the run first") from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); make it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a JSON object; make it again")
    return content


def find_json(path: Path) -> dict[str, Any]:
    """Return a JSON object that another process may be writing; empty where there is none, or none that is whole."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def copy_file(source: Path, target: Path) -> None:
    """Copy a file such that a change of one never reaches the other; where the file system can, blocks are shared."""
    with open(source, "rb") as reading, open(target, "wb") as writing:
        try:
            fcntl.ioctl(writing, FICLONE, reading.fileno())
        except OSError:  # a file system without reflinks, or another one
            shutil.copyfileobj(reading, writing, COPIED_BYTES)


def write_sum(path: Path, digest: str = "") -> None:
    """Write the sha256 of a file beside it; *digest*: where it is known already."""
    write_text(sum_of(path), (digest or sha256_of(path)) + "\n")


def is_whole(path: Path) -> bool:
    """Tell whether a file is there and is the one that :func:`write_sum` saw."""
    try:
        return sum_of(path).read_text(encoding="utf-8", errors="replace").strip() == sha256_of(path)
    except FileNotFoundError:
        return False


def sum_of(path: Path) -> Path:
    """Return where the sha256 of a file of a work folder lies."""
    return path.with_name(path.name + ".sha256")


def sha256_of(path: Path | str) -> str:
    """Return the sha256 of a file as 64 hex digits.

    Raises
    ------
    OSError : it cannot be read; of an error while it is read, too, the file is named.
    """
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        error.filename = error.filename or os.fspath(path)
        raise


def read_lines(path: Path | str) -> list[str]:
    """Return the non-empty lines of a UTF-8 text file, split at newlines only (not at U+2028 and the like)."""
    return [line for line in Path(path).read_text(encoding="utf-8").split("\n") if line]


def remove_leftovers(output: Path) -> None:
    """Remove the temporary files and folders of earlier runs that were to become *output*.

    Only for outputs that one process at a time writes, as Snakemake's lock sees to (names: see atomic_path).
    """
    for leftover in output.parent.glob(f".{glob.escape(output.stem)}.*.tmp{glob.escape(output.suffix)}"):
        logger.info("removing %s, left by a run that was stopped", leftover)
        _remove(leftover)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def tensors_sha256(state_dict: Mapping[str, torch.Tensor]) -> str:
    """Hash the tensors (name, type, shape, bytes; sorted by name), not the file: equal weights have equal hashes."""
    import torch  # late: it takes seconds

    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def hash_weights(path: Path) -> str:
    """Return :func:`tensors_sha256` of a checkpoint file; nothing but tensors and plain values is accepted.

    Raises
    ------
    Unreadable : it is no checkpoint, or damaged (:mod:`scripts.lib.base.tensor_file`).
    """
    import torch

    from scripts.lib.base import tensor_file  # late: it loads torch

    content = tensor_file.read(path)
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict):
        raise tensor_file.Unreadable("it holds no weights")
    return tensors_sha256({name: tensor for name, tensor in weights.items() if isinstance(tensor, torch.Tensor)})


def name_without_suffixes(path: Path) -> str:
    """Return the name of a folder, or of an archive without .zip, .tar.gz and the like."""
    name = path.resolve().name
    return re.sub(r"(\.tar)?\.[A-Za-z0-9]+$", "", name) if path.is_file() else name
