"""How units of images that stay together are divided: properties that hold for any data set."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scripts.lib.data.grouped_split import (
    Unit,
    carve,
    count_images,
    count_units,
    deal,
    make_units,
    share_out,
    units_a_fold,
)

#: Data sets as the numbers of images of classes 0, 1, 2 that each unit has.
MIXED = st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3).filter(any), min_size=12, max_size=60).map(
    lambda sizes: [unit_of(f"u{number}", dict(enumerate(row))) for number, row in enumerate(sizes)]
)
#: Data sets of units of one class, by the sizes of the units of each.
PURE = st.lists(st.lists(st.integers(1, 6), min_size=25, max_size=60), min_size=2, max_size=3).map(
    lambda classes: [
        unit_of(f"u{label}-{number}", {label: size})
        for label, sizes in enumerate(classes)
        for number, size in enumerate(sizes)
    ]
)
FRACTIONS = st.sampled_from([(0.1, 0.2), (0.2, 0.1), (0.3, 0.3), (0.05, 0.5)])
SEEDS = st.integers(0, 1000)
quick = settings(max_examples=40, deadline=None, derandomize=True)


def unit_of(name: str, sizes: dict[int, int]) -> Unit:
    """Return a unit with so many images of each class; classes are called c0, c1, ..."""
    paths = tuple(f"c{label}/{name}_{n}.jpg" for label, size in sizes.items() for n in range(size))
    return Unit(name, tuple((f"c{label}", size) for label, size in sizes.items() if size), paths)


def divide(units: Sequence[Unit], val: float, test: float, seed: int) -> tuple[dict[str, list[Unit]], list[str]]:
    images = count_images(units)
    return carve(units, {"test": share_out(images, test), "val": share_out(images, val)}, seed, "split")


def names_of(splits: dict[str, list[Unit]]) -> dict[str, str]:
    return {unit.name: split for split, members in splits.items() for unit in members}


# --- units ----------------------------------------------------------------------------------------------------------


def test_sets_that_share_an_image_are_one_unit() -> None:
    images = [(f"{label}/{n}.jpg", label) for label in "ab" for n in range(4)]
    sets = [
        ("", ["a/0.jpg", "a/1.jpg"]),
        ("patient 2", ["a/1.jpg", "b/1.jpg"]),
        ("patient 1", ["b/1.jpg", "b/2.jpg", "elsewhere"]),
        ("", ["elsewhere", "a/3.jpg"]),
        ("", []),
    ]
    units = {unit.name: unit for unit in make_units(images, sets)}
    assert sorted(units) == ["a/2.jpg", "a/3.jpg", "b/0.jpg", "b/3.jpg", "patient 1"]
    assert units["patient 1"].paths == ("a/0.jpg", "a/1.jpg", "b/1.jpg", "b/2.jpg")
    assert units["patient 1"].sizes == (("a", 2), ("b", 2))
    assert units["a/3.jpg"].sizes == (("a", 1),)


@quick
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40), st.randoms(use_true_random=False))
def test_units_are_the_connected_images_in_any_order(pairs: list[tuple[int, int]], order: random.Random) -> None:
    images = [(f"{n:02d}", "a") for n in range(31)]
    sets = [("", [f"{a:02d}", f"{b:02d}"]) for a, b in pairs]
    units = make_units(images, sets)
    unit_of = {path: unit.name for unit in units for path in unit.paths}
    assert sorted(unit_of) == [path for path, _ in images]
    assert all(unit_of[first] == unit_of[other] for _, (first, other) in sets)
    neighbours = {frozenset(both) for _, both in sets}
    for unit in units:  # each unit can be walked through along pairs
        reached, more = set(), {unit.paths[0]}
        while more:
            reached |= more
            more = {path for both in neighbours if both & more for path in both} - reached
        assert reached == set(unit.paths)
    shuffled = make_units(order.sample(images, len(images)), order.sample(sets, len(sets)))
    assert {unit.name: unit for unit in shuffled} == {unit.name: unit for unit in units}


def test_a_long_chain_of_copies_is_one_unit() -> None:
    images = [(f"{n:06d}", "a") for n in range(20_000)]
    chain = [("", list(both)) for both in pairwise(path for path, _ in images)]
    for sets in (chain, chain[::-1]):
        assert len(make_units(images, sets)) == 1


def test_a_known_group_keeps_its_place_when_images_are_added() -> None:
    few, many = ([(f"a/{n}.jpg", "a") for n in numbers] for numbers in ((5, 6), (0, 5, 6)))
    assert [make_units(images, [("p1", [path for path, _ in images])])[0].name for images in (few, many)] == ["p1"] * 2


# --- sides ----------------------------------------------------------------------------------------------------------


def test_shares_add_up_by_largest_remainders() -> None:
    assert share_out({"a": 10, "b": 13, "c": 14}, 0.25) == {"a": 3, "b": 3, "c": 3}
    assert share_out({"a": 1, "b": 100}, 0.1) == {"a": 1, "b": 10}


def test_units_that_are_all_too_large_go_smallest_first_and_train_keeps_one() -> None:
    units = [unit_of(name, {0: size}) for name, size in (("x", 4), ("y", 3), ("z", 2))]
    splits, failed = carve(units, {"test": {"c0": 1}, "val": {"c0": 1}}, 0, "split")
    assert {split: [len(unit.paths) for unit in members] for split, members in splits.items()} == {
        "test": [2],
        "val": [3],
        "train": [4],
    }
    assert not failed
    splits, _ = carve(units[:2], {"test": {"c0": 7}}, 0, "split")
    assert [len(splits[split]) for split in ("test", "train")] == [1, 1]


def test_a_target_is_passed_where_that_is_closer() -> None:
    units = [unit_of(f"u{n}", {0: 10, 1: 10}) for n in range(10)]
    assert {split: len(members) for split, members in divide(units, 0.15, 0.28, 0)[0].items()} == {
        "test": 3,
        "val": 1,
        "train": 6,
    }


@quick
@given(MIXED, FRACTIONS, SEEDS)
def test_each_unit_is_on_one_side_and_each_class_on_every_side(
    units: list[Unit], fractions: tuple[float, float], seed: int
) -> None:
    assume(min(count_units(units).values()) >= 8)
    splits, failed = divide(units, *fractions, seed)
    assert sorted(unit.name for members in splits.values() for unit in members) == sorted(unit.name for unit in units)
    assert not failed
    assert all(set(count_units(members)) == set(count_units(units)) for members in splits.values())


@quick
@given(PURE, FRACTIONS, SEEDS)
def test_fractions_are_met_within_one_unit(units: list[Unit], fractions: tuple[float, float], seed: int) -> None:
    splits, _ = divide(units, *fractions, seed)
    for split, fraction in zip(("val", "test"), fractions, strict=True):
        target = share_out(count_images(units), fraction)
        for label, images in count_images(splits[split]).items():
            largest = max(size for unit in units for name, size in unit.sizes if name == label)
            assert abs(images - target[label]) < largest


@quick
@given(MIXED, FRACTIONS, SEEDS, st.randoms(use_true_random=False))
def test_the_order_of_the_units_does_not_matter(
    units: list[Unit], fractions: tuple[float, float], seed: int, order: random.Random
) -> None:
    shuffled = order.sample(units, len(units))
    assert names_of(divide(shuffled, *fractions, seed)[0]) == names_of(divide(units, *fractions, seed)[0])
    assert names_of(deal(shuffled, 3, seed)[0]) == names_of(deal(units, 3, seed)[0])


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 3), min_size=20, max_size=20), SEEDS)
def test_one_percent_more_images_leave_99_percent_in_place(more: list[int], seed: int) -> None:
    units = [unit_of(f"u{n}", {n % 4: 1}) for n in range(2000)]
    grown = units + [unit_of(f"new{n}-{seed}", {label: 1}) for n, label in enumerate(more)]
    before, after = (names_of(divide(both, 0.1, 0.2, seed)[0]) for both in (units, grown))
    assert sum(before[name] != after[name] for name in before) <= 20


@pytest.mark.parametrize("seed", range(3))
def test_groups_of_several_classes_stay_in_place_too(seed: int) -> None:
    draw = random.Random(seed)
    units = [unit_of(f"u{n}", {label: draw.randint(0, 3) for label in range(3)} | {n % 3: 2}) for n in range(1000)]
    grown = units + [unit_of(f"new{n}", {0: 2, 1: 1}) for n in range(10)]
    before, after = (names_of(divide(both, 0.1, 0.2, seed)[0]) for both in (units, grown))
    assert sum(before[name] != after[name] for name in before) <= 20


# --- folds ----------------------------------------------------------------------------------------------------------


@quick
@given(MIXED, st.integers(2, 4), SEEDS)
def test_each_unit_is_in_one_fold_and_each_class_in_all(units: list[Unit], folds: int, seed: int) -> None:
    assume(min(count_units(units).values()) >= 3 * folds)
    dealt, failed = deal(units, folds, seed)
    assert list(dealt) == [f"fold{number}" for number in range(folds)]
    assert sorted(unit.name for members in dealt.values() for unit in members) == sorted(unit.name for unit in units)
    assert not failed
    for members in dealt.values():
        assert min(count_units(members)[label] for label in count_units(units)) >= units_a_fold(folds)


@quick
@given(PURE, st.integers(2, 6), SEEDS)
def test_folds_are_equal_within_one_unit(units: list[Unit], folds: int, seed: int) -> None:
    dealt, _ = deal(units, folds, seed)
    for label, images in count_images(units).items():
        largest = max(size for unit in units for name, size in unit.sizes if name == label)
        assert all(abs(count_images(members)[label] - images / folds) < largest for members in dealt.values())


@quick
@given(st.lists(st.integers(20, 90), min_size=2, max_size=5), st.integers(2, 20), SEEDS)
def test_folds_of_single_images_differ_by_one_in_each_class(sizes: list[int], folds: int, seed: int) -> None:
    units = [unit_of(f"u{label}-{n}", {label: 1}) for label, size in enumerate(sizes) for n in range(size)]
    assume(min(sizes) >= folds * units_a_fold(folds))
    dealt, _ = deal(units, folds, seed)
    for label in range(len(sizes)):
        assert len({count_images(members)[f"c{label}"] for members in dealt.values()}) <= 2


@pytest.mark.parametrize("seed", range(3))
def test_one_percent_more_images_leave_99_percent_of_them_in_their_folds(seed: int) -> None:
    units = [unit_of(f"u{n}", {n % 2: 1}) for n in range(4000)]
    grown = units + [unit_of(f"new{n}", {n % 2: 1}) for n in range(40)]
    before, after = (names_of(deal(both, 5, seed)[0]) for both in (units, grown))
    assert sum(before[name] != after[name] for name in before) <= 40


@pytest.mark.parametrize("folds", [2, 5])
def test_the_seed_chooses(folds: int) -> None:
    units = [unit_of(f"u{n}", {n % 2: 1}) for n in range(100)]
    assert names_of(deal(units, folds, 0)[0]) != names_of(deal(units, folds, 1)[0])
    assert Counter(names_of(divide(units, 0.1, 0.2, 0)[0]).values()) == {"train": 70, "val": 10, "test": 20}


def test_a_class_in_one_large_and_some_small_units_is_in_every_fold() -> None:
    units = [unit_of("large", {0: 10}), *(unit_of(f"u{n}", {0: 1}) for n in range(3))]
    for seed in range(10):
        dealt, failed = deal([*units, *(unit_of(f"v{n}", {1: 1}) for n in range(8))], 4, seed)
        assert not failed and all(count_units(members)["c0"] == 1 for members in dealt.values())


def test_each_of_two_folds_has_two_units_of_a_class_for_the_train_and_val_of_the_other() -> None:
    units = [unit_of(name, {0: size}) for name, size in (("large", 10), ("x", 1), ("y", 1), ("z", 1))]
    for seed in range(5):
        dealt, failed = deal(units, 2, seed)
        assert not failed and [len(members) for members in dealt.values()] == [2, 2]


def test_small_units_fill_what_large_ones_leave() -> None:
    units = [unit_of(f"large{n}", {0: 20}) for n in range(3)] + [unit_of(f"u{n}", {0: 1}) for n in range(60)]
    for seed in range(5):
        assert [count_images(members)["c0"] for members in deal(units, 3, seed)[0].values()] == [40, 40, 40]
