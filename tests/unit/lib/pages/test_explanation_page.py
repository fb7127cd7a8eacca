"""Grad-CAM of wide pictures with `fit: pad` and `fit: squash`: the map lies over what contributed to the class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from red_detector import RedDetector
from simulated_predictions import predictions_of

from scripts.lib.pages.explanation_page import explain

BLUE = (10, 20, 220)
#: Of a picture of 128 x 64: rows and columns of its red corner, and the same in a square of 64 pixels.
CORNER = (slice(0, 32), slice(96, 128))
SHOWN = {"pad": (slice(16, 32), slice(48, 64)), "squash": (slice(0, 32), slice(48, 64))}


@pytest.mark.parametrize("fit", SHOWN)
def test_the_map_of_a_wide_picture_lies_over_its_red_corner_and_not_over_the_bars(fit: str, tmp_path: Path) -> None:
    picture = np.full((64, 128, 3), 8, np.uint8)
    picture[CORNER] = (250, 0, 0)
    Image.fromarray(picture).save(tmp_path / "0.png")
    (tmp_path / "0.png").rename(tmp_path / "0.jpg")  # the name that simulated predictions have
    pipeline: list[dict[str, Any]] = [
        {"type": "LoadImage"},
        {"type": "MakeSquare", "fit": fit, "size": 64, "background": BLUE},
        {"type": "Normalize", "mean": [0.0] * 3, "std": [255.0] * 3, "to_rgb": True},
        {"type": "ImageToTensor", "keys": ["img"]},
        {"type": "Collect", "keys": ["img"]},
    ]
    predictions = predictions_of(np.array([[0.5, 0.5]]), np.array([1]))
    explained = explain(RedDetector(), pipeline, predictions, [0], tmp_path, "cpu").images[0]
    seen = np.asarray(explained.seen, int)
    bars = (np.abs(seen - BLUE).max(axis=2) == 0).sum()
    assert bars == (2 * 16 * 64 if fit == "pad" else 0), "the network saw bars, and they are shown"
    assert seen[SHOWN[fit]][..., 0].min() > 180, "resizing mixes at its borders"
    (drawn,) = [shown for shown in explained.maps if shown.label == 1]
    strong = np.asarray(drawn.image, int)[..., 1]  # viridis is the greener the stronger
    row, column = divmod(int(strong.argmax()), 64)
    assert seen[row, column, 0] > 180
    inside = np.zeros((64, 64), bool)
    inside[SHOWN[fit]] = True
    assert strong[inside].min() > 70 and strong[:, :32].max() < 40 and strong[48:].max() < 40, "nothing else is lit"
