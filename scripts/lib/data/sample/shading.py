"""Render one fruit: its skin, the light on it, its stem, leaf and sepals.

Camera space: x to the right, y up, z towards the viewer, orthographic. Object space: the stem's axis is +y.
Colours are linear RGB float32 until the camera develops the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from scripts.lib.data.sample import surfaces
from scripts.lib.data.sample.drawing import draw_leaf, draw_sepals, draw_stem, leaf_colour
from scripts.lib.data.sample.looks import Look, Rng, hsv
from scripts.lib.data.sample.noise import F32, blur_wide, look_up, mix, noise_texture, skin_texture, smoothstep
from scripts.lib.data.sample.surfaces import Frame, Surface, rotation_from, surface_points

SEED_COLOUR = hsv(48, 0.55, 0.8)
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


def add_seeds(look: Look, surface: Surface, rgb: np.ndarray, height: np.ndarray, frame: Frame, rng: Rng) -> np.ndarray:
    """Sink the seeds of a strawberry into its skin (golden-angle spiral); return the new height map."""
    k = np.arange(look.seeds) + 0.5
    c = 1 - 2 * k / look.seeds
    turn = k * math.pi * (3 - math.sqrt(5)) + rng.normal(0, 0.12, look.seeds)
    s = np.sqrt(1 - c * c)
    unit = np.stack([s * np.cos(turn), c, s * np.sin(turn)])
    points = frame.pixels_of(frame.rotation @ surface_points(look, unit))
    facing = (frame.rotation @ unit)[2]
    dimple, seed = np.zeros((2, frame.pixels, frame.pixels), np.uint8)
    down = frame.rotation[:, 1]
    angle = math.degrees(math.atan2(-down[1], down[0]))
    length = 0.052 * frame.scale
    for i in np.flatnonzero((facing > 0.08) & (c < 0.93)):
        centre = (int(points[i, 0] * 16), int(points[i, 1] * 16))
        wide, long = max(0.5, length * 0.55), max(0.6, length * max(0.4, facing[i]))
        cv2.ellipse(dimple, centre, (int(long * 26), int(wide * 30)), angle, 0, 360, 255, -1, cv2.LINE_AA, 4)
        cv2.ellipse(seed, centre, (int(long * 14), int(wide * 13)), angle, 0, 360, 255, -1, cv2.LINE_AA, 4)
    dimple, seed = np.ascontiguousarray(dimple[surface.window]), seed[surface.window]
    pit = cv2.GaussianBlur(dimple, (0, 0), max(0.5, length * 0.3)).astype(F32) / F32(255)
    rgb *= 1 - F32(0.3) * pit
    mix(rgb, SEED_COLOUR * F32(rng.uniform(0.6, 1.1)), seed.astype(F32) * F32(rng.uniform(0.5, 0.95) / 255))
    return height - pit * F32(0.05)


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
    rim = 1 - nz
    fresnel = F32(0.25) + rim * rim
    # exp(shine (c - 1)) is c ** shine where either is visible, and cheaper.
    highlight = F32(look.gloss * (1 - 0.5 * light.softness)) * np.exp((aligned - 1) * F32(shine))
    highlight += F32(0.12 * look.gloss) * fresnel * smoothstep(ny * F32(1.4) + F32(0.2))
    up = ny * F32(0.5) + F32(0.5)
    fuzz = F32(0.32 * look.fuzz) * rim * rim * (F32(0.4) + diffuse)
    glow = F32(0.5 * look.translucent) * np.maximum(-facing, 0)
    result = np.empty_like(albedo)
    for channel in range(3):
        sky, ground, lamp = (F32(colour[channel]) for colour in (light.sky, light.ground, light.colour))
        fill = (ground + (sky - ground) * up) * occlusion
        lit = albedo[channel] * (fill + lamp * (diffuse * occlusion + glow))
        result[channel] = lit + (highlight * lamp + fuzz * (lamp * F32(0.7) + sky)) * occlusion
    return result


def render_fruit(look: Look, axis: np.ndarray, spin: float, radius: float, light: Light, rng: Rng) -> Patch:
    """Render one fruit.

    Parameters
    ----------
    look : its shape and skin.
    axis : unit vector of the stem's axis in camera space.
    spin : turn about the axis in radians.
    radius : equatorial radius (round), half width (bunch) or half length (banana) in pixels.
    """
    bump = max(0.0, look.top[0]) if look.body == "round" else 0
    extent = 1.35 + look.stem * 0.6 + max(0.0, look.height - 1.0) + bump
    step = 2 if radius < RAY_RADIUS else 3
    pixels = step * max(12, math.ceil(2 * extent * radius / step))
    frame = Frame(rotation_from(axis, spin), extent, pixels)
    rays = replace(frame, pixels=pixels // step)
    if look.body == "bunch":
        surface = surfaces.bunch(look, frame, rng)
    elif look.body == "banana":
        implicit, along = surfaces.tube(look, rng)
        coarse = surfaces.trace(implicit, rays)
        surfaces.set_arc_coordinates(coarse, along)
        surface = surfaces.enlarge(coarse, step)
    else:
        coarse = surfaces.trace(surfaces.star_radius(look, rng), rays)
        surface = surfaces.enlarge(coarse, step)
    albedo, height = paint_skin(look, surface, rng)
    if look.body == "banana":
        _dark_ends(surface, albedo, rng)
    if look.seeds:
        height = add_seeds(look, surface, albedo, height, frame, rng)
    lit = light_surface(look, surface, np.clip(albedo, 0.004, 1), height, frame.scale, light)
    rgb, alpha = np.zeros((pixels, pixels, 3), F32), np.zeros((pixels, pixels), F32)
    rgb[surface.window] = lit.transpose(1, 2, 0)
    alpha[surface.window] = surface.alpha
    patch = Patch(rgb, alpha, alpha.copy())
    if look.body != "banana":
        _dress(patch, look, frame, light, rng)
    return patch


def _dress(patch: Patch, look: Look, frame: Frame, light: Light, rng: Rng) -> None:
    """Add stem, leaf and sepals; what points away from the viewer goes behind the fruit."""
    axis = frame.rotation[:, 1]
    if look.body == "bunch":
        pole = axis * 0.62 * look.height
    else:
        pole = frame.rotation @ surface_points(look, np.array([[0.0], [1.0], [0.0]]))[:, 0]
    root = frame.pixels_of(pole)
    shade = (light.sky * F32(0.8) + light.colour * F32(0.55)).astype(F32)
    hidden = axis[2] < (-0.35 if look.top[0] < -0.02 else -0.15) or look.body == "bunch"
    canvas, alpha = (patch.rgb.copy(), patch.alpha.copy()) if hidden else (patch.rgb, patch.alpha)
    tip = draw_stem(canvas, alpha, root, look, frame, shade, rng) if look.stem > 0 else root
    if rng.random() < look.leaf:
        angle = math.atan2(-axis[1], axis[0]) + rng.normal(0, 0.9)
        length = frame.scale * rng.uniform(0.5, 1.0)
        start = root + (tip - root) * rng.uniform(0.2, 0.9)
        draw_leaf(canvas, start, angle, length, leaf_colour(rng) * shade, rng, alpha, slim=rng.uniform(0.2, 0.36))
    if hidden:
        behind = 1 - patch.body
        patch.rgb += (canvas - patch.rgb) * behind[..., None]
        patch.alpha = np.maximum(patch.alpha, alpha)
    if look.sepals:
        draw_sepals(patch.rgb, patch.alpha, look, frame, shade, rng)


def _dark_ends(surface: Surface, albedo: np.ndarray, rng: Rng) -> None:
    t = surface.direction[1]
    mix(albedo, hsv(30, 0.6, 0.2), smoothstep((-t - F32(rng.uniform(0.9, 0.97))) * 25))
    mix(albedo, hsv(rng.uniform(35, 65), 0.55, 0.4), smoothstep((t - F32(rng.uniform(0.84, 0.93))) * 14))
