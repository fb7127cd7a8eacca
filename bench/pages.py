"""Size of each page of a folder of results, and how long a browser takes to draw it: python -m bench.pages FOLDER.

Each page is opened in a headless Chromium whose network is cut, once to warm up and then some times; the medians count.
"painted" is until something is seen, "loaded" until the page and its scripts have been read, "drawn" until all plots of
report.html are drawn, also those far below, until try.html has opened its model and checked itself, and until the page
of make serve, which is the last line, shows the runs. ``--simulate`` first writes the results of 40 runs over 200
classes there, with Grad-CAM and maps, and the report of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.lib.base.console import run_cli
from scripts.lib.base.private_server import open_server
from scripts.lib.base.problems import UserError
from scripts.lib.base.text import columns
from scripts.lib.runs.machine import describe_machine
from scripts.lib.workflow.live_data import LiveData
from scripts.serve import Pages

# The browser and the simulated results of the tests.
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

TIMES = 3
EVERY = "*.html"
#: Milliseconds from the start of the navigation, as the browser's own clock has them.
LOADED = "(() => { const t = performance.getEntriesByType('navigation')[0]; return t.loadEventEnd - t.startTime; })()"
PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0"
PORT = 8765
#: Of the simulated results.
EXPERIMENTS, SEEDS, CLASSES, IMAGES_PER_CLASS = 20, 2, 200, 10


def simulate(folder: Path) -> None:
    """Write the results of 40 runs, and report.html."""
    from report_folder import write_maps, write_page, write_results

    names = {f"experiment-{number:02d}": 1.5 + number / 5 for number in range(EXPERIMENTS)}
    classes = [f"class {number}" for number in range(CLASSES)]
    runs = write_results(folder, classes, names, seeds=SEEDS, per_class=IMAGES_PER_CLASS, size=224)
    for run in runs:
        write_maps(folder, run)
    write_page(folder, runs)


class Unfinished(LiveData):
    """The runs of a folder, of which no report is the last word: so their page stays."""

    def final_report(self, dataset: str) -> None:
        """Return None."""


@contextmanager
def live_page(folder: Path) -> Iterator[str]:
    """Serve the runs of results/<dataset> as make serve does; yield the address."""
    pages = Pages(Unfinished(folder.parent, folder.name), "en")
    with open_server(PORT, pages.answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


def measure(page: Any, address: str, size: int, name: str) -> list[str]:
    """Return megabytes, the medians of the milliseconds until the page is painted, loaded and drawn, and its name."""
    from page_times import until_drawn

    painted, loaded, drawn = [], [], []
    for number in range(TIMES + 1):
        page.open(address)
        drawn_at = until_drawn(page)
        time.sleep(0.3)
        if number:
            painted.append(page.evaluate(PAINTED))
            loaded.append(page.evaluate(LOADED))
            drawn.append(drawn_at)
    times = ["-" if None in values else f"{statistics.median(values):.0f}" for values in (painted, loaded, drawn)]
    return [f"{size / 1e6:.2f}", *times, name]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description=__doc__)
    parser.add_argument("folder", type=Path, help="results/<dataset>, or a folder of pages")
    parser.add_argument("--simulate", action="store_true", help="first write results of 40 runs there: a new folder")
    parser.add_argument("--only", metavar="PATTERN", default=EVERY, help="only pages of this name, as report.html")
    return parser


def main(args: argparse.Namespace) -> None:
    """Print a line for each page."""
    if args.simulate:
        if args.folder.exists():
            raise UserError(f"{args.folder}: there is something already", "give a folder that is not there yet")
        simulate(args.folder)
    pages = sorted(path for path in args.folder.rglob(args.only) if "images" not in path.parts)
    if not pages:
        raise UserError(f"{args.folder}: no page ({args.only}) in it", "give results/<dataset> of finished runs")
    try:
        from browser import CHROMIUM, chromium
        from page_times import bytes_of
    except ImportError as error:
        raise UserError("the tests' browser is not here", "start it in a clone of mimflow") from error
    if CHROMIUM is None:
        raise UserError("no Chromium on this machine", "apt-get install chromium")
    table = [["MB", "painted ms", "loaded ms", "drawn ms", "page"]]
    with chromium() as page:
        table += [measure(page, path.resolve().as_uri(), path.stat().st_size, str(path)) for path in pages]
        folder = args.folder.resolve()
        if args.only == EVERY and folder.name in LiveData(folder.parent).datasets():
            with live_page(folder) as address:
                page.open(address)
                table.append(measure(page, address, bytes_of(page), f"make serve, {args.folder}"))
    print("\n".join(columns(table, right=(0, 1, 2, 3))))
    print(f"{describe_machine()['cpu']}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    run_cli(build_parser, main)
