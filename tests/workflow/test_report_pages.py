"""The report and its pages in a real browser whose network is cut."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe import check_each_look, faults_of, fetch_axe
from browser import CHROMIUM, Page, chromium
from dag import ROOT, Finished
from report_page_reader import find, read_report, use_every_control
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


def report_of(finished: Finished) -> Path:
    return finished[0] / "results/small/report.html"


def test_the_report_shows_and_asks_for_nothing_from_a_file_and_over_http(page: Page, finished: Finished) -> None:
    dataset = finished[0] / "results/small"
    with served(dataset) as address:
        for base in (dataset.as_uri(), address):
            read_report(page, f"{base}/report.html")
            check_quiet(page, address)


def test_every_control_of_the_report_answers(page: Page, finished: Finished) -> None:
    use_every_control(page, report_of(finished).as_uri())
    check_quiet(page)


@pytest.mark.long
def test_the_report_without_javascript_shows_texts_tables_and_figures(page: Page, finished: Finished) -> None:
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.open(report_of(finished).as_uri())
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)
    # The page is asked when scripts may run again; its own have not.
    shown = (
        "[...document.querySelectorAll('.view:not([hidden]) noscript img')].filter(e => e.naturalWidth > 100).length"
    )
    assert page.wait_for(f"{shown} >= 5")
    assert "always the most frequent" in page.evaluate("document.body.innerText").lower().replace("answering", "")
    assert page.evaluate("document.querySelector('[data-plot=leaderboard]').children.length") == 0


@pytest.mark.long
def test_the_report_has_no_serious_fault_for_a_keyboard_or_a_screen_reader(
    page: Page, finished: Finished, tmp_path: Path
) -> None:
    read_report(page, report_of(finished).as_uri())
    script = fetch_axe(tmp_path)
    check_each_look(page, script)
    find(page, "h1", "remove()")
    page.evaluate("document.querySelectorAll('img').forEach(image => image.removeAttribute('alt'))")
    assert faults_of(page, script), "else this test would see nothing"


@pytest.mark.long
def test_the_report_is_printed_whole_in_light_colours(page: Page, finished: Finished) -> None:
    read_report(page, report_of(finished).as_uri())
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.evaluate(
        "window.opened = null; addEventListener('afterprint', () => { opened ="
        " [...document.querySelectorAll('.view:not([hidden]) details')].every(e => e.open); })"
    )
    printed = base64.b64decode(page.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)["data"])
    assert printed.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", printed)) >= 3
    assert page.evaluate("opened") is True
    with page.printed():
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        for hidden in (".toc", ".tools", ".hint"):
            assert find(page, hidden, "getClientRects().length") == 0, hidden


@pytest.mark.long
@pytest.mark.parametrize("width", [390, 1280, 2560])
def test_the_report_fits_its_window(page: Page, finished: Finished, width: int) -> None:
    with page.sized(width):
        read_report(page, report_of(finished).as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.fixture(scope="module")
def snakemake_report(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Snakemake's own report of the same results."""
    report = tmp_path_factory.mktemp("report") / "snakemake_report.html"
    command = [sys.executable, "-m", "scripts.snakemake_report", "--output", str(report)]
    command += ["--config", "results/small/settings.yaml"]
    subprocess.run(command, cwd=finished[0], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    return report


@pytest.mark.long
def test_snakemakes_report_shows_every_figure(page: Page, snakemake_report: Path) -> None:
    assert [bool(seen) for seen in look_at_everything(page, snakemake_report.as_uri())] == [True, True, True]
    check_quiet(page)


@pytest.mark.long
def test_the_map_inside_snakemakes_report_answers_the_mouse_and_the_filter(page: Page, snakemake_report: Path) -> None:
    page.open(snakemake_report.as_uri())
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
def test_what_a_run_shows_stands_in_the_order_of_reading(page: Page, snakemake_report: Path) -> None:
    page.open(snakemake_report.as_uri())
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
def test_a_snakemake_report_that_would_be_too_large_shows_where_the_rest_lies(
    page: Page, snakemake_report: Path, tmp_path: Path
) -> None:
    text = snakemake_report.read_text(encoding="utf-8")
    text, left_out = bounded(text, len(text.encode()) - 2_000_000)  # all that may be left out
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    rows = look_at_everything(page, (tmp_path / "report.html").as_uri())
    assert left_out and len(text.encode()) < 5_000_000 and all(rows)
    number = next(n for n, words in enumerate(open_category(page, "Runs")) if "what the model looks at" in words)
    assert look_at(page, number)
    frame = page.enter_frame()
    page.wait_for("document.body.innerText.includes('the report has no room for it')", context=frame)
    check_quiet(page)
