"""The page of the audit: its verdict, its examples, hostile names, files that must not be opened, and its size."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_run import photograph

from scripts.data import describe_data
from scripts.lib.base.problems import UserError
from scripts.lib.data import splits
from scripts.lib.data.findings import CONTAMINATED, TRAIN_COPY, Finding, label_of, read_findings, read_summary, verdict
from scripts.lib.data.splits import read_splits
from scripts.lib.pages.data_page import NEVER_OPENED, Data, data_page
from scripts.lib.pages.data_summary import meanings

HOSTILE = ["<script>alert(1)", '"><img src=x onerror=alert(1)>', "草莓 & 水果"]
Row = tuple[str, str, str, str, str]


def write(
    root: Path, rows: Iterable[Row] = (), splits: Mapping[str, Sequence[str]] | None = None, **summary: Any
) -> list[str]:
    """Write an audit and a split below *root*, and return the command's options."""
    rows = sorted(rows)
    with open(root / "audit.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("file", "finding", "action", "group", "detail"), *rows])
    splits = splits or {"train": ["a/0.jpg", "b/0.jpg"], "val": ["a/1.jpg", "b/1.jpg"], "test": ["a/2.jpg", "b/2.jpg"]}
    files = [file for split in splits.values() for file in split]
    parts = any(file.split("/")[0] in splits for file in files)
    labels = sorted({label_of(file, parts) for file in files})
    (root / "splits").mkdir(exist_ok=True)
    for split, of_part in splits.items():
        lines = [f"{file} {labels.index(label_of(file, parts))}\n" for file in of_part]
        (root / "splits" / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    (root / "classes.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    gone = {action: {row[0] for row in rows if row[2] == action} for action in ("set_aside", "left_out")}
    counts: dict[str, Counter[str]] = {label: Counter() for label in labels}
    for file in {*files, *gone["set_aside"], *gone["left_out"]}:
        counts.setdefault(label_of(file, parts), Counter())[file.split("/")[0] if parts else "all"] += 1
    content = {
        "images": sum(of_class.total() for of_class in counts.values()),
        **{action: len(of_action) for action, of_action in gone.items()},
        "findings": Counter(row[1] for row in rows),
        "classes": counts,
        "formats": {"JPEG": 6},
        "widths": {"min": 60, "median": 60, "max": 1600},
        "heights": {"min": 48, "median": 48, "max": 48},
        "imbalance": 1.0,
        "notes": [],
    }
    (root / "audit.json").write_text(json.dumps(content | summary), encoding="utf-8")
    options = ["--audit", "audit.csv", "--summary", "audit.json", "--images", "images", "--splits", "splits"]
    options += ["--classes", "classes.txt", "--output", "audit.html"]
    return [word if word.startswith("--") else str(root / word) for word in options]


def page_of(root: Path, *rows: Row, splits: Mapping[str, Sequence[str]] | None = None, **summary: Any) -> str:
    args = describe_data.build_parser().parse_args([*write(root, rows, splits, **summary), "--title", "fruit"])
    describe_data.main(args)
    return (root / "audit.html").read_text(encoding="utf-8")


def save(root: Path, file: str, seed: int = 0, size: tuple[int, int] = (60, 48)) -> str:
    path = root / "images" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    photograph(seed, size).save(path)
    return file


def part_of(page: str, title: str) -> str:
    """The examples below the heading *title*."""
    return page.split(f"<h2>{title}</h2>")[1].split("</section>")[0]


class Elements(HTMLParser):
    """The names of a page's elements, its words, and the attributes that would do something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()
        self.words: list[str] = []
        self.attributes: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.names[tag] += 1
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_verdict_is_one_sentence_that_counts_what_matters() -> None:
    summary: dict[str, Any] = {"images": 1000, "set_aside": 0, "left_out": 0, "findings": {}}
    assert verdict(summary) == "None of 1,000 images had to be set aside, none is contaminated."
    aside = summary | {"set_aside": 2, "findings": {"duplicate": 14, "near_duplicate": 1, "tiny": 9}}
    assert (
        verdict(aside)
        == "2 of 1,000 images were set aside, 14 copies and 1 near copy stay in one split, none is contaminated."
    )
    single = summary | {"set_aside": 1, "findings": {"near_duplicate": 1}}
    assert verdict(single) == "1 of 1,000 images was set aside, 1 near copy stays in one split, none is contaminated."
    contaminated = verdict(aside | {"left_out": 7, "findings": {CONTAMINATED: 1, TRAIN_COPY: 7, "duplicate": 8}})
    assert contaminated.startswith("Contaminated: 1 given val or test image is in a lower split too")
    assert "7 were left out of training" in contaminated
    assert "none is" not in contaminated and "stay" not in contaminated


def test_the_verdict_is_red_where_images_are_contaminated_and_only_there(tmp_path: Path) -> None:
    given_splits = {"train": ["train/a/0.jpg", "train/b/0.jpg"], "val": ["val/a/1.jpg"], "test": ["test/a/2.jpg"] * 4}
    page = page_of(tmp_path, splits=given_splits)
    assert '<p class="verdict">None of' in page and "Looked for" not in page
    assert '<p class="verdict aside">' in page_of(
        tmp_path, ("train/a/9.jpg", "blank", "set_aside", "", ""), splits=given_splits
    )
    given_splits["test"] = [f"test/a/{number}.jpg" for number in range(4)]
    rows = [
        ("test/a/2.jpg", CONTAMINATED, "kept", "g", ""),
        ("train/a/8.jpg", TRAIN_COPY, "left_out", "g", ""),
        ("test/a/3.jpg", CONTAMINATED, "kept", "", "the group of train/a/0.jpg"),
        ("val/a/1.jpg", CONTAMINATED, "kept", "", "the group of train/a/0.jpg"),
    ]
    page = page_of(tmp_path, *rows, splits=given_splits)
    assert '<p class="verdict contaminated">Contaminated: 3 given val or test images' in page
    assert "Of the 4 test images, 2 (50.0 %) have their like in train" in page
    assert "The copies were left out" in page and "1 of them shares a known group" in page
    assert "were left out of training here" not in page_of(tmp_path, *rows[2:3], splits=given_splits)
    page = page_of(tmp_path, *rows[:2], splits=given_splits)
    assert "1 (25.0 %) has its like" in page and "known group with training" not in page


@pytest.mark.long
def test_names_from_outside_are_text_in_every_place(tmp_path: Path) -> None:
    files = [save(tmp_path, f"{name}/{name} {number}.jpg", number) for number, name in enumerate(HOSTILE)]
    rows = [(file, finding, "kept", "g", HOSTILE[1]) for file in files for finding in ("duplicate", "tiny")]
    rows += [(file, HOSTILE[0], "kept", "", HOSTILE[0]) for file in files]
    splits = {split: files for split in ("train", "val", "test")}
    page = page_of(tmp_path, *rows, splits=splits, notes=HOSTILE, formats=dict.fromkeys(HOSTILE, 1))
    elements = Elements(page)
    assert not {"script", "iframe", "link"} & set(elements.names) and "onerror" not in elements.attributes
    assert elements.names["img"] == 6 + 3, "two findings with three pictures each, and the one that is not ours"
    for name in HOSTILE:
        assert elements.words.count(name) >= 4, name  # a class in the bars and with its picture, a note, a format


def test_copies_stand_side_by_side_each_with_its_class_and_train_first(tmp_path: Path) -> None:
    pair = [save(tmp_path, "test/苹果/1.jpg"), save(tmp_path, "train/梨/7.jpg")]
    other = [save(tmp_path, "test/苹果/2.jpg", 2), save(tmp_path, "train/苹果/2.jpg", 2)]
    rows = [(pair[0], CONTAMINATED, "kept", "g1", ""), (pair[1], TRAIN_COPY, "left_out", "g1", "")]
    rows += [(file, "near_duplicate", "kept", "g1", "") for file in pair]
    rows += [(other[0], CONTAMINATED, "kept", "g2", ""), (other[1], TRAIN_COPY, "left_out", "g2", "")]
    rows += [(file, "conflicting_labels", "set_aside", "g3", "") for file in (pair[0], pair[1])]
    page = page_of(tmp_path, *rows, splits={"train": other[1:], "val": other[1:], "test": [pair[0], other[0]]})
    pairs = part_of(page, "Contaminated val and test images")
    assert "<p>2 groups</p>" in pairs and pairs.count("<img") == 4 and pairs.count('<figure class="contaminated">') == 2
    assert re.findall(r'class="file"><bdi>([^<]+)', pairs) == [pair[1], pair[0], other[1], other[0]]
    conflict = part_of(page, "One image under several classes")
    assert re.findall(r"<strong><bdi>([^<]+)", conflict) == ["梨", "苹果"]
    assert "Train and val images with a copy in val or test</h2>" not in page, "a pair is one example"
    assert "Near copies</h2>" not in page, "and shown once"
    rows += [(file, "near_duplicate", "kept", "g4", "") for file in ("train/梨/8.jpg", "train/梨/9.jpg")]
    page = page_of(tmp_path, *rows, splits={"train": other[1:], "val": other[1:], "test": [pair[0], other[0]]})
    assert "<p>1 group besides the copies of val and test images</p>" in part_of(page, "Near copies")


def test_files_that_are_set_aside_as_bombs_or_broken_are_not_opened(tmp_path: Path) -> None:
    files = [save(tmp_path, f"a/{number}.jpg", number) for number in range(4)]
    actions = ["too_many_pixels", "unreadable", "truncated", "blank"]
    rows: list[Row] = [(file, name, "set_aside", "", "why") for file, name in zip(files, actions, strict=True)]
    rows += [(files[0], "huge", "kept", "", ""), (files[0], "duplicate", "kept", "g", "")]
    page = page_of(tmp_path, *rows)
    # They are good images here: a picture of one of the first three would show that it was opened.
    assert page.count("<img") == 1 and "<img" in part_of(page, "Blank")
    assert page.count("not opened") == 5 and page.count("<bdi>why</bdi>") == 4


@pytest.mark.long
def test_a_huge_image_is_shown_only_where_its_format_decodes_a_fraction(tmp_path: Path) -> None:
    folder = tmp_path / "images" / "a"
    folder.mkdir(parents=True)
    Image.new("1", (8000, 6000)).save(folder / "0.png")
    Image.new("L", (8000, 6000)).save(folder / "1.jpg")
    Image.new("1", (20000, 20000)).save(folder / "2.png")  # what Pillow refuses by itself
    (folder / "3.png").write_bytes(b"not an image")
    rows = [
        (f"a/{name}", "huge", "kept", "", "") for name in ("0.png", "1.jpg", "2.png", "3.png", "4 is not there.png")
    ]
    page = page_of(tmp_path, *rows)
    assert page.count("<img") == 1 and 'alt="a/1.jpg"' in page
    assert page.count("too large to show") == 2 and page.count("no picture") == 2


def test_a_dozen_examples_of_each_finding_of_as_many_classes_as_there_are(tmp_path: Path) -> None:
    files = [
        save(tmp_path, f"{label:02}/{number}.jpg", 20 * label + number) for label in range(5) for number in range(9)
    ]
    page = page_of(tmp_path, *((file, "tiny", "kept", "", "") for file in files))
    tiny = part_of(page, "Tiny")
    assert "12 of 45 images" in tiny and tiny.count("<img") == 12
    assert set(Counter(re.findall(r"<strong><bdi>(\d+)", tiny)).values()) == {2, 3}
    group = part_of(page_of(tmp_path, *((file, "duplicate", "kept", "g", "") for file in files)), "Copies")
    assert "<p>1 group</p>" in group and group.count("<img") == 3 and "and 42 more" in group


def test_the_page_stays_small_and_shows_something_of_every_finding(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    (tmp_path / "images" / "a").mkdir(parents=True)
    first = tmp_path / "images" / "a" / "0.png"
    Image.fromarray(noise).save(first)
    for number in range(1, 40):
        os.link(first, first.with_name(f"{number}.png"))
    rows = [
        (f"a/{number}.png", name, "kept", f"{name} {number // 3}", "x" * 200)
        for number in range(40)
        for name in meanings()
    ]
    closed = NEVER_OPENED
    page = page_of(tmp_path, *(row for row in rows if row[1] not in closed))
    assert 600_000 < len(page.encode()) < 1_500_000
    for name, meaning in meanings().items():
        if name not in (*closed, TRAIN_COPY):
            assert "<img" in part_of(page, f"{meaning['title'][0].upper()}{meaning['title'][1:]}"), name


@pytest.mark.long
def test_a_hundred_thousand_images_take_seconds(tmp_path: Path) -> None:
    files = [f"{number % 200:03}/{number}.jpg" for number in range(100_000)]
    rows: list[Row] = [(file, "rotated", "kept", "", "EXIF orientation 6") for file in files[:50_000]]
    for name in ("duplicate", "near_duplicate"):
        rows += [(file, name, "kept", f"{name} {index // 2}", "copy") for index, file in enumerate(files[50_000:])]
    options = write(tmp_path, rows, {"train": files[:70_000], "val": files[70_000:80_000], "test": files[80_000:]})
    begin = time.process_time()
    describe_data.main(describe_data.build_parser().parse_args(options))
    assert time.process_time() - begin < 15
    page = (tmp_path / "audit.html").read_text()
    assert len(page) < 400_000 and "12 of 25,000 groups" in page and page.count('<div class="bar">') == 200


def test_the_bars_count_each_part_and_what_is_not_used(tmp_path: Path) -> None:
    splits = {"train": [f"苹果/{n}.jpg" for n in range(40)] + [f"梨/{n}.jpg" for n in range(10)]}
    splits |= {"val": ["苹果/50.jpg", "梨/50.jpg"], "test": ["苹果/60.jpg", "苹果/61.jpg", "梨/60.jpg"]}
    rows = [("梨/90.jpg", "unreadable", "set_aside", "", ""), ("葡萄/1.jpg", "rotated", "kept", "", "")]
    page = page_of(tmp_path, *rows, splits=splits)
    bars = dict(re.findall(r'<div class="bar"><bdi>(.*?)</bdi>.*?<span class="n">(.*?)</span>', page))
    assert bars == {"苹果": "40 + 1 + 2", "梨": "10 + 1 + 1 (1)"}
    assert "2 classes: 50 train, 2 val, 3 test; 1 not used." in page
    assert "4.0 times the images of the smallest (<bdi>苹果</bdi>: 40 images in train, <bdi>梨</bdi>: 10)" in page
    assert "look at macro F1" in page
    widths = [float(width) for width in re.findall(r'class="train" style="width:([\d.]+)%', page)]
    assert widths == [pytest.approx(100 * 40 / 43, abs=0.01), pytest.approx(100 * 10 / 43, abs=0.01)]
    even = page_of(tmp_path)
    assert "Each class has" in even and "macro F1" not in even


def test_of_very_many_classes_the_largest_and_the_smallest_have_bars(tmp_path: Path) -> None:
    files = [f"{label:04}/{number}.jpg" for label in range(1000) for number in range(1 + label % 7)]
    page = page_of(tmp_path, splits={"train": files, "val": files[:5], "test": files[:9]})
    assert (
        page.count('<div class="bar">') == 400 and "600 more are between them" in page and 'class="bars many"' in page
    )
    assert len(page) < 200_000


def test_of_folds_the_page_says_how_many_and_counts_the_first(tmp_path: Path) -> None:
    options = write(tmp_path)
    for number in range(11):
        fold = tmp_path / "folds" / f"fold{number}"
        fold.mkdir(parents=True)
        for split, images in (("train", 5 + number), ("val", 2), ("test", 3)):
            (fold / f"{split}.txt").write_text("".join(f"a/{split} {n}.jpg 0\n" for n in range(images)))
    for folder in ("folds", "folds/fold0"):
        options[options.index("--splits") + 1] = str(tmp_path / folder)
        describe_data.main(describe_data.build_parser().parse_args(options))
        page = (tmp_path / "audit.html").read_text()
        assert "11 folds: each image is in test in exactly one of them" in page and "5 train, 2 val, 3 test" in page
    assert "folds:" not in page_of(tmp_path)


def test_what_was_looked_for_and_not_found_is_said(tmp_path: Path) -> None:
    page = page_of(tmp_path, ("a/0.jpg", "cmyk", "kept", "", ""))
    assert "Looked for and not found: contaminated val and test images, " in page
    assert "CMYK" not in page.split("not found:")[1].split("</p>")[0]


def test_the_page_of_label_suspects_is_named_where_there_will_be_one(tmp_path: Path) -> None:
    assert "label_suspects.html" not in page_of(tmp_path)
    words = [*write(tmp_path), "--log", str(tmp_path / "log"), "--labels-page", "label_suspects.html"]
    subprocess.run([sys.executable, "-m", "scripts.data.describe_data", *words], check=True)
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert '<a href="label_suspects.html">label_suspects.html</a>' in page


def test_the_classes_of_given_parts_and_of_none_are_told_apart(tmp_path: Path) -> None:
    summary: dict[str, Any] = {"classes": {"train": {"all": 3}}}
    data = Data(
        [Finding("train/1.jpg", "tiny", "kept", "", "")], summary, read_splits_of(tmp_path), ["train"], tmp_path
    )
    assert data.label("train/1.jpg") == "train", "a vehicle data set may well have a class train"
    data.summary["classes"]["apple"] = {"train": 1}
    assert data.label("train/apple/more/1.jpg") == "apple"


def read_splits_of(root: Path) -> splits.Splits:
    write(root)
    return read_splits(root / "splits")


def test_the_command_makes_the_same_page_again(tmp_path: Path) -> None:
    page = page_of(tmp_path, (save(tmp_path, "a/0.jpg"), "tiny", "kept", "", ""))
    command = [
        sys.executable,
        "-m",
        "scripts.data.describe_data",
        *write(tmp_path, [("a/0.jpg", "tiny", "kept", "", "")]),
    ]
    subprocess.run([*command, "--title", "fruit", "--log", str(tmp_path / "log")], check=True)
    assert (tmp_path / "audit.html").read_text(encoding="utf-8") == page and "<h1>The data: fruit</h1>" in page
    assert data_page(
        Data(read_findings(tmp_path / "audit.csv"), read_summary(tmp_path / "audit.json"),
             read_splits(tmp_path / "splits"), ["a", "b"], tmp_path / "images"), "fruit"
    ) == page  # fmt: skip


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("audit.csv", None, r"audit\.csv: no such file; make it with scripts\.data\.audit_images"),
        ("audit.csv", b"", r"audit\.csv: not an audit\.csv"),
        ("audit.csv", b"file,finding\n", r"audit\.csv: not an audit\.csv"),
        ("audit.csv", b"file,finding,action,group,detail\na,b\n", r"audit\.csv: not an audit\.csv"),
        ("audit.csv", b"file,finding,action,group,detail\n\xff,b,c,d,e\n", r"audit\.csv: not an audit\.csv"),
        ("audit.json", None, r"audit\.json: no such file"),
        ("audit.json", b"{", r"audit\.json: not the summary"),
        ("audit.json", b'{"images": 3}', r"audit\.json: not the summary"),
        ("audit.json", b"[]", r"audit\.json: not the summary"),
        ("splits/val.txt", None, r"val\.txt: no such file; make it with scripts\.data\.split_dataset"),
        ("classes.txt", None, r"classes\.txt: no such file"),
    ],
)
def test_files_that_are_none_are_one_line(tmp_path: Path, file: str, content: bytes | None, message: str) -> None:
    options = write(tmp_path)
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=message):
        describe_data.main(describe_data.build_parser().parse_args(options))
    assert not (tmp_path / "audit.html").exists()
