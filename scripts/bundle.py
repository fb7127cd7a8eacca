"""Bundle a finished run into one archive with which someone else can repeat it: `make repeat ARCHIVE=...`."""

from __future__ import annotations

import argparse
import hashlib
import io
import logging
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml

from scripts.lib.base.console import run_cli
from scripts.lib.base.files import atomic_path, sha256_of
from scripts.lib.base.problems import UserError
from scripts.lib.data.manifest import manifest_sha256
from scripts.lib.data.packing import pack_folder
from scripts.lib.runs.run_folder import run_name
from scripts.lib.workflow.repetition import MANIFEST, ROOT, Run, changed_since, find_archives

logger = logging.getLogger(__name__)

#: Of the run's folder, where they are there.
RUN_FILES = (
    "best.pth", "config.py", "export.json", "init.pth", "last.pth", "metrics.json", "model_card.html", "model_card.md",
    "model.html", "model.json", "model.onnx", "onnx_example.py", "per_class.csv", "predictions.csv", "provenance.html",
    "provenance.json", "train_log.csv", "val_predictions.csv", "figures/classes.svg", "figures/confusion_matrix.svg",
    "figures/curves.svg", "figures/embedding.html", "figures/errors.html", "figures/gradcam.html",
    "figures/reliability.svg", "figures/selective.svg", "figures/training_curves.svg",
)  # fmt: skip
#: Of the data set's folder, where they are there.
DATASET_FILES = ("archive.sha256", "audit.csv", "audit.json", "classes.txt", "report.html")
README = """\
One run of mimflow, {run}: settings, data splits, weights, predictions and their provenance.

To repeat it and compare every hash, in a clone of mimflow:

    git checkout {commit}
    make setup ENV={environment}
    make repeat ARCHIVE=this-file.tar{images}

Unpacked, `sha256sum -c {manifest}` checks the files. results/ is laid out as docs/results.md of mimflow says;
results/{run}/provenance.json tells where it all comes from.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bundle", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="a finished run, results/.../seed0")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the .tar (beside the data set's results)")
    parser.add_argument("--images", action="store_true", help="put the data set's archive in, too")
    return parser


def contents(run: Run, images: bool) -> dict[str, Path]:
    """Return the files of the bundle: name in it, and where it lies."""
    dataset = run.dataset
    place = f"results/{dataset.name}"
    wanted = [dataset / name for name in DATASET_FILES]
    wanted += [run.file(f"splits/{side}.txt") for side in ("train", "val", "test")]
    files = {f"{place}/{file.relative_to(dataset).as_posix()}": file for file in wanted if file.is_file()}
    files |= {f"results/{run.name}/{name}": run.folder / name for name in RUN_FILES if (run.folder / name).is_file()}
    if "checkpoint" in run.provenance["inputs"]["files"]:
        checkpoint = run.file("checkpoint")
        files[f"results/checkpoints/{checkpoint.name}"] = checkpoint
    names = [*run.label_files, *(run.archives if images else [])]
    files |= {f"{place}/{run.file(name).name}": run.file(name) for name in names}
    # Several archives have a record each.
    records = [
        run.file(name).with_name(f"{run.file(name).name.partition('.')[0]}.sha256")
        for name in [*run.archives, *run.label_files]
    ]
    files |= {f"{place}/{record.name}": record for record in records if record.is_file()}
    return files


def packed_folders(run: Run, scratch: Path) -> dict[str, Path]:
    """Return the folders that the run read in place, each packed in *scratch* as a tar.

    Raises
    ------
    UserError : a folder is gone, or holds other files than it did.
    """
    packed = {}
    for name, path in find_archives(run).items():
        if path.is_dir():
            archive = run.file(name).with_suffix(".tar")
            tar = scratch / archive.name
            pack_folder(path, tar, archive)
            if manifest_sha256(tar) != run.hashes()[name]:
                raise UserError(f"{path}: not the files that the run was made with: run it again before you bundle it")
            packed[f"results/{run.dataset.name}/{archive.name}"] = tar
    return packed


def own_texts(run: Run, images: bool) -> dict[str, bytes]:
    """Return the files that are made for the bundle: how to use it, the settings, the lock."""
    inputs = run.provenance["inputs"]
    local = not images and any("path" in source for source in run.sources())
    words = {
        "run": run.name,
        "commit": inputs["code"]["commit"] or "(the commit is not on record)",
        "environment": inputs["environment"]["name"] or "cpu",
        "images": " IMAGES=the-archive-of-the-images" if local else "",
        "manifest": MANIFEST,
    }
    settings = yaml.safe_dump(inputs["settings"], allow_unicode=True, sort_keys=False)
    which = "this run and of the other folds" if "fold" in run_name(run.folder) else "this run"
    texts = {
        "README.txt": README.format(**words).encode(),
        "settings.yaml": f"# The settings of {which}: make run CONFIG= takes them.\n{settings}".encode(),
    }
    lock = find_lock(inputs)
    if lock is not None:
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
    show = ["git", "-C", str(root), "show", f"{inputs['code']['commit']}:envs/{name}.lock"]
    result = subprocess.run(show, capture_output=True, check=False)
    if result.returncode == 0 and _sha256(result.stdout) == expected:
        return result.stdout
    logger.warning("envs/%s.lock has changed since the run: the bundle has no lock", name)
    return None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_bundle(path: Path, files: Mapping[str, Path], texts: Mapping[str, bytes]) -> None:
    """Write the tar: the manifest first, then everything by name; the same content gives the same bytes."""
    hashes = {name: sha256_of(file) for name, file in files.items()} | {
        name: _sha256(text) for name, text in texts.items()
    }
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


def main(args: argparse.Namespace) -> None:
    """Check that the run is as its provenance says, and bundle it."""
    run = Run.read(args.run)
    changed = changed_since(run, without=() if args.images else run.archives)
    if changed:
        raise UserError(f"{args.run}: {changed.causes[0]}; run it again before you bundle it")
    files, texts = contents(run, args.images), own_texts(run, args.images)
    output = args.output or run.dataset / f"{run.name.replace('/', '-')}.tar"
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=output.parent) as scratch:
        if args.images:
            files |= packed_folders(run, Path(scratch))
        write_bundle(output, files, texts)
    size = output.stat().st_size / 1e6
    logger.info("%s: %d files, %.1f MB%s", output, len(files) + len(texts), size, "" if args.images else ", no images")
    logger.info(
        "before you publish it: provenance.json names the machine, and settings.yaml where the images came from"
    )


if __name__ == "__main__":
    run_cli(build_parser, main)
