"""Cut-outs, silhouettes and icons with transparency are as good as the same pictures flattened beforehand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from planted_images import photograph

from scripts.data.audit_images import build_parser, main
from scripts.lib.data.pixel_cache import PixelCache
from scripts.lib.data.pixel_cache_writer import write_pixel_cache

COUNT = 6


def mask(index: int, size: tuple[int, int]) -> Image.Image:
    """Return what shows of a picture: a shape with soft borders."""
    shows = Image.new("L", (size[0] * 4, size[1] * 4))
    box = (8 * index + 40, 60, size[0] * 4 - 60, size[1] * 4 - 12 * index - 40)
    (ImageDraw.Draw(shows).ellipse if index % 2 else ImageDraw.Draw(shows).rectangle)(box, 255)
    return shows.resize(size, Image.Resampling.BICUBIC)


def cut_out(index: int) -> Image.Image:
    """Return a part of a photograph; the rest of it is stored as black."""
    image = Image.composite(photograph(index), Image.new("RGB", (120, 96)), mask(index, (120, 96)))
    image.putalpha(mask(index, (120, 96)))
    return image


def silhouette(index: int) -> Image.Image:
    """Return a shape that is black, as all of its pixels are: only the alpha tells it."""
    return Image.merge("LA", [Image.new("L", (90, 90)), mask(index, (90, 90))])


def icon(index: int) -> Image.Image:
    """Return a sign of few colours, of which one is transparent."""
    image = Image.new("P", (64, 64), 0)
    image.putpalette([0, 0, 0, 200, 40 * index, 30, 20, 90, 40 * index])
    ImageDraw.Draw(image).ellipse((10, 10 + index, 50, 50), 1)
    ImageDraw.Draw(image).rectangle((20 + index, 24, 40, 40), 2)
    image.info["transparency"] = 0
    return image


def flattened(image: Image.Image) -> Image.Image:
    """Return a picture on white, by Pillow."""
    whole = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")


@pytest.fixture
def names(tmp_path: Path) -> list[str]:
    names = []
    for make in (cut_out, silhouette, icon):
        for index in range(COUNT):
            names.append(f"{make.__name__}/{index}.png")
            for folder, image in {"images": make(index), "flat": flattened(make(index))}.items():
                (tmp_path / folder / make.__name__).mkdir(parents=True, exist_ok=True)
                image.save(tmp_path / folder / names[-1])
    return names


def test_the_audit_calls_none_of_them_blank_or_bright_or_dark(names: list[str], tmp_path: Path) -> None:
    nothing = Image.new("LA", (90, 90), (255, 0))
    nothing.save(tmp_path / "images/icon/nothing.png")
    files = ["--output", tmp_path / "audit.csv", "--summary", tmp_path / "audit.json"]
    main(build_parser().parse_args(["--images", str(tmp_path / "images"), *map(str, files), "--threads", "1"]))
    rows = list(csv.DictReader((tmp_path / "audit.csv").read_text(encoding="utf-8").splitlines()))
    of_pictures = {row["finding"] for row in rows if row["file"] != "icon/nothing.png"}
    assert of_pictures <= {"alpha", "palette", "near_duplicate"}, "the shapes are alike"
    assert {row["finding"] for row in rows if row["file"] == "icon/nothing.png"} == {"alpha", "blank"}
    assert json.loads((tmp_path / "audit.json").read_text())["set_aside"] == 0


def test_training_sees_the_same_pixels_as_of_flattened_ones(names: list[str], tmp_path: Path) -> None:
    """So that the accuracy is the same too."""
    caches = []
    for folder in ("images", "flat"):
        write_pixel_cache(tmp_path / folder, names, 64, tmp_path / f"{folder}.cache", raw_limit=1 << 30, threads=1)
        caches.append(PixelCache(tmp_path / f"{folder}.cache"))
    for name in names:
        seen, flat = (cache.image(name).astype(int) for cache in caches)
        assert np.array_equal(seen, flat), name
        assert seen.std() > 10, "a picture shows"
