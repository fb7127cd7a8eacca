"""The shapes of fruits, traced by rays: what each pixel of a fruit sees of its surface."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from scripts.lib.data.sample.looks import Look, Rng
from scripts.lib.data.sample.noise import F32, smoothstep

MARCH_STEPS = 9
SECANT_STEPS = 2
COARSE = 3  #: rays of the fine grid in one of the coarse grid, along an edge


@dataclass
class Surface:
    """What the tracer found in the *window* (rows, columns) of the patch that holds the body.

    Coverage (from the tracer: distance in pixels) and depth are (h, w); normals (camera space), directions and points
    (object space) are (3, h, w).
    """

    window: tuple[slice, slice]
    alpha: np.ndarray
    normal: np.ndarray
    direction: np.ndarray
    depth: np.ndarray
    texture: tuple[np.ndarray, np.ndarray]  # where to look into a noise texture, in units of the fruit's radius
    points: np.ndarray
    tint: np.ndarray | None = None  # (3, h, w) factor on the skin, for berries that differ


@dataclass(frozen=True)
class Frame:
    """How a fruit lies in its patch.

    ``rotation``: (3, 3), object to camera space; ``extent``: half the patch's width in units of the fruit's radius;
    ``pixels``: its width.
    """

    rotation: np.ndarray
    extent: float
    pixels: int

    @property
    def scale(self) -> float:
        """Pixels in one radius."""
        return self.pixels / (2 * self.extent)

    def pixels_of(self, points: np.ndarray) -> np.ndarray:
        """Return points (3, ...) of camera space as pixels (..., 2) of the patch."""
        return np.stack([(points[0] + self.extent) * self.scale, (self.extent - points[1]) * self.scale], axis=-1)


def rotation_from(axis: np.ndarray, spin: float) -> np.ndarray:
    """Return the rotation (3, 3) that takes object +y to the unit vector *axis* after a turn of *spin* about it."""
    helper = np.array([0.0, 0.0, 1.0]) if abs(axis[2]) < 0.9 else np.array([1.0, 0.0, 0.0])
    x = np.cross(axis, helper)
    x /= np.linalg.norm(x)
    z = np.cross(x, axis)
    x, z = math.cos(spin) * x + math.sin(spin) * z, math.cos(spin) * z - math.sin(spin) * x
    return np.stack([x, axis, z], axis=1).astype(F32)


def star_radius(look: Look, rng: Rng) -> Callable[[np.ndarray], np.ndarray]:
    """Return the implicit function of a round fruit: points (3, ...) -> signed distance, about, negative inside."""
    height = F32(look.height)
    top, top_width = F32(look.top[0]), F32(-1 / look.top[1])
    bottom, bottom_width = F32(look.bottom[0]), F32(-1 / look.bottom[1])
    crease, crease_width = F32(look.crease[0]), F32(-1 / look.crease[1])
    lump = F32(look.lump)
    waves = rng.uniform(1.5, 3.5, (2, 3)).astype(F32) * rng.choice([-1, 1], (2, 3)).astype(F32)
    phases = rng.uniform(0, 2 * math.pi, 2).astype(F32)

    def implicit(p: np.ndarray) -> np.ndarray:
        y = p[1] / height
        radius = np.sqrt(p[0] * p[0] + y * y + p[2] * p[2]) + F32(1e-6)
        c = y / radius
        rho = np.ones_like(c)
        power = c
        for coefficient in look.taper:
            rho += F32(coefficient) * power
            power = power * c
        rho += top * np.exp((1 - c) * top_width)
        rho += bottom * np.exp((1 + c) * bottom_width)
        for wave, phase in zip(waves, phases, strict=True):
            rho += lump * np.sin(p[0] * wave[0] + p[1] * wave[1] + p[2] * wave[2] + phase)
        if crease or look.lobes:
            across = p[0] / np.sqrt(p[0] * p[0] + p[2] * p[2] + F32(1e-6))
            if crease:
                rho -= crease * np.exp((1 - across) * crease_width) * (1 - c * c)
            if look.lobes:
                x2 = across * across
                five = across * (16 * x2 * x2 - 20 * x2 + 5)
                rho += F32(look.lobes) * five * np.clip(-c, 0, 1)
        return (radius - rho) * min(height, F32(1))

    return implicit


def tube(look: Look, rng: Rng) -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """Return the implicit function of a banana (length about 2) and the map to its position along the arc (-1..1)."""
    half = F32(look.bend / 2)
    arc = F32(1.15) / half  # radius of the arc
    width = F32(look.height)
    ridge = F32(rng.uniform(0.02, 0.07))
    tip, neck = F32(rng.uniform(0.2, 0.45)), F32(rng.uniform(0.12, 0.3))
    shift = arc * F32(0.5 + 0.5 * math.cos(float(half)))

    def along(p: np.ndarray) -> np.ndarray:
        return np.arctan2(p[1], p[0] + shift) / half

    def implicit(p: np.ndarray) -> np.ndarray:
        t = np.clip(along(p), -1, 1)
        angle = t * half
        dx = p[0] + shift - arc * np.cos(angle)
        dy = p[1] - arc * np.sin(angle)
        distance = np.sqrt(dx * dx + dy * dy + p[2] * p[2]) + F32(1e-6)
        t2 = t * t
        profile = 1 - F32(0.35) * t2 * t2
        profile = profile - (1 - neck) * smoothstep((t - F32(0.72)) / F32(0.28)) * F32(0.62)
        profile = profile - (1 - tip) * smoothstep((-t - F32(0.8)) / F32(0.2)) * F32(0.5)
        q = p[2] / distance
        five = q * (16 * q**4 - 20 * q**2 + 5)
        return distance - width * profile * (1 + ridge * five)

    return implicit, along


def pixel_grid(extent: float, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y (pixels, pixels) of pixel centres over [-extent, extent], y up."""
    axis = ((np.arange(pixels, dtype=F32) + F32(0.5)) / F32(pixels) * 2 - 1) * F32(extent)
    return np.meshgrid(axis, -axis)


def trace(implicit: Callable[[np.ndarray], np.ndarray], frame: Frame) -> Surface:
    """Find the surface along parallel rays: sphere tracing on a coarse grid, then secant steps on the fine one.

    The rays aim at half a pixel below the surface, so that the remaining distance gives a smooth edge.
    """
    rotation, extent, pixels = frame.rotation, frame.extent, frame.pixels
    inset = F32(2 * extent / pixels)
    towards = rotation[2][:, None, None]

    def ray_points(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return rotation[0][:, None, None] * x + rotation[1][:, None, None] * y

    coarse = max(16, pixels // COARSE)
    x, y = pixel_grid(extent, coarse)
    base = ray_points(x, y)
    z = np.sqrt(np.maximum(F32(extent * extent) - x * x - y * y, 0))
    best, best_z = np.full_like(z, np.inf), z
    for _ in range(MARCH_STEPS):
        f = implicit(base + towards * z) + inset
        nearer = f < best
        best, best_z = np.where(nearer, f, best), np.where(nearer, z, best_z)
        z = z - np.maximum(f, F32(-0.05)) * F32(0.95)
    window = _bounds(best < F32(2.5 * 2 * extent / coarse), pixels / coarse, pixels)
    z = cv2.resize(best_z, (pixels, pixels), interpolation=cv2.INTER_LINEAR)[window]
    x, y = pixel_grid(extent, pixels)
    base = ray_points(x[window], y[window])

    step = F32(0.02)
    f = implicit(base + towards * z) + inset
    slope = (implicit(base + towards * (z + step)) + inset - f) / step
    for _ in range(SECANT_STEPS):
        move = -np.clip(f / np.maximum(slope, F32(0.3)), F32(-0.1), F32(0.1))
        z = z + move
        before, f = f, implicit(base + towards * z) + inset
        slope = np.where(np.abs(move) > F32(1e-3), (f - before) / np.where(move == 0, F32(1), move), slope)
    points = base + towards * z
    f = f - inset
    h = F32(0.012)
    normal = np.empty_like(points)
    for axis in range(3):
        normal[axis] = implicit(points + rotation[axis][:, None, None] * h) - f
    normal /= np.sqrt((normal * normal).sum(0)) + F32(1e-9)
    direction = points / (np.sqrt((points * points).sum(0)) + F32(1e-6))
    # Lambert's equal-area map of the direction seen by the camera: no pole on the visible side.
    seen = np.tensordot(rotation, direction, axes=1).astype(F32)
    spread = np.sqrt(2 / np.maximum(1 + seen[2], F32(0.05)))
    return Surface(window, f / inset, normal, direction, z, (seen[0] * spread, seen[1] * spread), points)


def enlarge(surface: Surface, factor: int) -> Surface:
    """Return a traced surface at *factor* times its resolution.

    A smooth body needs no more rays; its outline stays sharp, since it is the distance to it that is interpolated.
    """

    def grow(plane: np.ndarray) -> np.ndarray:
        return cv2.resize(plane, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)

    rows, columns = surface.window
    window = (slice(rows.start * factor, rows.stop * factor), slice(columns.start * factor, columns.stop * factor))
    return Surface(
        window,
        np.clip(F32(0.5) - grow(surface.alpha) * F32(factor), 0, 1),
        np.stack([grow(plane) for plane in surface.normal]),
        np.stack([grow(plane) for plane in surface.direction]),
        grow(surface.depth),
        (grow(surface.texture[0]), grow(surface.texture[1])),
        surface.points,
    )


def _bounds(mask: np.ndarray, scale: float, pixels: int) -> tuple[slice, slice]:
    """Return the rows and columns of the fine grid that a coarse mask touches."""
    slices = []
    for axis in (1, 0):
        hit = np.flatnonzero(mask.any(axis))
        low, high = (hit[0], hit[-1] + 1) if len(hit) else (0, mask.shape[0])
        slices.append(slice(max(0, math.floor((low - 1) * scale)), min(pixels, math.ceil((high + 1) * scale))))
    return slices[0], slices[1]


def bunch(look: Look, frame: Frame, rng: Rng) -> Surface:
    """Heap berries along the stem's axis, wide at the top, and keep the nearest of them in each pixel."""
    extent, pixels, n = frame.extent, frame.pixels, look.berries
    size = 0.62 * (1.0 / n) ** 0.36
    t = rng.uniform(0, 1, n) ** 0.8
    around = rng.uniform(0, 2 * math.pi, n)
    spread = (0.62 - 0.42 * t) * np.sqrt(rng.uniform(0.15, 1, n))
    centres = np.stack([spread * np.cos(around), (0.8 - 1.6 * t) * look.height * 0.8, spread * np.sin(around)])
    centres = (frame.rotation @ centres).astype(F32)
    radii = (size * rng.uniform(0.85, 1.12, n)).astype(F32)
    tints = (1 + 0.14 * rng.standard_normal((3, n)) * [[1.0], [0.7], [0.7]]).clip(0.5, 1.5).astype(F32)
    x, y = pixel_grid(extent, pixels)
    depth = np.full((pixels, pixels), F32(-9))
    owner = np.zeros((pixels, pixels), np.int32)
    alpha = np.zeros((pixels, pixels), F32)
    pixel = F32(2 * extent / pixels)
    for i in range(n):
        cx, cy, cz = (float(value) for value in centres[:, i])
        r = float(radii[i])
        left, right = int((cx - r + extent) / pixel) - 1, int((cx + r + extent) / pixel) + 2
        upper, lower = int((extent - cy - r) / pixel) - 1, int((extent - cy + r) / pixel) + 2
        near = (slice(max(upper, 0), lower), slice(max(left, 0), right))
        dx, dy = x[near] - F32(cx), y[near] - F32(cy)
        planar = np.sqrt(dx * dx + dy * dy)
        alpha[near] = np.maximum(alpha[near], np.clip((F32(r) - planar) / pixel + F32(0.5), 0, 1))
        front = F32(cz) + np.sqrt(np.maximum(F32(r * r) - planar * planar, 0))
        front = np.where(planar < r + pixel, front, F32(-9))
        nearer = front > depth[near]
        depth[near] = np.where(nearer, front, depth[near])
        owner[near] = np.where(nearer, i, owner[near])
    window = _bounds(alpha > 0, 1.0, pixels)
    alpha, depth, owner, x, y = alpha[window], depth[window], owner[window], x[window], y[window]
    nx = (x - centres[0][owner]) / radii[owner]
    ny = (y - centres[1][owner]) / radii[owner]
    nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, F32(1e-4)))
    normal = np.stack([nx, ny, nz])
    turn = rng.uniform(-1, 1, (3, n)).astype(F32)
    turn[1] += 1.0
    axes = turn / np.linalg.norm(turn, axis=0)
    # Berries hang at all angles: their own pole, so that the scar of the flower shows on some.
    c = (normal * (axes[:, owner])).sum(0)
    direction = np.stack([nx, -c, nz])
    texture = (nx * F32(0.4) + owner.astype(F32) * F32(0.9), ny * F32(0.4))
    return Surface(window, alpha, normal, direction, depth, texture, normal, tints[:, owner])


def surface_points(look: Look, unit: np.ndarray) -> np.ndarray:
    """Return the points (3, n) of a round fruit's surface in the unit directions (3, n), without its small lumps."""
    c = unit[1]
    rho = np.ones_like(c)
    for power, coefficient in enumerate(look.taper, 1):
        rho = rho + coefficient * c**power
    rho = rho + look.top[0] * np.exp((c - 1) / look.top[1]) + look.bottom[0] * np.exp((-c - 1) / look.bottom[1])
    points = unit * rho
    points[1] *= look.height
    return points


def set_arc_coordinates(surface: Surface, along: Callable[[np.ndarray], np.ndarray]) -> None:
    """Give a banana's surface the coordinates that the skin is painted by: its c is the position along the arc."""
    x, y, z = surface.points
    t = np.clip(along(surface.points), -1, 1)
    turn = np.arctan2(z, surface.normal[0])
    s = np.sqrt(np.maximum(1 - t * t, 0))
    surface.direction = np.stack([s * np.cos(turn), t, s * np.sin(turn)])
    surface.texture = ((x + z) * F32(1.3), (y - z) * F32(1.3))
