"""The tables of docs/your-data.md are what the code does with real files.

A row is added to one of the lists below. To write the tables anew:
MIMFLOW_TABLES=write make test ARGS=tests/unit/lib/data/test_documented_tables.py
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from class_names import CASES, written
from folder_trees import images
from hostile_files import Zipped, zip_of
from planted_images import encoded, photograph
from raw_zip import zip_of_raw_names

from scripts.data import audit_images
from scripts.lib.base.problems import UserError
from scripts.lib.data import encodings
from scripts.lib.data.archive_entries import Limits
from scripts.lib.data.image_paths import Components
from scripts.lib.data.label_files import read_labels
from scripts.lib.data.layouts import Folders, find_layout
from scripts.lib.data.unpacking import Origin, unpack_all

DOCUMENT = Path(__file__).resolve().parents[4] / "docs" / "your-data.md"

#: Folders as tests/helpers/folder_trees.py has them, and what `folders` says of them.
LAYOUTS: list[tuple[str, Folders | None]] = [
    ("{apple,pear}", None),
    ("fruit/data/{apple,pear}", None),
    ("apple pear/{small,large}", None),
    ("{train,val,test}/{apple,pear}", None),
    ("fruit/{train,val}/{apple,pear}", None),
    ("{train,test}/{apple,pear} docs", None),
    ("{apple,pear}/{train,test}", None),
    ("{training_set,test_set}/{apple,pear}", None),
    ("{Training+Data,Validation+Data}/{apple,pear}", None),
    ("{seg_train/seg_train,seg_test/seg_test}/{apple,pear} seg_pred", None),
    ("{训练集,验证集,测试集}/{苹果,梨}", None),
    ("{entrenamiento,prueba}/{manzana,pera}", None),
    ("train/{apple,pear} test", None),
    ("car ship train", None),
    ("{color,grayscale}/{apple,pear}", None),
    ("{color,grayscale}/{apple,pear}", {"train": "color"}),
    ("{color,grayscale}/{apple,pear}", "inner"),
    ("fold{1,2,3}/{apple,pear}", None),
    ("fold{1,2,3}/{apple,pear}", {"train": ["fold1", "fold2"], "test": "fold3"}),
    ("{cat,dog}/{left,right}", None),
    ("{cat,dog}/{left,right}", "outer"),
    ("apple pear test/{apple,pear}", None),
    ("apple pear test/{apple,pear}", {"test": "test"}),
    ("{apple,pear}_{train,test}", None),
]


def pnm(number: int, mode: str) -> bytes:
    return encoded(photograph(number).convert(mode), "PPM")


#: A format, the name of a file of it, and its content, which shows another picture for each number.
FORMATS: list[tuple[str, str, Callable[[int], bytes]]] = [
    ("JPEG", "1.jpg", lambda n: encoded(photograph(n))),
    ("JPEG", "1.jpeg", lambda n: encoded(photograph(n))),
    ("PNG", "1.png", lambda n: encoded(photograph(n), "PNG")),
    ("WebP", "1.webp", lambda n: encoded(photograph(n), "WEBP")),
    ("BMP", "1.bmp", lambda n: encoded(photograph(n), "BMP")),
    ("TIFF", "1.tif", lambda n: encoded(photograph(n), "TIFF")),
    ("GIF", "1.gif", lambda n: encoded(photograph(n).convert("P"), "GIF")),
    ("PPM", "1.ppm", lambda n: pnm(n, "RGB")),
    ("PGM", "1.pgm", lambda n: pnm(n, "L")),
    ("JPEG", "1.jfif", lambda n: encoded(photograph(n))),
    ("JPEG", "1.jpe", lambda n: encoded(photograph(n))),
    ("AVIF", "1.avif", lambda n: encoded(photograph(n), "AVIF")),
    ("JPEG 2000", "1.jp2", lambda n: encoded(photograph(n), "JPEG2000")),
    ("JPEG without a suffix", "1", lambda n: encoded(photograph(n))),
    ("JPEG named as PNG", "1.png", lambda n: encoded(photograph(n))),
    ("HEIC", "1.heic", lambda n: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
    ("a text", "1.txt", lambda n: b"a text"),
]


def describe_layout(paths: list[Components], folders: Folders | None) -> str:
    """Return what *paths* are read as, in a few words."""
    try:
        layout = find_layout(paths, folders)
    except UserError as error:
        return f"refused: {error.what.removeprefix('dataset.source: ')}"
    classes: dict[str, list[str]] = {}
    left_out = []
    for path, to in zip(paths, layout.targets, strict=True):
        if isinstance(to, str):
            left_out.append("/".join(path[:-1]))
        else:
            names = classes.setdefault(to[0] if layout.has_splits else "classes", [])
            names += [to[int(layout.has_splits)]] if to[int(layout.has_splits)] not in names else []
    lists = {
        names: ", ".join(split for split in classes if classes[split] == list(names))
        for names in map(tuple, classes.values())
    }
    text = "; ".join(
        f"{splits} {'of ' if layout.has_splits else ''}{', '.join(names)}" for names, splits in lists.items()
    )
    return text + (f"; left out: {', '.join(left_out)}" if left_out else "")


def layout_rows() -> list[list[str]]:
    rows = [["in the archive", "`folders`", "read as"]]
    for text, folders in LAYOUTS:
        shown = ", ".join(f"`{word}/`".replace("+", " ") for word in text.split())
        setting = "" if folders is None else f"`{json.dumps(folders).replace(chr(34), '')}`"
        rows.append([shown, setting, describe_layout(images(text), folders)])
    return rows


def format_rows(folder: Path) -> list[list[str]]:
    """Return what becomes of a file of each format, unpacked and audited."""
    rows = [["format", "for example", "what becomes of it"]]
    files = {f"{number}{file.removeprefix('1')}": content(number) for number, (_, file, content) in enumerate(FORMATS)}
    other = Zipped(b"b/other.jpg", encoded(photograph(len(FORMATS))))
    left_out = {}
    for name, data in files.items():
        (folder / f"{name}.zip").write_bytes(zip_of(Zipped(f"a/{name}".encode(), data), other))
        left_out[name] = unpack_all([Origin(folder / f"{name}.zip")], folder / name, Limits()).lines()
    (folder / "all.zip").write_bytes(
        zip_of(*(Zipped(f"a/{name}".encode(), data) for name, data in files.items()), other)
    )
    unpack_all([Origin(folder / "all.zip")], folder / "images", Limits())
    words = f"--images {folder}/images --output {folder}/audit.csv --summary {folder}/audit.json --threads 1"
    audit_images.main(audit_images.build_parser().parse_args(words.split()))
    by_file: dict[str, list[str]] = {name: [] for name in files}
    with open(folder / "audit.csv", encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            by_file[row["file"].removeprefix("a/")].append(f"{row['action'].replace('_', ' ')}: {row['detail']}")
    for (name, file, _), (key, lines) in zip(FORMATS, by_file.items(), strict=True):
        lines += [line.split(", such as")[0].replace(" 1:", ":") for line in left_out[key]]
        rows.append([name, f"`{file}`", "; ".join(lines) or "read"])
    return rows


def encoding_rows(folder: Path) -> list[list[str]]:
    """Return how names of each encoding are read, in a zip that does not say it, in a table, and where they are few."""
    rows = [["encoding", "languages", "two dozen names in a zip", "in a table", "three names"]]
    rows += [["UTF-8", "all", "right", "right", "right"], ["UTF-16", "all", "", "right", ""]]
    for encoding in dict.fromkeys((*encodings.ENCODINGS, *encodings.OEM_ENCODINGS)):
        languages = [language for language, name in CASES if name == encoding]
        assert languages, f"no name is tried in {encoding}"
        names = written(languages[0], encoding)
        archive = zip_of_raw_names(
            folder / f"{encoding}.zip",
            {f"{name}/1.jpg".encode(encoding): b"x" for name in names},
            system=0 if encoding in (*encodings.OEM_ENCODINGS, *encodings.SEVERAL_BYTES) else 3,
        )
        left_out = unpack_all([Origin(archive)], folder / encoding, Limits())
        table = "".join(["file,label\n", *(f"{number}.jpg,{name}\n" for number, name in enumerate(names))])
        remarks: list[str] = []
        labels = [
            row.label for row in read_labels("t.csv", lambda _, text=table, how=encoding: text.encode(how), remarks)
        ]  # type: ignore[misc]
        in_zip = [path.name for path in (folder / encoding).iterdir()]
        cells = [describe_reading(sorted(in_zip) == sorted(names), left_out.remarks)]
        cells.append("" if encoding in encodings.OEM_ENCODINGS else describe_reading(labels == names, remarks))
        rows.append([f"`{encoding}`", ", ".join(languages), *cells, describe_few(languages, encoding)])
    return rows


def describe_reading(is_right: bool, remarks: list[str]) -> str:
    is_ambiguous = any("ambiguous" in remark for remark in remarks)
    assert is_right or is_ambiguous, remarks
    return ("right" if is_right else "not right") + (", but ambiguous" if is_ambiguous else "")


def describe_few(languages: list[str], encoding: str) -> str:
    """Return how many of eight lists of three names in each language are read right."""
    right = ambiguous = 0
    for language in languages:
        names = [name for name in written(language, encoding) if not name.isascii()]
        for number in range(8):
            few = [names[(number + step) % len(names)] for step in (0, 3, 5)]
            raw = [name.encode(encoding) for name in few]
            encoded = encodings.find_encoding(raw, oem=encoding in encodings.OEM_ENCODINGS)
            right += [encoded.decode(name) for name in raw] == few
            ambiguous += bool(encoded.rival)
    return f"{right} of {8 * len(languages)} right, {ambiguous} ambiguous"


def markdown(rows: list[list[str]]) -> str:
    """Return a table of Markdown."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [cells[0], ["---"] * len(cells[0]), *cells[1:]]
    return "".join(f"| {' | '.join(line)} |\n".replace("|  |", "| |") for line in lines)


@pytest.mark.parametrize("name", ["layouts", "formats", pytest.param("encodings", marks=pytest.mark.long)])
def test_the_tables_of_the_documentation_are_what_the_code_does(name: str, tmp_path: Path) -> None:
    rows = {
        "layouts": layout_rows,
        "formats": lambda: format_rows(tmp_path),
        "encodings": lambda: encoding_rows(tmp_path),
    }
    text = DOCUMENT.read_text(encoding="utf-8")
    begin, end = f"<!-- {name}: written by test_documented_tables.py -->\n", "<!-- end -->"
    before, _, rest = text.partition(begin)
    assert rest, f"{DOCUMENT} has no line {begin}"
    documented, _, after = rest.partition(end)
    made = markdown(rows[name]())
    if os.environ.get("MIMFLOW_TABLES") == "write":
        DOCUMENT.write_text(before + begin + made + end + after, encoding="utf-8")
    else:
        assert documented == made, "MIMFLOW_TABLES=write writes the table anew"
