"""Describe the search of `base_config: auto` as a page: what each candidate reached and costs, and what was chosen."""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts.lib.base import language
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import read_json, write_text
from scripts.lib.pages.search_page import search_page


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.search.describe_search", description=__doc__)
    parser.add_argument("--choice", type=Path, required=True, metavar="FILE", help="what choose_model wrote")
    parser.add_argument("--title", required=True, help="the experiment's name")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the page, .html")
    language.add_option(parser)
    return parser


@language.in_its_language
def main(args: argparse.Namespace) -> None:
    """Write the page."""
    write_text(args.output, search_page(read_json(args.choice), args.title))


if __name__ == "__main__":
    run_cli(build_parser, main)
