"""The hash of weights: over the tensors, not the file, so that equal models have equal hashes. Needs torch alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


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
    """Return :func:`tensors_sha256` of a checkpoint file; nothing but tensors and plain values is accepted."""
    import torch

    content = torch.load(path, map_location="cpu", weights_only=True)
    weights = content.get("state_dict", content)
    return tensors_sha256({name: tensor for name, tensor in weights.items() if isinstance(tensor, torch.Tensor)})
