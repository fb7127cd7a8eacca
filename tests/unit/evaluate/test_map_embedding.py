"""The map of the test images: the same for the same input, true to the features, and a page that holds all it shows."""

from __future__ import annotations

import base64
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, chromium
from PIL import Image
from simulated_predictions import predictions_of, write_csv

from scripts.evaluate import map_embedding
from scripts.lib.base.problems import UserError
from scripts.lib.metrics import embedding
from scripts.lib.pages import embedding_page, templates
from scripts.lib.runs.predictions import Predictions

CLASSES = ["<script>alert(1)</script>", 'it\'s "quoted" & </title>', "梨"]


class Elements(HTMLParser):
    """The elements of a page (name, attributes), and the texts of some kinds of them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "img"):
            self._inside.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._inside.pop() == tag, "elements are closed in their order"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[self._inside[-1]][-1] += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def clusters(per_class: int, classes: list[str], seed: int = 0) -> tuple[Predictions, np.ndarray]:
    """Images whose features lie around the centre of their class; of each class the first one is predicted wrongly."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(classes)), per_class)
    centres = rng.normal(size=(len(classes), 24))
    features = (3 * centres[labels] + rng.normal(size=(len(labels), 24))).astype(np.float32)
    predicted = labels.copy()
    predicted[::per_class] = (predicted[::per_class] + 1) % len(classes)
    probabilities = np.full((len(labels), len(classes)), 0.2 / max(1, len(classes) - 1))
    probabilities[np.arange(len(labels)), predicted] = 0.8
    return predictions_of(probabilities.astype(np.float32).astype(np.float64), labels, classes), features


def write_images(folder: Path, files: list[str]) -> Path:
    rng = np.random.default_rng(0)
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(folder / file)
    return folder


def make_page(root: Path, predictions: Predictions, features: np.ndarray, *more: str) -> str:
    """The page of the command, for images that are there."""
    np.save(root / "features.npy", features)
    options = ["--predictions", str(write_csv(root / "p.csv", predictions)), "--features", str(root / "features.npy")]
    options += ["--images", str(write_images(root / "images", predictions.files)), "--output", str(root / "map.html")]
    map_embedding.main(map_embedding.build_parser().parse_args([*options, "--title", "<b>a run</b>", *more]))
    return (root / "map.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_page(tmp_path_factory.mktemp("map"), *clusters(15, CLASSES))


@pytest.mark.long
def test_the_same_input_gives_the_same_bytes(page: str, tmp_path: Path) -> None:
    assert make_page(tmp_path, *clusters(15, CLASSES)) == page


def test_neighbours_on_the_map_are_neighbours_in_the_features() -> None:
    predictions, features = clusters(20, [f"class {number}" for number in range(6)])
    image_map = embedding_page.make_map(predictions, features, 0)
    distances = np.hypot(*(image_map.positions[:, None] - image_map.positions[None]).transpose(2, 0, 1))
    np.fill_diagonal(distances, np.inf)
    same = predictions.labels[distances.argmin(axis=1)] == predictions.labels
    assert same.mean() > 0.95
    assert image_map.trustworthiness is not None and 0.85 < image_map.trustworthiness <= 1


@pytest.mark.parametrize("images", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("dims", [1, 6])
def test_few_images_have_positions_of_their_own(images: int, dims: int) -> None:
    features = np.random.default_rng(0).normal(size=(images, dims)).astype(np.float32)
    with embedding.one_thread():
        positions = embedding_page.fit_to_map(embedding.embed(features, 0))
    assert positions.shape == (images, 2) and np.isfinite(positions).all()
    assert (positions >= 0).all() and (positions <= [embedding_page.WIDTH, embedding_page.HEIGHT]).all()
    assert len(np.unique(positions.round(1), axis=0)) == images


def test_images_that_nothing_tells_apart_lie_in_the_middle() -> None:
    positions = embedding_page.fit_to_map(embedding.embed(np.ones((20, 4), np.float32), 0))
    assert (positions == [embedding_page.WIDTH / 2, embedding_page.HEIGHT / 2]).all()


def test_of_many_images_as_many_of_each_class_are_shown_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = np.repeat([0, 1, 2], [500, 10, 300])
    chosen = embedding.choose(labels, 0, 110)
    assert np.bincount(labels[chosen]).tolist() == [50, 10, 50]
    assert (np.diff(chosen) > 0).all() and np.array_equal(chosen, embedding.choose(labels, 0, 110))
    assert not np.array_equal(chosen, embedding.choose(labels, 1, 110))
    assert np.array_equal(embedding.choose(labels, 0, 810), np.arange(810)), "all, where they are not too many"
    monkeypatch.setattr(embedding_page, "MOST_POINTS", 30)
    elements = Elements(make_page(tmp_path, *clusters(15, CLASSES), "--seed", "7"))
    text = " ".join(" ".join(elements.texts["p"]).split())
    assert "30 of 45 images, at most 10 of each class, drawn with seed 7" in text
    assert len([mark for mark in elements.named("circle") + elements.named("path") if "data-i" in mark]) == 30


def test_up_to_eight_classes_have_a_colour_each_and_of_more_no_neighbours_share_one() -> None:
    assert embedding_page.choose_colours({label: np.zeros(2) for label in range(8)}, 8) == list(range(8))
    grid = [np.array([column, row]) for row in range(10) for column in range(20)]
    order = np.random.default_rng(0).permutation(200)
    colours = np.array(embedding_page.choose_colours(dict(enumerate(np.array(grid)[order])), 200))
    positions = np.array(grid)[order]
    distances = np.hypot(*(positions[:, None] - positions[None]).transpose(2, 0, 1))
    np.fill_diagonal(distances, np.inf)
    shared = np.where(colours[:, None] == colours[None], distances, np.inf).min(axis=1)
    assert np.mean(shared > 1) > 0.97


def test_each_image_is_a_point_whose_shape_says_whether_it_is_right(page: str) -> None:
    elements = Elements(page)
    circles, diamonds = ([mark for mark in elements.named(tag) if "data-i" in mark] for tag in ("circle", "path"))
    assert sorted(int(mark["data-i"] or "") for mark in diamonds) == [0, 15, 30]
    assert sorted(int(mark["data-i"] or "") for mark in circles + diamonds) == list(range(45))
    lines = f"44.jpg\ntrue class: {CLASSES[2]}\npredicted: {CLASSES[2]}\nconfidence: 80.0 %"
    wrong = f"0.jpg\ntrue class: {CLASSES[0]}\npredicted: {CLASSES[1]} (wrong)\nconfidence: 80.0 %"
    assert lines in elements.texts["title"] and wrong in elements.texts["title"], "also where no script runs"
    assert len(elements.texts["title"]) == 46, "one of each image, one of the page"


def test_names_from_outside_are_text_and_nothing_is_fetched(page: str) -> None:
    page_elements = Elements(page)
    scripts = page_elements.named("script")
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    data = json.loads(page_elements.texts["script"][0])
    assert data["classes"] == CLASSES and len(data["points"]) == 45
    assert page_elements.texts["script"][1].strip() == templates.source("embedding.js").strip()
    assert page_elements.texts["h1"] == ["Map of the images: <b>a run</b>"]
    assert [text for text in page_elements.texts["text"] if text.startswith("<script>")], "a name on the map"
    for tag, attributes in page_elements.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "b"), tag
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "href")], attributes
    assert b"".join(base64.b64decode(point[4])[:4] for point in data["points"][:2]) == b"RIFFRIFF"


def test_the_list_has_every_class_with_its_images(page: str) -> None:
    elements = Elements(page)
    assert [button["data-c"] for button in elements.named("button") if "data-c" in button] == ["0", "1", "2"]
    assert elements.texts["span"] == [text for name in CLASSES for text in (name, "15, 1 wrong")]


def test_two_hundred_classes_have_names_that_do_not_overlap(tmp_path: Path) -> None:
    classes = [f"kind {number:03d}" for number in range(200)]
    predictions, _ = clusters(2, classes)
    positions = np.repeat(np.random.default_rng(0).uniform([30, 30], [870, 600], (200, 2)), 2, axis=0)
    colours = embedding_page.choose_colours(embedding_page.medians_of(predictions.labels, positions), 200)
    names = embedding_page.names_of(embedding_page.Map(predictions, positions, colours, None))
    boxes = np.array([[name.x, name.y] for name in names])
    across, up = np.abs(boxes[:, None] - boxes[None]).transpose(2, 0, 1)
    clash = (across < 35) & (up < 8.4) & ~np.eye(200, dtype=bool)
    assert len(names) == 200 and clash.any(axis=1).mean() < 0.02


def test_small_images_take_no_more_room_than_they_may(tmp_path: Path) -> None:
    files = [f"{number}.png" for number in range(6)]
    rng = np.random.default_rng(0)
    for file in files:
        Image.fromarray(rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)).save(tmp_path / file)
    large = embedding_page.thumbnails(tmp_path, files)
    small = embedding_page.thumbnails(tmp_path, files, room=6000)
    assert sum(map(len, small)) <= 6000 < sum(map(len, large))
    assert embedding_page.thumbnails(tmp_path, files, room=10) == [""] * 6
    (tmp_path / "picture.webp").write_bytes(base64.b64decode(large[0]))
    with Image.open(tmp_path / "picture.webp") as image:
        assert image.size == (96, 64)


def test_an_image_that_is_gone_leaves_its_point(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    assert embedding_page.thumbnails(tmp_path, ["gone.png", "broken.png"]) == ["", ""]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK", "not a file of features"),
        (np.zeros((44, 3), np.float32), "not the features of 45 images"),
        (np.full((45, 3), np.nan, np.float32), "no finite number"),
    ],
)
def test_features_of_something_else_are_one_line(tmp_path: Path, content: bytes | np.ndarray, message: str) -> None:
    path = tmp_path / "f.npy"
    path.write_bytes(content) if isinstance(content, bytes) else np.save(path, content)
    with pytest.raises(UserError, match=rf"f\.npy: .*{message}"):
        map_embedding.read_features(path, 45)
    with pytest.raises(UserError, match="no such file"):
        map_embedding.read_features(tmp_path / "none.npy", 45)


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
def test_in_a_browser_pointing_and_choosing_show_what_was_asked_for(page: str, tmp_path: Path) -> None:
    (tmp_path / "map.html").write_text(page, encoding="utf-8")
    embedded = "data:text/html;charset=utf8;base64," + base64.b64encode(page.encode()).decode()  # as Snakemake does
    with chromium() as browser:
        for address in ((tmp_path / "map.html").as_uri(), embedded):
            browser.open(address)
            box = "document.querySelector('[data-i=\"0\"]').getBoundingClientRect()"
            x, y = browser.evaluate(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({box})")
            browser.move_to(x, y)
            tooltip = "document.getElementById('tooltip').innerText.trim().split(/\\n+/)"
            browser.wait_for("!document.getElementById('tooltip').hidden")
            assert browser.evaluate(tooltip) == [
                "0.jpg", f"true class: {CLASSES[0]}", f"predicted: {CLASSES[1]} (wrong)", "confidence: 80.0 %",
            ]  # fmt: skip
            assert browser.wait_for("document.querySelector('#tooltip img').naturalWidth") == 60
            shown = "[...document.querySelectorAll('[data-i]:not(.off)')].map(e => +e.dataset.i).sort((a, b) => a - b)"
            browser.evaluate("document.querySelector('button[data-c=\"1\"]').click()")
            assert browser.evaluate(shown) == list(range(15, 30))
            browser.evaluate("document.querySelector('button[data-c=\"2\"]').click()")
            assert browser.evaluate(shown) == list(range(30, 45))
            with_shift = "new MouseEvent('click', {bubbles: true, shiftKey: true})"
            browser.evaluate(f"document.querySelector('button[data-c=\"1\"]').dispatchEvent({with_shift})")
            assert browser.evaluate(shown) == list(range(15, 45))
            browser.evaluate(f"document.querySelector('button[data-c=\"2\"]').dispatchEvent({with_shift})")
            browser.evaluate("document.getElementById('wrong').click()")
            assert browser.evaluate(shown) == [15]
            browser.move_to(2, 2)
            browser.evaluate("document.getElementById('all').click(); document.getElementById('map').focus()")
            assert browser.evaluate(shown) == [0, 15, 30]
            for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowLeft"):
                browser.call("Input.dispatchKeyEvent", type="keyDown", key=key)
            assert browser.evaluate(tooltip)[0] == "15.jpg", "from 0 to 15 and 30, where it ends, and back"
            browser.call("Input.dispatchKeyEvent", type="keyDown", key="Escape")
            assert browser.evaluate("document.getElementById('tooltip').hidden")
            browser.evaluate(
                "f = document.getElementById('filter'); f.value = '梨'; f.dispatchEvent(new Event('input'))"
            )
            assert browser.evaluate("[...document.querySelectorAll('#legend li')].map(e => e.hidden)") == [
                True,
                True,
                False,
            ]
        assert browser.complaints == [] and browser.requests_that_leave() == []
