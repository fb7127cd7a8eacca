"""The page of a data set: what the audit found, its classes, sizes and examples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import Any

from PIL import Image

from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.data import audit_summary
from scripts.lib.data.audit_summary import label_of
from scripts.lib.data.findings import (
    CONFLICTING_LABELS,
    CONTAMINATED,
    DUPLICATE,
    KEPT,
    LEFT_OUT,
    NEAR_DUPLICATE,
    SET_ASIDE,
    TRAIN_COPY,
    Finding,
)
from scripts.lib.data.splits import SPLITS, Splits
from scripts.lib.pages import thumbnails
from scripts.lib.pages.html import page, section, table

TITLE = "The data"


#: Pixels of the longer side of a picture.
SIDE = 128


#: Of each finding; of the pictures of one group of copies; and of all pictures together, as characters of HTML.
MOST_EXAMPLES, MOST_IN_GROUP, MOST_CHARACTERS = 12, 3, 1_000_000


#: Pixels beyond which an image is not opened for an example, unless its format can be decoded at a fraction (JPEG).
MOST_PIXELS = 40_000_000


#: More classes than these have no bars but the largest and the smallest.
MOST_CLASSES = 400


#: More classes than these stand in columns beside each other, where the window is wide enough.
MOST_IN_ONE_COLUMN = 12


#: Findings whose files are never opened: the decoder's answer is known, or it is a bomb.
NEVER_OPENED = ("too_many_pixels", "unreadable", "truncated")


#: Findings whose examples are groups of copies side by side.
OF_GROUPS = (CONTAMINATED, CONFLICTING_LABELS, NEAR_DUPLICATE, DUPLICATE)


@dataclass(frozen=True)
class Meaning:
    """What a finding means, what mimflow did with the images, and what there is to do."""

    title: str
    meaning: str
    done: str
    advice: str


MEANINGS = {
    CONTAMINATED: Meaning(
        "leaking val and test images",
        "A copy, a near copy or an image of the same known group stands in a lower part as the parts were given.",
        "Used. Copies in the lower part were left out of training; images that only share a group were not.",
        "Do not compare with published numbers of this split. Best: divide the data anew.",
    ),
    TRAIN_COPY: Meaning(
        "train and val images that leak",
        "A higher part (val, test) as given has a copy or near copy of the image.",
        "Left out of training.",
        "Remove them from the data, so that nobody else trains on them.",
    ),
    CONFLICTING_LABELS: Meaning(
        "one image under several classes",
        "Exact copies of an image stand in the folders of different classes: at most one label is right.",
        "All of them set aside.",
        "Keep the image in the right class only, and remove the others.",
    ),
    "unreadable": Meaning(
        "unreadable",
        "The file cannot be decoded: it is empty, broken, or no image.",
        "Set aside.",
        "Fetch or export the file again, or delete it.",
    ),
    "truncated": Meaning(
        "truncated",
        "The file ends before the image does; a decoder would fill the rest with grey.",
        "Set aside.",
        "Copy the file again; an interrupted download or a full disk is the usual cause.",
    ),
    "too_many_pixels": Meaning(
        "too many pixels",
        "So many pixels that decoding could take all memory (a decompression bomb).",
        "Set aside, never decoded.",
        "If it is a real image, save it smaller.",
    ),
    NEAR_DUPLICATE: Meaning(
        "near copies",
        "To the eye the same image as another one: saved again, scaled or slightly changed.",
        "Used, unless it leaks; all of one group stay on one side of the split.",
        "Look whether the classes differ: then a label is wrong. Series of one scene: see dataset.split.group_by.",
    ),
    DUPLICATE: Meaning(
        "copies",
        "The same file as another one of the same class, byte for byte.",
        "Used, unless it leaks; all of one group stay on one side of the split.",
        "Remove the copies: they count twice.",
    ),
    "blank": Meaning(
        "blank",
        "One colour all over, or nearly.",
        "Used.",
        "Look at them: a failed exposure or an empty export teaches the model nothing.",
    ),
    "tiny": Meaning(
        "tiny", "Very few pixels.", "Used, enlarged.", "Look whether they are previews or icons of the real images."
    ),
    "huge": Meaning(
        "huge",
        "Far more pixels than the network sees.",
        "Used, made smaller.",
        "Nothing has to be done; smaller files are read faster.",
    ),
    "wrong_extension": Meaning(
        "wrong extension",
        "The content is of another format than the file's name says.",
        "Used: the content decides.",
        "Nothing has to be done; other programs may refuse the file.",
    ),
    "animated": Meaning(
        "animated",
        "Several frames or pages in one file.",
        "Used: the first one only.",
        "Save the frames as images of their own if they matter.",
    ),
    "cmyk": Meaning(
        "CMYK",
        "Colours for print.",
        "Used, converted to RGB.",
        "Look at the colours: without a profile they may be off.",
    ),
    "sixteen_bit": Meaning(
        "16 bits",
        "16 bits a channel.",
        "Used, cut to 8 bits.",
        "Look at the pictures: where they are black, scale the values before.",
    ),
    "alpha": Meaning(
        "transparency",
        "The image has an alpha channel.",
        "Used without it.",
        "Look whether what was hidden shows now; if so, save it on a plain background.",
    ),
    "palette": Meaning("palette", "Colours out of a table.", "Used, converted to RGB.", "Nothing has to be done."),
    "rotated": Meaning(
        "turned by its tag",
        "A tag (EXIF) says that the camera was held on its side.",
        "Used, turned upright.",
        "Nothing has to be done.",
    ),
}


DONE = {SET_ASIDE: "Set aside.", LEFT_OUT: "Left out of training.", KEPT: "Used."}


STYLE = (
    thumbnails.STYLE
    + """
.verdict { font-size: 1.15em; padding: 0.5em 0.9em; border-left: 10px solid #009E73; background: #eef8f4 }
.verdict.aside { border-color: #E69F00; background: #fdf5e6 }
.verdict.leak { border: 2px solid #c00; border-left-width: 10px; background: #fdecec; color: #a00; font-weight: 600 }
figure.leak { border-top-color: #c00 } figure figure { border: 0; padding: 0; background: none }
figure figure { width: 128px } .none { width: 112px; padding: 2.2em 0.4em; box-sizing: border-box; color: #666;
  background: #eee; text-align: center; font-size: 12px } .pictures { flex-wrap: wrap } figure { max-width: 100% }
.scroll { overflow-x: auto } .scroll th { white-space: nowrap } td:first-child { min-width: 7em }
.bars { margin: 0.5em 0 1.5em } .bars.many { columns: 24em; column-gap: 2em }
.bar { display: grid; grid-template-columns: 8.5em 1fr 11em; gap: 0.6em; align-items: center; break-inside: avoid;
  font-size: 13px; line-height: 1.25; padding: 2px 0 }
.bar > :first-child { text-align: right; overflow-wrap: anywhere } .bar .n { font-variant-numeric: tabular-nums }
.stack { display: flex; height: 1.1em } .stack i { display: block; min-width: 1px }
.train { background: #0072B2 } .val { background: #56B4E9 } .test { background: #E69F00 } .unused { background: #999 }
.legend i { display: inline-block; width: 1em; height: 0.8em; margin: 0 0.35em 0 1em }
@media (max-width: 40em) { .bar { grid-template-columns: 6em 1fr 9.5em }
  .scroll tr, .scroll td { display: block } .scroll th { display: none } .scroll tr { border-bottom: 1px solid #ddd }
  .scroll td, .scroll td.number { border: 0; padding: 0.1em 0; text-align: left }
  .scroll td:first-child { font-weight: 600 } }
"""
)


@dataclass(frozen=True)
class Data:
    """All that the page tells.

    Attributes
    ----------
    findings : audit.csv.
    summary : audit.json.
    splits : the parts.
    classes : the names, in the order of their labels.
    images : the folder of the files.
    """

    findings: Sequence[Finding]
    summary: Mapping[str, Any]
    splits: Splits
    classes: Sequence[str]
    images: Path

    def label(self, file: str) -> str:
        return label_of(file, audit_summary.has_given_splits(self.summary))


def data_page(data: Data, title: str = "") -> str:
    """Return the page."""
    parts = [_verdict(data), *_leaks(data), *_notes(data), *_findings_table(data), *_classes(data), *_sizes(data)]
    heading = f"{TITLE}: {title}" if title else TITLE
    return page(heading, [*parts, *_examples(data)], style=STYLE)


def _verdict(data: Data) -> str:
    found = data.summary["findings"]
    kind = " leak" if found.get(CONTAMINATED) else " aside" if int(data.summary["set_aside"]) else ""
    return f'<p class="verdict{kind}">{escape(audit_summary.verdict(data.summary))}</p>'


def _leaks(data: Data) -> list[str]:
    leaked = {row.file for row in data.findings if row.finding == CONTAMINATED}
    of_test = leaked.intersection(data.splits.by_name["test"].images)
    if not of_test:
        return []
    n, total = len(of_test), len(data.splits.by_name["test"].images)
    trained_on = len(of_test.intersection(audit_summary.still_trained_on(data.findings)))
    text = (
        f"Of the {plural(total, 'test image')}, {n:,} ({100 * n / total:.1f} %) {'has its' if n == 1 else 'have their'}"
        " like in train or val as given. Whoever trains on all of that gets too good a number."
    )
    if trained_on < n:
        text += " The copies were left out of training here."
    if trained_on:
        text += (
            f" {trained_on:,} of them {'shares' if trained_on == 1 else 'share'} a known group with training images,"
            " which were used all the same: the accuracy on all test images is too good here as well."
        )
    return [f"<p>{escape(text)} The leaderboard has each experiment's accuracy without them.</p>"]


def _notes(data: Data) -> list[str]:
    notes = "\n".join(f"<li>{thumbnails.name(str(note))}</li>" for note in data.summary.get("notes", []))
    return [section("Worth knowing"), f"<ul>\n{notes}\n</ul>"] if notes else []


def order_of(findings: Mapping[str, Any]) -> list[str]:
    """Return the names of what was found, what matters most first."""
    places = {name: place for place, name in enumerate(MEANINGS)}
    return sorted(findings, key=lambda name: (places.get(name, len(places)), name))


def _findings_table(data: Data) -> Iterator[str]:
    """Each finding: how many images, what it means, what became of them, what to do."""
    counts = Counter(row.finding for row in data.findings)
    actions = {row.finding: row.action for row in data.findings}
    yield section("What was found")
    if not counts:
        yield "<p>Nothing: every image can be read, is there once, and is of the usual kind.</p>"
    else:
        rows = []
        for finding in order_of(counts):
            known = MEANINGS.get(finding)
            words = (known.meaning, known.done, known.advice) if known else ("", DONE.get(actions[finding], ""), "")
            rows.append((known.title if known else finding, f"{counts[finding]:,}", *words))
        header = ("finding", "images", "what it means", "what mimflow did", "what to do")
        yield f'<div class="scroll">{table(header, rows, numbers=(1,))}</div>'
    absent = [meaning.title for name, meaning in MEANINGS.items() if not counts[name]]
    if absent and counts:
        yield f"<p>Looked for and not found: {escape(', '.join(absent))}.</p>"


def _classes(data: Data) -> Iterator[str]:
    """How many images each class has in each part, as bars."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for part, split in data.splits.by_name.items():
        by_label = _by_label(data, split.images)
        counts.update({label: counts[label] + Counter({part: n}) for label, n in by_label.items()})
    for label, parts in data.summary["classes"].items():
        unused = sum(parts.values()) - counts[label].total()
        if unused > 0:
            counts[label]["unused"] = unused
    totals = {part: len(split.images) for part, split in data.splits.by_name.items()}
    unused_total = sum(of_class["unused"] for of_class in counts.values())
    yield section("Images of each class")
    folds = data.splits.folds
    if folds:
        yield f"<p>{plural(folds, 'fold')}: each image is in test in exactly one of them. The counts are of fold 0.</p>"
    words = ", ".join(f"{totals[part]:,} {part}" for part in SPLITS)
    more = f"; {unused_total:,} not used" if unused_total else ""
    yield f"<p>{plural(len(data.classes), 'class')}: {words}{more}. {_imbalance(data, counts)}</p>"
    swatches = "".join(f'<i class="{part}"></i>{part}' for part in SPLITS)
    yield (
        f'<p class="legend">{swatches}<i class="unused"></i>not used: set aside, left out, or of a class that is not'
        " asked for. The numbers: train + val + test (not used).</p>"
    )
    order = sorted(counts, key=lambda label: (-counts[label].total(), label))
    left = len(order) - MOST_CLASSES
    largest = max((counts[label].total() for label in order), default=1)
    if left > 0:
        half = MOST_CLASSES // 2
        yield f"<p>The {half} largest and the {half} smallest classes; {left:,} more are between them.</p>"
        order = order[:half] + order[-half:]
    kind = "bars many" if len(order) > MOST_IN_ONE_COLUMN else "bars"
    yield f'<div class="{kind}">\n' + "\n".join(_bar(label, counts[label], largest) for label in order) + "\n</div>"


def _by_label(data: Data, files: Sequence[str]) -> Counter[str]:
    parts = audit_summary.has_given_splits(data.summary)
    return Counter(label_of(file, parts) for file in files)


def _bar(label: str, counts: Mapping[str, int], largest: int) -> str:
    pieces = "".join(
        f'<i class="{part}" style="width:{100 * counts[part] / largest:.2f}%"></i>'
        for part in (*SPLITS, "unused")
        if counts[part]
    )
    numbers = " + ".join(f"{counts[part]:,}" for part in SPLITS)
    unused = f" ({counts['unused']:,})" if counts["unused"] else ""
    return (
        f'<div class="bar">{thumbnails.name(label)}<span class="stack">{pieces}</span>'
        f'<span class="n">{numbers}{unused}</span></div>'
    )


def _imbalance(data: Data, counts: Mapping[str, Counter[str]]) -> str:
    """Say how unequal the classes are in train; where they are, which accuracy to look at."""
    sizes = {label: counts[label]["train"] for label in data.classes}
    if not sizes or min(sizes.values()) == 0:
        return ""
    largest, smallest = max(sizes, key=sizes.__getitem__), min(sizes, key=sizes.__getitem__)
    ratio = sizes[largest] / sizes[smallest]
    if ratio == 1:
        return f"Each class has {sizes[largest]:,} images in train."
    of_largest = f"{thumbnails.name(largest)}: {sizes[largest]:,} images in train"
    names = f"{of_largest}, {thumbnails.name(smallest)}: {sizes[smallest]:,}"
    if ratio < 1.5:
        return f"The classes are about equally large ({names})."
    text = f"The largest class has {ratio:.1f} times the images of the smallest ({names})."
    if ratio >= 3:
        text += (
            " Accuracy is then mostly that of the large classes: look at macro F1 and at the metrics of each class, and"
            " try balance: sampler or loss (docs/your-data.md)."
        )
    return text


def _sizes(data: Data) -> Iterator[str]:
    """Widths, heights and formats."""
    rows = [
        (name, *(f"{values[key]:,}" if values.get(key) is not None else "-" for key in ("min", "median", "max")))
        for name, values in ((word, data.summary.get(f"{word}s") or {}) for word in ("width", "height"))
    ]
    yield section("Sizes and formats")
    yield table(("pixels", "least", "median", "most"), rows, numbers=(1, 2, 3))
    formats = sorted(data.summary.get("formats", {}).items(), key=lambda entry: (-entry[1], entry[0]))
    yield table(("format", "images"), [(name, f"{count:,}") for name, count in formats], numbers=(1,))


def _examples(data: Data) -> list[str]:
    """Up to MOST_EXAMPLES of each finding; fewer of each where they would make the page too large."""
    by_finding: dict[str, list[Finding]] = defaultdict(list)
    for row in data.findings:
        by_finding[row.finding].append(row)
    if CONTAMINATED in by_finding:  # the pair is one example, and not shown a second time as copies
        by_finding.pop(TRAIN_COPY, None)
        leaking = {row.group for row in by_finding[CONTAMINATED]} - {""}
        for name in {DUPLICATE, NEAR_DUPLICATE} & by_finding.keys():
            rest = [row for row in by_finding.pop(name) if row.group not in leaking]
            by_finding.update({name: rest} if rest else {})
    names = order_of(by_finding)
    examples = {name: choose_examples(name, by_finding[name], data.findings) for name in names}
    closed = {row.file for row in data.findings if row.finding in NEVER_OPENED}
    cards: dict[str, list[str]] = defaultdict(list)
    room = MOST_CHARACTERS
    # The first of each, then the second of each: so that no finding takes another's room.
    for turn in zip_longest(*(examples[name] for name in names)):
        for name, example in zip(names, turn, strict=True):
            if example and room > 0:
                cards[name].append(_card(name, example, data, closed))
                room -= len(cards[name][-1])
    parts = []
    for name in names:
        total = len({_group(row) for row in by_finding[name]} if name in OF_GROUPS else by_finding[name])
        besides = (
            " besides those that leak" if CONTAMINATED in by_finding and name in (DUPLICATE, NEAR_DUPLICATE) else ""
        )
        parts += _section_of(name, cards[name], total, besides)
    return parts


def _group(row: Finding) -> str:
    """Return the group of a row; without one it is a group of its own."""
    return row.group or f"file:{row.file}"


def choose_examples(name: str, rows: Sequence[Finding], findings: Sequence[Finding]) -> list[list[Finding]]:
    """Return the examples of a finding, each a list of rows: the members of a group, or one image.

    Examples of more classes come first, as far as they go: a dozen of one class say little.
    """
    if name not in OF_GROUPS:
        return [[row] for row in _spread(rows)[:MOST_EXAMPLES]]
    first = {_group(row): row for row in reversed(rows)}
    wanted = [_group(row) for row in _spread(list(first.values())[::-1])[:MOST_EXAMPLES]]
    rank = {TRAIN_COPY: 0, CONTAMINATED: 1}  # the row that says most of a file
    of_group: dict[str, dict[str, Finding]] = {group: {} for group in wanted}
    of_these = [row for row in findings if _group(row) in of_group]
    for row in sorted(of_these, key=lambda row: (row.finding != name, rank.get(row.finding, 2), row.file)):
        if row.group or row.finding == name:
            of_group[_group(row)].setdefault(row.file, row)
    return [sorted(of_group[group].values(), key=_place) for group in wanted]


def _place(row: Finding) -> tuple[int, str]:
    """Sort train before val before test, where the images have parts."""
    part = row.file.split("/")[0]
    return SPLITS.index(part) if part in SPLITS else 0, row.file


def _spread(rows: Sequence[Finding]) -> list[Finding]:
    """Return rows of as many folders as there are, one of each in turn."""
    seen: Counter[str] = Counter()
    turns: list[tuple[int, Finding]] = []
    for row in rows:
        folder = row.file.rpartition("/")[0]
        turns.append((seen[folder], row))
        seen[folder] += 1
    return [row for _, row in sorted(turns, key=lambda turn: turn[0])]


def _section_of(name: str, cards: Sequence[str], total: int, besides: str) -> list[str]:
    title = MEANINGS[name].title if name in MEANINGS else name
    of_all = plural(total, "group" if name in OF_GROUPS else "image")
    count = of_all if len(cards) == total else f"{len(cards)} of {of_all}"
    pictures = "\n".join(cards)
    return [
        f"<section>{section(f'{title[0].upper()}{title[1:]}')}\n<p>{count}{besides}</p>\n"
        f'<div class="cards">\n{pictures}\n</div></section>'
    ]


def _card(name: str, rows: Sequence[Finding], data: Data, closed: Collection[str]) -> str:
    """Return the HTML of an example: of a group, its pictures side by side."""
    shown = rows if len(rows) <= MOST_IN_GROUP else _of_all_parts(rows)
    kind = ' class="leak"' if name in (TRAIN_COPY, CONTAMINATED) else ""
    pictures = "\n".join(_image(row, data, closed) for row in shown)
    more = f"<p>and {len(rows) - len(shown):,} more</p>" if len(rows) > len(shown) else ""
    return f'<figure{kind}><div class="pictures">\n{pictures}\n</div>{more}</figure>'


def _of_all_parts(rows: Sequence[Finding]) -> list[Finding]:
    """Return MOST_IN_GROUP rows of as many folders as there are, in the order of *rows*."""
    chosen = {row.file for row in _spread(rows)[:MOST_IN_GROUP]}
    return [row for row in rows if row.file in chosen]


def _image(row: Finding, data: Data, closed: Collection[str]) -> str:
    detail = f"<br>{thumbnails.name(row.detail)}" if row.detail else ""
    return (
        f"<figure>{_picture(data.images / row.file, row, closed)}<figcaption>"
        f'<strong>{thumbnails.name(data.label(row.file))}</strong><br><span class="file">{thumbnails.name(row.file)}'
        f"</span>{detail}</figcaption></figure>"
    )


def _picture(path: Path, row: Finding, closed: Collection[str]) -> str:
    if row.file in closed:
        return '<div class="none">not opened</div>'
    if is_too_large(path):
        return '<div class="none">too large to show</div>'
    try:
        small = thumbnails.thumbnail(path, SIDE)
    except UserError:
        return '<div class="none">no picture</div>'
    return thumbnails.picture(thumbnails.data_uri(small), small.size, row.file)


def is_too_large(path: Path) -> bool:
    """Tell from its header alone whether an image is too large to be decoded for a small picture of it."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * SIDE, 2 * SIDE))
            return image.width * image.height > MOST_PIXELS
    except Image.DecompressionBombError:
        return True
    except (OSError, SyntaxError, ValueError):
        return False  # no image at all: thumbnail() says so
