"""Which class each image has where tables or annotation files say it, not folders."""

from __future__ import annotations

import logging
import unicodedata
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from scripts.lib.base.problems import UserError
from scripts.lib.data.annotation_files import read_annotations
from scripts.lib.data.archive_entries import Limits
from scripts.lib.data.label_files import (
    Row,
    class_folder,
    place_images,
    read_labels,
    read_table,
)
from scripts.lib.data.unpacking import Origin, unpack_all


def pairs(rows: list[Row]) -> list[tuple[str, str, str]]:
    return [(row.file, row.label, row.split) for row in rows]


def table(*lines: str) -> list[Row]:
    return read_table("t.csv", "\n".join(lines))


def placed(rows: list[Row], *paths: str) -> list[str]:
    """Return where the images go, as paths; reasons for nowhere in brackets."""
    targets, _ = place_images(rows, [tuple(path.split("/")) for path in paths], "t.csv")
    return [f"[{target}]" if isinstance(target, str) else "/".join(target) for target in targets]


def labelled(*lines: str) -> list[Row]:
    return table("file,label", *lines)


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        "id,label,split\na.jpg,草莓,train\n\nb.jpg,two words,valid\n".encode(),
        "\ufeffImage Name;Class;Subset\r\na.jpg;草莓;TRAIN\r\nb.jpg;two words;Validation\r\n".encode(),
        "类别\t文件名\t划分\n草莓\ta.jpg\ttrain\ntwo words\tb.jpg\tval\n".encode("gb18030"),
        "path\tcategory\tpart\na.jpg\t草莓\ttraining\nb.jpg\ttwo words\tval\n".encode("utf-16"),
        'other,"file","label",split\n1,"a.jpg", "草莓" ,train\n2,"b.jpg",two words,val\n'.encode(),
        "a.jpg,草莓,train\nb.jpg,two words,val\n".encode(),
    ],
    ids=["utf-8", "bom and semicolons", "gb18030 and tabs", "utf-16", "quotes and another column", "no heading"],
)
def test_tables_are_read_as_people_write_them(content: bytes) -> None:
    rows = read_labels("t.csv", {"t.csv": content}.__getitem__)
    assert pairs(rows) == [("a.jpg", "草莓", "train"), ("b.jpg", "two words", "val")]


def test_a_quoted_cell_may_hold_delimiters_and_rows_know_their_lines() -> None:
    rows = table("file,label", '"a,b.jpg","cat; ""big"""', "", "c.jpg,dog")
    assert pairs(rows) == [("a,b.jpg", 'cat; "big"', ""), ("c.jpg", "dog", "")]
    assert [str(row) for row in rows] == ["t.csv, line 2", "t.csv, line 4"]


def test_the_more_telling_of_two_columns_is_taken() -> None:
    assert pairs(table("id,path,class", "1,x/a.jpg,cat")) == [("x/a.jpg", "cat", "")]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (
            ["file,colour", "a.jpg,red"],
            "no column of classes .its columns: 'file', 'colour'.: name one 'label'",
        ),
        (["photo,label", "a.jpg,red"], "t.csv has no column of files"),
        (["file,label,split", "a.jpg,cat,train", "b.jpg,cat,tast"], "t.csv, line 3: 'tast' is no split"),
        (["file,label"], "t.csv has no rows"),
        ([""], "t.csv has no rows"),
    ],
)
def test_a_table_that_cannot_be_understood_is_one_line(lines: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        table(*lines)
    assert str(caught.value).startswith("dataset.source.labels: ") and "\n" not in str(caught.value)


FILES = {
    "train.txt": b"x/a 1.jpg 0\n\nx/b.jpg 1\r\n",
    "test.txt": b"c.jpg 1\n",
    "classes.txt": "草莓\ntwo words\n".encode(),
    "names.txt": "a 1.jpg two words\nb.jpg\t草莓\n".encode(),
}


def test_annotation_files_are_read_as_mmcls_reads_them() -> None:
    spec = {"train": "train.txt", "test": "test.txt", "classes": "classes.txt"}
    assert pairs(read_labels(spec, FILES.__getitem__)) == [
        ("x/a 1.jpg", "草莓", "train"), ("x/b.jpg", "two words", "train"), ("c.jpg", "two words", "test"),
    ]  # fmt: skip
    named = read_labels({"train": "names.txt", "classes": "classes.txt"}, FILES.__getitem__)
    assert pairs(named) == [("a 1.jpg", "two words", "train"), ("b.jpg", "草莓", "train")]
    assert pairs(read_labels({"val": "test.txt"}, FILES.__getitem__)) == [("c.jpg", "1", "val")]
    assert pairs(read_labels("train.txt", FILES.__getitem__)) == [("x/a 1.jpg", "0", ""), ("x/b.jpg", "1", "")]


def test_numbers_are_places_in_the_list_of_classes_where_they_can_be() -> None:
    spec = {"train": "a.txt", "classes": "c.txt"}
    places = {"a.txt": b"x.jpg 0\ny.jpg 2\n", "c.txt": b"1\n2\n3\n"}
    assert [row.label for row in read_labels(spec, places.__getitem__)] == ["1", "3"]
    names = {"a.txt": b"x.jpg 1\ny.jpg 3\n", "c.txt": b"1\n2\n3\n"}
    assert [row.label for row in read_labels(spec, names.__getitem__)] == ["1", "3"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"a.txt": b"x.jpg 0\ny.jpg 2\n", "c.txt": b"cat\ndog\n"},
            "line 2: '2' is neither one of the 2 classes",
        ),
        ({"a.txt": b"x.jpg cat\ny.jpg dgo\n", "c.txt": b"cat\ndog\n"}, "line 2: 'dgo' .* the closest is 'dog'"),
        ({"a.txt": b"x.jpg 0\ny.jpg\n", "c.txt": b"cat\ndog\n"}, "a.txt, line 2: expected `path label`, not 'y.jpg'"),
        ({"a.txt": b"\n", "c.txt": b"cat\ndog\n"}, "a.txt is empty"),
        ({"a.txt": b"x.jpg 0\n", "c.txt": b"cat\ncat\n"}, "c.txt names 'cat' twice"),
    ],
)
def test_annotation_files_that_cannot_be_understood_are_one_line(files: Mapping[str, bytes], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read_labels({"train": "a.txt", "classes": "c.txt"}, files.__getitem__)
    assert "\n" not in str(caught.value)


# --- matching ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "image"),
    [
        ("a.jpg", "a.jpg"),
        ("a.jpg", "data/img/a.jpg"),
        ("img/a.jpg", "data/img/a.jpg"),
        ("data/img/a.jpg", "a.jpg"),
        ("/home/x/img/a.jpg", "img/a.jpg"),
        (r"C:\Users\x\img\a.jpg", "img/a.jpg"),
        ("./img//a.jpg", "img/a.jpg"),
        ("a", "img/a.jpg"),
        ("a.v2", "img/a.v2.jpg"),
        ("A.JPG", "a.jpg"),
        ("IMG/a.jpg", "img/A.jpg"),
        ("caf\u00e9.jpg", "cafe\u0301.jpg"),
        ("CAFE\u0301", "caf\u00e9.png"),
    ],
)
def test_a_row_finds_its_image(file: str, image: str) -> None:
    rows = labelled(f"{file},cat", "other.jpg,dog")
    assert (
        placed(rows, image, "other.jpg")[0] == f"cat/{image.rpartition('/')[2]}".replace("cat/", "cat/") or "/" in image
    )
    assert placed(rows, image, "other.jpg")[0].startswith("cat/")


def test_another_folder_is_another_image() -> None:
    rows = labelled("a/1.jpg,cat", "b/1.jpg,dog", "c/1.jpg,cow")
    assert placed(rows, "x/a/1.jpg", "x/b/1.jpg", "x/d/1.jpg") == ["cat/a/1.jpg", "dog/b/1.jpg", "[no row in t.csv]"]


def test_the_nearest_of_several_is_meant() -> None:
    assert placed(labelled("1.jpg,cat"), "set/1.jpg", "set/thumbs/1.jpg") == ["cat/1.jpg", "[no row in t.csv]"]
    decomposed = unicodedata.normalize("NFD", "é.jpg")
    rows = labelled("é.jpg,cat", f"{decomposed},dog")
    assert placed(rows, decomposed, "é.jpg") == [f"dog/{decomposed}", "cat/é.jpg"]
    rows = labelled("a.JPG,cat", "a.jpg,dog")
    assert placed(rows, "a.jpg", "a.JPG") == ["dog/a.jpg", "cat/a.JPG"]


def test_a_part_tells_images_of_one_name_apart() -> None:
    rows = table("file,label,split", "1.jpg,cat,train", "1.jpg,dog,test")
    assert placed(rows, "test/1.jpg", "train/1.jpg") == ["test/dog/1.jpg", "train/cat/1.jpg"]


@pytest.mark.parametrize(
    ("lines", "paths", "words"),
    [
        (["1.jpg,cat"], ["a/1.jpg", "b/1.jpg"], "t.csv, line 2: '1.jpg' may mean 'a/1.jpg' or 'b/1.jpg'"),
        (["1,cat"], ["1.jpg", "1.png"], "'1' may mean '1.jpg' or '1.png'"),
        (["1.jpg,cat", "1.jpg,dog"], ["1.jpg"], "'1.jpg' is 'cat' .t.csv, line 2. and 'dog' .t.csv, line 3."),
        (
            ["x.jpg,cat"],
            ["1.jpg", "2.jpg"],
            "none of 1 row .* one of 2 images .* 'x.jpg'; .*'1.jpg'",
        ),
    ],
)
def test_what_cannot_be_decided_is_one_line(lines: list[str], paths: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        placed(labelled(*lines), *paths)
    assert "\n" not in str(caught.value)


def test_rows_without_an_image_are_counted_and_named() -> None:
    rows = labelled("1.jpg,cat", "1.jpg,cat", *(f"gone{n}.jpg,dog" for n in range(7)))
    _, remarks = place_images(rows, [("1.jpg",)], "t.csv")
    assert remarks[0].startswith("7 of 9 rows of t.csv name no image: 'gone0.jpg' (t.csv, line 4), ")
    assert remarks[0].endswith("(t.csv, line 8) and 2 more") and "again" in remarks[1]


# --- where images go --------------------------------------------------------------------------------------------------


def test_folders_called_train_and_test_are_parts_where_the_table_names_none() -> None:
    rows = labelled("1.jpg,cat", "2.jpg,dog", "3.jpg,cat")
    assert placed(rows, "d/Train/1.jpg", "d/Train/2.jpg", "d/test/3.jpg") == [
        "train/cat/1.jpg", "train/dog/2.jpg", "test/cat/3.jpg",
    ]  # fmt: skip
    # Of a test folder without labels nothing is kept, and then train is no part.
    assert placed(rows[:2], "train/1.jpg", "train/2.jpg", "test/3.jpg") == [
        "cat/1.jpg",
        "dog/2.jpg",
        "[no row in t.csv]",
    ]


def test_images_outside_train_and_test_make_them_ordinary_folders() -> None:
    rows = labelled("1.jpg,cat", "2.jpg,dog", "3.jpg,cat")
    assert placed(rows, "1.jpg", "train/2.jpg", "test/3.jpg") == ["cat/1.jpg", "dog/train/2.jpg", "cat/test/3.jpg"]


def test_rows_without_a_class_or_a_part_leave_their_images_out() -> None:
    rows = table("file,label,split", "1.jpg,cat,train", "2.jpg,,train", "3.jpg,cat,")
    assert placed(rows, "1.jpg", "2.jpg", "3.jpg") == [
        "train/cat/1.jpg", "[no class in t.csv]", "[neither train, val nor test in t.csv]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("label", "folder"),
    [("a/b", "a%2Fb"), (".hidden", "%2Ehidden"), ("..", "%2E."), ("thumbs.db", "%74humbs.db"), ("草莓 1", "草莓 1")],
)
def test_any_label_becomes_one_folder_that_is_seen(label: str, folder: str) -> None:
    assert class_folder(label) == folder


def test_how_a_table_is_read_is_told_where_it_is_a_guess() -> None:
    remarks: list[str] = []
    read_table("t.csv", "file,label\n1.jpg,cat", remarks)
    assert remarks == []
    read_table("t.csv", "breed;image\ncat;1.jpg", remarks)
    assert remarks == ["t.csv: files are read from the column 'image', classes from 'breed'",
                       "t.csv: its columns are separated by ';'"]  # fmt: skip
    remarks.clear()
    read_table("t.csv", "sep=;\n1.jpg;cat", remarks)
    assert remarks == ["t.csv has no heading: files are read from its first column, classes from its second"]
    remarks.clear()
    files = {"a.txt": b"1.jpg 0\n2.jpg 1", "c.txt": b"cat\ndog"}
    read_labels({"train": "a.txt", "classes": "c.txt"}, files.__getitem__, remarks)
    assert remarks == ["labels are read as positions in c.txt: 0 is 'cat'"]
    _, remarks = place_images(table("file,label", "A,cat", "b.JPG,cat", "c.jpg,cat"),
                              [("a.png",), ("b.jpg",), ("c.jpg",)], "t.csv")  # fmt: skip
    _, more = place_images(table("file,label", "1.jpg,a/b", "2.jpg,c"), [("1.jpg",), ("2.jpg",)], "t.csv")
    assert more == ["names of t.csv that no folder can have, 1 in all: 'a/b' is 'a%2Fb'"]
    assert remarks == ["2 rows of t.csv with an image's name in other case or without its suffix: 'A' is 'a.png'"]


# --- unpacking --------------------------------------------------------------------------------------------------------


def write_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


FLAT = {"set/img/1.jpg": b"1", "set/img/2.jpg": b"2", "set/img/3.jpg": b"3"}


def test_a_flat_folder_with_a_table_in_the_archive(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    files = FLAT | {"set/labels.csv": "file,label\n1,草莓\n2,Dog\n9,dog\n".encode()}
    archive = write_zip(tmp_path / "a.zip", files)
    unpack_all([Origin(archive, labels="labels.csv")], tmp_path / "images", Limits())
    assert tree(tmp_path / "images") == {"草莓/1.jpg": b"1", "Dog/2.jpg": b"2"}
    assert "1 of 3 rows of labels.csv names no image: '9' (labels.csv, line 4)" in caplog.text
    assert "left out 1: no row in labels.csv, such as 'set/img/3.jpg'" in caplog.text


def test_classes_that_look_alike_are_said_when_they_are_unpacked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive = write_zip(tmp_path / "a.zip", {"cat/1.jpg": b"1", "Cat/2.jpg": b"2"})
    unpack_all([Origin(archive)], tmp_path / "images", Limits())
    assert tree(tmp_path / "images") == {"Cat/2.jpg": b"2", "cat/1.jpg": b"1"}
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.getMessage().endswith("are kept apart: 'Cat' and 'cat'")


def test_annotation_files_beside_the_archive(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", FLAT)
    kept = {}
    for name, text in (("train.txt", "img/1.jpg 0\nimg/2.jpg 1\n"), ("test.txt", "3.jpg 1\n"), ("c.txt", "cat\ndog\n")):
        kept[name] = str(tmp_path / f"kept_{name}")
        Path(kept[name]).write_text(text)
    labels = {"train": "train.txt", "test": "test.txt", "classes": "c.txt"}
    unpack_all([Origin(archive, labels=labels, kept=kept)], tmp_path / "images", Limits())
    assert list(tree(tmp_path / "images")) == ["test/dog/3.jpg", "train/cat/1.jpg", "train/dog/2.jpg"]


@pytest.mark.parametrize(
    ("extra", "labels", "words"),
    [
        ({"set/o.csv": b"x", "notes.TXT": b"x"}, "labels.csv", "'labels.csv' in .* are 'set/o.csv', 'notes.TXT'"),
        ({}, "labels.csv", "there is no table or text"),
        ({"a/l.csv": b"x", "b/l.csv": b"x"}, "l.csv", "'l.csv' may mean 'a/l.csv' and 'b/l.csv'"),
        ({"l.csv": b"file,label\nx,y"}, "l.csv", "none of 1 row"),
    ],
)  # fmt: skip
def test_labels_that_are_not_there_are_one_line(
    tmp_path: Path, extra: Mapping[str, bytes], labels: str, words: str
) -> None:
    archive = write_zip(tmp_path / "a.zip", FLAT | dict(extra))
    with pytest.raises(UserError, match=words):
        unpack_all([Origin(archive, labels=labels)], tmp_path / "images", Limits())
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_file_of_labels_of_that_very_name_is_preferred(tmp_path: Path) -> None:
    files = FLAT | {"l.csv": b"file,label\n1,cat\n2,dog", "old/l.csv": b"file,label\n1,cow\n2,cow"}
    archive = write_zip(tmp_path / "a.zip", files)
    unpack_all([Origin(archive, labels="l.csv")], tmp_path / "images", Limits())
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.jpg 0 0.5\nb.jpg 1 0.5\n", ["list.txt, line 1: 3 columns, where `path label` has two"]),
        ("file label split\nphotos/a.jpg cat train\n", ["line 2: 3 columns", "file,label,split"]),
        ("a.jpg 0 1 0 1\n", ["5 columns"]),
        ("a.jpg\tcat\ttrain\n", ["3 columns"]),
        ("b.jpg one\na.jpg two words\n", ["line 2: 3 columns", "a tab before a label of several words"]),
        ("1 photos/a.jpg\n", ["line 1: the path of the image comes last", "write it first"]),
    ],
)
@pytest.mark.parametrize("classes", [None, ["cat", "dog"]])
def test_a_list_of_other_columns_than_path_and_label_is_called_so(
    text: str, words: list[str], classes: list[str] | None
) -> None:
    with pytest.raises(UserError) as caught:
        read_annotations("list.txt", text, "train", classes)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("text", ["7 a.jpg cat\n", "a 1 1 1\n", "7 a cat\n"])
def test_rows_that_name_no_image_as_a_whole_but_by_a_word_have_too_many_columns(text: str) -> None:
    with pytest.raises(UserError, match="more columns than path and label"):
        place_images(read_annotations("list.txt", text, ""), [("a.jpg",), ("b.jpg",)], "list.txt")
