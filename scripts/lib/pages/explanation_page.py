"""The page that shows where a model looks: which images it holds, how maps are drawn over them, and its words."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from PIL import Image, ImageOps

from scripts.lib.metrics.confusion import most_confused
from scripts.lib.pages.html import page, section
from scripts.lib.pages.thumbnails import STYLE, data_uri, name, percent, picture, shown_size, shrink
from scripts.lib.runs.predictions import Predictions

#: Right and wrong images a class, wrong images of the pair that is confused most, and classes, at most.
EXAMPLES, PAIR_IMAGES, MOST_CLASSES = 2, 8, 60
#: The first longer side of the pictures, in pixels, with which they all take at most so many bytes is used.
SIDES, MOST_BYTES = (160, 128, 104, 84, 68, 56), 2_800_000
#: So many images tell how large the pictures of all will be.
SAMPLE = 24
#: Blue to yellow, told apart by lightness alone (van der Walt & Smith 2015); a weak place shows more of the image.
COLOURS = "viridis"
WEAKEST, STRONGEST = 0.3, 0.75
#: What of a difference between predictions.csv and the model another machine may make.
SAME_PROBABILITY = 0.05
TITLE = "Where the model looks"
WHY = (
    "Why: on the right of each stand the test images that the network finds most like it among those that it predicts"
    " rightly, one of the class that it said and one of the true class. What the image shares with the first and lacks"
    " of the second (colour, shape, surface, what stands around) is what misleads the model."
)


@dataclass(frozen=True)
class ClassExamples:
    """Images of one class by their places in predictions.csv, the most confident first; *n* and *n_wrong* of all."""

    label: int
    n: int
    n_wrong: int
    right: list[int]
    wrong: list[int]


@dataclass(frozen=True)
class Choice:
    """What is shown.

    Attributes
    ----------
    classes : those shown, the one with most wrong images first.
    hidden : how many classes with test images are not shown.
    pair : the two classes that are taken for each other most often, both ways counted; None without an error.
    pair_counts : images of the first taken for the second, and of the second taken for the first.
    pair_rows : wrong images of the pair, the most confident first.
    equal_pairs : how many other pairs are confused as often; of all these the pair has the surest error.
    like : for a wrong image of the pair, the right images of the class that the model said and of the true class that
        the network finds most like it; empty where the features are not known.
    """

    classes: list[ClassExamples]
    hidden: int
    pair: tuple[int, int] | None = None
    pair_counts: tuple[int, int] = (0, 0)
    pair_rows: list[int] = field(default_factory=list)
    equal_pairs: int = 0
    like: dict[int, list[int]] = field(default_factory=dict)

    def shown(self) -> list[int]:
        """Return the place of every image as often as it is shown."""
        examples = [row for shown in self.classes for row in (*shown.right, *shown.wrong)]
        return [*self.pair_rows, *(row for rows in self.like.values() for row in rows), *examples]

    def rows(self) -> list[int]:
        """Return the place of every image shown, each once."""
        return sorted(set(self.shown()))


def choose(predictions: Predictions, features: np.ndarray | None = None, most_classes: int = MOST_CLASSES) -> Choice:
    """Choose the images to explain; *features*, shape (images, dims), are what the network makes of them."""
    labels, predicted = predictions.labels, predictions.predictions
    confidence = predictions.probabilities.max(axis=1)

    def surest(of: np.ndarray, most: int) -> list[int]:
        rows = np.flatnonzero(of).tolist()
        return sorted(rows, key=lambda row: (-confidence[row], predictions.files[row]))[:most]

    wrong = predicted != labels
    classes = [
        ClassExamples(
            label,
            int((labels == label).sum()),
            int((wrong & (labels == label)).sum()),
            surest(~wrong & (labels == label), EXAMPLES),
            surest(wrong & (labels == label), EXAMPLES),
        )
        for label in np.unique(labels).tolist()
    ]
    classes.sort(key=lambda shown: -shown.n_wrong)
    shown, hidden = classes[:most_classes], max(0, len(classes) - most_classes)
    confused = most_confused(predictions)
    if confused is None:
        return Choice(shown, hidden)
    pair = (confused.first, confused.second)
    of_pair = surest(wrong & np.isin(labels, pair) & np.isin(predicted, pair), PAIR_IMAGES)
    like = {} if features is None else {row: most_alike(predictions, features, row) for row in of_pair}
    return Choice(shown, hidden, pair, (confused.there, confused.back), of_pair, confused.equal, like)


def most_alike(predictions: Predictions, features: np.ndarray, row: int) -> list[int]:
    """Return the images most like the wrong one at *row*: of the class that was said, and of its own.

    Of those that are predicted rightly, the one whose features are nearest (Euclidean, as on the map of the images).
    """
    right = predictions.labels == predictions.predictions
    found = []
    for label in (predictions.predictions[row], predictions.labels[row]):
        rows = np.flatnonzero(right & (predictions.labels == label))
        if len(rows):
            distances = np.linalg.norm(features[rows].astype(np.float64) - features[row], axis=1)
            found.append(int(rows[distances.argmin()]))
    return found


@dataclass(frozen=True)
class Map:
    """Where the model sees *label*: the drawn map, and whether there is any such place."""

    label: int
    image: Image.Image
    empty: bool


@dataclass(frozen=True)
class Explained:
    """An image as the model saw it, and the maps of the predicted class and, where that is wrong, of the true one."""

    seen: Image.Image
    maps: list[Map]


@dataclass(frozen=True)
class Explanations:
    """All images explained.

    Attributes
    ----------
    images : by their places in predictions.csv.
    layer : name of the layer whose maps they are.
    grid : rows and columns of the layer.
    difference : the largest one between a probability of predictions.csv and of the model.
    """

    images: dict[int, Explained]
    layer: str
    grid: tuple[int, int]
    difference: float


def overlay(seen: Image.Image, strength: np.ndarray) -> Image.Image:
    """Return the picture in grey under the colours of *strength*, shape (height, width), 0 to 1."""
    grey = np.asarray(ImageOps.grayscale(seen), np.float64)[:, :, None]
    colours = 255 * matplotlib.colormaps[COLOURS](strength)[:, :, :3]
    opacity = WEAKEST + (STRONGEST - WEAKEST) * strength[:, :, None]
    return Image.fromarray((grey * (1 - opacity) + colours * opacity).round().astype(np.uint8))


class Pictures:
    """The pictures of a page as data URIs, all of one longer side, chosen so that they do not take too many bytes."""

    def __init__(self, explanations: Explanations, shown: Sequence[int]) -> None:
        """Encode the pictures at the places *shown*, in which one that is shown twice is twice."""
        sample = sorted(shown)[:: max(1, len(shown) // SAMPLE)]
        for side in SIDES:
            # Encoding takes the time here: most sides are too large, as a few pictures tell.
            if self._bytes(explanations, sample, side) * len(shown) <= MOST_BYTES * len(sample) or side == SIDES[-1]:
                self._of_row = {row: self._encode(explanations.images[row], side) for row in set(shown)}
                if sum(len(uri) for row in shown for uri, _ in self._of_row[row]) <= MOST_BYTES:
                    break

    @classmethod
    def _bytes(cls, explanations: Explanations, rows: Sequence[int], side: int) -> int:
        return sum(len(uri) for row in rows for uri, _ in cls._encode(explanations.images[row], side))

    @staticmethod
    def _encode(explained: Explained, side: int) -> list[tuple[str, tuple[int, int]]]:
        small = [shrink(image, side) for image in (explained.seen, *(shown.image for shown in explained.maps))]
        return [(data_uri(image), image.size) for image in small]

    def of(self, row: int) -> list[tuple[str, tuple[int, int]]]:
        """Return data URI and size of the image at *row* as seen, and of its maps."""
        return self._of_row[row]


def heading(title: str) -> str:
    """Return the heading of the page of a run that *title* names."""
    return f"{TITLE}: {title}" if title else TITLE


def explanation_page(predictions: Predictions, choice: Choice, explanations: Explanations, title: str = "") -> str:
    """Return the page."""
    pictures = Pictures(explanations, choice.shown())

    def cards(rows: Sequence[int], like: Mapping[int, Sequence[int]] | None = None) -> str:
        return (
            '<div class="cards">\n'
            + "\n".join(
                _card(predictions, row, explanations.images[row], pictures, (like or {}).get(row, ())) for row in rows
            )
            + "\n</div>"
        )

    parts = [*_introduction(explanations), *_of_pair(predictions, choice, cards)]
    if choice.hidden:
        parts.append(
            f"<p>Of {len(choice.classes) + choice.hidden} classes the {len(choice.classes)} with most wrong images are"
            f" shown; {choice.hidden} are not.</p>"
        )
    if len(choice.classes) > 10:
        links = (f'<a href="#class{of.label}">{name(predictions.classes[of.label])}</a>' for of in choice.classes)
        parts.append(f"<p>{' · '.join(links)}</p>")
    for of in choice.classes:
        parts.append(
            f'<section><h2 id="class{of.label}">{name(predictions.classes[of.label])}</h2>\n'
            f"<p>{of.n} test images, {of.n_wrong} wrong.</p>\n"
            f"{cards([*of.wrong, *of.right])}</section>"
        )
    return page(heading(title), parts, style=STYLE + _scale_style())


def _scale_style() -> str:
    stops = ", ".join(
        "#" + "".join(f"{round(255 * part):02x}" for part in matplotlib.colormaps[COLOURS](place)[:3])
        for place in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    return (
        f"\n.scale {{ display: inline-block; width: 8em; height: 0.8em; background: linear-gradient(90deg, {stops}) }}"
    )


def _introduction(explanations: Explanations) -> list[str]:
    rows, columns = explanations.grid
    parts = [
        "<p>Each picture is a test image as the model saw it; beside it, in grey, which places spoke for a class:"
        ' least <span class="scale"></span> most. Of a wrong image both are shown, the class that the model said and'
        " the true one. A model that looks at the object has learnt it; one that looks at the background has learnt"
        " what stands around it in these photographs.</p>",
        "<p>Grad-CAM (Selvaraju et al. 2017) of the class score before the softmax, at layer"
        f" <code>{html.escape(explanations.layer)}</code>: {rows} × {columns} places, enlarged, so that an edge is"
        " no sharper than that. Each map has its own scale, from 0 to its strongest place: two maps say where, not"
        " which of two classes had more. It shows what the score depends on, and proves no cause.</p>",
    ]
    if explanations.difference > SAME_PROBABILITY:
        parts.append(
            "<p><strong>The model gives these images other probabilities than predictions.csv has (by up to"
            f" {explanations.difference:.2f}): the predictions are not of these weights, make them again.</strong></p>"
        )
    return parts


def _of_pair(predictions: Predictions, choice: Choice, cards: Callable[..., str]) -> list[str]:
    """Return the section of the pair that is confused most."""
    if choice.pair is None:
        return [
            f"<p>All {len(predictions.files)} test images are classified correctly: no two classes are confused.</p>"
        ]
    first, second = (name(predictions.classes[place]) for place in choice.pair)
    there, back = choice.pair_counts
    total = int((predictions.labels != predictions.predictions).sum())
    less = f" The {len(choice.pair_rows)} surest are shown." if len(choice.pair_rows) < there + back else ""
    others = "One other pair is" if choice.equal_pairs == 1 else f"{choice.equal_pairs} other pairs are"
    equal = f" {others} confused as often; this one has the surest error." if choice.equal_pairs else ""
    return [
        section("The two classes that are confused most"),
        f"<p><strong>{first}</strong> and <strong>{second}</strong>: {there + back} of {total} errors, {there}"
        f" × {first} taken for {second} and {back} × {second} taken for {first}.{less}{equal}</p>",
        *([f"<p>{WHY}</p>"] if choice.like else []),
        cards(choice.pair_rows, choice.like),
    ]


def _card(
    predictions: Predictions, row: int, explained: Explained, pictures: Pictures, like: Sequence[int] = ()
) -> str:
    label, said = int(predictions.labels[row]), int(predictions.predictions[row])
    file = predictions.files[row]
    captions = ["as seen"]
    for shown in explained.maps:
        word = ("right" if said == label else "said") if shown.label == said else "true"
        none = "<br>(no place speaks for it)" if shown.empty else ""
        probability = percent(float(predictions.probabilities[row, shown.label]))
        captions.append(f"{word}: <strong>{name(predictions.classes[shown.label])}</strong> {probability}{none}")
    described = [file, *(f"map of {predictions.classes[shown.label]}" for shown in explained.maps)]
    drawn = list(pictures.of(row))
    for other in like:
        captions.append(
            f"most like it, rightly called <strong>{name(predictions.classes[predictions.labels[other]])}</strong>"
        )
        described.append(predictions.files[other])
        drawn.append(pictures.of(other)[0])
    columns = "".join(
        f'<div style="width: {shown_size(size)[0]}px">{picture(uri, size, words)}<p>{caption}</p></div>'
        for (uri, size), words, caption in zip(drawn, described, captions, strict=True)
    )
    kind = "" if said == label else ' class="wrong"'
    width = sum(shown_size(size)[0] + 6 for _, size in drawn)
    return (
        f'<figure{kind}><div class="pictures">{columns}</div>\n'
        f'<figcaption class="file" style="max-width: {width}px">{name(file)}</figcaption></figure>'
    )
