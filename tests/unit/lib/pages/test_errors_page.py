"""The page of errors: the most confident first, upright and small pictures, hostile names, labels that may be wrong."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from simulated_predictions import predictions_of, simulate
from tiny_run import photograph

from scripts.lib.base.problems import UserError
from scripts.lib.metrics.errors import confident_errors, label_suspects
from scripts.lib.pages import errors_page
from scripts.lib.pages.thumbnails import thumbnail
from scripts.lib.runs.predictions import Predictions

HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "苹果 & 梨"]


def save_images(predictions: Predictions, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for i, file in enumerate(predictions.files):
        photograph(i).save(folder / file)
    return folder


@pytest.fixture
def hostile(tmp_path: Path) -> tuple[Predictions, Path]:
    rows = [[0.2, 0.7, 0.1], [0.1, 0.8, 0.1], [0.0, 0.95, 0.05], [0.6, 0.3, 0.1]]
    predictions = predictions_of(np.array(rows), np.array([0, 1, 2, 1]), HOSTILE)
    return predictions, save_images(predictions, tmp_path / "images")


def pictures(page: str) -> list[Image.Image]:
    encoded = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in encoded]


def test_the_most_confident_error_is_first_and_right_images_are_left_out(hostile: tuple[Predictions, Path]) -> None:
    assert confident_errors(hostile[0]) == [2, 0, 3]
    page = errors_page.render(*hostile)
    assert "3 of 4 test images are misclassified.\nAll of them" in page
    assert re.findall(r'<span class="file"><bdi>(\d)', page) == ["2", "0", "3"]
    assert re.findall(r"predicted: .*?([\d.]+)\s%<br>label: .*?([\d.]+)\s%", page) == [
        ("95.0", "5.0"),
        ("70.0", "20.0"),
        ("60.0", "30.0"),
    ]


def test_at_most_so_many_are_shown_as_asked_for(hostile: tuple[Predictions, Path]) -> None:
    page = errors_page.render(*hostile, most=2)
    assert "The 2 most confident of them" in page and len(pictures(page)) == 2


def test_names_from_outside_stay_text(hostile: tuple[Predictions, Path]) -> None:
    page = errors_page.render(*hostile, title=HOSTILE[0])
    assert "<script" not in page and "<img src=x" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 3 and "苹果 &amp; 梨" in page
    assert not re.search(r'(?:src|href)="(?!data:)', page), "nothing is requested"


def test_without_an_error_the_page_says_so(tmp_path: Path) -> None:
    page = errors_page.render(predictions_of(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1])), tmp_path)
    assert "All 2 test images are classified correctly: there is no\nerror to show." in page
    assert "<img" not in page


def test_a_missing_and_a_broken_image_are_one_line(hostile: tuple[Predictions, Path]) -> None:
    predictions, folder = hostile
    broken = folder / predictions.files[2]
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(UserError, match=r"2\.jpg: .+; repair it"):
        errors_page.render(predictions, folder)
    broken.unlink()
    with pytest.raises(UserError, match=r"2\.jpg: No such file or directory; repair it"):
        errors_page.render(predictions, folder)


def test_pictures_are_upright_and_small(tmp_path: Path) -> None:
    """Orientation 6: the camera lay on its side, so that the left edge of the stored image is the upper one."""
    stored = Image.new("RGB", (600, 400), "blue")
    stored.paste("red", (0, 0, 100, 400))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / "a.jpg", exif=exif, quality=95)
    shown = thumbnail(tmp_path / "a.jpg", 224)
    assert shown.size == (149, 224)
    red, blue = shown.getpixel((75, 10)), shown.getpixel((75, 200))
    assert red[0] > 200 > 50 > red[2] and blue[2] > 200 > 50 > blue[0]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "I;16"])
def test_every_kind_of_image_becomes_rgb_and_keeps_its_brightness(tmp_path: Path, mode: str) -> None:
    grey = np.full((20, 30), 128, np.uint8)
    image = Image.fromarray(grey.astype(np.uint16) * 256) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    image.save(tmp_path / "a.png")
    shown = thumbnail(tmp_path / "a.png", 224)
    assert (shown.mode, shown.size) == ("RGB", (30, 20))
    assert abs(np.asarray(shown).mean() - 128) < 3


def test_the_confident_joint_is_the_one_worked_by_hand() -> None:
    """Thresholds: class 0 (0.9 + 0.7 + 0.2) / 3 = 0.6, class 1 (0.8 + 0.4) / 2 = 0.6, class 2 has no image."""
    rows = [[0.9, 0.1, 0.0], [0.7, 0.3, 0.0], [0.2, 0.8, 0.0], [0.2, 0.8, 0.0], [0.55, 0.4, 0.05]]
    suspects = label_suspects(predictions_of(np.array(rows), np.array([0, 0, 0, 1, 1])))
    # The last image is called a, but with less confidence than the images of a are: no suspect.
    assert [(suspect.row, suspect.suggested) for suspect in suspects] == [(2, 1)]


def test_labels_that_were_made_wrong_come_first() -> None:
    data = simulate(300, 5)
    rng = np.random.default_rng(0)
    swapped = rng.choice(np.flatnonzero(data.predictions == data.labels), 12, replace=False)
    labels = data.labels.copy()
    labels[swapped] = (labels[swapped] + 1) % 5
    suspects = label_suspects(Predictions(data.files, labels, data.predictions, data.probabilities, data.classes))
    first = [suspect.row for suspect in suspects[:24]]
    assert len(set(first) & set(swapped.tolist())) >= 8
    assert all(suspect.suggested != labels[suspect.row] for suspect in suspects)


def test_the_page_is_the_same_twice(hostile: tuple[Predictions, Path]) -> None:
    page = errors_page.render(*hostile, "run 0")
    assert page == errors_page.render(*hostile, "run 0")
    assert "<h1>The most confident errors: run 0</h1>" in page and len(pictures(page)) == 3


@pytest.mark.long
def test_the_page_does_without_torch() -> None:
    code = "import sys, scripts.lib.pages.errors_page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[4], check=False).returncode == 0
