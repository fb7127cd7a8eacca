"""try.html: pictures that a reader drops are classified in the browser, by a run's model.onnx, without any network."""

from __future__ import annotations

import base64
import gzip
import io
import lzma
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from scripts.lib.base import ranges
from scripts.lib.base.console import one_line
from scripts.lib.base.files import sha256_of
from scripts.lib.base.language import LANGUAGES, speaking
from scripts.lib.base.problems import UserError
from scripts.lib.data.decoding import Undecodable, decode_image
from scripts.lib.data.splits import Split
from scripts.lib.metrics.unsure import known_sample
from scripts.lib.model.onnx_similarities import SIMILARITIES, with_similarities
from scripts.lib.pages import templates, try_words
from scripts.lib.pages.embedding_page import thumbnails
from scripts.lib.pages.predictions_page import rules
from scripts.lib.runs.certainty import FAR, MIN_ACCURACY, NOT_CONFIDENT
from scripts.lib.runs.onnx_model import OnnxModel
from scripts.lib.runs.predictions import read_predictions
from scripts.lib.runs.run_folder import RunFolder

#: Of onnxruntime-web; templates/vendor/README.md says where its files come from.
VERSION = "1.12.1"
VENDOR = templates.VENDOR
SCRIPTS = ("report_core.js", "try_pixels.js", "try_decode.js", "try_model.js", "try.js")
STYLES = ("report.css", "report_print.css", "try.css")
#: A page with a larger model would not open in every browser: it takes four times as much memory.
MOST_BYTES = 150_000_000
#: Accuracies to choose from.
ACCURACIES = (0.8, 0.9, MIN_ACCURACY, 0.98, 0.99)
#: Characters that the training pictures may take together; their sizes and qualities, the best first.
ROOM = 3_000_000
SIZES = ((96, 70), (80, 62), (64, 55), (48, 45), (32, 40))
#: Pixels of the longer side of the picture by which the page checks itself.
CHECKED = 331


class Unsuited(UserError):
    """A model that works, but not in a page."""


def render(run: RunFolder, images: Path, train: Path, language: str) -> str:
    """Return the page of a run with a model.onnx, which opens in *language* and holds the other one too.

    Parameters
    ----------
    images, train : the folder of images, and the annotation file of those that the run was trained on.

    Raises
    ------
    UserError : the model is missing or another one's; Unsuited: it is too large, or resizes as the page cannot.
    """
    if not run.onnx.is_file():
        raise UserError(f"{run.onnx}: no such file", "a run with `export: true` has it; run it again")
    model = OnnxModel(run.onnx, threads=1)
    check_steps(model, run.onnx)
    content = with_similarities(run.onnx)
    split = Split.read(train)
    chosen = known_sample(split.labels) if model.certainty else []
    if model.certainty and len(chosen) != model.certainty.known_images:
        raise UserError(
            f"{train}: not what the run was trained on: its model knows {model.certainty.known_images} images"
        )
    files = [split.images[position] for position in chosen]
    pictures = thumbnails(images, files, ROOM, model.preprocessing.reading.background, SIZES)
    known = zip(files, (split.labels[position] for position in chosen), pictures, strict=True)
    data: dict[str, Any] = {
        "classes": model.classes,
        "shape": model.input_shape,
        "preprocessing": asdict(model.preprocessing),
        "certainty": model.certainty.as_json() if model.certainty else None,
        "reasons": {"not_confident": NOT_CONFIDENT, "far": FAR},
        "known": [{"file": file, "label": label, "picture": picture} for file, label, picture in known],
        "check": check_of(model, content, images, read_predictions(run.predictions).files),
        "words": {},
    }
    shared = {
        "run": "/".join(run.names.values()), "certainty": model.certainty, "classes": model.classes,
        "accuracies": ACCURACIES, "accuracy": MIN_ACCURACY, "n_known": len(files), "sha256": sha256_of(run.onnx),
        "version": VERSION,
    }  # fmt: skip
    views = {}
    for spoken in sorted(LANGUAGES, key=lambda each: each != language):
        with speaking(spoken):
            title = templates.heading("Try it", run.dataset.name)
            explained = rules(model.certainty, MIN_ACCURACY)
            views[spoken] = templates.render("try_view.html", title=title, rules=explained, **shared)
            data["words"][spoken] = try_words.words()
    with speaking(language):
        return page(templates.heading("Try it", run.dataset.name), views, data, content)


def page(title: str, views: Mapping[str, Markup], data: Mapping[str, Any], model: bytes) -> str:
    """Return the page of these views, this data and this model."""
    compressed = {"wasm": _program(), "model": gzip.compress(model, 1, mtime=0)}  # weights hardly become smaller
    text, _ = templates.page_of_views(
        title, views, data, styles=STYLES, scripts=SCRIPTS, libraries=["ort.wasm-core.min.js"], compressed=compressed
    )
    return text


@cache
def _program() -> bytes:
    return gzip.compress(lzma.decompress((VENDOR / "ort-wasm-simd.wasm.xz").read_bytes()), 9, mtime=0)


def check_steps(model: OnnxModel, path: Path) -> None:
    """Raise Unsuited where the page could not do its part: the model is too large, or resizes in another way."""
    if (size := path.stat().st_size) > MOST_BYTES:
        what = f"{path}: {size / 1e6:.0f} MB are more than a page can hold ({MOST_BYTES / 1e6:.0f} MB)"
        raise Unsuited(what, "use onnx_example.py")
    for step in model.preprocessing.steps:
        if step.get("library") == "opencv" and step["interpolation"] == "lanczos":
            raise Unsuited(f"{path}: pages cannot resize by OpenCV's lanczos", "use onnx_example.py")


def check_of(model: OnnxModel, content: bytes, images: Path, files: Sequence[str]) -> dict[str, Any]:
    """Return a picture, and what Python makes of it: what the page compares itself with.

    Parameters
    ----------
    content : *model* as the page has it.
    images, files : the folder, and images in it; the first that can be read is taken.
    """
    import onnxruntime

    picture = _first_picture(images, files)
    prepared = model.prepare(picture)
    probabilities, distances = model.answer(prepared[None])
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    outputs = dict(
        zip([each.name for each in session.get_outputs()], session.run(None, {"images": prepared[None]}), strict=True)
    )
    if not np.array_equal(outputs["probabilities"], probabilities):
        raise UserError("the copy of the model for the page computes something else than model.onnx")
    if distances is not None and abs(1 - outputs[SIMILARITIES].max() - distances[0]) > 1e-6:
        raise UserError("the copy of the model for the page knows other training images than model.onnx")
    return {
        "picture": base64.b64encode(picture).decode("ascii"),
        "tensor": base64.b64encode(gzip.compress(prepared.tobytes(), 9, mtime=0)).decode("ascii"),
        "probabilities": [float(value) for value in probabilities[0]],
        "distance": None if distances is None else float(distances[0]),
    }


def _first_picture(images: Path, files: Sequence[str]) -> bytes:
    """Return the first of the images that can be read, small and as PNG, which every browser reads alike."""
    reason = "there is none"
    for file in files:
        try:
            pixels = decode_image(ranges.read_bytes(images / file))
        except (OSError, Undecodable) as error:
            reason = f"{file}: {one_line(error)}"
            continue
        image = Image.fromarray(np.ascontiguousarray(pixels[..., ::-1]))
        image.thumbnail((CHECKED, CHECKED))
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()
    raise UserError(f"{images}: no test image can be read ({reason})", "repair the data and run it again")


def skipped(reason: str, dataset: str) -> str:
    """Return the page that says why there is none."""
    return templates.page("skipped.html", templates.heading("Try it", dataset), reason=reason)
