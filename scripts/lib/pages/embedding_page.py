"""The map of the test images: near on it is what the model sees as alike."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image
from rich.cells import cell_len

from scripts.lib.base.problems import UserError
from scripts.lib.base.text import shorten
from scripts.lib.metrics.embedding import MOST_POINTS, choose, embed, one_thread, trustworthiness_of
from scripts.lib.pages import html
from scripts.lib.pages.thumbnails import shrink, thumbnail
from scripts.lib.runs.predictions import Predictions

logger = logging.getLogger(__name__)

#: Pixels of the map, and of what stays empty around it.
WIDTH, HEIGHT, MARGIN = 900.0, 640.0, 24.0


# Okabe & Ito (2008), Color Universal Design, all eight.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#000000", "#F0E442")


#: Points at most, and the radius that they are then drawn with, in pixels.
RADII = ((300, 5.0), (1000, 4.0), (MOST_POINTS, 3.0))


#: Classes at most, the size of their names on the map in pixels, and their columns.
NAME_SIZES = ((12, 14.0, 26), (40, 12.0, 20), (100, 10.0, 14), (1_000_000, 8.5, 12))


#: Classes at most whose names stand on their images; of more they stand above them, as the heaps are small.
NAMES_INSIDE = 12


#: Pixels of the longer side of the small images and their quality, the best first; the first that fits is taken.
THUMBNAILS = ((96, 75), (80, 65), (64, 60), (48, 50), (32, 40))


#: Characters that all small images may take together: the page is to stay below 5 MB.
THUMBNAIL_ROOM = 3_800_000


STYLE = """
#embedding { display: flex; gap: 1.5em; align-items: flex-start; flex-wrap: wrap }
#map { flex: 3 1 32em; min-width: 0; max-height: 92vh; border: 1px solid #ddd; background: #fff }
#map [data-i] { stroke: #fff; stroke-width: .6 } #map path[data-i] { stroke: #000; stroke-width: 1.4 }
#map [data-i].on { stroke: #000; stroke-width: 3 } #map .off { opacity: .06; pointer-events: none }
#map text { pointer-events: none; text-anchor: middle; fill: #222; stroke: #fff; stroke-width: .2em;
            paint-order: stroke; stroke-linejoin: round }
#side { flex: 1 1 15em } #legend { list-style: none; margin: .5em 0; padding: 0; max-height: 70vh; overflow-y: auto }
#legend button { display: flex; gap: .5em; width: 100%; border: 0; background: none; padding: .15em .3em; font: inherit;
                 text-align: left; cursor: pointer; align-items: center; overflow-wrap: anywhere }
#legend button:hover { background: #f0f0f0 } #legend button[aria-pressed=true] { background: #dcebf5; font-weight: 600 }
#legend span:last-child { margin-left: auto; color: #666; white-space: nowrap; font-size: 12px }
#legend svg { flex: none } #tools[hidden] { display: none } #filter { width: 100%; font: inherit; padding: .2em }
#card { position: fixed; z-index: 2; display: flex; gap: .7em; background: #fff; border: 1px solid #888; padding: .6em;
        box-shadow: 0 2px 8px #0004; font-size: 13px; max-width: 26em; pointer-events: none; overflow-wrap: anywhere }
#card[hidden] { display: none } #card p { margin: 0 } #card img { max-width: 96px; max-height: 96px; flex: none }
"""


SWATCHES = "".join(f".k{place} {{ fill: {colour} }} " for place, colour in enumerate(COLOURS))


SCRIPT = """
"use strict";
(() => {
  const find = name => document.getElementById(name);
  const { points, classes } = JSON.parse(find("data").textContent);
  const map = find("map"), card = find("card"), picture = card.querySelector("img");
  const lines = [...card.querySelectorAll("p")], wrongOnly = find("wrong");
  const marks = [...map.querySelectorAll("[data-i]")].sort((a, b) => a.dataset.i - b.dataset.i);
  const names = [...map.querySelectorAll("text")], buttons = [...find("legend").querySelectorAll("button")];
  const chosen = new Set();
  let current = -1;
  for (const mark of marks) mark.querySelector("title").remove();  // the card says it

  function isShown(i) {
    const [, label, prediction] = points[i];
    return (!chosen.size || chosen.has(label)) && (!wrongOnly.checked || label !== prediction);
  }
  function hide() {
    if (current >= 0) marks[current].classList.remove("on");
    card.hidden = true;  // the arrow keys go on from here all the same
  }
  function show(i) {
    hide();
    const [file, label, prediction, confidence, image] = points[i];
    current = i;
    marks[i].classList.add("on");
    picture.hidden = !image;
    if (image) picture.src = "data:image/webp;base64," + image; else picture.removeAttribute("src");
    [file, "true class: " + classes[label],
     "predicted: " + classes[prediction] + (label === prediction ? "" : " (wrong)"),
     "confidence: " + confidence].forEach((text, place) => { lines[place].textContent = text; });
    card.hidden = false;
    place();
  }
  function place() {
    if (card.hidden) return;
    const at = marks[current].getBoundingClientRect(), box = card.getBoundingClientRect();
    const right = at.right + 10 + box.width < innerWidth;
    card.style.left = Math.max(4, right ? at.right + 10 : at.left - 10 - box.width) + "px";
    card.style.top = Math.max(4, Math.min(at.top - 20, innerHeight - box.height - 4)) + "px";
  }
  function update() {
    hide();
    marks.forEach((mark, i) => mark.classList.toggle("off", !isShown(i)));
    for (const name of names) name.classList.toggle("off", chosen.size > 0 && !chosen.has(+name.dataset.c));
    for (const button of buttons) button.setAttribute("aria-pressed", chosen.has(+button.dataset.c));
    find("all").disabled = !chosen.size;
  }

  map.addEventListener("pointerover", event => {
    const mark = event.target.closest("[data-i]");
    if (mark) show(+mark.dataset.i); else hide();
  });
  map.addEventListener("pointerleave", hide);
  map.addEventListener("blur", hide);
  map.addEventListener("keydown", event => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") hide();
    if (!step) return;
    event.preventDefault();
    let next = current < 0 ? (step > 0 ? -1 : points.length) : current;
    do next += step; while (next >= 0 && next < points.length && !isShown(next));
    if (next >= 0 && next < points.length) show(next);
  });
  find("legend").addEventListener("click", event => {
    const button = event.target.closest("button");
    if (!button) return;
    const c = +button.dataset.c, was = chosen.has(c);
    if (!event.shiftKey) chosen.clear();
    if (was) chosen.delete(c); else chosen.add(c);
    update();
  });
  find("all").addEventListener("click", () => { chosen.clear(); update(); });
  wrongOnly.addEventListener("change", update);
  find("filter").addEventListener("input", event => {
    const text = event.target.value.toLowerCase();
    for (const button of buttons)
      button.parentNode.hidden = !classes[+button.dataset.c].toLowerCase().includes(text);
  });
  addEventListener("scroll", place, { passive: true });
  map.setAttribute("tabindex", "0");
  find("tools").hidden = false;
  update();
})();
"""


@dataclass(frozen=True)
class Map:
    """Images on a map.

    Attributes
    ----------
    predictions : of the images that are on it.
    places : float64 of shape (images, 2), in pixels of the map.
    colours : of each class its place in COLOURS.
    trustworthiness : 0 to 1; None of too few images.
    """

    predictions: Predictions
    places: np.ndarray
    colours: list[int]
    trustworthiness: float | None


def fit_to_map(embedded: np.ndarray) -> np.ndarray:
    """Return *embedded*, shape (n, 2), in pixels of the map; by one factor, so that no direction is stretched."""
    low, high = embedded.min(axis=0), embedded.max(axis=0)
    room = np.array([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN])
    scale = (room / np.maximum(high - low, 1e-12)).min()
    scale = 0.0 if np.array_equal(low, high) else scale
    return np.asarray((embedded - (low + high) / 2) * scale + np.array([WIDTH, HEIGHT]) / 2)


def medians_of(labels: np.ndarray, places: np.ndarray, classes: int) -> dict[int, np.ndarray]:
    """Return the median place, shape (2,), of each class that has images."""
    return {
        int(label): np.median(places[labels == label], axis=0) for label in range(classes) if (labels == label).any()
    }


def choose_colours(medians: dict[int, np.ndarray], classes: int) -> list[int]:
    """Return a place in COLOURS for each class. Of two classes with the same colour, one is far from the other.

    As many classes as there are colours get one each, in their order.
    """
    taken: dict[int, list[np.ndarray]] = {place: [] for place in range(len(COLOURS))}
    result = []
    for label in range(classes):
        if label not in medians:
            result.append(label % len(COLOURS))
            continue
        here = medians[label]
        nearest = {
            place: min((float(np.hypot(*(other - here))) for other in others), default=np.inf)
            for place, others in taken.items()
        }
        colour = max(nearest, key=lambda place: (nearest[place], -place))
        taken[colour].append(here)
        result.append(colour)
    return result


def make_map(predictions: Predictions, features: np.ndarray, seed: int) -> Map:
    """Place the images of *predictions*, or a choice of them, by their *features*, shape (images, dims)."""
    chosen = choose(predictions.labels, seed, MOST_POINTS)
    some = Predictions(
        [predictions.files[place] for place in chosen],
        predictions.labels[chosen],
        predictions.predictions[chosen],
        predictions.probabilities[chosen],
        predictions.classes,
    )
    with one_thread():
        embedded = embed(features[chosen], seed)
        trust = trustworthiness_of(features[chosen], embedded)
    places = fit_to_map(embedded)
    colours = choose_colours(medians_of(some.labels, places, len(some.classes)), len(some.classes))
    return Map(some, places, colours, trust)


def thumbnails(folder: Path, files: Sequence[str], room: int = THUMBNAIL_ROOM) -> list[str]:
    """Return each image small, as WebP in base64, of all together at most *room* characters; "" where it has none."""
    with ThreadPoolExecutor(2) as pool:
        images = list(pool.map(partial(_small, folder), files))
        for edge, quality in THUMBNAILS:
            encoded = list(pool.map(partial(_encoded, edge=edge, quality=quality), images))
            if sum(map(len, encoded)) <= room:
                return encoded
    return [""] * len(files)


def _small(folder: Path, file: str) -> Image.Image | None:
    try:
        return thumbnail(folder / file, THUMBNAILS[0][0])
    except UserError as error:  # the point is worth showing all the same
        logger.warning("shown without its picture: %s", error)
        return None


def _encoded(image: Image.Image | None, edge: int, quality: int) -> str:
    if image is None:
        return ""
    buffer = io.BytesIO()
    shrink(image, edge).save(buffer, "WEBP", quality=quality)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def confidence_of(probability: float) -> str:
    """Return a confidence as text, rounded down: 100 % is only what is 1.

    >>> confidence_of(0.99996)
    '99.9 %'
    """
    return f"{np.floor(probability * 1000) / 10:.1f} %"


def draw(a_map: Map) -> str:
    """Return the map as SVG that needs no script: every point has a title."""
    some = a_map.predictions
    radius = next(size for most, size in RADII if len(some.files) <= most)
    right = some.labels == some.predictions
    order = [*np.flatnonzero(right).tolist(), *np.flatnonzero(~right).tolist()]  # the wrong ones on top
    marks = [_mark(a_map, index, radius) for index in order]
    return (
        f'<svg id="map" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" xmlns="http://www.w3.org/2000/svg" role="group"'
        ' aria-label="map of the images; with the arrow keys from one to the next">\n'
        + "\n".join([*marks, *_names(a_map)])
        + "\n</svg>"
    )


def _mark(a_map: Map, index: int, radius: float) -> str:
    """Return the point of an image: a circle where the model is right, a diamond where it is wrong."""
    some, (x, y) = a_map.predictions, a_map.places[index]
    label, prediction = int(some.labels[index]), int(some.predictions[index])
    lines = [
        some.files[index],
        f"true class: {some.classes[label]}",
        f"predicted: {some.classes[prediction]}" + (" (wrong)" if label != prediction else ""),
        f"confidence: {confidence_of(some.probabilities[index].max())}",
    ]
    attributes = f'data-i="{index}" class="k{a_map.colours[label]}"'
    title = "<title>" + escape("\n".join(lines)) + "</title>"
    if label == prediction:
        return f'<circle {attributes} cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}">{title}</circle>'
    half = 1.6 * radius
    outline = f"M{x:.1f} {y - half:.1f}l{half:g} {half:g} -{half:g} {half:g} -{half:g} -{half:g}z"
    return f'<path {attributes} d="{outline}">{title}</path>'


def _names(a_map: Map) -> list[str]:
    """Return the names of the classes, each at the median of its points or as near as no other name is."""
    some = a_map.predictions
    medians = medians_of(some.labels, a_map.places, len(some.classes))
    size, columns = next((size, columns) for most, size, columns in NAME_SIZES if len(medians) <= most)
    lift = 0.0 if len(medians) <= NAMES_INSIDE else size
    boxes: list[tuple[float, float, float]] = []
    texts = []
    for label, (x, y) in medians.items():
        name = shorten(some.classes[label], columns)
        half = 0.3 * size * cell_len(name) + 2
        x = float(np.clip(x, half, WIDTH - half))
        steps = sorted((step * size / 2 for step in range(-30, 31)), key=lambda step: (abs(step), step))
        heights = [float(np.clip(y - lift + step, size, HEIGHT - size / 2)) for step in steps]
        free = (
            height
            for height in heights
            if all(abs(height - b) >= size or abs(x - a) >= half + other for a, b, other in boxes)
        )
        y = next(free, heights[0])
        boxes.append((x, y, half))
        texts.append(f'<text data-c="{label}" x="{x:.1f}" y="{y:.1f}" font-size="{size:g}">{escape(name)}</text>')
    return texts


def _legend(a_map: Map) -> str:
    some = a_map.predictions
    items = []
    for label, name in enumerate(some.classes):
        of_class = some.labels == label
        images, wrong = int(of_class.sum()), int((some.predictions[of_class] != label).sum())
        if images:
            items.append(
                f'<li><button type="button" data-c="{label}" aria-pressed="false"><svg width="12" height="12"'
                f' aria-hidden="true"><circle class="k{a_map.colours[label]}" cx="6" cy="6" r="5"/></svg>'
                f"<span>{escape(name)}</span><span>{images}"
                + (f", {wrong} wrong" if wrong else "")
                + "</span></button></li>"
            )
    return (
        '<div id="side"><div id="tools" hidden><input type="search" id="filter" placeholder="find a class"'
        ' aria-label="find a class"><p><label><input type="checkbox" id="wrong"> only wrong predictions</label>'
        ' <button type="button" id="all">all classes</button></p></div>\n<ol id="legend">\n'
        + "\n".join(items)
        + "\n</ol></div>"
    )


def _paragraphs(a_map: Map, total: int, seed: int) -> Iterable[str]:
    some = a_map.predictions
    images, wrong = len(some.files), int((some.labels != some.predictions).sum())
    shown = f"{images:,} images" if images == total else f"{images:,} of {total:,} images"
    each = int(np.bincount(some.labels).max())
    drawn = "" if images == total else f", at most {each} of each class, drawn with seed {seed}"
    shared = " Classes that are far apart may share a colour." if len(some.classes) > len(COLOURS) else ""
    yield (
        f"{shown}{drawn}; {wrong:,} of them wrong. A circle is an image that the model is right about, a diamond with"
        " a black edge one that it is wrong about; the colour is that of the true class, whose name stands by the"
        f" median of its images.{shared}"
    )
    trust = a_map.trustworthiness
    kept = "" if trust is None else f" (trustworthiness {trust:.2f}; 1 is best, 0.5 is chance)"
    yield (
        "Images that are near each other look alike to the network: its last layer gets nearly the same numbers."
        f" t-SNE keeps who is whose neighbour{kept}; the distances between groups, their sizes and the directions mean"
        " nothing. Of a diamond in the midst of another class, look at the picture: is the label wrong, or the model?"
    )


def render(a_map: Map, pictures: Sequence[str], total: int, seed: int, title: str) -> str:
    """Return the page.

    Parameters
    ----------
    a_map : the images on their places.
    pictures : of each image, as :func:`thumbnails` gives them.
    total : images of predictions.csv.
    seed : that drew the images, where not all are shown.
    title : a line above it.
    """
    some = a_map.predictions
    rows = zip(some.files, some.labels.tolist(), some.predictions.tolist(), some.probabilities, pictures, strict=True)
    points = [[file, label, said, confidence_of(row.max()), picture] for file, label, said, row, picture in rows]
    data = json.dumps({"points": points, "classes": some.classes}, ensure_ascii=False, separators=(",", ":"))
    data = data.replace("<", "\\u003c")  # no end of a script, and no start of a comment, can then be in it
    parts = [
        *(f"<p>{escape(text)}</p>" for text in _paragraphs(a_map, total, seed)),
        "<p>Point at an image, or choose the map and go on with the arrow keys, to see it. Choose a class in the list"
        " to see only it, with the Shift key one more.</p>",
        "<noscript><p>Without JavaScript the map stands still; point at an image for its name.</p></noscript>",
        f'<div id="embedding">\n{draw(a_map)}\n{_legend(a_map)}\n</div>',
        '<div id="card" role="status" hidden><img alt="" hidden><div><p></p><p></p><p></p><p></p></div></div>',
        f'<script type="application/json" id="data">{data}</script>',
    ]
    heading = f"Map of the images: {title}" if title else "Map of the images"
    return html.page(heading, parts, style=STYLE + SWATCHES, script=SCRIPT)
