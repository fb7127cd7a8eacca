"""Turn one Look into pixels: trace its surface, paint the skin, light it, draw stem, leaf and sepals.

Camera space: x to the right, y up, z towards the viewer, orthographic. Object space: the stem's axis is +y.
Colours are linear RGB float32 until the camera of sample_scenes develops the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from scripts.lib.data.sample.looks import Look, Rng, hsv

F32 = np.float32
NOISE_SIZE = 512  #: edge of the tileable noise textures, in texels
SEED_COLOUR = hsv(48, 0.55, 0.8)
MARCH_STEPS = 9
SECANT_STEPS = 2
COARSE = 3  #: rays of the fine grid in one of the coarse grid, along an edge
RAY_RADIUS = 60  #: a fruit of a larger radius in pixels gets one ray for 3 x 3 pixels, a smaller one for 2 x 2


@dataclass(frozen=True)
class Light:
    """The light of one scene: *direction* to the lamp (unit, camera space), linear colours, fill from all sides."""

    direction: np.ndarray
    colour: np.ndarray
    sky: np.ndarray
    ground: np.ndarray
    softness: float  # 0: bare bulb, 1: overcast sky


@dataclass
class Patch:
    """A lit fruit cut out of its surroundings: linear RGB (h, w, 3) and coverage (h, w); *body* is without leaves."""

    rgb: np.ndarray
    alpha: np.ndarray
    body: np.ndarray


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


# ---------------------------------------------------------------------------------------------------------- noise


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
    return cv2.remap(
        texture,
        u * F32(scale) + F32(x0),
        v * F32(scale) + F32(y0),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )


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


# ------------------------------------------------------------------------------------------------------- geometry


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


def trace(implicit: Callable[[np.ndarray], np.ndarray], rotation: np.ndarray, extent: float, pixels: int) -> Surface:
    """Find the surface along parallel rays: sphere tracing on a coarse grid, then secant steps on the fine one.

    The rays aim at half a pixel below the surface, so that the remaining distance gives a smooth edge.
    """
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


def bunch(look: Look, rotation: np.ndarray, extent: float, pixels: int, rng: Rng) -> Surface:
    """Heap berries along the stem's axis, wide at the top, and keep the nearest of them in each pixel."""
    n = look.berries
    size = 0.62 * (1.0 / n) ** 0.36
    t = rng.uniform(0, 1, n) ** 0.8
    around = rng.uniform(0, 2 * math.pi, n)
    spread = (0.62 - 0.42 * t) * np.sqrt(rng.uniform(0.15, 1, n))
    centres = np.stack([spread * np.cos(around), (0.8 - 1.6 * t) * look.height * 0.8, spread * np.sin(around)])
    centres = (rotation @ centres).astype(F32)
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


# ----------------------------------------------------------------------------------------------------------- skin


def mix(rgb: np.ndarray, colour: np.ndarray, amount: np.ndarray) -> None:
    """Blend *colour* (3,) into *rgb* (3, h, w) in place, by *amount* (h, w) in 0-1."""
    for channel in range(3):
        rgb[channel] += (F32(colour[channel]) - rgb[channel]) * amount


def paint_skin(look: Look, surface: Surface, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Return albedo (3, h, w) and the height map (h, w) that roughens the normals."""
    c = surface.direction[1]
    soft, middle, fine, pits = cv2.split(look_up(skin_texture(), *surface.texture, 100, rng))
    rgb = np.empty((3, *c.shape), F32)
    rgb[:] = look.ground[:, None, None]
    if look.shoulder_amount > 0:
        mix(rgb, look.shoulder, F32(look.shoulder_amount) * np.exp((c - 1) * F32(1 / rng.uniform(0.15, 0.6))))
    if look.stripes > 0 or look.streaks > 0:
        turn = np.arctan2(surface.direction[2], surface.direction[0])
    if look.blush_cover > -0.2:
        aim = rng.standard_normal(3)
        aim /= np.linalg.norm(aim)
        facing = sum(F32(aim[i]) * surface.direction[i] for i in range(3))
        field = facing * F32(0.6) + soft * F32(0.22) + middle * F32(0.06)
        if look.streaks > 0:
            lines = look_up(noise_texture(5, 0.7, 4), turn * F32(0.6), c * F32(0.04), 110, rng)
            field += lines * F32(0.32 * look.streaks)
        field += F32(1.3 * (look.blush_cover - 0.5))
        mix(rgb, look.blush, smoothstep(field / F32(look.blush_soft) + F32(0.5)))
    if look.stripes > 0:
        wobble = turn * F32(look.stripe_count) + soft * F32(0.7) + middle * F32(0.55) + fine * F32(0.15)
        band = smoothstep((np.sin(wobble) + F32(0.35) + middle * F32(0.25)) * F32(1.3))
        mix(rgb, look.stripe_colour, band * F32(look.stripes) * (1 - F32(0.4) * np.exp((np.abs(c) - 1) * 12)))
    rgb *= 1 + F32(look.mottle) * (soft * F32(0.6) + middle * F32(0.6))
    if look.speckle > 0:
        mix(rgb, look.ground * F32(0.5) + F32(0.4), F32(0.6 * look.speckle) * smoothstep((fine - F32(1.3)) * 2))
    if look.russet > 0:
        cover = smoothstep(np.abs(c) * F32(0.9) + middle * F32(0.25) - F32(1.0 - 0.5 * look.russet))
        mix(rgb, hsv(32, 0.6, 0.55), cover * F32(0.8))
    if look.blemish > 0:
        cover = smoothstep((middle + fine * F32(0.35) - F32(2.5 - 1.6 * look.blemish)) * F32(2.5))
        mix(rgb, hsv(24, 0.65, 0.28), cover * F32(0.85))
    if look.button > 0:
        mix(rgb, hsv(58, 0.45, 0.4), smoothstep((c - 1 + F32(look.button**2)) / F32(0.7 * look.button**2)))
    if look.eye > 0:
        mix(rgb, hsv(28, 0.5, 0.16), smoothstep((-c - 1 + F32(look.eye**2)) / F32(0.7 * look.eye**2)))
    if look.bloom > 0:
        mix(rgb, hsv(225, 0.12, 0.75), F32(0.35 * look.bloom) * smoothstep(soft * F32(0.4) + F32(0.5)))
    height = middle * F32(0.004)
    if look.pores > 0:
        pits = np.maximum(pits, 0)
        height = height - pits * F32(0.016 * look.pores)
        rgb *= 1 - F32(0.05 * look.pores) * pits
    if surface.tint is not None:
        rgb *= surface.tint
    return rgb, height


def add_seeds(
    look: Look,
    surface: Surface,
    rgb: np.ndarray,
    height: np.ndarray,
    rotation: np.ndarray,
    extent: float,
    pixels: int,
    rng: Rng,
) -> np.ndarray:
    """Sink the seeds of a strawberry into its skin (golden-angle spiral); return the new height map."""
    k = np.arange(look.seeds) + 0.5
    c = 1 - 2 * k / look.seeds
    turn = k * math.pi * (3 - math.sqrt(5)) + rng.normal(0, 0.12, look.seeds)
    s = np.sqrt(1 - c * c)
    unit = np.stack([s * np.cos(turn), c, s * np.sin(turn)])
    place = rotation @ surface_points(look, unit)
    facing = (rotation @ unit)[2]
    scale = pixels / (2 * extent)
    dimple = np.zeros((pixels, pixels), np.uint8)
    seed = np.zeros((pixels, pixels), np.uint8)
    length = 0.052 * scale
    for i in np.flatnonzero((facing > 0.08) & (c < 0.93)):
        centre = (int((place[0, i] + extent) * scale * 16), int((extent - place[1, i]) * scale * 16))
        down = rotation[:, 1]
        angle = math.degrees(math.atan2(-down[1], down[0]))
        wide, long = max(0.5, length * 0.55), max(0.6, length * max(0.4, facing[i]))
        cv2.ellipse(dimple, centre, (int(long * 26), int(wide * 30)), angle, 0, 360, 255, -1, cv2.LINE_AA, 4)
        cv2.ellipse(seed, centre, (int(long * 14), int(wide * 13)), angle, 0, 360, 255, -1, cv2.LINE_AA, 4)
    dimple, seed = np.ascontiguousarray(dimple[surface.window]), seed[surface.window]
    pit = cv2.GaussianBlur(dimple, (0, 0), max(0.5, length * 0.3)).astype(F32) / F32(255)
    rgb *= 1 - F32(0.3) * pit
    mix(rgb, SEED_COLOUR * F32(rng.uniform(0.6, 1.1)), seed.astype(F32) * F32(rng.uniform(0.5, 0.95) / 255))
    return height - pit * F32(0.05)


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


# ---------------------------------------------------------------------------------------------------------- light


def light_surface(
    look: Look, surface: Surface, albedo: np.ndarray, height: np.ndarray, scale: float, light: Light
) -> np.ndarray:
    """Return lit linear RGB (3, h, w): wrapped Lambert, Blinn-Phong, fill light, occlusion, fuzz, translucency."""
    dx = cv2.Sobel(height, cv2.CV_32F, 1, 0, ksize=3, scale=scale / 8)
    dy = cv2.Sobel(height, cv2.CV_32F, 0, 1, ksize=3, scale=scale / 8)
    nx, ny, nz = surface.normal[0] - dx, surface.normal[1] + dy, np.maximum(surface.normal[2], F32(0.0))
    inverse = 1 / np.sqrt(nx * nx + ny * ny + nz * nz + F32(1e-6))
    nx, ny, nz = nx * inverse, ny * inverse, nz * inverse
    lx, ly, lz = (F32(value) for value in light.direction)
    wrap = F32(0.15 + 0.35 * light.softness + 0.3 * look.translucent)
    facing = nx * lx + ny * ly + nz * lz
    diffuse = np.maximum(facing + wrap, 0) / (1 + wrap)
    blurred = blur_wide(surface.depth, max(1.0, 0.12 * scale))
    occlusion = 1 - np.clip((blurred - surface.depth) * F32(0.9), 0, F32(0.55))
    half = np.array([lx, ly, lz + 1])
    half /= np.linalg.norm(half)
    aligned = np.maximum(nx * F32(half[0]) + ny * F32(half[1]) + nz * F32(half[2]), 0)
    shine = look.shine * (1 - 0.6 * light.softness)
    edge = 1 - nz
    fresnel = F32(0.25) + edge * edge
    # exp(shine (c - 1)) is c ** shine where either is visible, and cheaper.
    highlight = F32(look.gloss * (1 - 0.5 * light.softness)) * np.exp((aligned - 1) * F32(shine))
    highlight += F32(0.12 * look.gloss) * fresnel * smoothstep(ny * F32(1.4) + F32(0.2))
    up = ny * F32(0.5) + F32(0.5)
    fuzz = F32(0.32 * look.fuzz) * edge * edge * (F32(0.4) + diffuse)
    glow = F32(0.5 * look.translucent) * np.maximum(-facing, 0)
    result = np.empty_like(albedo)
    for channel in range(3):
        sky, ground, lamp = (F32(colour[channel]) for colour in (light.sky, light.ground, light.colour))
        fill = (ground + (sky - ground) * up) * occlusion
        lit = albedo[channel] * (fill + lamp * (diffuse * occlusion + glow))
        result[channel] = lit + (highlight * lamp + fuzz * (lamp * F32(0.7) + sky)) * occlusion
    return result


# ---------------------------------------------------------------------------------------------- stems and leaves


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
    part = (slice(low[1], high[1]), slice(low[0], high[0]))
    canvas[part] = mix_rgb(canvas[part], paint, amount)
    if alpha is not None:
        alpha[part] += (1 - alpha[part]) * amount


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
    for side, factor in ((1, bright), (-1, dark)):
        outline = np.concatenate([spine, (spine + side * half * rng.uniform(0.6, 1.05))[::-1]])
        draw_polygon(canvas, outline, colour * F32(factor), alpha, gradient=slope, soft=soft)
    if not veins:
        return
    draw_polygon(canvas, spine, colour * F32(1.6), None, line=max(0.8, length * 0.02), soft=soft)
    for i in range(3, 11, 2):
        for side in (1, -1):
            tip = spine[min(i + 2, 13)] + side * half[min(i + 1, 13)] * 0.8
            draw_polygon(canvas, np.stack([spine[i], tip]), colour * F32(1.35), None, line=0.6, soft=soft)


def leaf_colour(rng: Rng) -> np.ndarray:
    """Return a green as leaves have it, now and then yellowing."""
    return hsv(rng.uniform(68, 125), rng.uniform(0.4, 0.75), rng.uniform(0.25, 0.6))


def _draw_stem(
    canvas: np.ndarray,
    alpha: np.ndarray,
    root: np.ndarray,
    axis: np.ndarray,
    scale: float,
    look: Look,
    lit: np.ndarray,
    rng: Rng,
) -> np.ndarray:
    """Draw a stem from *root* (pixels) along *axis* (camera space); return where it ends."""
    t = np.linspace(0, 1, 8)[:, None]
    run = np.array([axis[0], -axis[1]]) * look.stem * scale
    curl = np.array([rng.normal(0, 0.25), rng.normal(0, 0.25)]) * look.stem * scale
    points = root + t * run + t * t * curl
    width = max(1.0, look.stem_width * scale)
    draw_polygon(canvas, points, look.stem_colour * lit * F32(0.6), alpha, line=width)
    draw_polygon(
        canvas, points - [0.25 * width, 0.2 * width], look.stem_colour * lit * F32(1.3), alpha, line=width * 0.45
    )
    return points[-1]


def _draw_sepals(
    canvas: np.ndarray,
    alpha: np.ndarray,
    look: Look,
    rotation: np.ndarray,
    extent: float,
    scale: float,
    lit: np.ndarray,
    rng: Rng,
) -> None:
    """Draw the green crown of a strawberry: pointed leaves that start at the pole and follow the shoulder."""
    colour = hsv(rng.uniform(75, 115), rng.uniform(0.5, 0.75), rng.uniform(0.4, 0.65))
    reach = rng.uniform(0.55, 0.95)
    lift = rng.uniform(0.0, 0.25)
    order = rng.permutation(look.sepals)
    for k in order:
        turn = 2 * math.pi * (k + rng.uniform(-0.25, 0.25)) / look.sepals
        theta = np.linspace(0.02, reach * rng.uniform(0.8, 1.15), 6)
        wide = 0.34 * np.array([0.5, 0.9, 1.0, 0.75, 0.4, 0.0])
        sides = []
        for side in (1, -1):
            phi = turn + side * wide * 0.35 / np.maximum(np.sin(theta), 0.15)
            unit = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)])
            points = surface_points(look, unit) * (1.03 + lift * theta**2)
            sides.append(rotation @ points)
        middle = (sides[0] + sides[1]) / 2
        if middle[2, 3:].mean() < -0.25:  # behind the fruit
            continue
        outline = np.concatenate([sides[0].T, sides[1].T[::-1]])[:, :2]
        pixels = np.stack([(outline[:, 0] + extent) * scale, (extent - outline[:, 1]) * scale], axis=1)
        shade = F32(rng.uniform(0.65, 1.25))
        draw_polygon(canvas, pixels, colour * lit * shade, alpha, gradient=(1.15, 0.8))
        spine = np.stack([(middle[0] + extent) * scale, (extent - middle[1]) * scale], axis=1)
        draw_polygon(canvas, spine, colour * lit * shade * F32(1.35), None, line=max(0.6, 0.012 * scale))


# ----------------------------------------------------------------------------------------------------------- fruit


def render_fruit(look: Look, axis: np.ndarray, spin: float, radius: float, light: Light, rng: Rng) -> Patch:
    """Render one fruit.

    Parameters
    ----------
    look : its shape and skin.
    axis : unit vector of the stem's axis in camera space.
    spin : turn about the axis in radians.
    radius : equatorial radius (round), half width (bunch) or half length (banana) in pixels.
    """
    extent = (
        1.35 + look.stem * 0.6 + max(0.0, look.height - 1.0) + (max(0.0, look.top[0]) if look.body == "round" else 0)
    )
    step = 2 if radius < RAY_RADIUS else 3
    pixels = step * max(12, math.ceil(2 * extent * radius / step))
    scale = pixels / (2 * extent)
    rotation = rotation_from(axis, spin)
    if look.body == "bunch":
        surface = bunch(look, rotation, extent, pixels, rng)
    elif look.body == "banana":
        implicit, along = tube(look, rng)
        surface = trace(implicit, rotation, extent, pixels // step)
        _place_on_arc(surface, along)
        surface = enlarge(surface, step)
    else:
        surface = enlarge(trace(star_radius(look, rng), rotation, extent, pixels // step), step)
    albedo, height = paint_skin(look, surface, rng)
    if look.body == "banana":
        _dark_ends(surface, albedo, rng)
    if look.seeds:
        height = add_seeds(look, surface, albedo, height, rotation, extent, pixels, rng)
    lit = light_surface(look, surface, np.clip(albedo, 0.004, 1), height, scale, light)
    rgb, alpha = np.zeros((pixels, pixels, 3), F32), np.zeros((pixels, pixels), F32)
    rgb[surface.window] = lit.transpose(1, 2, 0)
    alpha[surface.window] = surface.alpha
    patch = Patch(rgb, alpha, alpha.copy())
    if look.body != "banana":
        _dress(patch, look, rotation, extent, scale, light, rng)
    return patch


def _dress(patch: Patch, look: Look, rotation: np.ndarray, extent: float, scale: float, light: Light, rng: Rng) -> None:
    """Add stem, leaf and sepals; what points away from the viewer goes behind the fruit."""
    axis = rotation[:, 1]
    if look.body == "bunch":
        pole = axis * 0.62 * look.height
    else:
        pole = rotation @ surface_points(look, np.array([[0.0], [1.0], [0.0]]))[:, 0]
    root = np.array([(pole[0] + extent) * scale, (extent - pole[1]) * scale])
    shade = (light.sky * F32(0.8) + light.colour * F32(0.55)).astype(F32)
    hidden = axis[2] < (-0.35 if look.top[0] < -0.02 else -0.15) or look.body == "bunch"
    canvas, alpha = (patch.rgb.copy(), patch.alpha.copy()) if hidden else (patch.rgb, patch.alpha)
    tip = _draw_stem(canvas, alpha, root, axis, scale, look, shade, rng) if look.stem > 0 else root
    if rng.random() < look.leaf:
        angle = math.atan2(-axis[1], axis[0]) + rng.normal(0, 0.9)
        length = scale * rng.uniform(0.5, 1.0)
        start = root + (tip - root) * rng.uniform(0.2, 0.9)
        draw_leaf(canvas, start, angle, length, leaf_colour(rng) * shade, rng, alpha, slim=rng.uniform(0.2, 0.36))
    if hidden:
        behind = 1 - patch.body
        patch.rgb += (canvas - patch.rgb) * behind[..., None]
        patch.alpha = np.maximum(patch.alpha, alpha)
    if look.sepals:
        _draw_sepals(patch.rgb, patch.alpha, look, rotation, extent, scale, shade, rng)


def _place_on_arc(surface: Surface, along: Callable[[np.ndarray], np.ndarray]) -> None:
    """Give a banana's surface the coordinates that the skin is painted by: its c is the position along the arc."""
    x, y, z = surface.points
    t = np.clip(along(surface.points), -1, 1)
    turn = np.arctan2(z, surface.normal[0])
    s = np.sqrt(np.maximum(1 - t * t, 0))
    surface.direction = np.stack([s * np.cos(turn), t, s * np.sin(turn)])
    surface.texture = ((x + z) * F32(1.3), (y - z) * F32(1.3))


def _dark_ends(surface: Surface, albedo: np.ndarray, rng: Rng) -> None:
    t = surface.direction[1]
    mix(albedo, hsv(30, 0.6, 0.2), smoothstep((-t - F32(rng.uniform(0.9, 0.97))) * 25))
    mix(albedo, hsv(rng.uniform(35, 65), 0.55, 0.4), smoothstep((t - F32(rng.uniform(0.84, 0.93))) * 14))
