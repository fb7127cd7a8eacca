"""The page of `make predict`: each image with its prediction, those that are unsure first."""

from __future__ import annotations

import os
import urllib.parse
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from scripts.lib.base.language import tr
from scripts.lib.base.units import percent, plural
from scripts.lib.model.photos import printable
from scripts.lib.pages import templates
from scripts.lib.runs.certainty import FAR, NOT_CONFIDENT, Certainty

#: Images that are shown of those that are unsure, and of the others; all are in the table.
MOST = 600


class Shown(NamedTuple):
    """An image on the page."""

    address: str  # of its drawing, relative to the page
    name: str
    prediction: str
    confidence: float
    reasons: list[str]


@dataclass
class PredictionsPage:
    """Predictions as they come.

    Attributes
    ----------
    certainty : of the model; None where it does not say when to rely on it.
    accuracy : that the sure predictions are to keep.
    unsure, others : how many images there are of both.
    reasons : for how many each reason holds.
    """

    certainty: Certainty | None
    accuracy: float
    unsure: int = 0
    others: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    _unsure: list[Shown] = field(default_factory=list)
    _others: list[Shown] = field(default_factory=list)

    def add(self, drawing: str, name: str, prediction: str, confidence: float, reasons: list[str]) -> None:
        """Take note of one prediction; *drawing*: its path, relative to the page."""
        self.unsure += bool(reasons)
        self.others += not reasons
        self.reasons.update(reasons)
        shown = self._unsure if reasons else self._others
        if len(shown) < MOST:
            address = urllib.parse.quote(os.fsencode(drawing))
            shown.append(Shown(address, printable(name), prediction, confidence, reasons))

    def page(self, source: str) -> str:
        """Return the page; *source*: the run or model file."""
        return templates.page(
            "predictions.html",
            templates.heading("Predictions", source),
            style=("pictures.css", "predictions.css"),
            beside=True,
            sections=[
                (self.unsure, self._unsure, True),
                (self.others, self._others, False),
            ],
            rules=rules(self.certainty, self.accuracy),
            has_certainty=self.certainty is not None,
            percent=percent,
        )


def rules(certainty: Certainty | None, accuracy: float) -> list[str]:
    """Return what makes a prediction unsure, a sentence each."""
    if certainty is None:
        return []
    lines = []
    images = plural(certainty.val_images, "val image")
    step, best = certainty.at(accuracy), certainty.best
    asked = f"{100 * accuracy:g} %"
    if step is not None:
        lines.append(
            tr(
                f"{NOT_CONFIDENT}: below {percent(step.confidence)}, the threshold that keeps an accuracy of {asked} on"
                f" {images}, of which {percent(step.coverage)} have it"
            )
        )
    elif best is not None:
        lines.append(tr(unreachable(certainty, accuracy)))
    if certainty.far is not None:
        known = plural(certainty.known_images, "training image")
        lines.append(tr(f"{FAR}: farther from the nearest of {known} than 99 % of {images} are"))
    return lines


def unreachable(certainty: Certainty, accuracy: float) -> str:
    """Return that no threshold keeps this accuracy, and the best that one does."""
    best, images = certainty.best, plural(certainty.val_images, "val image")
    reached = f"; the best is {percent(best.accuracy)}, for {percent(best.coverage)} of them" if best else ""
    return f"no confidence keeps an accuracy of {100 * accuracy:g} % on {images}, so no prediction is sure{reached}"
