"""Show where a trained model looks: Grad-CAM of right and wrong test images of each class, and of the worst pair."""

from __future__ import annotations

import argparse
import html
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from scripts.lib.base.console import one_line, run_cli
from scripts.lib.base.files import write_text
from scripts.lib.base.problems import UserError
from scripts.lib.cluster.gpus import claimed_gpus
from scripts.lib.model.gradcam import FeatureLayer, NoFeatureLayer, class_scores, find_layer, grad_cam
from scripts.lib.model.inference import (
    build_model,
    choose_device,
    image_batches,
    load_config,
    read_checkpoint,
    trained_on_cpu,
    unreadable,
)
from scripts.lib.model.photos import Photo, Photos
from scripts.lib.pages.explanation_page import (
    SAME_PROBABILITY,
    SIDES,
    Explained,
    Explanations,
    Map,
    choose,
    explanation_page,
    heading,
    overlay,
)
from scripts.lib.pages.html import page
from scripts.lib.pages.thumbnails import shrink
from scripts.lib.runs.predictions import Predictions, read_features, read_predictions

logger = logging.getLogger(__name__)

#: Images through the model at a time.
BATCH = 16
#: What a model that captum or our search for the layer cannot treat may raise: a page that says so is no failed run.
UNEXPLAINABLE = (NoFeatureLayer, RuntimeError, TypeError, ValueError, AssertionError)


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
    for places, batch, failures in image_batches(dataset, BATCH, 0, device):
        for place, reason in failures:
            raise unreadable(images / predictions.files[rows[place]], reason)
        assert batch is not None
        batch = batch.to(device)
        if layer is None:
            check_classes(model, batch[:1], len(predictions.classes))
            layer = find_layer(model, batch[:2])
        of_batch = [rows[place] for place in places]
        found, gap = explain_batch(model, layer, batch, pipeline, predictions, of_batch)
        explained |= found
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
        (place, label)
        for place, row in enumerate(rows)
        for label in dict.fromkeys((int(predictions.predictions[row]), int(predictions.labels[row])))
    ]
    maps, scores = grad_cam(model, layer, batch[[place for place, _ in jobs]], [label for _, label in jobs])
    large = layer.enlarge(maps, (int(batch.shape[2]), int(batch.shape[3]))).cpu().numpy()
    seen = [as_seen(image, pipeline) for image in batch.cpu().numpy()]
    drawn: list[list[Map]] = [[] for _ in rows]
    for strength, (place, label) in zip(large, jobs, strict=True):
        overlaid = shrink(overlay(seen[place], strength), SIDES[0])
        drawn[place].append(Map(label, overlaid, not strength.any()))
    probabilities = scores.softmax(dim=1).cpu().numpy()
    difference = np.abs(probabilities - predictions.probabilities[[rows[place] for place, _ in jobs]]).max()
    explained = {row: Explained(shrink(seen[place], SIDES[0]), drawn[place]) for place, row in enumerate(rows)}
    return explained, float(difference)


def check_classes(model: torch.nn.Module, images: torch.Tensor, classes: int) -> None:
    """Raise UserError unless *model* tells so many classes apart."""
    with torch.no_grad():
        known = class_scores(model, images).shape[1]
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


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.evaluate.explain_model", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the run's config.py")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE", help="its weights, best.pth")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="the folder of the predicted files")
    parser.add_argument("--predictions", type=Path, required=True, metavar="FILE", help="predictions.csv of the run")
    parser.add_argument(
        "--features", type=Path, metavar="FILE", help="features.npy of the run: to show what confused images are like"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the page, .html")
    parser.add_argument("--title", default="", metavar="TEXT", help="its heading")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the model runs (auto: as in training)"
    )
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="CPU threads of the model (2)")
    parser.add_argument("--cards", type=int, default=0, metavar="N", help="GPUs to hold meanwhile (0: the first one)")
    return parser


def main(args: argparse.Namespace) -> None:
    predictions = read_predictions(args.predictions)
    with claimed_gpus(args.cards, os.environ) as gpus:
        if gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[0]  # before torch looks for GPUs
        write_text(args.output, explained_page(args, predictions))


def explained_page(args: argparse.Namespace, predictions: Predictions) -> str:
    """Return the page; of a model that cannot be explained, one that says why."""
    start = time.perf_counter()
    config = load_config(args.config)
    device = choose_device("cpu" if args.device == "auto" and trained_on_cpu(config) else args.device)
    weights, _ = read_checkpoint(args.checkpoint)
    model = build_model(config, weights, device, args.threads)
    choice = choose(predictions, read_features(args.features, len(predictions.files)) if args.features else None)
    try:
        explanations = explain(model, config.data.test.pipeline, predictions, choice.rows(), args.images, device)
    except UNEXPLAINABLE as error:
        reason = one_line(error)[:300] or type(error).__name__
        logger.debug("no explanation", exc_info=True)
        logger.warning("skipped: %s", reason)
        return page(heading(args.title), [f"<p>skipped: {html.escape(reason)}</p>"])
    if explanations.difference > SAME_PROBABILITY:
        logger.warning("%s was not made by these weights (by up to %.2f)", args.predictions, explanations.difference)
    logger.info(
        "explained %d images of %d classes by %s in %.1f s: %s",
        *(len(explanations.images), len(choice.classes), explanations.layer),
        *(time.perf_counter() - start, args.output),
    )
    return explanation_page(predictions, choice, explanations, args.title)


if __name__ == "__main__":
    run_cli(build_parser, main)
