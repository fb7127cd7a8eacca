"""Pages in two languages: the Chinese ones are Chinese to the last word and show the same values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chinese import Visible, english_in, english_on
from jinja2 import nodes
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from simulated_predictions import predictions_of, simulate
from tiny_run import write_train_log

from scripts.evaluate import describe_model, export_model
from scripts.lib.base.language import speaking
from scripts.lib.data.findings import CONTAMINATED, Finding
from scripts.lib.data.splits import Split, Splits
from scripts.lib.pages import data_page, data_summary, embedding_page, errors_page, explanation_page, templates
from scripts.lib.pages.figures import classes, confusion_matrix, curves, reliability, selective, training_curves
from scripts.lib.runs.predictions import Predictions
from scripts.lib.runs.train_log import read_train_log
from scripts.report import record_provenance

TITLE = "resnet, seed 0, fold 1"
HAN = re.compile("[\u4e00-\u9fff]")


@pytest.fixture(autouse=True)
def chinese() -> Iterator[None]:
    with speaking("zh"):
        yield


def named(n: int, classes: int, **more: Any) -> Predictions:
    """Predictions whose classes have Chinese names, so that each English word is one of mimflow's."""
    simulated = simulate(n, classes, **more)
    names = [f"类别{number}" for number in range(classes)]
    return predictions_of(simulated.probabilities, simulated.labels, names)


SMALL, LARGE = named(60, 5), named(400, 120, strength=4.0)
RIGHT = named(60, 5, strength=50.0)
FIGURES: dict[str, Callable[[Predictions], Figure]] = {
    "confusion_matrix": lambda data: confusion_matrix.draw(data, "题"),
    "classes": lambda data: classes.draw(data, "题"),
    "curves": lambda data: curves.draw(data, "题"),
    "reliability": lambda data: reliability.draw(data, "题"),
    "scaled": lambda data: reliability.draw(data, "题", data),
    "selective": lambda data: selective.draw(data, "题"),
}
#: Figures that say of many classes what they leave out.
LONG = ("confusion_matrix", "classes", "curves")


def words_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text().strip()]  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "data"), [*((name, SMALL) for name in FIGURES), *((name, LARGE) for name in LONG)])
def test_figures_are_chinese(name: str, data: Predictions) -> None:
    words = words_of(FIGURES[name](data))
    # Names of quantities that Chinese texts do not translate; all else has a Chinese character where it has a letter.
    left = [text for text in words if re.search("[a-z]{2}", text) and not HAN.search(text)]
    assert not left and not [text for text in words if english_in(text)]


def test_the_training_curves_are_chinese(tmp_path: Path) -> None:
    write_train_log(tmp_path / "train_log.csv")
    words = words_of(training_curves.draw(read_train_log(tmp_path / "train_log.csv"), "题"))
    assert not [text for text in words if re.search("[a-z]{2}", text) and not HAN.search(text)]


def pictures(root: Path, files: list[str]) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (200, 30, 30)).save(root / file)
    return root


@pytest.mark.parametrize("data", [SMALL, RIGHT], ids=["errors", "none"])
def test_the_page_of_errors_is_chinese(tmp_path: Path, data: Predictions) -> None:
    page = errors_page.render(data, pictures(tmp_path, data.files), TITLE)
    with speaking("en"):
        assert english_on(errors_page.render(data, tmp_path, TITLE)), "else this test would see nothing"
    assert not english_on(page) and "随机种子 0，第 1 折" in page and '<html lang="zh">' in page


def test_the_map_is_chinese() -> None:
    features = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    page = embedding_page.render(embedding_page.make_map(SMALL, features, 0), [""] * 60, 100, 0, TITLE)
    assert not english_on(page) and json.dumps("真实类别：") in page, "what embedding.js writes"


@pytest.mark.long
@pytest.mark.parametrize("data", [SMALL, LARGE, RIGHT], ids=["pair", "many", "none"])
def test_the_page_of_grad_cam_is_chinese(data: Predictions) -> None:
    grey = Image.new("RGB", (16, 16))
    choice = explanation_page.choose(data, np.zeros((len(data.files), 4), np.float32))
    images = {
        row: explanation_page.Explained(
            grey,
            [explanation_page.Map(label, grey, True) for label in {int(data.labels[row]), int(data.predictions[row])}],
        )
        for row in choice.rows()
    }
    explanations = explanation_page.Explanations(images, "backbone.layer4", (5, 5), 0.5)
    page = explanation_page.explanation_page(data, choice, explanations, TITLE)
    assert not english_on(page) and not english_on(explanation_page.skipped_page(TITLE, "?"))


def of_data(root: Path, names: list[str], sizes: tuple[int, int], **summary: Any) -> data_page.Data:
    """A data set of two classes in which each of *names* was found."""
    files = [f"苹果/{number}.jpg" for number in range(sizes[0])] + [f"梨/{number}.jpg" for number in range(sizes[1])]
    rows = [Finding(files[0], name, "kept", "g", "exact copy of a.jpg") for name in names]
    splits = {"train": files, "val": files[:1], "test": files[:2]}
    whole = {"images": 9, "set_aside": 2, "left_out": 1, "findings": {name: 1 for name in names}, "notes": REMARKS}
    whole |= {"classes": {"苹果": {"all": sizes[0] + 1}, "梨": {"all": sizes[1]}}, "left_out_files": LEFT_OUT}
    whole |= {"formats": {"JPEG": 9}, "widths": {"min": 1, "median": 2, "max": 3}}
    whole |= {"outside_square": {"mean": 0.41, "most": 0.75, "file": "苹果/1.jpg"}, **summary}
    by_name = {name: Split(name, images, [0] * len(images)) for name, images in splits.items()}
    return data_page.Data(rows, whole, Splits(by_name, 3), ["苹果", "梨"], pictures(root, files))


REMARKS = [
    "splits are read from the column 'Usage': train 3, val 1, test 1",
    "labels.csv: the column 'fold' ('a', 'b') may be a split and is ignored: to use it, call it split, and write train,"
    " val or test in it",
    "names in a.zip are read as gb18030 or UTF-8, such as '苹果'; if that is wrong, set dataset.encoding",
    "3 images of 16 bits a channel: the largest value is 4,095; they are scaled as 12 bits (dataset.bit_depth); in 1"
    " image some are larger than that, and become white",
    "fit: crop leaves out 41 % of the pixels of an image on average, 75 % of 苹果/1.jpg: fit: pad or squash shows the"
    " network all of it",
    "fit: crop leaves out 24 % of the pixels of an image on average, 75 % of 苹果/1.png: try fit: pad, which was more"
    " accurate on other transparent images",
    "classes 'a', 'A' differ only by case, by the form of their Unicode signs or by blanks: if they are one class, give"
    " their folders one name",
]
LEFT_OUT = ["left out 3: not an image, such as 'a.txt'", "left out 2: a link", "left out 1: no row in labels.csv"]


@pytest.mark.long
@pytest.mark.parametrize("names", [sorted(data_summary.meanings()), ["tiny"], []], ids=["all", "one", "none"])
@pytest.mark.parametrize("sizes", [(3, 3), (9, 2)], ids=["equal", "unequal"])
def test_the_page_of_the_data_is_chinese(tmp_path: Path, names: list[str], sizes: tuple[int, int]) -> None:
    page = data_page.data_page(of_data(tmp_path, names, sizes), "fruit")
    assert not english_on(page) and "略去 3 个：不是图像，例如" in page


@pytest.mark.parametrize(
    "counts", [{}, {CONTAMINATED: 1}, {CONTAMINATED: 2}, {"duplicate": 1}, {"duplicate": 2, "near_duplicate": 3}]
)
@pytest.mark.parametrize(("aside", "left_out"), [(0, 0), (1, 1), (2, 3)])
def test_the_verdict_of_the_audit_is_chinese(counts: dict[str, int], aside: int, left_out: int) -> None:
    text = data_page.verdict({"images": 9, "set_aside": aside, "left_out": left_out, "findings": counts})
    assert not re.search("[A-Za-z]", text) and text.endswith("。")


@pytest.mark.long
def test_the_pages_of_the_model_the_export_and_the_origin_are_chinese() -> None:
    stage = {"name": "layer1", "type": "ResLayer", "output": [1, 2], "parameters": 3, "multiply_adds": 4, "layers": []}
    model = {"type": "ImageClassifier", "backbone": "ResNet"}
    numbers = dict.fromkeys(
        ("parameters", "parameters_trainable", "multiply_adds", "flops", "weights_bytes", "checkpoint_bytes"), 10**7
    )
    summary = {"input": [3, 2, 2], "model": model, **numbers, "stages": [stage]}
    of_engine = {"version": "1", "milliseconds_single": 1.0, "images_per_second": None}
    export = {
        "model": {
            "file": "model.onnx", "bytes": 1, "opset": 11, "input": "images: float of shape (batch, 3, 2, 2)",
            "output": "probabilities: float of shape (batch, 7)", "preprocessing": {"steps": []},
        },
        "parity": {"images": 3, "same_prediction": 3, "largest_difference": 1e-7},
        "speed": {"cpu": "CPU", "threads": 2, "batch_size": 8, "engines": {"torch": of_engine}},
    }  # fmt: skip
    file = {"path": "a", "bytes": 1, "sha256": "b", "weights_sha256": "c"}
    record = {
        "run": {"dataset": "d"},
        "inputs": {name: {} for name in ("training", "settings", "code", "environment", "versions")}
        | {"files": {"checkpoint": file}},
        "outputs": {"best.pth": file},
        "circumstances": {"training": {"folder": "results/d/e/seed0"}, "machine": {}, "setup": {}},
    }
    for page in (
        describe_model.model_page(summary),
        export_model.export_page(export, "import numpy"),
        record_provenance.provenance_page(record, "a = 1"),
    ):
        assert not english_on(page)
        headings = re.findall(r"<(?:h1|h2|th|caption)>(.*?)</", page)
        assert [text for text in headings if not HAN.search(text)] in ([], ["sha256", "sha256", "config.py"])


def variables(template: str) -> set[str]:
    """The values of a template that are not made in it: what it shows."""
    environment = templates.ENVIRONMENTS["en"]
    tree = environment.parse((templates.FOLDER / template).read_text(encoding="utf-8"))
    return {node.attr for node in tree.find_all(nodes.Getattr)} - {"items", "append", "get", "last", "index0"}


def test_each_template_with_words_is_there_in_chinese_and_shows_the_same_values() -> None:
    for path in sorted(templates.FOLDER.glob("*.html")):
        other = templates.FOLDER / "zh" / path.name
        if other.is_file():
            assert variables(f"zh/{path.name}") == variables(path.name), path.name
        else:
            text = " ".join(Visible(re.sub(r"{[{%#].*?[}%#]}", "", path.read_text(), flags=re.DOTALL)).texts)
            assert not re.search("[A-Za-z]{2}", text), f"{path.name} has words, and no Chinese"
