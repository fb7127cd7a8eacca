"""The page that shows where a model looks: which images it holds, and Grad-CAM maps drawn over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.colors import to_hex
from PIL import Image, ImageOps

from scripts.lib.base.language import tr
from scripts.lib.base.problems import UserError
from scripts.lib.metrics.errors import most_alike, most_confident, most_confused
from scripts.lib.model.gradcam import FeatureLayer, NoFeatureLayer, class_logits, find_layer, grad_cam
from scripts.lib.model.inference import image_batches, unreadable
from scripts.lib.model.photos import Photo, Photos
from scripts.lib.pages import templates
from scripts.lib.pages.thumbnails import Picture, percent, shrink
from scripts.lib.runs.predictions import Predictions

#: Images through the model at a time.
BATCH = 16
#: Pixels of the longer side of a picture; less for a page of many.
LENGTHS = (160, 128, 104, 84, 68, 56)
#: Blue to yellow, told apart by lightness alone (van der Walt & Smith 2015); a weak position shows more of the image.
COLOURS = "viridis"
WEAKEST, STRONGEST = 0.3, 0.75


@dataclass(frozen=True)
class Map:
    """What contributed to *label*: the drawn map, and whether it is empty."""

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
    """All images explained."""

    images: dict[int, Explained]  # by their rows in predictions.csv
    layer: str  # name of the layer whose maps they are
    grid: tuple[int, int]  # rows and columns of the layer
    difference: float  # the largest one between a probability of predictions.csv and of the model


def overlay(seen: Image.Image, strength: np.ndarray) -> Image.Image:
    """Return the picture in grey under the colours of *strength*, shape (height, width), 0 to 1."""
    grey = np.asarray(ImageOps.grayscale(seen), np.float64)[:, :, None]
    colours = 255 * matplotlib.colormaps[COLOURS](strength)[:, :, :3]
    opacity = WEAKEST + (STRONGEST - WEAKEST) * strength[:, :, None]
    return Image.fromarray((grey * (1 - opacity) + colours * opacity).round().astype(np.uint8))


def explain(
    model: torch.nn.Module, pipeline: Any, predictions: Predictions, rows: Sequence[int], images: Path, device: str
) -> Explanations:
    """Explain the images at *rows* of the predictions, files below the folder *images*.

    Raises
    ------
    UserError : an image is missing or broken, or the model has other classes than the predictions.
    NoFeatureLayer : no layer of the model can be explained.
    """
    dataset = Photos([Photo(images / predictions.files[row], "") for row in rows], pipeline)
    explained: dict[int, Explained] = {}
    layer: FeatureLayer | None = None
    difference = 0.0
    # No processes that read: starting one takes longer than to read the few images.
    for indices, batch, failures in image_batches(dataset, BATCH, 0, device):
        for index, reason in failures:
            raise unreadable(images / predictions.files[rows[index]], reason)
        assert batch is not None
        batch = batch.to(device)
        if layer is None:
            check_classes(model, batch[:1], len(predictions.classes))
            layer = find_layer(model, batch[:2])
        of_batch = [rows[index] for index in indices]
        of_rows, gap = explain_batch(model, layer, batch, pipeline, predictions, of_batch)
        explained |= of_rows
        difference = max(difference, gap)
    if layer is None:
        raise NoFeatureLayer("there is no image")
    return Explanations(explained, layer.name, layer.grid, difference)


def explain_batch(
    model: torch.nn.Module,
    layer: FeatureLayer,
    batch: torch.Tensor,
    pipeline: Any,
    predictions: Predictions,
    rows: Sequence[int],
) -> tuple[dict[int, Explained], float]:
    """Explain the inputs *batch* of the model, which are the images at *rows* of the predictions.

    Returns
    -------
    tuple : what is shown of each row; the largest difference between the model's probabilities and the predictions.
    """
    jobs = [
        (index, label)
        for index, row in enumerate(rows)
        for label in dict.fromkeys((int(predictions.predictions[row]), int(predictions.labels[row])))
    ]
    maps, logits = grad_cam(model, layer, batch[[index for index, _ in jobs]], [label for _, label in jobs])
    large = layer.enlarge(maps, (int(batch.shape[2]), int(batch.shape[3]))).cpu().numpy()
    seen = [as_seen(image, pipeline) for image in batch.cpu().numpy()]
    drawn: list[list[Map]] = [[] for _ in rows]
    for strength, (index, label) in zip(large, jobs, strict=True):
        overlaid = shrink(overlay(seen[index], strength), LENGTHS[0])
        drawn[index].append(Map(label, overlaid, not strength.any()))
    probabilities = logits.softmax(dim=1).cpu().numpy()
    difference = np.abs(probabilities - predictions.probabilities[[rows[index] for index, _ in jobs]]).max()
    explained = {row: Explained(shrink(seen[index], LENGTHS[0]), drawn[index]) for index, row in enumerate(rows)}
    return explained, float(difference)


def check_classes(model: torch.nn.Module, images: torch.Tensor, classes: int) -> None:
    """Raise UserError unless *model* tells so many classes apart."""
    with torch.no_grad():
        known = class_logits(model, images).shape[1]
    if known != classes:
        raise UserError(f"the model knows {known} classes, predictions.csv has {classes}; predict the images again")


def as_seen(image: np.ndarray, pipeline: Any) -> Image.Image:
    """Return an input of the model as a picture: the normalisation of *pipeline* undone.

    Parameters
    ----------
    image : float32 of shape (channels, height, width).
    pipeline : the steps of the test pipeline, of which at most one is ``Normalize``.
    """
    steps = [step for step in pipeline if step["type"] == "Normalize"]
    pixels = image.transpose(1, 2, 0).astype(np.float64)
    for step in reversed(steps):
        pixels = pixels * np.array(step["std"]) + np.array(step["mean"])
    if pixels.shape[2] == 1:
        pixels = pixels.repeat(3, axis=2)
    elif not any(step.get("to_rgb", True) for step in steps):
        pixels = pixels[:, :, ::-1]  # OpenCV reads blue first
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


#: At most: correct and misclassified images of a class, misclassified images of the pair confused most, classes.
EXAMPLES, PAIR_IMAGES, MOST_CLASSES = 2, 8, 30
#: Of all pictures together: the first of LENGTHS with which they take at most this is used.
MOST_BYTES = 1_500_000
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
    #: The two classes that are confused most often, both ways counted; None without an error
    pair: tuple[int, int] | None = None
    #: Images of the first predicted as the second, and of the second predicted as the first
    pair_counts: tuple[int, int] = (0, 0)
    pair_rows: list[int] = field(default_factory=list)  # misclassified images of the pair, the most confident first
    #: How many other pairs are confused as often; of all these the pair has the most confident error
    equal_pairs: int = 0
    #: Of these images, the nearest correct ones of the predicted and of the true class; empty without features
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
    n, n_wrong = np.bincount(labels), np.bincount(labels[wrong], minlength=int(labels.max()) + 1)
    classes = sorted(np.flatnonzero(n).tolist(), key=lambda label: -n_wrong[label])
    shown = [
        ClassExamples(
            label,
            int(n[label]),
            int(n_wrong[label]),
            most_confident(predictions, ~wrong & (labels == label))[:EXAMPLES],
            most_confident(predictions, wrong & (labels == label))[:EXAMPLES],
        )
        for label in classes[:most_classes]
    ]
    hidden = len(classes) - len(shown)
    confused = most_confused(predictions)
    if confused is None:
        return Choice(shown, hidden)
    pair = (confused.first, confused.second)
    both = wrong & np.isin(labels, pair) & np.isin(predicted, pair)
    of_pair = most_confident(predictions, both)[:PAIR_IMAGES]
    like = {} if features is None else {row: most_alike(predictions, features, row) for row in of_pair}
    return Choice(shown, hidden, pair, (confused.there, confused.back), of_pair, confused.equal, like)


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


def skipped_page(title: str, reason: str) -> str:
    """Return the page of a model that cannot be explained."""
    return templates.page("skipped.html", templates.heading(TITLE, title), reason=reason)


def explanation_page(predictions: Predictions, choice: Choice, explanations: Explanations, title: str = "") -> str:
    """Return the page."""
    pictures = encode(explanations, choice.shown())

    def examples(rows: Sequence[int], like: Mapping[int, Sequence[int]]) -> list[dict[str, Any]]:
        return [_example(predictions, row, explanations.images[row], pictures, like.get(row, ())) for row in rows]

    return templates.page(
        "explanation.html",
        templates.heading(TITLE, title),
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
    columns: list[dict[str, Any]] = [{"picture": seen, "kind": "seen", "alt": file, "label": ""}]
    for shown, picture in zip(explained.maps, maps, strict=True):
        kind = "true" if shown.label != predicted else "correct" if predicted == label else "predicted"
        name = predictions.classes[shown.label]
        column = {"picture": picture, "kind": kind, "alt": tr(f"map of {name}"), "label": name, "empty": shown.empty}
        columns.append(column | {"probability": percent(float(predictions.probabilities[row, shown.label]))})
    for other in like:
        name = predictions.classes[predictions.labels[other]]
        columns.append({"picture": pictures[other][0], "kind": "like", "alt": predictions.files[other], "label": name})
    width = sum(column["picture"].width + 6 for column in columns)
    return {"file": file, "columns": columns, "width": width, "wrong": predicted != label}
