"""The search for a model: who is trained, where, within which budget, and who wins."""

from __future__ import annotations

import pytest

from scripts.lib.model import model_search
from scripts.lib.model.model_search import Tried, affordable, finalists_of_rounds, kept_slots, ranked, trade_off


def tried(name: str, correct: int = 50, loss: float = 1.0, speed: float = 100.0, left_out: str = "") -> Tried:
    return Tried(name, f"timm/{name}", left_out, correct, 100, loss, speed)


def test_the_most_accurate_is_first_and_of_equal_ones_the_surest() -> None:
    probes = [tried("a", 60), tried("b", 70, 0.9), tried("c", 70, 0.8), tried("d", 99, left_out="no weights")]
    assert [candidate.name for candidate in ranked(probes)] == ["c", "b", "a"]


@pytest.mark.parametrize("number", range(2, 40))
def test_each_round_trains_fewer_and_all_of_them_cost_less_than_a_third_of_training_each_fully(number: int) -> None:
    counts = finalists_of_rounds(number)
    assert counts[0] <= number and list(counts) == sorted(set(counts), reverse=True) and counts[-1] == 2
    epochs = sum(counts) * model_search.EPOCHS
    # One look at all images is a third of an epoch of training; the fast recipe has eight epochs.
    if number >= 4:
        assert epochs + number / 3 <= 8 * number / 3


def test_what_does_not_fit_into_the_budget_is_left_for_what_does() -> None:
    order = [tried("large", 90, speed=10), tried("small", 80, speed=1000), tried("other", 70, speed=500)]
    chosen = affordable(order, count=2, images=1000, epochs=2, seconds=20.0)  # 600, 6 and 12 seconds
    assert [candidate.name for candidate in chosen] == ["small", "other"]
    assert affordable(order, 2, 1000, 2, None) == order[:2]
    assert affordable(order, 2, 1000, 2, 0.0) == []


@pytest.mark.parametrize(
    ("chosen", "before", "expected"),
    [
        (["a", "b"], [], ["a", "b"]),
        (["b", "a"], ["a", "b"], ["a", "b"]),
        (["c", "a"], ["a", "b"], ["a", "c"]),
        (["a"], [None, "a"], [None, "a"]),
        (["x", "y"], ["a", "b"], ["x", "y"]),
        (["a", "b"], ["b", None, "a", "c"], ["b", "a"]),
    ],
)
def test_who_stays_keeps_the_place(chosen: list[str], before: list[str | None], expected: list[str | None]) -> None:
    assert sorted(filter(None, kept_slots(chosen, before, 2))) == sorted(chosen)
    assert kept_slots(chosen, before, 2) == expected


def test_nothing_on_the_front_is_worse_in_both() -> None:
    points = {"a": (0.9, 1.0), "b": (0.9, 2.0), "c": (0.5, 3.0), "d": (0.4, 2.5), "e": (0.9, 2.0)}
    assert trade_off(points) == {"b", "c", "e"}
