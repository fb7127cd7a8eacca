"""A given test part of which train holds copies: the whole workflow finds them, trains without them, and says so."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pandas as pd
import pytest
from dag import QUICK, photograph, settings, snakemake
from PIL import Image

from scripts.lib.data.findings import CONTAMINATED
from scripts.lib.data.splits import listed_images
from scripts.lib.runs.predictions import read_predictions

pytestmark = pytest.mark.long

CLASSES = ["a", "b", "草莓"]
TRAIN, TEST = 12, 4
EXPECTED = {f"test/{name}/{number}.jpg" for name in CLASSES for number in (0, 1)}


def saved_again(content: bytes) -> bytes:
    """The same photo with other bytes and other pixels."""
    stream = io.BytesIO()
    Image.open(io.BytesIO(content)).save(stream, "JPEG", quality=70)
    return stream.getvalue()


def make_data(folder: Path) -> Path:
    """Of each class, test image 0 stands in train byte for byte, 1 was saved anew, 2 and 3 are in test alone."""
    for label, name in enumerate(CLASSES):
        photos = [photograph(label, number) for number in range(TRAIN + TEST)]
        test = [photos[0], saved_again(photos[1]), *photos[TRAIN + 2 :]]
        for split, of_split in (("train", photos[:TRAIN]), ("test", test)):
            path = folder / split / name
            path.mkdir(parents=True)
            for number, content in enumerate(of_split):
                (path / f"{number}.jpg").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def contaminated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The results of a finished run, and what it printed."""
    folder = tmp_path_factory.mktemp("contaminated")
    config = settings({"path": str(make_data(folder / "data"))}, quick={**QUICK, "export": False})
    result = snakemake(folder, config)
    assert result.returncode == 0, result.stdout
    return folder / "results" / "small", result.stdout


def test_copies_in_train_are_found_and_not_trained_on(contaminated: tuple[Path, str]) -> None:
    with open(contaminated[0] / "audit.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows if row["finding"] == CONTAMINATED} == EXPECTED
    of_train = {row["file"] for row in rows if row["action"] == "left_out"}
    assert of_train == {file.replace("test/", "train/") for file in EXPECTED}
    splits = contaminated[0] / "splits"
    assert not of_train & set(listed_images([splits / "train.txt", splits / "val.txt"]))
    assert set(listed_images([splits / "test.txt"])) >= EXPECTED


def test_the_leaderboard_has_the_accuracy_with_and_without_them(contaminated: tuple[Path, str]) -> None:
    board = pd.read_csv(contaminated[0] / "leaderboard.csv").iloc[0]
    predictions = read_predictions(contaminated[0] / "quick" / "seed0" / "predictions.csv")
    right = predictions.labels == predictions.predictions
    rest = [index for index, file in enumerate(predictions.files) if file not in EXPECTED]
    assert (board["n_leaked"], board["n_test"], len(rest)) == (6, 12, 6)
    assert board["accuracy_top1_mean"] == pytest.approx(right.mean())
    assert board["accuracy_without_leaked"] == pytest.approx(right[rest].mean())
    page = (contaminated[0] / "leaderboard.html").read_text(encoding="utf-8")
    heading = "<p><strong>The test split is contaminated.</strong></p>"
    assert f"{heading}\n<p>6 of the 12 test images have a copy or a near copy in train" in page
    assert "train or val as given holds 6 of 12 test images" in contaminated[1] and "\x1b[31mThe" not in contaminated[1]


def test_the_pages_and_the_card_say_it(contaminated: tuple[Path, str]) -> None:
    page = (contaminated[0] / "audit.html").read_text(encoding="utf-8")
    assert '<p class="verdict contaminated">Contaminated: 6 given val or test images' in page
    shown = page.split("<h2>Contaminated val and test images</h2>")[1].split("</section>")[0]
    assert shown.count('<figure class="contaminated">') == 6 and shown.count("<img") == 12 and "草莓" in shown
    model_card = (contaminated[0] / "quick" / "seed0" / "model_card.md").read_text(encoding="utf-8")
    assert "Contaminated: 6 given val or test images" in model_card
    assert json.loads((contaminated[0] / "audit.json").read_text(encoding="utf-8"))["left_out"] == 6


def test_the_report_begins_with_it(contaminated: tuple[Path, str]) -> None:
    report = (contaminated[0] / "report.html").read_text(encoding="utf-8")
    english = report.split('data-language="en"')[1].split('data-language="zh"')[0]
    answer, _, rest = english.partition('data-section="leaderboard"')
    assert "The test split is contaminated" in answer and "6 of its images have copies" in " ".join(answer.split())
    assert "Contaminated: 6 given val or test images" in rest
