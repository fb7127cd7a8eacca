"""The page of a data set: what the audit found, its classes, sizes and examples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from scripts.lib.base.units import plural
from scripts.lib.data.findings import (
    CONTAMINATED,
    DUPLICATE,
    KEPT,
    LEFT_OUT,
    NEAR_DUPLICATE,
    SET_ASIDE,
    TRAIN_COPY,
    Finding,
    has_given_splits,
    label_of,
    still_trained_on,
    verdict,
)
from scripts.lib.data.splits import SPLITS, Splits
from scripts.lib.pages import templates
from scripts.lib.pages.data_examples import (
    NEVER_OPENED,
    OF_GROUPS,
    choose_examples,
    group_of,
    of_all_folders,
    open_small,
)
from scripts.lib.pages.thumbnails import Picture

TITLE = "The data"
#: Characters of HTML that all examples together take at most.
MOST_CHARACTERS = 1_000_000
#: More classes than these have no bars but the largest and the smallest.
MOST_CLASSES = 400
#: More classes than these stand in columns beside each other, where the window is wide enough.
MOST_IN_ONE_COLUMN = 12
DONE = {SET_ASIDE: "Set aside.", LEFT_OUT: "Left out of training.", KEPT: "Used."}


@dataclass(frozen=True)
class Meaning:
    """What a finding means, what mimflow did with the images, and what there is to do."""

    title: str
    meaning: str = ""
    done: str = ""
    advice: str = ""


#: What matters most is first.
MEANINGS = {
    name: Meaning(**texts)
    for name, texts in yaml.safe_load((templates.FOLDER / "findings.yaml").read_text(encoding="utf-8")).items()
}


@dataclass(frozen=True)
class Data:
    """All that the page tells.

    Attributes
    ----------
    findings : audit.csv.
    summary : audit.json.
    splits : the files of train, val and test.
    classes : the names, in the order of their labels.
    images : the folder of the files.
    """

    findings: Sequence[Finding]
    summary: Mapping[str, Any]
    splits: Splits
    classes: Sequence[str]
    images: Path

    def label(self, file: str) -> str:
        return label_of(file, has_given_splits(self.summary))


@dataclass(frozen=True)
class Image:
    """An image of an example; *instead* says why there is no picture."""

    row: Finding
    label: str
    picture: Picture | None
    instead: str


@dataclass(frozen=True)
class Examples:
    """The examples of a finding: pieces of HTML, of *total* images or groups (*count*: that in words)."""

    title: str
    count: str
    total: int
    besides_copies: bool
    figures: list[Markup] = field(default_factory=list)


def data_page(data: Data, title: str = "") -> str:
    """Return the page."""
    counts = _count_classes(data)
    order = sorted(counts, key=lambda label: (-counts[label].total(), label))
    hidden, half = len(order) - MOST_CLASSES, MOST_CLASSES // 2
    n_found = Counter(row.finding for row in data.findings)
    return templates.page(
        "data.html",
        f"{TITLE}: {title}" if title else TITLE,
        style=("pictures.css", "data.css"),
        verdict=verdict(data.summary),
        state="contaminated"
        if data.summary["findings"].get(CONTAMINATED)
        else "aside"
        if data.summary["set_aside"]
        else "",
        contaminated=_contaminated(data),
        notes=data.summary.get("notes", []),
        findings=[(n_found[name], _meaning(name, data)) for name in order_of(n_found)],
        absent=[meaning.title for name, meaning in MEANINGS.items() if not n_found[name]],
        folds=data.splits.folds,
        classes=data.classes,
        splits=SPLITS,
        totals={name: len(split.images) for name, split in data.splits.by_name.items()},
        unused=sum(of_class["unused"] for of_class in counts.values()),
        imbalance=_imbalance({label: counts[label]["train"] for label in data.classes}),
        counts=counts,
        largest=max((counts[label].total() for label in order), default=1),
        shown=order if hidden <= 0 else order[:half] + order[-half:],
        hidden=hidden,
        half=half,
        many=len(order) > MOST_IN_ONE_COLUMN,
        pixels={name: data.summary.get(name) or {} for name in ("widths", "heights")},
        formats=sorted(data.summary.get("formats", {}).items(), key=lambda entry: (-entry[1], entry[0])),
        examples=_examples(data),
    )


def _state(summary: Mapping[str, Any]) -> str:
    """Return the class of the verdict: contaminated, aside, or none."""
    return "contaminated" if summary["findings"].get(CONTAMINATED) else "aside" if summary["set_aside"] else ""


def _contaminated(data: Data) -> dict[str, int]:
    """Count the test images, those that are contaminated, and of these those of a group that was trained on."""
    test = data.splits.by_name["test"].images
    images = {row.file for row in data.findings if row.finding == CONTAMINATED}.intersection(test)
    return {
        "test": len(test),
        "images": len(images),
        "trained_on": len(images.intersection(still_trained_on(data.findings))),
    }


def order_of(findings: Mapping[str, Any]) -> list[str]:
    """Return the names of what was found, what matters most first."""
    positions = {name: index for index, name in enumerate(MEANINGS)}
    return sorted(findings, key=lambda name: (positions.get(name, len(positions)), name))


def _meaning(name: str, data: Data) -> Meaning:
    """Return the texts of a finding; of one that is not known, what became of its images."""
    if name in MEANINGS:
        return MEANINGS[name]
    action = [row.action for row in data.findings if row.finding == name][-1]
    return Meaning(name, done=DONE.get(action, ""))


def _count_classes(data: Data) -> dict[str, Counter[str]]:
    """Count the images of each class: of each split, and ``unused``."""
    given_splits = has_given_splits(data.summary)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for name, split in data.splits.by_name.items():
        for label, n in Counter(label_of(file, given_splits) for file in split.images).items():
            counts[label][name] += n
    for label, parts in data.summary["classes"].items():
        unused = sum(parts.values()) - counts[label].total()
        if unused > 0:
            counts[label]["unused"] = unused
    return counts


def _imbalance(sizes: Mapping[str, int]) -> dict[str, Any] | None:
    """Return the largest and the smallest class by their images in train, and their ratio; None where one is empty."""
    if not sizes or min(sizes.values()) == 0:
        return None
    largest, smallest = max(sizes, key=sizes.__getitem__), min(sizes, key=sizes.__getitem__)
    return {
        "largest": (largest, sizes[largest]),
        "smallest": (smallest, sizes[smallest]),
        "ratio": sizes[largest] / sizes[smallest],
    }


def _examples(data: Data) -> list[Examples]:
    """Return some examples of each finding; fewer of each where they would make the page too large."""
    by_finding: dict[str, list[Finding]] = defaultdict(list)
    for row in data.findings:
        by_finding[row.finding].append(row)
    contaminated = CONTAMINATED in by_finding
    if contaminated:  # the pair is one example, and not shown a second time as copies
        by_finding.pop(TRAIN_COPY, None)
        groups = {row.group for row in by_finding[CONTAMINATED]} - {""}
        for name in {DUPLICATE, NEAR_DUPLICATE} & by_finding.keys():
            rest = [row for row in by_finding.pop(name) if row.group not in groups]
            by_finding.update({name: rest} if rest else {})
    names = order_of(by_finding)
    sections = {}
    for name in names:
        title = _meaning(name, data).title
        total = len({group_of(row) for row in by_finding[name]} if name in OF_GROUPS else by_finding[name])
        count = plural(total, "group" if name in OF_GROUPS else "image")
        besides = contaminated and name in (DUPLICATE, NEAR_DUPLICATE)
        sections[name] = Examples(f"{title[0].upper()}{title[1:]}", count, total, besides)
    examples = {name: choose_examples(name, by_finding[name], data.findings) for name in names}
    closed = {row.file for row in data.findings if row.finding in NEVER_OPENED}
    room = MOST_CHARACTERS
    # The first of each, then the second of each: so that no finding takes another's room.
    for turn in zip_longest(*(examples[name] for name in names)):
        for name, example in zip(names, turn, strict=True):
            if example and room > 0:
                sections[name].figures.append(_figure(name, example, data, closed))
                room -= len(sections[name].figures[-1])
    return list(sections.values())


def _figure(name: str, rows: Sequence[Finding], data: Data, closed: Collection[str]) -> Markup:
    """Return the HTML of an example: of a group, its pictures side by side."""
    shown = of_all_folders(rows)
    images = [
        Image(row, data.label(row.file), *open_small(data.images / row.file, row.file in closed)) for row in shown
    ]
    return templates.render(
        "data_example.html", images=images, contaminated=name in (TRAIN_COPY, CONTAMINATED), more=len(rows) - len(shown)
    )
