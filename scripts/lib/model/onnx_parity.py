"""A model in ONNX beside its checkpoint: whether it predicts the same in any batch size, and how fast both are."""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scripts.lib.base import ranges
from scripts.lib.base.console import one_line
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.model.inference import unreadable
from scripts.lib.model.onnx_export import REMEDY, Classifier
from scripts.lib.runs.onnx_model import OnnxModel, Preprocessing, predict_files
from scripts.lib.runs.predictions import Predictions

#: Difference of two probabilities, or between a prediction's and the next one's, that is more than rounding.
TOLERANCE = 1e-3
#: Images at a time.
BATCH_SIZE = 32


@dataclass(frozen=True)
class Parity:
    """How far two sets of predictions for the same images are the same.

    Attributes
    ----------
    images : how many.
    same : images of the same prediction.
    clear : places of those that differ although the reference preferred its prediction by more than TOLERANCE.
    largest : largest absolute difference of two probabilities.
    worst : place of the image that has it, or of the first that differs clearly.
    """

    images: int
    same: int
    clear: list[int]
    largest: float
    worst: int

    @property
    def holds(self) -> bool:
        return not self.clear and self.largest <= TOLERANCE


def compare(probabilities: np.ndarray, reference: Predictions) -> Parity:
    """Compare probabilities of shape (n, classes) with those of a predictions.csv of the same images."""
    predicted = probabilities.argmax(axis=1)
    first, second = np.sort(reference.probabilities, axis=1)[:, :-3:-1].T
    differs = predicted != reference.predictions
    differences = np.abs(probabilities - reference.probabilities).max(axis=1)
    clear = np.flatnonzero(differs & (first - second > TOLERANCE)).tolist()
    return Parity(
        images=len(predicted),
        same=int((~differs).sum()),
        clear=clear,
        largest=float(differences.max()),
        worst=clear[0] if clear else int(differences.argmax()),
    )


def explain_difference(parity: Parity, file: str, exported: np.ndarray, here: np.ndarray, name: str) -> UserError:
    """Return the error for a parity that does not hold, which says who differs.

    Parameters
    ----------
    file : the image ``parity.worst``.
    exported, here : what the exported model and what the checkpoint say about it here, shape (classes,).
    """
    others = f"{len(parity.clear)} of {parity.images} predictions are clearly others"
    difference = float(np.abs(exported - here).max())
    if difference > TOLERANCE or exported.argmax() != here.argmax():
        return UserError(
            f"{name} is another model in ONNX: a probability of {file} is {difference:.1e} away from the checkpoint's;"
            f" {others}; no model.onnx was written; {REMEDY}"
        )
    return UserError(
        f"--predictions: a probability of {file} is {parity.largest:.1e} away from what the checkpoint says here, and"
        f" {others}: it is of another checkpoint, or of other images; make it again by predict_images"
    )


def check_batches(model: OnnxModel, images: np.ndarray, name: str) -> None:
    """Raise UserError unless *model* takes any number of *images*, which are of the shape that it wants."""
    for number in (1, 3):
        try:
            rows = len(model.predict(np.resize(images, (number, *images.shape[1:]))))
            reason = f"there are {rows} answers"
        except Exception as error:  # onnxruntime's exceptions have no base class of their own
            operator = re.search(r"running (\w+) node", str(error))
            rows, reason = 0, f"its {operator[1]} fails" if operator else one_line(error)[:300]
        if rows != number:
            raise UserError(
                f"{name} cannot be exported to ONNX: with {plural(number, 'image')} at a time {reason}, since the code "
                f"of the model takes their number for a constant; {REMEDY}"
            )


def answer_of(classifier: Classifier, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return what torch says about prepared images, as :meth:`OnnxModel.answer` does."""
    answer = classifier(torch.from_numpy(images))
    return (answer.numpy(), None) if isinstance(answer, torch.Tensor) else (answer[0].numpy(), answer[1].numpy())


def check_distances(model: OnnxModel, classifier: Classifier, images: np.ndarray, name: str) -> None:
    """Raise UserError unless *model* finds these *images* as far from the training images as torch does."""
    exported, here = model.answer(images)[1], answer_of(classifier, images)[1]
    if exported is None or here is None:
        return
    if (difference := float(np.abs(exported - here).max())) > TOLERANCE:
        raise UserError(
            f"{name} is another model in ONNX: a distance from the training images is {difference:.1e} away from the"
            f" checkpoint's; no model.onnx was written; {REMEDY}"
        )


def predictions_of(model: OnnxModel, paths: Sequence[Path]) -> np.ndarray:
    """Return the probabilities, shape (len(paths), classes), that *model* gives these image files.

    Raises
    ------
    UserError : one of them is no image.
    """
    rows = []
    for predicted in predict_files(model, paths, BATCH_SIZE):
        for index, reason in predicted.failures:
            raise unreadable(paths[index], reason)
        rows.append(predicted.probabilities)
    return np.concatenate(rows)


def prepared(preprocessing: Preprocessing, paths: Sequence[Path]) -> np.ndarray:
    """Return image files as a batch for the model; UserError where one of them is no image."""
    images = []
    for path in paths:
        try:
            images.append(preprocessing.prepare(ranges.read_bytes(path)))
        except OSError as error:
            raise unreadable(path, one_line(error.strerror or error)) from error
    if len({image.shape for image in images}) > 1:
        raise UserError(f"data.test.pipeline: makes images of several sizes, and model.onnx takes one; {REMEDY}")
    return np.stack(images)


#: Of a measurement: seconds, if the model is that fast; turns of a few calls, engines taking turns; calls that suffice.
SECONDS, CALLS_A_TURN, ENOUGH_SINGLE, ENOUGH_BATCHES = 1.0, 5, 40, 6
#: Seconds that a batch may take; a slower model is timed with single images only.
LONGEST_BATCH = 8.0


def interleaved(calls: Mapping[str, Callable[[], Any]], seconds: float, turn: int, enough: int) -> dict[str, float]:
    """Return the median seconds of each of *calls*, made by turns so that all see the same state of the machine.

    Parameters
    ----------
    seconds : when to stop; each is timed once at least.
    turn : calls in a row; one more before them is not counted, since the caches are the other's.
    enough : calls of each after which to stop.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + seconds
    while True:
        for name, call in calls.items():
            call()
            for _ in range(turn):
                start = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - start)
                if time.perf_counter() > end:
                    break
        if time.perf_counter() > end or all(len(each) >= enough for each in times.values()):
            return {name: statistics.median(each) for name, each in times.items()}


def measure(calls: Mapping[str, Callable[[np.ndarray], Any]], images: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Return for each engine the milliseconds of one image and the images a second of batches.

    Parameters
    ----------
    calls : engines by name, functions of images.
    images : one or more; repeated to a batch of BATCH_SIZE.
    """
    batch = np.resize(images, (BATCH_SIZE, *images.shape[1:]))
    single = interleaved(
        {name: partial(call, batch[:1]) for name, call in calls.items()}, SECONDS, CALLS_A_TURN, ENOUGH_SINGLE
    )
    batches: dict[str, float] = {}
    if BATCH_SIZE * max(single.values()) < LONGEST_BATCH:
        batches = interleaved({name: partial(call, batch) for name, call in calls.items()}, SECONDS, 1, ENOUGH_BATCHES)
    return {
        name: {
            "milliseconds_single": round(1000 * single[name], 3),
            "images_per_second": round(BATCH_SIZE / batches[name], 2) if name in batches else None,
        }
        for name in calls
    }
