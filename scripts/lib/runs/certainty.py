"""certainty.json and known.npy of a run: when its predictions are sure, and what is far from its training images.

They are all that is needed to mark predictions: neither training nor val images.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scripts.lib.base.console import one_line
from scripts.lib.base.files import read_json
from scripts.lib.base.problems import UserError
from scripts.lib.runs.run_folder import RunFolder

#: The accuracy of the sure predictions that is asked for unless another one is.
MIN_ACCURACY = 0.95
#: Why a prediction is marked, as the table has it.
NOT_CONFIDENT, FAR = "low confidence", "unlike the training images"
#: Similarities that a block of images holds.
BLOCK_NUMBERS = 4_000_000


class Step(NamedTuple):
    """A threshold, and what it was worth on val; all of 0 to 1."""

    accuracy: float  # of the images of at least this confidence, one more counted as wrong
    confidence: float
    coverage: float  # the share of the images that have it


@dataclass(frozen=True)
class Certainty:
    """What the val images say of when a model can be relied on.

    Attributes
    ----------
    val_images : how many they are.
    steps : for rising accuracies the threshold that keeps the most images, accuracies between two are those of the
        higher one; none where the model is wrong on all.
    known_images : training images whose features known.npy has.
    far : distance from the nearest of these (:func:`distances`) beyond which an image is unlike them; None where there
        are too few val images to tell.
    """

    val_images: int
    steps: Sequence[Step]
    known_images: int = 0
    far: float | None = None

    def at(self, accuracy: float) -> Step | None:
        """Return the threshold that keeps *accuracy*, 0 to 1, and the most images; None where none does."""
        return next((step for step in self.steps if step.accuracy >= accuracy), None)

    @property
    def best(self) -> Step | None:
        """The threshold of the highest accuracy."""
        return self.steps[-1] if self.steps else None

    def as_json(self) -> dict[str, Any]:
        """Return it for a JSON file."""
        return {**asdict(self), "steps": [list(step) for step in self.steps]}

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Certainty:
        """Read what :meth:`as_json` returned; KeyError, TypeError or ValueError where it is something else."""
        steps = [Step(*map(float, step)) for step in values["steps"]]
        far = None if values["far"] is None else float(values["far"])
        return cls(int(values["val_images"]), steps, int(values["known_images"]), far)


def read_certainty(path: Path) -> Certainty:
    """Read a certainty.json; UserError where it is none."""
    try:
        return Certainty.of_json(read_json(path))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: not the thresholds of a run ({one_line(error)})", "predict its splits again"
        ) from error


def certainty_text(certainty: Certainty) -> str:
    """Return it as the text in the metadata of a model.onnx."""
    return json.dumps(certainty.as_json())


def read_known(path: Path) -> np.ndarray:
    """Read a known.npy: float16 (images, dims), of length 1; UserError where it is none."""
    try:
        known = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: not a file of features ({one_line(error)})", "predict its splits again") from error
    if not isinstance(known, np.ndarray) or known.ndim != 2 or not len(known) or not np.isfinite(known).all():
        raise UserError(f"{path}: not the features of training images", "predict its splits again")
    return known


def of_run(run: RunFolder) -> tuple[Certainty, np.ndarray] | None:
    """Return what a run's files say; None for a run of a mimflow that did not write them."""
    if not run.certainty.is_file() or not run.known.is_file():
        return None
    return read_certainty(run.certainty), read_known(run.known)


def directions(features: np.ndarray) -> np.ndarray:
    """Return features of length 1: float32 (images, dims); of no length, as they are.

    Lengths are left out since they say how much of anything there is in an image, not what: grey photographs have short
    features, which are close to everything by Euclidean distance.
    """
    values = features.astype(np.float32)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), np.float32(1e-12))


def distances(features: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return 1 - the cosine to the nearest known image, 0 to 2: float32 (images,).

    Sun et al. (2022), Out-of-Distribution Detection with Deep Nearest Neighbors, with one neighbour.

    Parameters
    ----------
    features : (images, dims), of any length.
    known : (known images, dims), of length 1.
    """
    result = np.empty(len(features), np.float32)
    transposed = np.ascontiguousarray(known.T, dtype=np.float32)
    rows = max(1, BLOCK_NUMBERS // len(known))
    for start in range(0, len(features), rows):
        block = directions(features[start : start + rows])
        result[start : start + rows] = 1 - (block @ transposed).max(axis=1)
    return result


def reasons(certainty: Certainty, accuracy: float, confidence: float, distance: float | None) -> list[str]:
    """Return why a prediction is unsure; nothing where it is not.

    Parameters
    ----------
    accuracy : that is asked for; where no threshold keeps it, no prediction is sure.
    distance : of :func:`distances`; None where it is not known.
    """
    step = certainty.at(accuracy)
    low = step is None or confidence < step.confidence
    far = certainty.far is not None and distance is not None and distance > certainty.far
    return [NOT_CONFIDENT] * low + [FAR] * far
