"""Files of labels are read however they were saved, or it is said what they are."""

from __future__ import annotations

import io
import json
import zipfile

import pytest

from scripts.lib.base.problems import UserError
from scripts.lib.data.label_files import Row, read_labels


def rows_of(content: bytes, name: str = "t.csv", remarks: list[str] | None = None, encoding: str | None = None) -> list:
    rows: list[Row] = read_labels(name, {name: content}.__getitem__, remarks, encoding)
    return [(row.file, row.label) for row in rows]


def refused(content: bytes, name: str = "t.csv") -> str:
    with pytest.raises(UserError) as caught:
        rows_of(content, name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


TABLES = {
    "cp1252": ("file;label\n1.jpg;Müller\n2.jpg;Größe\n", "cp1252"),
    "cp1251": ("file,label\n1.jpg,яблоко\n2.jpg,груша\n", "cp1251"),
    "cp932": ("file,label\n1.jpg,りんご\n2.jpg,柴犬\n", "cp932"),
    "cp949": ("file,label\n1.jpg,사과\n2.jpg,강아지\n", "cp949"),
    "gb18030": ("文件名,标签\n1.jpg,苹果\n2.jpg,香蕉\n", "gb18030"),
}


@pytest.mark.parametrize("encoding", TABLES)
def test_tables_in_other_encodings_have_their_labels_and_say_so(encoding: str) -> None:
    text, codec = TABLES[encoding]
    remarks: list[str] = []
    labels = [line.replace(";", ",").split(",")[1] for line in text.splitlines()[1:]]
    assert [label for _, label in rows_of(text.encode(codec), remarks=remarks)] == labels
    assert remarks[0].startswith(f"cells of t.csv are read as {codec}, such as ")
    assert [label for _, label in rows_of(text.encode(codec), encoding=codec)] == labels


def test_lists_and_names_of_classes_in_other_encodings_are_read() -> None:
    files = {
        "train.txt": "Größe/a.jpg 0\nb.jpg 1\n".encode("cp1252"),
        "classes.txt": "яблоко\nгруша\n".encode("cp1251"),
    }
    rows = read_labels({"train": "train.txt", "classes": "classes.txt"}, files.__getitem__)
    assert [(row.file, row.label) for row in rows] == [("Größe/a.jpg", "яблоко"), ("b.jpg", "груша")]


EXPECTED = [("a.jpg", "cat"), ("b.jpg", "dog")]


@pytest.mark.parametrize(
    "content",
    [
        "sep=;\nfile;label\na.jpg;cat\nb.jpg;dog\n".encode("utf-8-sig"),
        b'"sep=,"\r\nfile,label\r\na.jpg,cat\r\nb.jpg,dog\r\n',
        b"SEP=|\nfile|label\na.jpg|cat\nb.jpg|dog\n",
        b"file|label\na.jpg|cat\nb.jpg|dog\n",
        "sep=\t\nfile\tlabel\na.jpg\tcat\nb.jpg\tdog\n".encode("utf-16"),
        "file\tlabel\na.jpg\tcat\nb.jpg\tdog\n".encode("utf-16-le"),
        "file\tlabel\na.jpg\tcat\nb.jpg\tdog\n".encode("utf-16-be"),
        b'"file","label"\n"a.jpg","cat"\n"b.jpg","dog"\n',
    ],
)
def test_tables_of_excel_are_read(content: bytes) -> None:
    assert rows_of(content) == EXPECTED


@pytest.mark.parametrize(
    "value",
    [
        [{"file": "a.jpg", "label": "cat", "width": 5}, {"label": "dog", "file": "b.jpg"}],
        {"a.jpg": "cat", "b.jpg": "dog"},
        {"cat": ["a.jpg"], "dog": ["b.jpg"]},
        {"file": ["a.jpg", "b.jpg"], "label": ["cat", "dog"]},
        [["a.jpg", "cat"], ["b.jpg", "dog"]],
        {"a.jpg": ["cat"], "b.jpg": ["dog"]},
    ],
)
def test_tables_in_json_are_read_and_it_is_said(value: object) -> None:
    remarks: list[str] = []
    assert rows_of(json.dumps(value).encode(), "t.json", remarks) == EXPECTED
    assert remarks[0].startswith("t.json is JSON, read as a table of the columns ")


def test_lines_of_json_are_read() -> None:
    lines = '{"image": "a.jpg", "label": "cat"}\n\n{"image": "b.jpg", "label": "dog"}\n'
    assert rows_of(lines.encode(), "t.jsonl") == EXPECTED
    rows = read_labels(
        {"val": "v.txt", "classes": "c.json"}, {"v.txt": b"a.jpg 1", "c.json": b'["x", "y"]'}.__getitem__
    )
    assert [row.label for row in rows] == ["y"]


def xlsx() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as workbook:
        workbook.writestr("[Content_Types].xml", "")
        workbook.writestr("xl/workbook.xml", "")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (xlsx(), "is an Office document"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an old document of Office"),
        (b"PAR1\x15\x00\x15", "is a Parquet table"),
        (b"SQLite format 3\0", "is an SQLite database"),
        (b"\x1f\x8b\x08\x00", "is a gz archive"),
        (b"<!DOCTYPE html>", "is a web page"),
        (b'<?xml version="1.0"?><annotation><filename>1.jpg</filename></annotation>', "is an XML file"),
        (b"MATLAB 5.0 MAT-file, Platform: GLNXA64" + bytes(90) + b"\1IM", "is a MATLAB file"),
        (b"file,label\n" + bytes(4) + b"a.jpg,cat\n", "is no text in any encoding"),
        (b"x" * 500 + b",y\n1,2\n", f"its columns: '{'x' * 60}', 'y'"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
            "not the file itself: fetch it with git lfs pull",
        ),
        (b"/annex/objects/SHA256E-s9--1.csv\n", "not the file itself: fetch it with git annex get"),
        (b"<html>log in</html>", "give the address of the file itself"),
        (b"\0\0\0\x20ftypisom" + bytes(99), "is video: save it as CSV"),
        (bytes(128) + b"DICM" + bytes(99), "is DICOM: save it as CSV"),
        (b"II*\0\x08\0\0\0" + bytes(99), "is TIFF: save it as CSV"),
        (b"\x89PNG\r\n\x1a\n", "is a PNG image"),
        (b"\xff\xa0\xff\xa0\x00\x00", "is no text in any encoding that mimflow knows"),
        (b"a.jpg,cat,x,5\nb.jpg,dog,x,5\n", "has no heading: its first line is a row ('a.jpg', 'cat', 'x', '5')"),
        (b"0,a.jpg,cat\n1,b.jpg,dog\n", "has no heading"),
        (
            b'file,label\n"a.jpg,cat\nb.jpg,dog\n',
            "line 3: no valid CSV (a name goes over several lines): look for a quote",
        ),
        (b'file,label,note\na.jpg,cat,"big\nb.jpg,dog,\n', "no valid CSV (a cell goes on to the end of the file)"),
        (
            b'{"images": [{"id": 1}], "annotations": [{"image_id": 1}]}',
            "no table of files and classes (its keys: 'images'",
        ),
        (b'{"a.jpg": "cat", "a.jpg": "dog"}', "'a.jpg' stands there twice"),
        (b"file,label,label\na.jpg,cat,1\n", "has two columns 'label': rename the one not meant"),
        (b"path,Path,class\na.jpg,b.jpg,cat\n", "has two columns 'path'"),
        (b"file,label\na.jpg,cat\n1,b.jpg,dog\n", "line 3: no valid CSV (3 cells, where the first line has 2): look"),
        (b"a.jpg,cat\nb.jpg,dog,train\n", "line 2: no valid CSV (3 cells, where the first line has 2)"),
        (b"file;label\na.jpg;cat;big\n", "line 2: no valid CSV (3 cells"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_table_is_said(content: bytes, what: str) -> None:
    message = refused(content)
    assert what in message and message.startswith("dataset.source.labels: t.csv")
