"""The bound of the report: what is left out, in which order, and what stands in its place."""

from __future__ import annotations

import base64
import json
import re

import pytest

from scripts.lib.base.language import speaking
from scripts.lib.base.problems import UserError
from scripts.lib.pages.report_size import bounded

PAGES = {"embedding.html": 400_000, "curves.svg": 150_000, "model.html": 15_000}


def report(runs: list[str]) -> str:
    """Return a report as Snakemake writes it, of the same pages of each run."""
    results = {
        path: {"name": path, "data_uri": "data:x;base64," + "A" * size, "mime_type": "x", "caption": "<p>what</p>"}
        for path, size in {f"results/d/{run}/{name}": size for run in runs for name, size in PAGES.items()}.items()
    }
    results["results/d/leaderboard.html"] = {"data_uri": "A" * 500_000, "mime_type": "x"}
    return f'<script id="results">\n    var results = {json.dumps(results)};\n</script><p>end</p>'


def shown(page: str) -> dict[str, str]:
    """Return the content of each page in the report."""
    match = re.search(r"var results = (.*);</script>", page) or re.search(r"var results = (.*);", page)
    assert match
    uris = {path: entry["data_uri"] for path, entry in json.loads(match[1]).items()}
    return {path: uri if "AAA" in uri else base64.b64decode(uri.partition("base64,")[2]).decode()
            for path, uri in uris.items()}  # fmt: skip


def test_a_report_that_fits_stays_as_it_is() -> None:
    page = report(["a/seed0", "a/seed1"])
    assert bounded(page) == (page, [])


@pytest.mark.parametrize("most", [4_000_000, 2_500_000, 1_500_000])
def test_the_report_keeps_its_bound_and_says_where_the_rest_lies(most: int) -> None:
    runs = ["b/seed10", "b/seed2", "a/seed0/fold0", "a/seed0/fold1", "a/seed1/fold0", *[f"c/seed{n}" for n in range(9)]]
    page, left_out = bounded(report(runs), most)
    assert len(page) <= most and page.endswith("</script><p>end</p>")
    contents = shown(page)
    assert {path for path, content in contents.items() if path in content} == set(left_out)
    assert "results/d/leaderboard.html" not in left_out and not any("model.html" in path for path in left_out)
    first = [path for path in left_out if re.match("results/d/(a/seed0/fold0|b/seed2|c/seed0)/", path)]
    assert left_out[-len(first) :] == first or not first, "the first run of each experiment stays longest"


def test_the_note_speaks_the_language_of_the_report() -> None:
    with speaking("zh"):
        page, left_out = bounded(report(["a/seed0"]), 600_000)
    assert "报告放不下这一页" in shown(page)[left_out[0]]


def test_another_page_than_snakemakes_is_one_line() -> None:
    with pytest.raises(UserError, match="no results where Snakemake puts them"):
        bounded("<script>" + "A" * 100, 10)
