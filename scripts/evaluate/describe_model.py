"""Describe a trained model as a page: its layers, their outputs, parameters and multiply-adds, stage by stage."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.lib.base import language
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import write_json, write_text
from scripts.lib.base.units import human
from scripts.lib.model.summary import summarise
from scripts.lib.pages import templates

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.evaluate.describe_model", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the run's config.py")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="its weights, best.pth")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the page, .html")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the same as numbers, model.json")
    language.add_option(parser)
    return parser


def model_page(summary: Mapping[str, Any]) -> str:
    """Return the page of what :func:`summarise` computed."""
    title = language.tr("The model: layers, parameters, multiply-adds")
    return templates.page("model.html", title, style="model.css", summary=summary)


@language.in_its_language
def main(args: argparse.Namespace) -> None:
    """Write the page and the numbers."""
    from scripts.lib.model.inference import build_model, load_config, read_checkpoint

    config = load_config(args.config)
    weights, _ = read_checkpoint(args.checkpoint)
    summary = summarise(config, build_model(config, weights, "cpu"), args.checkpoint)
    if args.json:
        write_json(args.json, summary)
    write_text(args.output, model_page(summary))
    logger.info(
        "%s: %s parameters, %s multiply-adds at %d x %d pixels",
        args.output, human(summary["parameters"]), human(summary["multiply_adds"]), *summary["input"][:0:-1],
    )  # fmt: skip


if __name__ == "__main__":
    run_cli(build_parser, main)
