"""Measure how well copies are recognised: the first rule alone, and with the second one (altered_copies.py).

``python -m bench.copies`` fetches elpv and CIFAR-10, plants altered copies among their images and the sample's, and
prints Markdown tables of precision and recall. The thresholds of the second rule were chosen on other images: every
fifth one of CIFAR-10's test split, the sample of another seed, and every second cell of elpv.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from unittest import mock

import cv2
import matplotlib
import numpy as np
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont, ImageOps
from sklearn.datasets import load_digits

from bench import datasets
from bench.table import machine_line, markdown
from scripts.lib.base.console import run_cli
from scripts.lib.data import near_duplicates
from scripts.lib.data.image_checks import check_image
from scripts.lib.data.sample.render import render_image

#: elpv: cells 1735 to 1784 were photographed again, and have numbers that are higher by this.
CELLS, AGAIN = range(1735, 1785), 542
#: Images of a collection, and copies of each kind that are planted among them.
IMAGES, PLANTED = 1000, 100
#: The third of each five images of CIFAR-10's test split: the thresholds were chosen on the first of each five.
STEP, START = 5, 2
#: Images of the sample of this seed, so many a class.
SAMPLE_SEED, SAMPLE_CLASSES = 1, ("apple", "banana", "lemon", "orange", "pear", "watermelon")
ICON_COLOURS = ("#c03028", "#2060c0", "#20a040", "#202020")
ICON_SIGNS = range(0x2600, 0x27C0)

Change = Callable[[Image.Image, np.random.Generator], bytes]


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """Return an image as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def crop(image: Image.Image, share: float, draw: np.random.Generator) -> Image.Image:
    """Return a part of an image, anywhere in it, of this share of its width and height."""
    width, height = (max(4, round(length * share)) for length in image.size)
    left, top = draw.integers(image.width - width + 1), draw.integers(image.height - height + 1)
    return image.crop((left, top, left + width, top + height))


def turn(image: Image.Image, degrees: float, draw: np.random.Generator, trim: bool) -> Image.Image:
    """Return an image that was rotated to either side: its corners black, or trimmed until none is."""
    angle = degrees * draw.choice([-1, 1])
    rotated = image.rotate(angle, Image.Resampling.BICUBIC)
    if not trim:
        return rotated
    radians, (width, height) = np.deg2rad(degrees), image.size
    share = 1 / (np.cos(radians) + np.sin(radians) * max(width / height, height / width))
    border = [round(length * (1 - share) / 2) + 1 for length in (width, height)]
    return rotated.crop((border[0], border[1], width - border[0], height - border[1]))


def photograph_again(image: Image.Image, draw: np.random.Generator) -> Image.Image:
    """Return an image seen a little from the side, out of focus, in other light, and with noise."""
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    inward = draw.uniform(0, 0.05, (4, 2)) * (width, height) * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    seen = cv2.getPerspectiveTransform((corners + inward).astype(np.float32), corners)
    pixels = cv2.warpPerspective(pixels, seen, (width, height), flags=cv2.INTER_AREA)
    pixels = cv2.GaussianBlur(pixels, (0, 0), max(0.3, draw.uniform(0.5, 1.5) * min(height, width) / 128))
    light = (pixels / 255) ** draw.uniform(0.75, 1.35) * draw.uniform(0.8, 1.15) * draw.uniform(0.94, 1.06, 3)
    return Image.fromarray(np.clip(255 * light + draw.normal(0, 4, light.shape), 0, 255).astype(np.uint8))


def _kinds() -> dict[str, Change]:
    rotations = Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270
    kinds: dict[str, Change] = {
        f"JPEG of quality {quality}": lambda image, _, quality=quality: encoded(image, "JPEG", quality=quality)
        for quality in (95, 50, 20)
    }
    kinds["WebP of quality 30"] = lambda image, _: encoded(image, "WEBP", quality=30)
    kinds["half the size"] = lambda image, _: encoded(image.reduce(2))
    kinds["squashed to 0.7 of its width"] = lambda image, _: encoded(
        image.resize((round(0.7 * image.width), image.height), Image.Resampling.BICUBIC)
    )
    kinds["grey"] = lambda image, _: encoded(image.convert("L"))
    kinds["grey, mean of the channels"] = lambda image, _: encoded(
        Image.fromarray(np.asarray(image).mean(2).astype(np.uint8))
    )
    kinds["mirrored"] = lambda image, _: encoded(ImageOps.mirror(image))
    for degrees, rotation in zip((90, 180, 270), rotations, strict=True):
        kinds[f"rotated by {degrees}°"] = lambda image, _, rotation=rotation: encoded(image.transpose(rotation))
    for degrees in (2, 5, 10):
        kinds[f"rotated by {degrees}°, trimmed"] = lambda image, draw, degrees=degrees: encoded(
            turn(image, degrees, draw, trim=True)
        )
    kinds["rotated by 5°, black corners"] = lambda image, draw: encoded(turn(image, 5, draw, trim=False))
    for share in (95, 90, 80, 70):
        kinds[f"cropped to {share} % of each side"] = lambda image, draw, share=share: encoded(
            crop(image, share / 100, draw)
        )
    kinds["photographed again"] = lambda image, draw: encoded(photograph_again(image, draw), "JPEG", quality=80)
    return kinds


KINDS = _kinds()
Rule = Callable[[np.ndarray, np.ndarray], list[list[int]]]


def both_rules(grey: np.ndarray, colour: np.ndarray) -> list[list[int]]:
    """Return the groups of copies by both rules."""
    return near_duplicates.find_near_duplicates(grey, colour).groups


def first_rule(grey: np.ndarray, colour: np.ndarray) -> list[list[int]]:
    """Return the groups of copies by the first rule."""
    with mock.patch.object(near_duplicates, "find_links", return_value=[]):
        return both_rules(grey, colour)


RULES: Mapping[str, Rule] = {"first rule": first_rule, "both rules": both_rules}


@dataclass(frozen=True)
class Collection:
    """Thumbnails of images: of each file of a list."""

    grey: np.ndarray
    colour: np.ndarray

    @classmethod
    def of(cls, files: Sequence[bytes]) -> Collection:
        """Return the thumbnails as the audit makes them."""
        checked = [check_image(content) for content in files]
        return cls(
            *(np.array([list(getattr(image, name)) for image in checked], np.uint8) for name in ("grey", "colour"))
        )

    def joined(self, rule: Rule, more: Collection | None = None) -> set[tuple[int, int]]:
        """Return the pairs of images in one group, the lower index first, those of *more* behind all others."""
        both = [self, more] if more else [self]
        groups = rule(
            *(np.concatenate([getattr(collection, name) for collection in both]) for name in ("grey", "colour"))
        )
        return {pair for group in groups for pair in combinations(group, 2)}


def measure_kinds(files: Sequence[bytes]) -> list[Sequence[str]]:
    """Return a row for each kind of copy: recall and precision of the planted copies, by the first and by both rules.

    A pair of a copy and an image that the same rule joins with the original (or that is a copy of one of these)
    counts as right or wrong like that pair: only joins with strangers of the original are wrong.
    """
    base, count = Collection.of(files), len(files)
    known = {name: base.joined(rule) for name, rule in RULES.items()}
    totals = {name: np.zeros(3, int) for name in RULES}
    rows = []
    for number, (kind, change) in enumerate(KINDS.items()):
        draw = np.random.default_rng(number)
        originals = draw.choice(count, PLANTED, replace=False)
        copies = []
        for index in originals:
            with Image.open(io.BytesIO(files[index])) as image:
                copies.append(change(image.convert("RGB"), draw))
        planted = Collection.of(copies)
        row = [kind]
        for name, rule in RULES.items():
            joined = {pair for pair in base.joined(rule, planted) if pair[1] >= count}
            right = sum(
                (int(index), count + number_of_copy) in joined for number_of_copy, index in enumerate(originals)
            )
            sources = [
                {int(originals[index - count]) if index >= count else index for index in pair} for pair in joined
            ]
            wrong = sum(len(pair) == 2 and tuple(sorted(pair)) not in known[name] for pair in sources)
            totals[name] += (right, PLANTED, wrong)
            row += [f"{right / PLANTED:.2f}", _share(right, wrong)]
        rows.append(row)
        print(", ".join(row), file=sys.stderr, flush=True)
    total = [(f"{right / planted:.3f}", _share(right, wrong)) for right, planted, wrong in totals.values()]
    return [*rows, ["**all**", *(value for pair in total for value in pair)]]


def _share(right: int, wrong: int) -> str:
    return f"{right / (right + wrong):.2f}" if right + wrong else "–"


def icons() -> list[bytes]:
    """Return signs of a font in several colours on white."""
    path = str(Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf")
    signs = sorted(set(TTFont(path).getBestCmap()) & set(ICON_SIGNS))
    files = []
    for sign in signs:
        for colour in ICON_COLOURS:
            image = Image.new("RGB", (96, 96), "white")
            ImageDraw.Draw(image).text((48, 48), chr(sign), colour, ImageFont.truetype(path, 64), anchor="mm")
            files.append(encoded(image))
    return files


def digits() -> list[bytes]:
    """Return scikit-learn's handwritten digits as images of 28 x 28 pixels."""
    images = (Image.fromarray((15.9 * values).astype(np.uint8)) for values in load_digits().images)
    return [encoded(image.resize((28, 28), Image.Resampling.BICUBIC)) for image in images]


def sample() -> list[bytes]:
    """Return images of the sample generator."""
    each = IMAGES // len(SAMPLE_CLASSES)
    pictures = (
        render_image(name, index, seed=SAMPLE_SEED, size=160) for name in SAMPLE_CLASSES for index in range(1, each + 1)
    )
    return [encoded(Image.fromarray(picture), "JPEG", quality=90) for picture in pictures]


def measure_pairs(named: Mapping[str, bytes]) -> list[Sequence[str]]:
    """Return a row for each rule: how many of elpv's pairs it joins, and how many other pairs."""
    names = sorted(named)
    number = [int(re.findall(r"\d+", name)[-1]) for name in names]
    collection = Collection.of([named[name] for name in names])
    rows = []
    for name, rule in RULES.items():
        joined = {(number[low], number[high]) for low, high in collection.joined(rule)}
        right = joined & {(cell, cell + AGAIN) for cell in CELLS}
        rows.append((name, f"{len(right)} of {len(CELLS)}", f"{len(joined - right):,}"))
    return rows


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    return argparse.ArgumentParser(prog="python -m bench.copies", description=__doc__)


def main(args: argparse.Namespace) -> None:
    """Measure all collections, and print the tables."""
    cv2.setNumThreads(1)
    named: dict[str, dict[str, bytes]] = {}
    for name in ("elpv", "cifar10-test"):
        with tempfile.TemporaryDirectory() as folder:
            dataset = datasets.DATASETS[name]
            package = datasets.download(dataset, Path(folder))
            named[name] = {file: content for _, file, content in dataset.read(package)}
    collections = {
        "CIFAR-10": [content for _, content in sorted(named["cifar10-test"].items())][START::STEP][:IMAGES],
        "the sample": sample(),
        "elpv": [content for _, content in sorted(named["elpv"].items())][1::2][:IMAGES],
    }
    print(machine_line())
    print("\n" + "\n".join(markdown(("elpv", "pairs", "other pairs"), measure_pairs(named["elpv"]))))
    rows = []
    for name, files in {"icons": icons(), "digits": digits(), **collections}.items():
        collection = Collection.of(files)
        rows.append([name, f"{len(files):,}", *(f"{len(collection.joined(rule)):,}" for rule in RULES.values())])
    print("\n" + "\n".join(markdown(("nothing planted", "images", *(f"pairs, {name}" for name in RULES)), rows)))
    for name, files in collections.items():
        columns = [f"{measure}, {rule}" for rule in RULES for measure in ("recall", "precision")]
        print("\n" + "\n".join(markdown((name, *columns), measure_kinds(files))), flush=True)


if __name__ == "__main__":
    run_cli(build_parser, main)
