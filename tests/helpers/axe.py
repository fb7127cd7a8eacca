"""Faults of a page for readers with a keyboard or a screen reader, as axe-core finds them.

axe-core 4.12 (MPL-2.0) comes in a package of the Python index, and is a tool of the tests only.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from browser import Page

PACKAGE = "axe-playwright-python==0.1.8"
SHA256 = "fdd263c998388f1a8e67cad02677e612d946248bd44d163be5e8650ea31f95f8"
SCRIPT = "axe_playwright_python/axe.min.js"
RUN = """axe.run(document, {resultTypes: ['violations']}).then(found => found.violations.map(fault =>
    [fault.impact, fault.id, fault.nodes.slice(0, 3).map(node => node.html.slice(0, 200))]))"""


def fetch_axe(folder: Path) -> str:
    """Return the script, fetched by pip into *folder*."""
    pins = folder / "axe.txt"
    pins.write_text(f"{PACKAGE} --hash=sha256:{SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "-r", str(pins)]
    subprocess.run([*command, "-d", str(folder)], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(SCRIPT).decode()


def faults_of(page: Page, script: str) -> list[list[Any]]:
    """Return severity, rule and some elements of each serious or critical fault of the open page."""
    page.evaluate(f"{script};1")
    return [fault for fault in page.evaluate(RUN) if fault[0] in ("serious", "critical")]


def check_each_look(page: Page, script: str) -> None:
    """Make sure that the open page has no such fault, light or dark, in either of its languages."""
    for theme in ("light", "dark"):
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        for _ in range(2):
            page.evaluate("document.querySelector('.view:not([hidden]) [data-speak]').click()")
            page.evaluate("report.drawAll?.()")
            assert faults_of(page, script) == [], (theme, page.evaluate("document.documentElement.lang"))
