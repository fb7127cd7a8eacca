"""Corrections of labels: found by content, applied to splits, and refused in one line where they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.lib.base.problems import UserError
from scripts.lib.data.corrections import (
    COLUMNS,
    Correction,
    corrected_images,
    findings_of,
    in_their_class,
    read_corrections,
    relabelled,
    resolve,
    write_corrections,
)
from scripts.lib.data.splits import Image, Split

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
LABELS = {"cat/1.jpg": "cat", "cat/2.jpg": "cat", "dog/1.jpg": "dog", "dog/copy.jpg": "dog"}
DIGESTS = {"cat/1.jpg": A, "cat/2.jpg": B, "dog/1.jpg": C, "dog/copy.jpg": A}
FILE = Path("corrections.csv")


def resolved(*rows: tuple[str, str, str, str, str]) -> dict[str, tuple[str, str]]:
    decided = resolve([Correction(*row, line) for line, row in enumerate(rows, 2)], LABELS, DIGESTS, FILE)
    return {row.path: (row.action, row.new_label) for row in decided}


def read(folder: Path, text: str, encoding: str = "utf-8") -> list[Correction]:
    path = folder / "corrections.csv"
    path.write_bytes(text.encode(encoding))
    return read_corrections(path)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    rows = [Correction(A, 'x, "y".jpg', "苹果", "NA", "relabel", 2), Correction("", "z", "", "", "drop", 3)]
    write_corrections(tmp_path / "c.csv", rows)
    assert read_corrections(tmp_path / "c.csv") == rows
    text = (tmp_path / "c.csv").read_text(encoding="utf-8")
    assert read(tmp_path, text.replace("\n", "\r\n"), "utf-8-sig") == rows  # as Excel saves it


def test_an_image_is_found_by_its_content_and_so_are_its_copies() -> None:
    # It was called otherwise when it was decided about.
    assert resolved((B, "old/name.jpg", "cat", "dog", "relabel")) == {"cat/2.jpg": ("relabel", "dog")}
    # The same bytes under two classes: what is right of one copy is right of all.
    assert resolved((A, "cat/1.jpg", "cat", "cat", "keep")) == {
        "cat/1.jpg": ("keep", "cat"),
        "dog/copy.jpg": ("relabel", "cat"),
    }
    assert resolved(("", "dog/1.jpg", "", "", "drop")) == {"dog/1.jpg": ("drop", "")}


def test_a_label_that_is_right_by_now_needs_no_correction() -> None:
    assert resolved((C, "cat/was.jpg", "cat", "dog", "relabel")) == {"dog/1.jpg": ("keep", "dog")}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [("d" * 64, "x.jpg", "cat", "dog", "relabel")],
            "none of its 1 images is in this data set: it was made for an",
        ),
        (
            [(C, "", "dog", "cat", "relabel"), ("d" * 64, "x.jpg", "cat", "dog", "relabel")],
            r"corrections\.csv, line 3: x\.jpg with sha256 dddd.* is not in this data set",
        ),
        ([(C, "", "dog", "dgo", "relabel")], "line 2: there is no class 'dgo'; there are 'dog'"),
        ([(C, "", "dog", "cat", "relabel"), (C, "", "dog", "", "drop")], "lines 2 and 3: two decisions on one image"),
        ([(A, "", "cat", "cat", "keep"), (A, "", "dog", "dog", "keep")], "lines 2 and 3: two decisions on one image"),
        ([(B, "x.jpg", "dog", "dog", "keep")], r"line 2: the label of x\.jpg was 'dog' when .* is 'cat' now"),
    ],
)
def test_wrong_decisions_are_refused_in_one_line(rows: list[tuple[str, str, str, str, str]], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        resolved(*rows)
    assert "\n" not in str(error.value)


def test_equal_decisions_on_one_image_are_one() -> None:
    row = (C, "dog/1.jpg", "dog", "cat", "relabel")
    assert resolved(row, row) == {"dog/1.jpg": ("relabel", "cat")}


HEADER = ",".join(COLUMNS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the first line must be sha256,path,label,new_label,action"),
        ("file,label\n", "the first line must be"),
        (HEADER.replace(",", ";"), "the first line must be"),
        (f"{HEADER}\n{A},x,cat,dog,relabel,\n", "line 2: 6 columns instead of 5"),
        (f"{HEADER}\n{A},x,cat,dog\n", "line 2: 4 columns instead of 5"),
        (f"{HEADER}\nabc,x,cat,dog,relabel\n", "line 2: 'abc' is no sha256"),
        (f"{HEADER}\n,,cat,dog,relabel\n", "line 2: it names no image"),
        (f"{HEADER}\n{A},x,cat,dog,rename\n", "line 2: the action 'rename' is none of relabel, drop, keep"),
        (f"{HEADER}\n{A},x,cat,,relabel\n", "line 2: relabel without a new_label"),
        (f'{HEADER}\n{A},"x,cat,dog,relabel\n', "not a table of corrections"),
    ],
)
def test_a_malformed_table_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16"])
def test_a_table_that_is_not_in_utf8_is_refused_with_what_to_do(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(UserError, match="not a table of corrections in UTF-8") as error:
        read(tmp_path, f"{HEADER}\n{A},苹果,a,b,relabel\n", encoding)
    assert "CSV UTF-8" in str(error.value) and "\n" not in str(error.value)


def test_no_file_and_a_folder_are_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file: check dataset\.corrections"):
        read_corrections(tmp_path / "none.csv")
    with pytest.raises(UserError, match="not a table of corrections"):
        read_corrections(tmp_path)


def test_a_table_without_rows_decides_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, f"{HEADER}\r\n\r\n", "utf-8-sig") == []
    assert resolved() == {}


DECIDED = [
    Correction(B, "cat/2.jpg", "cat", "dog", "relabel"),
    Correction(C, "dog/1.jpg", "dog", "", "drop"),
    Correction(A, "cat/1.jpg", "cat", "cat", "keep"),
]


def test_the_audit_says_what_was_changed_and_by_which_file() -> None:
    assert [(row.file, row.finding, row.action, row.detail) for row in findings_of(DECIDED, FILE)] == [
        ("cat/2.jpg", "relabelled", "kept", "'cat' became 'dog' by corrections.csv"),
        ("dog/1.jpg", "dropped", "left_out", "dropped by corrections.csv"),
    ]
    images = [Image(path, label) for path, label in LABELS.items()]
    kept = corrected_images(images, DECIDED)
    assert [(image.path, image.label) for image in kept] == [
        ("cat/1.jpg", "cat"), ("cat/2.jpg", "dog"), ("dog/copy.jpg", "dog"),
    ]  # fmt: skip


def test_a_split_keeps_its_images_and_gets_the_new_labels() -> None:
    split = Split("test", ["cat/1.jpg", "cat/2.jpg", "dog/copy.jpg"], [0, 0, 1])
    new = relabelled(split, DECIDED, ["cat", "dog"])
    assert dict(zip(new.images, new.labels, strict=True)) == {"cat/1.jpg": 0, "cat/2.jpg": 1, "dog/copy.jpg": 1}
    both = Split("train", ["cat/1.jpg", "dog/1.jpg", "dog/copy.jpg"], [0, 1, 1])
    assert relabelled(both, DECIDED, ["cat", "dog"]).images == ["cat/1.jpg", "dog/copy.jpg"], "one was dropped"
    alone = Split("val", ["cat/2.jpg", "dog/copy.jpg"], [0, 1])
    with pytest.raises(UserError, match="after them val has no image of 'cat'"):
        relabelled(alone, DECIDED, ["cat", "dog"])


def test_an_image_that_leaves_or_enters_the_classes_in_use_is_split_by_its_new_label() -> None:
    images = [Image("cat/2.jpg", "cat"), Image("dog/copy.jpg", "dog")]
    assert in_their_class(images, DECIDED, ["cat", "dog"]) == images
    assert in_their_class(images, DECIDED, ["dog"])[0].label == "dog"
    assert in_their_class(images, DECIDED, ["cat"])[0].label == "dog"
