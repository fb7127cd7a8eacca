"""What one rendered fruit looks like: every class of the sample is a distribution over the same parameters.

The distributions of similar kinds overlap on purpose (a yellow lime, a nectarine, a round pear): that, and no wrong
label, is why a good classifier of the sample stays below 100 %.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Rng = np.random.Generator
Colour = np.ndarray  #: linear RGB, shape (3,), float32


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Return the linear RGB of a hue in degrees (any sign) with saturation and value in 0-1 (clipped)."""
    rgb = colorsys.hsv_to_rgb((hue / 360.0) % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))
    return np.asarray(rgb, np.float32) ** np.float32(2.2)


@dataclass
class Look:
    """Shape and skin of one fruit. Lengths are in units of its equatorial radius, amounts in 0-1.

    The body is star-shaped: radius(direction) = taper polynomial in c + bumps at both poles, where c is the cosine of
    the angle to the stem's axis; then it is stretched by *height* along that axis.
    """

    body: str = "round"  # round | bunch | banana
    height: float = 1.0
    taper: tuple[float, ...] = ()  # coefficients of c, c^2, ...
    top: tuple[float, float] = (0.0, 0.1)  # bump (+) or dent (-) at the stem's pole: amplitude, width in c
    bottom: tuple[float, float] = (0.0, 0.1)
    lobes: float = 0.0
    crease: tuple[float, float] = (0.0, 0.05)  # the seam of a peach: depth, width
    lump: float = 0.015
    upright: float = 0.5  # probability of standing on its bottom, else it lies

    ground: Colour = field(default_factory=lambda: hsv(60, 0.5, 0.8))
    shoulder: Colour = field(default_factory=lambda: hsv(80, 0.6, 0.6))  # colour around the stem
    shoulder_amount: float = 0.0
    blush: Colour = field(default_factory=lambda: hsv(0, 0.8, 0.7))
    blush_cover: float = 0.0  # fraction of the skin, about
    blush_soft: float = 0.4
    streaks: float = 0.0  # how much the blush follows meridians
    stripes: float = 0.0  # contrast of a melon's stripes
    stripe_count: int = 10
    stripe_colour: Colour = field(default_factory=lambda: hsv(120, 0.7, 0.2))
    mottle: float = 0.1
    speckle: float = 0.0  # light dots (lenticels)
    blemish: float = 0.0  # brown patches
    russet: float = 0.0
    pores: float = 0.0  # dimples of a citrus skin
    gloss: float = 0.3
    shine: float = 40.0  # exponent of the highlight
    fuzz: float = 0.0
    bloom: float = 0.0  # the waxy veil of a grape
    translucent: float = 0.0
    seeds: int = 0

    stem: float = 0.0  # length; 0: none
    stem_width: float = 0.05
    stem_colour: Colour = field(default_factory=lambda: hsv(30, 0.6, 0.3))
    leaf: float = 0.0  # probability of a leaf at the stem
    button: float = 0.0  # size of the scar at the stem's pole
    eye: float = 0.0  # size of the dark remains of the flower at the other pole
    sepals: int = 0
    berries: int = 0
    bend: float = 1.0  # banana: angle of its arc in radians


def _maybe(rng: Rng, probability: float) -> bool:
    return bool(rng.random() < probability)


def _poles(rng: Rng, look: Look) -> None:
    """Stem and leaf as pickers leave them: often gone."""
    if _maybe(rng, 0.25):
        look.stem = 0.0
    if look.stem == 0.0 and _maybe(rng, 0.6):
        look.leaf = 0.0


def apple(rng: Rng) -> Look:
    u = rng.uniform
    kind = rng.choice(3, p=[0.46, 0.14, 0.4])  # red, green, two-coloured
    look = Look(
        height=u(0.84, 1.02),
        taper=(u(-0.01, 0.09), u(-0.04, 0.02)),
        top=(-u(0.24, 0.45), u(0.06, 0.16)),
        bottom=(-u(0.03, 0.2), u(0.04, 0.12)),
        lobes=u(0.0, 0.03),
        upright=0.65,
        ground=hsv(u(44, 64), u(0.5, 0.78), u(0.7, 0.92)),
        shoulder=hsv(u(52, 84), u(0.5, 0.75), u(0.5, 0.75)),
        shoulder_amount=u(0.0, 0.5),
        blush=hsv(u(-14, 10), u(0.72, 0.95), u(0.5, 0.85)),
        blush_cover=u(0.45, 0.9),
        blush_soft=u(0.2, 0.7),
        streaks=u(0.25, 1.0),
        mottle=u(0.03, 0.14),
        speckle=u(0.0, 0.6),
        blemish=u(0.0, 0.35) if _maybe(rng, 0.3) else 0.0,
        gloss=u(0.2, 0.7),
        shine=u(25, 95),
        stem=u(0.25, 0.55),
        leaf=0.2,
        eye=u(0.05, 0.13),
    )
    if kind == 0:
        look.blush_cover = u(0.85, 1.2)
    elif kind == 1:
        look.ground = hsv(u(68, 90), u(0.55, 0.85), u(0.64, 0.86))
        look.blush_cover = u(-0.3, 0.2)
    _poles(rng, look)
    return look


def peach(rng: Rng) -> Look:
    u = rng.uniform
    look = Look(
        height=u(0.88, 1.06),
        taper=(u(-0.03, 0.05), u(-0.03, 0.03)),
        top=(-u(0.12, 0.32), u(0.04, 0.12)),
        bottom=(u(-0.06, 0.12), u(0.02, 0.06)),
        crease=(u(0.03, 0.13), u(0.015, 0.06)),
        upright=0.6,
        ground=hsv(u(25, 46), u(0.35, 0.68), u(0.8, 0.96)),
        shoulder=hsv(u(36, 54), u(0.4, 0.65), u(0.75, 0.9)),
        shoulder_amount=u(0.0, 0.5),
        blush=hsv(u(-14, 14), u(0.5, 0.8), u(0.62, 0.92)),
        blush_cover=u(0.1, 0.75),
        blush_soft=u(0.6, 1.2),
        streaks=u(0.0, 0.18),
        mottle=u(0.04, 0.16),
        speckle=u(0.0, 0.12),
        gloss=u(0.0, 0.08),
        shine=u(8, 25),
        fuzz=u(0.4, 1.0),
        stem=u(0.0, 0.2),
        leaf=0.25,
        button=u(0.03, 0.07),
    )
    if _maybe(rng, 0.1):  # nectarine
        look.fuzz = u(0.0, 0.2)
        look.gloss, look.shine = u(0.1, 0.45), u(18, 70)
        look.blush_cover = u(0.5, 1.1)
        look.streaks = u(0.1, 0.6)
    _poles(rng, look)
    return look


def orange(rng: Rng) -> Look:
    u = rng.uniform
    look = Look(
        height=u(0.84, 1.05),
        taper=(u(-0.02, 0.04), u(-0.03, 0.01)),
        top=(-u(0.0, 0.13), u(0.02, 0.1)),
        bottom=(-u(0.0, 0.1), u(0.02, 0.06)),
        lump=u(0.005, 0.025),
        upright=0.45,
        ground=hsv(u(19, 34), u(0.8, 0.98), u(0.82, 0.98)),
        shoulder=hsv(u(35, 75), u(0.65, 0.9), u(0.55, 0.85)),
        shoulder_amount=u(0.0, 0.35),
        blush=hsv(u(8, 22), u(0.75, 0.95), u(0.72, 0.92)),
        blush_cover=u(-0.3, 0.45),
        blush_soft=u(0.6, 1.2),
        mottle=u(0.02, 0.09),
        speckle=u(0.0, 0.15),
        blemish=u(0.0, 0.2) if _maybe(rng, 0.25) else 0.0,
        pores=u(0.3, 1.0),
        gloss=u(0.1, 0.45),
        shine=u(12, 45),
        stem=u(0.05, 0.15) if _maybe(rng, 0.3) else 0.0,
        stem_colour=hsv(u(60, 95), 0.5, 0.35),
        leaf=0.25,
        button=u(0.05, 0.12),
        eye=u(0.0, 0.09),
    )
    if _maybe(rng, 0.04):  # not yet ripe
        look.ground = hsv(u(34, 52), u(0.75, 0.92), u(0.72, 0.9))
    return look


def _citrus(rng: Rng, hue: float, value: float) -> Look:
    """Lemon and lime: one kind of fruit in two colours; the callers set what differs."""
    u = rng.uniform
    return Look(
        taper=(u(-0.04, 0.04), u(-0.05, 0.03)),
        lump=u(0.01, 0.03),
        upright=0.12,
        ground=hsv(hue, u(0.68, 0.92), value),
        shoulder=hsv(hue + u(5, 25), u(0.65, 0.85), value * 0.9),
        shoulder_amount=u(0.0, 0.5),
        blush=hsv(hue + u(-14, 14), u(0.65, 0.9), value * u(0.9, 1.05)),
        blush_cover=u(0.0, 0.8),
        blush_soft=u(0.5, 1.2),
        mottle=u(0.02, 0.1),
        blemish=u(0.0, 0.25) if _maybe(rng, 0.3) else 0.0,
        pores=u(0.25, 0.9),
        gloss=u(0.1, 0.5),
        shine=u(12, 55),
        leaf=0.2,
        button=u(0.05, 0.1),
        eye=u(0.0, 0.07),
    )


def lemon(rng: Rng) -> Look:
    u = rng.uniform
    ripe = not _maybe(rng, 0.07)
    look = _citrus(rng, u(47, 57) if ripe else u(56, 72), u(0.82, 0.97) if ripe else u(0.68, 0.9))
    look.height = u(1.08, 1.4)
    look.top = (u(0.04, 0.2), u(0.02, 0.06))
    look.bottom = (u(0.08, 0.34), u(0.015, 0.06))
    return look


def lime(rng: Rng) -> Look:
    u = rng.uniform
    ripe = _maybe(rng, 0.06)
    look = _citrus(rng, u(60, 74) if ripe else u(80, 110), u(0.65, 0.88) if ripe else u(0.3, 0.62))
    look.height = u(0.98, 1.24)
    look.top = (u(-0.05, 0.12), u(0.02, 0.06))
    look.bottom = (u(0.0, 0.24), u(0.015, 0.05))
    return look


def pear(rng: Rng) -> Look:
    u = rng.uniform
    neck = u(0.4, 0.85)
    look = Look(
        height=u(0.95, 1.12),
        taper=(u(-0.12, -0.02), u(-0.02, 0.06)),
        top=(neck, u(0.1, 0.24)),
        bottom=(-u(0.03, 0.14), u(0.05, 0.12)),
        lump=u(0.015, 0.04),
        upright=0.7,
        ground=hsv(u(52, 78), u(0.4, 0.74), u(0.6, 0.88)),
        shoulder=hsv(u(35, 75), u(0.45, 0.7), u(0.45, 0.7)),
        shoulder_amount=u(0.0, 0.5),
        blush=hsv(u(-8, 25), u(0.6, 0.85), u(0.5, 0.8)),
        blush_cover=u(-0.4, 0.12),
        blush_soft=u(0.4, 1.0),
        streaks=u(0.0, 0.3),
        mottle=u(0.04, 0.16),
        speckle=u(0.2, 0.9),
        blemish=u(0.0, 0.35) if _maybe(rng, 0.4) else 0.0,
        russet=u(0.1, 0.8) if _maybe(rng, 0.5) else 0.0,
        gloss=u(0.05, 0.4),
        shine=u(12, 50),
        stem=u(0.3, 0.6),
        leaf=0.15,
        eye=u(0.06, 0.13),
    )
    if _maybe(rng, 0.06):  # a red one
        look.blush_cover = u(0.5, 1.1)
    if _maybe(rng, 0.06):  # nashi: as round as an apple
        look.top = (-u(0.05, 0.25), u(0.06, 0.14))
        look.taper = (u(-0.04, 0.04), u(-0.04, 0.02))
        look.height = u(0.86, 1.0)
        look.ground = hsv(u(36, 62), u(0.45, 0.75), u(0.6, 0.88))
        look.speckle = u(0.4, 1.0)
    _poles(rng, look)
    return look


def watermelon(rng: Rng) -> Look:
    u = rng.uniform
    hue = u(78, 125)
    dark = _maybe(rng, 0.1)  # a dark kind whose stripes are hardly seen
    return Look(
        height=u(0.94, 1.5),
        taper=(u(-0.02, 0.02), u(-0.04, 0.02)),
        top=(-u(0.0, 0.06), u(0.03, 0.08)),
        lump=u(0.005, 0.02),
        upright=0.2,
        ground=hsv(hue, u(0.4, 0.65), u(0.2, 0.35)) if dark else hsv(hue, u(0.35, 0.65), u(0.42, 0.72)),
        blush=hsv(u(50, 65), u(0.4, 0.6), u(0.7, 0.85)),  # the pale patch where it lay
        blush_cover=u(-0.2, 0.15),
        blush_soft=u(0.4, 0.9),
        stripes=u(0.1, 0.4) if dark else u(0.35, 1.0),
        stripe_count=int(rng.integers(7, 14)),
        stripe_colour=hsv(u(105, 140), u(0.5, 0.8), u(0.12, 0.28)),
        mottle=u(0.05, 0.18),
        gloss=u(0.08, 0.45),
        shine=u(12, 50),
        stem=u(0.15, 0.4) if _maybe(rng, 0.4) else 0.0,
        stem_colour=hsv(u(55, 95), 0.45, 0.4),
        button=u(0.03, 0.07),
        eye=u(0.02, 0.05),
    )


def strawberry(rng: Rng) -> Look:
    u = rng.uniform
    unripe = _maybe(rng, 0.2)
    return Look(
        height=u(0.95, 1.25),
        taper=(u(0.0, 0.08), u(-0.06, 0.02)),
        top=(-u(0.05, 0.25), u(0.1, 0.3)),
        bottom=(u(0.1, 0.4), u(0.12, 0.3)),
        lump=u(0.02, 0.06),
        upright=0.1,
        ground=hsv(u(-8, 9), u(0.78, 0.95), u(0.6, 0.9)),
        shoulder=hsv(u(30, 60), u(0.3, 0.5), u(0.75, 0.9)) if unripe else hsv(u(0, 15), u(0.5, 0.8), u(0.75, 0.9)),
        shoulder_amount=u(0.5, 1.0) if unripe else u(0.0, 0.5),
        blush=hsv(u(-10, 2), 0.92, u(0.42, 0.65)),
        blush_cover=u(-0.2, 0.6),
        blush_soft=u(0.5, 1.0),
        mottle=u(0.03, 0.1),
        gloss=u(0.25, 0.8),
        shine=u(25, 90),
        seeds=int(rng.integers(110, 230)),
        sepals=int(rng.integers(6, 11)) if _maybe(rng, 0.88) else 0,
        stem=u(0.15, 0.6),
        stem_width=0.045,
        stem_colour=hsv(u(75, 105), 0.55, 0.5),
    )


def grape(rng: Rng) -> Look:
    u = rng.uniform
    kind = rng.choice(3, p=[0.42, 0.33, 0.25])  # green, blue-black, red
    ground = (
        hsv(u(54, 84), u(0.4, 0.72), u(0.55, 0.82)),
        hsv(u(225, 300), u(0.3, 0.6), u(0.13, 0.32)),
        hsv(u(-38, -2), u(0.5, 0.8), u(0.3, 0.58)),
    )[kind]
    return Look(
        body="bunch",
        height=u(0.95, 1.3),
        ground=ground,
        blush=hsv(u(-40, 30), u(0.5, 0.7), u(0.3, 0.6)),
        blush_cover=u(-0.4, 0.3),
        blush_soft=0.8,
        mottle=u(0.02, 0.12),
        gloss=u(0.15, 0.7),
        shine=u(25, 90),
        bloom=u(0.0, 0.6),
        translucent=u(0.1, 0.6) if kind == 0 else u(0.0, 0.3),
        eye=0.07,
        stem=u(0.25, 0.6),
        stem_width=0.05,
        stem_colour=hsv(u(40, 90), 0.5, 0.4),
        leaf=0.3,
        berries=int(rng.integers(14, 46)),
        upright=0.0,
    )


def banana(rng: Rng) -> Look:
    u = rng.uniform
    green = _maybe(rng, 0.2)
    return Look(
        body="banana",
        height=u(0.2, 0.3),  # the radius of the tube
        bend=u(0.7, 1.5),
        ground=hsv(u(60, 80), u(0.6, 0.8), u(0.6, 0.8)) if green else hsv(u(44, 56), u(0.6, 0.9), u(0.82, 0.97)),
        shoulder=hsv(u(55, 80), 0.6, 0.65),
        shoulder_amount=u(0.0, 0.8),
        blush=hsv(u(48, 70), u(0.5, 0.7), u(0.75, 0.9)),
        blush_cover=u(-0.3, 0.4),
        blush_soft=0.8,
        mottle=u(0.02, 0.09),
        blemish=u(0.2, 0.9) if _maybe(rng, 0.45) else 0.0,
        gloss=u(0.05, 0.3),
        shine=u(10, 35),
        upright=0.0,
    )


#: Class names, as the folders of the archive, and how a fruit of each is drawn. Two names are Chinese on purpose:
#: every demo run then proves that such names pass from the archive to the figures.
CLASSES: dict[str, Callable[[Rng], Look]] = {
    "apple": apple,
    "banana": banana,
    "lemon": lemon,
    "lime": lime,
    "orange": orange,
    "peach": peach,
    "pear": pear,
    "watermelon": watermelon,
    "草莓": strawberry,
    "葡萄": grape,
}
