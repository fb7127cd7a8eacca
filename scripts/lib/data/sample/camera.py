"""A camera's faults: exposure, colour, blur, noise, and JPEG of poor quality."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np

from scripts.lib.data.sample.backgrounds import light_up
from scripts.lib.data.sample.looks import Rng
from scripts.lib.data.sample.noise import F32, NOISE_SIZE, noise_texture, shade_rgb


def develop(canvas: np.ndarray, rng: Rng) -> np.ndarray:
    """Photograph linear RGB: focus, exposure, white balance, vignette, tone curve, sensor noise; return uint8 RGB."""
    size = canvas.shape[0]
    blurs = [rng.uniform(0.0, 0.6), rng.uniform(0.5, 1.3), rng.uniform(1.2, 2.2)]
    blur = size / 320 * rng.choice(blurs, p=[0.62, 0.3, 0.08])
    if blur > 0.25:
        canvas = cv2.GaussianBlur(canvas, (0, 0), blur)
    if rng.random() < 0.06:
        length = max(1, round(size / 320 * rng.uniform(3, 8)))
        kernel = np.zeros((2 * length + 1, 2 * length + 1), F32)
        turn = rng.uniform(0, math.pi)
        dx, dy = round(length * math.cos(turn)), round(length * math.sin(turn))
        cv2.line(kernel, (length - dx, length - dy), (length + dx, length + dy), 1.0, 1)
        canvas = cv2.filter2D(canvas, -1, kernel / kernel.sum())
    mean = float(canvas[::4, ::4].mean())
    gain = float(np.clip(rng.uniform(0.16, 0.34) / max(mean, 1e-3), 0.35, 2.6))
    white = np.exp(rng.normal(0, 0.04, 3)) * gain
    axis = np.linspace(-1, 1, size, dtype=F32)
    vignette = 1 - F32(rng.uniform(0, 0.22)) * (axis[None, :] ** 2 + axis[:, None] ** 2)
    out: np.ndarray = light_up(canvas, white)
    shade_rgb(out, vignette)
    out = cv2.sqrt(np.maximum(out, F32(0)))  # gamma 2, then a shoulder that keeps highlights from clipping hard
    over = np.maximum(out - F32(0.8), F32(0))
    out -= over * over * F32(0.55)
    contrast = F32(2 * rng.uniform(-0.15, 0.35))
    out += (out - F32(0.5)) * (out - out * out) * contrast
    saturation = rng.uniform(0.72, 1.2)
    weights = np.array([0.3, 0.59, 0.11])
    out = cv2.transform(out, saturation * np.eye(3) + (1 - saturation) * weights[None, :])
    grain = rng.choice([rng.uniform(0.0, 0.012), rng.uniform(0.01, 0.045)], p=[0.65, 0.35])
    out += _sensor_noise(size, rng) * ((F32(1.3) - out) * F32(grain))
    return np.clip(out * F32(255) + F32(0.5), 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)
def _noise_sheet() -> np.ndarray:
    """Return sensor noise (2 * NOISE_SIZE, 2 * NOISE_SIZE, 3): brightness and some colour, unit deviation, about."""
    common, red, blue = (noise_texture(8, 0.9, salt) for salt in (21, 22, 23))
    sheet = np.stack([common * F32(0.8) + red * F32(0.6), common, common * F32(0.6) + blue * F32(0.8)], axis=2)
    return np.tile(sheet, (2, 2, 1))


def _sensor_noise(size: int, rng: Rng) -> np.ndarray:
    """Return noise (size, size, 3), cut at a random place out of the stored sheet."""
    y, x = (int(value) for value in rng.integers(0, NOISE_SIZE, 2))
    sheet = _noise_sheet()
    if size > NOISE_SIZE:
        sheet = np.tile(sheet, (-(-size // NOISE_SIZE), -(-size // NOISE_SIZE), 1))
    return sheet[y : y + size, x : x + size]


def compress_badly(image: np.ndarray, rng: Rng) -> np.ndarray:
    """Return the image as it comes back from a chat application: JPEG of low quality."""
    quality = int(rng.integers(28, 75))
    _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert decoded is not None  # what was just encoded
    return np.ascontiguousarray(decoded[..., ::-1])
