"""The site of the documentation, built with every link checked and read in a browser without network."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from browser import CHROMIUM, chromium
from dag import ROOT
from set_up import Clone

PAGES = ["*.md", "config/README.md", "docs/*.md"]
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="`make lint` installs Sphinx"),
]


def build(source: Path, output: Path) -> str:
    """Return what `make docs-site` would print of the pages in *source*."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    result = subprocess.run([*command, "-c", str(ROOT / "docs"), str(source), str(output)],
                            capture_output=True, text=True, timeout=300)  # fmt: skip
    return result.stdout + result.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_every_page_is_in_the_menu_and_the_search_finds_english_and_chinese_without_network(clone: Clone) -> None:
    assert clone.typed("make docs-site") == "site/index.html\n"
    site = clone.folder / "site"
    text = (site / "index.html").read_text(encoding="utf-8")
    menu = set(re.findall(r'href="([\w./-]+)\.html"', text))
    pages = {str(path.relative_to(ROOT).with_suffix("")) for pattern in PAGES for path in ROOT.glob(pattern)}
    assert pages - {"README"} - menu == set()
    with chromium() as page:
        for words, name in (("leaderboard interval", "docs/results.html"), ("登录节点", "docs/n30.zh-CN.html")):
            page.open(f"file://{site}/search.html?q={words}")
            page.wait_for(f"document.querySelector('#search-results a[href^=\"{name}\"]') !== null")
        assert page.requests_that_leave() == [] and page.complaints == []


def test_a_link_or_an_anchor_without_a_target_is_an_error(tmp_path: Path) -> None:
    for pattern in PAGES:
        for page in ROOT.glob(pattern):
            (tmp_path / page.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(page, tmp_path / page.relative_to(ROOT))
    with (tmp_path / "SECURITY.md").open("a", encoding="utf-8") as page:
        page.write("\n[a](docs/nothing.md) [b](docs/slurm.md#no-such-heading)\n")
    printed = build(tmp_path, tmp_path / "site")
    assert "docs/nothing.md" in printed and "no-such-heading" in printed
