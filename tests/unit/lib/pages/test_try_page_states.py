"""try.html in all its states, for all who read it, and with networks of other families."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from axe import check_each_look, faults_of, fetch_axe
from browser import CHROMIUM, Page, chromium
from picture_formats import encode
from PIL import Image
from tiny_run import CLASSES, make_run, photograph
from try_page_reader import READY, VIEW, answer_of, finish, give, texts, write

import scripts.mmcls_plugins  # noqa: F401 - registers the backbone of timm
from scripts.lib.runs.onnx_model import OnnxModel
from scripts.lib.runs.run_folder import RunFolder

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]
#: Networks of other families than the tiny run's: timm's own for tests, with random weights.
FAMILIES = {"vision transformer": "test_vit", "ConvNeXt": "test_convnext"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return finish(make_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with chromium(1280, 900) as opened:
        yield opened


def noise(folder: Path) -> list[Path]:
    """Write what the training images are unlike, and a file that is no picture."""
    (folder / "noise.png").write_bytes(encode(Image.effect_noise((90, 70), 90).convert("RGB"), "PNG"))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    return [folder / "noise.png", folder / "broken.jpg"]


def spoilt(page: Path, folder: Path) -> Path:
    """Return a copy of the page whose own check fails."""
    text = page.read_text(encoding="utf-8")
    match = re.search(r'"probabilities":\[([\d.e-]+)', text)
    assert match
    (folder / "spoilt.html").write_text(text.replace(match[0], f'"probabilities":[{float(match[1]) + 0.01}'), "utf-8")
    return folder / "spoilt.html"


def test_every_state_is_fit_for_a_keyboard_a_screen_reader_a_phone_the_dark_and_paper(
    browser: Page, run: RunFolder, tmp_path: Path
) -> None:
    script = fetch_axe(tmp_path)
    page, known = write(run), run.dataset / "images" / CLASSES[0] / "a 0.png"
    for address, files in ((page, []), (page, [known, *noise(tmp_path)]), (spoilt(page, tmp_path), [known])):
        browser.open(address.as_uri())
        browser.wait_for(READY, 60)
        give(browser, files)
        browser.wait_for(f"{VIEW}.querySelectorAll('article').length === {len(files)}", 60)
        state = f"{address.name}, {len(files)} pictures"
        assert browser.evaluate(f"!{VIEW}.querySelector('[data-warning]').hidden") == (address != page), state
        check_each_look(browser, script)
        for width in (390, 1280, 2560):
            with browser.sized(width):
                assert browser.evaluate("document.documentElement.scrollWidth") <= width, (state, width)
        with browser.printed():  # dark on the screen since the look above
            assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
            for hidden in (".tools", ".drop", ".controls", "[data-status]", "article figure button"):
                shown = f"[...{VIEW}.querySelectorAll({hidden!r})].some(e => e.getClientRects().length)"
                assert not browser.evaluate(shown), (state, hidden)
    browser.evaluate(
        f"{VIEW}.querySelector('input[type=file]').closest('label').replaceWith(document.createElement('input'))"
    )
    assert faults_of(browser, script), "else this test would see nothing"
    assert browser.complaints == [] and browser.requests_that_leave() == []


def test_a_hidden_tab_goes_on(browser: Page, run: RunFolder) -> None:
    browser.open(write(run).as_uri())
    browser.wait_for(READY, 60)
    files = sorted((run.dataset / "images").rglob("*.png"))
    with browser.another_tab():
        give(browser, files)
        browser.wait_for(f"{VIEW}.querySelectorAll('article').length === {len(files)}", 60)
        # Timers of a hidden tab wait a second each: 81 squares and 21 pictures would take minutes.
        browser.evaluate(f"{VIEW}.querySelector('article figure button').click()")
        browser.wait_for(f"{VIEW}.querySelector('article figcaption').innerText.startsWith('yellow')", 60)
        assert browser.evaluate("document.hidden")


@pytest.mark.parametrize("family", FAMILIES)
def test_networks_of_other_families_give_the_answers_of_python(browser: Page, tmp_path: Path, family: str) -> None:
    backbone = {"type": "TimmFeatures", "model_name": FAMILIES[family]}
    backbone |= {"img_size": 32} if family == "vision transformer" else {}
    head = {"type": "LinearClsHead", "num_classes": len(CLASSES), "in_channels": 64, "topk": (1, 5)}
    run = finish(make_run(tmp_path, model={"type": "ImageClassifier", "backbone": backbone, "head": head}))
    browser.open(write(run).as_uri())
    browser.wait_for(READY, 60)
    assert browser.evaluate(READY) == "yes", texts(browser, "[data-warning]")
    model, tops = OnnxModel(run.onnx, threads=1), set()
    for number in range(12):
        content = encode(photograph(1000 + number, (40 + 9 * number, 70)), "PNG")
        prepared = model.prepare(content)
        expected, distances = model.answer(prepared[None])
        values, probabilities, distance = answer_of(browser, content)
        assert np.abs(values - prepared.ravel()).max() < 1e-3, number
        assert np.abs(probabilities - expected[0]).max() < 1e-4, number
        assert distances is not None and abs(distance - distances[0]) < 1e-4
        tops.add(int(probabilities.argmax()))
    assert len(tops) > 1, "the network of this test must tell pictures apart"
    give(browser, sorted((run.dataset / "images").rglob("*.png"))[:1])
    browser.wait_for(f"{VIEW}.querySelectorAll('article .nearest img').length > 0", 60)
    drops = browser.evaluate("model.cover(new Float32Array(3 * 32 * 32), 0, 3, () => {})")
    assert len(drops) == 9
