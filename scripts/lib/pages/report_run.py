"""What report.html tells of one run: its matrix, its errors, its classes, its calibration, as data for the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scripts.lib.base.files import read_json
from scripts.lib.metrics.calibration import Reliability, calibrate
from scripts.lib.metrics.errors import label_suspects, most_alike, most_confident, most_confused
from scripts.lib.runs.predictions import Predictions, read_features, read_predictions
from scripts.lib.runs.run_folder import FOLD, RunFolder
from scripts.lib.runs.train_log import kept_epoch, read_train_log

#: Misclassified images that the page knows of each run, the most confident first; the matrix counts all of them.
MOST_ERRORS = 400
#: Images of the pair confused most, with those that are most like them.
PAIR_IMAGES = 8
#: Labels to check, of each run.
MOST_SUSPECTS = 50
#: A probability below this is a guess, above it the model is confident.
CONFIDENT = 0.8
#: Columns of metrics.json that the page shows; each may have an interval.
METRICS = ("accuracy_top1", "accuracy_top5", "accuracy_balanced", "f1_macro", "ece", "accuracy_majority")


class Images:
    """All test images of a data set: each once, whatever the number of runs that were tested on it."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.labels: list[int] = []
        self._index: dict[str, int] = {}

    def index(self, file: str, label: int) -> int:
        """Return the number of an image; a new one gets the next."""
        if file not in self._index:
            self._index[file] = len(self.files)
            self.files.append(file)
            self.labels.append(label)
        return self._index[file]

    def number(self, file: str) -> int:
        """Return the number of an image; -1 of one that no run was tested on."""
        return self._index.get(file, -1)

    def add(self, predictions: Predictions) -> np.ndarray:
        """Return the numbers of the images of some predictions, shape (n,)."""
        pairs = zip(predictions.files, predictions.labels.tolist(), strict=True)
        return np.array([self.index(file, label) for file, label in pairs], np.int64)


@dataclass(frozen=True)
class PairExample:
    """A misclassified image of the pair confused most, and the correct images that the network finds most like it."""

    image: int
    predicted: int
    confidence: float
    of_label: float  # the probability of the true class
    like: list[int] = field(default_factory=list)  # of the predicted and of the true class


@dataclass(frozen=True)
class Pair:
    """The two classes that are confused most, and what is known of the reason."""

    first: int
    second: int
    there: int  # images of the first predicted as the second
    back: int
    equal: int  # other pairs confused as often
    examples: list[PairExample]
    second_choice: int  # of these errors, those whose true class was the second most probable
    confident: int  # of these errors, those with a confidence of at least CONFIDENT
    suspects: int  # of these errors, those whose label may be wrong
    rank: int | None  # of all pairs of classes by the distance of their mean features: 1 is the nearest
    pairs: int  # how many pairs of classes there are


@dataclass(frozen=True)
class RunReport:
    """A run as the page shows it; numbers of images are those of :class:`Images`."""

    experiment: str
    seed: int
    fold: int | None
    folder: str  # relative to the data set's
    tested: int
    images: list[int] | None  # those that it was tested on; None: all
    metrics: dict[str, Any]
    matrix: list[list[int]]  # true class, predicted class, images; only where there are some
    errors: list[list[Any]]  # image, predicted class, confidence, probability of the true class
    n_errors: int
    unlisted: list[int]  # misclassified images that are not in ``errors``
    classes: list[list[Any]]  # n, n_train, precision, recall, its interval's ends, F1
    calibration: dict[str, Any]
    curve: dict[str, list[float | None]]
    kept: int | None  # the epoch whose weights were kept
    pair: Pair | None
    suspects: list[list[Any]]  # image, suggested class, probability of the label, of the suggested class
    map: list[list[float]] = field(default_factory=list)  # image, x, y in pixels of the map
    #: Image, and of each of its Grad-CAM maps kind (correct, predicted, true), class and data URI
    explained: list[tuple[int, list[tuple[str, int, str]]]] = field(default_factory=list)
    explained_elsewhere: bool = False  # there are maps, but no room for them here

    @property
    def name(self) -> str:
        """Experiment, seed and fold in a few words."""
        return f"{self.experiment}, seed {self.seed}" + ("" if self.fold is None else f", fold {self.fold}")

    def as_data(self) -> dict[str, Any]:
        """Return what the page's script reads."""
        return asdict(self)


def rounded(value: Any, digits: int = 4) -> float | None:
    """Return a number with so many digits as a reader sees; None for one that is not known."""
    return None if value is None or not math.isfinite(value) else round(float(value), digits)


def describe_run(folder: Path, dataset: Path, images: Images) -> RunReport:
    """Read a finished run.

    Raises
    ------
    UserError : a file of it is missing, or not what it should be.
    """
    run = RunFolder(folder)
    metrics = read_json(run.metrics)
    predictions = read_predictions(run.predictions)
    val = read_predictions(run.val_predictions) if run.val_predictions.is_file() else None
    features = read_features(run.features, len(predictions.files)) if run.features.is_file() else None
    numbers = images.add(predictions)
    log = read_train_log(run.train_log)
    kept = kept_epoch(log)
    fold = FOLD.fullmatch(folder.name)
    wrong = most_confident(predictions, predictions.predictions != predictions.labels)
    suspects = label_suspects(predictions)
    return RunReport(
        experiment=str(metrics["experiment"]),
        seed=int(metrics["seed"]),
        fold=int(fold[1]) if fold else None,
        folder=folder.relative_to(dataset).as_posix(),
        tested=len(predictions.files),
        images=numbers.tolist(),
        metrics=_metrics(metrics),
        matrix=_matrix(predictions),
        errors=[_error(predictions, row, numbers) for row in wrong[:MOST_ERRORS]],
        n_errors=len(wrong),
        unlisted=numbers[wrong[MOST_ERRORS:]].tolist(),
        classes=_classes(run.per_class),
        calibration=_calibration(predictions, val),
        curve=_curve(log),
        kept=None if kept is None else int(kept["epoch"]),
        pair=_pair(predictions, features, numbers, {suspect.row for suspect in suspects}),
        suspects=[
            [
                int(numbers[suspect.row]),
                suspect.suggested,
                rounded(predictions.probabilities[suspect.row, predictions.labels[suspect.row]]),
                rounded(predictions.probabilities[suspect.row, suspect.suggested]),
            ]
            for suspect in suspects[:MOST_SUSPECTS]
        ],
    )


def _metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        name: [rounded(metrics[name]), *map(rounded, metrics.get(f"{name}_ci95") or ())]
        for name in METRICS
        if metrics.get(name) is not None
    }


def _matrix(predictions: Predictions) -> list[list[int]]:
    counts = np.zeros((len(predictions.classes),) * 2, np.int64)
    np.add.at(counts, (predictions.labels, predictions.predictions), 1)
    rows, columns = np.nonzero(counts)
    return np.stack([rows, columns, counts[rows, columns]], axis=1).tolist()


def _error(predictions: Predictions, row: int, numbers: np.ndarray) -> list[Any]:
    label, predicted = int(predictions.labels[row]), int(predictions.predictions[row])
    probabilities = predictions.probabilities[row]
    return [int(numbers[row]), predicted, rounded(probabilities[predicted]), rounded(probabilities[label])]


def _classes(path: Path) -> list[list[Any]]:
    # A class may be called NA: names are read as texts, though they are not wanted here.
    table = pd.read_csv(path, encoding="utf-8", keep_default_na=False, dtype={"class": str})
    trained = table["n_train"] if "n_train" in table else pd.Series([None] * len(table))
    columns = ("precision", "recall", "recall_ci95_low", "recall_ci95_high", "f1")
    return [
        [int(row["n"]), None if n_train is None else int(n_train), *(rounded(row[name]) for name in columns)]
        for (_, row), n_train in zip(table.iterrows(), trained, strict=True)
    ]


def _calibration(predictions: Predictions, val: Predictions | None) -> dict[str, Any]:
    same = val is not None and val.classes == predictions.classes
    result = calibrate(
        predictions.probabilities,
        predictions.labels,
        val.probabilities if same and val else None,
        val.labels if same and val else None,
    )
    return {
        "before": _bins(result.before),
        "after": None if result.after is None else _bins(result.after),
        "temperature": rounded(result.temperature),
        "confidence": rounded(predictions.probabilities.max(axis=1).mean()),
        "accuracy": rounded((predictions.labels == predictions.predictions).mean()),
    }


def _bins(reliability: Reliability) -> dict[str, Any]:
    columns = (reliability.confidence, reliability.accuracy, reliability.low, reliability.high)
    return {
        "ece": rounded(reliability.ece),
        "bins": [
            [int(count), *map(rounded, values)]
            for count, *values in zip(reliability.count, *columns, strict=True)
            if count
        ],
    }


def _curve(log: pd.DataFrame) -> dict[str, list[float | None]]:
    names = {"epoch": 2, "train_loss": 4, "val_accuracy": 4, "val_loss": 4}
    return {name: [rounded(value, digits) for value in log[name]] for name, digits in names.items()}


def _pair(
    predictions: Predictions, features: np.ndarray | None, numbers: np.ndarray, suspects: Iterable[int]
) -> Pair | None:
    confused = most_confused(predictions)
    if confused is None:
        return None
    pair = (confused.first, confused.second)
    labels, predicted, probabilities = predictions.labels, predictions.predictions, predictions.probabilities
    rows = most_confident(predictions, (labels != predicted) & np.isin(labels, pair) & np.isin(predicted, pair))
    classes = probabilities.shape[1]
    of_label = probabilities[rows, labels[rows]]
    return Pair(
        **{name: getattr(confused, name) for name in ("first", "second", "there", "back", "equal")},
        examples=[_pair_example(predictions, features, row, numbers) for row in rows[:PAIR_IMAGES]],
        second_choice=int(((probabilities[rows] > of_label[:, None]).sum(axis=1) == 1).sum()),
        confident=int((probabilities[rows].max(axis=1) >= CONFIDENT).sum()),
        suspects=len(set(rows) & set(suspects)),
        rank=None if features is None else rank_of_pair(labels, features, pair),
        pairs=classes * (classes - 1) // 2,
    )


def _pair_example(predictions: Predictions, features: np.ndarray | None, row: int, numbers: np.ndarray) -> PairExample:
    like = [] if features is None else [int(numbers[other]) for other in most_alike(predictions, features, row)]
    image, predicted, confidence, of_label = _error(predictions, row, numbers)
    return PairExample(image, predicted, confidence, of_label, like)


def rank_of_pair(labels: np.ndarray, features: np.ndarray, pair: Sequence[int]) -> int | None:
    """Return which of all pairs of classes it is by the distance of their mean features, 1 for the nearest.

    Parameters
    ----------
    labels : shape (images,).
    features : shape (images, dims).
    pair : two classes; None is returned where one has no image.
    """
    present = np.unique(labels)
    if not np.isin(pair, present).all():
        return None
    means = np.stack([features[labels == label].mean(axis=0, dtype=np.float64) for label in present])
    squares = (means**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares - 2 * means @ means.T, 0)
    first, second = np.searchsorted(present, pair)
    return 1 + int((distances[np.triu_indices(len(present), 1)] < distances[first, second]).sum())
