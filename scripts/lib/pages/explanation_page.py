"""The page that shows where a model looks: which images it holds, and how maps are drawn over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from matplotlib.colors import to_hex

from scripts.lib.metrics.errors import most_confident, most_confused
from scripts.lib.pages import templates
from scripts.lib.pages.explained_images import COLOURS, LENGTHS, Explained, Explanations
from scripts.lib.pages.thumbnails import Picture, percent, shrink
from scripts.lib.runs.predictions import Predictions

#: At most: correct and misclassified images of a class, misclassified images of the pair confused most, classes.
EXAMPLES, PAIR_IMAGES, MOST_CLASSES = 2, 8, 60
#: Of all pictures together: the first of LENGTHS with which they take at most this is used.
MOST_BYTES = 2_800_000
#: So many images tell how large the pictures of all will be.
SAMPLE = 24
#: What of a difference between predictions.csv and the model another machine may make.
SAME_PROBABILITY = 0.05
TITLE = "Where the model looks"


@dataclass(frozen=True)
class ClassExamples:
    """Images of one class by their rows in predictions.csv, the most confident first; *n* and *n_wrong* count all."""

    label: int
    n: int
    n_wrong: int
    right: list[int]
    wrong: list[int]


@dataclass(frozen=True)
class Choice:
    """What is shown."""

    classes: list[ClassExamples]  # those shown, the one with most misclassified images first
    hidden: int  # how many classes with test images are not shown
    #: the two classes that are confused most often, both ways counted; None without an error
    pair: tuple[int, int] | None = None
    #: images of the first predicted as the second, and of the second predicted as the first
    pair_counts: tuple[int, int] = (0, 0)
    pair_rows: list[int] = field(default_factory=list)  # misclassified images of the pair, the most confident first
    #: how many other pairs are confused as often; of all these the pair has the most confident error
    equal_pairs: int = 0
    #: of these images, the nearest correct ones of the predicted and of the true class; empty without features
    like: dict[int, list[int]] = field(default_factory=dict)

    def shown(self) -> list[int]:
        """Return the row of every image as often as it is shown."""
        examples = [row for shown in self.classes for row in (*shown.right, *shown.wrong)]
        return [*self.pair_rows, *(row for rows in self.like.values() for row in rows), *examples]

    def rows(self) -> list[int]:
        """Return the row of every image shown, each once."""
        return sorted(set(self.shown()))


def choose(predictions: Predictions, features: np.ndarray | None = None, most_classes: int = MOST_CLASSES) -> Choice:
    """Choose the images to explain; *features*: of the network, shape (images, dims)."""
    labels, predicted = predictions.labels, predictions.predictions
    wrong = predicted != labels
    classes = [
        ClassExamples(
            label,
            int((labels == label).sum()),
            int((wrong & (labels == label)).sum()),
            most_confident(predictions, ~wrong & (labels == label))[:EXAMPLES],
            most_confident(predictions, wrong & (labels == label))[:EXAMPLES],
        )
        for label in np.unique(labels).tolist()
    ]
    classes.sort(key=lambda shown: -shown.n_wrong)
    shown, hidden = classes[:most_classes], max(0, len(classes) - most_classes)
    confused = most_confused(predictions)
    if confused is None:
        return Choice(shown, hidden)
    pair = (confused.first, confused.second)
    both = wrong & np.isin(labels, pair) & np.isin(predicted, pair)
    of_pair = most_confident(predictions, both)[:PAIR_IMAGES]
    like = {} if features is None else {row: most_alike(predictions, features, row) for row in of_pair}
    return Choice(shown, hidden, pair, (confused.there, confused.back), of_pair, confused.equal, like)


def most_alike(predictions: Predictions, features: np.ndarray, row: int) -> list[int]:
    """Return the images most like the misclassified one at *row*: of the predicted class, and of its own.

    Of those that are classified correctly, the one whose features are nearest (Euclidean, as on the map of the images).
    """
    correct = predictions.labels == predictions.predictions
    nearest = []
    for label in (predictions.predictions[row], predictions.labels[row]):
        rows = np.flatnonzero(correct & (predictions.labels == label))
        if len(rows):
            distances = np.linalg.norm(features[rows].astype(np.float64) - features[row], axis=1)
            nearest.append(int(rows[distances.argmin()]))
    return nearest


def encode(explanations: Explanations, shown: Sequence[int]) -> dict[int, list[Picture]]:
    """Return the pictures of each row, the image as seen and its maps, all of one longer side, in not too many bytes.

    Parameters
    ----------
    shown : the rows, in which one that is shown twice is twice.
    """
    sample = sorted(shown)[:: max(1, len(shown) // SAMPLE)]

    def encoded(rows: set[int], length: int) -> dict[int, list[Picture]]:
        images = {row: explanations.images[row] for row in rows}
        return {
            row: [Picture.of(shrink(image, length)) for image in (of.seen, *(shown.image for shown in of.maps))]
            for row, of in images.items()
        }

    def size(pictures: Mapping[int, Sequence[Picture]], rows: Sequence[int]) -> int:
        return sum(len(picture.uri) for row in rows for picture in pictures[row])

    pictures: dict[int, list[Picture]] = {}
    for length in LENGTHS:
        # Encoding takes the time here: most lengths are too large, as a few pictures tell.
        few = encoded(set(sample), length)
        if size(few, sample) * len(shown) <= MOST_BYTES * len(sample) or length == LENGTHS[-1]:
            pictures = few | encoded(set(shown) - set(sample), length)
            if size(pictures, shown) <= MOST_BYTES:
                break
    return pictures


def heading(title: str) -> str:
    """Return the heading of the page of a run that *title* names."""
    return f"{TITLE}: {title}" if title else TITLE


def skipped_page(title: str, reason: str) -> str:
    """Return the page of a model that cannot be explained."""
    return templates.page("skipped.html", heading(title), reason=reason)


def explanation_page(predictions: Predictions, choice: Choice, explanations: Explanations, title: str = "") -> str:
    """Return the page."""
    pictures = encode(explanations, choice.shown())

    def examples(rows: Sequence[int], like: Mapping[int, Sequence[int]]) -> list[dict[str, Any]]:
        return [_example(predictions, row, explanations.images[row], pictures, like.get(row, ())) for row in rows]

    return templates.page(
        "explanation.html",
        heading(title),
        style=("pictures.css", "explanation.css"),
        colours=[to_hex(matplotlib.colormaps[COLOURS](value)) for value in (0.0, 0.25, 0.5, 0.75, 1.0)],
        explanations=explanations,
        differs=explanations.difference > SAME_PROBABILITY,
        names=predictions.classes,
        images=len(predictions.files),
        errors=int((predictions.labels != predictions.predictions).sum()),
        choice=choice,
        of_pair=examples(choice.pair_rows, choice.like),
        of_class={shown.label: examples([*shown.wrong, *shown.right], {}) for shown in choice.classes},
    )


def _example(
    predictions: Predictions,
    row: int,
    explained: Explained,
    pictures: Mapping[int, Sequence[Picture]],
    like: Sequence[int],
) -> dict[str, Any]:
    """Return an image of the page with its columns: pictures side by side.

    Their ``kind`` is ``seen``, the image; ``correct``, ``predicted`` or ``true``, the map of that class; ``like``,
    another image. Their ``alt`` is file or class, in words for who does not see it.
    """
    label, predicted, file = int(predictions.labels[row]), int(predictions.predictions[row]), predictions.files[row]
    seen, *maps = pictures[row]
    columns: list[dict[str, Any]] = [{"picture": seen, "kind": "seen", "alt": file}]
    for shown, picture in zip(explained.maps, maps, strict=True):
        kind = "true" if shown.label != predicted else "correct" if predicted == label else "predicted"
        name = predictions.classes[shown.label]
        column = {"picture": picture, "kind": kind, "alt": f"map of {name}", "label": name, "empty": shown.empty}
        columns.append(column | {"probability": percent(float(predictions.probabilities[row, shown.label]))})
    for other in like:
        name = predictions.classes[predictions.labels[other]]
        columns.append({"picture": pictures[other][0], "kind": "like", "alt": predictions.files[other], "label": name})
    width = sum(column["picture"].width + 6 for column in columns)
    return {"file": file, "columns": columns, "width": width, "wrong": predicted != label}
