"""Lines and bars that are told apart without seeing colours: Okabe & Ito's colours, and dashes beside them."""

from __future__ import annotations

from typing import Any

from scripts.lib.pages.figures.style import BLUE, VERMILLION

# Okabe & Ito (2008), Color Universal Design; figures.py has the two that most figures use.
SKY_BLUE, BLUISH_GREEN, ORANGE, REDDISH_PURPLE = "#56B4E9", "#009E73", "#E69F00", "#CC79A7"

#: Five lines of cold colours and five of warm ones; no two of ten share both colour and dashes.
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
COLD = tuple(zip((BLUE, SKY_BLUE, BLUISH_GREEN, BLUE, SKY_BLUE), DASHES, strict=True))
WARM = tuple(zip((VERMILLION, ORANGE, REDDISH_PURPLE, VERMILLION, ORANGE), DASHES, strict=True))
