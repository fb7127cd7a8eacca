"""Names of classes that a reader takes for the same."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from urllib.parse import unquote

#: How many names a message lists.
LISTED = 5


def alike(classes: Sequence[str]) -> list[list[str]]:
    """Return the groups of class folders whose names differ only by case, blanks or Unicode form."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in sorted(set(classes)):
        plain = unicodedata.normalize("NFKC", unquote(name)).casefold()
        groups["".join(unicodedata.normalize("NFKC", plain).split())].append(name)
    return [names for names in groups.values() if len(names) > 1]


def describe_alike(classes: Sequence[str]) -> str:
    """Say in one line which classes look alike, "" where none do; names that print the same appear as their codes."""
    groups = alike(classes)
    if not groups:
        return ""

    def shown(names: Sequence[str]) -> str:
        same_print = len({unicodedata.normalize("NFC", name) for name in names}) < len(names)
        return " and ".join(ascii(name) if same_print else repr(name) for name in names)

    more = f" and {len(groups) - LISTED} more" if len(groups) > LISTED else ""
    return (
        "classes whose names differ only by case, blanks or Unicode form are kept apart: "
        + "; ".join(shown(names) for names in groups[:LISTED])
        + more
    )
