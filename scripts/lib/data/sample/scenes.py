"""Compose one photograph: a table or a tree, fruits with their shadows, things in the way, and a camera's faults."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from scripts.lib.data.sample.backgrounds import View, cloth_colour, paint_background
from scripts.lib.data.sample.camera import compress_badly, develop
from scripts.lib.data.sample.drawing import draw_leaf, draw_polygon, leaf_colour
from scripts.lib.data.sample.looks import Look, Rng, hsv
from scripts.lib.data.sample.noise import F32, mix_rgb, shade_rgb
from scripts.lib.data.sample.shading import Light, Patch, render_fruit
from scripts.lib.data.sample.surfaces import rotation_from

SHADOW_SCALE = 4  #: shadows are soft: they are made at a quarter of the resolution
COUNTS = {"round": (0.46, 0.28, 0.16, 0.10), "bunch": (0.72, 0.28), "banana": (0.3, 0.25, 0.25, 0.2)}
SHRINK = (1.0, 0.86, 0.76, 0.7)  #: size of the fruits when there are 1-4 of them


@dataclass(frozen=True)
class Pose:
    """Where one fruit lies: centre and radius in pixels, the stem's axis in camera space, turn about it."""

    x: float
    y: float
    radius: float
    axis: np.ndarray
    spin: float


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
    level = math.sqrt(1 - lift * lift)
    direction = np.array([level * math.cos(turn), level * math.sin(turn), lift])
    warmth = rng.normal(0, 0.08)
    colour = np.array([1 + warmth, 1.0, 1 - warmth]) * rng.uniform(0.75, 1.15)
    cool = warmth * 0.4 + rng.normal(0, 0.05)
    sky = np.array([1 + cool, 1.0, 1 - cool]) * rng.uniform(0.18, 0.42)
    bounce = sky * rng.uniform(0.35, 0.9) * (1 + rng.normal(0, 0.08, 3))
    return Light(direction, colour.astype(F32), sky.astype(F32), bounce.astype(F32), float(rng.uniform(0, 1)))


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
    paint = hsv(rng.uniform(20, 60), rng.uniform(0, 0.1), rng.uniform(0.8, 0.97)) if white else cloth_colour(rng)
    colour = paint * lit
    soft = radius * 0.02
    shadow = _ellipse(x - light.direction[0] * radius * 0.12, y + radius * 0.06, radius * 1.02, radius * squash * 1.02)
    size = canvas.shape[0]
    if radius * 0.08 > 0.5:
        draw_polygon(canvas, shadow, _mean_colour(canvas) * F32(0.35), soft=radius * 0.06)
    tilt = (1.1, 0.85) if light.direction[0] < 0 else (0.85, 1.1)
    draw_polygon(canvas, _ellipse(x, y, radius, radius * squash), colour, gradient=tilt, soft=min(soft, 1.0))
    if rng.random() < 0.4:
        ring = _ellipse(x, y, radius * 0.94, radius * 0.94 * squash)
        draw_polygon(canvas, np.concatenate([ring, ring[:1]]), cloth_colour(rng) * lit, line=max(1.0, size * 0.008))
    inner = rng.uniform(0.62, 0.78)
    well = _ellipse(x, y, radius * inner, radius * squash * inner)
    draw_polygon(canvas, well, colour * F32(0.8), gradient=tilt[::-1], soft=soft)
    low = _ellipse(x, y + radius * 0.01, radius * inner * 0.95, radius * squash * inner * 0.95)
    draw_polygon(canvas, low, colour * F32(0.95), gradient=tilt, soft=soft)


def lay_clutter(canvas: np.ndarray, view: View, light: Light, rng: Rng) -> None:
    """Strew things that are no fruit: boxes, cups, balls of paper, coins; none is in focus."""
    size = canvas.shape[0]
    lit = light.sky + light.colour * F32(0.6)
    for _ in range(int(rng.integers(1, 5))):
        colour = cloth_colour(rng) * lit
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


def arrange(looks: list[Look], view: View, size: int, rng: Rng) -> list[Pose]:
    """Choose where the fruits lie, the furthest first: near the centre, touching or overlapping, on the table."""
    n = len(looks)
    base = size * SHRINK[n - 1] * math.exp(rng.uniform(math.log(0.22), math.log(0.38)))
    squash = 1.0 if view.hanging else max(0.45, math.sin(view.elevation))
    x, y = size * (0.5 + rng.normal(0, 0.08, 2))
    poses: list[Pose] = []
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
            poses.append(Pose(x, y, radius, axis, _face_viewer(axis, rng)))
            continue
        if look.body == "bunch":
            radius *= 1.25
        axis = _axis(look, view, rng)
        if k:
            near = poses[int(rng.integers(len(poses)))]
            for _ in range(6):  # not on top of another
                heading = rng.uniform(0, 2 * math.pi)
                reach = (near.radius + radius) * rng.uniform(0.78, 1.12)
                x, y = near.x + reach * math.cos(heading), near.y + reach * math.sin(heading) * squash
                inside = 0.08 * size < x < 0.92 * size and 0.08 * size < y < 0.92 * size
                if inside and all(math.hypot(p.x - x, (p.y - y) / squash) > 0.6 * (p.radius + radius) for p in poses):
                    break
        poses.append(Pose(x, y, radius, axis, rng.uniform(0, 2 * math.pi)))
    if looks[0].body == "banana":
        return poses
    x, y = _middle(poses)
    right, down = 0.5 * (size * 0.5 - x), 0.5 * (size * 0.5 - y)
    return [Pose(p.x + right, p.y + down, p.radius, p.axis, p.spin) for p in poses]


def _middle(poses: list[Pose]) -> tuple[float, float]:
    return float(np.mean([p.x for p in poses])), float(np.mean([p.y for p in poses]))


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


def cast_shadow(canvas: np.ndarray, patch: Patch, pose: Pose, view: View, light: Light, rng: Rng) -> None:
    """Darken what lies behind and under a fruit: a soft shadow away from the lamp and a dark one where it touches."""
    size = canvas.shape[0]
    small = max(2, size // SHADOW_SCALE)
    ratio = small / size
    n = patch.body.shape[0]
    reach = pose.radius * (0.25 + 0.5 * (1 - light.direction[2]))
    drop = reach * (0.25 if view.hanging else 0.9)
    squash = 0.75 if view.elevation < 0.9 else 1.0
    strength = 0.25 if view.hanging else 0.4 + 0.4 * (1 - light.softness)
    total = np.zeros((small, small), F32)
    across, down = -light.direction[0] * drop, -light.direction[1] * drop * 0.35 + pose.radius * 0.22
    away = (across, down, 0.08 + 0.22 * light.softness, strength)
    touching = (across * 0.2, pose.radius * 0.1, 0.07, 0.1 if view.hanging else 0.35)
    for dx, dy, blur, amount in (away, touching):
        top = pose.y - n / 2 * squash + (1 - squash) * pose.radius * 0.5 + dy
        matrix = np.array([[ratio, 0, (pose.x - n / 2 + dx) * ratio], [0, ratio * squash, top * ratio]], np.float64)
        mask = cv2.warpAffine(patch.body, matrix, (small, small), flags=cv2.INTER_LINEAR)
        mask = cv2.GaussianBlur(mask, (0, 0), max(0.6, blur * pose.radius * ratio))
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


def lay_obstacles(canvas: np.ndarray, poses: list[Pose], light: Light, rng: Rng) -> None:
    """Put something before the fruits: a leaf, a blurred thing near the lens, cutlery, a price tag, a crate's slat."""
    size = canvas.shape[0]
    lit = light.sky + light.colour * F32(0.6)
    pose = poses[int(rng.integers(len(poses)))]
    turn = rng.uniform(0, 2 * math.pi)
    rim = np.array([pose.x, pose.y]) + pose.radius * rng.uniform(0.6, 1.1) * np.array([math.cos(turn), math.sin(turn)])
    kind = rng.choice(5, p=[0.35, 0.2, 0.15, 0.15, 0.15])
    if kind == 0:
        for _ in range(int(rng.integers(1, 4))):
            start = rim + rng.normal(0, 0.1, 2) * size
            length = size * rng.uniform(0.15, 0.35)
            heading, colour = rng.uniform(0, 2 * math.pi), leaf_colour(rng) * lit
            draw_leaf(canvas, start, heading, length, colour, rng, slim=rng.uniform(0.15, 0.35))
    elif kind == 1:
        corner = rng.choice([-0.05, 1.05], 2) * size
        blob = _ellipse(corner[0], corner[1], size * rng.uniform(0.15, 0.4), size * rng.uniform(0.15, 0.4))
        draw_polygon(canvas, blob, cloth_colour(rng) * lit, soft=size * rng.uniform(0.02, 0.05))
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
        colour = hsv(rng.uniform(20, 40), rng.uniform(0.2, 0.6), rng.uniform(0.35, 0.8)) * lit
        draw_polygon(canvas, bar, colour, gradient=(0.8, 1.2), soft=rng.uniform(0.5, 4))


def photograph(draw: Callable[[Rng], Look], stream: Callable[..., Rng], size: int) -> np.ndarray:
    """Return one photograph, uint8 RGB (size, size, 3).

    Parameters
    ----------
    draw : the class: draws the look of one fruit.
    stream : gives the random numbers for one purpose, by name (and number).
    size : width and height of the picture in pixels.
    """
    rng = stream("scene")
    view, light = choose_view(rng), choose_light(rng)
    first = draw(stream("look", 0))
    counts = COUNTS[first.body]
    n = 1 + int(rng.choice(len(counts), p=counts))
    alike = rng.random() < 0.7  # of one tree: the same variety with small differences
    looks = [first] + [draw(stream("look", 0 if alike else k)) for k in range(1, n)]
    poses = arrange(looks, view, size, rng)
    canvas = paint_background(view, light, size, stream("background"))
    clutter = stream("clutter")
    if not view.hanging and clutter.random() < 0.35:
        lay_clutter(canvas, view, light, clutter)
    if not view.hanging and clutter.random() < 0.22:
        x, y = _middle(poses)
        lay_plate(canvas, view, light, x, y + 0.1 * size, size * clutter.uniform(0.36, 0.55), clutter)
    order = sorted(range(n), key=lambda k: poses[k].y)
    for k in order:
        rng = stream("fruit", k)
        pose = poses[k]
        patch = render_fruit(looks[k], pose.axis, pose.spin, pose.radius, light, rng)
        cast_shadow(canvas, patch, pose, view, light, rng)
        paste(canvas, patch, pose.x, pose.y)
    obstacles = stream("obstacles")
    if obstacles.random() < 0.3:
        lay_obstacles(canvas, poses, light, obstacles)
    camera = stream("camera")
    image = develop(canvas, camera)
    return compress_badly(image, camera) if camera.random() < 0.25 else image
