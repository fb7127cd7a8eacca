"""When a page has drawn what it draws late, for `python -m bench.pages` (a file of its own: JavaScript)."""

from __future__ import annotations

from browser import Page

#: Milliseconds; None of a page that draws nothing late. Only the page of make serve has a list of what went wrong.
DRAWN = """typeof report === 'undefined' ? null : new Promise(done => {
    report.drawAll?.();
    const isLive = document.querySelector('[data-list=problems]') !== null;
    const look = () => document.documentElement.dataset.ready && (!isLive || document.querySelector('tbody tr'))
        ? done(performance.now()) : setTimeout(look, 5);
    look();
})"""


def until_drawn(page: Page) -> float | None:
    """Return the milliseconds from the start of the navigation until all is drawn; None where nothing is drawn late."""
    value = page.evaluate(DRAWN)
    return None if value is None else float(value)


def bytes_of(page: Page) -> int:
    """Return the size of the open page."""
    return int(page.evaluate("new TextEncoder().encode(document.documentElement.outerHTML).length"))
