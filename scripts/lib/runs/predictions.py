"""predictions.csv: how it is written and how it is read back."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scripts.lib.base.console import one_line
from scripts.lib.base.files import atomic_path
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural

PROBABILITY = "prob:"
HEAD = ("file", "label", "prediction")
FORMAT: dict[str, Any] = {
    "encoding": "utf-8",
    "keep_default_na": False,  # every name stays the text that it is: a class may be called 1, NA or null
    "dtype": dict.fromkeys(HEAD, str),
    "float_precision": "round_trip",
    "lineterminator": "\n",
}
#: Images that are read at once: a table of all of them, beside the array, would be twice the memory.
BLOCK_ROWS = 2000


@dataclass(frozen=True)
class Predictions:
    """The predictions of one model on one split.

    Attributes
    ----------
    files : n names, relative to ``images/``.
    labels, predictions : int arrays of shape (n,), places in ``classes``.
    probabilities : float64 array of shape (n, len(classes)).
    classes : the class names in the order of the label index.
    """

    files: list[str]
    labels: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray
    classes: list[str]


def write_predictions(path: Path, classes: Sequence[str], rows: Iterable[tuple[str, int, np.ndarray]]) -> None:
    """Write one row an image, atomically.

    Parameters
    ----------
    rows : file, label index and float32 probabilities (len(classes),) of each image, consumed as a stream.
    """
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*HEAD, *(PROBABILITY + name for name in classes)])
        for name, label, probabilities in rows:
            # Nine significant digits give every float32 back bit by bit.
            numbers = [f"{value:.9g}" for value in probabilities.tolist()]
            writer.writerow([name, classes[label], classes[int(np.argmax(probabilities))], *numbers])


def read_predictions(path: Path) -> Predictions:
    """Read a predictions.csv.

    Raises
    ------
    UserError : it is missing or empty, or not a file of this form.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; make it with scripts.evaluate.predict_images")
    try:
        heads, blocks, classes = _read_blocks(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a predictions.csv ({error}); make it again") from error
    except ValueError as error:
        raise UserError(f"{path}: a probability is not a number; make the file again") from error
    if not blocks:
        raise UserError(f"{path}: not a predictions.csv (columns {', '.join(HEAD)}, prob:<class>...); make it again")
    table = pd.concat(heads, ignore_index=True)
    probabilities = np.empty((len(table), len(classes)))
    end = len(table)
    while blocks:  # each is let go when it is copied: never two of everything
        block = blocks.pop()
        probabilities[end - len(block) : end] = block
        end -= len(block)
    label_of = {name: label for label, name in enumerate(classes)}
    labels, predictions = (table[column].map(label_of) for column in ("label", "prediction"))
    if labels.isna().any() or predictions.isna().any() or not np.isfinite(probabilities).all():
        raise UserError(f"{path}: a class without its prob: column, or a probability that is no number; make it again")
    return Predictions(
        table["file"].tolist(), labels.to_numpy(np.int64), predictions.to_numpy(np.int64), probabilities, classes
    )


def read_answers(path: Path) -> pd.DataFrame:
    """Return file, label and prediction (names) of each image of a predictions.csv, without the probabilities.

    Raises
    ------
    UserError : it is missing or empty, or not a file of this form.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; make it with scripts.evaluate.predict_images")
    try:
        table = pd.read_csv(path, usecols=list(HEAD), **FORMAT)
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a predictions.csv ({one_line(error)[:300]}); make it again") from error
    if table.empty:
        raise UserError(f"{path}: holds no image; make it again")
    return table


def _read_blocks(path: Path) -> tuple[list[pd.DataFrame], list[np.ndarray], list[str]]:
    """Return the columns HEAD and the probabilities of a predictions.csv, block by block, and its classes.

    Nothing of a file that has other columns, or no row.
    """
    with pd.read_csv(path, chunksize=BLOCK_ROWS, **FORMAT) as reader:
        heads: list[pd.DataFrame] = []
        blocks: list[np.ndarray] = []
        classes: list[str] = []
        for table in reader:
            classes = [name.removeprefix(PROBABILITY) for name in table.columns[len(HEAD) :]]
            if tuple(table.columns[: len(HEAD)]) != HEAD or not classes or table.empty:
                break
            heads.append(table.iloc[:, : len(HEAD)].copy())
            blocks.append(table.iloc[:, len(HEAD) :].to_numpy(dtype=np.float64))
    return heads, blocks, classes


def read_features(path: Path, images: int) -> np.ndarray:
    """Read the features that predict_images wrote, float32 of shape (images, dims).

    Raises
    ------
    UserError : the file is missing, not one, or of another number of images.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; make it with scripts.evaluate.predict_images --features")
    try:
        features = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: not a file of features ({error}); make it again") from error
    if not isinstance(features, np.ndarray) or features.ndim != 2 or len(features) != images:
        raise UserError(f"{path}: not the features of {plural(images, 'image')}; make it together with predictions.csv")
    if not np.isfinite(features).all():
        raise UserError(f"{path}: a feature is no finite number: the training diverged; lower the learning rate")
    return features
