"""What lies behind the fruits: a table of wood, cloth, stone, tiles or turf, a wall, or a tree out of focus."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from scripts.lib.data.sample.drawing import draw_leaf, draw_polygon, leaf_colour
from scripts.lib.data.sample.looks import Rng, hsv
from scripts.lib.data.sample.noise import F32, blur_wide, look_up, mix_rgb, noise_texture, shade_rgb, smoothstep
from scripts.lib.data.sample.shading import Light


@dataclass(frozen=True)
class View:
    """How the camera looks at the table: *elevation* in radians (pi/2: from above); *horizon* in 0-1, <0: not seen."""

    elevation: float
    horizon: float
    hanging: bool  # on a tree, before leaves, instead of on a table


Grid = tuple[np.ndarray, np.ndarray]  #: table coordinates (u, v) of each pixel, about 0-1 across the picture


def table_grid(view: View, size: int, rng: Rng) -> Grid:
    """Return the coordinates on the table under each pixel: turned, and shrinking with distance when seen aslant."""
    axis = (np.arange(size, dtype=F32) + F32(0.5)) / F32(size)
    x, y = np.meshgrid(axis - F32(0.5), axis)
    slant = math.cos(view.elevation)
    depth = 1 / np.maximum(F32(1.0) - F32(0.75 * slant) * (1 - y), F32(0.15))
    u, v = x * depth, (y - 1) * depth / F32(max(0.35, math.sin(view.elevation)))
    turn = rng.normal(0, 0.25) if rng.random() < 0.7 else rng.uniform(0, math.pi)
    c, s = F32(math.cos(turn)), F32(math.sin(turn))
    return c * u - s * v, s * u + c * v


def _tinted(value: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Map (h, w) in about 0-1 to colours between *low* and *high* (h, w, 3)."""
    value = np.clip(value, -0.2, 1.3).astype(F32, copy=False)
    return cv2.merge([F32(low[k]) + F32(high[k] - low[k]) * value for k in range(3)])


def wood(grid: Grid, rng: Rng) -> np.ndarray:
    u, v = grid
    planks = rng.uniform(2, 7)
    row = np.floor(v * F32(planks))
    slip = np.sin(row * F32(12.9898)) * F32(43.7)
    slip -= np.floor(slip)
    scale = 420 * rng.uniform(0.6, 1.3)
    grain = look_up(noise_texture(3, 0.6, 11), u * F32(0.12) + slip, v + slip * F32(3), scale, rng)
    rings = np.sin(v * F32(rng.uniform(60, 160)) + grain * F32(rng.uniform(1.0, 3.0)))
    tone = F32(0.5) + grain * F32(0.2) + rings * F32(0.1) + (slip - F32(0.5)) * F32(rng.uniform(0.1, 0.6))
    hue, saturation = rng.uniform(18, 38), rng.uniform(0.2, 0.65)
    value = rng.uniform(0.35, 0.85)
    out = _tinted(tone, hsv(hue - 3, saturation * 1.2, value * 0.55), hsv(hue + 4, saturation * 0.8, value))
    seam = np.abs(v * F32(planks) - row - F32(0.5))
    shade_rgb(out, 1 - F32(0.75) * smoothstep((seam - F32(0.485)) * 80))
    return out


def cloth_colour(rng: Rng) -> np.ndarray:
    if rng.random() < 0.35:
        return hsv(rng.uniform(20, 60), rng.uniform(0, 0.15), rng.uniform(0.6, 0.98))
    return hsv(rng.uniform(0, 360), rng.uniform(0.1, 0.75), rng.uniform(0.2, 0.9))


def cloth(grid: Grid, rng: Rng) -> np.ndarray:
    u, v = grid
    first, second = cloth_colour(rng), cloth_colour(rng)
    kind = rng.choice(4, p=[0.4, 0.25, 0.2, 0.15])  # plain, gingham, stripes, dots
    count = F32(rng.uniform(4, 14) * 2 * math.pi)
    if kind == 0:
        pattern = np.zeros_like(u)
    elif kind == 1:
        pattern = (np.sin(u * count) > 0) * F32(0.5) + (np.sin(v * count) > 0) * F32(0.5)
    elif kind == 2:
        pattern = smoothstep(np.sin(v * count) * F32(3) + F32(rng.uniform(-2, 2)))
    else:
        pattern = smoothstep((np.sin(u * count) * np.sin(v * count) - F32(0.55)) * F32(6))
    folds = look_up(noise_texture(1, 0.35, 12), u, v, 170 * rng.uniform(0.5, 1.5), rng)
    weave = look_up(noise_texture(7, 0.9, 13), u, v, 700, rng)
    light = 1 + folds * F32(rng.uniform(0.02, 0.16)) + weave * F32(rng.uniform(0.01, 0.07))
    out = _tinted(pattern, first, second)
    shade_rgb(out, light)
    return out


def stone(grid: Grid, rng: Rng) -> np.ndarray:
    u, v = grid
    cloud = look_up(noise_texture(2, 0.6, 14), u, v, 260 * rng.uniform(0.6, 1.6), rng)
    grit = look_up(noise_texture(6, 0.8, 15), u, v, 500, rng)
    vein = np.exp(-np.abs(cloud + grit * F32(0.1)) * F32(rng.uniform(6, 20))) * F32(rng.uniform(0, 0.5))
    hue, saturation, value = rng.uniform(0, 360), rng.uniform(0, 0.18), rng.uniform(0.15, 0.95)
    tone = F32(0.5) + cloud * F32(rng.uniform(0.03, 0.16)) + grit * F32(rng.uniform(0.01, 0.12)) - vein
    return _tinted(tone, hsv(hue, saturation, value * 0.6), hsv(hue + 20, saturation * 0.7, min(1.0, value * 1.15)))


def tiles(grid: Grid, rng: Rng) -> np.ndarray:
    u, v = grid
    count = F32(rng.uniform(2, 6))
    a, b = u * count, v * count
    shade = np.sin(np.floor(a) * F32(12.99) + np.floor(b) * F32(78.2)) * F32(43.75)
    shade -= np.floor(shade)
    gap = np.minimum(np.abs(a - np.round(a)), np.abs(b - np.round(b)))
    colour, joint = cloth_colour(rng), hsv(40, 0.1, rng.uniform(0.4, 0.8))
    out = _tinted(F32(0.5) + (shade - F32(0.5)) * F32(rng.uniform(0.05, 0.5)), colour * F32(0), colour * F32(2))
    return mix_rgb(out, np.full_like(out, joint), smoothstep((F32(0.035) - gap) * 60))


def turf(grid: Grid, rng: Rng) -> np.ndarray:
    """Grass, straw or soil."""
    u, v = grid
    blades = look_up(noise_texture(5, 0.85, 16), u * F32(2.2), v * F32(0.8), 300, rng)
    cloud = look_up(noise_texture(2, 0.5, 17), u, v, 200, rng)
    hue = rng.choice([rng.uniform(70, 110), rng.uniform(40, 55), rng.uniform(18, 34)])
    tone = F32(0.45) + blades * F32(0.25) + cloud * F32(0.1)
    return _tinted(tone, hsv(hue - 8, 0.65, 0.14), hsv(hue + 5, rng.uniform(0.35, 0.6), rng.uniform(0.5, 0.75)))


def smooth(grid: Grid, rng: Rng) -> np.ndarray:
    """The seamless paper of a studio."""
    u, v = grid
    first = cloth_colour(rng)
    second = first * F32(rng.uniform(0.4, 1.1))
    angle = rng.uniform(0, 2 * math.pi)
    return _tinted(u * F32(math.cos(angle)) + v * F32(math.sin(angle)) + F32(0.5), first, second)


#: Which share of the tables are of what.
SURFACES = {wood: 0.30, cloth: 0.26, stone: 0.14, tiles: 0.08, turf: 0.08, smooth: 0.14}


def backdrop(size: int, rng: Rng, leafy: bool) -> np.ndarray:
    """Return what is far away and out of focus (size, size, 3): blobs of colour, or the leaves of a tree."""
    small = 64
    low = rng.uniform(0.1, 0.6)
    if leafy:
        base = hsv(rng.uniform(70, 120), rng.uniform(0.3, 0.6), rng.uniform(0.2, 0.5))
    else:
        base = cloth_colour(rng) * F32(low)
    out: np.ndarray = np.empty((small, small, 3), F32)
    out[:] = base
    for _ in range(int(rng.integers(4, 30))):
        if leafy:
            colour = leaf_colour(rng) if rng.random() < 0.75 else hsv(rng.uniform(40, 220), 0.15, rng.uniform(0.7, 1.0))
        else:
            colour = hsv(rng.uniform(0, 360), rng.uniform(0, 0.7), rng.uniform(0.1, 0.95))
        centre, half = rng.uniform(-5, small + 5, 2), rng.uniform(2, 14, 2)
        if rng.random() < 0.5:
            turn = np.linspace(0, 2 * math.pi, 16, endpoint=False)
            corners = centre + np.stack([np.cos(turn), np.sin(turn)], 1) * half.mean()
        else:
            corners = centre + half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        draw_polygon(out, corners, colour)
    out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.8, 5.0))
    return cv2.resize(out, (size, size), interpolation=cv2.INTER_CUBIC)


def paint_background(view: View, light: Light, size: int, rng: Rng) -> np.ndarray:
    """Return the lit scene without the fruits, linear RGB (size, size, 3)."""
    if view.hanging:
        half = max(16, size // 2)  # out of focus: half the resolution will do
        out = backdrop(half, rng, leafy=True)
        for _ in range(int(rng.integers(6, 18))):
            start = rng.uniform(-0.1, 1.1, 2) * half
            soft = half * rng.uniform(0.0, 0.02)
            colour = leaf_colour(rng) * F32(rng.uniform(0.4, 1.2))
            length = half * rng.uniform(0.15, 0.4)
            draw_leaf(out, start, rng.uniform(0, 2 * math.pi), length, colour, rng, soft=soft, veins=soft < 1)
        out = cv2.resize(out, (size, size), interpolation=cv2.INTER_CUBIC)
        return np.maximum(light_up(out, light.sky + light.colour * F32(0.7)), 0)
    surface = list(SURFACES)[int(rng.choice(len(SURFACES), p=list(SURFACES.values())))]
    out = surface(table_grid(view, size, rng), rng)
    out = light_up(out, light.sky + light.colour * F32(light.direction[2] * 0.5 + light.direction[1] * 0.4))
    rows = np.broadcast_to((np.arange(size, dtype=F32)[:, None] + F32(0.5)) / F32(size), (size, size))
    if view.elevation < 0.9:  # what is further away is out of focus
        far = blur_wide(out, size * rng.uniform(0.004, 0.015))
        out = mix_rgb(out, far, np.clip(F32(1.2) - F32(1.8) * rows, 0, 1))
    if view.horizon > 0:
        wall = backdrop(size, rng, leafy=rng.random() < 0.25)
        wall = light_up(wall, light.sky + light.colour * F32(rng.uniform(0.2, 0.8)))
        out = mix_rgb(out, wall, smoothstep((F32(view.horizon) - rows) / F32(rng.uniform(0.01, 0.06)) + F32(0.5)))
    fall = rng.normal(0, 0.25, 2)
    axis = np.linspace(-0.5, 0.5, size, dtype=F32)
    shade_rgb(out, np.maximum(1 + F32(fall[0]) * axis[None, :] + F32(fall[1]) * axis[:, None], F32(0.3)))
    return np.maximum(out, 0)


def light_up(albedo: np.ndarray, light: np.ndarray) -> np.ndarray:
    return cv2.transform(albedo, np.diag(light.astype(float)))
