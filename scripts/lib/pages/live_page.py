"""The page of `make serve`: report.html while runs train, which asks the server for their numbers every few seconds."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from scripts.lib.base.language import LANGUAGES, speaking, tr
from scripts.lib.pages import templates
from scripts.lib.pages.report_words import words

SCRIPTS = ("report_core.js", "report_plots.js", "live.js")
STYLES = ("report.css", "report_print.css", "live.css")


def render(dataset: str, language: str | None, states: Sequence[str], names: Sequence[str] = ()) -> tuple[str, Markup]:
    """Return the page, in both languages, and its policy.

    Parameters
    ----------
    dataset : "" where none has a run yet: the page learns it later.
    language : in which it opens; None: the browser's, if it is one of them.
    states : of runs, as the server names them.
    names : of experiments, for whose characters the page brings a font along.
    """
    views, told = {}, {}
    for name in LANGUAGES:
        with speaking(name):
            views[name] = templates.render("live_view.html", l=name, dataset=dataset)
            told[name] = words() | _words() | {f"state {state}": tr(state) for state in states}
    data = {"dataset": dataset, "language": language, "names": list(names), "classes": [], "runs": [], "words": told}
    title = f"{dataset}: mimflow" if dataset else "mimflow"
    return templates.page_of_views(title, views, data, styles=STYLES, scripts=SCRIPTS, asking=True)


def _words() -> dict[str, str]:
    """Return the words that only this page's script writes."""
    return {
        "lost": tr("No connection to the server since {time}. The page tries again every few seconds and then goes on;"
                   " what it shows is from then. Is make serve still running, and the tunnel open?"),
        "another": tr("The server was started again and has another address: open the one that it printed."),
        "failing": tr("The server cannot read the results: {reason}"),
        "nothing": tr("There is no run yet. The page goes on by itself when one begins."),
        "no_controller": tr("No Snakemake runs here."),
        "controller": tr("Snakemake is {who}."),
        "at": tr("As of {time}. {controller}"),
        "counted": tr("{n} {state}"),
        "comma": tr(", "),
        "done_without": tr("All runs are done, but there is no valid report of them: run the workflow again."),
        "waiting_for_epoch": tr("Waiting for the first epoch."),
        "no_values": tr("No values yet."),
        "all_well": tr("Nothing."),
        "epochs": tr("{done} of {all} epochs"),
        "progress_of": tr("progress of {name}"),
    }  # fmt: skip
