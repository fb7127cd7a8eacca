"""Predict new images with a finished run or its model.onnx: one table, and each image with its top-5 drawn on it."""

from __future__ import annotations

import argparse
import csv
import logging
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from scripts.lib.base import language
from scripts.lib.base.console import run_cli, say
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.model.photos import Others, check_run, find_images, open_onnx, open_run, printable
from scripts.lib.pages.photo_predictions import (
    DRAWN,
    PAGE,
    TABLE,
    Counts,
    refuse_overwriting,
    write_predictions,
)
from scripts.lib.pages.predictions_page import unreachable
from scripts.lib.runs.certainty import MIN_ACCURACY, Certainty
from scripts.lib.runs.run_folder import RunFolder, run_name

logger = logging.getLogger(__name__)
#: Predictions that are printed; all are in the table.
SHOWN = 10


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.predict", description=__doc__)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--run", type=Path, metavar="DIR", help="a finished run, results/.../seed0")
    model.add_argument(
        "--onnx", type=Path, metavar="FILE", help="or a model.onnx that mimflow wrote: torch is not needed"
    )
    parser.add_argument("--images", nargs="+", required=True, metavar="PATH", help="folders, files or 'patterns*.jpg'")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write (predictions/<the run's name>)")
    parser.add_argument("--no-draw", action="store_true", help="write the table only")
    parser.add_argument("--top", type=int, default=5, metavar="K", help="classes an image in table and drawing (5)")
    parser.add_argument(
        "--min-accuracy", type=share, default=MIN_ACCURACY, metavar="SHARE",
        help=f"mark predictions as unsure below the confidence that keeps this accuracy on val ({MIN_ACCURACY})",
    )  # fmt: skip
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where a run runs (auto)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="images at a time (16)")
    parser.add_argument("--trust", action="store_true", help="accept a run whose config names code of its own")
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="processes, or threads, that read images (2)"
    )
    language.add_option(parser, None)
    return parser


def share(text: str) -> float:
    """Return an accuracy as a number between 0 and 1."""
    try:
        if 0 < (value := float(text)) < 1:
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be a number between 0 and 1, such as {MIN_ACCURACY}, not {text!r}")


@language.in_its_language
def main(args: argparse.Namespace) -> None:
    """Check what was asked for, predict, and say where it is."""
    if args.onnx and args.device == "cuda":
        raise UserError("--device cuda: a model.onnx runs on the CPU here; leave --device out, or use --run")
    if args.onnx and not args.onnx.is_file():
        raise UserError(f"--onnx: {args.onnx}: no such file; give the model.onnx of a finished run")
    if args.run:
        check_run(args.run)
    output = args.output or default_output(args.run or args.onnx)
    others = Others()
    photos = find_images(args.images, output / DRAWN, others)
    targets = [] if args.no_draw else [output / DRAWN / photo.name for photo in photos]
    refuse_overwriting(photos, [*targets, output / TABLE])
    if args.onnx:
        model = open_onnx(args.onnx, photos, args.batch_size, args.workers)
    else:
        model = open_run(args.run, photos, args.device, args.batch_size, args.workers, trust=args.trust)
    for path, why in others.unread.items():
        logger.warning("skipped %s: %s", printable(path), why)
    counts = write_predictions(model, photos, output, args.top, not args.no_draw, args.min_accuracy)
    show(output / TABLE, counts.done)
    say_how_sure(model.certainty, counts, args.min_accuracy)
    if counts.replaced:
        remedy = "to keep both, give one another folder: ARGS='--output FOLDER'"
        logger.warning("%s: replaced those of %s; %s", output, plural(counts.replaced, "image"), remedy)
    if counts.removed:
        logger.info("removed %s of an earlier run from %s", plural(counts.removed, "drawing"), output / DRAWN)
    where = output / TABLE if args.no_draw else f"{output / TABLE} and {output / PAGE}"
    reasons = Counter(others.unread.values()) + Counter({"that cannot be decoded": counts.skipped})
    skipped = f"{reasons.total()} skipped" + "".join(f"; {number} {why}" for why, number in reasons.most_common())
    done, ignored = plural(counts.done, "image"), plural(others.ignored, "other file")
    logger.info("%s predicted, %s; %s ignored: %s", done, skipped, ignored, where)


def show(table: Path, images: int) -> None:
    """Print the first predictions of a table of so many images, a line each."""
    with open(table, encoding="utf-8", newline="") as file:
        for row in islice(csv.DictReader(file), SHOWN):
            print(shown(row), flush=True)
    if images > SHOWN:
        say(f"and {images - SHOWN} more")


def shown(row: Mapping[str, str]) -> str:
    """Return the line of a prediction in the language that is spoken; names stay as they are, whatever they hold."""
    name, confidence = printable(row["prediction"]), f"{100 * float(row['confidence']):.1f} %"
    if language.language() == "zh":
        answer = f"{name}（{confidence}）"
        reason = f"，{language.tr('unsure:')}{language.tr_line(row['reason'])}"
    else:
        answer, reason = f"{name} ({confidence})", f", unsure: {row['reason']}"
    return language.titled(printable(row["file"]), answer + (reason if row["reason"] else ""))


def say_how_sure(certainty: Certainty | None, counts: Counts, accuracy: float) -> None:
    """Say how many predictions are unsure, and why; or that nothing is known of it."""
    if certainty is None:
        logger.info("nothing is marked as unsure: the model is of an earlier mimflow; `make run` makes it again")
        return
    if certainty.at(accuracy) is None:
        logger.warning("%s; --min-accuracy asks for another", unreachable(certainty, accuracy))
    why = "".join(f"; {number} {reason}" for reason, number in sorted(counts.reasons.items()))
    logger.info("%s unsure of %s%s", f"{counts.unsure:,}", plural(counts.done, "prediction"), why)


def default_output(model: Path) -> Path:
    """Return the folder below predictions/ that is named after a run, or after a model file that lies elsewhere."""
    run = model if model.is_dir() else model.parent
    names = run_name(run.resolve()).values() if RunFolder(run).config.is_file() else [model.stem]
    return Path("predictions", *names)


if __name__ == "__main__":
    run_cli(build_parser, main)
