"""What a reader of try.html does in a browser: gives pictures, and reads what the page makes of them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
from browser import Page
from tiny_run import TinyRun

from scripts.evaluate import export_model, predict_images
from scripts.lib.runs.run_folder import RunFolder
from scripts.report import write_try_page

READY = "document.documentElement.dataset.ready"
VIEW = "document.querySelector('.view:not([hidden])')"


def finish(made: TinyRun) -> RunFolder:
    """Predict and export a run with random weights; each of its images is in train, val and test."""
    folder, split = RunFolder(made.folder), str(made.split)
    options = made.options(folder.predictions)
    options[options.index("--split") + 1 : options.index("--split") + 2] = [split, split]
    options[options.index("--output") + 1 : options.index("--output") + 2] = [
        str(folder.predictions), str(folder.val_predictions)
    ]  # fmt: skip
    known = ["--known", str(folder.known), "--certainty", str(folder.certainty)]
    predict_images.main(predict_images.build_parser().parse_args([*options, "--train", split, *known]))
    inputs = made.options(folder.predictions)[: made.options(folder.predictions).index("--output")]
    outputs = ["--predictions", str(folder.predictions), "--output", str(folder.onnx), "--report", str(folder.export)]
    export_model.main(export_model.build_parser().parse_args([*inputs, *outputs, *known, "--threads", "1"]))
    return folder


def write(run: RunFolder, *more: str, folder: RunFolder | None = None) -> Path:
    """Write the page as a user does, and return it."""
    output = run.dataset / "try.html"
    words = ["--runs", str((folder or run).path), "--train", str(run.dataset / "test.txt")]
    words += ["--images", str(run.dataset / "images"), "--output", str(output), *more]
    write_try_page.main(write_try_page.build_parser().parse_args(words))
    return output


def in_page(page: Page, content: bytes, expression: str) -> Any:
    """Return what an expression of ``file``, a Blob of these bytes, gives; of a refusal, its name."""
    text = json.dumps(base64.b64encode(content).decode())
    return page.evaluate(
        f"""(async () => {{ const file = new Blob([Uint8Array.from(atob({text}), c => c.charCodeAt(0))]);
            const packed = values =>
                btoa(Array.from(new Uint8Array(values.buffer), x => String.fromCharCode(x)).join(""));
            try {{ return {expression}; }} catch (error) {{ return error.refusal ?? `${{error}}`; }} }})()"""
    )


def answer_of(page: Page, content: bytes) -> tuple[np.ndarray, np.ndarray, float]:
    """Return what the model takes, probabilities and distance, as the browser computes them."""
    result = in_page(
        page, content, "await model.answer(file).then(a => [packed(a.values), a.probabilities, a.distance])"
    )
    assert isinstance(result, list), result
    return np.frombuffer(base64.b64decode(result[0]), np.float32), np.array(result[1]), result[2]


#: How a reader gives files: by the button, dropped on the page, or pasted.
WAYS = {
    "chosen": "const input = document.querySelector('.view:not([hidden]) input[type=file]'); input.files = data.files;"
    "input.dispatchEvent(new Event('change', {bubbles: true}))",
    "dropped": "for (const kind of ['dragover', 'drop'])"
    "document.querySelector('main').dispatchEvent(new DragEvent(kind, {bubbles: true, dataTransfer: data}))",
    "pasted": "document.body.dispatchEvent(new ClipboardEvent('paste', {bubbles: true, clipboardData: data}))",
}


def give(page: Page, files: list[Path], way: str = "chosen") -> None:
    """Give files as a reader does."""
    contents = [(file.name, base64.b64encode(file.read_bytes()).decode()) for file in files]
    page.evaluate(f"""(() => {{
        const data = new DataTransfer();
        for (const [name, text] of {json.dumps(contents)})
            data.items.add(new File([Uint8Array.from(atob(text), c => c.charCodeAt(0))], name));
        {WAYS[way]};
    }})()""")


def texts(page: Page, selector: str) -> list[str]:
    return list(page.evaluate(f"[...{VIEW}.querySelectorAll({selector!r})].map(e => e.innerText)"))
