"""Show what the audit found in the images as a page: what was set aside, train copies in test, the classes."""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.lib.base import language
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import read_lines, write_text
from scripts.lib.base.problems import UserError
from scripts.lib.data.corrections import RELABEL, read_corrections
from scripts.lib.data.findings import read_findings, read_summary
from scripts.lib.data.reading import add_background
from scripts.lib.data.splits import read_splits
from scripts.lib.pages.data_page import Data, data_page


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.data.describe_data", description=__doc__)
    parser.add_argument("--audit", type=Path, required=True, metavar="FILE", help="audit.csv of audit_images")
    parser.add_argument("--summary", type=Path, required=True, metavar="FILE", help="audit.json of audit_images")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="the folder that its files are in")
    parser.add_argument("--splits", type=Path, required=True, metavar="DIR", help="of split_dataset, or its folds")
    parser.add_argument("--classes", type=Path, required=True, metavar="FILE", help="classes.txt, one name a line")
    parser.add_argument("--corrected", type=Path, metavar="FILE", help="decisions on labels, corrected.csv")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the page, .html")
    parser.add_argument("--title", default="", metavar="NAME", help="name of the data set, for the heading")
    later = "page of labels that may be wrong, where a later step makes one: a link to it"
    parser.add_argument("--labels-page", default="", metavar="NAME", help=later)
    add_background(parser)
    language.add_option(parser)
    return parser


@language.in_its_language
def main(args: argparse.Namespace) -> None:
    """Write the page."""
    if not args.classes.is_file():
        raise UserError(f"{args.classes}: no such file; make it with scripts.data.split_dataset")
    data = Data(
        read_findings(args.audit),
        read_summary(args.summary),
        read_splits(args.splits),
        read_lines(args.classes),
        args.images,
        args.background,
        {row.path: row.new_label for row in read_corrections(args.corrected) if row.action == RELABEL}
        if args.corrected
        else {},
        args.labels_page,
    )
    write_text(args.output, data_page(data, args.title))


if __name__ == "__main__":
    run_cli(build_parser, main)
