"""Turn predictions.csv into metrics.json and per_class.csv: what the model is worth, and with what confidence."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from scripts.lib.base.console import run_cli
from scripts.lib.base.files import atomic_path, write_json
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.data.splits import Split
from scripts.lib.metrics import unsure
from scripts.lib.metrics.metrics import compute_metrics, per_class_table
from scripts.lib.runs.certainty import distances, read_certainty, read_known
from scripts.lib.runs.predictions import read_features, read_predictions

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.evaluate.evaluate_model", description=__doc__)
    parser.add_argument("--predictions", type=Path, required=True, metavar="FILE", help="predictions.csv of a run")
    parser.add_argument("--train", type=Path, metavar="FILE", help="`path label` lines, for n_train in per_class.csv")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="written into metrics.json")
    parser.add_argument("--experiment", required=True, metavar="NAME", help="written into metrics.json")
    parser.add_argument("--seed", type=int, required=True, metavar="K", help="the run's seed; draws the bootstrap too")
    parser.add_argument("--fold", type=int, metavar="J", help="the run's fold, with cross-validation")
    parser.add_argument("--certainty", type=Path, metavar="FILE", help="certainty.json of the run, for `unsure`")
    parser.add_argument("--known", type=Path, metavar="FILE", help="known.npy of the run, for the same")
    parser.add_argument("--features", type=Path, metavar="FILE", help="features.npy, made with the predictions")
    parser.add_argument("--metrics", type=Path, required=True, metavar="FILE", help="metrics.json")
    parser.add_argument("--per-class", type=Path, required=True, metavar="FILE", help="per_class.csv")
    return parser


def images_of_classes(split: Path, classes: int) -> list[int]:
    """Return how many images of each class an annotation file names.

    Raises
    ------
    UserError : it is missing, or not one of so many classes.
    """
    counts = Split.read(split).counts()
    if wrong := counts.keys() - set(range(classes)):
        raise UserError(f"{split}: label {min(wrong)} is none of the {classes} classes of the predictions")
    return [counts[label] for label in range(classes)]


def main(args: argparse.Namespace) -> None:
    if len({option is None for option in (args.certainty, args.known, args.features)}) > 1:
        raise UserError("--certainty, --known and --features belong together: give all three, or none")
    predictions = read_predictions(args.predictions)
    metrics = compute_metrics(predictions, args.seed)
    table = per_class_table(predictions, args.train and images_of_classes(args.train, len(predictions.classes)))
    without = table.loc[table["n"] == 0, "class"].tolist()
    if without:
        logger.warning("no test image of %s: left out of the macro averages", ", ".join(without))
    names = {"dataset": args.dataset, "experiment": args.experiment, "seed": args.seed}
    names |= {"fold": args.fold} if args.fold is not None else {}
    with atomic_path(args.per_class) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    if args.certainty:
        features = read_features(args.features, len(predictions.files))
        far = distances(features, read_known(args.known))
        metrics["unsure"] = unsure.report(read_certainty(args.certainty), predictions, far)
    write_json(args.metrics, {**names, "n_test": len(predictions.labels), **metrics})
    low, high = metrics["accuracy_top1_ci95"]
    logger.info(
        "top-1 accuracy %.1f %% (95 %% interval %.1f-%.1f) on %s (always the most frequent class: %.1f %%),"
        " macro F1 %.3f, ECE %.3f",
        100 * metrics["accuracy_top1"], 100 * low, 100 * high, plural(len(predictions.labels), "test image"),
        100 * metrics["accuracy_majority"], metrics["f1_macro"], metrics["ece"],
    )  # fmt: skip


if __name__ == "__main__":
    run_cli(build_parser, main)
