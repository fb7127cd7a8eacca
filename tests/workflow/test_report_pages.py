"""The report and its pages in a real browser whose network is cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Page, chromium
from dag import Finished
from report_reader import ask_the_map, check_quiet, look_at, look_at_everything, open_category, served

from scripts.lib.pages.report_size import bounded
from scripts.lib.workflow.report_menu import ORDER

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser: Page) -> Page:
    """The one page of the browser, without what earlier tests asked of it."""
    browser.requests.clear()
    browser.complaints.clear()
    return browser


def test_the_report_shows_every_figure_from_a_file_and_over_http(page: Page, finished: Finished) -> None:
    dataset = finished[0] / "results/small"
    with served(dataset) as address:
        for base in (dataset.as_uri(), address):
            assert [bool(seen) for seen in look_at_everything(page, f"{base}/report.html")] == [True, True, True]
            check_quiet(page, address)


@pytest.mark.long
def test_the_map_inside_the_report_answers_the_mouse_and_the_filter(page: Page, finished: Finished) -> None:
    page.open((finished[0] / "results/small/report.html").as_uri())
    number = next(n for n, words in enumerate(open_category(page, "Runs")) if "map of the test images" in words)
    assert look_at(page, number)
    ask_the_map(page)
    check_quiet(page)


@pytest.mark.long
def test_chinese_names_are_drawn_where_no_font_for_them_is_installed(page: Page, finished: Finished) -> None:
    page.open((finished[0] / "results/small/quick/seed0/figures/embedding.html").as_uri())
    fonts = "document.fonts.ready.then(all => [...all].map(font => [font.family, font.status].join(' ')))"
    assert page.evaluate(fonts) == ["mimflow loaded"]
    check_quiet(page)


@pytest.mark.long
def test_what_a_run_shows_stands_in_the_order_of_reading(page: Page, finished: Finished) -> None:
    page.open((finished[0] / "results/small/report.html").as_uri())
    titles = [words.split("\t")[1].strip() for words in open_category(page, "Runs")]
    assert titles == [f"{number:02} {words}" for number, words in enumerate(ORDER, 1)]


@pytest.mark.long
def test_each_page_of_a_run_is_quiet_and_runs_no_foreign_script(page: Page, finished: Finished) -> None:
    run = finished[0] / "results/small/quick/seed0"
    pages = sorted(run.rglob("*.html"))
    assert len(pages) >= 6
    for path in pages:
        page.open(path.as_uri())
        assert page.evaluate("document.body.innerText.length") > 100, path.name
    check_quiet(page)


@pytest.mark.long
def test_a_report_that_would_be_too_large_shows_where_the_rest_lies(
    page: Page, finished: Finished, tmp_path: Path
) -> None:
    text = (finished[0] / "results/small/report.html").read_text(encoding="utf-8")
    text, left_out = bounded(text, len(text.encode()) - 2_000_000)  # all that may be left out
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    rows = look_at_everything(page, (tmp_path / "report.html").as_uri())
    assert left_out and len(text.encode()) < 5_000_000 and all(rows)
    number = next(n for n, words in enumerate(open_category(page, "Runs")) if "what the model looks at" in words)
    assert look_at(page, number)
    frame = page.enter_frame()
    page.wait_for("document.body.innerText.includes('the report has no room for it')", context=frame)
    check_quiet(page)
