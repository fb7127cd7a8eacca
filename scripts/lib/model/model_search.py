"""The search of `base_config: auto`: candidates by a probe of their features, the best of them trained a little.

Successive halving: each round trains fewer models, and goes on from what the round before has trained. What stays of a
round is decided on val, never on test.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

#: Epochs that a round adds to those of the rounds before; its schedule is scaled to them.
EPOCHS = 1
#: Models in the first round, at most.
MOST_FINALISTS = 4
#: A step of training takes about as long as so many of prediction: forward, and backward twice.
TRAINING_FACTOR = 3.0


@dataclass(frozen=True)
class Tried:
    """What the probe of a candidate found.

    Attributes
    ----------
    name : of its folder.
    base_config : as the settings name it.
    left_out : why it is; "" where it is not, and else all below is 0.
    correct, images : held-out images of train and val that a linear layer on its features got right, and all of them;
        *correct* need not be whole where classes count the same.
    loss : mean cross-entropy of the same.
    images_per_second : through the frozen network.
    seconds : that the probe took.
    parameters, bytes : of the network, and of its weights in a file.
    """

    name: str
    base_config: str
    left_out: str = ""
    correct: float = 0
    images: int = 0
    loss: float = 0.0
    images_per_second: float = 0.0
    seconds: float = 0.0
    parameters: int = 0
    bytes: int = 0

    @property
    def accuracy(self) -> float:
        """Share of held-out images that are right, 0 to 1."""
        return self.correct / self.images if self.images else 0.0

    def as_json(self) -> dict[str, Any]:
        """Return it for a JSON file."""
        return asdict(self)


@dataclass(frozen=True)
class Trained:
    """What a finalist reached on val in one round.

    Attributes
    ----------
    correct, images : of val; *correct* need not be whole where classes count the same.
    loss : mean cross-entropy on val at the epoch that was kept.
    seconds : that its training took.
    """

    name: str
    correct: float
    images: int
    loss: float
    seconds: float

    @property
    def accuracy(self) -> float:
        """Share of val that is right, 0 to 1."""
        return self.correct / self.images if self.images else 0.0


Result = TypeVar("Result", Tried, Trained)


def finalists_of_rounds(candidates: int) -> tuple[int, ...]:
    """Return how many models each round trains.

    >>> [finalists_of_rounds(number) for number in (2, 4, 6, 8, 20)]
    [(2,), (2,), (3, 2), (4, 2), (4, 2)]
    """
    first = max(2, min(MOST_FINALISTS, candidates // 2))
    return (first,) if first == 2 else (first, 2)


def ranked(tried: Iterable[Tried]) -> list[Tried]:
    """Return the candidates that were not left out, the best first; of equal accuracy, the one of less loss."""
    return best_first(candidate for candidate in tried if not candidate.left_out)


def best_first(results: Iterable[Result]) -> list[Result]:
    """Return what probes or a round reached, the best first; of equal accuracy, the one of less loss."""
    return sorted(results, key=lambda result: (-result.accuracy, result.loss, result.name))


def training_seconds(tried: Tried, images: int, epochs: int) -> float:
    """Return how long so many epochs of *images* training images will take about."""
    return epochs * images * TRAINING_FACTOR / tried.images_per_second if tried.images_per_second else 0.0


def affordable(order: Sequence[Tried], count: int, images: int, epochs: int, seconds: float | None) -> list[Tried]:
    """Return the first *count* candidates whose training fits into what is left of the budget, one after the other.

    Parameters
    ----------
    seconds : that are left; None: no limit.
    """
    chosen: list[Tried] = []
    for tried in order:
        cost = training_seconds(tried, images, epochs)
        if len(chosen) < count and (seconds is None or cost <= seconds):
            chosen.append(tried)
            seconds = None if seconds is None else seconds - cost
    return chosen


def kept_slots(chosen: Sequence[str], before: Sequence[str | None], count: int) -> list[str | None]:
    """Return who trains in which of *count* slots: everyone where they were, so that nothing is trained anew.

    >>> kept_slots(["a", "new", "b"], ["b", "gone", "a"], 3)
    ['b', 'new', 'a']
    """
    slots: list[str | None] = [name if name in chosen else None for name in [*before, *[None] * count][:count]]
    new = [name for name in chosen if name not in slots]
    return [name if name is not None else (new.pop(0) if new else None) for name in slots]


def trade_off(points: Mapping[str, tuple[float, float]]) -> set[str]:
    """Return the names of which none is better in one number and at least as good in the other; larger is better.

    >>> sorted(trade_off({"a": (0.9, 10), "b": (0.8, 20), "c": (0.8, 15), "d": (0.7, 5)}))
    ['a', 'b']
    """
    return {
        name
        for name, point in points.items()
        if not any(other[0] >= point[0] and other[1] >= point[1] and other != point for other in points.values())
    }
