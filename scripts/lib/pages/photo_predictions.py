"""What `make predict` leaves: one table, and each image with its most probable classes drawn on it."""

from __future__ import annotations

import csv
import logging
import os
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from scripts.lib.base import ranges
from scripts.lib.base.files import atomic_path, write_text
from scripts.lib.base.problems import UserError
from scripts.lib.base.text import shorten
from scripts.lib.base.units import plural
from scripts.lib.data.reading import WHITE
from scripts.lib.model.photos import Model, Photo, printable
from scripts.lib.pages.fonts import pil_font
from scripts.lib.pages.predictions_page import PredictionsPage
from scripts.lib.pages.thumbnails import read_rgb
from scripts.lib.runs.certainty import MIN_ACCURACY, reasons
from scripts.lib.runs.onnx_model import Batch

logger = logging.getLogger(__name__)

#: Below the output folder.
TABLE, DRAWN, PAGE = "predictions.csv", "images", "predictions.html"
#: Columns of the table before and after those of the classes. DRAWING is what tells our drawings from other files.
DRAWING = "drawing"
FIRST_COLUMNS, LAST_COLUMNS = ["file", "prediction", "confidence"], [DRAWING, "unsure", "reason"]
#: Of the column ``unsure``; of a model that does not say when to rely on it, both columns are empty.
YES, NO, UNKNOWN = "yes", "no", ("", "")
#: Pixels of the longer side of a drawn image: smaller ones are enlarged until text fits on them.
SMALLEST, LARGEST = 480, 1600
NAME_WIDTH = 26
BAR_COLOUR, PANEL_COLOUR, TEXT_COLOUR = (86, 180, 233), (0, 0, 0, 170), (255, 255, 255)


class Counts(NamedTuple):
    """Images that were predicted, files that were skipped; of an earlier run: drawings removed, images replaced.

    ``unsure``: images that are marked; ``reasons``: how many for each reason, a few for both.
    """

    done: int
    skipped: int
    removed: int
    replaced: int
    unsure: int = 0
    reasons: Mapping[str, int] = {}


def write_predictions(
    model: Model, photos: Sequence[Photo], output: Path, top: int, is_drawn: bool, accuracy: float = MIN_ACCURACY
) -> Counts:
    """Write the table of predictions to *output* and, where *is_drawn*, each image with its *top* classes on it.

    Drawings that the table of an earlier run names, and this one does not, are removed.

    Parameters
    ----------
    accuracy : what is below the threshold that keeps it on val is marked as unsure.

    Raises
    ------
    UserError : none of the images can be read.
    """
    targets = [output / DRAWN / photo.name for photo in photos] if is_drawn else []
    replaced = earlier_drawings(output)
    earlier = set(replaced) - {""}
    top = max(1, min(top, len(model.classes)))
    logger.info("predicting %s with %s on %s", plural(len(photos), "image"), model.source, model.device)
    shown = PredictionsPage(model.certainty, accuracy)
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
        writer.writerow([*FIRST_COLUMNS, *columns, *LAST_COLUMNS])
        for batch in model.batches:
            for index, reason in batch.failures:
                logger.warning("skipped %s: %s", printable(photos[index].path), printable(reason))
            best, doubts = _best(batch, model, top), _doubts(batch, model, accuracy)
            for index, (names, values) in best.items():
                pairs = [text for name, value in zip(names, values, strict=True) for text in (name, f"{value:.6f}")]
                drawing = str(targets[index].relative_to(output)) if targets else ""
                marks = UNKNOWN if doubts is None else (YES if doubts[index] else NO, "; ".join(doubts[index]))
                writer.writerow([str(photos[index].path), names[0], f"{values[0]:.6f}", *pairs, drawing, *marks])
                shown.add(drawing, photos[index].name, names[0], values[0], doubts[index] if doubts else [])
                earlier.discard(as_written(drawing))
            if targets:
                background = model.reading.background
                jobs = [pool.submit(draw, photos[i], targets[i], *answer, background) for i, answer in best.items()]
                for job in jobs:  # waited for, so that at most a batch of images is in memory
                    job.result()
            done, failed = done + len(batch.indices), failed + len(batch.failures)
            bar.update(len(batch.indices) + len(batch.failures))
        if not done:
            raise UserError(f"none of {plural(failed, 'file')} is an image that can be read: nothing was predicted")
        # While the table that names them is still there: were this to be cut short, the next run would go on with it.
        removed = remove_drawings(output, earlier, photos)
    (output / PAGE).unlink(missing_ok=True)
    if is_drawn:
        write_text(output / PAGE, shown.page(str(model.source)))
    return Counts(done, failed, removed, len(replaced), shown.unsure, shown.reasons)


def _doubts(batch: Batch, model: Model, accuracy: float) -> dict[int, list[str]] | None:
    """Return why each prediction of a batch is unsure; None where the model does not say when to rely on it."""
    if model.certainty is None:
        return None
    distances = [None] * len(batch.indices) if batch.distances is None else batch.distances.tolist()
    return {
        index: reasons(model.certainty, accuracy, float(row.max()), distance)
        for index, row, distance in zip(batch.indices, batch.probabilities, distances, strict=True)
    }


def draw(
    photo: Photo,
    target: Path,
    names: Sequence[str],
    probabilities: Sequence[float],
    background: tuple[int, int, int] = WHITE,
) -> None:
    """Write the image with *names* on it to *target*, under another name until it is whole.

    Not by atomic_path: forcing each of thousands of drawings to the disk takes longer than making them.
    """
    drawn = annotate(read_rgb(ranges.read_bytes(photo.path), LARGEST, background), names, probabilities)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{os.getpid()}.{threading.get_ident()}.tmp{target.suffix}")
    try:
        drawn.save(temporary, quality=90)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _best(batch: Batch, model: Model, top: int) -> dict[int, tuple[list[str], list[float]]]:
    """Return the *top* class names and probabilities of each image of a batch, the most probable first."""
    result = {}
    for index, row in zip(batch.indices, batch.probabilities, strict=True):
        if len(row) != len(model.classes):
            known = f"names {len(model.classes)} classes, but its model knows {len(row)}"
            raise UserError(f"{model.source}: {known}; train it again")
        order = np.argsort(-row, kind="stable")[:top]
        result[index] = ([model.classes[i] for i in order], [float(row[i]) for i in order])
    return result


def refuse_overwriting(photos: Sequence[Photo], targets: Iterable[Path]) -> None:
    """Raise UserError where one of *targets* is one of the images."""
    inputs = {os.path.realpath(photo.path) for photo in photos}
    for target in targets:
        if os.path.realpath(target) in inputs:
            raise UserError(f"--output: {printable(target)} would overwrite an image; choose another folder")


def as_written(name: str) -> str:
    """Return a file name of any bytes as the table has it."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def earlier_drawings(output: Path) -> list[str]:
    """Return the drawing, or "", of each image in the table of an earlier run in *output*; none where it is no such."""
    try:
        with open(output / TABLE, encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if header[: len(FIRST_COLUMNS)] != FIRST_COLUMNS or DRAWING not in header[-len(LAST_COLUMNS) :]:
                return []
            column = len(header) - header[::-1].index(DRAWING) - 1
            return [row[column] for row in reader if len(row) == len(header)]
    except (OSError, UnicodeDecodeError, csv.Error):
        return []


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


def annotate(image: Image.Image, names: Sequence[str], probabilities: Sequence[float]) -> Image.Image:
    """Return an RGB copy of *image*, upright, with a line and a bar for each of *names* in its upper left corner.

    Parameters
    ----------
    image : any mode; its EXIF orientation is applied.
    names, probabilities : the classes to write, the most probable first.
    """
    canvas = _resize(ImageOps.exif_transpose(image).convert("RGB"))
    size = max(18, round(max(canvas.size) / 36))
    font = pil_font(size)
    names = [shorten(name, NAME_WIDTH) for name in names]
    pad, height = size // 2, round(size * 1.6)
    # Two columns, since the font's space is narrower than its figures: percentages to the right, names to the left.
    column = pad + round(font.getlength("100.0 %"))
    width = column + 2 * pad + round(max(font.getlength(name) for name in names))
    box = (width, height * len(names) + pad)
    if canvas.width < box[0] or canvas.height < box[1]:  # a narrow image gets a margin: no name is cut off
        larger = Image.new("RGB", (max(canvas.width, box[0]), max(canvas.height, box[1])), (235, 235, 235))
        larger.paste(canvas, (0, 0))
        canvas = larger
    draw = ImageDraw.Draw(canvas, "RGBA")
    draw.rectangle((0, 0, *box), fill=PANEL_COLOUR)
    for row, (name, value) in enumerate(zip(names, probabilities, strict=True)):
        top = pad // 2 + row * height
        middle, bottom = top + height * 0.42, top + height
        draw.text((column, middle), f"{100 * value:.1f} %", font=font, fill=TEXT_COLOUR, anchor="rm")
        draw.text((column + pad, middle), name, font=font, fill=TEXT_COLOUR, anchor="lm")
        end = pad + max(1, round((width - 2 * pad) * value))
        draw.rectangle((pad, bottom - size // 5, end, bottom - size // 10), fill=BAR_COLOUR)
    return canvas


def _resize(image: Image.Image) -> Image.Image:
    longest = max(image.size)
    wanted = min(max(longest, SMALLEST), LARGEST)
    if wanted == longest:
        return image
    size = tuple(max(1, round(length * wanted / longest)) for length in image.size)
    return image.resize((size[0], size[1]), Image.Resampling.LANCZOS)
