"""What became of the images of a data set, in lines: all that was left out, changed or guessed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from scripts.lib.base import strict_yaml
from scripts.lib.base.language import language, tr
from scripts.lib.base.units import plural
from scripts.lib.data.findings import verdict
from scripts.lib.pages import templates

#: Lines on a terminal; the page of the audit has all.
MOST = 32
#: Classes that a line names.
LISTED = 5


def meanings() -> dict[str, dict[str, str]]:
    """Return of each finding title, meaning, what was done and advice; what matters most is first."""
    folder = templates.FOLDER / ("" if language() == "en" else language())
    return strict_yaml.read(folder / "findings.yaml")  # type: ignore[no-any-return]


def order_of(findings: Mapping[str, Any]) -> list[str]:
    """Return the names of what was found, what matters most first."""
    positions = {name: index for index, name in enumerate(meanings())}
    return sorted(findings, key=lambda name: (positions.get(name, len(positions)), name))


def assumptions(summary: Mapping[str, Any], classes: Collection[str] = ()) -> list[str]:
    """Return a line for each guess, and for each reason why files were left out; the other arguments: see `remarks`."""
    of_others = sum(sum(of_splits.values()) for name, of_splits in summary["classes"].items() if name not in classes)
    others = [f"left out {of_others:,}: of classes that dataset.classes does not name"] if classes and of_others else []
    return [tr(line) for line in (*summary.get("notes", []), *others, *summary.get("left_out_files", []))]


def remarks(summary: Mapping[str, Any], classes: Collection[str] = ()) -> list[str]:
    """Return a line for each kind of finding, for each guess, and for each reason why files were left out.

    Parameters
    ----------
    summary : audit.json.
    classes : those that are trained on; empty where that is not known.
    """
    known, lines = meanings(), []
    for name in order_of(summary["findings"]):
        title, done = (known.get(name, {}).get(key, "") for key in ("title", "done"))
        count = tr(plural(summary["findings"][name], "image"))
        lines.append(f"{title or name}{tr(': ')}{count}{tr('. ') if done else ''}{done}")
    return [*lines, *assumptions(summary, classes)]


def label_lines(judged: Mapping[str, Any] | None, page: str) -> list[str]:
    """Return a line on labels that may be wrong, and one on images unlike all others, where there are some.

    Parameters
    ----------
    judged : label_suspects.json; None: no experiment could judge.
    page : label_suspects.html.
    """
    if judged is None:
        return []
    if judged["reason"]:
        return [tr(f"the labels were not judged: {judged['reason']}")]
    if judged.get("is_weak"):
        lines = [tr(f"labels that may be wrong: the classifier agrees with too few of them to say how many: {page}")]
    else:
        lines = [tr(f"labels that may be wrong: {judged['suspects']:,} of {plural(judged['images'], 'image')}: {page}")]
    if unjudged := judged.get("classes_not_judged"):
        lines.append(tr(f"labels of classes with too few images to be judged: {', '.join(unjudged[:LISTED])}")
                     + tr(f" and {len(unjudged) - LISTED} more") * (len(unjudged) > LISTED))  # fmt: skip
    if odd := judged.get("odd_ones_out"):
        lines.append(tr(f"images unlike all others, by their features: {len(odd):,}. Used."))
    return lines


def terminal_lines(
    summary: Mapping[str, Any], classes: Collection[str], page: str, of_labels: Sequence[str] = ()
) -> list[str]:
    """Return what a terminal says of the images at the end of a run; nothing where there is nothing to say.

    Parameters
    ----------
    page : the page that has all of it.
    of_labels : of :func:`label_lines`; they are never cut.
    """
    lines = remarks(summary, classes)
    if not (lines or of_labels):
        return []
    more = [tr(f"and {len(lines) - MOST} more: {page}")] if len(lines) > MOST else []
    shown = [*lines[:MOST], *more, *of_labels]
    return [f"{tr('the images')}{tr(': ')}{verdict(summary)}", *(f"  {line}" for line in shown)]
