"""The table of picture formats in docs/your-data.md is what every reader does with real files, compared by pixels.

A file is added to tests/helpers/picture_formats.py, its row to ROWS. To write the table anew:
MIMFLOW_TABLES=write make test ARGS='tests/unit/lib/data/test_documented_pictures.py -m long'
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import picture_formats
import pytest
from decoding_environments import LOCKS, hashes_by, hashes_of_program, python_of

from scripts.lib.data.decoding import decode_image
from scripts.lib.data.image_checks import Status, check_image
from scripts.lib.data.pixel_cache import PixelCache
from scripts.lib.data.pixel_cache_writer import write_pixel_cache
from scripts.lib.model.config_patches import load_step
from scripts.lib.model.photos import Photo, Photos
from scripts.lib.pages.thumbnails import thumbnail
from scripts.lib.runs.onnx_example import example
from scripts.lib.runs.onnx_model import BGR, INSIDE, Preprocessing

DOCUMENT = Path(__file__).resolve().parents[4] / "docs" / "your-data.md"
BEGIN, END = "<!-- pictures: written by test_documented_pictures.py -->\n", "<!-- end -->"
READ = picture_formats.lossless() | picture_formats.others()
READ |= {f"transparent {name}": content for name, (content, _, _) in picture_formats.transparent().items()}
#: What a row says, and the files that it stands for, as a regular expression of their names.
ROWS = {
    "JPEG: baseline, progressive, any sampling, RGB": r"jpeg( progressive| 4:\d:\d| rgb)?",
    "JPEG, grey": "jpeg grey", "JPEG, CMYK": "jpeg cmyk", "JPEG, turned by EXIF (8 ways)": r"jpeg turned \d",
    "PNG, 8 bits: RGB, grey, interlaced": "png( grey| interlaced)?", "PNG, 1 bit": "png 1",
    "PNG, palette": "png palette",
    "PNG, 16 bits: RGB, grey": "png( grey)? 16", "PNG, animated: the first frame": "png animated",
    "PNG, turned by EXIF": r"png turned \d",
    "PNG with alpha: RGB, grey, palette, one colour": (
        "transparent png( grey| palette| palette shares| colour| level| turned)?"
    ),
    "PNG, 16 bits, with alpha or one colour": "transparent png 16( colour| level)?",
    "GIF: RGB, grey": "gif( grey)?", "GIF, animated: the first frame": "gif animated",
    "GIF, transparent": "transparent gif",
    "WebP, lossless": "webp", "WebP, lossy": "webp lossy", "WebP, animated: the first frame": "webp animated",
    "WebP, turned by EXIF": r"webp turned \d", "WebP with alpha": "transparent webp|webp alpha",
    "AVIF": "avif( 4:4:4)?", "AVIF, turned by EXIF": r"avif turned \d", "AVIF with alpha": "avif alpha",
    "TIFF, 8 bits: plain, LZW, grey, palette": "tiff( lzw| grey| palette)?", "TIFF, 1 bit: plain, fax": "tiff (1|fax)",
    "TIFF, JPEG inside": "tiff jpeg", "TIFF, CMYK": "tiff cmyk", "TIFF, 12 bits": "tiff 12",
    "TIFF, 16 bits: RGB, grey": "tiff( grey)? 16", "TIFF, turned by EXIF": r"tiff turned \d",
    "TIFF with alpha: RGB, grey, 16 bits": "transparent tiff( grey| 16)?",
    "BMP: RGB, palette, 1 bit": "bmp( palette| 1)?",
    "JPEG 2000: jp2, code stream": "jp2|j2k", "JPEG 2000, lossy": "jp2 lossy",
    "JPEG 2000, 16 bits: RGB, grey": "jp2( grey)? 16", "JPEG 2000 with alpha: 8, 16 bits": "transparent jp2( 16)?",
    "PPM, PGM, PBM": "ppm|pgm|pbm|pgm 4", "PPM, PGM, 12 and 16 bits": "ppm 16|pgm 1[26]",
}  # fmt: skip
#: Files that nobody reads; their row is what the audit says of them.
REFUSED = {
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    "TIFF, floating point": picture_formats.tiff(1, 32, 3), "TIFF, 13 bands": picture_formats.tiff(13, 8),
    "TIFF, 32-bit integers": picture_formats.tiff(1, 32), "TIFF, 16-bit CMYK": picture_formats.tiff(4, 16, colours=5),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg">', "DICOM": bytes(128) + b"DICM\2",
}  # fmt: skip


def by_training(path: Path) -> np.ndarray:
    """Return the pixels that training from files sees, blue first."""
    from mmcls.datasets.builder import PIPELINES

    import scripts.mmcls_plugins  # noqa: F401

    load = PIPELINES.build(load_step())
    return load({"img_prefix": str(path.parent), "img_info": {"filename": path.name}})["img"]


def by_pixel_cache(path: Path) -> np.ndarray:
    """Return the pixels that a cache holds which was written at the picture's own size."""
    folder = path.with_name(f"{path.name}.cache")
    short_side = min(decode_image(path.read_bytes()).shape[:2])
    write_pixel_cache(path.parent, [path.name], short_side, folder, raw_limit=1 << 30, threads=1)
    return PixelCache(folder).image(path.name)


def by_predict(path: Path) -> np.ndarray:
    """Return the pixels that `make predict` and Grad-CAM see."""
    return Photos([Photo(path, path.name)], [load_step()])[0]["img"]


def by_onnx(path: Path) -> np.ndarray:
    """Return the pixels that `make predict` with model.onnx sees."""
    return Preprocessing([], [0.0] * 3, [1.0] * 3, BGR, INSIDE).prepare(path.read_bytes())


def example_program() -> str:
    """Return the lines with which the program beside model.onnx reads a picture, without those of the model."""
    lines = example(Preprocessing([], [0.0] * 3, [1.0] * 3, BGR, INSIDE)).splitlines()
    kept = [line for line in lines if not re.match("import onnxruntime|session|about|names", line)]
    return "\n".join(kept[: 1 + next(i for i, line in enumerate(kept) if line.startswith("pixels = "))])


def by_example(path: Path) -> np.ndarray:
    """Return the pixels that the program beside model.onnx sees."""
    program, known = example_program(), dict[str, Any]()
    argv, sys.argv = sys.argv, ["onnx_example.py", "model.onnx", str(path)]
    try:
        exec(program, known)
    finally:
        sys.argv = argv
    return known["pixels"]


def by_audit(path: Path) -> np.ndarray:
    """Return the pixels that the pages of audit and report show of a picture that the audit finds readable."""
    checked = check_image(path.read_bytes())
    assert checked.status is Status.READABLE, checked.detail
    return np.asarray(thumbnail(path, 100))[..., ::-1]


READERS: dict[str, Callable[[Path], np.ndarray]] = {
    "training": by_training, "pixel cache, `fit_head`": by_pixel_cache, "`make predict`, Grad-CAM": by_predict,
    "`model.onnx`": by_onnx, "audit, pages": by_audit, "`onnx_example.py`": by_example,
}  # fmt: skip
#: Files of 12 bits, of which a page shows the bits that are used.
FEW_BITS = ("tiff 12", "pgm 12")


def difference(reader: Callable[[Path], np.ndarray], path: Path) -> str:
    """Return how far what a reader sees is from what the model was trained on: same, or the largest difference."""
    expected = decode_image(path.read_bytes())
    try:
        seen = reader(path)
    except Exception as error:  # of Pillow alone, which the example uses: many
        return "not read" if reader is by_example else f"fails: {error}"
    if seen.shape != expected.shape:
        return "differs"
    largest = int(np.abs(seen.astype(int) - expected.astype(int)).max())
    return "same" if largest == 0 else f"within {largest}" if largest <= 8 else "differs"


def worst(cells: set[str]) -> str:
    """Return one cell for several files: the worst of them."""
    return max(cells, key=lambda cell: (cell != "same", not cell.startswith("within"), cell))


def files_of(pattern: str) -> list[str]:
    return [name for name in READ if re.fullmatch(pattern, name)]


def reader_cells(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each row's name and the cell of each reader."""
    for number, (label, pattern) in enumerate(ROWS.items()):
        paths = []
        for index, name in enumerate(files_of(pattern)):
            paths.append(folder / f"{number} {index}")
            paths[-1].write_bytes(READ[name])
        few_bits = set(files_of(pattern)) & set(FEW_BITS)
        cells = []
        for reader in READERS.values():
            cell = worst({difference(reader, path) for path in paths})
            cells.append("the bits in use" if few_bits and reader is by_audit and cell == "differs" else cell)
        yield label, cells


def refused_cells() -> Iterator[tuple[str, str]]:
    """Yield the name of each file that nobody reads, and what the audit says of it."""
    for label, content in REFUSED.items():
        checked = check_image(content)
        assert checked.status in (Status.UNREADABLE, Status.TRUNCATED), label
        yield label, checked.detail


def documented() -> tuple[str, list[list[str]], str]:
    """Return what is above the table, its rows, and what is below."""
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    table, _, after = rest.partition(END)
    assert after, f"{DOCUMENT} has no line {BEGIN}"
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in table.splitlines()]
    return before + BEGIN, rows, END + after


def environment_cells(folder: Path) -> dict[str, dict[str, str]]:
    """Return for each environment the cell of each row: whether its decoders give the pixels of this one."""
    files = folder / "files"
    files.mkdir()
    for name, content in READ.items():
        (files / name).write_bytes(content)
    here = {name: hashlib.sha256(decode_image(content).tobytes()).hexdigest() for name, content in READ.items()}
    cells = {}
    example_here = hashes_of_program(sys.executable, example_program(), files)
    assert any(example_here.values())
    for lock in LOCKS:
        python = python_of(lock, folder / lock)
        assert hashes_of_program(python, example_program(), files) == example_here, f"{lock}: the example"
        there = hashes_by(python, files)
        cells[lock] = {
            label: "same" if all(there[f"{name} False"] == here[name] for name in files_of(pattern)) else "differs"
            for label, pattern in ROWS.items()
        }
    return cells


def test_every_file_has_one_row() -> None:
    for name in READ:
        assert sum(bool(re.fullmatch(pattern, name)) for pattern in ROWS.values()) == 1, name
    assert all(files_of(pattern) for pattern in ROWS.values())


def test_readers_see_what_the_table_says(tmp_path: Path) -> None:
    head, _, *rows = documented()[1]
    readers = len(READERS)
    assert head[1 : 1 + readers] == list(READERS)
    expected = [[label, *cells] for label, cells in reader_cells(tmp_path)]
    told = [row[: 1 + readers] for row in rows[: len(expected)]]
    assert told == expected, "MIMFLOW_TABLES=write and -m long write the table anew"
    of_mimflow = [row[1:readers] for row in expected]
    allowed = {"same", "the bits in use"}
    assert {cell for row in of_mimflow for cell in row} <= allowed, "mimflow's own readers agree pixel by pixel"
    assert [(row[0], row[1]) for row in rows[len(expected) :]] == list(refused_cells())


@pytest.mark.long
def test_environments_read_what_the_table_says(tmp_path: Path) -> None:
    before, rows, after = documented()
    of_environments = environment_cells(tmp_path)
    if os.environ.get("MIMFLOW_TABLES") == "write":
        (tmp_path / "rows").mkdir()
        table = [["picture", *READERS, *LOCKS], ["---"] * (1 + len(READERS) + len(LOCKS))]
        for label, cells in reader_cells(tmp_path / "rows"):
            table.append([label, *cells, *(of_environments[lock][label] for lock in LOCKS)])
        empty = [""] * (len(READERS) + len(LOCKS) - 1)
        table += [[label, detail, *empty] for label, detail in refused_cells()]
        text = "".join(f"| {' | '.join(row)} |\n".replace("|  |", "| |").replace("|  |", "| |") for row in table)
        DOCUMENT.write_text(before + text + after, encoding="utf-8")
        return
    assert rows[0][-len(LOCKS) :] == list(LOCKS)
    for row in rows[2 : 2 + len(ROWS)]:
        assert row[-len(LOCKS) :] == [of_environments[lock][row[0]] for lock in LOCKS], row[0]
    assert {cell for cells in of_environments.values() for cell in cells.values()} == {"same"}
