"""Split the images into train, val and test, or into folds: stratified, seeded, no group of images in two of them."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from scripts.lib.base import long_values
from scripts.lib.base.console import run_cli
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.data import splitting
from scripts.lib.data.corrections import in_their_class, read_corrections, relabelled
from scripts.lib.data.splits import FEWEST_FOLDS, MOST_FOLDS, SPLITS, find_images, settle_given_splits

logger = logging.getLogger(__name__)


def parse_classes(text: str | None) -> list[str] | None:
    """Return the names in *text*, a JSON list; None for none."""
    try:
        names = json.loads(long_values.take(text)) if text else None
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
    parser.add_argument("--corrected", type=Path, metavar="CSV", help="what audit_images made of corrections of labels")
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
        " is the same stay in one split",
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
        splitting.check_fractions(args.val, args.test)  # before a million files are found
    else:
        splitting.check_folds([], args.val, args.folds)
    images = find_images(args.images)
    classes = splitting.choose_classes(images, parse_classes(args.classes))
    decided = read_corrections(args.corrected) if args.corrected else []
    images = in_their_class(images, decided, classes)
    used = splitting.of_classes(images, classes)
    if len(used) < len(images):
        logger.info(
            "left out %s of classes that dataset.classes does not name", plural(len(images) - len(used), "image")
        )
    splitting.check_same_classes(used, classes)
    audit = splitting.read_audit(args.audit, images) if args.audit else splitting.Audit()
    if args.folds is not None:
        splitting.check_folds(used, args.val, args.folds)
    used = splitting.without_kept_out(settle_given_splits(used), audit)
    groups = splitting.known_groups(used, args.group_by) if args.group_by is not None else {}
    splitting.warn_of_shared_groups(used, groups)
    sets = [*groups.items(), *(("", paths) for paths in audit.copies.values())]
    if args.folds is None:
        splits = {"": splitting.split_images(used, classes, args.val, args.test, args.seed, sets)}
    else:
        splits = splitting.split_folds(used, classes, args.val, args.folds, args.seed, sets)
    if decided:
        splits = {fold: {name: relabelled(split, decided, classes) for name, split in by_name.items()}
                  for fold, by_name in splits.items()}  # fmt: skip
    splitting.write_splits(splits, classes, args.output, args.class_list)
    for fold, by_name in splits.items():
        counts = ", ".join(f"{name} {len(by_name[name].images)}" for name in SPLITS)
        logger.info("%s%d classes: %s images", f"{fold}: " if fold else "", len(classes), counts)
        if groups:
            splitting.tell_groups(by_name, groups, fold)


if __name__ == "__main__":
    run_cli(build_parser, main)
