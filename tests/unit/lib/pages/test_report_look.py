"""report.html as an eye sees it: what stands for what, and what fits beside what, on a laptop and on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest
from browser import CHROMIUM, Page, chromium
from report_folder import write_maps, write_page, write_results
from report_page_reader import PLOTS, READY, VIEW

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]
EXPERIMENTS = {"mobilenet-fast": 2.5, "mobilenet-tutorial": 2.0, "resnet18-scratch": 1.0}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of the report of six runs over five classes."""
    dataset: Path = tmp_path_factory.mktemp("look") / "results" / "simulated"
    dataset.mkdir(parents=True)
    runs = write_results(dataset, ["草莓", "香蕉", "lemon", "pear", "plum"], EXPERIMENTS, seeds=2, per_class=12)
    for run in runs:
        write_maps(dataset, run)
    write_page(dataset, runs)
    return (dataset / "report.html").as_uri()


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with chromium() as opened:
        yield opened


def show(page: Page, report: str, language: str = "en") -> None:
    """Open the report in a language, with all of it drawn."""
    page.open(report)
    page.wait_for(READY)
    page.evaluate(f"report.speak({language!r}); report.drawAll()")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_each_plot_tells_what_its_marks_stand_for_in_the_font_of_the_page(
    browser: Page, report: str, language: str
) -> None:
    show(browser, report, language)
    for name in ({*PLOTS} - {"matrix"}) | {"map"}:
        legend = f"[...{VIEW}.querySelectorAll('[data-plot={name}] .legend li')]"
        assert browser.evaluate(f"{legend}.length") >= 2, name
        assert browser.evaluate(f"{legend}.every(item => item.textContent.trim())"), name
    texts = f"[...{VIEW}.querySelectorAll('.plot text, .plot tspan, .plot li, .plot span')]"
    fonts = browser.evaluate(f"[...new Set({texts}.map(text => getComputedStyle(text).fontFamily.split(',')[0]))]")
    assert fonts == ["mimflow"]


@pytest.mark.parametrize(
    ("language", "axes"), [("en", ["true class", "predicted class"]), ("zh", ["真实类别", "预测类别"])]
)
def test_the_matrix_says_which_axis_is_which(browser: Page, report: str, language: str, axes: list[str]) -> None:
    show(browser, report, language)
    texts = f"[...{VIEW}.querySelectorAll('[data-plot=matrix] svg text')].map(text => text.textContent)"
    assert set(axes) <= set(browser.evaluate(texts))


def test_chinese_sentences_follow_one_another_without_a_space(browser: Page, report: str) -> None:
    show(browser, report, "zh")
    text = browser.evaluate(f"{VIEW}.innerText")
    assert "。" in text and re.findall("[。，；：] [\u4e00-\u9fff]..", text) == []


def test_curves_of_different_experiments_have_different_colours(browser: Page, report: str) -> None:
    show(browser, report)
    lines = f"{VIEW}.querySelectorAll('[data-plot=curves] [data-mark=line]')[0].querySelectorAll('path')"
    colours = browser.evaluate(f"[...{lines}].map(line => getComputedStyle(line).stroke)")
    assert len(colours) == 6 and len(set(colours)) == len(EXPERIMENTS), colours


def test_the_leaderboard_needs_no_scrolling_on_a_laptop(browser: Page, report: str) -> None:
    with browser.sized(1280):
        show(browser, report)
        tables = f"[...{VIEW}.querySelectorAll('[data-section=leaderboard] .scroll')]"
        assert browser.evaluate(f"{tables}.map(table => table.scrollWidth - table.clientWidth)") == [0, 0]


def test_on_a_phone_a_table_is_moved_sideways_and_not_the_page(browser: Page, report: str) -> None:
    with browser.sized(390):
        browser.open(report.replace("report.html", "leaderboard.html"))
        assert browser.evaluate("document.documentElement.scrollWidth") == 390
        tables = "[...document.querySelectorAll('.scroll')]"
        assert browser.evaluate(f"{tables}.some(box => box.scrollWidth > box.clientWidth && box.tabIndex === 0)")
        assert browser.evaluate("[...document.querySelectorAll('caption')].every(e => e.clientWidth <= 390)")


def test_pictures_that_belong_together_stand_side_by_side_on_a_phone(browser: Page, report: str) -> None:
    with browser.sized(390):
        show(browser, report)
        tops = f"[...{VIEW}.querySelectorAll('.group')].map(e => new Set([...e.children].map(c => c.offsetTop)).size)"
        assert set(browser.evaluate(tops)) == {1}


def test_a_phone_shows_the_intervals_of_long_names_and_a_matrix_that_can_be_read(browser: Page, tmp_path: Path) -> None:
    dataset = tmp_path / "results" / "simulated"
    dataset.mkdir(parents=True)
    names = {f"timm-tf_efficientnet_with_noisy_students-{kind}": 2.0 for kind in ("lite0", "lite1")}
    runs = write_results(dataset, [f"class {number}" for number in range(30)], names, seeds=1, per_class=4)
    write_page(dataset, runs)
    with browser.sized(390):
        show(browser, (dataset / "report.html").as_uri())
        board = f"{VIEW}.querySelector('[data-plot=leaderboard] svg')"
        ticks = browser.evaluate(f"[...{board}.querySelectorAll('text')].map(e => e.textContent)")
        assert len([text for text in ticks if text.startswith("timm-") and text.endswith(("lite0", "lite1"))]) == 2
        interval = f"{board}.querySelector('[data-mark=rule] line').getBoundingClientRect().width"
        assert browser.evaluate(interval) > 25
        figure = f"{VIEW}.querySelector('[data-plot=matrix]').parentNode"
        assert browser.evaluate(f"{figure}.scrollWidth > {figure}.clientWidth && {figure}.tabIndex === 0")
        height = browser.evaluate(f"{figure}.querySelector('svg text').getBoundingClientRect().width")
        assert height >= 8, "the names are turned: their height"
        assert browser.evaluate("document.documentElement.scrollWidth") == 390


def test_long_names_stay_within_the_map_and_off_one_another_on_a_phone(browser: Page, tmp_path: Path) -> None:
    dataset = tmp_path / "results" / "simulated"
    dataset.mkdir(parents=True)
    classes = [f"{name} of the southern hills" for name in "abcdefghijkl"]
    runs = write_results(dataset, classes, {"one": 2.0}, seeds=1, per_class=6)
    write_maps(dataset, runs[0])
    write_page(dataset, runs)
    with browser.sized(390):
        show(browser, (dataset / "report.html").as_uri())
        boxes = f"""[...{VIEW}.querySelectorAll('[data-plot=map] svg > rect, [data-plot=map] [data-mark=text] text')]
            .map(e => e.getBoundingClientRect()).map(box => [box.left, box.top, box.right, box.bottom])"""
        frame, *names = browser.evaluate(boxes)
    assert len(names) == len(classes)
    assert all(frame[0] <= left and right <= frame[2] for left, _, right, _ in names)
    apart = [a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] + 2 or b[3] <= a[1] + 2 for a, b in combinations(names, 2)]
    assert all(apart), names


def test_nothing_is_to_be_chosen_where_all_is_shown(browser: Page, report: str) -> None:
    show(browser, report)
    assert browser.evaluate(f"{VIEW}.querySelector('[data-choice=many]').offsetParent") is None


def test_a_curve_that_no_run_has_is_not_offered(browser: Page, tmp_path: Path) -> None:
    runs = write_results(tmp_path, ["a", "b"], {"x": 1.0})
    shown = f"[...{VIEW}.querySelectorAll('[data-choice=curve] option')].map(option => !option.hidden)"
    log = pd.read_csv(runs[0] / "train_log.csv")
    for loss in (0.5, None):
        log.assign(val_loss=loss).to_csv(runs[0] / "train_log.csv", index=False)
        write_page(tmp_path, runs)
        show(browser, (tmp_path / "report.html").as_uri())
        assert browser.evaluate(shown) == [True, True, loss is not None]
