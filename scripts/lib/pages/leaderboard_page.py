"""The page of the leaderboard: runs, comparisons, costs."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import pandas as pd

from scripts.lib.base.units import plural
from scripts.lib.metrics import cost, leaks, paired
from scripts.lib.metrics.leaderboard import _cells, _notes
from scripts.lib.metrics.leaks import Leak
from scripts.lib.pages import html


def render_html(
    leaderboard: pd.DataFrame,
    title: str,
    costs: pd.DataFrame | None = None,
    comparisons: pd.DataFrame | None = None,
    leak: leaks.Leak | None = None,
) -> str:
    """Return the leaderboard, who is better than whom, and what each run cost, as a self-contained page."""
    header, rows = _cells(leaderboard)
    parts = [html.table(header, rows, numbers=range(1, len(header)), caption=" ".join(_notes(leaderboard)))]
    if comparisons is not None and len(comparisons):
        header, rows = paired.cells(comparisons)
        table = html.table(header, rows, numbers=range(2, 8), caption=" ".join(paired.notes(comparisons)))
        parts += [html.section("Which is better, and which may only be luckier"), table]
    if costs is not None:
        header, rows = cost.cells(costs)
        table = html.table(header, rows, numbers=range(1, len(header)), caption=" ".join(cost.notes(costs)))
        parts += [html.section("What the runs cost"), table]
    if leak is not None:
        return html.page(title, box(leak, leaderboard["experiment"].tolist()) + parts, style=STYLE)
    return html.page(title, parts)


#: Of the box that a page begins with.
STYLE = """
.leak { border: 2px solid #c00; border-left-width: 10px; background: #fdecec; padding: 0.2em 1em; margin: 1em 0;
        overflow-x: auto }
.leak strong { color: #a00 }
""".strip()


def box(leak: Leak | None, ranking: Sequence[str] = ()) -> list[str]:
    """Return the HTML that a leaderboard of leaking data begins with; it wants STYLE. Nothing where nothing leaks.

    Parameters
    ----------
    ranking : the experiments in the order of their rows.
    """
    if leak is None:
        return []
    copies = leak.leaked - leak.trained_on
    texts = []
    if copies:
        of_them = f"{copies:,} of the {plural(leak.test_images, 'test image')} {'has' if copies == 1 else 'have'}"
        texts.append(
            f"{of_them} a copy or a near copy in train or val as they were given. These copies were left out of"
            " training here, so that they do not make the numbers of this page better."
        )
    if leak.trained_on:
        texts.append(
            f"{leak.trained_on:,} of the {plural(leak.test_images, 'test image')}"
            f" {'has' if leak.trained_on == 1 else 'have'} images of the same group (dataset.split.group_by) in train"
            " or val as they were given. These were not left out of training: the numbers on all test images are too"
            " good."
        )
    texts.append(
        "Numbers that others have published for this split are too good wherever they trained on all of the given"
        " train. Quote the accuracy without the leaking images, or divide the data anew; audit.html shows them."
    )
    order = leak.table.set_index("experiment").loc[list(ranking) or list(leak.table["experiment"])].reset_index()
    header = (
        "experiment",
        "runs",
        "top-1 % with them",
        "95 % interval",
        "without them",
        "95 % interval",
        "images left",
    )
    rows = [
        (
            str(row["experiment"]),
            str(row["runs"]),
            *leaks._cells(row, "with_leaked"),
            *leaks._cells(row, "without_leaked"),
            str(row["n_rest"]),
        )
        for _, row in order.iterrows()
    ]
    first, *more = map(escape, texts)
    return [
        '<div class="leak">',
        f"<p><strong>The data leaks.</strong> {first}</p>",
        *(f"<p>{text}</p>" for text in more),
        html.table(header, rows, numbers=range(1, len(header))),
        "</div>",
    ]
