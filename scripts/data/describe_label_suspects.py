"""Show the labels that may be wrong as a page on which they are mended: it saves corrections.csv."""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.lib.base import language
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import read_json, read_lines, write_text
from scripts.lib.data.corrections import read_corrections
from scripts.lib.data.label_suspects import read_suspects
from scripts.lib.data.reading import add_background
from scripts.lib.pages.label_suspects_page import render


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.data.describe_label_suspects", description=__doc__)
    parser.add_argument("--suspects", type=Path, required=True, metavar="FILE", help="label_suspects.csv")
    parser.add_argument("--summary", type=Path, required=True, metavar="FILE", help="label_suspects.json")
    parser.add_argument("--classes", type=Path, required=True, metavar="FILE", help="classes.txt, one name a line")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="the folder that its files are in")
    parser.add_argument("--corrected", type=Path, metavar="FILE", help="decisions that hold already, corrected.csv")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the page, .html")
    parser.add_argument("--title", default="", metavar="NAME", help="name of the data set, for the heading")
    add_background(parser)
    language.add_option(parser)
    return parser


@language.in_its_language
def main(args: argparse.Namespace) -> None:
    """Write the page."""
    page = render(
        read_suspects(args.suspects),
        read_json(args.summary),
        read_lines(args.classes),
        args.images,
        args.title,
        read_corrections(args.corrected) if args.corrected else (),
        args.background,
    )
    write_text(args.output, page)


if __name__ == "__main__":
    run_cli(build_parser, main)
