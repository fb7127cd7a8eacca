"""Divide units of images that stay together: stratified by class, seeded, a pure function of names."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from scipy.cluster.hierarchy import DisjointSet

from scripts.lib.data.image_paths import name_key

# Why not scikit-learn's splitters: none of them carves exact fractions that keep groups together and every class in
# every split, and their choice depends on the order of the rows and on the version. Here a unit's turn in the draw is
# a hash of (seed, purpose, name), so that a few more files do not reshuffle the rest.


@dataclass(frozen=True, slots=True)
class Unit:
    """Images that stay together.

    ``name``: by which it is drawn; ``sizes``: the number of its images of each class, classes sorted; ``paths``: its
    images.
    """

    name: str
    sizes: tuple[tuple[str, int], ...]
    paths: tuple[str, ...]


def make_units(images: Iterable[tuple[str, str]], sets: Iterable[tuple[str, Sequence[str]]]) -> list[Unit]:
    """Return the units of *images*, which are (path, class) pairs, none of them twice.

    Parameters
    ----------
    sets : (name, paths) pairs: the images of a set stay together, and so do sets that share an image.
        The name may be "". Paths that are not among the images are passed over.

    A unit is named after the first, by code point, of the names of its sets, else of its paths. So a known group
    keeps its turn in the draw when images are added to it.
    """
    labels = dict(images)
    joined = DisjointSet()  # of the images that are in a set
    names: list[tuple[str, str]] = []
    for name, paths in sets:
        known = [path for path in paths if path in labels]
        for path in known:
            joined.add(path)
            joined.merge(known[0], path)
        if name and known:
            names.append((known[0], name))
    together: dict[str, list[str]] = defaultdict(list)
    for path in labels:
        together[joined[path] if path in joined else path].append(path)  # noqa: SIM401 (it has no get)
    name_of: dict[str, str] = {}
    for path, name in names:
        root = joined[path]
        name_of[root] = min(name_of.get(root, name), name, key=name_key)
    alone = {label: ((label, 1),) for label in labels.values()}
    units = []
    for root, members in together.items():
        if len(members) == 1:
            units.append(Unit(name_of.get(root, root), alone[labels[root]], (root,)))
        else:
            sizes = tuple(sorted(Counter(labels[path] for path in members).items()))
            members.sort(key=name_key)
            units.append(Unit(name_of.get(root, members[0]), sizes, tuple(members)))
    return units


def draw_key(name: str, seed: int, purpose: str) -> bytes:
    """Return the turn in the draw: a hash of the seed, the purpose and the name."""
    return hashlib.sha256(f"{seed}\0{purpose}\0{unicodedata.normalize('NFC', name)}".encode()).digest()


def count_units(units: Iterable[Unit]) -> Counter[str]:
    """Return how many units have images of each class."""
    return Counter(label for unit in units for label, _ in unit.sizes)


def count_images(units: Iterable[Unit]) -> Counter[str]:
    """Return how many images of each class the units have."""
    counts: Counter[str] = Counter()
    for unit in units:
        for label, size in unit.sizes:
            counts[label] += size
    return counts


def share_out(sizes: Mapping[str, int], fraction: float) -> dict[str, int]:
    """Return how many images of each class a split gets: *fraction* of all, by largest remainders, at least one."""
    shares = {label: max(1, int(fraction * size)) for label, size in sizes.items()}
    missing = round(fraction * sum(sizes.values())) - sum(shares.values())
    by_remainder = sorted(sizes, key=lambda label: (shares[label] - fraction * sizes[label], label))
    for label in by_remainder[: max(missing, 0)]:
        shares[label] += 1
    return shares


def carve(
    units: Sequence[Unit], targets: Mapping[str, Mapping[str, int]], seed: int, purpose: str, rest: str = "train"
) -> tuple[dict[str, list[Unit]], list[str]]:
    """Return the units of each split, and the classes that could not be brought into every split.

    Parameters
    ----------
    targets : for each split, in the order in which they draw, the images of each class that it is to have; what
        remains goes to *rest*.

    A split takes units in the order of the draw as long as they fit; then those that bring it closer to its targets
    although one of them is passed. Units of one image meet the targets exactly.
    """
    remaining = sorted(units, key=lambda unit: (draw_key(unit.name, seed, purpose), unit.paths))
    left = count_units(remaining)
    splits: dict[str, list[Unit]] = {}
    for number, (split, target) in enumerate(targets.items()):
        spared = len(targets) - number  # the splits that come after this one, rest among them: a unit for each
        splits[split], remaining = _fill(remaining, target, left, spared)
    splits[rest] = remaining
    images = count_images(units)
    taken = {label: sum(target.get(label, 0) for target in targets.values()) for label in images}
    wanted: dict[str, Mapping[str, float]] = dict(targets)
    wanted[rest] = {label: max(1, size - taken[label]) for label, size in images.items()}
    return splits, cover(splits, wanted)


def _fill(
    units: Sequence[Unit], target: Mapping[str, int], left: Counter[str], spared: int
) -> tuple[list[Unit], list[Unit]]:
    """Return the units that a split takes, and the others; counts those that are *left* of each class down.

    At least *spared* units of each class are left.
    """
    have: Counter[str] = Counter()
    taken: set[int] = set()

    def take(index: int) -> None:
        taken.add(index)
        for label, size in units[index].sizes:
            have[label] += size
            left[label] -= 1

    open_classes = len(target)
    for index, unit in enumerate(units):
        if all(have[label] + size <= target[label] and left[label] > spared for label, size in unit.sizes):
            take(index)
            open_classes -= sum(have[label] == target[label] for label, _ in unit.sizes)
            if not open_classes:
                break
    short = [label for label in target if have[label] < target[label] and left[label] > spared]
    by_label: dict[str, list[int]] = {label: [] for label in short}
    if short:
        for index, unit in enumerate(units):
            if index not in taken:
                for label, _ in unit.sizes:
                    if label in by_label:
                        by_label[label].append(index)
    for label in sorted(short, key=lambda label: (have[label] / target[label], label)):
        while True:
            gains = (
                (_cost(units[index], have, target), index)
                for index in by_label[label]
                if index not in taken and all(left[other] > spared for other, _ in units[index].sizes)
            )
            cost, index = min(gains, default=(0.0, -1))
            if cost >= 0:
                break
            take(index)
    chosen = [unit for index, unit in enumerate(units) if index in taken]
    return chosen, [unit for index, unit in enumerate(units) if index not in taken]


def _cost(unit: Unit, have: Mapping[str, int], target: Mapping[str, float], sign: int = 1) -> float:
    """Return by how much the squared distances to the targets, as fractions of them, grow with one unit more.

    With *sign* -1: with one less.
    """
    return sum(
        size * (size + sign * 2 * (have[label] - target[label])) / target[label] ** 2 for label, size in unit.sizes
    )


def cover(splits: dict[str, list[Unit]], targets: Mapping[str, Mapping[str, float]], least: int = 1) -> list[str]:
    """Move units between *splits* until each has *least* units of every class; return the classes where that fails.

    Each time the move that costs least in distance to the *targets* and takes no class from another split.
    """
    units = {split: count_units(members) for split, members in splits.items()}
    totals = sum(units.values(), Counter[str]())
    missing = {label for label in totals for split in splits if units[split][label] < least}
    if not missing:
        return []
    images = {split: count_images(members) for split, members in splits.items()}
    failed = []
    for label in sorted(missing, key=lambda label: (totals[label], label)):
        for split in splits:
            while units[split][label] < least:
                moves = []
                for other in splits:
                    for index, unit in enumerate(splits[other]):
                        if (
                            other != split
                            and any(name == label for name, _ in unit.sizes)
                            and all(units[other][name] > least for name, _ in unit.sizes)
                        ):
                            cost = _cost(unit, images[split], targets[split])
                            cost += _cost(unit, images[other], targets[other], -1)
                            moves.append((cost, index, other))
                if not moves:
                    failed.append(label)
                    break
                *_, index, other = min(moves)
                unit = splits[other].pop(index)
                splits[split].append(unit)
                for name, size in unit.sizes:
                    for counts, step in ((units, 1), (images, size)):
                        counts[other][name] -= step
                        counts[split][name] += step
    return sorted(set(failed))


def deal(units: Sequence[Unit], folds: int, seed: int) -> tuple[dict[str, list[Unit]], list[str]]:
    """Return the units of fold0, fold1, ..., and the classes that could not be brought into every fold.

    Large units first, since small ones fit into what those leave; units of one size in the order of the draw. Each
    goes to the fold that its hash prefers, of those where it fits: so most units stay where they are when others are
    added, and no fold is left with what the others did not take.
    """
    images = count_images(units)
    room = {label: size // folds for label, size in images.items()}
    target = {label: size / folds for label, size in images.items()}
    names = [f"fold{number}" for number in range(folds)]
    dealt: dict[str, list[Unit]] = {fold: [] for fold in names}
    have = {fold: Counter[str]() for fold in dealt}
    keyed = [(-len(unit.paths), draw_key(unit.name, seed, "fold"), unit.paths, unit) for unit in units]
    keyed.sort(key=lambda entry: entry[:3])
    for _, key, _, unit in keyed:
        fits = (
            fold
            for fold in _preferred(key, names)
            if all(have[fold][label] + size <= room[label] for label, size in unit.sizes)
        )
        fold = next(fits, None) or min(_preferred(key, names), key=lambda fold: _cost(unit, have[fold], target))
        dealt[fold].append(unit)
        for label, size in unit.sizes:
            have[fold][label] += size
    # Of two folds, each is the other's train and val: it needs a unit for both.
    return dealt, cover(dealt, {fold: target for fold in dealt}, least=units_a_fold(folds))


def units_a_fold(folds: int) -> int:
    """Return how many units of each class a fold needs, so that the other folds have one for train and one for val."""
    return 2 if folds == 2 else 1


def _preferred(key: bytes, folds: Sequence[str]) -> Iterator[str]:
    """Yield the folds in the order that a hash prefers: Fisher-Yates, with the hash as its random numbers."""
    number = int.from_bytes(key, "big")
    left = list(folds)
    while left:
        number, index = divmod(number, len(left))
        yield left.pop(index)
