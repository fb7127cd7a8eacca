"""The look of mimflow's figures: colours that are told apart without seeing them, a font, the same bytes each time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from scripts.lib.base.files import atomic_path
from scripts.lib.pages.fonts import use_cjk_font

# Okabe & Ito (2008), Color Universal Design: told apart with every kind of colour blindness.
BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#777777"
SKY_BLUE, BLUISH_GREEN, ORANGE, REDDISH_PURPLE = "#56B4E9", "#009E73", "#E69F00", "#CC79A7"
GRID = "#E5E5E5"
#: Five lines of cold colours and five of warm ones; no two of ten share both colour and dashes.
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
COLD_LINES = tuple(zip((BLUE, SKY_BLUE, BLUISH_GREEN, BLUE, SKY_BLUE), DASHES, strict=True))
WARM_LINES = tuple(zip((VERMILLION, ORANGE, REDDISH_PURPLE, VERMILLION, ORANGE), DASHES, strict=True))
#: Columns that a name may take beside a figure.
NAME_WIDTH = 22

STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a class may be called $x$
    "svg.fonttype": "path",  # shows on machines without the font
    "svg.hashsalt": "mimflow",  # the same numbers give the same bytes
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": False,
    "axes.titlesize": 11,
    "axes.unicode_minus": False,
    "font.size": 9,
    "figure.facecolor": "white",
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw everything inside the block in mimflow's style and with its font."""
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # A character that even Noto lacks shows as a box; that is no news for the terminal.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        use_cjk_font()
        yield


def save_figure(figure: Figure, path: Path) -> None:
    """Write *figure* in the format of the suffix of *path*, atomically; the same figure gives the same bytes."""
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with house_style(), atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, metadata=metadata)
