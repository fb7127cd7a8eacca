"""Draw what is flat: polygons, leaves, stems and sepals."""

from __future__ import annotations

import math

import cv2
import numpy as np

from scripts.lib.data.sample.looks import Look, Rng, hsv
from scripts.lib.data.sample.noise import F32, blur_wide, mix_rgb
from scripts.lib.data.sample.surfaces import Frame, surface_points


def draw_polygon(
    canvas: np.ndarray,
    points: np.ndarray,
    colour: np.ndarray,
    alpha: np.ndarray | None = None,
    line: float = 0.0,
    gradient: tuple[float, float] | None = None,
    soft: float = 0.0,
) -> None:
    """Fill a polygon (n, 2) of pixel coordinates, antialiased; with *line* > 0 draw an open line of that width.

    *gradient*: factors on the colour at the left upper and the right lower end. *soft*: blur of the edge in pixels.
    """
    margin = int(line + 3 * soft) + 2
    low = np.maximum(np.floor(points.min(0)).astype(int) - margin, 0)
    high = np.minimum(np.ceil(points.max(0)).astype(int) + margin, [canvas.shape[1], canvas.shape[0]])
    width, height = (int(value) for value in high - low)
    if width <= 0 or height <= 0:
        return
    mask = np.zeros((height, width), np.uint8)
    fixed = np.round((points - low) * 16).astype(np.int32)
    if line > 0:
        cv2.polylines(mask, [fixed], False, 255, max(1, round(line)), cv2.LINE_AA, 4)
        if line < 1:
            mask = (mask * line).astype(np.uint8)
    else:
        cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, 4)
    if soft > 0:
        mask = blur_wide(mask, soft)
    amount = mask.astype(F32) * F32(1 / 255)
    first, last = gradient or (1.0, 1.0)
    slope = F32((last - first) / 2)
    ramp = (F32(first) + slope * _ramp(width))[None, :] + (slope * _ramp(height))[:, None]
    paint = cv2.merge([ramp * F32(channel) for channel in colour])
    window = (slice(low[1], high[1]), slice(low[0], high[0]))
    canvas[window] = mix_rgb(canvas[window], paint, amount)
    if alpha is not None:
        alpha[window] += (1 - alpha[window]) * amount


def _ramp(n: int) -> np.ndarray:
    return np.arange(n, dtype=F32) * F32(1 / max(1, n - 1))


def draw_leaf(
    canvas: np.ndarray,
    base: np.ndarray,
    angle: float,
    length: float,
    colour: np.ndarray,
    rng: Rng,
    alpha: np.ndarray | None = None,
    slim: float = 0.3,
    soft: float = 0.0,
    veins: bool = True,
) -> None:
    """Draw a leaf from *base* (pixels) towards *angle* (radians, y down): two halves of different brightness, veins."""
    t = np.linspace(0, 1, 14)
    bend = rng.uniform(-0.25, 0.25)
    along = np.array([math.cos(angle), math.sin(angle)])
    across = np.array([-along[1], along[0]])
    spine = base + length * (t[:, None] * along + (bend * t * t)[:, None] * across)
    half = (length * slim * np.sin(np.pi * t**0.8) * (1 - 0.25 * t))[:, None] * across
    bright, dark = rng.uniform(1.0, 1.35), rng.uniform(0.55, 0.9)
    slope = (rng.uniform(0.75, 1.0), rng.uniform(1.0, 1.3))
    for sign, factor in ((1, bright), (-1, dark)):
        outline = np.concatenate([spine, (spine + sign * half * rng.uniform(0.6, 1.05))[::-1]])
        draw_polygon(canvas, outline, colour * F32(factor), alpha, gradient=slope, soft=soft)
    if not veins:
        return
    draw_polygon(canvas, spine, colour * F32(1.6), None, line=max(0.8, length * 0.02), soft=soft)
    for i in range(3, 11, 2):
        for sign in (1, -1):
            tip = spine[min(i + 2, 13)] + sign * half[min(i + 1, 13)] * 0.8
            draw_polygon(canvas, np.stack([spine[i], tip]), colour * F32(1.35), None, line=0.6, soft=soft)


def leaf_colour(rng: Rng) -> np.ndarray:
    """Return a green as leaves have it, now and then yellowing."""
    return hsv(rng.uniform(68, 125), rng.uniform(0.4, 0.75), rng.uniform(0.25, 0.6))


def draw_stem(
    canvas: np.ndarray, alpha: np.ndarray, root: np.ndarray, look: Look, frame: Frame, lit: np.ndarray, rng: Rng
) -> np.ndarray:
    """Draw a stem from *root* (pixels) along the fruit's axis; return where it ends."""
    axis, scale = frame.rotation[:, 1], frame.scale
    t = np.linspace(0, 1, 8)[:, None]
    run = np.array([axis[0], -axis[1]]) * look.stem * scale
    curl = np.array([rng.normal(0, 0.25), rng.normal(0, 0.25)]) * look.stem * scale
    points = root + t * run + t * t * curl
    width = max(1.0, look.stem_width * scale)
    draw_polygon(canvas, points, look.stem_colour * lit * F32(0.6), alpha, line=width)
    highlight = points - [0.25 * width, 0.2 * width]
    draw_polygon(canvas, highlight, look.stem_colour * lit * F32(1.3), alpha, line=width * 0.45)
    return points[-1]


def draw_sepals(canvas: np.ndarray, alpha: np.ndarray, look: Look, frame: Frame, lit: np.ndarray, rng: Rng) -> None:
    """Draw the green crown of a strawberry: pointed leaves that start at the pole and follow the shoulder."""
    colour = hsv(rng.uniform(75, 115), rng.uniform(0.5, 0.75), rng.uniform(0.4, 0.65))
    reach = rng.uniform(0.55, 0.95)
    lift = rng.uniform(0.0, 0.25)
    order = rng.permutation(look.sepals)
    for k in order:
        turn = 2 * math.pi * (k + rng.uniform(-0.25, 0.25)) / look.sepals
        theta = np.linspace(0.02, reach * rng.uniform(0.8, 1.15), 6)
        wide = 0.34 * np.array([0.5, 0.9, 1.0, 0.75, 0.4, 0.0])
        borders = []
        for sign in (1, -1):
            phi = turn + sign * wide * 0.35 / np.maximum(np.sin(theta), 0.15)
            unit = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)])
            points = surface_points(look, unit) * (1.03 + lift * theta**2)
            borders.append(frame.rotation @ points)
        middle = (borders[0] + borders[1]) / 2
        if middle[2, 3:].mean() < -0.25:  # behind the fruit
            continue
        outline = frame.pixels_of(np.concatenate([borders[0], borders[1][:, ::-1]], axis=1))
        shade = F32(rng.uniform(0.65, 1.25))
        draw_polygon(canvas, outline, colour * lit * shade, alpha, gradient=(1.15, 0.8))
        width = max(0.6, 0.012 * frame.scale)
        draw_polygon(canvas, frame.pixels_of(middle), colour * lit * shade * F32(1.35), None, line=width)
