"""Draw a map of the predicted images as a page: images that are alike to the network lie together (t-SNE)."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from scripts.lib.base import language
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import write_text
from scripts.lib.base.problems import UserError
from scripts.lib.data.reading import add_background
from scripts.lib.pages.embedding_page import make_map, render, thumbnails
from scripts.lib.runs.predictions import read_features, read_predictions

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.evaluate.map_embedding", description=__doc__)
    parser.add_argument("--predictions", type=Path, required=True, metavar="FILE", help="predictions.csv of a run")
    parser.add_argument("--features", type=Path, required=True, metavar="FILE", help="features.npy, made with it")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="the folder that its files are in")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the page, .html")
    parser.add_argument("--title", default="", metavar="TEXT", help="a line above it")
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="draws images where there are many (0)")
    add_background(parser)
    language.add_option(parser)
    return parser


@language.in_its_language
def main(args: argparse.Namespace) -> None:
    """Write the page."""
    if not args.images.is_dir():
        raise UserError(f"--images: {args.images}: no such folder", "give the one that predictions.csv was made from")
    predictions = read_predictions(args.predictions)
    features = read_features(args.features, len(predictions.files))
    image_map = make_map(predictions, features, args.seed)
    pictures = thumbnails(args.images, image_map.predictions.files, background=args.background)
    write_text(args.output, render(image_map, pictures, len(predictions.files), args.seed, args.title))


if __name__ == "__main__":
    run_cli(build_parser, main)
