"""Size of each page of a folder of results, and how long a browser takes to draw it: python -m bench.pages FOLDER.

Each page is opened in a headless Chromium whose network is cut, once to warm up and then some times; the medians count.
"ready" is until the page's script has run, or where it has none, until it is loaded.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

from scripts.lib.base.console import run_cli
from scripts.lib.base.problems import UserError
from scripts.lib.base.text import columns

TIMES = 3
#: Milliseconds from the start of the navigation, as the browser's own clock has them.
LOADED = "(() => { const t = performance.getEntriesByType('navigation')[0]; return t.loadEventEnd - t.startTime; })()"
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"


def measure(page: Any, path: Path) -> list[str]:
    """Return name, megabytes, and the medians of the milliseconds to the first paint and to the end of loading."""
    painted, loaded = [], []
    for number in range(TIMES + 1):
        page.open(path.resolve().as_uri())
        time.sleep(0.3)
        if number:
            painted.append(page.evaluate(PAINTED))
            loaded.append(page.evaluate(LOADED))
    numbers = [f"{statistics.median(values):.0f}" for values in (painted, loaded)]
    return [f"{path.stat().st_size / 1e6:.2f}", *numbers, str(path)]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description=__doc__)
    parser.add_argument("folder", type=Path, help="results/<dataset>, or a folder of pages")
    return parser


def main(args: argparse.Namespace) -> None:
    """Print a line for each page."""
    pages = sorted(path for path in args.folder.rglob("*.html") if "images" not in path.parts)
    if not pages:
        raise UserError(f"{args.folder}: no page (.html) in it", "give results/<dataset> of finished runs")
    try:
        from tests.helpers.browser import CHROMIUM, chromium
    except ImportError as error:
        raise UserError("the tests' browser is not here", "start it in a clone of mimflow") from error
    if CHROMIUM is None:
        raise UserError("no Chromium on this machine", "apt-get install chromium")
    rows = [["MB", "painted ms", "loaded ms", "page"]]
    with chromium() as page:
        rows += [measure(page, path) for path in pages]
    print("\n".join(columns(rows, right=(0, 1, 2))))


if __name__ == "__main__":
    run_cli(build_parser, main)
