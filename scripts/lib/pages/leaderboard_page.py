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
    compared = comparisons if comparisons is not None and len(comparisons) else None
    return templates.page(
        "leaderboard.html",
        title,
        style="leaderboard.css" if contaminated else (),
        contamination=contaminated,
        contamination_cells=contamination.cells(contaminated, board["experiment"].tolist()) if contaminated else None,
        runs=leaderboard.cells(board),
        notes=leaderboard.remarks(board),
        comparisons=None if compared is None else paired.cells(compared),
        comparison_notes=[] if compared is None else paired.remarks(compared),
        costs=None if costs is None else cost.cells(costs),
        cost_notes=[] if costs is None else cost.remarks(costs),
    )
