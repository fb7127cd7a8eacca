"""Measure which pictures the audit calls dark, bright, blurred or of low information.

``python -m bench.odd_pictures`` counts the findings in collections of real pictures, then spoils some pictures of each
and counts how many of those are named, and by the right word. The limits (scripts/lib/data/odd_pictures.py) were chosen
while looking at the findings in the same collections.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from bench import datasets
from bench.copies import digits, encoded, icons, sample
from bench.table import machine_line, markdown
from scripts.lib.base.console import run_cli
from scripts.lib.data.auditing import Audited
from scripts.lib.data.decoding import decode_image
from scripts.lib.data.image_checks import Oddity, Status, check_image
from scripts.lib.data.odd_pictures import find_odd

FINDINGS = ("dark", "bright", "blurred", "low_information")
#: Pictures of a collection that are spoilt in each way; of large collections, one of so many is looked at.
PLANTED, STEPS = 100, {"cifar10-test": 5}
Change = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def dim(share: float) -> Change:
    """Return what leaves a picture this share of its light."""
    return lambda picture, _: picture * share


def wash(share: float) -> Change:
    """Return what leaves a picture this share of what it lacks to white."""
    return lambda picture, _: 255 - (255.0 - picture) * share


def defocus(share: float) -> Change:
    """Return what blurs a picture by a Gaussian whose deviation is this share of the shorter side."""
    return lambda picture, _: cv2.GaussianBlur(picture, (0, 0), share * min(picture.shape[:2]))


def veil(share: float) -> Change:
    """Return what leaves a picture this share of its contrast, around grey."""
    return lambda picture, _: 128 + (picture - 128.0) * share


def disturb(picture: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Return noise of the same size."""
    return draw.integers(0, 256, picture.shape)


KINDS: Mapping[str, tuple[Change, str]] = {
    "25 % of its light": (dim(0.25), "dark"),
    "10 % of its light": (dim(0.1), "dark"),
    "25 % of what it lacks to white": (wash(0.25), "bright"),
    "10 % of what it lacks to white": (wash(0.1), "bright"),
    "blurred by 1 % of a side": (defocus(0.01), "blurred"),
    "blurred by 2 % of a side": (defocus(0.02), "blurred"),
    "blurred by 5 % of a side": (defocus(0.05), "blurred"),
    "25 % of its contrast": (veil(0.25), "low_information"),
    "5 % of its contrast": (veil(0.05), "low_information"),
    "noise": (disturb, "low_information"),
}


def audited(files: Sequence[bytes]) -> Audited:
    """Return what the audit knows of files that can be read."""
    checks = [check_image(content) for content in files]
    thumbnails = [np.array([list(getattr(image, name)) for image in checks], np.uint8) for name in ("grey", "colour")]
    edges = [np.array([getattr(image, name) for image in checks], np.float32) for name in ("sharpness", "roughness")]
    return Audited(checks, [], *thumbnails, *edges, len(checks))


def joined(first: Audited, second: Audited) -> Audited:
    """Return both."""
    names = ("grey", "colour", "sharpness", "roughness")
    arrays = (np.concatenate([getattr(first, name), getattr(second, name)]) for name in names)
    return Audited(first.checks + second.checks, [], *arrays, first.decoded + second.decoded)


def named(images: Audited) -> dict[int, str]:
    """Return the findings by the position of the image; a blank image is called so by another rule."""
    blank = {index for index, image in enumerate(images.checks) if Oddity.BLANK in image.oddities}
    seen = [index for index in range(len(images.checks)) if index not in blank]
    return {index: name for index, name, _ in find_odd(images, np.array(seen, np.intp))} | dict.fromkeys(blank, "blank")


def recalls(files: Sequence[bytes], base: Audited) -> list[str]:
    """Return of each kind of spoilt pictures the share that is named, and that has the right name if others have not.

    Raises
    ------
    AssertionError : another picture is named because of those: the findings of the rest must not depend on a tenth.
    """
    count, before = len(files), named(base)
    sound = [index for index in range(count) if index not in before]
    cells = []
    for number, (change, name) in enumerate(KINDS.values()):
        draw = np.random.default_rng(number)
        planted = []
        for index in draw.choice(sound, min(PLANTED, count // 10), replace=False):
            picture = change(decode_image(files[index]), draw)
            planted.append(encoded(Image.fromarray(picture.clip(0, 255).astype(np.uint8)[..., ::-1]), "BMP"))
        after = named(joined(base, audited(planted)))
        assert not {index for index in after if index < count} - before.keys()
        names = Counter(name for index, name in after.items() if index >= count)
        right, others = names[name] / len(planted), (names.total() - names[name]) / len(planted)
        cells.append(f"{right:.2f}" + (f" (+{others:.2f})" if others else ""))
    return cells


def collect(name: str) -> list[bytes]:
    """Return the files of a collection, of a large one some."""
    if name not in datasets.DATASETS:
        return {"the sample": sample, "digits": digits, "icons": icons}[name]()
    with tempfile.TemporaryDirectory() as folder:
        dataset = datasets.DATASETS[name]
        package = datasets.download(dataset, Path(folder))
        contents = [content for _, _, content in sorted(dataset.read(package))]
    return contents[:: STEPS.get(name, 1)]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    return argparse.ArgumentParser(prog="python -m bench.odd_pictures", description=__doc__)


def main(args: argparse.Namespace) -> None:
    """Measure all collections, and print the tables."""
    cv2.setNumThreads(1)
    counted, planted = [], []
    collections = ("elpv", "cifar10-test", "the sample", "digits", "icons", "stamps", "clipart", "flags")
    for name in collections:
        files = [content for content in collect(name) if check_image(content).status is Status.READABLE]
        base = audited(files)
        counts = Counter(named(base).values())
        counted.append([name, f"{len(files):,}", *(str(counts[finding]) for finding in (*FINDINGS, "blank"))])
        planted.append(recalls(files, base))
        print(", ".join(counted[-1]), file=sys.stderr, flush=True)
    print(machine_line())
    print("\n" + "\n".join(markdown(("nothing planted", "images", *FINDINGS, "blank"), counted)))
    rows = [(kind, *cells) for kind, *cells in zip(KINDS, *planted, strict=True)]
    print("\n" + "\n".join(markdown(("planted", *collections), rows)))


if __name__ == "__main__":
    run_cli(build_parser, main)
