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
from hostile_files import TARS, Zipped, compress, member, tar_of, zip_of
from planted_images import encoded, photograph
from raw_zip import zip_of_raw_names

from scripts.data import audit_images
from scripts.lib.base.problems import UserError
from scripts.lib.data import encodings, file_kinds, image_formats
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
    ("{2023,2024}/{apple,pear}", {"test": "2024"}),
    ("{apple,pear}/{left,right} fig plum lime kiwi date", None),
    ("apple/{pear,plum} pear plum", None),
    ("apple/{train,test} pear/{old,new}", None),
]


def picture(format_name: str, mode: str = "RGB", **options: object) -> Callable[[int], bytes]:
    """Return what makes a file of a format, which shows another picture for each number."""
    return lambda number: encoded(photograph(number).convert(mode), format_name, **options)


#: Formats that are read, what makes a file of each, and suffixes, of which each is tried.
READ: list[tuple[str, Callable[[int], bytes], tuple[str, ...]]] = [
    ("JPEG", picture("JPEG"), image_formats.SUFFIXES["JPEG"]),
    ("JPEG with others behind it", picture("MPO", save_all=True, append_images=[photograph(99)]), (".mpo",)),
    ("PNG", picture("PNG"), image_formats.SUFFIXES["PNG"]),
    ("WebP", picture("WEBP"), image_formats.SUFFIXES["WEBP"]),
    ("BMP", picture("BMP"), image_formats.SUFFIXES["BMP"]),
    ("TIFF", picture("TIFF"), image_formats.SUFFIXES["TIFF"]),
    ("GIF", picture("GIF", "P"), image_formats.SUFFIXES["GIF"]),
    ("AVIF", picture("AVIF"), image_formats.SUFFIXES["AVIF"]),
    ("JPEG 2000", picture("JPEG2000"), (".jp2", ".jpf", ".jpx")),
    ("JPEG 2000, code stream", picture("JPEG2000", no_jp2=True), (".j2k", ".j2c", ".jpc")),
    ("PPM", picture("PPM"), (".ppm", ".pnm")),
    ("PGM", picture("PPM", "L"), (".pgm",)),
    ("PBM", picture("PPM", "1"), (".pbm",)),
    ("JPEG without a suffix", picture("JPEG"), ("",)),
    ("JPEG named as another", picture("JPEG"), (".png",)),
]
#: How files begin that hold pictures which nobody reads, and their suffixes.
UNREAD = {
    "HEIC": (".heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), "camera raw": (".cr2", b"II*\0\x10\0\0\0CR\2\0"),
    "JPEG XL": (".jxl", b"\xff\x0a"), "JPEG XR": (".jxr", b"II\xbc"), "Photoshop": (".psd", b"8BPS"),
    "GIMP": (".xcf", b"gimp xcf file"), "SVG": (".svg", b"<svg xmlns=''/>"), "PDF": (".pdf", b"%PDF-1.7"),
    "PostScript": (".eps", b"%!PS-Adobe"), "DICOM": (".dcm", bytes(128) + b"DICM"), "FITS": (".fits", b"SIMPLE  ="),
    "OpenEXR": (".exr", b"v/1\x01"), "Radiance": (".hdr", b"#?RADIANCE"), "DjVu": (".djvu", b"AT&TFORM"),
    "DDS": (".dds", b"DDS "), "icon": (".ico", b"\0\0\1\0\1\0"), "QOI": (".qoi", b"qoif"),
    "PCX": (".pcx", b"\n\5\1\x08"), "PAM": (".pam", b"P7\n"), "PFM": (".pfm", b"PF\n4 4\n"),
    "SGI": (".sgi", b"\x01\xda\0\1"),
    "MNG": (".mng", b"\x8aMNG\r\n\x1a\n"), "BPG": (".bpg", b"BPG\xfb"), "FLIF": (".flif", b"FLIF"),
    "Sun raster": (".ras", b"\x59\xa6\x6a\x95"), "Windows metafile": (".wmf", b"\xd7\xcd\xc6\x9a"),
    "XPM": (".xpm", b"/* XPM */"), "NRRD": (".nrrd", b"NRRD0005"), "NIfTI": (".nii", bytes(344) + b"n+1\0"),
    "video": (".avi", b"RIFF\0\0\0\0AVI "), "NumPy array": (".npy", b"\x93NUMPY"),
    "HDF5": (".h5", b"\x89HDF\r\n\x1a\n"), "MATLAB": (".mat", b"MATLAB 5.0"), "Parquet": (".parquet", b"PAR1"),
    "Arrow": (".arrow", b"ARROW1"), "SQLite": (".db", b"SQLite format 3\0"),
    "LMDB": (".mdb", bytes(16) + b"\xde\xc0\xef\xbe"), "Python pickle": (".pkl", b"\x80\4\x95"),
    "IDX (MNIST)": (".idx", b"\0\0\x08\3"), "gzip data": (".jpg.gz", b"\x1f\x8b\x08"), "Targa": (".tga", b"\0\0\2\0"),
    "PICT": (".pict", b"\0\0"), "TFRecord": (".tfrecord", b"\0\0"), "any other file": (".txt", b"a text"),
}  # fmt: skip


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
    """Return what becomes of a file of each format and suffix, unpacked and audited."""
    tried = {suffix for *_, suffixes in READ for suffix in suffixes}
    assert tried >= image_formats.IMAGE_SUFFIXES, "a suffix is missing in READ"
    assert UNREAD.keys() - {"any other file"} == {
        "HEIC",
        *image_formats._UNREAD,
        *image_formats._UNREAD_BY_NAME.values(),
    }
    files: dict[str, bytes] = {}
    names: dict[str, list[str]] = {}
    for number, (name, make, suffixes) in enumerate(READ):
        names[name] = [f"{number}_{index}{suffix}" for index, suffix in enumerate(suffixes)]
        files |= {file: make(len(files) + index) for index, file in enumerate(names[name])}
    other = Zipped(b"b/other.jpg", encoded(photograph(999)))
    zipped = zip_of(*(Zipped(f"a/{file}".encode(), content) for file, content in files.items()), other)
    (folder / "all.zip").write_bytes(zipped)
    assert unpack_all([Origin(folder / "all.zip")], folder / "images", Limits()).lines() == []
    words = f"--images {folder}/images --output {folder}/audit.csv --summary {folder}/audit.json --threads 1"
    audit_images.main(audit_images.build_parser().parse_args(words.split()))
    told: dict[str, str] = {}
    with open(folder / "audit.csv", encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            if row["finding"] not in ("blurred", "low_information"):  # as these pictures may be
                told[row["file"].removeprefix("a/")] = f"{row['action'].replace('_', ' ')}: {row['detail']}"
    rows = [["format", "suffixes", "what becomes of it"]]
    for name, _, suffixes in READ:
        becomes, *others = {told.get(file, "read") for file in names[name]}
        assert not others, (name, becomes, others)
        rows.append([name, " ".join(f"`{suffix}`" for suffix in suffixes if suffix), becomes])
    left_out: dict[str, list[str]] = {}
    for number, (name, (suffix, begin)) in enumerate(UNREAD.items()):
        archive = folder / f"{number}.zip"
        archive.write_bytes(zip_of(Zipped(f"a/1{suffix}".encode(), begin + bytes(99)), Zipped(b"a/1.jpg"), other))
        (line,) = unpack_all([Origin(archive)], folder / f"unread{number}", Limits()).lines()
        what, _, remedy = (
            line.removeprefix("left out 1: ").partition(", such as")[0].partition(", which mimflow does not read: ")
        )
        assert what == (name if remedy else "not an image")
        left_out.setdefault(f"left out: {remedy or what}", []).append(name)
    rows += [[", ".join(unread), "", becomes] for becomes, unread in left_out.items()]
    return rows


def archive_rows(folder: Path) -> list[list[str]]:
    """Return what becomes of a file of each kind, where an archive is wanted."""
    zipped = zip_of(Zipped(b"a/1.jpg"), Zipped(b"b/1.jpg"))
    tarred = tar_of(member(b"a/1.jpg"), member(b"b/1.jpg"))
    archives = {"zip": zipped, "tar": tarred} | {
        f"tar, compressed by {kind}": compress(tarred, kind) for kind in TARS[1:]
    }
    archives |= {"any of these, compressed again": compress(compress(tarred, "xz"), "gz")}
    rows = [["a file", "what becomes of it"]]
    for name, content in archives.items():
        (folder / "archive").write_bytes(content)
        unpack_all([Origin(folder / "archive")], folder / name, Limits())
        assert sorted(path.name for path in (folder / name).rglob("*.jpg")) == ["1.jpg", "1.jpg"]
        rows.append([name, "read"])
    refused: dict[str, list[str]] = {}
    for begin, (what, _) in file_kinds.KINDS.items():
        (folder / "archive").write_bytes(begin + bytes(600))
        with pytest.raises(UserError) as caught:
            unpack_all([Origin(folder / "archive")], folder / "refused", Limits())
        assert what in caught.value.what
        names = refused.setdefault(f"refused: {caught.value.remedy}", [])
        names += [] if what in names else [what]
    return rows + [["; ".join(names), becomes] for becomes, names in refused.items()]


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


@pytest.mark.parametrize("name", ["layouts", "formats", "archives", pytest.param("encodings", marks=pytest.mark.long)])
def test_the_tables_of_the_documentation_are_what_the_code_does(name: str, tmp_path: Path) -> None:
    rows = {
        "layouts": layout_rows,
        "formats": lambda: format_rows(tmp_path),
        "archives": lambda: archive_rows(tmp_path),
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
