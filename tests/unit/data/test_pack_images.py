"""Images that are decoded once: the pixels that the test pipeline sees, in order, in a folder that is whole."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmcls.datasets import build_dataset
from mmcls.datasets.pipelines import Compose
from PIL import Image

from scripts.data.pack_images import build_parser, main
from scripts.lib.base.problems import UserError
from scripts.lib.data import pixel_cache_writer
from scripts.lib.data.pixel_cache import PIXELS, PixelCache
from scripts.lib.data.pixel_cache_writer import decode, reduction, write_pixel_cache
from scripts.lib.data.squares import FITS
from scripts.mmcls_plugins import LoadPackedImage  # noqa: F401  (registered for the data sets below)
from scripts.mmcls_plugins.images import Normalizer

NORM = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "to_rgb": True}
SHORT_SIDE = 40


def photograph(height: int, width: int, seed: int) -> Image.Image:
    """Return smooth colours, which survive JPEG, with some noise."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 255, (4, 5, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
    return Image.fromarray(np.clip(image + generator.integers(-9, 9, image.shape), 0, 255).astype(np.uint8))


@pytest.fixture
def images(tmp_path: Path) -> tuple[Path, list[str]]:
    """A folder of images of many kinds, and their names in an order that is no sorted one."""
    folder = tmp_path / "images"
    (folder / "苹果").mkdir(parents=True)
    sizes = {"苹果/z 1.jpg": (70, 90), "b.png": (90, 70), "c.jpg": (40, 61), "d.webp": (31, 30), "e.jpg": (130, 50)}
    for number, (name, (height, width)) in enumerate(sizes.items()):
        photograph(height, width, number).save(folder / name)
    Image.fromarray(np.full((50, 50), 99, np.uint8)).save(folder / "grey.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn, as telephones write
    photograph(60, 100, 9).save(folder / "turned.jpg", exif=turned)
    return folder, [*sizes, "grey.png", "turned.jpg"]


@pytest.mark.long
@pytest.mark.parametrize(
    "last",
    [{"type": "CenterCrop", "crop_size": 32}, *({"type": "MakeSquare", "fit": fit, "size": 32} for fit in FITS[1:])],
    ids=FITS,
)
def test_validation_sees_the_pixels_that_prediction_will_see(
    last: dict[str, Any], images: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, names = images
    assert write_pixel_cache(folder, names, SHORT_SIDE, tmp_path / "packed", raw_limit=1 << 30, threads=2) == "raw"
    split = tmp_path / "val.txt"
    split.write_text("".join(f"{name} 0\n" for name in names), encoding="utf-8")
    ends = [{"type": "ImageToTensor", "keys": ["img"]}, {"type": "Collect", "keys": ["img"]}]
    from_pack = [{"type": "LoadPackedImage", "folder": str(tmp_path / "packed")}, last, *ends]
    resize = {"type": "Resize", "size": (SHORT_SIDE, -1), "backend": "pillow"}
    from_files = [{"type": "LoadImageFromFile"}, resize, last, {"type": "Normalize", **NORM}, *ends]
    cached, files = (
        build_dataset(
            {"type": "SeededCustomDataset", "data_prefix": str(folder), "ann_file": str(split), "classes": ["a"],
             "pipeline": pipeline, "test_mode": True}
        )
        for pipeline in (from_pack, from_files)
    )  # fmt: skip
    normalizer = Normalizer(**NORM)
    for index in range(len(names)):
        seen = cached[index]["img"]
        assert seen.dtype == torch.uint8
        torch.testing.assert_close(normalizer(seen[None])[0], files[index]["img"], rtol=0, atol=1e-6)


def test_images_come_back_by_name_whatever_the_number_of_threads(
    images: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, names = images
    monkeypatch.setattr(pixel_cache_writer, "AHEAD", 2)
    for threads in (1, 3):
        write_pixel_cache(folder, names, SHORT_SIDE, tmp_path / str(threads), raw_limit=1 << 30, threads=threads)
    for name in ("images.bin", "index.csv", "pack.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "3" / name).read_bytes()
    cache = PixelCache(tmp_path / "3")
    for name in reversed(names):
        np.testing.assert_array_equal(cache.image(name), decode((folder / name).read_bytes(), SHORT_SIDE))
        assert min(cache.image(name).shape[:2]) == SHORT_SIDE


def test_too_many_pixels_are_kept_as_jpeg_and_hardly_differ(images: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, names = images
    assert write_pixel_cache(folder, names, SHORT_SIDE, tmp_path / "raw", raw_limit=1 << 30, threads=1) == "raw"
    assert write_pixel_cache(folder, names, SHORT_SIDE, tmp_path / "jpeg", raw_limit=1000, threads=1) == "jpeg"
    raw, jpeg = PixelCache(tmp_path / "raw"), PixelCache(tmp_path / "jpeg")
    assert (tmp_path / "jpeg" / PIXELS).stat().st_size < 0.5 * (tmp_path / "raw" / PIXELS).stat().st_size
    for name in names:
        assert raw.image(name).shape == jpeg.image(name).shape
        assert cv2.PSNR(raw.image(name), jpeg.image(name)) > 30


def test_headers_are_read_ahead_only_where_the_images_might_not_fit(
    images: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, names = images
    asked = []
    sizes = pixel_cache_writer._sizes
    monkeypatch.setattr(pixel_cache_writer, "_sizes", lambda *arguments: asked.append(arguments) or sizes(*arguments))
    most = 3 * SHORT_SIDE**2 * 10 * len(names)
    for limit, times in ((most, 0), (most - 1, 1)):
        assert write_pixel_cache(folder, names, SHORT_SIDE, tmp_path / str(limit), raw_limit=limit, threads=1) == "raw"
        assert len(asked) == times


def test_large_photographs_are_decoded_at_a_fraction_of_their_size(tmp_path: Path) -> None:
    assert [reduction(width, 4000, SHORT_SIDE) for width in (79, 159, 160, 319, 320, 639, 640, 4000)] == [
        1, 1, 2, 2, 4, 4, 8, 8,
    ]  # fmt: skip
    photograph(600, 800, 0).save(tmp_path / "large.jpg", quality=95)
    content = (tmp_path / "large.jpg").read_bytes()
    small = decode(content, SHORT_SIDE)
    whole = np.asarray(Image.open(tmp_path / "large.jpg").resize((53, SHORT_SIDE), Image.Resampling.BILINEAR))[
        ..., ::-1
    ]
    assert small.shape == (SHORT_SIDE, 53, 3) and cv2.PSNR(small, np.ascontiguousarray(whole)) > 30


@pytest.mark.parametrize(
    ("mode", "extension"),
    [
        *((mode, "png") for mode in ("L", "1", "LA", "P", "I;16", "see-through")),
        *(("L", extension) for extension in ("jpg", "bmp", "tif")),
    ],
)
def test_one_channel_of_a_grey_image_gives_the_pixels_of_three(mode: str, extension: str) -> None:
    image = photograph(90, 130, 3).convert("L")
    options = {"transparency": 7} if mode == "see-through" else {}
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image, np.uint16) * 250 + 7)
    elif mode == "P":
        image = photograph(90, 130, 3).convert("P")  # of colours: one channel would not do
    elif mode != "see-through":
        image = image.convert(mode)
    turned = Image.Exif()
    turned[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(extension, extension), exif=turned, **options)
    content = buffer.getvalue()
    whole = mmcv.imfrombytes(content)
    assert whole.ndim == 3
    if mode == "see-through":
        whole = np.where(whole == 7, np.uint8(255), whole)
    size = pixel_cache_writer.size_in_cache(*whole.shape[1::-1], SHORT_SIDE)
    expected = mmcv.imresize(whole, size, interpolation="bilinear", backend="pillow")
    np.testing.assert_array_equal(decode(content, SHORT_SIDE), expected)


@pytest.mark.parametrize(("option", "background"), [([], "white"), (["--background", "#1020f0"], "#1020f0")])
def test_transparent_images_are_as_if_they_had_been_flattened(
    option: list[str], background: str, tmp_path: Path
) -> None:
    shapes = {"cut-out.png": "RGBA", "silhouette.png": "LA", "icon.gif": "P", "badge.webp": "RGBA", "sheet.tif": "RGBA"}
    for number, (name, mode) in enumerate(shapes.items()):
        image = photograph(60, 80, number).convert("RGB")
        shows = Image.new("L", image.size, 0)
        shows.paste(255, (10, 10, 50, 40))
        flat = Image.new("RGB", image.size, background)
        if mode == "LA":
            image = image.convert("L")
        if mode == "P":
            image = image.quantize(31)
            image.paste(31, mask=shows.point(lambda value: 255 - value))
        flat.paste(image.convert("RGB"), mask=shows)
        if mode != "P":
            image.putalpha(shows)
        for folder in ("as they are", "flattened"):
            (tmp_path / folder).mkdir(exist_ok=True)
        options = {"transparency": 31} if mode == "P" else {"lossless": True} if name.endswith("webp") else {}
        image.save(tmp_path / "as they are" / name, **options)
        flat.save(tmp_path / "flattened" / name, "PNG")
    (tmp_path / "train.txt").write_text("".join(f"{name} 0\n" for name in shapes), encoding="utf-8")
    for folder in ("as they are", "flattened"):
        common = [
            "--splits",
            str(tmp_path / "train.txt"),
            "--short-side",
            "40",
            "--output",
            str(tmp_path / f"{folder} packed"),
        ]
        main(build_parser().parse_args(["--images", str(tmp_path / folder), *common, *option]))
    as_they_are, flattened = (
        (tmp_path / f"{folder} packed" / PIXELS).read_bytes() for folder in ("as they are", "flattened")
    )
    assert as_they_are == flattened


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0 cut off", None])
def test_a_broken_image_is_named(images: tuple[Path, list[str]], tmp_path: Path, content: bytes | None) -> None:
    folder, names = images
    (folder / "broken.jpg").write_bytes((folder / "c.jpg").read_bytes()[:-50] if content is None else content)
    with pytest.raises(
        UserError, match=r"broken\.jpg: (the file is empty|a text|Truncated|a broken image).*; repair it"
    ):
        write_pixel_cache(folder, [*names, "broken.jpg"], SHORT_SIDE, tmp_path / "packed", raw_limit=1 << 30, threads=2)


def test_the_command_packs_each_image_once(images: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, names = images
    train, val, output = tmp_path / "train.txt", tmp_path / "val.txt", tmp_path / "packed" / "40"
    train.write_text("".join(f"{name} 0\n" for name in names[:4]), encoding="utf-8")
    val.write_text("".join(f"{name} 1\n" for name in names[3:]), encoding="utf-8")
    words = ["--images", folder, "--splits", train, val, "--short-side", SHORT_SIDE, "--output", output, "--threads", 1]
    main(build_parser().parse_args([str(word) for word in words]))
    assert list(PixelCache(output).images) == names


def test_a_pack_that_is_not_whole_is_refused(images: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, names = images
    write_pixel_cache(folder, names, SHORT_SIDE, tmp_path / "packed", raw_limit=1 << 30, threads=1)
    with pytest.raises(UserError, match=r"other\.jpg is not in the pixel cache"):
        PixelCache(tmp_path / "packed").image("other.jpg")
    with open(tmp_path / "packed" / PIXELS, "ab") as file:
        file.write(b"more")
    with pytest.raises(UserError, match=r"images\.bin has not the length"):
        PixelCache(tmp_path / "packed")
    with pytest.raises(UserError, match="no pixel cache"):
        PixelCache(tmp_path)


def test_pixels_of_a_pack_cannot_be_written(images: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, names = images
    write_pixel_cache(folder, names, SHORT_SIDE, tmp_path / "packed", raw_limit=1 << 30, threads=1)
    with pytest.raises(ValueError, match="read-only"):
        PixelCache(tmp_path / "packed").image(names[0])[:] = 0


def test_the_training_pipeline_takes_packed_images(images: tuple[Path, list[str]], tmp_path: Path) -> None:
    from mmcls.datasets import PIPELINES  # noqa: F401  (mmcls's own steps are registered by importing it)

    folder, names = images
    write_pixel_cache(folder, names, SHORT_SIDE, tmp_path / "packed", raw_limit=1 << 30, threads=1)
    steps = Compose(
        [
            {"type": "LoadPackedImage", "folder": str(tmp_path / "packed")},
            {"type": "RandomFlip", "flip_prob": 1.0, "direction": "horizontal"},
            {"type": "RandomResizedCrop", "size": 32, "scale": (0.35, 1.0)},
            {"type": "ImageToTensor", "keys": ["img"]},
        ]
    )
    for name in names:
        image = steps({"img_info": {"filename": name}, "img_prefix": str(folder)})["img"]
        assert image.shape == (3, 32, 32) and image.dtype == torch.uint8
