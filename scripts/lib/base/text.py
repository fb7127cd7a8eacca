"""Names in columns: as wide as a terminal shows them (Chinese characters take two columns), and shortened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

ELLIPSIS = "…"
#: Wider than any table: its lines are never folded here.
UNLIMITED = 1_000_000


def columns(rows: Sequence[Sequence[str]], right: Collection[int], gap: int = 2) -> list[str]:
    """Return a line for each row, its cells in aligned columns *gap* apart; those at the indices *right* end below
    each other.
    """
    table = Table.grid(padding=(0, gap, 0, 0))
    for index in range(len(rows[0])):
        table.add_column(justify="right" if index in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))  # as text: a name may look like rich's markup
    lines = Console(width=UNLIMITED, color_system=None).render_lines(table, pad=False)
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


def shorten(text: str, width: int) -> str:
    """Return *text* in at most *width* columns; of a longer one the middle is left out, since names differ there least.

    >>> shorten("a very long class name", 11)
    'a very…name'
    """
    if cell_len(text) <= width:
        return text
    room = max(0, width - 1)
    tail = next(end for i in range(len(text) + 1) if cell_len(end := text[i:]) <= room * 2 // 5)
    head = next(start for i in range(len(text), -1, -1) if cell_len(start := text[:i]) <= room - cell_len(tail))
    return head + ELLIPSIS + tail


def shorten_all(names: Sequence[str], width: int) -> list[str]:
    """Shorten *names*, and number those that would look alike."""
    short = [shorten(name, width) for name in names]
    count = Counter(short)
    return [
        name if count[name] == 1 else f"{shorten(name, width - 4)} #{index + 1}" for index, name in enumerate(short)
    ]
