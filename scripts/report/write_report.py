"""Make Snakemake's HTML report of all results; or print the leaderboard and where the report is."""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from scripts.lib.base import language, long_values, strict_yaml
from scripts.lib.base.console import run_cli
from scripts.lib.base.disks import describe_full_disk, usual_folders
from scripts.lib.base.files import read_lines, write_text
from scripts.lib.base.language import speaking, tr
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.data.findings import read_summary
from scripts.lib.metrics.leaderboard import read_leaderboard, render_text
from scripts.lib.pages import data_summary
from scripts.lib.pages.fonts import embedded_face
from scripts.lib.pages.report_size import bounded
from scripts.lib.pages.templates import OWN_FONT, render
from scripts.lib.runs.few_steps import describe_few_steps
from scripts.lib.settings.load import load_settings, read_file
from scripts.lib.settings.schema import Settings
from scripts.lib.workflow.layout import Layout
from scripts.lib.workflow.renewal import find_changes
from scripts.lib.workflow.report_menu import CHINESE

logger = logging.getLogger(__name__)

CAPTIONS = Path(__file__).with_name("captions")


def write_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings that the workflow ran with, whatever files and options they came from."""
    header = "# The settings of the last run, as one file: snakemake --configfile takes it.\n"
    write_text(path, header + strict_yaml.dump(dict(settings)))


def check_unchanged(settings: Settings, without: Sequence[Path]) -> None:
    """Refuse to show what is not what its job made: an edited number looks like a measured one.

    Parameters
    ----------
    without : what is written anew here.

    Raises
    ------
    UserError : a file is gone or changed.
    """
    if changes := [change for change in find_changes(Layout(settings)) if change.product not in without]:
        more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
        raise UserError(f"no report is made: {changes[0]}{more}", "run the same command again: it is made again")


def make_report(snakefile: Path, settings: Path, report: Path, output: Path) -> None:
    """Let Snakemake write *report*; its messages go to *output*.

    Raises
    ------
    UserError : Snakemake could not make the report, as on a full disk.
    """
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--configfile", str(settings)]
    command += ["--report", str(report), "--cores", "1"]
    with open(output, "wb") as stream:
        result = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    if result.returncode != 0:
        is_full = os.strerror(errno.ENOSPC) in output.read_text(encoding="utf-8", errors="replace")
        if full := describe_full_disk([report.parent, *usual_folders()], certain=is_full):
            raise full
        raise UserError(f"{report}: Snakemake could not make the report; details: {output}")


def mend_page(report: Path, language: str) -> None:
    """Put into Snakemake's page what it lacks: the top of tall figures, Chinese characters, and a bound on its size.

    Its window centres a figure that is taller than itself, so that nobody can scroll to the figure's top. And it takes
    the reader's fonts, who may have no Chinese one; the pages that it shows in frames have their own.

    Raises
    ------
    UserError : the page has no head any more in which a style can stand.
    """
    face = ""
    if language == "zh":
        captions = "".join(path.read_text(encoding="utf-8") for path in sorted(CAPTIONS.glob("zh/*.rst")))
        face = embedded_face(captions + "".join(CHINESE.values()), OWN_FONT)
    head = render("report_head.html", face=Markup(face), font=OWN_FONT).strip()
    end_of_head, page = head.splitlines()[-1], report.read_text(encoding="utf-8")
    if end_of_head not in page:
        raise UserError(f"{report}: Snakemake's page has no head", "use the Snakemake of the lock (make setup)")
    with speaking(language):
        page, left_out = bounded(page.replace(end_of_head, head, 1))
    if left_out:
        logger.warning(
            "%s: %s would make it too large and can be opened as files, such as %s",
            *(report, plural(len(left_out), "page"), left_out[0]),
        )
    write_text(report, page)


def show_results(dataset: Path, language: str) -> None:
    """Print the last lines of a run: the leaderboard, what became of the images, and where the report is."""
    report = dataset / "report.html"
    audit, classes = read_summary(dataset / "audit.json"), read_lines(dataset / "classes.txt")
    with speaking(language):
        print(render_text(read_leaderboard(dataset / "leaderboard.csv"), colour=sys.stdout.isatty()), flush=True)
        # Not below: who trains by hand has mmcls's own config.py there.
        runs = [
            path.parent for folder in ("seed*", "seed*/fold*") for path in sorted(dataset.glob(f"*/{folder}/config.py"))
        ]
        if few := [line for run in runs if (line := describe_few_steps(run))]:
            more = tr(f" (and {plural(len(few) - 1, 'more run')})") if len(few) > 1 else ""
            print(f"{tr(few[0])}{more}", flush=True)
        for line in data_summary.terminal_lines(audit, classes, str(dataset / "audit.html")):
            print(line, flush=True)
        print(tr(f"report: {report} (open it in a browser; it needs no network)"), flush=True)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.report.write_report", description=__doc__)
    parser.add_argument("--settings", metavar="JSON", help="the whole configuration")
    parser.add_argument("--snakefile", type=Path, help="the workflow")
    parser.add_argument("--dataset", type=Path, required=True, help="results/<dataset>, where report.html is written")
    parser.add_argument("--show", action="store_true", help="only print the leaderboard, and where the report is")
    language.add_option(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Write the settings and the report; or print the last lines that a user sees."""
    settings, report = args.dataset / "settings.yaml", args.dataset / "report.html"
    if args.show:
        show_results(args.dataset, args.language)
        return
    if not (args.settings and args.snakefile):
        raise UserError("give --settings and --snakefile, or --show; see --help")
    write_settings(settings, json.loads(long_values.take(args.settings)))
    output = Path("logs") / args.dataset.name / "write_report.txt"
    output.parent.mkdir(parents=True, exist_ok=True)
    loaded = load_settings(read_file(settings), [settings])
    check_unchanged(loaded, [settings, report])
    make_report(args.snakefile, settings, report, output)
    mend_page(report, loaded.report.language)


if __name__ == "__main__":
    run_cli(build_parser, main)
