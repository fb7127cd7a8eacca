"""A bound on Snakemake's report, which holds every page of every run: what it has no room for stays a file."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

from scripts.lib.base.language import tr
from scripts.lib.base.problems import UserError
from scripts.lib.pages import templates

#: What a mail takes, and a browser opens at once.
MOST_BYTES = 25_000_000
#: Smaller pages always stay.
SMALL_BYTES = 40_000
RESULTS = re.compile(r'(?<=id="results">)\s*var results = (\{.*?\});?\s*(?=</script)', re.DOTALL)
RUN = re.compile(r"results/[^/]+/([^/]+)/(seed\d+(?:/fold\d+)?)/")


def bounded(page: str, most: int = MOST_BYTES) -> tuple[str, list[str]]:
    """Return the report with at most *most* bytes, and the paths of what was left out for it, the largest first.

    The pages of the first run of each experiment stay longest. In place of one that was left out the report shows where
    it lies.

    Raises
    ------
    UserError : the report has no results where Snakemake puts them.
    """
    excess = len(page.encode()) - most
    if excess <= 0:
        return page, []
    match = RESULTS.search(page)
    if match is None:
        raise UserError("the report has no results where Snakemake puts them", "use the Snakemake of the lock")
    results: dict[str, dict[str, Any]] = json.loads(match[1])
    left_out = []
    for path in _spare_first(results):
        note = _note(path)
        saved = len(results[path]["data_uri"]) - len(note)
        if excess <= 0 or saved <= 0:
            break
        results[path] |= {"data_uri": note, "mime_type": "text/html"}
        left_out.append(path)
        excess -= saved
    text = f" var results = {json.dumps(results)};".replace("</", "<\\/")
    return page[: match.start()] + text + page[match.end() :], left_out


def _spare_first(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the pages of runs that may be left out: those of the first runs last, among them the largest first."""
    runs = {path: match.groups() for path in results if (match := RUN.match(path))}
    first: dict[str, str] = {}
    for experiment, run in sorted(runs.values(), key=lambda run: (run[0], _numbers(run[1]))):
        first.setdefault(experiment, run)
    sizes = {path: len(results[path]["data_uri"]) for path in runs}
    large = [path for path in runs if sizes[path] > SMALL_BYTES]
    return sorted(large, key=lambda path: (first[runs[path][0]] == runs[path][1], -sizes[path], path))


def _numbers(run: str) -> list[int]:
    return list(map(int, re.findall(r"\d+", run)))


def _note(path: str) -> str:
    reason = tr(f"the report has no room for it: open the file {path}")
    page = templates.page("skipped.html", path.rpartition("/")[2], reason=reason)
    return f"data:text/html;charset=utf8;base64,{base64.b64encode(page.encode()).decode()}"
