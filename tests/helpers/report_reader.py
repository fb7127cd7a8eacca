"""What a reader of Snakemake's own report does in a browser: opens every row of every category and looks."""

from __future__ import annotations

import functools
import http.server
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from browser import Page

#: The categories; one without parts has no second word, as that of runs of a single experiment.
PLACES = (("Data", ""), ("Leaderboard", ""), ("Runs", ""))
#: Snakemake's own page says this of the style sheet that it carries.
OF_SNAKEMAKE = "cdn.tailwindcss.com should not be used in production"
CLICK = """(() => {{ const found = [...document.querySelectorAll('nav a')].filter(e => e.innerText.trim() == {0!r});
    found.forEach(e => e.click()); return found.length; }})()"""
#: Is a picture there, with pixels, its upper left corner in reach, or a page in a frame of its own?
SHOWN = """(() => { const picture = document.querySelector('#app > div > div:last-child img');
    const frame = document.querySelector('#app iframe');
    if (!picture) return frame ? frame.clientHeight > 100 : false;
    const { left, top } = picture.getBoundingClientRect();
    return picture.complete && picture.naturalWidth > 100 && left >= 0 && top >= 0; })()"""


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


def check_quiet(page: Page, allowed: str = "") -> None:
    """Nothing was complained of, and nothing asked for that a reader without a network would miss."""
    assert [text for text in page.complaints if OF_SNAKEMAKE not in text and "favicon" not in text] == []
    assert [address for address in page.requests_that_leave() if not allowed or not address.startswith(allowed)] == []


def rows(page: Page) -> list[str]:
    """Return the rows of the open category: their words."""
    return page.evaluate("[...document.querySelectorAll('nav tbody tr')].map(r => r.innerText.trim())")


def open_category(page: Page, name: str, subcategory: str = "") -> list[str]:
    """Open a category of the report, or a *subcategory* of it, and return its rows."""
    assert page.wait_for(CLICK.format(name))
    if subcategory:
        assert page.wait_for(CLICK.format(subcategory))
    page.wait_for("document.querySelectorAll('nav tbody tr').length > 0")
    return rows(page)


def look_at(page: Page, number: int) -> bool:
    """Open row *number* of the open category and wait until it is seen; False: a table, handed out as a file."""
    eye = f"document.querySelectorAll('nav tbody tr')[{number}].querySelector('a')"
    if page.evaluate(f"{eye}.hasAttribute('download')"):
        return False
    page.evaluate(f"{eye}.click()")
    page.wait_for(SHOWN)
    return True


def look_at_everything(
    page: Page, report: str, places: Sequence[tuple[str, str]] = PLACES, pictures: Path | None = None
) -> list[list[str]]:
    """Open every row of some categories of the report at an address; return the words of those that were seen.

    Parameters
    ----------
    places : categories, and the subcategory of each where it has parts.
    pictures : an empty folder for what the window shows of each.
    """
    seen: list[list[str]] = []
    for index, (category, subcategory) in enumerate(places):
        page.open(report)
        seen.append([])
        for number, words in enumerate(open_category(page, category, subcategory)):
            if look_at(page, number):
                seen[-1].append(words)
                if pictures:
                    page.screenshot(pictures / f"{index}-{number:03}.png")
    return seen


def frame_of_the_map(page: Page) -> int:
    """Return the context of the open map once it answers: the empty document that a frame begins with gives way to it.

    Raises
    ------
    AssertionError : it does not come.
    """
    ready = "document.getElementById('tools') && !document.getElementById('tools').hidden"
    deadline = time.monotonic() + 30
    while True:
        try:
            frame = page.enter_frame()
            page.wait_for(ready, context=frame)
            return frame
        except AssertionError as error:
            if "Cannot find context" not in str(error) or time.monotonic() > deadline:
                raise


def ask_the_map(page: Page) -> None:
    """Point at an image of the open map and filter its classes: both must answer."""
    frame = frame_of_the_map(page)
    corner = page.evaluate(
        "(({left, top}) => [left, top])(document.querySelector('#app iframe').getBoundingClientRect())"
    )
    point = page.evaluate(
        """(() => { const box = document.querySelector('#map [data-i]').getBoundingClientRect();
            return [box.left + box.width / 2, box.top + box.height / 2]; })()""",
        frame,
    )
    assert page.evaluate("document.getElementById('tooltip').hidden", frame)
    page.move_to(corner[0] + point[0], corner[1] + point[1])
    page.wait_for("!document.getElementById('tooltip').hidden", context=frame)
    assert "true class:" in page.evaluate("document.getElementById('tooltip').innerText", frame)
    assert page.wait_for("document.querySelector('#tooltip img').naturalWidth", context=frame) > 8
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
