"""The page of the most confident errors, with pictures, and of the labels that may be wrong."""

from __future__ import annotations

from pathlib import Path

from scripts.lib.data.reading import WHITE
from scripts.lib.metrics.errors import confident_errors, label_suspects
from scripts.lib.pages.templates import heading, page
from scripts.lib.pages.thumbnails import Picture, percent, thumbnail
from scripts.lib.runs.predictions import Predictions

TITLE = "The most confident errors"
#: Pixels of the longer side of a picture; errors.css leaves so much room.
PICTURE_SIZE = 224
MOST_ERRORS = 24
MOST_SUSPECTS = 50


def render(
    predictions: Predictions,
    images: Path,
    title: str = "",
    most: int = MOST_ERRORS,
    background: tuple[int, int, int] = WHITE,
) -> str:
    """Return the page, with at most *most* pictures of files below *images*, transparent ones on the background.

    Raises
    ------
    UserError : one of them is missing or broken.
    """
    errors, suspects = confident_errors(predictions), label_suspects(predictions)

    def named(row: int, label: int) -> tuple[str, str]:
        return predictions.classes[label], percent(predictions.probabilities[row, label])

    return page(
        "errors.html",
        heading(TITLE, title),
        style=["pictures.css", "errors.css"],
        total=len(predictions.files),
        n_errors=len(errors),
        most=most,
        errors=[
            {
                "file": predictions.files[row],
                "picture": Picture.of(thumbnail(images / predictions.files[row], PICTURE_SIZE, background)),
                "predicted": named(row, predictions.predictions[row]),
                "label": named(row, predictions.labels[row]),
            }
            for row in errors[:most]
        ],
        n_suspects=len(suspects),
        suspects=[
            (
                predictions.files[suspect.row],
                *named(suspect.row, predictions.labels[suspect.row]),
                *named(suspect.row, suspect.suggested),
            )
            for suspect in suspects[:MOST_SUSPECTS]
        ],
    )
