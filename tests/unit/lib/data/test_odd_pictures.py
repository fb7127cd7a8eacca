"""Pictures that are dark, bright, blurred or of low information: planted ones are named, whole collections are not."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from PIL import Image
from planted_images import encoded
from sklearn.datasets import load_digits

from scripts.lib.data.auditing import Audited
from scripts.lib.data.image_checks import check_image, measure_edges
from scripts.lib.data.odd_pictures import find_odd
from scripts.lib.data.sample.render import render_image

Change = Callable[[np.ndarray], np.ndarray]


def noise(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


#: How a picture is spoilt, and what it is called then.
PLANTED: dict[str, tuple[Change, str]] = {
    "underexposed": (lambda image: (image * 0.1).astype(np.uint8), "dark"),
    "overexposed": (lambda image: (255 - (255.0 - image) * 0.1).astype(np.uint8), "bright"),
    "out of focus": (lambda image: cv2.GaussianBlur(image, (0, 0), 5), "blurred"),
    "fog": (lambda image: (120 + image * 0.05).astype(np.uint8), "low_information"),
    "a wall": (lambda image: (120 + noise(image.shape) * 0.1).astype(np.uint8), "low_information"),
    "a broken sensor": (lambda image: noise(image.shape), "low_information"),
}


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [render_image(name, number, size=128) for name in ("apple", "banana", "pear") for number in range(1, 8)]


def names_of(pictures: list[np.ndarray]) -> dict[int, str]:
    """Return what the odd ones of some pictures are called, by their position."""
    checked = [check_image(encoded(Image.fromarray(picture), "PNG")) for picture in pictures]
    thumbnails = (np.array([list(getattr(image, name)) for image in checked], np.uint8) for name in ("grey", "colour"))
    edges = (np.array([getattr(image, name) for image in checked]) for name in ("sharpness", "roughness"))
    audited = Audited(checked, [], *thumbnails, *edges, len(checked))
    return {index: name for index, name, _ in find_odd(audited, np.arange(len(pictures)))}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_picture_is_named_and_no_other(kind: str, pictures: list[np.ndarray]) -> None:
    spoil, name = PLANTED[kind]
    assert names_of(pictures) == {}
    assert names_of([*pictures, spoil(pictures[0])]) == {len(pictures): name}


@pytest.mark.parametrize("kind", PLANTED)
def test_what_all_pictures_are_is_not_odd(kind: str, pictures: list[np.ndarray]) -> None:
    assert names_of([PLANTED[kind][0](picture) for picture in pictures]) == {}


def test_digits_which_have_no_edges_and_icons_on_white_are_not_odd() -> None:
    digits = [np.kron(15.9 * image, np.ones((2, 2))).astype(np.uint8) for image in load_digits().images[:200]]
    assert names_of([cv2.resize(digit, (28, 28), interpolation=cv2.INTER_CUBIC) for digit in digits]) == {}
    icon = np.full((64, 64, 3), 255, np.uint8)
    icons = [cv2.circle(icon.copy(), (32, 32), radius, (200, 40, 40), 2) for radius in range(8, 28)]
    assert names_of(icons) == {}


def test_no_pictures_are_no_findings() -> None:
    assert names_of([]) == {}


def test_sharpness_and_roughness_of_slopes_edges_noise_and_nothing() -> None:
    slope = np.add.outer(np.arange(0, 240, 4), np.arange(0, 240, 4)).clip(0, 255).astype(np.uint8)[:32, :32]
    assert measure_edges(slope)[0] == pytest.approx(0.25, abs=0.01)
    halves = np.zeros((64, 64), np.uint8)
    halves[:, 32:] = 200
    assert measure_edges(halves)[0] == pytest.approx(0.5, abs=0.02)
    assert measure_edges(noise((256, 256))) == pytest.approx((4, 1), abs=0.1)
    assert measure_edges(np.full((1, 40), 7, np.uint8)) == (1, 0)
