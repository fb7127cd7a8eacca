"""Transparent pictures and wide ones, from the settings to the report: every reader sees the same."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from dag import QUICK, photograph, settings, snakemake
from PIL import Image

from scripts.lib.runs.run_folder import RunFolder

BACKGROUND = (16, 32, 240)


def cut_out(label: int, index: int) -> Image.Image:
    """Return a photograph of which the middle shows; behind it are colours that nobody is to see."""
    image = Image.open(io.BytesIO(photograph(label, index))).convert("RGBA")
    shows = Image.new("L", image.size, 0)
    shows.paste(255, (14, 12, 42, 36))
    image.putalpha(shows)
    return image


@pytest.mark.long
def test_a_background_reaches_every_step(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for label in range(3):
            for index in range(10):
                file = io.BytesIO()
                cut_out(label, index).save(file, "PNG")
                archive.writestr(f"data/class {label}/{index}.png", file.getvalue())
    (tmp_path / "data.zip").write_bytes(stream.getvalue())
    config = settings({"path": str(tmp_path / "data.zip")})
    config["dataset"]["background"] = "#1020f0"
    done = snakemake(tmp_path, config)
    assert done.returncode == 0, done.stdout
    dataset = tmp_path / "results/small"
    run = RunFolder(dataset / "quick/seed0")
    assert f"'background': {list(BACKGROUND)}" in run.config.read_text(encoding="utf-8")

    audited = list(csv.DictReader((dataset / "audit.csv").read_text(encoding="utf-8").splitlines()))
    findings = {row["finding"] for row in audited}
    assert "alpha" in findings and "blank" not in findings
    page = (dataset / "audit.html").read_text(encoding="utf-8")
    assert np.abs(np.subtract(corner_shown(page), BACKGROUND)).max() < 12, "a page shows what the network sees"

    check_onnx(run, dataset / "images")
    command = [sys.executable, "-m", "scripts.evaluate_run", "--run", "results/small/quick/seed0", "--data", "data.zip"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    page = (tmp_path / "evaluations/small/quick/seed0/data/figures/errors.html").read_text(encoding="utf-8")
    assert np.abs(np.subtract(corner_shown(page), BACKGROUND)).max() < 12, "of other images too"


def corner_shown(page: str) -> tuple[int, ...]:
    """Return a pixel in the corner of the first picture of a page."""
    shown = re.search(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page)
    assert shown
    return Image.open(io.BytesIO(base64.b64decode(shown[1]))).getpixel((1, 1))


@pytest.mark.long
def test_whole_pictures_reach_every_step(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for label in range(3):
            for index in range(10):
                archive.writestr(f"data/class {label}/{index}.jpg", photograph(label, index, (96, 48)))
    whole = {**QUICK, "fit": "pad"}
    config = settings({"path": str(tmp_path / "data.zip")}, pad=whole, squash={**whole, "fit": "squash"})
    config["dataset"]["background"] = "#1020f0"
    done = snakemake(tmp_path, config)
    assert done.returncode == 0, done.stdout
    dataset = tmp_path / "results/small"
    assert "fit: crop</code> leaves out 50 % of the pixels" in (dataset / "audit.html").read_text(encoding="utf-8")
    for name in ("pad", "squash"):
        check_onnx(RunFolder(dataset / name / "seed0"), dataset / "images")


def check_onnx(run: RunFolder, images: Path) -> None:
    """Compare what the example says of two images with the predictions of the checkpoint."""
    session = onnxruntime.InferenceSession(str(run.onnx))
    assert json.loads(session.get_modelmeta().custom_metadata_map["background"]) == list(BACKGROUND)
    predictions = list(csv.DictReader(run.predictions.read_text(encoding="utf-8").splitlines()))
    for row in predictions[:2]:
        answer = subprocess.run(
            [sys.executable, run.onnx_example, run.onnx, images / row["file"]],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        probability = float(answer.stdout.split()[0])
        expected = max(float(value) for name, value in row.items() if name.startswith("prob"))
        assert probability == pytest.approx(expected, abs=1e-3)
