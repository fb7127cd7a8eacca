"""All that is left out, changed or guessed of a data set is told: on the audit's page, the terminal, the model card."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chinese import english_in
from PIL import Image
from planted_images import encoded, photograph, turned
from raw_zip import zip_of_raw_names

from scripts.data import audit_images, describe_data, split_dataset, unpack_archive
from scripts.lib.base.language import speaking
from scripts.lib.base.units import plural
from scripts.lib.pages import data_summary

#: What is planted, and a part of the line that tells it.
TOLD = {
    "a corrupt image": "unreadable: 1 image. Set aside.",
    "an image that ends early": "truncated: 1 image. Set aside.",
    "no image": "left out 2: not an image, such as 'photos/notes.doc'",
    "a picture that no reader reads": "HEIC",
    "an archive inside the archive": "left out 1: an archive inside the archive, such as 'photos/more.zip'",
    "a container of images": "left out 1: Python pickle, which mimflow does not read",
    "a transparent image": "transparency: 1 image.",
    "several pictures in a file": "animated: 1 image.",
    "junk": "left out 1: junk (hidden files",
    "a copy": "copies: 2 images. Used",
    "labels that contradict each other": "one image under several classes: 2 images. All of them set aside.",
    "16 bits": "1 image of 16 bits a channel: the largest value is 65,000; they are scaled as 16 bits",
    "an image on its side": "turned by its tag: 1 image. Used, turned upright.",
    "another suffix": "wrong extension: 1 image.",
    "names in another encoding": "names in a.zip are read as cp1252, such as",
    "a table in another encoding": "cells of labels.csv are read as cp1252, such as 'süß'",
    "a column that is a split": "splits are read from the column 'Usage': train 26, val 2",
    "a column that is ignored": "the column 'is_test' ('no', 'yes') may be a split and is ignored",
    "val that becomes test": "only train and val are given: the given val is the test set",
    "a row without an image": "1 of 28 rows of labels.csv names no image: 'lost.jpg'",
    "an image without a row": "left out 1: no row in labels.csv",
    "a class that is not asked for": "left out 2: of classes that dataset.classes does not name",
    "columns that are found by their names": "labels.csv: files are read from the column 'name', classes from 'class'",
    "columns with another delimiter": "labels.csv: its columns are separated by ';'",
    "a row in other letters": "1 row of labels.csv with an image's name in other case or without its suffix: 'C0' is",
    "a name with signs that steer a terminal": "1 image under another name, such as",
    "images in no group": "dataset.split.group_by: 11 of 27 images do not match",
}


def plant(folder: Path) -> list[str]:
    """Write an archive with one of each; return the options of unpack_archive."""
    deep = np.linspace(20_000, 65_000, 96 * 120).reshape(96, 120).astype(np.uint16)
    heic = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(40)
    images: dict[str, tuple[bytes, str]] = {
        **{f"{name}{i}.jpg": (encoded(photograph(10 * j + i)), name) for j, name in enumerate("ab") for i in range(7)},
        **{f"c{i}.jpg": (encoded(photograph(90 + i)), "süß") for i in range(2)},
        "corrupt.jpg": (b"no image at all", "a"),
        "short.jpg": (encoded(photograph(50))[:-200], "a"),
        "clear.png": (encoded(photograph(55).convert("RGBA"), "PNG"), "a"),
        "film.gif": (encoded(photograph(56), "GIF", save_all=True, append_images=[photograph(57)]), "a"),
        "deep.png": (encoded(Image.fromarray(deep), "PNG"), "a"),
        "side.jpg": (turned(photograph(51), 6), "b"),
        "suffix.jpg": (encoded(photograph(52), "PNG"), "b"),
        "bell\x07.jpg": (encoded(photograph(58)), "b"),
        "Müller.jpg": (encoded(photograph(53)), "b"),
    }
    images |= {"copy.jpg": images["a1.jpg"], "other.jpg": (images["a2.jpg"][0], "b")}
    lines = ["name;class;Usage;is_test"]
    lines += [f"{n};{of[1]};{'val' if i in (3, 9) else 'train'};{'yes' if i % 2 else 'no'}" for i, (n, of) in
              enumerate(images.items())]  # fmt: skip
    lines = [line.replace("c0.jpg", "C0") for line in [*lines, "lost.jpg;a;train;no"]]
    files = {f"photos/{name}".encode("cp1252"): content for name, (content, _) in images.items()}
    files |= {b"photos/notes.doc": b"words", b"photos/phone.heic": heic, b"photos/.DS_Store": b"x"}
    files |= {b"photos/more.zip": b"PK\x03\x04", b"photos/batch": b"\x80\x04\x95" + bytes(40)}
    files |= {b"photos/unlisted.jpg": encoded(photograph(54)), b"labels.csv": "\n".join(lines).encode("cp1252")}
    zip_of_raw_names(folder / "a.zip", files, system=3)
    return ["--archive", str(folder / "a.zip"), "--sources", json.dumps([{"labels": "labels.csv"}])]


def run(script: Any, *options: object) -> None:
    script.main(script.build_parser().parse_args(list(map(str, options))))


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A data set that was unpacked, audited and divided, and its audit.json."""
    data = tmp_path_factory.mktemp("data")
    run(unpack_archive, *plant(data), "--output", data / "images", "--record", data / "unpacked.json")
    options = ["--images", data / "images", "--group-by", "([abc])[0-9]"]
    files = ["--output", data / "audit.csv", "--summary", data / "audit.json", "--unpacked", data / "unpacked.json"]
    run(audit_images, *options, *files, "--threads", 1)
    files = ["--output", data / "splits", "--class-list", data / "classes.txt", "--classes", '["a", "b"]']
    run(split_dataset, "--images", data / "images", "--audit", data / "audit.csv", *files)
    return data, json.loads((data / "audit.json").read_text())


def page_of(data: Path, _summary: dict[str, Any]) -> str:
    files = ["--audit", data / "audit.csv", "--summary", data / "audit.json", "--splits", data / "splits"]
    folders = ["--images", data / "images", "--classes", data / "classes.txt"]
    run(describe_data, *files, *folders, "--output", data / "a.html")
    page = (data / "a.html").read_text(encoding="utf-8")
    row = r'<td>(.+?)</td><td class="number">(.+?)</td><td>.*?</td>\s*<td>(.+?)</td>'
    findings = [f"{title}: {plural(int(n), 'image')}. {done}" for title, n, done in re.findall(row, page)]
    return unescape("\n".join([*findings, page]))


def terminal_of(data: Path, summary: dict[str, Any]) -> str:
    return "\n".join(data_summary.terminal_lines(summary, ["a", "b"], "audit.html"))


def card_of(data: Path, summary: dict[str, Any]) -> str:
    """Return what model_card.py puts into the section of the data; its own tests render it."""
    return "\n".join(data_summary.remarks(summary, ["a", "b"]))


@pytest.mark.parametrize("text_of", [page_of, terminal_of, card_of])
def test_all_that_was_left_out_changed_or_guessed_is_told(
    text_of: Callable[[Path, dict[str, Any]], str], summary: tuple[Path, dict[str, Any]]
) -> None:
    text = text_of(*summary)
    assert not {what: line for what, line in TOLD.items() if line not in text}, text


def test_the_chinese_lines_are_chinese(summary: tuple[Path, dict[str, Any]]) -> None:
    with speaking("zh"):
        lines = data_summary.terminal_lines(summary[1], ["a", "b"], "audit.html")
    assert not {line: words for line in lines if (words := english_in(line))}


def test_what_is_known_of_the_labels_is_among_the_last_lines(summary: tuple[Path, dict[str, Any]]) -> None:
    judged: dict[str, Any] = {"reason": None, "images": 24, "suspects": 3, "odd_ones_out": ["a/1.jpg", "b/2.jpg"]}
    judged |= {"is_weak": False, "classes_not_judged": ["rare"]}
    lines = data_summary.label_lines(judged, "x/label_suspects.html")
    assert lines == [
        "labels that may be wrong: 3 of 24 images: x/label_suspects.html",
        "labels of classes with too few images to be judged: rare",
        "images unlike all others, by their features: 2. Used.",
    ]
    assert [f"  {line}" for line in lines] == data_summary.terminal_lines(summary[1], ["a", "b"], "", lines)[-3:]
    assert data_summary.label_lines(None, "") == []
    older = {name: value for name, value in judged.items() if name != "odd_ones_out"}
    assert data_summary.label_lines(older, "x/label_suspects.html") == lines[:2]
    of_others = [{**judged, "is_weak": True}, {**judged, "reason": "no weights"}]
    assert "too few of them to say" in data_summary.label_lines(of_others[0], "")[0]
    assert data_summary.label_lines(of_others[1], "") == ["the labels were not judged: no weights"]
    with speaking("zh"):
        for each in (judged, *of_others):
            text = " ".join(data_summary.label_lines({**each, "reason": each["reason"] and "图"}, "x.html"))
            assert text and not english_in(text)


def test_of_clean_data_nothing_is_said_and_of_too_much_where_the_rest_is() -> None:
    clean: dict[str, Any] = {"images": 9, "set_aside": 0, "left_out": 0, "findings": {}, "classes": {"a": {"all": 9}}}
    assert data_summary.terminal_lines(clean, ["a"], "audit.html") == []
    lines = data_summary.terminal_lines(clean | {"notes": [f"note {i}" for i in range(40)]}, ["a"], "x/audit.html")
    assert len(lines) == 2 + data_summary.MOST and lines[-1] == "  and 8 more: x/audit.html"
