"""Share images out among train, val and test, or among folds: which are used, which stay together, which go where."""

from __future__ import annotations

import difflib
import logging
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.lib.base.files import atomic_path
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.data import grouped_split
from scripts.lib.data.findings import DROPPED, LEFT_OUT, SET_ASIDE, read_findings
from scripts.lib.data.grouped_split import Unit, carve, count_images, make_units, share_out
from scripts.lib.data.image_paths import group_of, group_pattern
from scripts.lib.data.splits import FEWEST_FOLDS, MOST_FOLDS, SPLITS, Image, Split

logger = logging.getLogger(__name__)

#: How many names a message lists.
LISTED = 5
#: With fewer groups (patients, videos) in test, its accuracy is about these few.
FEW_GROUPS = 4

#: Paths of images that stay in one split, with the name of the group that they are known by, or "".
Sets = Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class Audit:
    """What audit_images found.

    ``kept_out``: the images that are in no split, each with the finding that is the reason, except those that
    dataset.corrections drops: they take part in the draw, so that dropping one moves no other; ``copies``: the images
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
        if row.finding == DROPPED:
            continue
        if row.action in (SET_ASIDE, LEFT_OUT):
            audit.kept_out.setdefault(row.file, row.finding)
        elif row.group:
            audit.copies.setdefault(row.group, []).append(row.file)
    return audit


def without_kept_out(images: Sequence[Image], audit: Audit) -> list[Image]:
    """Return the images that the audit lets pass, and say how many it does not, and why.

    Raises
    ------
    UserError : nothing is left of a given split: it must not be replaced in silence by one carved from train.
    """
    reasons = Counter(audit.kept_out[image.path] for image in images if image.path in audit.kept_out)
    if reasons:
        counts = ", ".join(f"{count} {finding}" for finding, count in sorted(reasons.items()))
        logger.warning("the audit keeps %s out of the split: %s", plural(reasons.total(), "image"), counts)
    passed = [image for image in images if image.path not in audit.kept_out]
    lost = {image.split for image in images} - {image.split for image in passed}
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
    logger.info("dataset.split.group_by: %s", plural(len(groups), "group"))
    return dict(groups)


def tell_groups(splits: Mapping[str, Split], groups: Mapping[str, Sequence[str]], fold: str) -> None:
    """Say how many known groups each split has, and warn where test has so few that its accuracy is about those."""
    group = {path: name for name, paths in groups.items() for path in paths}
    counts = {name: len({group[path] for path in splits[name].images if path in group}) for name in SPLITS}
    text = ", ".join(f"{name} {count}" for name, count in counts.items())
    logger.info("%sgroups: %s", f"{fold}: " if fold else "", text)
    if 0 < counts["test"] < FEW_GROUPS:
        logger.warning(
            "%stest has only %d of the groups: its accuracy says little of other ones, and its intervals take each"
            " image for independent; use more groups, a larger dataset.split.test, or dataset.split.folds",
            f"{fold}: " if fold else "", counts["test"],
        )  # fmt: skip


def warn_of_shared_groups(images: Iterable[Image], groups: Mapping[str, Sequence[str]]) -> None:
    """Say how many images of the given val and test are of a group that a lower given split has as well."""
    rank = {image.path: SPLITS.index(image.split or "train") for image in images}
    shared = [[rank[path] for path in paths] for paths in groups.values()]
    shared = [ranks for ranks in shared if min(ranks) < max(ranks)]
    if shared:
        contaminated = sum(1 for ranks in shared for rank_of_image in ranks if rank_of_image > min(ranks))
        logger.warning(
            "dataset.split.group_by: %d groups have images in several of the given splits, %d images of val or test"
            " are of a group in a lower one: nothing is moved, and results on them look better than they are",
            len(shared),
            contaminated,
        )


def choose_classes(images: Sequence[Image], wanted: Sequence[str] | None) -> list[str]:
    """Return the class names in the order of their labels: *wanted*, or all, sorted by code point.

    Raises
    ------
    UserError : an unknown or repeated name in *wanted*; one class only.
    """
    present = sorted({image.label for image in images})
    if wanted is None:
        classes = present
    else:
        composed = {unicodedata.normalize("NFC", name): name for name in present}
        classes = []
        for name in wanted:
            match = name if name in present else composed.get(unicodedata.normalize("NFC", name))
            if match is None:
                close = difflib.get_close_matches(name, present, n=3) or present
                raise UserError(f"dataset.classes: no folder for class {name!r}; there are {listed(close)}")
            if match in classes:
                raise UserError(f"dataset.classes: {name!r} stands there twice")
            classes.append(match)
    if len(classes) < 2:
        only = f"only {classes[0]!r}" if classes else "none"
        raise UserError(
            f"one class is not enough: at least 2 are needed, {only} was found",
            "a class is a folder, or a label of the table",
        )
    return classes


def check_same_classes(images: Iterable[Image], classes: Sequence[str]) -> None:
    """Refuse splits of the archive whose class folders differ, naming the differences."""
    by_split: dict[str, set[str]] = defaultdict(set)
    for image in images:
        by_split[image.split].add(image.label)
    missing = {split: [name for name in classes if name not in labels] for split, labels in by_split.items()}
    differences = [f"{split} lacks {listed(names)}" for split, names in sorted(missing.items()) if names]
    if differences:
        raise UserError(
            f"the class folders of the given splits differ: {'; '.join(differences)}:"
            " give every split the same class folders, or name those to use in dataset.classes"
        )


def listed(names: Sequence[str]) -> str:
    """Return names for a message, the first few of them."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(repr(name) for name in names[:LISTED]) + more


def split_images(
    images: Sequence[Image], classes: Sequence[str], val: float, test: float, seed: int, sets: Sets = ()
) -> dict[str, Split]:
    """Return train, val and test, all of which have images of every class.

    Parameters
    ----------
    images : all images; what their ``split`` says is kept, val and test are carved from the rest where absent.
    classes : the class names; images of other classes are left out.
    val, test : fractions of all images.
    seed : chooses the images.
    sets : images that stay in one split, where they are not of a given one.

    Raises
    ------
    UserError : a fraction is impossible; a class has too few images, or too few groups of images.
    """
    check_fractions(val, test)
    images = of_classes(images, classes)
    given_splits = {name: [image for image in images if image.split == name] for name in ("val", "test")}
    pool = [image for image in images if image.split in ("", "train")]
    sizes = Counter(image.label for image in images)
    targets = {
        name: share_out(sizes, share) for name, share in (("test", test), ("val", val)) if not given_splits[name]
    }
    names = "train, val and test" if len(targets) == 2 else f"train and {next(iter(targets))}" if targets else "train"
    units = make_units(((image.path, image.label) for image in pool), sets)
    check_enough(units, classes, len(targets) + 1, names)
    check_given(given_splits, classes)
    carved, failed = carve(units, targets, seed, "split")
    check_covered(failed, names)
    warn_of_shares(carved, targets)
    return {name: Split.of(name, members, classes) for name, members in (given_splits | _members(pool, carved)).items()}


def split_folds(
    images: Sequence[Image], classes: Sequence[str], val: float, folds: int, seed: int, sets: Sets = ()
) -> dict[str, dict[str, Split]]:
    """Return the splits of fold0, fold1, ...: each image is in test in exactly one of them.

    Parameters are those of :func:`split_images`. The val of a fold is carved from the images that are not in its
    test, by a draw of its own.

    Raises
    ------
    UserError : as :func:`split_images`; the number of folds is impossible; val or test is given.
    """
    check_folds(images, val, folds)
    images = of_classes(images, classes)
    units = make_units(((image.path, image.label) for image in images), sets)
    check_enough(units, classes, folds * grouped_split.units_a_fold(folds), f"{folds} folds")
    dealt, failed = grouped_split.deal(units, folds, seed)
    check_covered(failed, f"each of {folds} folds")
    targets = {"val": share_out(count_images(units), val)}
    result = {}
    for fold, members in dealt.items():
        rest = [unit for other, others in dealt.items() if other != fold for unit in others]
        carved, failed = carve(rest, targets, seed, fold)
        check_covered(failed, f"train and val of {fold}")
        warn_of_shares(carved, targets)
        carved["test"] = members
        result[fold] = {name: Split.of(name, kept, classes) for name, kept in _members(images, carved).items()}
    return result


def _members(images: Iterable[Image], carved: Mapping[str, Sequence[Unit]]) -> dict[str, list[Image]]:
    """Return the images of each split's units."""
    image_of = {image.path: image for image in images}
    return {name: [image_of[path] for unit in units for path in unit.paths] for name, units in carved.items()}


def of_classes(images: Iterable[Image], classes: Iterable[str]) -> list[Image]:
    """Return the images of these classes."""
    known = set(classes)
    return [image for image in images if image.label in known]


def check_fractions(val: float, test: float) -> None:
    """Refuse fractions that leave nothing to a split."""
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
    given_splits = sorted({image.split for image in images} & {"val", "test"})
    if given_splits:
        raise UserError(
            f"dataset.split.folds: the images have a given {' and '.join(given_splits)}, which folds would mix with"
            " train: leave folds out, or give the images without such folders"
        )


def check_enough(units: Sequence[Unit], classes: Sequence[str], needed: int, names: str) -> None:
    """Refuse classes that cannot have an image in every split, by name."""
    different, images = grouped_split.count_units(units), count_images(units)
    few = [label for label in classes if different[label] < needed]
    if few:
        counts = ", ".join(
            f"{label!r} has {different[label]}"
            + (f" ({plural(images[label], 'image')})" if images[label] > different[label] else "")
            for label in few[:LISTED]
        )
        more = f" and {plural(len(few) - LISTED, 'more class')}" if len(few) > LISTED else ""
        raise UserError(
            f"too few different images: {counts}{more}; at least {needed} are needed for {names}"
            " (copies of one image count once, and so does a group of dataset.split.group_by):"
            " add images, or leave the class out by dataset.classes"
        )


def check_given(given_splits: Mapping[str, Sequence[Image]], classes: Sequence[str]) -> None:
    """Refuse a given split without an image of some class."""
    for name, images in given_splits.items():
        present = {image.label for image in images}
        if images and (absent := [label for label in classes if label not in present]):
            raise UserError(
                f"the given {name} has no image of {listed(absent)} that the audit lets pass: at least 1 is needed"
            )


def check_covered(failed: Sequence[str], names: str) -> None:
    """Refuse groups that several classes share so that no division was found."""
    if failed:
        raise UserError(
            f"found no way to have images of {listed(failed)} in {names}: they are in few groups (copies,"
            " dataset.split.group_by), which hold other classes as well: add images, make the groups smaller, or leave"
            " classes out by dataset.classes"
        )


def warn_of_shares(splits: Mapping[str, Sequence[Unit]], targets: Mapping[str, Mapping[str, int]]) -> None:
    """Say where groups are so large that a split has far more or fewer images of a class than its fraction."""
    for name, target in targets.items():
        have = count_images(splits[name])
        far = [label for label, wanted in target.items() if abs(have[label] - wanted) > max(1, wanted / 2)]
        if far:
            first = ", ".join(f"{have[label]} of {label!r} instead of {target[label]}" for label in far[:LISTED])
            more = f" and {plural(len(far) - LISTED, 'more class')}" if len(far) > LISTED else ""
            logger.warning("groups of images are large: %s has %s%s", name, first, more)


def write_splits(
    splits: Mapping[str, Mapping[str, Split]], classes: Sequence[str], output: Path, class_list: Path
) -> None:
    """Write classes.txt and the annotation files, together.

    *splits* are those by the name of their folder below *output*: fold0, fold1, ...; "" for *output* itself.
    """
    with atomic_path(class_list) as names, atomic_path(output) as folder:
        names.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
        for below, by_name in splits.items():
            (folder / below).mkdir(parents=True)
            for split in by_name.values():
                split.write(folder / below)
