"""Show the most confident errors of predictions.csv as a page of pictures, and the labels that may be wrong."""

from __future__ import annotations

import argparse
import html
from pathlib import Path

from scripts.lib.base.console import run_cli
from scripts.lib.base.files import write_text
from scripts.lib.base.problems import UserError
from scripts.lib.metrics.label_errors import confident_errors, label_suspects
from scripts.lib.pages.html import PICTURES_STYLE, name, page, picture, section, table
from scripts.lib.pages.thumbnails import percent, thumbnail
from scripts.lib.runs.predictions import Predictions, read_predictions

TITLE = "The most confident errors"
#: Pixels of the longer side of a picture.
SIDE = 224
MOST_SUSPECTS = 50
SUSPECTS_TEXT = (
    "Confident learning names the images that the model finds at least as typical of another class as the images of"
    " that class are on average. Some have a wrong label, or show both classes; others are mistakes of the model. Look"
    " at them before you trust a difference of a few images; the most striking come first."
)


def errors_page(predictions: Predictions, images: Path, title: str = "", most: int = 24) -> str:
    """Return the page, with at most *most* pictures of files below *images*.

    Raises
    ------
    UserError : one of them is missing or broken.
    """
    errors = confident_errors(predictions)
    total = len(predictions.files)
    parts = []
    if errors:
        were = "is" if len(errors) == 1 else "are"
        shown = "All of them" if len(errors) <= most else f"The {most} surest of them"
        parts.append(
            f"<p>{len(errors)} of {total} test images {were} classified wrongly. {shown}, the most confident first:"
            " what the model said, and what the label says, each with the model's probability.</p>"
        )
        cards = "\n".join(_card(predictions, row, images) for row in errors[:most])
        parts.append(f'<div class="cards">\n{cards}\n</div>')
    else:
        every = "The one test image is" if total == 1 else f"All {total} test images are"
        parts.append(f"<p>{every} classified correctly: there is no error to show.</p>")
    parts += _suspects(predictions)
    return page(f"{TITLE}: {title}" if title else TITLE, parts, style=PICTURES_STYLE + f"\nfigure {{ width: {SIDE}px }}")


def _card(predictions: Predictions, row: int, images: Path) -> str:
    small = thumbnail(images / predictions.files[row], SIDE)
    said, label = int(predictions.predictions[row]), int(predictions.labels[row])
    said_and_label = "<br>".join(
        f"{word}: <strong>{name(predictions.classes[place])}</strong> {percent(predictions.probabilities[row, place])}"
        for word, place in (("said", said), ("label", label))
    )
    file = predictions.files[row]
    return (
        f'<figure class="wrong">{picture(small, file)}\n<figcaption>{said_and_label}'
        f'<br><span class="file">{name(file)}</span></figcaption></figure>'
    )


def _suspects(predictions: Predictions) -> list[str]:
    suspects = label_suspects(predictions)
    parts = [section("Labels to check")]
    if not suspects:
        return [*parts, "<p>None: no image is as typical of another class as that class's own images are.</p>"]
    rows = [
        (
            predictions.files[suspect.row],
            predictions.classes[label := int(predictions.labels[suspect.row])],
            percent(predictions.probabilities[suspect.row, label]),
            predictions.classes[suspect.suggested],
            percent(predictions.probabilities[suspect.row, suspect.suggested]),
        )
        for suspect in suspects[:MOST_SUSPECTS]
    ]
    parts += [
        f"<p>{html.escape(SUSPECTS_TEXT)}</p>",
        table(("file", "label", "its probability", "may be", "its probability"), rows, numbers=(2, 4)),
    ]
    if len(suspects) > MOST_SUSPECTS:
        parts.append(f"<p>{len(suspects) - MOST_SUSPECTS} more are not listed.</p>")
    return parts


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.lib.pages.figures.errors", description=__doc__)
    parser.add_argument("--predictions", type=Path, required=True, metavar="FILE", help="predictions.csv of a run")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="the folder that its files are in")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the page, .html")
    parser.add_argument("--title", default="", metavar="TEXT", help="its heading")
    parser.add_argument("--most", type=int, default=24, metavar="N", help="errors to show (24)")
    return parser


def main(args: argparse.Namespace) -> None:
    if args.most < 1:
        raise UserError(f"--most {args.most}: give a number of 1 or more")
    predictions = read_predictions(args.predictions)
    write_text(args.output, errors_page(predictions, args.images, args.title, args.most))


if __name__ == "__main__":
    run_cli(build_parser, main)
