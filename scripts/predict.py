"""Predict new images with a finished run or its model.onnx: one table, and each image with its top-5 drawn on it."""

from __future__ import annotations

import argparse
import csv
import glob
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from scripts.lib.base.console import run_cli
from scripts.lib.base.files import atomic_path
from scripts.lib.base.problems import UserError
from scripts.lib.data.image_paths import IMAGE_SUFFIXES, JUNK
from scripts.lib.model.photos import Photo, Photos, check_whole
from scripts.lib.pages.annotate import LARGEST, annotate
from scripts.lib.runs.run_folder import run_name

if TYPE_CHECKING:
    from scripts.lib.model.inference import Batch
    from scripts.lib.runs.onnx_model import Answers

logger = logging.getLogger(__name__)

#: Below the output folder.
TABLE, DRAWN = "predictions.csv", "images"
#: Formats that an image is drawn in as it came; all others become JPEG.
KEPT_SUFFIXES = (".jpg", ".jpeg", ".png")
#: Columns of the table before and after those of the classes. The last is what tells our drawings from other files.
FIRST_COLUMNS, LAST_COLUMN = ["file", "prediction", "confidence"], "drawing"


def build_parser() -> argparse.ArgumentParser:
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
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where a run runs (auto)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="images at a time (16)")
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="processes, or threads, that read images (2)"
    )
    return parser


def find_images(sources: Iterable[str], skip: Path) -> list[Photo]:
    """Return the images in files, folders (their sub folders too) and patterns, sorted within each source.

    Names keep the sub folders below the folder, or the pattern's fixed part; two that would be equal are numbered.
    Nothing hidden is taken, and nothing in *skip*, where earlier results lie.

    Raises
    ------
    UserError : a source does not exist, or there is no image in all of them.
    """
    sources = list(sources)
    found: list[tuple[Path, Path]] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            found += [(file, file.relative_to(path)) for file in _walk(path, skip)]
        elif path.exists():
            found.append((path, Path(path.name)))
        elif glob.has_magic(source):
            base = Path(*_fixed_parts(path))
            for match in sorted(glob.glob(source, recursive=True)):
                files = _walk(Path(match), skip) if os.path.isdir(match) else [Path(match)]
                found += [(file, file.relative_to(base)) for file in files]
        else:
            raise UserError(f"--images: {source}: no such file or folder; check the path")
    if not found:
        raise UserError(f"--images: no image in {', '.join(sources)}; known are {' '.join(sorted(IMAGE_SUFFIXES))}")
    unique: dict[str, tuple[Path, Path]] = {}
    for path, name in found:  # an image that is given twice is predicted once
        unique.setdefault(os.path.realpath(path), (path, name))
    names = distinct(str(name) for _, name in unique.values())
    return [Photo(path, name) for (path, _), name in zip(unique.values(), names, strict=True)]


def _walk(folder: Path, skip: Path) -> Iterator[Path]:
    skipped = os.path.realpath(skip)
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name.lower() not in JUNK
            and os.path.realpath(os.path.join(parent, name)) != skipped
        )
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(parent, name)


def _fixed_parts(pattern: Path) -> list[str]:
    """Return the leading parts of *pattern* that hold no wildcard."""
    parts: list[str] = []
    for part in pattern.parts[:-1]:
        if glob.has_magic(part):
            break
        parts.append(part)
    return parts


def distinct(names: Iterable[str]) -> list[str]:
    """Return the names under which images are drawn: of a suffix that can be written, and no two the same.

    They differ in more than upper and lower case, which some file systems do not tell apart.

    >>> distinct(["a.jpg", "A.jpg", "b.webp"])
    ['a.jpg', 'A (2).jpg', 'b.webp.jpg']
    """
    taken: set[str] = set()
    result = []
    for name in names:
        wanted = Path(name if name.lower().endswith(KEPT_SUFFIXES) else name + ".jpg")
        candidate, number = wanted, 2
        while str(candidate).casefold() in taken:
            candidate, number = wanted.with_name(f"{wanted.stem} ({number}){wanted.suffix}"), number + 1
        taken.add(str(candidate).casefold())
        result.append(str(candidate))
    return result


def classes_of(config: Any, meta: dict[str, Any], run: Path) -> list[str]:
    """Return the class names of a run: from its config, else from its checkpoint.

    Raises
    ------
    UserError : neither knows them.
    """
    names = config.data.test.get("classes") or meta.get("CLASSES")
    if not names or isinstance(names, str):
        raise UserError(f"{run}/config.py: names no classes in data.test; train the run with mimflow")
    return list(names)


def printable(path: Path | str) -> str:
    """Return a file name of any bytes as one line of valid UTF-8."""
    text = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def draw(photo: Photo, target: Path, names: Sequence[str], probabilities: Sequence[float]) -> None:
    """Write the image with *names* on it to *target*, under another name until it is whole.

    Not by atomic_path: forcing each of thousands of drawings to the disk takes longer than making them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(photo.path) as image:
            image.draft("RGB", (LARGEST, LARGEST))
            drawn = annotate(image, names, probabilities)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{os.getpid()}.{threading.get_ident()}.tmp{target.suffix}")
    try:
        drawn.save(temporary, quality=90)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class Model:
    """What predicts, and its predictions, which are made while they are taken.

    Attributes
    ----------
    source : the run or file that it is from.
    device : where it runs.
    classes : the class names in the order of the columns of the probabilities.
    answers : about the images in their order, batch by batch.
    """

    source: Path
    device: str
    classes: list[str]
    answers: Iterator[Batch] | Iterator[Answers]


def check_run(run: Path) -> None:
    """Raise UserError unless *run* is the folder of a finished run."""
    if not run.is_dir():
        raise UserError(f"--run: {run}: no such folder; give a finished run, such as results/demo/.../seed0")
    for name in ("config.py", "best.pth"):
        if not (run / name).is_file():
            raise UserError(f"--run: {run} has no {name}; give a finished run, such as results/demo/.../seed0")


def open_run(args: argparse.Namespace, photos: Sequence[Photo]) -> Model:
    """Return the checkpoint of a run, ready to predict."""
    # Only here, since torch and mmcls take seconds to load: a mistake in the command is answered at once.
    from scripts.lib.model.inference import build_model, choose_device, iterate, load_config, read_checkpoint

    config = load_config(args.run / "config.py")
    weights, meta = read_checkpoint(args.run / "best.pth")
    classes = classes_of(config, meta, args.run)
    device = choose_device(args.device)
    model = build_model(config, weights, device)
    dataset = Photos(photos, config.data.test.pipeline)
    return Model(args.run, device, classes, iterate(model, dataset, args.batch_size, args.workers, device))


def open_onnx(args: argparse.Namespace, photos: Sequence[Photo]) -> Model:
    """Return a model.onnx, ready to predict without torch."""
    from scripts.lib.runs.onnx_model import OnnxModel, predict_files

    model = OnnxModel(args.onnx)
    paths = [photo.path for photo in photos]
    answers = predict_files(model, paths, args.batch_size, args.workers, check_whole)
    return Model(args.onnx, "cpu", model.classes, answers)


def main(args: argparse.Namespace) -> None:
    if args.onnx and args.device == "cuda":
        raise UserError("--device cuda: a model.onnx runs on the CPU here; leave --device out, or use --run")
    if args.onnx and not args.onnx.is_file():
        raise UserError(f"--onnx: {args.onnx}: no such file; give the model.onnx of a finished run")
    if args.run:
        check_run(args.run)
    output = args.output or default_output(args.run or args.onnx)
    photos = find_images(args.images, output / DRAWN)
    targets = {} if args.no_draw else {index: output / DRAWN / photo.name for index, photo in enumerate(photos)}
    refuse_overwriting(photos, [*targets.values(), output / TABLE])
    earlier = earlier_drawings(output)
    model = open_onnx(args, photos) if args.onnx else open_run(args, photos)
    top = max(1, min(args.top, len(model.classes)))
    logger.info("predicting %d images with %s on %s", len(photos), model.source, model.device)

    done, failed = 0, 0
    with (
        atomic_path(output / TABLE) as temporary,
        # A file name may hold any bytes; the table is UTF-8 all the same.
        open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file,
        tqdm(total=len(photos), unit=" images", disable=not sys.stderr.isatty()) as bar,
        logging_redirect_tqdm(),
        ThreadPoolExecutor(2) as pool,
    ):
        writer = csv.writer(file, lineterminator="\n")
        columns = [f"{kind}{rank}" for rank in range(1, top + 1) for kind in ("top", "probability")]
        writer.writerow([*FIRST_COLUMNS, *columns, LAST_COLUMN])
        for batch in model.answers:
            for index, reason in batch.failures:
                logger.warning("skipped %s: %s", printable(photos[index].path), printable(reason))
            best = _best(batch, model.classes, top, model.source)
            for index, (names, values) in best.items():
                pairs = [text for name, value in zip(names, values, strict=True) for text in (name, f"{value:.6f}")]
                drawing = str(targets[index].relative_to(output)) if targets else ""
                writer.writerow([str(photos[index].path), names[0], f"{values[0]:.6f}", *pairs, drawing])
                earlier.discard(as_written(drawing))
            if targets:
                jobs = [pool.submit(draw, photos[index], targets[index], *answer) for index, answer in best.items()]
                for job in jobs:  # waited for, so that at most a batch of images is in memory
                    job.result()
            done, failed = done + len(batch.indices), failed + len(batch.failures)
            bar.update(len(batch.indices) + len(batch.failures))
        if not done:
            raise UserError(f"none of the {failed} files is an image that can be read: nothing was predicted")
        # While the table that names them is still there: were this to be cut short, the next run would go on with it.
        removed = remove_drawings(output, earlier, photos)
    if removed:
        logger.info("removed %d drawings of an earlier run from %s", removed, output / DRAWN)
    where = f"{output / TABLE} and {output / DRAWN}" if targets else output / TABLE
    logger.info("%d images predicted, %d skipped: %s", done, failed, where)


def default_output(model: Path) -> Path:
    """Return the folder below predictions/ that is named after a run, or after a model file that lies elsewhere."""
    run = model if model.is_dir() else model.parent
    return (
        Path("predictions", *run_name(run.resolve()).values())
        if (run / "config.py").is_file()
        else Path("predictions", model.stem)
    )


def as_written(name: str) -> str:
    """Return a file name of any bytes as the table has it."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def earlier_drawings(output: Path) -> set[str]:
    """Return the drawings that the table of an earlier run in *output* names; none where it is no such table."""
    try:
        with open(output / TABLE, encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if header[: len(FIRST_COLUMNS)] != FIRST_COLUMNS or header[-1] != LAST_COLUMN:
                return set()
            return {row[-1] for row in reader if len(row) == len(header)} - {""}
    except (OSError, UnicodeDecodeError, csv.Error):
        return set()


def remove_drawings(output: Path, names: set[str], photos: Sequence[Photo]) -> int:
    """Remove the files of these *names* from the drawings in *output*, and the folders that this leaves empty.

    Only files that are found below the folder of drawings are compared with *names*, which a table could spell as
    anything; an image that was to be predicted stays.

    Returns
    -------
    int : files removed.
    """
    removed = 0
    if not names:
        return removed
    inputs = {os.path.realpath(photo.path) for photo in photos}
    for parent, _, files in os.walk(output / DRAWN, topdown=False):
        paths = [Path(parent, name) for name in files]
        stale = [path for path in paths if as_written(str(path.relative_to(output))) in names]
        stale = [path for path in stale if os.path.realpath(path) not in inputs]
        for path in stale:
            path.unlink()
        removed += len(stale)
        if Path(parent) != output / DRAWN and not os.listdir(parent):
            os.rmdir(parent)
    return removed


def _best(
    batch: Batch | Answers, classes: Sequence[str], top: int, source: Path
) -> dict[int, tuple[list[str], list[float]]]:
    """Return the *top* class names and probabilities of each image of a batch, the most probable first."""
    result = {}
    for index, row in zip(batch.indices, batch.probabilities, strict=True):
        if len(row) != len(classes):
            raise UserError(f"{source}: names {len(classes)} classes, but its model knows {len(row)}; train it again")
        order = np.argsort(-row, kind="stable")[:top]
        result[index] = ([classes[place] for place in order], [float(row[place]) for place in order])
    return result


def refuse_overwriting(photos: Sequence[Photo], targets: Iterable[Path]) -> None:
    """Raise UserError where one of *targets* is one of the images."""
    inputs = {os.path.realpath(photo.path) for photo in photos}
    for target in targets:
        if os.path.realpath(target) in inputs:
            raise UserError(f"--output: {printable(target)} would overwrite an image; choose another folder")


if __name__ == "__main__":
    run_cli(build_parser, main)
