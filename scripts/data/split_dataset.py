"""Split the images into train, val and test: stratified, seeded, no copy of an image on two sides, one class list."""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import logging
import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scripts.console import UserError, run_cli
from scripts.data.image_paths import is_image, is_junk
from scripts.files import atomic_path, sha256_of

logger = logging.getLogger(__name__)

#: The sides of a split, lowest first: of copies of an image, the one in the highest side is kept.
SIDES = ("train", "val", "test")
#: How many names a message lists.
LISTED = 5


@dataclass(frozen=True)
class Image:
    """One image.

    ``path``: relative to the images' folder, with slashes; ``part``: the part that the archive gave it, "" where it
    gave none; ``group``: images of one group stay on one side ("" is a group of its own).
    """

    path: str
    label: str
    part: str = ""
    group: str = ""


# Why not scikit-learn's splitters: none of them carves exact fractions that keep groups together and every class on
# every side, and their choice depends on the order of the rows and on the version. Here an image's place in the draw
# is a hash of (seed, purpose, name) (law 3), so that a few more files do not reshuffle the rest.


def find_images(folder: Path) -> list[Image]:
    """Return the images below *folder*: [train|val|test/]<class>/.../<file>, in an order of their names only.

    Raises
    ------
    UserError : there are none, or there is a test or val part without a train part.
    """
    tops = sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_junk([path.name]))
    parts = tops if tops and set(tops) <= set(SIDES) else [""]
    images = [
        Image(path, path.split("/")[1 if part else 0], part)
        for part in parts
        for path in _image_files(folder, part)
        if path.count("/") >= (2 if part else 1)
    ]
    if not images:
        raise UserError(f"{folder}: no images: expected one folder a class, with its images in it")
    if parts != [""] and "train" not in {image.part for image in images}:
        found = " and ".join(sorted({image.part for image in images}))
        raise UserError(f"{folder}: only {found} has images, train has none: there is nothing to learn from")
    return sorted(images, key=lambda image: _name_key(image.path))


def _image_files(folder: Path, part: str) -> list[str]:
    """Return the paths of the images below *folder*/*part*, relative to *folder*."""
    found = []
    for place, folders, files in os.walk(folder / part):
        folders[:] = [name for name in folders if not is_junk([name])]
        below = Path(place).relative_to(folder).as_posix()
        found += [f"{below}/{name}".removeprefix("./") for name in files if is_image(name) and not is_junk([name])]
    return found


def _name_key(name: str) -> tuple[str, str]:
    """Sort names alike on every file system: some store Unicode composed, some decomposed."""
    return unicodedata.normalize("NFC", name), name


def group_copies(folder: Path, images: Sequence[Image]) -> list[Image]:
    """Return *images* with ``group`` set to the sha256 where several have the same bytes.

    Only files of one size are read: others cannot be copies of each other.
    """
    by_size: dict[int, list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        by_size[(folder / image.path).stat().st_size].append(index)
    by_content: dict[str, list[int]] = defaultdict(list)
    for alike in by_size.values():
        if len(alike) > 1:
            for index in alike:
                by_content[sha256_of(folder / images[index].path)].append(index)
    grouped = list(images)
    for digest, alike in by_content.items():
        if len(alike) > 1:
            for index in alike:
                grouped[index] = replace(images[index], group=digest)
    return grouped


def choose_classes(images: Sequence[Image], wanted: Sequence[str] | None) -> list[str]:
    """Return the class names in the order of their labels: *wanted*, or all, sorted by code point.

    Raises
    ------
    UserError : an unknown or repeated name in *wanted*; one class only.
    """
    found = sorted({image.label for image in images})
    if wanted is None:
        classes = found
    else:
        composed = {unicodedata.normalize("NFC", name): name for name in found}
        classes = []
        for name in wanted:
            match = name if name in found else composed.get(unicodedata.normalize("NFC", name))
            if match is None:
                close = difflib.get_close_matches(name, found, n=3) or found
                raise UserError(f"dataset.classes: no folder for class {name!r}; there are {listed(close)}")
            if match in classes:
                raise UserError(f"dataset.classes: {name!r} stands there twice")
            classes.append(match)
    if len(classes) < 2:
        only = f"only {classes[0]!r}" if classes else "none"
        raise UserError(f"one class is not enough: at least 2 are needed, {only} was found (one folder a class)")
    return classes


def check_same_classes(images: Iterable[Image], classes: Sequence[str]) -> None:
    """Refuse parts of the archive whose class folders differ, naming the differences."""
    by_part: dict[str, set[str]] = defaultdict(set)
    for image in images:
        by_part[image.part].add(image.label)
    missing = {part: [name for name in classes if name not in labels] for part, labels in by_part.items()}
    differences = [f"{part} lacks {listed(names)}" for part, names in sorted(missing.items()) if names]
    if differences:
        raise UserError(
            f"the class folders of the given parts differ: {'; '.join(differences)}:"
            " give every part the same class folders, or name those to use in dataset.classes"
        )


def listed(names: Sequence[str]) -> str:
    """Return names for a message, the first few of them."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(repr(name) for name in names[:LISTED]) + more


def settle_given_parts(images: Sequence[Image]) -> list[Image]:
    """Return the images with ``part`` as the side that they are given to ("" or train: still to be shared out).

    Where only train and val are given, the given val becomes test (design): a val that chose the epoch is no test.
    """
    given = {image.part for image in images}
    if "val" in given and "test" not in given:
        logger.info("the archive has train and val only: its val is the test set, a new val is taken from train")
        return [replace(image, part="test") if image.part == "val" else image for image in images]
    return list(images)


def drop_leaks(images: Sequence[Image]) -> list[Image]:
    """Return the images without those of which a higher given part holds a copy, and say how many those were."""
    highest: dict[str, int] = {}
    rank = {part: place for place, part in enumerate(SIDES)} | {"": 0}
    for image in images:
        if image.group:
            highest[image.group] = max(highest.get(image.group, 0), rank[image.part])
    kept = [image for image in images if not image.group or rank[image.part] == highest[image.group]]
    dropped = Counter(image.part for image in images) - Counter(image.part for image in kept)
    for part, count in sorted(dropped.items()):
        logger.warning("left out %d images of the given %s: val or test holds exact copies of them", count, part)
    return kept


def split(
    images: Sequence[Image], classes: Sequence[str], val: float, test: float, seed: int
) -> dict[str, list[Image]]:
    """Return the images of each side, all of which have images of every class.

    Parameters
    ----------
    images : all images; what their ``part`` says is kept, val and test are carved from the rest where absent.
    classes : the class names; images of other classes are left out.
    val, test : fractions of all images.
    seed : chooses the images.

    Raises
    ------
    UserError : a fraction is impossible; a class has too few images.
    """
    check_fractions(val, test)
    known = set(classes)
    images = [image for image in images if image.label in known]
    pool = [image for image in images if image.part in ("", "train")]
    given = {side: [image for image in images if image.part == side] for side in ("val", "test")}
    sizes = Counter(image.label for image in images)
    targets = {side: share_out(sizes, share) for side, share in (("test", test), ("val", val)) if not given[side]}
    units = make_units(pool, seed)
    check_enough(units, given, classes, needed=len(targets) + 1)
    chosen: dict[str, str] = {}
    for label in classes:
        chosen |= carve(units[label], {side: shares[label] for side, shares in targets.items()})
    sides: dict[str, list[Image]] = {"train": [], **given}
    for image in pool:
        sides[chosen.get(image.path, "train")].append(image)
    return sides


def check_fractions(val: float, test: float) -> None:
    """Refuse fractions that leave nothing to a side."""
    for name, value in (("val", val), ("test", test)):
        if not 0 < value < 1:
            raise UserError(f"dataset.split.{name}: {value:g} is no fraction between 0 and 1")
    if val + test >= 1:
        raise UserError(
            f"dataset.split: val {val:g} and test {test:g} leave nothing to train: their sum must be below 1"
        )


def share_out(sizes: Mapping[str, int], fraction: float) -> dict[str, int]:
    """Return how many images of each class a side gets: *fraction* of all, by largest remainders, at least one each."""
    shares = {label: max(1, int(fraction * size)) for label, size in sizes.items()}
    missing = round(fraction * sum(sizes.values())) - sum(shares.values())
    by_remainder = sorted(sizes, key=lambda label: (shares[label] - fraction * sizes[label], label))
    for label in by_remainder[: max(missing, 0)]:
        shares[label] += 1
    return shares


#: Images that stay together.
Unit = list[Image]


def make_units(pool: Sequence[Image], seed: int) -> dict[str, list[Unit]]:
    """Return for each class its units in the order in which they are drawn: a pure function of (seed, names).

    Groups whose images bear different labels are not there: they stay in train, where they do least harm.
    """
    groups: dict[str, Unit] = defaultdict(list)
    for image in pool:
        groups[image.group or f"path:{image.path}"].append(image)
    units: dict[str, list[Unit]] = defaultdict(list)
    contradictions = 0
    for unit in groups.values():
        labels = {image.label for image in unit}
        if len(labels) == 1:
            units[labels.pop()].append(unit)
        else:
            contradictions += len(unit)
    if contradictions:
        logger.warning("%d images have exact copies under another class: they all stay in train", contradictions)
    for label in units:
        units[label].sort(key=lambda unit: min(draw_key(image.path, seed) for image in unit))
    return units


def draw_key(path: str, seed: int) -> str:
    """Return an image's place in the draw (law 3): a hash of the seed, the purpose and the name."""
    return hashlib.sha256(f"{seed}\0split\0{unicodedata.normalize('NFC', path)}".encode()).hexdigest()


def check_enough(
    units: Mapping[str, Sequence[Unit]], given: Mapping[str, Sequence[Image]], classes: Sequence[str], needed: int
) -> None:
    """Refuse classes that cannot have an image on every side, by name."""
    sides = "train, val and test" if needed == 3 else "train and val" if needed == 2 else "train"
    few = [label for label in classes if len(units.get(label, ())) < needed]
    if few:
        counts = ", ".join(f"{label!r} has {len(units.get(label, ()))}" for label in few[:LISTED])
        more = f" and {len(few) - LISTED} more classes" if len(few) > LISTED else ""
        raise UserError(
            f"too few different images: {counts}{more}; at least {needed} are needed for {sides}"
            " (copies of one image count once, those that stand under two classes not at all):"
            " add images, or leave the class out by dataset.classes"
        )
    for side, images in given.items():
        present = {image.label for image in images}
        if images and (absent := [label for label in classes if label not in present]):
            raise UserError(
                f"the given {side} has no image of {listed(absent)} that is not a copy: at least 1 is needed"
            )


def carve(units: Sequence[Unit], wanted: Mapping[str, int]) -> dict[str, str]:
    """Return the side of each image that does not stay in train, by path.

    Takes units in their order, as many images as *wanted* says for each side, where units are not too large; leaves
    at least one unit to each of the other sides.
    """
    rest = list(units)
    chosen: dict[str, str] = {}
    for number, (side, target) in enumerate(wanted.items()):
        others = len(wanted) - number  # sides that come after this one, train among them
        taken: list[Unit] = []
        kept: list[Unit] = []
        count = 0
        for unit in rest:
            if count + len(unit) <= target and len(rest) - len(taken) > others:
                taken.append(unit)
                count += len(unit)
            else:
                kept.append(unit)
        if not taken:  # every unit is larger than the target
            smallest = min(range(len(kept)), key=lambda place: len(kept[place]))
            taken = [kept.pop(smallest)]
        rest = kept
        chosen |= {image.path: side for unit in taken for image in unit}
    return chosen


def write_split(sides: Mapping[str, Sequence[Image]], classes: Sequence[str], output: Path, class_list: Path) -> None:
    """Write classes.txt and an annotation file a side (``path LABEL`` lines, as mmcls reads them), together."""
    labels = {name: str(index) for index, name in enumerate(classes)}
    with atomic_path(class_list) as names, atomic_path(output) as folder:
        folder.mkdir()
        names.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
        for side in SIDES:
            ordered = sorted(sides[side], key=lambda image: (int(labels[image.label]), _name_key(image.path)))
            lines = "".join(f"{image.path} {labels[image.label]}\n" for image in ordered)
            (folder / f"{side}.txt").write_text(lines, encoding="utf-8")


def parse_classes(text: str | None) -> list[str] | None:
    """Return the names in *text*, a JSON list; None for none."""
    try:
        names = json.loads(text) if text else None
    except ValueError as error:
        raise UserError(f"--classes is no JSON: {error}") from error
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise UserError("--classes: expected a JSON list of names")
    return names or None


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of [train|val|test/]<class>/<file>")
    parser.add_argument("--val", type=float, default=0.1, help="fraction of all images for val (default: %(default)s)")
    parser.add_argument(
        "--test", type=float, default=0.2, help="fraction for test, if none is given (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="chooses the images (default: %(default)s)")
    parser.add_argument("--classes", metavar="JSON", help="list of class names: their order, and which are used")
    parser.add_argument("--output", type=Path, required=True, help="folder for train.txt, val.txt and test.txt")
    parser.add_argument("--class-list", type=Path, required=True, help="file for the class names, one a line")
    return parser


def main(args: argparse.Namespace) -> None:
    """Split one data set."""
    check_fractions(args.val, args.test)  # before a million files are read
    images = find_images(args.images)
    classes = choose_classes(images, parse_classes(args.classes))
    used = [image for image in images if image.label in set(classes)]
    if len(used) < len(images):
        logger.info("left out %d images of classes that dataset.classes does not name", len(images) - len(used))
    check_same_classes(used, classes)
    used = drop_leaks(settle_given_parts(group_copies(args.images, used)))
    sides = split(used, classes, args.val, args.test, args.seed)
    write_split(sides, classes, args.output, args.class_list)
    counts = ", ".join(f"{side} {len(sides[side])}" for side in SIDES)
    logger.info("%d classes: %s images", len(classes), counts)


if __name__ == "__main__":
    run_cli(build_parser, main)
