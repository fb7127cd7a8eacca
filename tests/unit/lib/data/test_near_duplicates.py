"""Copies to the eye are found however they were saved; pictures that only look alike do not count as copies."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps
from planted_images import encoded, photograph

from scripts.lib.data import altered_copies, near_duplicates
from scripts.lib.data.image_checks import check_image
from scripts.lib.data.near_duplicates import find_near_duplicates


def thumbnails(files: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    checked = [check_image(content) for content in files]
    grey, colour = (
        [np.frombuffer(getattr(picture, name), np.uint8) for picture in checked] for name in ("grey", "colour")
    )
    return np.array(grey), np.array(colour)


def groups(pictures: Sequence[Image.Image | bytes]) -> list[list[int]]:
    return find_near_duplicates(
        *thumbnails([picture if isinstance(picture, bytes) else encoded(picture, quality=92) for picture in pictures])
    ).groups


OTHERS = [photograph(seed) for seed in range(100, 140)]
PICTURE = photograph(7)
ALTERED: dict[str, Callable[[Image.Image], Image.Image | bytes]] = {
    "png": lambda image: encoded(image, "PNG"),
    "quality 40": lambda image: encoded(image, quality=40),
    "webp": lambda image: encoded(image, "WEBP", quality=70),
    "half": lambda image: image.resize((60, 48), Image.Resampling.BICUBIC),
    "three times": lambda image: image.resize((360, 288), Image.Resampling.BICUBIC),
    "squashed": lambda image: image.resize((96, 96), Image.Resampling.BICUBIC),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.8),
    "contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.2),
    "mirrored": ImageOps.mirror,
}


@pytest.mark.parametrize("name", ALTERED)
def test_an_altered_copy_is_found_and_nothing_else(name: str) -> None:
    assert groups([PICTURE, *OTHERS, ALTERED[name](PICTURE)]) == [[0, len(OTHERS) + 1]]


def cropped(image: Image.Image, share: float) -> Image.Image:
    width, height = (round(length * share) for length in image.size)
    return image.crop((image.width - width, 0, image.width, height))


PICTURES = [photograph(seed, detail=(9, 11)) for seed in range(200, 320)]
CHANGED: dict[str, tuple[Callable[[Image.Image], Image.Image], str]] = {
    "cropped": (lambda image: cropped(image, 0.85), "one shows a part of the other"),
    "grey": (lambda image: image.convert("L").convert("RGB"), "one has no colours"),
    "a quarter": (lambda image: image.transpose(Image.Transpose.ROTATE_90), "one is rotated by 90 degrees"),
    "three quarters": (lambda image: image.transpose(Image.Transpose.ROTATE_270), "one is rotated by 90 degrees"),
    "half a turn": (lambda image: image.rotate(180), "one is rotated by 180 degrees"),
    "mirrored": (ImageOps.mirror, "one is mirrored"),
    "turned a little": (lambda image: image.rotate(4, Image.Resampling.BICUBIC), "changed or photographed again"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_copy_that_was_laid_out_anew_is_found_with_what_was_done_to_it(name: str) -> None:
    change, words = CHANGED[name]
    copies = find_near_duplicates(
        *thumbnails([encoded(picture, quality=92) for picture in (*PICTURES, change(PICTURES[17]))])
    )
    assert copies.groups == [[17, len(PICTURES)]]
    assert copies.how == {(17, len(PICTURES)): words}


def tinted(image: Image.Image, strength: float) -> Image.Image:
    """Return a picture in shades of one colour, from orange to blue, as far from grey as *strength*."""
    tint = np.linspace(-1, 1, image.width)[None, :, None] * strength * np.array([1.0, 0.0, -1.0])
    return Image.fromarray(np.clip(np.asarray(image.convert("L").convert("RGB")) + tint, 0, 255).astype(np.uint8))


def mean_of_channels(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image).mean(2).astype(np.uint8)).convert("RGB")


SMALL = [photograph(seed, detail=(16, 16)).resize((32, 32), Image.Resampling.BOX) for seed in range(400, 480)]
HARDER: dict[str, tuple[Image.Image, Callable[[Image.Image], Image.Image]]] = {
    "faint colours, made grey": (tinted(SMALL[3], 12), lambda image: image.convert("L").convert("RGB")),
    "all blue, made grey by the mean": (
        ImageOps.colorize(SMALL[3].convert("L"), (0, 0, 40), (60, 90, 255)), mean_of_channels,
    ),
    "rotated by 5 degrees, black corners": (SMALL[3], lambda image: image.rotate(5, Image.Resampling.BICUBIC)),
}  # fmt: skip


@pytest.mark.parametrize("name", HARDER)
def test_a_copy_of_a_small_picture_is_found(name: str) -> None:
    picture, change = HARDER[name]
    pictures = [encoded(image, "PNG") for image in (*SMALL[:3], picture, *SMALL[4:], change(picture))]
    assert groups(pictures) == [[3, len(SMALL)]]


def cells(count: int) -> list[Image.Image]:
    """Return pictures that have the same frame and bars, like solar cells, under faint stains of their own."""
    bars = np.zeros((150, 150))
    bars[[8, 9, 50, 51, 98, 99, 140, 141]] = bars[:, [8, 9, 140, 141]] = 110
    drawn = []
    for seed in range(count):
        coarse = np.random.default_rng(seed).normal(0, 6, (9, 9)).astype(np.float32)
        stains = np.asarray(Image.fromarray(coarse).resize((150, 150), Image.Resampling.BICUBIC))
        drawn.append(Image.fromarray(np.clip(110 + bars + stains, 0, 255).astype(np.uint8)).convert("RGB"))
    return drawn


@pytest.mark.long
def test_crops_of_pictures_that_all_look_alike_are_found_and_no_strangers() -> None:
    pictures = cells(300)
    assert groups(pictures) == []
    crops = []
    for seed in range(20):
        size, (left, top) = 135 - seed, np.random.default_rng(seed).integers(0, 16 + seed, 2).tolist()
        crops.append(pictures[seed].crop((left, top, left + size, top + size)))
    joined = [tuple(group) for group in groups([*pictures, *crops])]
    right = set(joined) & {(index, 300 + index) for index in range(20)}
    assert len(right) >= 11, "the coarse windows alone find 7"
    assert len(joined) == len(right)


def rotated(image: Image.Image, index: int) -> Image.Image:
    degrees = (4, 9)[index % 2]
    border = round(75 - 75 / (np.cos(np.deg2rad(degrees)) + np.sin(np.deg2rad(degrees)))) + 1
    image = image.rotate(degrees * (-1) ** (index // 2), Image.Resampling.BICUBIC)
    return image.crop((border, border, 150 - border, 150 - border))


def from_aside(image: Image.Image, index: int) -> Image.Image:
    left, top, right, bottom = np.random.default_rng(index).uniform(2, 9, 4).tolist()
    corners = (left, 0, 0, 150 - top, 150 - right, 150, 150, bottom)
    return image.transform(image.size, Image.Transform.QUAD, corners, Image.Resampling.BICUBIC)


@pytest.mark.long
@pytest.mark.parametrize(("change", "least"), [(rotated, 9), (from_aside, 9)])
def test_pictures_that_all_look_alike_are_found_rotated_and_from_aside_and_no_strangers(
    change: Callable[[Image.Image, int], Image.Image], least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whether the search is needed is judged by planted crops, which these pictures do not miss.
    monkeypatch.setattr(altered_copies, "misses_crops", lambda *_: True)
    pictures = cells(300)
    joined = [tuple(group) for group in groups([*pictures, *(change(pictures[seed], seed) for seed in range(20))])]
    right = set(joined) & {(index, 300 + index) for index in range(20)}
    assert len(right) >= least
    assert len(joined) == len(right)


def test_one_of_pictures_that_all_look_alike_is_found_rotated_with_black_corners(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(altered_copies, "misses_crops", lambda *_: True)
    pictures = cells(100)
    assert groups([*pictures, pictures[3].rotate(5, Image.Resampling.BICUBIC)]) == [[3, 100]]


def icons() -> list[Image.Image]:
    """Return a hundred signs in four colours on white: the same shape in another colour is another picture."""
    drawn = []
    for seed in range(25):
        strokes = np.random.default_rng(seed).integers(10, 86, (3, 4))
        for colour in ("#c03028", "#2060c0", "#20a040", "#202020"):
            picture = Image.new("RGB", (96, 96), "white")
            for stroke in strokes.tolist():
                ImageDraw.Draw(picture).line(stroke, fill=colour, width=9)
            drawn.append(picture)
    return drawn


def test_icons_in_several_colours_are_no_copies() -> None:
    assert groups(icons()) == []


def test_the_number_of_threads_changes_nothing() -> None:
    changed = [change(PICTURES[index]) for index, (change, _) in enumerate(CHANGED.values())]
    grey, colour = thumbnails([encoded(picture) for picture in (*PICTURES, *changed)])
    assert find_near_duplicates(grey, colour, threads=1) == find_near_duplicates(grey, colour, threads=3)


def test_all_altered_copies_are_one_group() -> None:
    altered = [alter(PICTURE) for alter in ALTERED.values()]
    assert groups([*OTHERS, PICTURE, *altered]) == [list(range(len(OTHERS), len(OTHERS) + 1 + len(altered)))]


def test_other_colours_are_another_picture() -> None:
    red, green, blue = PICTURE.split()
    assert groups([PICTURE, Image.merge("RGB", (blue, green, red)), *OTHERS]) == []


def of_one_line(number: int, count: int = 1) -> list[Image.Image]:
    """Return photographs of parts off one line: the same but for a spot, each somewhere else, and noise."""
    copies = []
    for seed in range(number, number + count):
        generator = np.random.default_rng(seed)
        image = np.asarray(photograph(50), np.int16) + generator.integers(-3, 4, (96, 120, 3))
        left, top = 12 * (seed % 10), 16 * (seed // 10 % 6)
        image[top : top + 12, left : left + 12] -= 70
        copies.append(Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)))
    return copies


def test_different_parts_off_one_line_are_no_copies_but_their_copies_are() -> None:
    parts = of_one_line(0, 60)
    assert groups(parts) == []
    assert groups([*parts, parts[17].resize((240, 192), Image.Resampling.BICUBIC)]) == [[17, 60]]


def test_a_chain_of_small_steps_does_not_join_its_ends() -> None:
    # A film: each picture looks like the next, the first and the last have nothing in common.
    first, last = (np.asarray(photograph(seed), np.float64) for seed in (1, 2))
    film = [Image.fromarray(np.rint(first + (last - first) * step / 300).astype(np.uint8)) for step in range(301)]
    copies = groups(film)
    assert copies, "neighbours are copies"
    assert max(group[-1] - group[0] for group in copies) < 60


def test_pictures_without_contrast_are_not_compared() -> None:
    assert groups([Image.new("RGB", (90, 90), colour) for colour in ("white", "black", "white", "#fefefe")]) == []


def test_nothing_and_one_picture_have_no_copies() -> None:
    assert find_near_duplicates(np.zeros((0, 1024), np.uint8), np.zeros((0, 128), np.uint8)).groups == []
    assert groups([PICTURE]) == []
    assert groups([PICTURE, PICTURE]) == [[0, 1]]


def test_thousands_of_equal_looking_pictures_cost_time_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    grey, colour = thumbnails([encoded(PICTURE)])
    compared = []
    features = near_duplicates.Pictures.features

    def counting(pictures: near_duplicates.Pictures, places: np.ndarray, mirrored: bool = False) -> np.ndarray:
        compared.append(len(places))
        return features(pictures, places, mirrored)

    monkeypatch.setattr(near_duplicates.Pictures, "features", counting)
    work = {}
    for count in (1000, 4000):
        noise = np.random.default_rng(count).integers(-1, 2, (count, 1024))
        compared.clear()
        began = time.process_time()
        copies = find_near_duplicates((grey + noise).astype(np.uint8), np.repeat(colour, count, axis=0)).groups
        assert time.process_time() - began < 30
        assert len(copies[0]) > 0.9 * count
        work[count] = sum(compared)
    assert work[4000] < 6 * work[1000]


def test_the_order_of_the_pictures_does_not_matter() -> None:
    pictures = [PICTURE, *OTHERS[:20], ALTERED["half"](PICTURE), OTHERS[3].resize((300, 240))]
    grey, colour = thumbnails([picture if isinstance(picture, bytes) else encoded(picture) for picture in pictures])
    order = np.random.default_rng(0).permutation(len(grey))
    copies = {frozenset(order[group].tolist()) for group in find_near_duplicates(grey[order], colour[order]).groups}
    assert copies == {frozenset(group) for group in find_near_duplicates(grey, colour).groups} == {
        frozenset({0, 21}), frozenset({4, 22}),
    }  # fmt: skip
