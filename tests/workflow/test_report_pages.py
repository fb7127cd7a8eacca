"""The report and its pages in a real browser whose network is cut."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Page, chromium

from scripts.report.labels import ORDER

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")

Finished = tuple[Path, dict[str, Any], str]
#: Snakemake's own page says this of the style sheet that it carries.
OF_SNAKEMAKE = "cdn.tailwindcss.com should not be used in production"
CLICK = """(() => {{ const found = [...document.querySelectorAll('nav a')].filter(e => e.innerText.trim() == {0!r});
    found.forEach(e => e.click()); return found.length; }})()"""
#: Is a picture there, with pixels, or a page in a frame of its own?
SHOWN = """(() => { const picture = document.querySelector('#app > div > div:last-child img');
    const frame = document.querySelector('#app iframe');
    return picture ? picture.complete && picture.naturalWidth > 100 : frame ? frame.clientHeight > 100 : false; })()"""


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


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve *folder* over plain http; yields its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def check_quiet(page: Page, own: str = "") -> None:
    """Nothing was complained of, and nothing asked for that a reader without a network would miss."""
    assert [text for text in page.complaints if OF_SNAKEMAKE not in text and "favicon" not in text] == []
    assert [address for address in page.requests_that_leave() if not own or not address.startswith(own)] == []


def rows(page: Page) -> list[str]:
    """Return the rows of the open category: their words."""
    return page.evaluate("[...document.querySelectorAll('nav tbody tr')].map(r => r.innerText.trim())")


def open_category(page: Page, name: str) -> list[str]:
    assert page.wait_for(CLICK.format(name))
    page.wait_for("document.querySelectorAll('nav tbody tr').length > 0")
    return rows(page)


def test_the_report_shows_every_figure_from_a_file_and_over_http(page: Page, finished: Finished) -> None:
    dataset = finished[0] / "results/small"
    with served(dataset) as address:
        for place in (dataset.as_uri(), address):
            page.open(f"{place}/report.html")
            for category in ("Data", "Leaderboard", "Runs"):
                for number, words in enumerate(open_category(page, category)):
                    eye = f"document.querySelectorAll('nav tbody tr')[{number}].querySelector('a')"
                    if page.evaluate(f"{eye}.hasAttribute('download')"):
                        continue  # a table, which is handed out as a file
                    page.evaluate(f"{eye}.click()")
                    assert page.wait_for(SHOWN), words
                page.open(f"{place}/report.html")
            check_quiet(page, address)


def test_the_map_inside_the_report_answers_the_mouse_and_the_filter(page: Page, finished: Finished) -> None:
    page.open((finished[0] / "results/small/report.html").as_uri())
    number = next(n for n, words in enumerate(open_category(page, "Runs")) if "map of the test images" in words)
    page.evaluate(f"document.querySelectorAll('nav tbody tr')[{number}].querySelector('a').click()")
    assert page.wait_for(SHOWN)
    frame = page.enter_frame()
    page.wait_for("document.getElementById('tools') && !document.getElementById('tools').hidden", context=frame)
    corner = page.evaluate(
        "(({left, top}) => [left, top])(document.querySelector('#app iframe').getBoundingClientRect())"
    )
    place = page.evaluate(
        """(() => { const box = document.querySelector('#map [data-i]').getBoundingClientRect();
            return [box.left + box.width / 2, box.top + box.height / 2]; })()""",
        frame,
    )
    assert page.evaluate("document.getElementById('card').hidden", frame)
    page.move_to(corner[0] + place[0], corner[1] + place[1])
    page.wait_for("!document.getElementById('card').hidden", context=frame)
    assert "true class:" in page.evaluate("document.getElementById('card').innerText", frame)
    assert page.wait_for("document.querySelector('#card img').naturalWidth", context=frame) > 8
    names = page.evaluate("[...document.querySelectorAll('#legend li')].map(e => e.innerText.split('\\n')[0])", frame)
    page.evaluate(
        f"""(() => {{ const field = document.getElementById('filter'); field.value = {names[0]!r};
            field.dispatchEvent(new Event('input')); }})()""",
        frame,
    )
    shown = page.evaluate(
        "[...document.querySelectorAll('#legend li')].filter(e => !e.hidden).map(e => e.innerText.split('\\n')[0])",
        frame,
    )
    assert shown == names[:1] and len(names) > 1
    check_quiet(page)


def test_chinese_names_are_drawn_where_no_font_for_them_is_installed(page: Page, finished: Finished) -> None:
    page.open((finished[0] / "results/small/quick/seed0/figures/embedding.html").as_uri())
    fonts = "document.fonts.ready.then(all => [...all].map(font => [font.family, font.status].join(' ')))"
    assert page.evaluate(fonts) == ["mimflow loaded"]
    check_quiet(page)


def test_what_a_run_shows_stands_in_the_order_of_reading(page: Page, finished: Finished) -> None:
    page.open((finished[0] / "results/small/report.html").as_uri())
    found = [words.split("\t")[1].strip() for words in open_category(page, "Runs")]
    assert found == [f"{number:02} {words}" for number, words in enumerate(ORDER, 1)]


def test_each_page_of_a_run_is_quiet_and_runs_no_foreign_script(page: Page, finished: Finished) -> None:
    run = finished[0] / "results/small/quick/seed0"
    pages = sorted(run.rglob("*.html"))
    assert len(pages) >= 6
    for path in pages:
        page.open(path.as_uri())
        assert page.evaluate("document.body.innerText.length") > 100, path.name
    check_quiet(page)
