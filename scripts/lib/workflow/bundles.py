"""Bundles: a finished run as one tar with which someone else can repeat it, written here and unpacked there.

A bundle is a foreign file: names in it are checked against a pattern and the manifest, nothing but plain files is
unpacked, weights are opened as tensors only, config.py is compared but never run, and settings that are not known to be
harmless are refused (:mod:`scripts.lib.workflow.foreign_runs`).
"""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import re
import shutil
import tarfile
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from scripts.lib.base import strict_yaml
from scripts.lib.base.environment import ROOT
from scripts.lib.base.files import atomic_path, sha256_of
from scripts.lib.base.problems import UserError
from scripts.lib.data import folders
from scripts.lib.data.archive_entries import CHUNK, Limits
from scripts.lib.data.archives import sniff_format
from scripts.lib.data.folders import manifest_sha256, pack_folder, walk_files, write_manifest
from scripts.lib.data.samples import shards_among
from scripts.lib.data.tar_archives import open_tar
from scripts.lib.model import config_reader
from scripts.lib.runs.machine import ask_git
from scripts.lib.runs.run_folder import run_name
from scripts.lib.workflow.layout import record_path
from scripts.lib.workflow.repetition import (
    MANIFEST_SUFFIX,
    Difference,
    FinishedRun,
    conclude,
    find_archives,
    is_flattened,
)

logger = logging.getLogger(__name__)

#: The first file of a bundle: the sha256 of all others, as `sha256sum -c` reads it.
MANIFEST = "manifest.sha256"
#: Of the run's folder, where they are there.
RUN_FILES = (
    "best.pth", "config.py", "export.json", "init.pth", "last.pth", "metrics.json", "model_card.html", "model_card.md",
    "model.html", "model.json", "model.onnx", "onnx_example.py", "per_class.csv", "predictions.csv", "provenance.html",
    "provenance.json", "train_log.csv", "val_predictions.csv", "known.npy", "certainty.json",
    "figures/classes.svg", "figures/confusion_matrix.svg",
    "figures/curves.svg", "figures/embedding.html", "figures/errors.html", "figures/gradcam.html",
    "figures/reliability.svg", "figures/selective.svg", "figures/training_curves.svg",
)  # fmt: skip
#: Of the data set's folder, where they are there.
DATASET_FILES = ("archive.sha256", "audit.csv", "audit.json", "classes.txt", "report.html", "try.html")
README = Path(__file__).with_name("bundle_readme.txt")
#: Every name that bundles have; neither a folder above nor a hidden file fits.
NAME = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*/){0,6}[A-Za-z0-9_][A-Za-z0-9._-]*")
RUN = re.compile(r"results/([^/]+/[^/]+/seed\d+(?:/fold\d+)?)/provenance\.json")
LONGEST_MANIFEST = 1_000_000


# --- writing ----------------------------------------------------------------------------------------------------------


def contents(run: FinishedRun, images: bool) -> dict[str, Path]:
    """Return the files of the bundle: name in it, and where it lies."""
    for experiment in run.provenance["inputs"]["settings"]["experiments"].values():
        if config_reader.is_file(str(experiment.get("base_config"))):
            raise UserError(
                f"{run.name}: its base_config is a file, {experiment['base_config']}, which bundles do not carry",
                "give the project with that file instead; `make verify` repeats the run there",
            )
    dataset = run.dataset
    below = f"results/{dataset.name}"
    wanted = [dataset / name for name in DATASET_FILES]
    wanted += [run.file(f"splits/{split}.txt") for split in ("train", "val", "test")]
    files = {f"{below}/{file.relative_to(dataset).as_posix()}": file for file in wanted if file.is_file()}
    files |= {f"results/{run.name}/{name}": run.folder / name for name in RUN_FILES if (run.folder / name).is_file()}
    if "checkpoint" in run.provenance["inputs"]["files"]:
        files[f"results/checkpoints/{run.file('checkpoint').name}"] = run.file("checkpoint")
    names = [*run.label_files, *(run.archives if images else [])]
    files |= {f"{below}/{run.file(name).name}": run.file(name) for name in names}
    # Several archives have a record each.
    records = [Path(record_path(str(run.file(name)))) for name in [*run.archives, *run.label_files]]
    files |= {f"{below}/{record.name}": record for record in records if record.is_file()}
    return files


def flattened_folders(run: FinishedRun, scratch: Path) -> dict[str, Path]:
    """Return the folders that the run read in place, each as a tar in *scratch*.

    Raises
    ------
    UserError : a folder is gone, or holds other files than it did.
    """
    tars = {}
    for name, path in find_archives(run).items():
        if path.is_dir():
            if shards_among([listed.name for listed in folders.read_manifest(run.file(name))]):
                what = f"{path}: tar shards that a run reads where they lie are not put into a bundle"
                raise UserError(what, "bundle it without IMAGES=yes; `make repeat` takes the folder by IMAGES=folder")
            archive = run.file(name).with_suffix(".tar")
            tars[f"results/{run.dataset.name}/{archive.name}"] = tar = scratch / archive.name
            pack_folder(path, tar, archive)
            if manifest_sha256(tar) != run.hashes()[name]:
                raise UserError(f"{path}: not the files that the run was made with: run it again before you bundle it")
    return tars


def own_texts(run: FinishedRun, images: bool) -> dict[str, bytes]:
    """Return the files that are made for the bundle: how to use it, the settings, the lock."""
    inputs = run.provenance["inputs"]
    local = not images and any("path" in source for source in run.sources())
    readme = README.read_text(encoding="utf-8").format(
        run=run.name,
        commit=inputs["code"]["commit"] or "(the commit is not on record)",
        environment=inputs["environment"]["name"] or "cpu",
        images=" IMAGES=the-archive-of-the-images" if local else "",
        manifest=MANIFEST,
    )
    settings = strict_yaml.dump(inputs["settings"])
    which = "this run and of the other folds" if "fold" in run_name(run.folder) else "this run"
    texts = {
        "README.txt": readme.encode(),
        "settings.yaml": f"# The settings of {which}: make run CONFIG= takes them.\n{settings}".encode(),
    }
    if (lock := find_lock(inputs)) is not None:
        texts[f"{inputs['environment']['name']}.lock"] = lock
    return texts


def find_lock(inputs: Mapping[str, dict], root: Path = ROOT) -> bytes | None:
    """Return the lock that the run's environment was made from: as it is now, else as it was in the run's commit."""
    name, expected = inputs["environment"]["name"], inputs["environment"]["lock_sha256"]
    if not name or not expected:
        logger.warning("the provenance names no lock (.venv was not made by `make setup`): the bundle has none")
        return None
    path = root / "envs" / f"{name}.lock"
    if path.is_file() and sha256_of(path) == expected:
        return path.read_bytes()
    lock = ask_git(root, "show", f"{inputs['code']['commit']}:envs/{name}.lock")
    if lock is not None and hashlib.sha256(lock).hexdigest() == expected:
        return lock
    logger.warning("envs/%s.lock has changed since the run: the bundle has no lock", name)
    return None


def write_bundle(path: Path, files: Mapping[str, Path], texts: Mapping[str, bytes]) -> None:
    """Write the tar: the manifest first, then everything by name; the same content gives the same bytes."""
    hashes = {name: sha256_of(file) for name, file in files.items()}
    hashes |= {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}
    manifest = "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes)).encode()
    with atomic_path(path) as temporary, tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, text in [(MANIFEST, manifest), *sorted(texts.items())]:
            tar.addfile(_entry(name, len(text)), io.BytesIO(text))
        for name, file in sorted(files.items()):
            with open(file, "rb") as stream:
                tar.addfile(_entry(name, file.stat().st_size), stream)


def _entry(name: str, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)  # no time, no owner: they would differ from one bundle to the next
    entry.size = size
    return entry


# --- reading ----------------------------------------------------------------------------------------------------------


def unpack(bundle: Path, folder: Path) -> list[str]:
    """Unpack *bundle* into *folder*, checked against its manifest, and return the names.

    Raises
    ------
    UserError : not a bundle, damaged, or an entry that no bundle has.
    """
    if not bundle.is_file():
        raise UserError(f"{bundle}: there is no such file: give a bundle of `make bundle`")
    if sniff_format(bundle) != "tar":
        raise UserError(f"{bundle}: not a bundle: `make bundle` writes an uncompressed .tar")
    manifest: dict[str, str] = {}
    with open_tar(bundle, "tar", Limits()) as tar:
        for member in tar:
            name = member.name
            if not manifest:
                manifest = read_manifest(bundle, tar, member)
                continue
            # Not isreg(): a sparse file is regular too, and may be endless.
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or name not in manifest:
                raise UserError(f"{bundle}: refused: {name!r} is not a file that its manifest names")
            if (folder / name).exists():
                raise UserError(f"{bundle}: refused: {name!r} is in it twice")
            if _extract(tar, member, folder / name) != manifest[name]:
                raise UserError(f"{bundle}: {name} is damaged, or was changed: its sha256 is not the manifest's")
    gone = [name for name in manifest if not (folder / name).is_file()]
    if gone or not manifest:
        raise UserError(f"{bundle}: incomplete: {', '.join(gone[:3]) or MANIFEST} is not in it")
    return list(manifest)


def read_manifest(bundle: Path, tar: tarfile.TarFile, member: tarfile.TarInfo) -> dict[str, str]:
    """Return name and sha256 of each file out of the bundle's first entry."""
    stream = tar.extractfile(member) if member.type == tarfile.REGTYPE and member.size <= LONGEST_MANIFEST else None
    if member.name != MANIFEST or stream is None:
        raise UserError(f"{bundle}: not a bundle: it does not begin with {MANIFEST}")
    manifest = {}
    for line in stream.read().decode("utf-8", "replace").splitlines():
        sha256, _, name = line.partition("  ")
        if not re.fullmatch(r"[0-9a-f]{64}", sha256) or not NAME.fullmatch(name):
            raise UserError(f"{bundle}: refused: {MANIFEST} has a line that no bundle has: {line[:100]!r}")
        manifest[name] = sha256
    return manifest


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = tar.extractfile(member)
    assert stream is not None, "a regular file"
    with open(path, "xb") as file:
        shutil.copyfileobj(stream, file, CHUNK)
    return sha256_of(path)


def find_run(bundle: Path, folder: Path, names: list[str]) -> FinishedRun:
    """Return the run in an unpacked bundle."""
    runs = [match[1] for match in map(RUN.fullmatch, names) if match]
    if len(runs) != 1:
        raise UserError(f"{bundle}: not a bundle: it holds {len(runs)} runs")
    run = FinishedRun.read(folder / "results" / runs[0])
    for name, entry in run.provenance["inputs"]["files"].items():
        file = PurePosixPath(entry["path"]).name
        if not NAME.fullmatch(file) or "/" in file:
            raise UserError(f"{bundle}: refused: {name} has a name that no bundle has: {file[:100]!r}")
    return run


def find_images(run: FinishedRun, images: Path | None) -> dict[str, Path] | None:
    """Return the archives of the images by their names in the provenance: those in *images*, else the bundle's, None
    when they must be fetched.

    Parameters
    ----------
    images : an archive; or a folder of archives, or of images that were read in place.
    """
    if images is None:
        inside = {name: _in_bundle(run.file(name)) for name in run.archives}
        if not all(path.is_file() for path in inside.values()):
            return None
        for name, path in inside.items():
            if is_flattened(run, name, path) and manifest_sha256(path) != run.hashes()[name]:
                cause = f"{path.name} holds other files than the run was made with"
                conclude(run, Difference("archive", [name], [cause]))
        return inside
    if not images.exists():
        raise UserError(f"IMAGES: there is no file {images}")
    paths = [images] if images.is_file() else [images, *sorted(images.iterdir())]
    hash_of = functools.cache(_hash)  # each is taken once, and only when it is asked for
    archives: dict[str, Path] = {}
    for name in run.archives:
        sha256, as_manifest = run.hashes()[name], run.file(name).suffix == MANIFEST_SUFFIX
        archive = next((path for path in paths if hash_of(path, as_manifest) == sha256), None)
        archives |= {name: archive.resolve()} if archive else {}
    missing = [name for name in run.archives if name not in archives]
    if missing:
        what = f"{images} is not" if images.is_file() else f"nothing in {images} is"
        conclude(run, Difference("archive", missing, [f"{what} the archive that the run was made with"]))
    return archives


def _in_bundle(path: Path) -> Path:
    """Return where a bundle holds an archive: a folder that was read in place is a tar in it."""
    return path.with_suffix(".tar") if path.suffix == MANIFEST_SUFFIX else path


def _hash(path: Path, as_manifest: bool) -> str:
    """Return the sha256 of a file, or of the manifest of a folder or of a tar; "" for what cannot be asked for."""
    if path.is_file() and not as_manifest:
        return sha256_of(path)
    if path.is_file():
        return manifest_sha256(path) if path.suffix == ".tar" else ""
    if not as_manifest or not path.is_dir():
        return ""
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "manifest"
        write_manifest(path, walk_files(path, Counter()), manifest)
        return sha256_of(manifest)
