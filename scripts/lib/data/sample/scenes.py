"""Compose one photograph: a table or a tree, fruits with their shadows, things in the way, and a camera's faults."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from scripts.lib.data.sample.looks import Look, Rng, hsv
from scripts.lib.data.sample.shading import (
    F32,
    NOISE_SIZE,
    Light,
    Patch,
    blur_wide,
    draw_leaf,
    draw_polygon,
    leaf_colour,
    look_up,
    mix_rgb,
    noise_texture,
    render_fruit,
    rotation_from,
    shade_rgb,
    smoothstep,
)

SHADOW_SCALE = 4  #: shadows are soft: they are made at a quarter of the resolution
COUNTS = {"round": (0.46, 0.28, 0.16, 0.10), "bunch": (0.72, 0.28), "banana": (0.3, 0.25, 0.25, 0.2)}
SHRINK = (1.0, 0.86, 0.76, 0.7)  #: size of the fruits when there are 1-4 of them


@dataclass(frozen=True)
class View:
    """How the camera looks at the table: *elevation* in radians (pi/2: from above); *horizon* in 0-1, <0: not seen."""

    elevation: float
    horizon: float
    hanging: bool  # on a tree, before leaves, instead of on a table


@dataclass(frozen=True)
class Place:
    """Where one fruit lies: centre and radius in pixels, the stem's axis in camera space, turn about it."""

    x: float
    y: float
    radius: float
    axis: np.ndarray
    spin: float


# ------------------------------------------------------------------------------------------------- view and light


def choose_view(rng: Rng) -> View:
    if rng.random() < 0.14:
        return View(math.radians(rng.uniform(-10, 30)), -1.0, True)
    if rng.random() < 0.35:
        return View(math.radians(rng.uniform(70, 90)), -1.0, False)
    elevation = math.radians(rng.uniform(18, 65))
    return View(elevation, rng.uniform(0.05, 0.5) if elevation < 0.7 and rng.random() < 0.8 else -1.0, False)


def choose_light(rng: Rng) -> Light:
    """Draw a lamp above the table, its colour from candle to shade, and the light that comes from elsewhere."""
    turn = rng.uniform(math.radians(10), math.radians(170))
    lift = rng.uniform(0.35, 0.85)
    side = math.sqrt(1 - lift * lift)
    direction = np.array([side * math.cos(turn), side * math.sin(turn), lift])
    warm = rng.normal(0, 0.08)
    colour = np.array([1 + warm, 1.0, 1 - warm]) * rng.uniform(0.75, 1.15)
    cool = warm * 0.4 + rng.normal(0, 0.05)
    sky = np.array([1 + cool, 1.0, 1 - cool]) * rng.uniform(0.18, 0.42)
    bounce = sky * rng.uniform(0.35, 0.9) * (1 + rng.normal(0, 0.08, 3))
    return Light(direction, colour.astype(F32), sky.astype(F32), bounce.astype(F32), float(rng.uniform(0, 1)))


# ---------------------------------------------------------------------------------------------------- backgrounds

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
    grain = look_up(
        noise_texture(3, 0.6, 11), u * F32(0.12) + slip, v + slip * F32(3), 420 * rng.uniform(0.6, 1.3), rng
    )
    rings = np.sin(v * F32(rng.uniform(60, 160)) + grain * F32(rng.uniform(1.0, 3.0)))
    tone = F32(0.5) + grain * F32(0.2) + rings * F32(0.1) + (slip - F32(0.5)) * F32(rng.uniform(0.1, 0.6))
    hue, saturation = rng.uniform(18, 38), rng.uniform(0.2, 0.65)
    value = rng.uniform(0.35, 0.85)
    out = _tinted(tone, hsv(hue - 3, saturation * 1.2, value * 0.55), hsv(hue + 4, saturation * 0.8, value))
    edge = np.abs(v * F32(planks) - row - F32(0.5))
    shade_rgb(out, 1 - F32(0.75) * smoothstep((edge - F32(0.485)) * 80))
    return out


def _cloth_colour(rng: Rng) -> np.ndarray:
    if rng.random() < 0.35:
        return hsv(rng.uniform(20, 60), rng.uniform(0, 0.15), rng.uniform(0.6, 0.98))
    return hsv(rng.uniform(0, 360), rng.uniform(0.1, 0.75), rng.uniform(0.2, 0.9))


def cloth(grid: Grid, rng: Rng) -> np.ndarray:
    u, v = grid
    first, second = _cloth_colour(rng), _cloth_colour(rng)
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
    colour, joint = _cloth_colour(rng), hsv(40, 0.1, rng.uniform(0.4, 0.8))
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
    first = _cloth_colour(rng)
    second = first * F32(rng.uniform(0.4, 1.1))
    angle = rng.uniform(0, 2 * math.pi)
    return _tinted(u * F32(math.cos(angle)) + v * F32(math.sin(angle)) + F32(0.5), first, second)


SURFACES: tuple[tuple[float, Callable[[Grid, Rng], np.ndarray]], ...] = (
    (0.30, wood),
    (0.26, cloth),
    (0.14, stone),
    (0.08, tiles),
    (0.08, turf),
    (0.14, smooth),
)


def backdrop(size: int, rng: Rng, leafy: bool) -> np.ndarray:
    """Return what is far away and out of focus (size, size, 3): blobs of colour, or the leaves of a tree."""
    small = 64
    low = rng.uniform(0.1, 0.6)
    if leafy:
        base = hsv(rng.uniform(70, 120), rng.uniform(0.3, 0.6), rng.uniform(0.2, 0.5))
    else:
        base = _cloth_colour(rng) * F32(low)
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
        return np.maximum(_lit(out, light.sky + light.colour * F32(0.7)), 0)
    weights = [weight for weight, _ in SURFACES]
    surface = SURFACES[int(rng.choice(len(SURFACES), p=weights))][1]
    out = surface(table_grid(view, size, rng), rng)
    out = _lit(out, light.sky + light.colour * F32(light.direction[2] * 0.5 + light.direction[1] * 0.4))
    rows = np.broadcast_to((np.arange(size, dtype=F32)[:, None] + F32(0.5)) / F32(size), (size, size))
    if view.elevation < 0.9:  # what is further away is out of focus
        far = blur_wide(out, size * rng.uniform(0.004, 0.015))
        out = mix_rgb(out, far, np.clip(F32(1.2) - F32(1.8) * rows, 0, 1))
    if view.horizon > 0:
        wall = backdrop(size, rng, leafy=rng.random() < 0.25)
        wall = _lit(wall, light.sky + light.colour * F32(rng.uniform(0.2, 0.8)))
        out = mix_rgb(out, wall, smoothstep((F32(view.horizon) - rows) / F32(rng.uniform(0.01, 0.06)) + F32(0.5)))
    fall = rng.normal(0, 0.25, 2)
    axis = np.linspace(-0.5, 0.5, size, dtype=F32)
    shade_rgb(out, np.maximum(1 + F32(fall[0]) * axis[None, :] + F32(fall[1]) * axis[:, None], F32(0.3)))
    return np.maximum(out, 0)


def _lit(albedo: np.ndarray, light: np.ndarray) -> np.ndarray:
    return cv2.transform(albedo, np.diag(light.astype(float)))


def _mean_colour(canvas: np.ndarray) -> np.ndarray:
    return np.array(cv2.mean(canvas)[:3], F32)


def _ellipse(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    turn = np.linspace(0, 2 * math.pi, 64, endpoint=False)
    return np.stack([x + rx * np.cos(turn), y + ry * np.sin(turn)], 1)


def lay_plate(canvas: np.ndarray, view: View, light: Light, x: float, y: float, radius: float, rng: Rng) -> None:
    """Put a plate or a shallow bowl under the fruits."""
    squash = max(0.3, math.sin(view.elevation))
    lit = light.sky + light.colour * F32(0.75)
    white = rng.random() < 0.6
    colour = (
        hsv(rng.uniform(20, 60), rng.uniform(0, 0.1), rng.uniform(0.8, 0.97)) if white else _cloth_colour(rng)
    ) * lit
    soft = radius * 0.02
    shadow = _ellipse(x - light.direction[0] * radius * 0.12, y + radius * 0.06, radius * 1.02, radius * squash * 1.02)
    size = canvas.shape[0]
    if radius * 0.08 > 0.5:
        draw_polygon(canvas, shadow, _mean_colour(canvas) * F32(0.35), soft=radius * 0.06)
    tilt = (1.1, 0.85) if light.direction[0] < 0 else (0.85, 1.1)
    draw_polygon(canvas, _ellipse(x, y, radius, radius * squash), colour, gradient=tilt, soft=min(soft, 1.0))
    if rng.random() < 0.4:
        ring = _ellipse(x, y, radius * 0.94, radius * 0.94 * squash)
        draw_polygon(canvas, np.concatenate([ring, ring[:1]]), _cloth_colour(rng) * lit, line=max(1.0, size * 0.008))
    inner = rng.uniform(0.62, 0.78)
    draw_polygon(
        canvas,
        _ellipse(x, y, radius * inner, radius * squash * inner),
        colour * F32(0.8),
        gradient=tilt[::-1],
        soft=soft,
    )
    low = _ellipse(x, y + radius * 0.01, radius * inner * 0.95, radius * squash * inner * 0.95)
    draw_polygon(canvas, low, colour * F32(0.95), gradient=tilt, soft=soft)


def lay_clutter(canvas: np.ndarray, view: View, light: Light, rng: Rng) -> None:
    """Strew things that are no fruit: boxes, cups, balls of paper, coins; none is in focus."""
    size = canvas.shape[0]
    lit = light.sky + light.colour * F32(0.6)
    for _ in range(int(rng.integers(1, 5))):
        colour = _cloth_colour(rng) * lit
        centre = rng.uniform(-0.05, 1.05, 2) * size
        half = rng.uniform(0.04, 0.16, 2) * size
        soft = size * rng.uniform(0.003, 0.02)
        tone = (1.25, 0.6) if light.direction[0] < 0 else (0.6, 1.25)
        turn = rng.uniform(0, math.pi)
        c, s = math.cos(turn), math.sin(turn)
        if rng.random() < 0.5:
            corners = (half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])) @ np.array([[c, s], [-s, c]])
        else:
            corners = _ellipse(0, 0, half[0], half[0] * max(0.5, math.sin(view.elevation)))
        shadow = corners + centre + [-light.direction[0] * half[0] * 0.5, half[1] * 0.35]
        draw_polygon(canvas, shadow, _mean_colour(canvas) * F32(0.4), soft=soft + size * 0.012)
        draw_polygon(canvas, corners + centre, colour, gradient=tone, soft=soft)


# --------------------------------------------------------------------------------------------------------- fruits


def arrange(looks: list[Look], view: View, size: int, rng: Rng) -> list[Place]:
    """Choose where the fruits lie, the furthest first: near the centre, touching or overlapping, on the table."""
    n = len(looks)
    base = size * SHRINK[n - 1] * math.exp(rng.uniform(math.log(0.22), math.log(0.38)))
    squash = 1.0 if view.hanging else max(0.45, math.sin(view.elevation))
    x, y = size * (0.5 + rng.normal(0, 0.08, 2))
    places: list[Place] = []
    heading = rng.uniform(0, 2 * math.pi)
    shared = _axis(looks[0], view, rng)
    for k, look in enumerate(looks):
        radius = base * rng.uniform(0.88, 1.12)
        if look.body == "banana":  # a hand: all from one stalk
            radius *= 1.2
            axis = shared + rng.normal(0, 0.16, 3)
            axis /= np.linalg.norm(axis)
            if k:
                across = np.array([-shared[1], -shared[0]])
                x, y = np.array([x, y]) + across * radius * rng.uniform(0.28, 0.5) + rng.normal(0, 0.05, 2) * radius
            places.append(Place(x, y, radius, axis, _face_viewer(axis, rng)))
            continue
        if look.body == "bunch":
            radius *= 1.25
        axis = _axis(look, view, rng)
        if k:
            near = places[int(rng.integers(len(places)))]
            for _ in range(6):  # not on top of another
                heading = rng.uniform(0, 2 * math.pi)
                reach = (near.radius + radius) * rng.uniform(0.78, 1.12)
                x, y = near.x + reach * math.cos(heading), near.y + reach * math.sin(heading) * squash
                inside = 0.08 * size < x < 0.92 * size and 0.08 * size < y < 0.92 * size
                if inside and all(math.hypot(p.x - x, (p.y - y) / squash) > 0.6 * (p.radius + radius) for p in places):
                    break
        places.append(Place(x, y, radius, axis, rng.uniform(0, 2 * math.pi)))
    if looks[0].body == "banana":
        return places
    x, y = _middle(places)
    right, down = 0.5 * (size * 0.5 - x), 0.5 * (size * 0.5 - y)
    return [Place(p.x + right, p.y + down, p.radius, p.axis, p.spin) for p in places]


def _middle(places: list[Place]) -> tuple[float, float]:
    return float(np.mean([p.x for p in places])), float(np.mean([p.y for p in places]))


def _axis(look: Look, view: View, rng: Rng) -> np.ndarray:
    """Return the direction of the stem: up from the table, or along it, in camera space."""
    up = np.array([0.0, math.cos(view.elevation), math.sin(view.elevation)])
    if view.hanging:
        axis = np.array([0.0, 1.0, 0.15]) + rng.normal(0, 0.22, 3)
    elif rng.random() < look.upright:
        axis = up + rng.normal(0, 0.2, 3)
    else:
        away = np.array([0.0, math.sin(view.elevation), -math.cos(view.elevation)])
        turn = rng.uniform(0, 2 * math.pi)
        axis = math.cos(turn) * np.array([1.0, 0.0, 0.0]) + math.sin(turn) * away + up * rng.normal(0, 0.25)
    return axis / np.linalg.norm(axis)


def _face_viewer(axis: np.ndarray, rng: Rng) -> float:
    """Return the turn that shows the bend of a banana, more or less, on one side or the other."""
    still = rotation_from(axis, 0.0)
    best = math.atan2(-still[2, 0], still[2, 2]) + (0 if rng.random() < 0.5 else math.pi)
    return float(best + rng.normal(0, 0.45))


def cast_shadow(canvas: np.ndarray, patch: Patch, place: Place, view: View, light: Light, rng: Rng) -> None:
    """Darken what lies behind and under a fruit: a soft shadow away from the lamp and a dark one where it touches."""
    size = canvas.shape[0]
    small = max(2, size // SHADOW_SCALE)
    ratio = small / size
    n = patch.body.shape[0]
    reach = place.radius * (0.25 + 0.5 * (1 - light.direction[2]))
    drop = reach * (0.25 if view.hanging else 0.9)
    squash = 0.75 if view.elevation < 0.9 else 1.0
    strength = 0.25 if view.hanging else 0.4 + 0.4 * (1 - light.softness)
    total = np.zeros((small, small), F32)
    for dx, dy, blur, amount in (
        (
            -light.direction[0] * drop,
            -light.direction[1] * drop * 0.35 + place.radius * 0.22,
            0.08 + 0.22 * light.softness,
            strength,
        ),
        (-light.direction[0] * drop * 0.2, place.radius * 0.1, 0.07, 0.35 if not view.hanging else 0.1),
    ):
        top = place.y - n / 2 * squash + (1 - squash) * place.radius * 0.5 + dy
        matrix = np.array([[ratio, 0, (place.x - n / 2 + dx) * ratio], [0, ratio * squash, top * ratio]], np.float64)
        mask = cv2.warpAffine(patch.body, matrix, (small, small), flags=cv2.INTER_LINEAR)
        mask = cv2.GaussianBlur(mask, (0, 0), max(0.6, blur * place.radius * ratio))
        total = total + (1 - total) * mask * F32(amount)
    shade = cv2.resize(1 - total, (size, size), interpolation=cv2.INTER_LINEAR)
    shade_rgb(canvas, shade)


def paste(canvas: np.ndarray, patch: Patch, x: float, y: float) -> None:
    """Lay a fruit over the scene with its centre at (x, y); what is outside is cut off."""
    n = patch.alpha.shape[0]
    left, top = round(x - n / 2), round(y - n / 2)
    size = canvas.shape[0]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + n, size), min(top + n, size)
    if x1 <= x0 or y1 <= y0:
        return
    source = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
    window = canvas[y0:y1, x0:x1]
    window[:] = mix_rgb(window, patch.rgb[source], patch.alpha[source])


def lay_obstacles(canvas: np.ndarray, places: list[Place], light: Light, rng: Rng) -> None:
    """Put something before the fruits: a leaf, a blurred thing near the lens, cutlery, a price tag, a crate's slat."""
    size = canvas.shape[0]
    lit = light.sky + light.colour * F32(0.6)
    place = places[int(rng.integers(len(places)))]
    turn = rng.uniform(0, 2 * math.pi)
    rim = np.array([place.x, place.y]) + place.radius * rng.uniform(0.6, 1.1) * np.array(
        [math.cos(turn), math.sin(turn)]
    )
    kind = rng.choice(5, p=[0.35, 0.2, 0.15, 0.15, 0.15])
    if kind == 0:
        for _ in range(int(rng.integers(1, 4))):
            start = rim + rng.normal(0, 0.1, 2) * size
            length = size * rng.uniform(0.15, 0.35)
            draw_leaf(
                canvas,
                start,
                rng.uniform(0, 2 * math.pi),
                length,
                leaf_colour(rng) * lit,
                rng,
                slim=rng.uniform(0.15, 0.35),
            )
    elif kind == 1:
        corner = rng.choice([-0.05, 1.05], 2) * size
        blob = _ellipse(corner[0], corner[1], size * rng.uniform(0.15, 0.4), size * rng.uniform(0.15, 0.4))
        draw_polygon(canvas, blob, _cloth_colour(rng) * lit, soft=size * rng.uniform(0.02, 0.05))
    elif kind == 2:
        along = np.array([math.cos(turn + 1.2), math.sin(turn + 1.2)])
        across = np.array([-along[1], along[0]]) * size * rng.uniform(0.012, 0.03)
        start, end = rim - along * size * rng.uniform(0.05, 0.2), rim + along * size * 0.9
        blade = np.stack([start, start + across + along * size * 0.08, end + across, end - across, start - across])
        grey = hsv(220, rng.uniform(0, 0.1), rng.uniform(0.4, 0.9)) if rng.random() < 0.7 else hsv(30, 0.5, 0.5)
        draw_polygon(canvas, blade, grey * lit, gradient=(0.6, 1.4), soft=rng.uniform(0.3, 1.2))
    elif kind == 3:
        half = size * rng.uniform(0.05, 0.11) * np.array([1.0, rng.uniform(0.5, 0.8)])
        tilt = rng.normal(0, 0.3)
        matrix = np.array([[math.cos(tilt), math.sin(tilt)], [-math.sin(tilt), math.cos(tilt)]])
        corners = (half * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])) @ matrix + rim
        draw_polygon(canvas, corners, hsv(rng.uniform(0, 360), rng.uniform(0, 0.5), 0.92) * lit, soft=0.5)
        for row in (-0.45, 0.0, 0.45):
            ends = (half * np.array([[-0.7, row], [rng.uniform(0.0, 0.7), row]])) @ matrix + rim
            draw_polygon(canvas, ends, hsv(0, 0, 0.15), line=max(1.0, half[1] * 0.16))
    else:
        level = size * rng.uniform(0.78, 0.97)
        tilt = size * rng.normal(0, 0.04)
        bar = np.array([[-2, level], [size + 2, level + tilt], [size + 2, size + 2], [-2, size + 2]], float)
        hue = rng.uniform(20, 40)
        draw_polygon(
            canvas,
            bar,
            hsv(hue, rng.uniform(0.2, 0.6), rng.uniform(0.35, 0.8)) * lit,
            gradient=(0.8, 1.2),
            soft=rng.uniform(0.5, 4),
        )


# --------------------------------------------------------------------------------------------------------- camera


def develop(canvas: np.ndarray, rng: Rng) -> np.ndarray:
    """Photograph linear RGB: focus, exposure, white balance, vignette, tone curve, sensor noise; return uint8 RGB."""
    size = canvas.shape[0]
    blur = (
        size
        / 320
        * rng.choice([rng.uniform(0.0, 0.6), rng.uniform(0.5, 1.3), rng.uniform(1.2, 2.2)], p=[0.62, 0.3, 0.08])
    )
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
    out: np.ndarray = _lit(canvas, white)
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


# ---------------------------------------------------------------------------------------------------------- scene


def photograph(draw: Callable[[Rng], Look], stream: Callable[..., Rng], size: int) -> np.ndarray:
    """Return one photograph, uint8 RGB (size, size, 3).

    Parameters
    ----------
    draw : the class: draws the look of one fruit.
    stream : gives the random numbers for one purpose, by name (and number).
    size : edge of the picture in pixels.
    """
    rng = stream("scene")
    view, light = choose_view(rng), choose_light(rng)
    first = draw(stream("look", 0))
    counts = COUNTS[first.body]
    n = 1 + int(rng.choice(len(counts), p=counts))
    alike = rng.random() < 0.7  # of one tree: the same variety with small differences
    looks = [first] + [draw(stream("look", 0 if alike else k)) for k in range(1, n)]
    places = arrange(looks, view, size, rng)
    canvas = paint_background(view, light, size, stream("background"))
    clutter = stream("clutter")
    if not view.hanging and clutter.random() < 0.35:
        lay_clutter(canvas, view, light, clutter)
    if not view.hanging and clutter.random() < 0.22:
        x, y = _middle(places)
        lay_plate(canvas, view, light, x, y + 0.1 * size, size * clutter.uniform(0.36, 0.55), clutter)
    order = sorted(range(n), key=lambda k: places[k].y)
    for k in order:
        rng = stream("fruit", k)
        place = places[k]
        patch = render_fruit(looks[k], place.axis, place.spin, place.radius, light, rng)
        cast_shadow(canvas, patch, place, view, light, rng)
        paste(canvas, patch, place.x, place.y)
    obstacles = stream("obstacles")
    if obstacles.random() < 0.3:
        lay_obstacles(canvas, places, light, obstacles)
    camera = stream("camera")
    image = develop(canvas, camera)
    return compress_badly(image, camera) if camera.random() < 0.25 else image
