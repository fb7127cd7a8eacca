"""The images of the page that shows where a model looks: each as the model saw it, under the colours of its maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageOps

from scripts.lib.base.problems import UserError
from scripts.lib.model.gradcam import FeatureLayer, NoFeatureLayer, class_logits, find_layer, grad_cam
from scripts.lib.model.inference import image_batches, unreadable
from scripts.lib.model.photos import Photo, Photos
from scripts.lib.pages.thumbnails import shrink
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
