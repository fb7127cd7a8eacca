"""The command line that every script has that draws a figure of predictions.csv."""

from __future__ import annotations

import argparse
from pathlib import Path


def predictions_figure_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return the parser of ``scripts.report.<name>``, with --predictions, --output and --title."""
    parser = argparse.ArgumentParser(prog=f"python -m scripts.report.{name}", description=description)
    parser.add_argument("--predictions", type=Path, required=True, metavar="FILE", help="predictions.csv of a run")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="figure, .svg or .png")
    parser.add_argument("--title", default="", metavar="TEXT", help="a line above the figure")
    return parser
