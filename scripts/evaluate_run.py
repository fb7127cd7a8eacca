"""Evaluate a finished run on other labelled images: metrics with intervals, figures, and how far from its own they lie.

The images are an archive or a folder in any layout that a data set may have. Their classes are matched by name; what
the run does not know is left out and said. Nothing of the run is changed.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scripts.data import fetch_archive, unpack_archive
from scripts.evaluate import evaluate_model, map_embedding, plot_predictions, predict_images
from scripts.lib.base import language, ranges
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import name_without_suffixes, read_json, sha256_of, write_json, write_text
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.data.auditing import AuditCache, check_all
from scripts.lib.data.image_checks import Status
from scripts.lib.data.reading import Reading
from scripts.lib.data.splits import SPLITS, Image, Split, find_images, top_folders
from scripts.lib.metrics import transfer
from scripts.lib.model.inference import load_config
from scripts.lib.model.photos import check_run, classes_of
from scripts.lib.pages.evaluation_page import evaluation_page, remarks, shortened
from scripts.lib.runs.certainty import of_run
from scripts.lib.runs.predictions import read_features, read_predictions
from scripts.lib.runs.run_folder import RunFolder, run_name

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.evaluate_run", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="a finished run, results/.../seed0")
    parser.add_argument("--data", required=True, metavar="PATH", help="an archive or a folder of labelled images")
    parser.add_argument(
        "--labels",
        metavar="FILE",
        help="a table of file and label, or lines `path label`: a local file, or one in PATH",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write (evaluations/<run>/<data>)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the run runs (auto)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="CPU threads of the model (2)")
    language.add_option(parser, None)
    return parser


@dataclass
class Labelled:
    """Other images, with what is known of them.

    Attributes
    ----------
    name : of the archive or folder that they came in.
    folder : that their paths are relative to.
    images : those that are evaluated.
    unknown : images of each class that the run does not know.
    unread : why some could not be read, by their paths.
    copies : images that the run was trained on.
    """

    name: str
    folder: Path
    images: list[Image]
    unknown: Counter[str] = field(default_factory=Counter)
    unread: dict[str, str] = field(default_factory=dict)
    copies: int = 0


@language.in_its_language
def main(args: argparse.Namespace) -> None:
    """Bring the images, predict them, and write what the predictions are worth."""
    check_run(args.run)
    run = RunFolder(args.run)
    config = load_config(run.config)
    classes = classes_of(config, {}, args.run)
    output = args.output or default_output(args.run, args.data)
    if output.resolve().is_relative_to(args.run.resolve()):
        raise UserError(f"--output: {output} lies in the run, which stays as it is", "choose another folder")
    output.mkdir(parents=True, exist_ok=True)
    reading = Reading.of_arguments(config.data.test.pipeline[0])
    labelled = bring(args.data, args.labels, output, classes, reading, config)
    split = Split.of("test", labelled.images, classes)
    split.write(output)
    write_text(output / "classes.txt", "".join(f"{name}\n" for name in classes))
    predict(args, run, labelled.folder, output)
    write_results(args, run, labelled, output, reading)


def default_output(run: Path, data: str) -> Path:
    """Return the folder below evaluations/ that is named after the run and the data."""
    name = re.sub(r"[^\w.-]", "-", name_without_suffixes(Path(data))) or "data"
    return Path("evaluations", *run_name(run.resolve()).values(), name)


def bring(
    data: str, labels: str | None, output: Path, classes: Sequence[str], reading: Reading, config: Any
) -> Labelled:
    """Unpack the labelled images, and return those that the run can be asked about.

    Parameters
    ----------
    labels : the file that says which image has which class; None: folders do.
    config : of the run, which says what it was trained on.

    Raises
    ------
    UserError : there are none.
    """
    for line in unpack(data, labels, output):
        logger.warning("%s", line)
    images = output / "images"
    labelled = choose(output, images, Path(data).resolve().name)
    names = set(classes)
    known = [image for image in labelled.images if image.label in names]
    labelled.unknown = Counter(image.label for image in labelled.images if image.label not in names)
    if not known:
        raise UserError(
            f"{data}: none of its classes ({shortened(sorted(labelled.unknown))}) is one of the run's"
            f" ({shortened(classes)})",
            "give its folders, or its labels, the run's names",
        )
    audited = check_all(labelled.folder, known, AuditCache(output / "audit.cache", reading), os.cpu_count() or 1)
    labelled.unread = {
        image.path: checked.detail
        for image, checked in zip(known, audited.checks, strict=True)
        if checked.status is not Status.READABLE
    }
    labelled.images = [image for image in known if image.path not in labelled.unread]
    if not labelled.images:
        raise UserError(f"{data}: no image of the run's classes can be read, such as {next(iter(labelled.unread))}")
    trained, digests = trained_digests(config), zip(known, audited.digests, strict=True)
    labelled.copies = sum(digest in trained for image, digest in digests if image.path not in labelled.unread)
    return labelled


def unpack(data: str, labels: str | None, output: Path) -> list[str]:
    """Write images/ into *output*, and return what there is to say; a folder is not copied, images/ links to its files.

    Parameters
    ----------
    labels : as of :func:`bring`.
    """
    folder = Path(data).expanduser()
    in_place = folder.is_dir()
    archive, record = output / ("archive.jsonl" if in_place else "archive"), output / "unpacked.json"
    fetch({"path": data, "in_place": True} if in_place else {"path": data}, archive)
    origin: dict[str, Any] = {"name": folder.name, "folder": str(folder.resolve()) if in_place else None}
    if labels:
        origin["labels"] = labels
        if (file := Path(labels).expanduser()).is_file():
            kept = output / f"labels{file.suffix}"
            fetch({"file": str(file)}, kept)
            origin["kept"] = {labels: str(kept)}
    words = ["--archive", str(archive), "--output", str(output / "images"), "--record", str(record)]
    words += ["--sources", json.dumps([origin])]
    unpack_archive.main(unpack_archive.build_parser().parse_args(words))
    archive.unlink()
    remarks_on_data = read_json(record)
    return [*remarks_on_data["notes"], *remarks_on_data["left_out"]]


def fetch(source: dict[str, Any], target: Path) -> None:
    """Bring a file, an archive or the list of a folder's files here; *source*: as of fetch_archive."""
    words = ["--source", json.dumps(source), "--output", str(target), "--record", f"{target.with_suffix('')}.sha256"]
    fetch_archive.main(fetch_archive.build_parser().parse_args(words))


def choose(output: Path, images: Path, name: str) -> Labelled:
    """Return the images that were unpacked: of given splits test, else val, else train.

    Their paths begin at *output*, not at *images*: other images may well be called as those of the run are.
    """
    tops = top_folders(images)
    if tops and tops <= set(SPLITS):
        split = next(split for split in reversed(SPLITS) if split in tops)
        logger.warning("its split %s is evaluated; others: %s", split, ", ".join(sorted(tops - {split})) or "none")
        images = images / split
    above = images.relative_to(output).as_posix()
    return Labelled(name, output, [replace(image, path=f"{above}/{image.path}") for image in find_images(images)])


def trained_digests(config: Any) -> set[bytes]:
    """Return the sha256 of each file that a run was trained on, as far as they are still there."""
    digests = set()
    for split in (config.data.train, config.data.val):
        if not Path(split.ann_file).is_file():
            continue
        for name in Split.read(Path(split.ann_file)).images:
            path = Path(split.data_prefix, name)
            if image := ranges.find(path):
                digests.add(bytes.fromhex(image.sha256))
            elif path.is_file():
                digests.add(bytes.fromhex(sha256_of(path)))
    return digests


def predict(args: argparse.Namespace, run: RunFolder, images: Path, output: Path) -> None:
    """Predict the images, and note their features."""
    words = {
        "config": run.config, "checkpoint": run.best, "images": images, "split": output / "test.txt",
        "classes": output / "classes.txt", "output": output / "predictions.csv", "features": output / "features.npy",
        "device": args.device, "threads": args.threads,
    }  # fmt: skip
    options = [word for name, value in words.items() for word in (f"--{name}", str(value))]
    predict_images.main(predict_images.build_parser().parse_args(options))


def write_results(args: argparse.Namespace, run: RunFolder, labelled: Labelled, output: Path, reading: Reading) -> None:
    """Write metrics, figures, the comparison with the run's own test images and the page, and say what they are."""
    names, title = run_name(args.run.resolve()), f"{labelled.name}: {'/'.join(run_name(args.run.resolve()).values())}"
    seed = int(names["seed"].removeprefix("seed"))
    words = [
        "--predictions",
        output / "predictions.csv",
        "--dataset",
        labelled.name,
        "--experiment",
        names["experiment"],
    ]
    if of_run(run):
        words += ["--certainty", run.certainty, "--known", run.known, "--features", output / "features.npy"]
    words += ["--seed", seed, "--metrics", output / "metrics.json", "--per-class", output / "per_class.csv"]
    evaluate_model.main(evaluate_model.build_parser().parse_args(list(map(str, words))))
    other, reference = read_predictions(output / "predictions.csv"), read_predictions(run.predictions)
    features = read_features(output / "features.npy", len(other.files))
    compared = transfer.compare(other, reference)
    far = (
        transfer.far_share(features, read_features(run.features, len(reference.files)))
        if run.features.is_file()
        else None
    )
    absent = [name for label, name in enumerate(other.classes) if not (other.labels == label).any()]
    result = {
        "run": str(args.run), "data": labelled.name, "images": len(other.files), **compared.as_json(),
        "far_share": far, "missing_classes": absent, "unknown_classes": dict(labelled.unknown),
        "unread": labelled.unread, "copies_of_training_images": labelled.copies,
    }  # fmt: skip
    write_json(output / "evaluation.json", result)
    draw(run, labelled.folder, output, title, seed, ["--language", language.language(), *reading.background_option()])
    write_text(output / "evaluation.html", evaluation_page(result, read_json(output / "metrics.json"), title))
    for line in remarks(result):
        logger.warning("%s", line)
    low, high = compared.interval
    logger.info(
        "%.1f %% of %s are right, of the run's own test images %.1f %%: %+.1f points (95 %% interval %+.1f to %+.1f)",
        100 * compared.accuracy, plural(len(other.files), "image"), 100 * compared.reference, 100 * compared.difference,
        100 * low, 100 * high,
    )  # fmt: skip
    logger.info("%s", output / "evaluation.html")


def draw(run: RunFolder, images: Path, output: Path, title: str, seed: int, options: Sequence[str]) -> None:
    """Draw the figures and pages that a run has of its own test images; *options*: of how they look."""
    shared = ["--predictions", output / "predictions.csv", "--images", images, "--title", title, *options]
    words = [*shared, "--val-predictions", run.val_predictions, "--output", output / "figures"]
    plot_predictions.main(plot_predictions.build_parser().parse_args(list(map(str, words))))
    words = [*shared, "--features", output / "features.npy", "--output", output / "figures" / "embedding.html"]
    map_embedding.main(map_embedding.build_parser().parse_args([*map(str, words), "--seed", str(seed)]))


if __name__ == "__main__":
    run_cli(build_parser, main)
