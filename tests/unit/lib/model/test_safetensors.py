""".safetensors files: tensors of every type, and one line for what is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.lib.base.problems import UserError
from scripts.lib.model.safetensors import TYPES, is_safetensors, read


def write(path: Path, header: dict[str, Any], data: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize("kind", TYPES)
def test_each_type_is_read(tmp_path: Path, kind: str) -> None:
    tensor = torch.arange(6).reshape(2, 3).to(TYPES[kind])
    data = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
    entry = {"dtype": kind, "shape": [2, 3], "data_offsets": [0, len(data)]}
    path = write(tmp_path / "x", {"__metadata__": {"format": "pt"}, "w": entry}, data)
    assert is_safetensors(path) and torch.equal(read(path, "x")["w"], tensor)
    assert not is_safetensors(Path(__file__))


ENTRY: dict[str, Any] = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("entry", "data"),
    [
        (ENTRY, bytes(4)), ({**ENTRY, "data_offsets": [0, 4]}, bytes(8)), ({**ENTRY, "dtype": "Q4"}, bytes(8)),
        ({**ENTRY, "shape": [-2]}, bytes(8)), ({**ENTRY, "data_offsets": [-8, 0]}, bytes(8)), ([], bytes(8)),
        ({**ENTRY, "shape": "ab"}, bytes(8)), ({}, b""),
    ],
)  # fmt: skip
def test_what_is_damaged_is_one_line(tmp_path: Path, entry: Any, data: bytes) -> None:
    with pytest.raises(UserError, match=r"^x is damaged, .*: fetch it again$"):
        read(write(tmp_path / "x", {"w": entry}, data), "x")
