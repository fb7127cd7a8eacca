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


def points(tried: Sequence[Mapping[str, Any]], chosen: str) -> list[Point]:
    """Return where each candidate is drawn: to the right by the logarithm of its speed, upwards by its accuracy."""
    shown = [candidate for candidate in tried if candidate["images_per_second"] > 0]
    if not shown:
        return []
    speeds = [math.log(candidate["images_per_second"]) for candidate in shown]
    slowest, span = min(speeds), max(speeds) - min(speeds) or 1.0
    bottom = min(candidate["interval"][0] for candidate in shown) - AIR
    top = max(candidate["interval"][1] for candidate in shown) + AIR

    def up(accuracy: float) -> float:
        return round(HEIGHT - MARGIN - (accuracy - bottom) / (top - bottom) * (HEIGHT - 2 * MARGIN), 1)

    return [
        Point(
            name=candidate["name"],
            x=round(MARGIN + (speed - slowest) / span * (WIDTH - 2 * MARGIN), 1),
            y=up(candidate["accuracy"]),
            low=up(candidate["interval"][0]),
            high=up(candidate["interval"][1]),
            kind="chosen" if candidate["name"] == chosen else "front" if candidate["is_on_front"] else "other",
        )
        for candidate, speed in zip(shown, speeds, strict=True)
    ]
