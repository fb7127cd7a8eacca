"""The page of an exported model: its files, inputs, outputs, and how well it agrees."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from scripts.lib.pages import templates


def export_page(record: Mapping[str, Any], program: str) -> str:
    """Return export.json as a page, and how to use the model; *program* is the text of onnx_example.py."""
    preprocessing = record["model"]["preprocessing"]
    steps = [
        (step["step"], ", ".join(f"{key} {value}" for key, value in step.items() if key != "step"))
        for step in preprocessing["steps"]
    ]
    normalisation = [
        (key.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list) else value)
        for key, value in preprocessing.items()
        if key != "steps"
    ]
    return templates.page(
        "export.html", "Exported model", **record, preprocessing=[*steps, *normalisation], program=program
    )


def describe_tensor(tensor: Any) -> str:
    """Return onnxruntime's description of an input or output, as ``images: float of shape (batch, 3, 160, 160)``."""
    kind = re.sub(r"tensor\((\w+)\)", r"\1", tensor.type)
    return f"{tensor.name}: {kind} of shape ({', '.join(map(str, tensor.shape))})"
