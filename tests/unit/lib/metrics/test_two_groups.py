"""Classes that look like two: joined ones are divided as they were, and nothing else is called two groups."""

from __future__ import annotations

import numpy as np
import pytest

from scripts.lib.metrics.two_groups import FEWEST, SMALLEST, find_two_groups

CLASSES, EACH, DIMENSIONS = 6, 120, 80


def clouds(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features of classes that lie around a point each, and differ most in two directions all; and labels."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES), EACH)
    spread = np.append(np.ones(DIMENSIONS - 2), [6, 9])
    centres = random.normal(size=(CLASSES, DIMENSIONS)) * 1.2
    return centres[labels] + random.normal(size=(len(labels), DIMENSIONS)) * spread, labels


def test_two_classes_in_one_are_divided_into_what_they_were() -> None:
    features, labels = clouds()
    joined = np.where(labels == 4, 1, labels)
    (divided,) = find_two_groups(features, joined, np.arange(len(labels)))
    assert divided.label == 1 and divided.between < 0.05
    groups = [labels[group] for group in divided.groups]
    assert len(groups[0]) >= len(groups[1]) and sum(map(len, groups)) == 2 * EACH
    shares = sorted(float((group == 4).mean()) for group in groups)
    assert shares[0] < 0.05 and shares[1] > 0.95


@pytest.mark.parametrize("seed", range(5))
def test_classes_of_one_kind_are_not_divided(seed: int) -> None:
    features, labels = clouds(seed)
    assert find_two_groups(features, labels, np.arange(len(labels))) == []
    even = np.random.default_rng(seed).uniform(-1, 1, features.shape) * np.append(np.ones(DIMENSIONS - 1), 30)
    assert find_two_groups(even, labels, np.arange(len(labels))) == []
    skewed = np.random.default_rng(seed).exponential(size=features.shape) * np.append(np.ones(DIMENSIONS - 1), 30)
    assert find_two_groups(skewed, labels, np.arange(len(labels))) == []


def test_copies_make_no_second_group_but_are_in_one() -> None:
    features, labels = clouds()
    rows = np.flatnonzero(labels == 2)[: EACH // 3]
    features[rows] = features[rows[0]] + np.eye(DIMENSIONS)[5] * 40
    alone, copies = np.arange(len(labels)), np.arange(len(labels))
    copies[rows] = rows[0]
    assert [divided.label for divided in find_two_groups(features, labels, alone)] == [2]
    assert find_two_groups(features, labels, copies) == []
    joined = np.where(labels == 4, 2, labels)
    (divided,) = find_two_groups(features, joined, copies)
    assert sorted(np.concatenate(divided.groups).tolist()) == np.flatnonzero(joined == 2).tolist()
    (group,) = [group for group in divided.groups if rows[0] in group]
    assert group[-len(rows) + 1 :].tolist() == sorted(rows[1:].tolist()), "copies come last"


def test_of_few_images_and_of_a_few_strangers_nothing_is_said() -> None:
    features, labels = clouds()
    joined = np.where(labels == 4, 1, labels)
    few = np.sort(np.concatenate([np.flatnonzero(joined != 1), np.flatnonzero(joined == 1)[::7]]))
    assert 30 < (joined[few] == 1).sum() < FEWEST
    assert find_two_groups(features[few], joined[few], np.arange(len(few))) == []
    strangers = np.flatnonzero(labels == 0)[: SMALLEST - 2]
    features[strangers] += np.eye(DIMENSIONS)[7] * 40
    assert find_two_groups(features, labels, np.arange(len(labels))) == []


def test_a_class_alone_has_nothing_to_be_held_against() -> None:
    features, labels = clouds()
    assert find_two_groups(features, np.zeros_like(labels), np.arange(len(labels))) == []
    assert find_two_groups(np.zeros((200, 8)), np.arange(200) % 2, np.arange(200)) == []


def test_images_that_are_equal_in_all_features_are_no_error() -> None:
    features, labels = clouds()
    features[labels == 3] = np.arange(EACH)[:, None] % 2 * 50.0
    (divided,) = find_two_groups(features, labels, np.arange(len(labels)))
    assert (divided.label, divided.between) == (3, 0.0) and list(map(len, divided.groups)) == [EACH // 2] * 2
