"""What one rendered fruit looks like: every class of the sample is a distribution over the same parameters.

The distributions stand in looks.yaml, which also says how to read it. Those of similar kinds overlap on purpose (a
yellow lime, a nectarine, a round pear): that, and no wrong label, is why a good classifier stays below 100 %.
"""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from scripts.lib.base import strict_yaml

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


def _draw(value: Any, drawn: Mapping[str, Any], rng: Rng) -> Any:
    """Return what *value*, as looks.yaml writes it, comes to; *drawn*: the variables so far."""
    draw = functools.partial(_draw, drawn=drawn, rng=rng)
    match value:
        case str():
            return drawn.get(value, value)
        case int() | float():
            return value
        case [int() | float() as low, int() | float() as high]:
            return rng.uniform(low, high) if low < high else -rng.uniform(-low, -high)
        case [hue, saturation, brightness]:
            return hsv(draw(hue), draw(saturation), draw(brightness))
        case list():
            return tuple(map(draw, value))
        case {"choice": shares}:
            return list(shares)[int(rng.choice(len(shares), p=list(shares.values())))]
        case {"of": variable, **values}:
            return draw(values[drawn[variable]])
        case {"chance": probability, "value": outcome}:
            return draw(outcome) if rng.random() < probability else 0
        case {"integer": [low, high]}:
            return int(rng.integers(low, high))
        case {"sum": [first, second]}:
            return draw(first) + draw(second)
        case {"product": [first, second]}:
            return draw(first) * draw(second)
    raise ValueError(f"looks.yaml: {value!r} is no form of value")


def draw_look(steps: list[dict[str, Any]], rng: Rng) -> Look:
    """Return the look of one fruit of the class that *steps* of looks.yaml describe."""
    drawn: dict[str, Any] = {}
    for step in steps:
        values = dict(step)
        if "kind" in drawn and values.pop("kind", drawn["kind"]) != drawn["kind"]:
            continue
        if (absent := values.pop("without", None)) and drawn[absent] != 0:
            continue
        if "chance" in values and rng.random() >= values.pop("chance"):
            continue
        for name, value in values.items():
            drawn[name] = _draw(value, drawn, rng)
    return Look(**{known.name: drawn[known.name] for known in fields(Look) if known.name in drawn})


#: Class names, as the folders of the archive, and how a fruit of each is drawn. Two names are Chinese on purpose:
#: every demo run then proves that such names pass from the archive to the figures.
CLASSES: dict[str, Callable[[Rng], Look]] = {
    name: functools.partial(draw_look, steps)
    for name, steps in strict_yaml.read(Path(__file__).with_suffix(".yaml")).items()
    if name != "shared"
}
