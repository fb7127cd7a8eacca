"""Write report.html, one page of all results; or print the leaderboard and where the report is."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.lib.base import language, long_values, strict_yaml
from scripts.lib.base.console import run_cli, terminal_width
from scripts.lib.base.files import find_json, read_lines, write_text
from scripts.lib.base.language import speaking, tr
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import megabytes, plural
from scripts.lib.data.findings import read_summary
from scripts.lib.data.reading import colour
from scripts.lib.metrics import history
from scripts.lib.metrics.leaderboard import read_leaderboard, render_text
from scripts.lib.pages import data_summary, report_page
from scripts.lib.runs.few_steps import describe_few_steps
from scripts.lib.settings.load import load_settings, read_file
from scripts.lib.workflow.layout import Layout
from scripts.lib.workflow.renewal import check_unchanged

logger = logging.getLogger(__name__)


def write_settings(path: Path, settings: Mapping[str, Any]) -> str:
    """Write the settings that the workflow ran with, whatever files and options they came from; return the text."""
    header = "# The settings of the last run, as one file: snakemake --configfile takes it.\n"
    text = header + strict_yaml.dump(dict(settings))
    write_text(path, text)
    return text


def show_results(dataset: Path, language: str) -> None:
    """Print the last lines of a run: the leaderboard, what became of the images, and where the report is."""
    report = dataset / "report.html"
    audit, classes = read_summary(dataset / "audit.json"), read_lines(dataset / "classes.txt")
    with speaking(language):
        board = read_leaderboard(dataset / "leaderboard.csv")
        print(render_text(board, colour=sys.stdout.isatty(), width=terminal_width()), flush=True)
        for line in history.differences(dataset / history.NAME):
            print(line, flush=True)
        # Not below: who trains by hand has mmcls's own config.py there.
        runs = [
            path.parent for folder in ("seed*", "seed*/fold*") for path in sorted(dataset.glob(f"*/{folder}/config.py"))
        ]
        if few := [line for run in runs if (line := describe_few_steps(run))]:
            more = tr(f" (and {plural(len(few) - 1, 'more run')})") if len(few) > 1 else ""
            print(f"{tr(few[0])}{more}", flush=True)
        judged = find_json(dataset / "label_suspects.json") or None
        of_labels = data_summary.label_lines(judged, str(dataset / "label_suspects.html"))
        for line in data_summary.terminal_lines(audit, classes, str(dataset / "audit.html"), of_labels):
            print(line, flush=True)
        print(tr(f"report: {report} (open it in a browser; it needs no network)"), flush=True)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.report.write_report", description=__doc__)
    parser.add_argument("--settings", metavar="JSON", help="the whole configuration")
    parser.add_argument("--dataset", type=Path, required=True, help="results/<dataset>, where report.html is written")
    parser.add_argument("--show", action="store_true", help="only print the leaderboard, and where the report is")
    language.add_option(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Write the settings and the report; or print the last lines that a user sees."""
    path, report = args.dataset / "settings.yaml", args.dataset / "report.html"
    if args.show:
        show_results(args.dataset, args.language)
        return
    if not args.settings:
        raise UserError("give --settings, or --show; see --help")
    text = write_settings(path, json.loads(long_values.take(args.settings)))
    settings = load_settings(read_file(path), [path])
    layout = Layout(settings)
    check_unchanged(layout, [path, report])
    sources = report_page.read_sources(args.dataset, [Path(run) for run in layout.runs(layout.run.path)], text)
    page = report_page.render(sources, settings.report.language, colour(settings.dataset.background))
    write_text(report, page)
    logger.info("%s: %s, %s", report, plural(len(sources.runs), "run"), megabytes(len(page.encode())))


if __name__ == "__main__":
    run_cli(build_parser, main)
