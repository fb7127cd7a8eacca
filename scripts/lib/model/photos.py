"""Photographs that a trained run, or its model.onnx, classifies: found, read, and predicted batch by batch."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scripts.lib.base import ranges
from scripts.lib.base.problems import UserError
from scripts.lib.data.image_checks import Status, check_image
from scripts.lib.data.image_formats import HEAD, describe_unread, is_read, sniff
from scripts.lib.data.image_paths import JUNK, is_image, is_junk
from scripts.lib.data.reading import USUAL, Reading
from scripts.lib.runs.certainty import Certainty, of_run
from scripts.lib.runs.onnx_model import Batch, OnnxModel, predict_files
from scripts.lib.runs.provenance import check_made
from scripts.lib.runs.run_folder import RunFolder

#: Formats that an image is drawn in as it came; all others become JPEG.
KEPT_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Photo:
    """An image to predict, and its name below the output folder."""

    path: Path
    name: str


class Photos:
    """The images as a data set of mmcls, through the test pipeline of a config; one that is broken raises OSError."""

    def __init__(self, photos: Sequence[Photo], pipeline: Any) -> None:
        from mmcls.datasets.pipelines import Compose

        self.pipeline = Compose(pipeline)
        self.data_infos: list[dict[str, Any]] = [
            {"img_prefix": None, "img_info": {"filename": str(photo.path)}} for photo in photos
        ]

    def __len__(self) -> int:
        return len(self.data_infos)

    def __getitem__(self, index: int) -> Any:
        info = self.data_infos[index]
        check_whole(Path(info["img_info"]["filename"]))
        return self.pipeline({**info, "gt_label": np.array(0, dtype=np.int64)})


def check_whole(path: Path) -> None:
    """Raise OSError unless *path* is an image that can be decoded to its end, as the audit of a data set judges it.

    OpenCV 4 (the cuda11 environment) fills the missing part of a truncated JPEG with grey and says nothing.
    """
    if why := describe_special(path):
        raise OSError(why)
    checked = check_image(ranges.read_bytes(path))
    if checked.status is not Status.READABLE:
        kind = "" if checked.status is Status.UNREADABLE else f"{checked.status.name.lower().replace('_', ' ')}: "
        raise OSError(f"{kind}{checked.detail}")


def describe_special(path: Path) -> str:
    """Return what *path* is that is no file, and would be waited for or not end; "" for a file.

    An image of a data set may lie in a tar shard.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if ranges.find(path):
            return ""
        return "a link to nothing" if path.is_symlink() else error.strerror or str(error)
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    return "" if stat.S_ISREG(mode) else f"{kinds.get(stat.S_IFMT(mode), 'a device')}, not a file"


@dataclass
class Others:
    """What lies beside photographs. ``unread``: why each of these pictures is not read; ``ignored``: no pictures."""

    unread: dict[Path, str] = field(default_factory=dict)
    ignored: int = 0

    def sift(self, path: Path) -> bool:
        """Tell whether *path* is an image, by its suffix or its first bytes; take note of what is none that is read."""
        try:
            if why := describe_special(path):
                self.unread[path] = why
                return False
            if is_image(path.name):
                return True
            with open(path, "rb") as file:
                name = sniff(file.read(HEAD), path.name)
        except OSError as error:
            self.unread[path] = error.strerror or str(error)
            return False
        if name and not is_read(name):
            self.unread[path] = describe_unread(name)
        self.ignored += not name
        return is_read(name)


def find_images(sources: Iterable[str], skip: Path, others: Others | None = None) -> list[Photo]:
    """Return the images in files, folders (their sub folders too) and patterns, sorted within each source.

    Names keep the sub folders below the folder, or the pattern's fixed part; two that would be equal are numbered.
    Nothing hidden is taken, and nothing in *skip*, where earlier results lie. *others* tells what else is there.

    Raises
    ------
    UserError : a source does not exist, or there is no image in all of them.
    """
    sources, others = list(sources), others or Others()
    named_files: list[tuple[Path, Path]] = []
    for source in sources:
        path = Path(source)
        in_shards = not path.exists() and any(True for _ in ranges.names_below(path))  # of a data set read in place
        if path.is_dir() or in_shards:
            named_files += [(file, file.relative_to(path)) for file in _walk(path, skip, others)]
        elif path.exists() or ranges.find(path):
            named_files.append((path, Path(path.name)))
        elif glob.has_magic(source):
            base = Path(*_fixed_parts(path))
            for match in sorted(glob.glob(source, recursive=True)):
                files = _walk(Path(match), skip, others) if os.path.isdir(match) else [Path(match)]
                named_files += [(file, file.relative_to(base)) for file in files]
        else:
            raise UserError(f"--images: {source}: no such file or folder; check the path")
    if not named_files:
        examples = "".join(f"; {printable(path)}: {why}" for path, why in list(others.unread.items())[:3])
        raise UserError(f"--images: no image that can be read in {', '.join(sources)}{examples or '; check the path'}")
    unique: dict[str, tuple[Path, Path]] = {}
    for path, name in named_files:  # an image that is given twice is predicted once
        unique.setdefault(os.path.realpath(path), (path, name))
    names = distinct(str(name) for _, name in unique.values())
    return [Photo(path, name) for (path, _), name in zip(unique.values(), names, strict=True)]


def _walk(folder: Path, skip: Path, others: Others) -> Iterator[Path]:
    skipped = os.path.realpath(skip)
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and name.lower() not in JUNK
            and os.path.realpath(os.path.join(parent, name)) != skipped
        )
        for name in sorted(files):
            if is_junk([name]):
                others.ignored += 1
            elif others.sift(Path(parent, name)):
                yield Path(parent, name)
    yield from (folder / name for name in ranges.names_below(folder))


def _fixed_parts(pattern: Path) -> list[str]:
    """Return the leading parts of *pattern* that hold no wildcard."""
    parts: list[str] = []
    for name in pattern.parts[:-1]:
        if glob.has_magic(name):
            break
        parts.append(name)
    return parts


def distinct(names: Iterable[str]) -> list[str]:
    """Return the names under which images are drawn: of a suffix that can be written, and no two the same.

    They differ in more than upper and lower case, which some file systems do not tell apart.

    >>> distinct(["a.jpg", "A.jpg", "b.webp"])
    ['a.jpg', 'A (2).jpg', 'b.webp.jpg']
    """
    taken: set[str] = set()
    result = []
    for name in names:
        wanted = Path(name if name.lower().endswith(KEPT_SUFFIXES) else name + ".jpg")
        candidate, number = wanted, 2
        while str(candidate).casefold() in taken:
            candidate, number = wanted.with_name(f"{wanted.stem} ({number}){wanted.suffix}"), number + 1
        taken.add(str(candidate).casefold())
        result.append(str(candidate))
    return result


def printable(path: Path | str) -> str:
    """Return a file name of any bytes as one line of valid UTF-8."""
    text = str(path).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def classes_of(config: Any, meta: dict[str, Any], run: Path) -> list[str]:
    """Return the class names of a run: from its config, else from its checkpoint.

    Raises
    ------
    UserError : neither knows them.
    """
    names = config.data.test.get("classes") or meta.get("CLASSES")
    if not names or isinstance(names, str):
        raise UserError(f"{run}/config.py: names no classes in data.test; train the run with mimflow")
    return list(names)


@dataclass(frozen=True)
class Model:
    """What predicts, and its predictions, which are made while they are taken.

    Attributes
    ----------
    source : the run or file that it is from.
    device : where it runs.
    classes : the class names in the order of the columns of the probabilities.
    batches : of the images in their order.
    reading : how their files become pixels.
    certainty : when the predictions can be relied on; None of a run or model that does not say.
    """

    source: Path
    device: str
    classes: list[str]
    batches: Iterator[Batch]
    reading: Reading = USUAL
    certainty: Certainty | None = None


def check_run(run: Path) -> None:
    """Raise UserError unless *run* is the folder of a finished run, and its config and weights are what was made."""
    if not run.is_dir():
        raise UserError(f"--run: {run}: no such folder; give a finished run, such as results/demo/.../seed0")
    for file in (RunFolder(run).config, RunFolder(run).best):
        if not file.is_file():
            raise UserError(f"--run: {run} has no {file.name}; give a finished run, such as results/demo/.../seed0")
    of_certainty = (RunFolder(run).certainty, RunFolder(run).known)  # which a run of an earlier mimflow has not
    check_made(run, [RunFolder(run).config, RunFolder(run).best, *of_certainty])


def open_run(
    run: Path, photos: Sequence[Photo], device: str, batch_size: int, workers: int, *, trust: bool = False
) -> Model:
    """Return the checkpoint of a run, ready to predict; *device* may be ``auto``, *trust* as load_config has it."""
    # Only here, since torch and mmcls take seconds to load: a mistake in the command is answered at once.
    from scripts.lib.model.inference import (
        build_model,
        choose_device,
        iterate,
        iterate_with_distances,
        load_config,
        read_checkpoint,
    )

    certainty, known = of_run(RunFolder(run)) or (None, None)
    config = load_config(RunFolder(run).config, trust=trust)
    weights, meta = read_checkpoint(RunFolder(run).best)
    classes = classes_of(config, meta, run)
    device = choose_device(device)
    model = build_model(config, weights, device)
    dataset = Photos(photos, config.data.test.pipeline)
    batches = iterate(model, dataset, batch_size, workers, device)
    if known is not None:
        batches = iterate_with_distances(model, len(classes), batches, known)
    return Model(run, device, classes, batches, Reading.of_arguments(config.data.test.pipeline[0]), certainty)


def open_onnx(file: Path, photos: Sequence[Photo], batch_size: int, workers: int) -> Model:
    """Return a model.onnx, ready to predict without torch."""
    check_made(file.parent, [file])
    model = OnnxModel(file)
    paths = [photo.path for photo in photos]
    batches = predict_files(model, paths, batch_size, workers, check_whole)
    return Model(file, "cpu", model.classes, batches, model.preprocessing.reading, model.certainty)
