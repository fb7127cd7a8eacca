"""Reads .safetensors: a header in JSON that says where each tensor lies, then their bytes; nothing in it can run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from scripts.lib.base.problems import UserError
from scripts.lib.base.tensor_file import MOST_DIMENSIONS, element_size

#: Names of the types, as the format has them.
TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
LONGEST_HEADER = 100_000_000


def is_safetensors(path: Path) -> bool:
    """Tell by its first bytes whether a file claims to be one: the length of the header, and the header's brace."""
    with open(path, "rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= LONGEST_HEADER


def read(path: Path, name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a file.

    Parameters
    ----------
    name : what to call it in messages.

    Raises
    ------
    UserError : it is cut short, or its header does not fit its bytes.
    """
    data = bytearray(path.stat().st_size)  # which torch may write to, as it demands
    with open(path, "rb") as file:
        file.readinto(data)
    start = 8 + int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8:start].decode())
        tensors, taken = {}, 0
        for key, entry in header.items():
            if key == "__metadata__":
                continue
            kind, shape, (begin, end) = TYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
            count = math.prod(shape)
            if (
                min((begin, *shape), default=0) < 0
                or end - begin != count * element_size(kind)
                or start + end > len(data)
            ):
                raise ValueError(f"{key} does not lie in the file")
            taken += end - begin
            if taken > len(data) or len(shape) > MOST_DIMENSIONS:
                raise ValueError("tensors overlap: they declare more than the file has")
            flat = torch.frombuffer(data, dtype=kind, count=count, offset=start + begin) if count else torch.empty(0)
            tensors[key] = flat.to(kind).reshape(shape)
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
        reason = str(error)[:80]
        raise UserError(f"{name} is damaged, or no whole .safetensors ({reason})", "fetch it again") from error
    if not tensors:
        raise UserError(f"{name} holds no weights", "give the file with the model's weights")
    return tensors
