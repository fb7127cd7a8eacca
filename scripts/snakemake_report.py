"""Make Snakemake's own report of finished results: the workflow, and every figure and page of every run in one file."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import subprocess
import sys
from pathlib import Path

from markupsafe import Markup

from scripts.lib.base.console import run_cli, say
from scripts.lib.base.disks import describe_full_disk, usual_folders
from scripts.lib.base.environment import ROOT
from scripts.lib.base.files import write_text
from scripts.lib.base.language import speaking
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.pages.fonts import embedded_face
from scripts.lib.pages.report_size import bounded
from scripts.lib.pages.templates import OWN_FONT, render
from scripts.lib.settings.load import load_settings, read_file
from scripts.lib.workflow.layout import Layout
from scripts.lib.workflow.renewal import check_unchanged
from scripts.lib.workflow.report_menu import CAPTIONS, CHINESE

logger = logging.getLogger(__name__)


def make_report(snakefile: Path, settings: Path, report: Path, output: Path) -> None:
    """Let Snakemake write *report*; its messages go to *output*.

    Raises
    ------
    UserError : Snakemake could not make the report, as on a full disk, or of results that are not finished.
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


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.snakemake_report", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the configuration of the runs")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the page (results/<dataset>/snakemake_report.html)"
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Write results/<dataset>/snakemake_report.html of finished runs."""
    settings = load_settings(read_file(args.config), [args.config])
    layout = Layout(settings)
    report = args.output or Path(layout.snakemake_report)
    if not Path(layout.report).is_file():
        raise UserError(f"{layout.report}: no such file", f"finish the runs first: make run CONFIG={args.config}")
    # Neither is shown in it, and both are written anew for another language.
    check_unchanged(layout, [Path(layout.report), Path(layout.dataset, "settings.yaml")])
    output = Path(layout.logs) / "snakemake_report.txt"
    output.parent.mkdir(parents=True, exist_ok=True)
    make_report(ROOT / "Snakefile", args.config, report, output)
    mend_page(report, settings.report.language)
    say(f"{report} (open it in a browser; it needs no network)")


if __name__ == "__main__":
    run_cli(build_parser, main)
