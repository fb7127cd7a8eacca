"""Names in columns and figures: how wide a text is (Chinese characters take two columns), and how to shorten it."""

from __future__ import annotations

import unicodedata

ELLIPSIS = "…"


def display_width(text: str) -> int:
    """Return the columns that *text* takes on a terminal (Unicode Standard Annex 11: wide and fullwidth take two)."""
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )


def pad(text: str, width: int, right: bool = False) -> str:
    """Fill *text* with spaces up to *width* columns, on its left side when *right* is true."""
    space = " " * max(0, width - display_width(text))
    return space + text if right else text + space


def shorten(text: str, width: int) -> str:
    """Return *text* in at most *width* columns; of a longer one the middle is left out, since names differ there least.

    >>> shorten("a very long class name", 11)
    'a very…name'
    """
    if display_width(text) <= width:
        return text
    room = width - 1
    tail = _take(text[::-1], room * 2 // 5)[::-1]
    return _take(text, room - display_width(tail)) + ELLIPSIS + tail


def shorten_all(names: list[str], width: int) -> list[str]:
    """Shorten *names*, and number those that would look alike."""
    short = [shorten(name, width) for name in names]
    return [
        name if short.count(name) == 1 else f"{shorten(name, width - 4)} #{place + 1}"
        for place, name in enumerate(short)
    ]


def _take(text: str, width: int) -> str:
    """Return as much of the start of *text* as fits in *width* columns."""
    taken, used = [], 0
    for character in text:
        used += display_width(character)
        if used > width:
            break
        taken.append(character)
    return "".join(taken)
