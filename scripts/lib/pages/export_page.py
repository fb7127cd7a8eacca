"""The page of an exported model: its files, inputs, outputs, and how well it agrees."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from scripts.lib.pages import html


def render_html(record: Mapping[str, Any], program: str) -> str:
    """Return export.json as a page, and how to use the model; *program* is the text of onnx_example.py."""
    model, parity, speed = record["model"], record["parity"], record["speed"]
    facts = [
        ("file", f"{model['file']}, {model['bytes'] / 1e6:.1f} MB, the weights in it"),
        ("ONNX opset", str(model["opset"])),
        ("input", model["input"]),
        ("output", model["output"]),
        ("predictions that are the checkpoint's", f"{parity['same_prediction']} of {parity['images']} test images"),
        ("largest difference of a probability", f"{parity['largest_difference']:.1e}"),
    ]
    rows = [
        (
            f"{name} {engine['version']}",
            f"{engine['milliseconds_single']:.1f}",
            "-" if engine["images_per_second"] is None else f"{engine['images_per_second']:.1f}",
        )
        for name, engine in speed["engines"].items()
    ]
    header = ("engine", "one image, ms", f"images/s in batches of {speed['batch_size']}")
    caption = f"Medians, {speed['threads']} threads of {speed['cpu']}; without reading the images"
    preprocessing = model["preprocessing"]
    steps = [
        (step["step"], ", ".join(f"{key} {value}" for key, value in step.items() if key != "step"))
        for step in preprocessing["steps"]
    ]
    normalisation = [
        (key.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list) else value)
        for key, value in preprocessing.items()
        if key != "steps"
    ]
    return html.page(
        "Exported model",
        [
            html.table((), facts),
            html.section("Speed"),
            html.table(header, rows, numbers=(1, 2), caption=caption),
            html.section("What becomes of an image before"),
            html.table((), [*steps, *normalisation], caption="The file's own metadata say it too"),
            html.section("How to use it"),
            html.preformatted(f"python -m scripts.predict --onnx {model['file']} --images photos"),
            html.preformatted(program),
        ],
    )


def describe_tensor(tensor: Any) -> str:
    """Return what onnxruntime says of an input or output, as ``images: float of shape (batch, 3, 160, 160)``."""
    kind = re.sub(r"tensor\((\w+)\)", r"\1", tensor.type)
    return f"{tensor.name}: {kind} of shape ({', '.join(map(str, tensor.shape))})"
