"""The page of a search for a model: candidates by accuracy and speed, and what each round of training reached."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.lib.base.language import tr
from scripts.lib.base.units import in_percent
from scripts.lib.pages import templates

#: Of the drawing, in its own units; the points lie inside the margins.
WIDTH, HEIGHT, MARGIN = 640, 300, 40
#: Of all accuracies that are drawn, what is left free above and below.
AIR = 0.02
#: Between the axis and the slowest candidate, in the drawing's units.
AIR_BESIDE = 16
#: Numbers beside the axis of accuracies, at most.
MOST_TICKS = 8


@dataclass(frozen=True)
class Point:
    """A candidate in the drawing: where it is, and the ends of its interval, in the drawing's units."""

    name: str
    x: float
    y: float
    low: float
    high: float
    kind: str  # "chosen", "front" or "other"


def search_page(choice: Mapping[str, Any], title: str) -> str:
    """Return the page.

    Parameters
    ----------
    choice : what choose_model wrote.
    title : the experiment's name.
    """
    tried = [candidate for candidate in choice["candidates"] if not candidate["left_out"]]
    best = next((candidate for candidate in tried if candidate["name"] == choice["chosen"]), None)
    rounds = range(len(choice["epochs"]))
    header = [tr("candidate"), tr("probe"), *(tr(f"round {number + 1}") for number in rounds), tr("images/s"),
              tr("parameters"), tr("weights")]  # fmt: skip
    return templates.page(
        "search.html",
        templates.heading("Candidates", title),
        style="search.css",
        choice=choice,
        best=best,
        header=header,
        numbered=[[str(number), *_row(candidate)] for number, candidate in enumerate(tried, 1)],
        left_out=[candidate for candidate in choice["candidates"] if candidate["left_out"]],
        points=points(tried, choice["chosen"]),
        ticks=ticks(tried),
        size=(WIDTH, HEIGHT),
        margin=MARGIN,
    )


def _row(candidate: Mapping[str, Any]) -> list[str]:
    reached = [percent(result) if result else "-" for result in candidate["rounds"]]
    return [
        candidate["base_config"],
        percent(candidate),
        *reached,
        f"{candidate['images_per_second']:.0f}",
        f"{candidate['parameters'] / 1e6:.1f} M",
        f"{candidate['bytes'] / 1e6:.1f} MB",
    ]


def percent(reached: Mapping[str, Any]) -> str:
    """Return an accuracy with its interval."""
    low, high = reached["interval"] or (0.0, 1.0)
    return f"{in_percent(reached['accuracy'])} % ({in_percent(low)} - {in_percent(high)})"


@dataclass(frozen=True)
class Scale:
    """From values to the drawing's units."""

    least: float
    most: float
    start: float  #: where the least is drawn
    end: float

    def at(self, value: float) -> float:
        """Return where a value is drawn."""
        share = (value - self.least) / (self.most - self.least)
        return round(self.start + share * (self.end - self.start), 1)


def scales(tried: Sequence[Mapping[str, Any]]) -> tuple[Scale, Scale]:
    """Return the scale across, of the logarithm of images per second, and up, of accuracies from 0 to 1."""
    speeds = [math.log10(candidate["images_per_second"]) for candidate in tried]
    slowest, fastest = min(speeds), max(speeds)
    intervals = [end for candidate in tried for end in candidate["interval"]]
    across = Scale(slowest, fastest if fastest > slowest else slowest + 1, MARGIN + AIR_BESIDE, WIDTH - MARGIN)
    return across, Scale(min(intervals) - AIR, max(intervals) + AIR, HEIGHT - MARGIN, MARGIN)


def points(tried: Sequence[Mapping[str, Any]], chosen: str) -> list[Point]:
    """Return where each candidate is drawn: to the right by the logarithm of its speed, upwards by its accuracy."""
    shown = [candidate for candidate in tried if candidate["images_per_second"] > 0]
    if not shown:
        return []
    across, up = scales(shown)
    return [
        Point(
            name=candidate["name"],
            x=across.at(math.log10(candidate["images_per_second"])),
            y=up.at(candidate["accuracy"]),
            low=up.at(candidate["interval"][0]),
            high=up.at(candidate["interval"][1]),
            kind="chosen" if candidate["name"] == chosen else "front" if candidate["is_on_front"] else "other",
        )
        for candidate in shown
    ]


def ticks(tried: Sequence[Mapping[str, Any]]) -> tuple[list[tuple[float, str]], list[tuple[float, str]]]:
    """Return where the numbers of the two axes stand, and their texts: images per second, and percent."""
    shown = [candidate for candidate in tried if candidate["images_per_second"] > 0]
    if not shown:
        return [], []
    across, up = scales(shown)
    speeds = [digit * 10**power for power in range(-2, 7) for digit in (1, 2, 5)]
    step = next((step for step in (1, 2, 5, 10) if 100 * (up.most - up.least) / step <= MOST_TICKS), 20)
    percents = [number for number in range(0, 101, step) if up.least <= number / 100 <= up.most]
    inside = [speed for speed in speeds if across.least <= math.log10(speed) <= across.most]
    return (
        [(across.at(math.log10(speed)), f"{speed:,g}") for speed in inside],
        [(up.at(number / 100), f"{number} %") for number in percents],
    )
