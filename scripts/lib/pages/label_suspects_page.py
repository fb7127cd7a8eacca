"""The page of the labels that may be wrong, on which they are mended: it saves corrections.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from scripts.lib.base.problems import UserError
from scripts.lib.data.corrections import COLUMNS, Correction
from scripts.lib.data.label_suspects import LabelSuspect
from scripts.lib.data.reading import WHITE
from scripts.lib.pages import templates
from scripts.lib.pages.thumbnails import Picture, percent, thumbnail

TITLE = "Labels that may be wrong"
#: Pixels of the longer side of a suspect's picture, and of its neighbours'.
LARGE, SMALL = 192, 96
#: Suspects on the page, and characters of all their pictures: what is left comes when these are mended.
MOST_SUSPECTS, MOST_CHARACTERS = 300, 8_000_000
#: Pairs of classes in the table.
MOST_PAIRS = 20
#: Images unlike all others that are shown; classes that look like two, and images of each of their groups.
MOST_ODD, MOST_DIVIDED, OF_GROUP = 60, 20, 6


def render(
    suspects: Sequence[LabelSuspect],
    summary: Mapping[str, Any],
    classes: Sequence[str],
    images: Path,
    title: str = "",
    earlier: Sequence[Correction] = (),
    background: tuple[int, int, int] = WHITE,
) -> str:
    """Return the page.

    Parameters
    ----------
    suspects : the most striking first; those that were decided before are left out.
    summary : label_suspects.json; that of an older mimflow has fewer keys.
    classes : the names, in the order of their labels.
    images : the folder of the files.
    earlier : decisions that hold already: the file that is saved has them too.
    """
    decided = {correction.sha256 for correction in earlier}
    open_suspects = [suspect for suspect in suspects if suspect.sha256 not in decided]
    entries = _entries(open_suspects, images, background)
    odd, divided = summary.get("odd_ones_out", ()), summary.get("two_groups", ())
    data = {
        "columns": COLUMNS,
        "classes": list(classes),
        "earlier": [correction.as_row() for correction in earlier],
    }
    return templates.page(
        "label_suspects.html",
        templates.heading(TITLE) + (f": {title}" if title else ""),
        style=("pictures.css", "label_suspects.css"),
        script="label_suspects.js",
        summary=summary,
        accuracy=percent(summary.get("probe_accuracy", 0.0)),
        n_decided=len(suspects) - len(open_suspects),
        n_open=len(open_suspects),
        entries=entries,
        divided=[_divided(entry, images, background) for entry in divided[:MOST_DIVIDED]],
        n_divided=len(divided),
        n_odd=len(odd),
        odd=[(path, _picture(images / path, LARGE, background)) for path in odd[:MOST_ODD]],
        pairs=[
            (pair["first"], pair["second"], pair["there"], pair["back"], percent(pair["share"]))
            for pair in summary["pairs"][:MOST_PAIRS]
        ],
        one=[(pair["first"], pair["second"]) for pair in summary["pairs"] if pair.get("are_one")],
        data=data,
    )


def _divided(entry: Mapping[str, Any], images: Path, background: tuple[int, int, int]) -> dict[str, Any]:
    """Return what the page shows of a class that looks like two."""
    groups = [
        (len(group), [(path, _picture(images / path, SMALL, background)) for path in group[:OF_GROUP]])
        for group in entry["groups"]
    ]
    return {"name": entry["class"], "between": percent(entry["between"]), "groups": groups}


def _picture(path: Path, longest: int, background: tuple[int, int, int]) -> Picture | None:
    """Return a small picture, or None: the image was read before, and a page without one is better than none."""
    try:
        return Picture.of(thumbnail(path, longest, background))
    except UserError:
        return None


def _entries(suspects: Sequence[LabelSuspect], images: Path, background: tuple[int, int, int]) -> list[dict[str, Any]]:
    """Return what the page shows of each suspect, as many as there is room for."""

    @lru_cache(maxsize=2000)
    def picture(path: str, longest: int) -> Picture | None:
        return _picture(images / path, longest, background)

    entries: list[dict[str, Any]] = []
    room = MOST_CHARACTERS
    for suspect in suspects[:MOST_SUSPECTS]:
        near = {
            "label": [(path, picture(path, SMALL)) for path in suspect.near_label],
            "suggested": [(path, picture(path, SMALL)) for path in suspect.near_suggested],
        }
        large = picture(suspect.path, LARGE)
        pictures = [large, *(image for like in near.values() for _, image in like)]
        room -= sum(len(image.uri) for image in pictures if image)
        if room < 0 and entries:
            break
        entries.append({
            "sha256": suspect.sha256, "path": suspect.path, "split": suspect.split, "picture": large,
            "label": suspect.label, "suggested": suspect.suggested,
            "label_probability": percent(suspect.label_probability),
            "suggested_probability": percent(suspect.suggested_probability),
            "near": near,
        })  # fmt: skip
    return entries
