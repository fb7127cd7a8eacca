"""Checkpoints that survive a kill, a full disk and a damaged file: whole or absent, hashed, the newest good wins."""

from __future__ import annotations

import hashlib
import io
import logging
import re
from pathlib import Path
from typing import Any

import torch

from scripts.lib.base.files import atomic_path, sha256_of, write_text
from scripts.lib.base.weights import tensors_sha256

__all__ = ["StateStore", "load", "save", "tensors_sha256"]
logger = logging.getLogger(__name__)
_STATE_NAME = re.compile(r"state_(\d{9})\.pth")


def save(path: Path, content: dict[str, Any]) -> None:
    """Write *content* with torch.save so that *path* is always either the old file or the whole new one."""
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        torch.save(content, file)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint of ours onto the CPU; nothing but tensors and plain values is accepted."""
    return torch.load(path, map_location="cpu", weights_only=True)


class StateStore:
    """The resumable states of a run: ``state_<iteration>.pth`` with ``.sha256`` beside it, the newest *keep*."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, iteration: int, content: dict[str, Any]) -> None:
        """Add a state; drop the oldest ones only when it is safe on disk.

        The hash gets its name before the state does, so a state that can be seen can be checked.
        """
        path = self.folder / f"state_{iteration:09d}.pth"
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_text(_hash_file(path), hashlib.sha256(buffer.getbuffer()).hexdigest() + "\n")
        with atomic_path(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
        for old in self.paths()[: -self.keep]:
            old.unlink(missing_ok=True)
            _hash_file(old).unlink(missing_ok=True)

    def load_newest(self) -> dict[str, Any] | None:
        """Return the newest state whose hash is right, or None; say which ones were damaged."""
        for path in reversed(self.paths()):
            try:
                expected = _hash_file(path).read_text(encoding="utf-8").strip()
            except FileNotFoundError:
                expected = ""
            if sha256_of(path) == expected:
                return load(path)
            logger.warning("checkpoint %s is damaged: going back to the one before it", path)
        return None

    def paths(self) -> list[Path]:
        """Return the states, oldest first."""
        return sorted(path for path in self.folder.glob("state_*.pth") if _STATE_NAME.fullmatch(path.name))


def _hash_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
