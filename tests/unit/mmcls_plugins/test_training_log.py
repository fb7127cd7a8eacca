"""Which epoch is the best one, and when training ends for want of a better one: of what val said alone."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.mmcls_plugins.training_log import has_lost_patience, is_better

#: Accuracy and loss on val, epoch 0 first: of the demo, where a lucky epoch 1 once ended the training.
DEMO = [(0.92, 0.220), (0.97, 0.291), (0.92, 0.371), (0.91, 0.358), (0.97, 0.215), (0.96, 0.257), (0.96, 0.24)]


def best_and_end(values: list[tuple[float | None, float | None]], patience: int) -> tuple[int, int]:
    """Return the best epoch and the one after which training ended."""
    records: list[dict[str, Any]] = []
    best = epoch = 0
    for epoch, (accuracy, loss) in enumerate(values):
        record = {"epoch": epoch, "val_accuracy": accuracy, "val_loss": loss, "is_best": False}
        if accuracy is not None:
            record["is_best"] = is_better(record, records)
        records.append(record)
        if record["is_best"]:
            best = epoch
        if has_lost_patience(records, best, epoch, patience):
            break
    return best, epoch


@pytest.mark.parametrize(
    ("values", "patience", "expected"),
    [
        (DEMO, 4, (4, 6)),  # of equal accuracy the lower loss, which also shows that training still gets on
        (DEMO, 0, (4, 6)),
        ([(0.5, 1.0), (0.5, 1.0), (0.5, 1.0), (0.5, 1.0), (0.9, 0.1)], 3, (0, 3)),
        ([(0.5, 1.0), (0.5, 1.1), (0.5, 0.9), (0.5, 1.0), (0.4, 1.0), (0.4, 1.0)], 3, (2, 5)),
        ([(0.5, 1.0), (0.4, 0.9), (0.4, 0.8), (0.4, 0.7), (0.6, 0.9)], 3, (4, 4)),  # lower losses keep it going
        ([(0.5, 1.0), (None, None), (None, None), (0.7, 0.5), (None, None)], 3, (3, 4)),  # not each epoch is validated
    ],
)
def test_the_best_epoch_has_the_highest_accuracy_and_of_equal_ones_the_lowest_loss(
    values: list[tuple[float | None, float | None]], patience: int, expected: tuple[int, int]
) -> None:
    assert best_and_end(values, patience) == expected
