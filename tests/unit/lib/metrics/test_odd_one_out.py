"""Images unlike all others: planted ones are named, a copy does not hide its like, and few images say nothing."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.lib.metrics import odd_one_out
from scripts.lib.metrics.odd_one_out import FEWEST, odd_ones_out, strangeness


def collection(count: int = 400, seed: int = 0) -> np.ndarray:
    """Return features of images around a few directions, of any length."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(4, 32))
    return (centres[draw.integers(0, 4, count)] + 0.5 * draw.normal(size=(count, 32))) * draw.uniform(1, 9, (count, 1))


def strangers(count: int) -> np.ndarray:
    return np.random.default_rng(9).normal(size=(count, 32))


def test_strangers_are_named_the_oddest_first_and_hardly_any_other() -> None:
    features = np.concatenate([collection(), strangers(4)])
    units = np.arange(len(features))
    odd = odd_ones_out(features, units)
    assert set(odd[:4].tolist()) == {400, 401, 402, 403}
    assert len(odd) <= 4 + 0.01 * 400
    distances = strangeness(features, units)
    assert (np.diff(distances[odd]) <= 0).all()


def test_copies_of_a_stranger_do_not_make_it_usual() -> None:
    features = np.concatenate([collection(), np.repeat(strangers(1), 12, axis=0)])
    alone, shared = np.arange(len(features)), np.arange(len(features))
    shared[400:] = 400
    copies = set(range(400, 412))
    assert not copies & set(odd_ones_out(features, alone).tolist()), "pictures that are alike are a kind"
    assert copies <= set(odd_ones_out(features, shared).tolist())


def test_the_distance_is_that_of_the_tenth_nearest_by_the_angle() -> None:
    features = collection(60)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    for index in (0, 17):
        tenth = np.sort(1 - np.delete(unit, index, axis=0) @ unit[index])[9]
        assert np.isclose(strangeness(features, np.arange(60))[index], tenth, atol=1e-5)


def test_few_images_and_images_of_all_kinds_have_no_odd_one() -> None:
    few = np.concatenate([collection(FEWEST - 2), strangers(1)])
    assert not odd_ones_out(few, np.arange(len(few))).size
    assert not odd_ones_out(strangers(300), np.arange(300)).size


def test_of_many_images_some_are_asked_and_the_answer_is_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(odd_one_out, "ASKED", 100)
    features = np.concatenate([collection(), strangers(3)])
    first, again = (odd_ones_out(features, np.arange(len(features))).tolist() for _ in range(2))
    assert first == again and set(first[:3]) == {400, 401, 402}
