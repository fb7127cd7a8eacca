"""Split the images into train, val and test, or into folds: stratified, seeded, no group of images on two sides."""

from __future__ import annotations

import argparse
import difflib
import json
import logging
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.lib.base.console import run_cli
from scripts.lib.base.files import atomic_path
from scripts.lib.base.problems import UserError
from scripts.lib.data.findings import LEFT_OUT, SET_ASIDE, read_findings
from scripts.lib.data.grouped_split import (
    Unit,
    carve,
    count_images,
    count_units,
    deal,
    make_units,
    name_key,
    share_out,
    units_a_fold,
)
from scripts.lib.data.image_paths import group_of, group_pattern
from scripts.lib.data.splits import FEWEST_FOLDS, MOST_FOLDS, SIDES, Image, find_images, settle_given_parts

logger = logging.getLogger(__name__)

#: How many names a message lists.
LISTED = 5
#: With fewer groups (patients, videos) in test, its accuracy is about these few.
FEW_GROUPS = 4

#: Images whose paths stay on one side, with the name of the group that they are known by, or "".
Sets = Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class Audit:
    """What audit_images found.

    ``kept_out``: the images that are in no split, each with the finding that is the reason; ``copies``: the images
    of each group of copies, exact or near.
    """

    kept_out: dict[str, str] = field(default_factory=dict)
    copies: dict[str, list[str]] = field(default_factory=dict)


def read_audit(path: Path, images: Iterable[Image]) -> Audit:
    """Return what audit_images wrote about *images*.

    Raises
    ------
    UserError : it cannot be read, is no audit, or names files that are not among the images.
    """
    known = {image.path for image in images}
    audit = Audit()
    for line, row in enumerate(read_findings(path), start=2):  # below the header
        if row.file not in known:
            raise UserError(f"{path}, line {line}: {row.file!r} is not there: make the audit again")
        if row.action in (SET_ASIDE, LEFT_OUT):
            audit.kept_out.setdefault(row.file, row.finding)
        elif row.group:
            audit.copies.setdefault(row.group, []).append(row.file)
    return audit


def without_kept_out(images: Sequence[Image], audit: Audit) -> list[Image]:
    """Return the images that the audit lets pass, and say how many it does not, and why.

    Raises
    ------
    UserError : nothing is left of a given part: it must not be replaced in silence by one carved from train.
    """
    reasons = Counter(audit.kept_out[image.path] for image in images if image.path in audit.kept_out)
    if reasons:
        found = ", ".join(f"{count} {finding}" for finding, count in sorted(reasons.items()))
        logger.warning("the audit keeps %d images out of the split: %s", reasons.total(), found)
    passed = [image for image in images if image.path not in audit.kept_out]
    lost = {image.part for image in images} - {image.part for image in passed}
    if lost:
        whole = f"the given {min(lost)}" if min(lost) else "the data set"
        raise UserError(f"the audit keeps out every image of {whole}: its audit.csv says why, image by image")
    return passed


def known_groups(images: Sequence[Image], pattern: str) -> dict[str, list[str]]:
    """Return the images of each group that *pattern* finds in the paths, and say how many are in none.

    Raises
    ------
    UserError : the pattern is wrong, or matches no image.
    """
    try:
        compiled = group_pattern(pattern)
    except ValueError as error:
        raise UserError(f"dataset.split.group_by: {error}") from error
    groups: dict[str, list[str]] = defaultdict(list)
    for image in images:
        groups[group_of(image.path, compiled)].append(image.path)
    alone = groups.pop("", [])
    if not groups:
        raise UserError(f"dataset.split.group_by: {pattern!r} matches no image; they are called {listed(alone)}")
    if alone:
        logger.warning(
            "dataset.split.group_by: %d of %d images do not match, for example %r: each is a group of its own",
            len(alone),
            len(images),
            alone[0],
        )
    logger.info("dataset.split.group_by: %d groups", len(groups))
    return dict(groups)


def tell_groups(sides: Mapping[str, Sequence[Image]], groups: Mapping[str, Sequence[str]], fold: str) -> None:
    """Say how many known groups each side has, and warn where test has so few that its accuracy is about those."""
    group = {path: name for name, paths in groups.items() for path in paths}
    counts = {side: len({group[image.path] for image in sides[side] if image.path in group}) for side in SIDES}
    text = ", ".join(f"{side} {count}" for side, count in counts.items())
    logger.info("%sgroups: %s", f"{fold}: " if fold else "", text)
    if 0 < counts["test"] < FEW_GROUPS:
        logger.warning(
            "%stest has only %d of the groups: its accuracy says little of other ones, and its intervals take each"
            " image for independent; use more groups, a larger dataset.split.test, or dataset.split.folds",
            f"{fold}: " if fold else "", counts["test"],
        )  # fmt: skip


def warn_of_shared_groups(images: Iterable[Image], groups: Mapping[str, Sequence[str]]) -> None:
    """Say how many images of the given val and test are of a group that a lower given part has as well."""
    rank = {image.path: SIDES.index(image.part or "train") for image in images}
    shared = [[rank[path] for path in paths] for paths in groups.values()]
    shared = [ranks for ranks in shared if min(ranks) < max(ranks)]
    if shared:
        leaked = sum(1 for ranks in shared for one in ranks if one > min(ranks))
        logger.warning(
            "dataset.split.group_by: %d groups have images in several of the given parts, %d images of val or test"
            " are of a group in a lower one: nothing is moved, and results on them look better than they are",
            len(shared),
            leaked,
        )


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


def split(
    images: Sequence[Image], classes: Sequence[str], val: float, test: float, seed: int, sets: Sets = ()
) -> dict[str, list[Image]]:
    """Return the images of each side, all of which have images of every class.

    Parameters
    ----------
    images : all images; what their ``part`` says is kept, val and test are carved from the rest where absent.
    classes : the class names; images of other classes are left out.
    val, test : fractions of all images.
    seed : chooses the images.
    sets : images that stay on one side, where they are not of a given part.

    Raises
    ------
    UserError : a fraction is impossible; a class has too few images, or too few groups of images.
    """
    check_fractions(val, test)
    images = _of_classes(images, classes)
    given = {side: [image for image in images if image.part == side] for side in ("val", "test")}
    pool = [image for image in images if image.part in ("", "train")]
    sizes = Counter(image.label for image in images)
    targets = {side: share_out(sizes, share) for side, share in (("test", test), ("val", val)) if not given[side]}
    sides = "train, val and test" if len(targets) == 2 else f"train and {next(iter(targets))}" if targets else "train"
    units = make_units(((image.path, image.label) for image in pool), sets)
    check_enough(units, classes, len(targets) + 1, sides)
    check_given(given, classes)
    carved, failed = carve(units, targets, seed, "split")
    check_covered(failed, sides)
    warn_of_shares(carved, targets)
    image_of = {image.path: image for image in pool}
    return given | {
        side: [image_of[path] for unit in members for path in unit.paths] for side, members in carved.items()
    }


def split_folds(
    images: Sequence[Image], classes: Sequence[str], val: float, folds: int, seed: int, sets: Sets = ()
) -> dict[str, dict[str, list[Image]]]:
    """Return the sides of fold0, fold1, ...: each image is in test in exactly one of them.

    Parameters are those of :func:`split`. The val of a fold is carved from the images that are not in its test, by a
    draw of its own.

    Raises
    ------
    UserError : as :func:`split`; the number of folds is impossible; val or test is given.
    """
    check_folds(images, val, folds)
    images = _of_classes(images, classes)
    units = make_units(((image.path, image.label) for image in images), sets)
    check_enough(units, classes, folds * units_a_fold(folds), f"{folds} folds")
    dealt, failed = deal(units, folds, seed)
    check_covered(failed, f"each of {folds} folds")
    targets = {"val": share_out(count_images(units), val)}
    image_of = {image.path: image for image in images}
    result = {}
    for fold, members in dealt.items():
        rest = [unit for other, others in dealt.items() if other != fold for unit in others]
        carved, failed = carve(rest, targets, seed, fold)
        check_covered(failed, f"train and val of {fold}")
        warn_of_shares(carved, targets)
        carved["test"] = members
        result[fold] = {side: [image_of[path] for unit in own for path in unit.paths] for side, own in carved.items()}
    return result


def _of_classes(images: Iterable[Image], classes: Iterable[str]) -> list[Image]:
    known = set(classes)
    return [image for image in images if image.label in known]


def check_fractions(val: float, test: float) -> None:
    """Refuse fractions that leave nothing to a side."""
    for name, value in (("val", val), ("test", test)):
        if not 0 < value < 1:
            raise UserError(f"dataset.split.{name}: {value:g} is no fraction between 0 and 1")
    if val + test >= 1:
        raise UserError(
            f"dataset.split: val {val:g} and test {test:g} leave nothing to train: their sum must be below 1"
        )


def check_folds(images: Iterable[Image], val: float, folds: int) -> None:
    """Refuse a number of folds that cannot be, and folds of images that have a test of their own."""
    if not FEWEST_FOLDS <= folds <= MOST_FOLDS:
        raise UserError(f"dataset.split.folds: {folds} is no number of folds from {FEWEST_FOLDS} to {MOST_FOLDS}")
    if not 0 < val < 1 - 1 / folds:
        raise UserError(
            f"dataset.split: val {val:g} and one of {folds} folds as test leave nothing to train:"
            f" val must be above 0 and below {1 - 1 / folds:g}"
        )
    given = sorted({image.part for image in images} & {"val", "test"})
    if given:
        raise UserError(
            f"dataset.split.folds: the images have a given {' and '.join(given)}, which folds would mix with train:"
            " leave folds out, or give the images without such folders"
        )


def check_enough(units: Sequence[Unit], classes: Sequence[str], needed: int, sides: str) -> None:
    """Refuse classes that cannot have an image on every side, by name."""
    different, images = count_units(units), count_images(units)
    few = [label for label in classes if different[label] < needed]
    if few:
        counts = ", ".join(
            f"{label!r} has {different[label]}"
            + (f" ({images[label]} images)" if images[label] > different[label] else "")
            for label in few[:LISTED]
        )
        more = f" and {len(few) - LISTED} more classes" if len(few) > LISTED else ""
        raise UserError(
            f"too few different images: {counts}{more}; at least {needed} are needed for {sides}"
            " (copies of one image count once, and so does a group of dataset.split.group_by):"
            " add images, or leave the class out by dataset.classes"
        )


def check_given(given: Mapping[str, Sequence[Image]], classes: Sequence[str]) -> None:
    """Refuse a given part without an image of some class."""
    for side, images in given.items():
        present = {image.label for image in images}
        if images and (absent := [label for label in classes if label not in present]):
            raise UserError(
                f"the given {side} has no image of {listed(absent)} that the audit lets pass: at least 1 is needed"
            )


def check_covered(failed: Sequence[str], sides: str) -> None:
    """Refuse groups that several classes share so that no division was found."""
    if failed:
        raise UserError(
            f"found no way to have images of {listed(failed)} in {sides}: they are in few groups (copies,"
            " dataset.split.group_by), which hold other classes as well: add images, make the groups smaller, or leave"
            " classes out by dataset.classes"
        )


def warn_of_shares(sides: Mapping[str, Sequence[Unit]], targets: Mapping[str, Mapping[str, int]]) -> None:
    """Say where groups are so large that a side has far more or fewer images of a class than its fraction."""
    for side, target in targets.items():
        have = count_images(sides[side])
        far = [label for label, wanted in target.items() if abs(have[label] - wanted) > max(1, wanted / 2)]
        if far:
            some = ", ".join(f"{have[label]} of {label!r} instead of {target[label]}" for label in far[:LISTED])
            more = f" and {len(far) - LISTED} more classes" if len(far) > LISTED else ""
            logger.warning("groups of images are large: %s has %s%s", side, some, more)


def write_splits(
    splits: Mapping[str, Mapping[str, Sequence[Image]]], classes: Sequence[str], output: Path, class_list: Path
) -> None:
    """Write classes.txt and an annotation file a side (``path LABEL`` lines, as mmcls reads them), together.

    *splits* are the sides by the name of their folder below *output*: fold0, fold1, ...; "" for *output* itself.
    """
    labels = {name: index for index, name in enumerate(classes)}
    with atomic_path(class_list) as names, atomic_path(output) as folder:
        names.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
        for below, sides in splits.items():
            (folder / below).mkdir(parents=True)
            for side in SIDES:
                ordered = sorted(sides[side], key=lambda image: (labels[image.label], name_key(image.path)))
                lines = "".join(f"{image.path} {labels[image.label]}\n" for image in ordered)
                (folder / below / f"{side}.txt").write_text(lines, encoding="utf-8")


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
    parser.add_argument(
        "--audit",
        type=Path,
        metavar="CSV",
        help="what audit_images found: images to leave out, and copies; without it, no copies are looked for",
    )
    parser.add_argument("--val", type=float, default=0.1, help="fraction of all images for val (default: %(default)s)")
    parser.add_argument(
        "--test",
        type=float,
        default=0.2,
        help="fraction for test, if none is given and there are no folds (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="chooses the images (default: %(default)s)")
    parser.add_argument(
        "--group-by",
        metavar="PATTERN",
        help="regular expression searched in the path; images for which its capture group, or else its whole match,"
        " is the same stay on one side",
    )
    parser.add_argument(
        "--folds",
        type=int,
        metavar="K",
        help=f"write K splits, in OUTPUT/fold0 and so on; each image is in test in one ({FEWEST_FOLDS}-{MOST_FOLDS})",
    )
    parser.add_argument("--classes", metavar="JSON", help="list of class names: their order, and which are used")
    parser.add_argument("--output", type=Path, required=True, help="folder for train.txt, val.txt and test.txt")
    parser.add_argument("--class-list", type=Path, required=True, help="file for the class names, one a line")
    return parser


def main(args: argparse.Namespace) -> None:
    """Split one data set."""
    if args.folds is None:
        check_fractions(args.val, args.test)  # before a million files are found
    else:
        check_folds([], args.val, args.folds)
    found = find_images(args.images)
    classes = choose_classes(found, parse_classes(args.classes))
    used = _of_classes(found, classes)
    if len(used) < len(found):
        logger.info("left out %d images of classes that dataset.classes does not name", len(found) - len(used))
    check_same_classes(used, classes)
    audit = read_audit(args.audit, found) if args.audit else Audit()
    if args.folds is not None:
        check_folds(used, args.val, args.folds)
    used = without_kept_out(settle_given_parts(used), audit)
    groups = known_groups(used, args.group_by) if args.group_by is not None else {}
    warn_of_shared_groups(used, groups)
    sets = [*groups.items(), *(("", paths) for paths in audit.copies.values())]
    if args.folds is None:
        splits = {"": split(used, classes, args.val, args.test, args.seed, sets)}
    else:
        splits = split_folds(used, classes, args.val, args.folds, args.seed, sets)
    write_splits(splits, classes, args.output, args.class_list)
    for fold, sides in splits.items():
        counts = ", ".join(f"{side} {len(sides[side])}" for side in SIDES)
        logger.info("%s%d classes: %s images", f"{fold}: " if fold else "", len(classes), counts)
        if groups:
            tell_groups(sides, groups, fold)


if __name__ == "__main__":
    run_cli(build_parser, main)
