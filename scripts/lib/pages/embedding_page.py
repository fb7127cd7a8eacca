"""The map of the test images: near on it is what the model sees as alike."""

from __future__ import annotations

import base64
import io
import json
import logging
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from rich.cells import cell_len

from scripts.lib.base.language import tr
from scripts.lib.base.problems import UserError
from scripts.lib.base.text import shorten
from scripts.lib.data.reading import WHITE
from scripts.lib.metrics.embedding import MOST_POINTS, choose, embed, one_thread, trustworthiness_of
from scripts.lib.pages.templates import heading, page
from scripts.lib.pages.thumbnails import shrink, thumbnail
from scripts.lib.runs.predictions import Predictions

logger = logging.getLogger(__name__)

#: Pixels of the map, and of what stays empty around it.
WIDTH, HEIGHT, MARGIN = 900, 640, 24
#: How many there are in embedding.css.
COLOURS = 8
#: What embedding.js writes about an image.
SHOWN = ("true class: ", "predicted: ", " (wrong)", "confidence: ")
#: Points at most, and the radius that they are then drawn with, in pixels.
RADII = ((300, 5.0), (1000, 4.0), (MOST_POINTS, 3.0))
#: Classes at most, the size of their names on the map in pixels, and their columns.
NAME_SIZES = ((12, 14.0, 26), (40, 12.0, 20), (100, 10.0, 14), (200, 8.5, 12))
#: Of more classes than the last of them, those with the most images on the map are named: names would hide it.
NAMED_CLASSES = NAME_SIZES[-1][0]
#: Classes at most whose names stand on their images; of more they stand above them, as the groups are small.
NAMES_INSIDE = 12
#: Pixels of the longer side of the small images and their quality, the best first; the first that fits is taken.
THUMBNAILS = ((96, 75), (80, 65), (64, 60), (48, 50), (32, 40))
#: Characters that all small images may take together: a report of many runs holds as many pages.
THUMBNAIL_ROOM = 1_500_000
#: What embedding.js reads, which holds no "<", and how many values a point has there.
DATA = re.compile(r'(?<= id="data">)[^<]*')
POINT_VALUES = 7


@dataclass(frozen=True)
class Map:
    """Images on a map."""

    predictions: Predictions  # of the images that are on it
    positions: np.ndarray  # float64 of shape (images, 2), in pixels of the map
    colours: list[int]  # of each class the index of its colour
    trustworthiness: float | None  # 0 to 1; None of too few images


@dataclass(frozen=True)
class ClassName:
    """The name of a class on the map, its centre and its height in pixels."""

    label: int
    text: str
    x: float
    y: float
    size: float


def fit_to_map(embedded: np.ndarray) -> np.ndarray:
    """Return *embedded*, shape (n, 2), in pixels of the map; by one factor, so that no direction is stretched."""
    low, high = embedded.min(axis=0), embedded.max(axis=0)
    room = np.array([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN])
    scale = (room / np.maximum(high - low, 1e-12)).min()
    scale = 0.0 if np.array_equal(low, high) else scale
    return np.asarray((embedded - (low + high) / 2) * scale + np.array([WIDTH, HEIGHT]) / 2)


def medians_of(labels: np.ndarray, positions: np.ndarray) -> dict[int, np.ndarray]:
    """Return the median position, shape (2,), of each class that has images."""
    return {label: np.median(positions[labels == label], axis=0) for label in np.unique(labels).tolist()}


def choose_colours(medians: dict[int, np.ndarray], classes: int) -> list[int]:
    """Return the index of a colour for each class. Of two classes with the same colour, one is far from the other.

    As many classes as there are colours get one each, in their order.
    """
    used: dict[int, list[np.ndarray]] = {colour: [] for colour in range(COLOURS)}
    result = []
    for label in range(classes):
        if label not in medians:
            result.append(label % COLOURS)
            continue
        here = medians[label]
        nearest = {
            colour: min((float(np.hypot(*(other - here))) for other in others), default=np.inf)
            for colour, others in used.items()
        }
        best = max(nearest, key=lambda colour: (nearest[colour], -colour))
        used[best].append(here)
        result.append(best)
    return result


def make_map(predictions: Predictions, features: np.ndarray, seed: int) -> Map:
    """Place the images of *predictions*, or a choice of them, by their *features*, shape (images, dims)."""
    chosen = choose(predictions.labels, seed, MOST_POINTS)
    shown = Predictions(
        [predictions.files[i] for i in chosen],
        predictions.labels[chosen],
        predictions.predictions[chosen],
        predictions.probabilities[chosen],
        predictions.classes,
    )
    with one_thread():
        embedded = embed(features[chosen], seed)
        trust = trustworthiness_of(features[chosen], embedded)
    positions = fit_to_map(embedded)
    colours = choose_colours(medians_of(shown.labels, positions), len(shown.classes))
    return Map(shown, positions, colours, trust)


def thumbnails(
    folder: Path,
    files: Sequence[str],
    room: int = THUMBNAIL_ROOM,
    background: tuple[int, int, int] = WHITE,
    sizes: Sequence[tuple[int, int]] = THUMBNAILS,
) -> list[str]:
    """Return each image small, as WebP in base64, of all together at most *room* characters; "" where it has none.

    Parameters
    ----------
    sizes : pixels of the longer side and quality, the best first; the first with which all fit is taken.
    """
    with ThreadPoolExecutor(2) as pool:
        images = list(pool.map(partial(_small, folder, background, sizes[0][0]), files))
        for size, quality in sizes:
            encoded = list(pool.map(partial(_encoded, size=size, quality=quality), images))
            if sum(map(len, encoded)) <= room:
                return encoded
    return [""] * len(files)


def _small(folder: Path, background: tuple[int, int, int], longest: int, file: str) -> Image.Image | None:
    try:
        return thumbnail(folder / file, longest, background)
    except UserError as error:  # the point is worth showing all the same
        logger.warning("shown without its picture: %s", error)
        return None


def _encoded(image: Image.Image | None, size: int, quality: int) -> str:
    if image is None:
        return ""
    buffer = io.BytesIO()
    shrink(image, size).save(buffer, "WEBP", quality=quality)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def confidence_of(probability: float) -> str:
    """Return a confidence as text, rounded down: 100 % is only what is 1.

    >>> confidence_of(0.99996)
    '99.9 %'
    """
    return f"{np.floor(probability * 1000) / 10:.1f} %"


def names_of(image_map: Map) -> list[ClassName]:
    """Return the names of the classes, each at the median of its points or as near as no other name is.

    Of very many classes only those with the most images are named.
    """
    medians = medians_of(image_map.predictions.labels, image_map.positions)
    images = np.bincount(image_map.predictions.labels)
    most_images = sorted(medians, key=lambda label: -images[label])[:NAMED_CLASSES]
    medians = {label: medians[label] for label in sorted(most_images)}
    size, columns = next((size, columns) for most, size, columns in NAME_SIZES if len(medians) <= most)
    lift = 0.0 if len(medians) <= NAMES_INSIDE else size
    steps = sorted((step * size / 2 for step in range(-30, 31)), key=lambda step: (abs(step), step))
    boxes: list[tuple[float, float, float]] = []
    names = []
    for label, (x, y) in medians.items():
        text = shorten(image_map.predictions.classes[label], columns)
        half = 0.3 * size * cell_len(text) + 2
        x = float(np.clip(x, half, WIDTH - half))
        heights = [float(np.clip(y - lift + step, size, HEIGHT - size / 2)) for step in steps]
        free = (
            height
            for height in heights
            if all(abs(height - b) >= size or abs(x - a) >= half + other for a, b, other in boxes)
        )
        y = next(free, heights[0])
        boxes.append((x, y, half))
        names.append(ClassName(label, text, x, y, size))
    return names


def render(image_map: Map, pictures: Sequence[str], total: int, seed: int, title: str) -> str:
    """Return the page.

    Parameters
    ----------
    image_map : the images on their positions.
    pictures : of each image, as :func:`thumbnails` gives them.
    total : images of predictions.csv.
    seed : that drew the images, where not all are shown.
    title : a line above it.
    """
    shown = image_map.predictions
    wrong = shown.labels != shown.predictions
    columns = {
        "index": range(len(shown.files)),
        "x": image_map.positions[:, 0].tolist(),
        "y": image_map.positions[:, 1].tolist(),
        "file": shown.files,
        "label": shown.labels.tolist(),
        "prediction": shown.predictions.tolist(),
        "confidence": map(confidence_of, shown.probabilities.max(axis=1)),
        "is_wrong": wrong.tolist(),
    }
    points = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    n, n_wrong = (np.bincount(shown.labels[of], minlength=len(shown.classes)).tolist() for of in (slice(None), wrong))
    rows = [
        [
            *(point[name] for name in ("file", "label", "prediction", "confidence")),
            picture,
            *(round(point[axis], 1) for axis in ("x", "y")),  # for positions_of
        ]
        for point, picture in zip(points, pictures, strict=True)
    ]
    return page(
        "embedding.html",
        heading("Map of the images", title),
        style="embedding.css",
        script="embedding.js",
        width=WIDTH,
        height=HEIGHT,
        radius=next(size for most, size in RADII if len(points) <= most),
        points=points,
        names=names_of(image_map),
        most_names=NAMED_CLASSES,
        classes=shown.classes,
        colours=image_map.colours,
        n_colours=COLOURS,
        legend=[(label, n[label], n_wrong[label]) for label in range(len(n)) if n[label]],
        total=total,
        wrong=int(wrong.sum()),
        most_of_a_class=max(n),
        seed=seed,
        trustworthiness=image_map.trustworthiness,
        data={"points": rows, "classes": shown.classes, "words": {name: tr(name) for name in SHOWN}},
    )


def positions_of(page: str) -> list[tuple[str, float, float]]:
    """Return file, x and y of each image on a map's page, in pixels of the map; nothing of a page that has none."""
    match = DATA.search(page)
    points = json.loads(match[0])["points"] if match else []
    return [(point[0], *point[-2:]) for point in points if len(point) == POINT_VALUES]
