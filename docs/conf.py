"""Sphinx: the pages of this repository as a site that needs no network (`make docs-site`)."""

import re
import shutil
from pathlib import Path
from typing import Any

from sphinx.search.en import SearchEnglish

project, author = "mimflow", "The mimflow authors"
copyright = "The mimflow authors, Apache-2.0"
extensions = ["myst_parser"]
#: From the root of the repository: pages stand where their links say.
include_patterns = ["README*.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "config/README.md", "docs/*.md"]
root_doc = "README"
html_theme = "furo"
html_title = "mimflow"
html_search_language = "en-zh"
html_copy_source = html_show_sourcelink = False
html_show_search_summary = False  # fetched from the pages, which a browser forbids of files
#: Headings have the anchors of the repository's own view; a link without a target is then an error (-W).
myst_heading_anchors = 6
myst_enable_extensions = ["html_image"]
nitpicky = True
# The pictures of the workflow are Mermaid, of which Pygments knows nothing: they are shown as text.
suppress_warnings = ["misc.highlighting_failure"]

#: The pages in the order of the menu.
MENU = {
    "Use": ["docs/tasks", "docs/your-data", "docs/settings", "config/README", "docs/results", "docs/data-audit",
            "docs/models", "docs/weights", "docs/fast", "docs/reproducibility"],
    "Where it runs": ["docs/environments", "docs/slurm", "docs/n30", "docs/multi-gpu", "docs/large-clusters",
                       "docs/administrators"],
    "With other tools": ["docs/python", "docs/openmmlab", "docs/snakemake", "docs/trackers", "docs/alternatives"],
    "The project": ["CHANGELOG", "CONTRIBUTING", "SECURITY"],
    "中文": ["README.zh-CN", "docs/n30.zh-CN"],
}  # fmt: skip


class EnglishAndChinese(SearchEnglish):
    """Chinese has no spaces: each pair of characters is a word, and each piece of a sentence, for longer queries."""

    lang = "en-zh"

    def split(self, text: str) -> list[str]:
        pieces = re.findall(r"[\u4e00-\u9fff]+", text)
        pairs = [piece[i : i + 2] for piece in pieces for i in range(len(piece) - 1)]
        return [*re.findall(r"[^\W\u4e00-\u9fff]+", text), *pieces, *pairs]


def add_menu(_app: Any, page: str, text: list[str]) -> None:
    """Add the menu to the first page, which the repository shows without one."""
    if page == root_doc:
        for name, pages in MENU.items():
            text[0] += "\n```{toctree}\n:hidden:\n:caption: " + name + "\n\n/" + "\n/".join(pages) + "\n```\n"


def add_index(app: Any, error: Exception | None) -> None:
    """Have the site begin at index.html."""
    if not error:
        shutil.copy(Path(app.outdir, f"{root_doc}.html"), Path(app.outdir, "index.html"))


def setup(app: Any) -> None:
    """Tell Sphinx of these functions."""
    app.add_search_language(EnglishAndChinese)
    app.connect("source-read", add_menu)
    app.connect("build-finished", add_index)
