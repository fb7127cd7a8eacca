"""The page of the leaderboard: runs, comparisons, costs."""

from __future__ import annotations

import pandas as pd

from scripts.lib.metrics import contamination, cost, leaderboard, paired
from scripts.lib.metrics.contamination import Contamination
from scripts.lib.pages import templates


def leaderboard_page(
    board: pd.DataFrame,
    title: str,
    costs: pd.DataFrame | None = None,
    comparisons: pd.DataFrame | None = None,
    contaminated: Contamination | None = None,
) -> str:
    """Return the leaderboard, who is better than whom, and what each run cost, as a self-contained page."""
    found, compared = contaminated is not None, comparisons is not None and len(comparisons) > 0
    return templates.page(
        "leaderboard.html",
        title,
        style="leaderboard.css" if found else (),
        contamination=contaminated,
        contamination_cells=contamination.cells(contaminated, board["experiment"].tolist()) if contaminated else None,
        runs=leaderboard.cells(board),
        notes=leaderboard.remarks(board),
        comparisons=paired.cells(comparisons) if compared else None,
        comparison_notes=paired.remarks(comparisons) if compared else [],
        costs=None if costs is None else cost.cells(costs),
        cost_notes=[] if costs is None else cost.remarks(costs),
    )
