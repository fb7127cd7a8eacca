"""Write the program that uses one model.onnx without mimflow: its own preprocessing, in a few lines to copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from scripts.lib.data.squares import brightness
from scripts.lib.runs.certainty import FAR, MIN_ACCURACY, NOT_CONFIDENT, Certainty
from scripts.lib.runs.onnx_model import BGR, CERTAINTY, GREY, INPUT, OUTSIDE, Preprocessing

#: What the program needs beside Python.
PACKAGES = ("onnxruntime", "pillow", "numpy")


def example(preprocessing: Preprocessing, certainty: Certainty | None = None) -> str:
    """Return the source of ``onnx_example.py``: the three likeliest classes of one photograph, and whether it is sure.

    Pillow has no counterpart of OpenCV's resizing, which looks at the nearest pixels only, however much smaller the
    image becomes: an affine transform comes close to it.
    """
    mode = "L" if preprocessing.channel_order == GREY else "RGB"
    needed = f"{', '.join(PACKAGES[:-1])} and {PACKAGES[-1]}"
    more = f" [accuracy, {MIN_ACCURACY}]" if certainty else ""
    lines = [
        f'"""Say what is on a photograph: python onnx_example.py model.onnx photo.jpg{more} (needs {needed})."""',
        "import json",
        "import sys",
        "",
        "import numpy as np",
        "import onnxruntime",
        "from PIL import Image, ImageOps",
        "",
        "session = onnxruntime.InferenceSession(sys.argv[1])",
        "about = session.get_modelmeta().custom_metadata_map",
        'names = json.loads(about["class_names"])',
        'image = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGBA")',
        f'background = Image.new("RGB", image.size, {tuple(preprocessing.background)})',
        "background.paste(image, mask=image)",
        f'image = background.convert("{mode}")',
    ]
    for step in preprocessing.steps:
        lines += _STEPS[step["step"]](step, mode)
    pixels = "np.atleast_3d(image)" + ("[..., ::-1]" if preprocessing.channel_order == BGR else "")
    if preprocessing.normalisation == OUTSIDE:
        lines.append(f"pixels = ({pixels} - np.array({preprocessing.mean})) / {preprocessing.std}")
        lines.append("pixels = pixels.transpose(2, 0, 1).astype(np.float32)")
    else:
        lines.append(f"pixels = {pixels}")
    lines += [
        f'probabilities, *distance = [output[0] for output in session.run(None, {{"{INPUT}": pixels[None]}})]',
        "for place in np.argsort(-probabilities)[:3]:",
        '    print(f"{probabilities[place]:.4f} {names[place]}")',
        *(_marks() if certainty else ()),
    ]
    return "\n".join(lines) + "\n"


def _marks() -> Iterator[str]:
    yield f"accuracy = float(sys.argv[3]) if len(sys.argv) > 3 else {MIN_ACCURACY}"
    yield f'certainty = json.loads(about["{CERTAINTY}"])'
    yield 'enough = [confidence for reached, confidence, _ in certainty["steps"] if reached >= accuracy]'
    yield "if not enough or probabilities.max() < enough[0]:"
    yield f'    print(f"unsure: {NOT_CONFIDENT} for an accuracy of {{accuracy}}")'
    yield 'if certainty["far"] is not None and distance[0] > certainty["far"]:'
    yield f'    print("unsure: {FAR}")'


def _resize(step: Mapping[str, Any], _mode: str) -> Iterator[str]:
    if "shorter_side" in step:
        yield f"size = tuple(side * {step['shorter_side']} // min(image.size) for side in image.size)"
    else:
        yield f"size = ({step['width']}, {step['height']})"
    method = f"Image.Resampling.{step['interpolation'].upper()}"
    if step["library"] == "pillow":
        yield f"image = image.resize(size, {method})"
    else:
        yield "x, y = image.width / size[0], image.height / size[1]"
        yield f"image = image.transform(size, Image.Transform.AFFINE, (x, 0, 0, 0, y, 0), {method})"


def _pad(step: Mapping[str, Any], mode: str) -> Iterator[str]:
    pixels, colour = step["pixels"], tuple(step["background"])
    yield f"size = tuple(max(1, length * {pixels} // max(image.size)) for length in image.size)"
    yield f"small = image.resize(size, Image.Resampling.{step['interpolation'].upper()})"
    yield f'image = Image.new("{mode}", ({pixels}, {pixels}), {brightness(colour) if mode == "L" else colour})'
    yield f"image.paste(small, (({pixels} - size[0]) // 2, ({pixels} - size[1]) // 2))"


def _crop(step: Mapping[str, Any], _mode: str) -> Iterator[str]:
    if "share" in step:
        yield f"w = h = {step['share']} * min(image.size)"
    else:
        yield f"w, h = min({step['width']}, image.width), min({step['height']}, image.height)"
    yield "x, y = round((image.width - w) / 2), round((image.height - h) / 2)"
    yield "image = image.crop((x, y, x + int(w), y + int(h)))"


_STEPS: dict[str, Callable[[Mapping[str, Any], str], Iterator[str]]] = {"resize": _resize, "crop": _crop, "pad": _pad}
