"""Trees of folders nobody thought of: every file is taken, set aside or left out, and no split becomes a class.

By hand, longer: FUZZ_EXAMPLES=100000 python -m pytest -m long tests/unit/lib/data/test_fuzz_layouts.py
"""

from __future__ import annotations

import gzip
import os
import random
import stat
import tempfile
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest
from hostile_files import Zipped, zip_of
from hypothesis import HealthCheck, given, note, seed, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from planted_images import encoded

from scripts.lib.base.console import one_line
from scripts.lib.base.problems import UserError
from scripts.lib.data.archive_entries import Limits
from scripts.lib.data.audit_findings import find_all, summarise
from scripts.lib.data.auditing import AuditCache, check_all
from scripts.lib.data.encodings import Encoding, find_encoding
from scripts.lib.data.findings import SET_ASIDE
from scripts.lib.data.folders import list_folder, pack_folder, walk_files
from scripts.lib.data.image_checks import Status
from scripts.lib.data.image_paths import is_junk, safe_component
from scripts.lib.data.layouts import find_layout
from scripts.lib.data.split_words import ALSO_CLASSES, WORDS
from scripts.lib.data.splits import Image, find_images
from scripts.lib.data.unpacking import Origin, unpack_all

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "10000"))
#: Trees whose images one audit judges.
AT_ONCE = 500
CLASSES = ("cat", "dog", "草莓", "two words", "Müller", "1", "2", "left", "right", "d'or", "犬", "собака", "x.jpg")
FILLERS = ("{}", "{}", "{}_set", "{} Data", "seg_{}", "{}2017", "{}集", "my-{}-images", "1_{}")
UNKNOWN = ("alpha", "beta", "color", "grayscale", "fold1", "fold2", "第一", "second part", "c'", "1", "2")
#: What says nothing in the name of a split, so that each may have its own.
SAYS_NOTHING = ("{}", "{}_set", "{} Data", "{}集", "{} images")
SUFFIXES = (".jpg", ".jpg", ".JPG", ".png", ".jpeg", ".jfif", ".heic", ".txt", "", ".webp", ".jpg.txt", ".zip", ".tif")
JUNK = (
    "__MACOSX/._1.jpg",
    ".hidden/1.jpg",
    "Thumbs.db",
    ".DS_Store",
    "notes.txt",
    "cover.jpg",
    "labels.csv",
    "docs/fig.png",
    "more.zip",
    "inner/photos.tar.gz",
    "README",
)
#: Where files cost least.
IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
SEEDS = st.integers(0, 2**32)
ENCODINGS = (
    "utf-8", "utf-8", "gb18030", "cp437", "cp1251", "shift_jis", "cp866", "cp1252", "cp949", "cp950", "cp1253",
    "koi8_r", "cp1250", "iso8859-2", "mac_roman", "cp1255", "iso8859-5",
)  # fmt: skip
#: What stands in a folder besides files: how it is left out; "" is a folder elsewhere with a picture, which is taken.
SPECIAL = {
    "pipe.jpg": "pipes, sockets or devices", "socket.png": "pipes, sockets or devices", "gone.jpg": "links to nothing",
    "self.jpg": "links to nothing", "up": "links to a folder above", "elsewhere": "",
}  # fmt: skip


def fuzz(examples: int) -> settings:
    return settings(
        max_examples=examples, deadline=None, derandomize="FUZZ_EXAMPLES" not in os.environ, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip


def small(number: int) -> bytes:
    """Return a picture of few pixels; another number gives another one, by another encoder."""
    image = Picture.new("RGB", (5, 4), (number * 37 % 256, number * 91 % 256, number % 256))
    return encoded(image, ("PNG", "JPEG", "BMP", "GIF")[number % 4])


CONTENTS = (
    *map(small, range(16)), b"", b"no image", small(1)[:40], b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", b"<svg xmlns=''/>",
    zip_of(Zipped()), gzip.compress(b"x"), b"version https://git-lfs.github.com/spec/v1\n",
)  # fmt: skip


@dataclass(frozen=True)
class Tree:
    """Files, and which of their folders are no classes, but splits or variants, by their names; ``told_by``: names
    without which that cannot be seen; ``special``: what else is in the folder, if it is one; ``table``: a file of
    labels is among the files.
    """

    files: dict[str, bytes]
    no_classes: frozenset[str]
    told_by: frozenset[str]
    special: tuple[str, ...] = ()
    table: str | None = None

    def __repr__(self) -> str:
        return "\n".join([*self.files, f"no classes: {sorted(self.no_classes)}"])


SPLIT_WORDS = {split: sorted(words.split()) for split, words in WORDS.items()}


def tree_of(seed: int) -> Tree:
    """Return a data set as people lay it out: splits in any words, variants, wrappers, junk, odd suffixes, copies.

    From a seed, since hypothesis takes ten times as long to draw each name by itself.
    """
    rng = random.Random(seed)
    classes = rng.sample(CLASSES, rng.randint(2, 4))
    kind = rng.choice(("plain", "splits", "splits", "inside", "variants", "both"))
    tops: list[str] = []
    never: list[str] = []
    if kind in ("splits", "inside", "both"):
        filler, changed = rng.choice(FILLERS), rng.choice((str, str.upper, str.capitalize))
        splits = ("train", *rng.choice((("val",), ("test",), ("val", "test"))))
        words = {split: rng.choice(SPLIT_WORDS[split]) for split in splits}
        by_itself = rng.random() < 0.3
        tops = [(rng.choice(SAYS_NOTHING) if by_itself else filler).format(changed(word)) for word in words.values()]
        never = [top for top, word in zip(tops[1:], list(words.values())[1:], strict=True) if word not in ALSO_CLASSES]
    variants = [name for name in rng.sample(UNKNOWN, rng.randint(2, 3)) if name not in classes]
    if kind not in ("variants", "both"):
        variants = []
    folders = [
        *(f"{a}/{b}/{c}" for a in tops or [""] for b in variants or [""] for c in classes if kind != "inside"),
        *(f"{c}/{a}" for c in classes for a in tops if kind == "inside"),
    ]
    told_by = frozenset({*tops, *variants})
    wrapper = rng.choice(("", "", "data", "my set/images", "train"))
    files: dict[str, bytes] = {}
    for number, folder in enumerate(folders):
        # One image at least in each folder: without it the tree is another one.
        images = {"0.jpg": CONTENTS[number % 16]}
        images |= {f"{index}{rng.choice(SUFFIXES)}": rng.choice(CONTENTS) for index in range(1, rng.randint(1, 3))}
        for name, content in images.items():
            files["/".join(filter(None, (wrapper, *folder.split("/"), name)))] = content
    for name in rng.sample(JUNK, rng.randint(0, 3)):
        files["/".join(filter(None, (rng.choice((wrapper, "")), name)))] = rng.choice(CONTENTS)
    if rng.random() < 0.2:  # names and files without any order
        parts = (*CLASSES, *UNKNOWN, *tops, "train", "test", "")
        for number in range(rng.randint(1, 6)):
            folder = "/".join(filter(None, rng.choices(parts, k=rng.randint(0, 4))))
            if not any(f"{folder}/".startswith(f"{file}/") for file in files):  # no disk has both
                files[f"{folder}/r{number}.jpg".lstrip("/")] = CONTENTS[number]
        tops, variants = never, []
    no_classes = frozenset({*tops, *(variants if len(variants) > 1 else [])} - set(classes))
    special = tuple(rng.sample(sorted(SPECIAL), rng.choice((0, 0, 1, 3))))
    table = rng.choice((None, None, None, None, "labels table.csv"))
    if table:
        named = rng.sample(sorted(files), min(len(files), rng.randint(1, 9)))
        rows = [f"{name},{rng.choice(classes)}\n" for name in named if not {",", "\n"} & set(name)]
        files[table] = "".join(["file,label\n", *rows]).encode()
    return Tree(files, no_classes, told_by, special, table)


def raw_name(name: str, encoding: str) -> bytes:
    """Return a name as a program writes it that knows only *encoding*."""
    return name.encode(encoding, "replace").replace(b"?", b"_")


def names_as_read(tree: Tree, encoding: str) -> set[str]:
    """Return how the folders that are no classes are called when they were read; none where a name was lost in writing.

    Without its word, a folder is no split any more, and those beside it may be classes.
    """
    try:
        [name.encode(encoding) for name in tree.told_by | tree.no_classes]
    except UnicodeEncodeError:
        return set()
    read = Encoding() if encoding == "utf-8" else find_encoding(raw_name(name, encoding) for name in tree.files)
    return {safe_component(read.decode(name.encode(encoding))) for name in tree.no_classes}


def zip_with(tree: Tree, encodings: Sequence[str], rng: random.Random) -> bytes:
    """Return a zip each of whose names is in one of *encodings*; that it is UTF-8 is declared."""
    raw = {raw_name(name, rng.choice(encodings)): content for name, content in tree.files.items()}
    flags = 0x800 if set(encodings) == {"utf-8"} else 0
    return zip_of(*(Zipped(name, content, flags=flags) for name, content in raw.items()))


def folder_of(tree: Tree, folder: Path) -> Counter[str]:
    """Write *tree* as a folder; return how many of its files, and of what else is there, are left out or not ("")."""
    for name, content in tree.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    within = [
        path for path in sorted(folder.rglob("*")) if path.is_dir() and not is_junk(path.relative_to(folder).parts)
    ]
    here = within[0] if within else folder
    outside = folder.with_name("outside")
    outside.mkdir()
    (outside / "o.jpg").write_bytes(CONTENTS[0])
    counts: Counter[str] = Counter()
    for name in tree.special:
        if (path := here / name).exists():
            continue
        counts[SPECIAL[name]] += 1
        if name.startswith("pipe"):
            os.mkfifo(path)
        elif name.startswith("socket"):
            os.mknod(path, stat.S_IFSOCK | 0o600)
        else:
            path.symlink_to({"gone.jpg": "nowhere", "self.jpg": name, "up": "..", "elsewhere": str(outside)}[name])
    counts[""] += sum(not is_junk(name.split("/")) for name in tree.files)
    return counts


@fuzz(250)
@given(seed=SEEDS)
def test_no_split_becomes_a_class(seed: int) -> None:
    tree = tree_of(seed)
    note(repr(tree))
    paths = [tuple(name.split("/")) for name in tree.files]
    try:
        layout = find_layout(paths)
    except UserError as error:
        assert str(error) == one_line(error) and "dataset.source.folders" in str(error)
        return
    assert len(layout.targets) == len(paths)
    classes = {to[int(layout.has_splits)] for to in layout.targets if not isinstance(to, str)}
    assert not classes & tree.no_classes


def check(seed: int, folder: Path) -> list[Image]:
    """Unpack a tree, all of whose files are accounted for; return its images, [] where it is refused in one line."""
    tree, rng = tree_of(seed), random.Random(seed)
    kind, encoding = rng.choice(("zip", "zip", "tar", "manifest")), rng.choice(ENCODINGS)
    two = rng.random() < 0.15 and kind == "zip"
    archive, photos = folder / f"a.{kind}", folder / "photos"
    if kind == "zip":
        encodings = (encoding, rng.choice(ENCODINGS)) if two else (encoding,)
        archive.write_bytes(zip_with(tree, encodings, rng))
        entries = len(zipfile.ZipFile(archive).namelist())
    else:
        counts = folder_of(tree, photos)
        walked: Counter[str] = Counter()
        assert sum(1 for _ in walk_files(photos, walked)) == counts.pop("")
        assert all(walked[reason] == number for reason, number in counts.items())
        (pack_folder if kind == "tar" else list_folder)(photos, archive, archive)
        entries = sum(1 for _ in walk_files(photos, Counter())) + walked.total()
    origin = Origin(archive, labels=tree.table, folder=photos if kind == "manifest" else None)
    output = folder / "results" / "images"
    try:
        left_out = unpack_all([origin], output, Limits())
        images = find_images(output)
    except UserError as error:
        assert str(error) == one_line(error)
        return []
    placed = sum(len(files) for _, _, files in os.walk(output))
    assert placed + left_out.counts.total() == entries
    assert len(images) == placed
    if not tree.table and not two:
        no_classes = names_as_read(tree, encoding if kind == "zip" else "utf-8")
        assert not {image.label for image in images} & no_classes
    return images


@pytest.mark.parametrize("seed", [1818175, 75439])  # Greek in Big5, read as Polish; a file and a folder of one name
def test_what_once_made_a_split_a_class(seed: int, tmp_path: Path) -> None:
    check(seed, tmp_path)


def check_many(examples: int, folder: Path, number: int) -> list[Image]:
    """Check trees below *folder*, the same for the same *number*; return all their images, of which none has gone."""
    images: list[Image] = []
    names = count()

    @seed(number if "FUZZ_EXAMPLES" not in os.environ else random.randrange(2**32))
    @settings(fuzz(examples), derandomize=False)
    @given(tree=SEEDS)
    def with_each(tree: int) -> None:
        note(repr(tree_of(tree)))
        name = str(next(names))
        (folder / name).mkdir()
        for image in check(tree, folder / name):
            images.append(replace(image, path=f"{name}/results/images/{image.path}", label=f"{name} {image.label}"))

    with_each()
    return images


@pytest.mark.parametrize("examples", [40, pytest.param(EXAMPLES, marks=pytest.mark.long)])
def test_every_file_is_taken_set_aside_or_left_out(examples: int) -> None:
    total = aside = 0
    for number, first in enumerate(range(0, examples, AT_ONCE)):
        with tempfile.TemporaryDirectory(dir=IN_MEMORY) as name:
            folder = Path(name)
            images = check_many(min(AT_ONCE, examples - first), folder, number)
            audited = check_all(folder, images, AuditCache(folder / "cache"), 1)
        findings = find_all(images, audited)
        set_aside = {finding.file for finding in findings if finding.action == SET_ASIDE}
        pairs = zip(images, audited.checks, strict=True)
        unreadable = {image.path for image, checked in pairs if checked.status is not Status.READABLE}
        assert unreadable <= set_aside <= {image.path for image in images}
        assert summarise(images, audited.checks, findings)["set_aside"] == len(set_aside)
        total, aside = total + len(images), aside + len(set_aside)
    assert total > 2 * examples and aside > examples / 20
