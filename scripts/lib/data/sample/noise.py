"""Noise textures, and what all that draws needs: mixing, shading, blurring, a smooth step."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from scripts.lib.data.sample.looks import Rng

F32 = np.float32
NOISE_SIZE = 512  #: edge of the tileable noise textures, in texels


@lru_cache(maxsize=16)
def noise_texture(octave: int, persistence: float, salt: int) -> np.ndarray:
    """Return tileable fractal noise, (NOISE_SIZE, NOISE_SIZE) float32, zero mean and unit deviation.

    *octave*: the coarsest grid has 2**octave cells an edge. It is the same for all images (they look into it at
    random places), so making it once a process is enough.
    """
    rng = np.random.default_rng(np.random.SeedSequence([octave, int(persistence * 1000), salt]))
    total = np.zeros((NOISE_SIZE, NOISE_SIZE), F32)
    amplitude = 1.0
    for level in range(octave, 9):
        cells = 2**level
        grid = np.pad(rng.standard_normal((cells, cells)).astype(F32), 2, mode="wrap")
        scale = NOISE_SIZE // cells
        big = cv2.resize(grid, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        total += F32(amplitude) * big[2 * scale : 2 * scale + NOISE_SIZE, 2 * scale : 2 * scale + NOISE_SIZE]
        amplitude *= persistence
    total -= total.mean()
    return total / total.std()


@lru_cache(maxsize=1)
def skin_texture() -> np.ndarray:
    """Return four noises of rising frequency in one texture (one look-up is cheaper than four): the last is pores."""
    return cv2.merge([noise_texture(*which) for which in ((2, 0.35, 1), (4, 0.55, 2), (6, 0.8, 3), (7, 0.4, 5))])


def look_up(texture: np.ndarray, u: np.ndarray, v: np.ndarray, scale: float, rng: Rng) -> np.ndarray:
    """Sample a noise texture at (u, v) * scale texels from a random origin."""
    x0, y0 = rng.uniform(0, NOISE_SIZE, 2)
    x, y = u * F32(scale) + F32(x0), v * F32(scale) + F32(y0)
    return cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def smoothstep(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def blur_wide(image: np.ndarray, sigma: float) -> np.ndarray:
    """Blur (h, w) or (h, w, 3) with a Gaussian, a wide one at a lower resolution."""
    factor = int(sigma / 1.5)
    if factor < 2:
        return cv2.GaussianBlur(image, (0, 0), max(sigma, 0.3))
    height, width = image.shape[:2]
    small = cv2.resize(image, (-(-width // factor), -(-height // factor)), interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / factor), (width, height), interpolation=cv2.INTER_LINEAR)


def shade_rgb(canvas: np.ndarray, factor: np.ndarray) -> None:
    """Multiply (h, w, 3) by (h, w) in place (numpy is slow over an innermost axis of three)."""
    cv2.multiply(canvas, cv2.merge([factor, factor, factor]), dst=canvas)


def mix_rgb(first: np.ndarray, second: np.ndarray, amount: np.ndarray) -> np.ndarray:
    """Return first + (second - first) * amount for images (h, w, 3) and an amount (h, w) in 0-1."""
    return cv2.blendLinear(first, second, 1 - amount, amount)


def mix(rgb: np.ndarray, colour: np.ndarray, amount: np.ndarray) -> None:
    """Blend *colour* (3,) into *rgb* (3, h, w) in place, by *amount* (h, w) in 0-1."""
    for channel in range(3):
        rgb[channel] += (F32(colour[channel]) - rgb[channel]) * amount
