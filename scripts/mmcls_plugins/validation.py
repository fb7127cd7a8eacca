"""How good an epoch is on the validation split, which epoch is the best one, and when training gets no better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

#: What balanced validation adds to an epoch's record: the means over the classes, by which it is judged.
BALANCED_COLUMNS = ("val_accuracy_balanced", "val_loss_balanced")


def measure(probabilities: np.ndarray, labels: np.ndarray, balanced: bool) -> dict[str, float]:
    """Return top-1 accuracy (0 to 1) and mean cross-entropy, and where *balanced*, their means over the classes.

    Parameters
    ----------
    probabilities : shape (images, classes).
    labels : shape (images,).
    """
    correct = probabilities.argmax(axis=1) == labels
    likelihood = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    losses = -np.log(np.maximum(likelihood, np.finfo(np.float32).tiny))
    measured = {"val_accuracy": float(np.mean(correct)), "val_loss": float(np.mean(losses))}
    if balanced:
        classes = [labels == label for label in np.unique(labels)]
        means = (np.mean([values[chosen].mean() for chosen in classes]) for values in (correct, losses))
        measured |= dict(zip(BALANCED_COLUMNS, map(float, means), strict=True))
    return measured


def is_better(record: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether an epoch is better than the best of those before: by accuracy on val and, of equal ones, by loss.

    Of a hundred images several epochs get as many right; the loss tells them apart.
    """
    best = next((epoch for epoch in reversed(earlier) if epoch["is_best"]), None)
    if best is None:
        return True
    (accuracy, loss), (best_accuracy, least_loss) = _judged(record), _judged(best)
    return accuracy > best_accuracy if accuracy != best_accuracy else loss < least_loss


def has_lost_patience(records: Sequence[Mapping[str, Any]], best_epoch: int, epochs_done: int, patience: int) -> bool:
    """Tell whether the last *patience* epochs brought neither better weights nor a lower loss on val; 0: never.

    Of the records alone, so a restart agrees. The loss too: a lucky accuracy on few images would else end early
    a training that is still getting better.
    """
    evaluated = [record for record in records if record["val_loss"] is not None]
    if not patience or not evaluated:
        return False
    lowest = min(evaluated, key=lambda record: _judged(record)[1])
    return epochs_done - max(best_epoch, lowest["epoch"]) >= patience


def _judged(record: Mapping[str, Any]) -> tuple[float, float]:
    """Return the accuracy and the loss on val by which an epoch is judged: means over the classes, if it has them."""
    ending = "_balanced" if "val_accuracy_balanced" in record else ""
    return record[f"val_accuracy{ending}"], record[f"val_loss{ending}"]
