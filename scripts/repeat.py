"""Repeat a run out of a bundle that `make bundle` wrote: unpack it safely, do the run again, compare every hash.

A bundle is a foreign file: names in it are checked against a pattern and the manifest, nothing but plain files is
unpacked, weights are opened as tensors only, config.py is compared but never run, and settings that could make mmcls
load more are refused.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import re
import tarfile
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from scripts.lib.base.console import run_cli
from scripts.lib.base.files import sha256_of
from scripts.lib.base.problems import UserError
from scripts.lib.data.archive_entries import CHUNK, Limits
from scripts.lib.data.archives import sniff_format
from scripts.lib.data.folders import walk_files
from scripts.lib.data.manifest import manifest_sha256, write_manifest
from scripts.lib.data.tar_archives import open_tar
from scripts.lib.workflow.repetition import (
    MANIFEST,
    MANIFEST_SUFFIX,
    PROFILE,
    Difference,
    Run,
    changed_since,
    conclude,
    is_packed_folder,
    repeat,
    scratch_folder,
)

logger = logging.getLogger(__name__)

#: Every name that bundles have; neither a folder above nor a hidden file fits.
NAME = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*/){0,6}[A-Za-z0-9_][A-Za-z0-9._-]*")
RUN = re.compile(r"results/([^/]+/[^/]+/seed\d+(?:/fold\d+)?)/provenance\.json")
LONGEST_MANIFEST = 1_000_000
#: Keys of an mmcls config by which it loads weights or code of its own accord.
RISKY = frozenset({"load_from", "resume_from", "custom_imports", "init_cfg", "pretrained", "checkpoint", "_base_"})


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.repeat", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    parser.add_argument("--archive", type=Path, required=True, metavar="FILE", help="the bundle, a .tar")
    parser.add_argument(
        "--images",
        type=Path,
        metavar="PATH",
        help="the archive of the images, where it has none; a folder of several, or the folder that was read in place",
    )
    parser.add_argument("--trust", action="store_true", help="accept overrides that load weights or code")
    parser.add_argument(
        "--profile", type=Path, default=PROFILE, metavar="DIR", help="Snakemake profile to run with (profiles/local)"
    )
    return parser


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
    digest = hashlib.sha256()
    stream = tar.extractfile(member)
    assert stream is not None, "a regular file"
    with open(path, "xb") as file:
        while block := stream.read(CHUNK):
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def risky_keys(settings: Mapping[str, Any]) -> list[str]:
    """Return the overrides that make mmcls load weights or code: out of a bundle they could run anything."""

    def walk(value: Any, place: str) -> list[str]:
        found = []
        if isinstance(value, Mapping):
            for key, inner in value.items():
                here = f"{place}.{key}".lstrip(".")
                found += [here] if RISKY & set(str(key).split(".")) else walk(inner, here)
        elif isinstance(value, list):
            found += [key for place_, inner in enumerate(value) for key in walk(inner, f"{place}.{place_}")]
        return found

    experiments = settings.get("experiments", {})
    return [key for experiment in experiments.values() for key in walk(experiment.get("overrides", {}), "")]


def find_run(bundle: Path, folder: Path, names: list[str]) -> Run:
    """Return the run in an unpacked bundle."""
    runs = [found.group(1) for found in map(RUN.fullmatch, names) if found]
    if len(runs) != 1:
        raise UserError(f"{bundle}: not a bundle: it holds {len(runs)} runs")
    run = Run.read(folder / "results" / runs[0])
    for name, entry in run.provenance["inputs"]["files"].items():
        file = PurePosixPath(entry["path"]).name
        if not NAME.fullmatch(file) or "/" in file:
            raise UserError(f"{bundle}: refused: {name} has a name that no bundle has: {file[:100]!r}")
    if len(run.archives) != len(run.sources()):
        raise UserError(f"{bundle}: refused: {len(run.archives)} archives for {len(run.sources())} sources")
    return run


def find_images(run: Run, given: Path | None) -> dict[str, Path] | None:
    """Return the archives of the images by their names in the provenance: those in *given*, else the bundle's, None
    when they must be fetched.

    Parameters
    ----------
    given : an archive; or a folder of archives, or of images that were read in place.
    """
    if given is None:
        inside = {name: _packed(run.file(name)) for name in run.archives}
        if not all(path.is_file() for path in inside.values()):
            return None
        for name, path in inside.items():
            if is_packed_folder(run, name, path) and manifest_sha256(path) != run.hashes()[name]:
                conclude(
                    run, Difference("archive", [name], [f"{path.name} holds other files than the run was made with"])
                )
        return inside
    if not given.exists():
        raise UserError(f"IMAGES: there is no file {given}")
    hashed = _Hashes([given] if given.is_file() else [given, *sorted(given.iterdir())])
    found = {
        name: hashed.find(sha256, _is_manifest(run, name))
        for name, sha256 in run.hashes().items()
        if name in run.archives
    }
    missing = [name for name, path in found.items() if path is None]
    if missing:
        what = f"{given} is not" if given.is_file() else f"nothing in {given} is"
        conclude(run, Difference("archive", missing, [f"{what} the archive that the run was made with"]))
    return {name: path.resolve() for name, path in found.items() if path is not None}


def _is_manifest(run: Run, name: str) -> bool:
    return run.file(name).suffix == MANIFEST_SUFFIX


def _packed(path: Path) -> Path:
    """Return where a bundle holds an archive: a folder that was read in place is packed in it."""
    return path.with_suffix(".tar") if path.suffix == MANIFEST_SUFFIX else path


class _Hashes:
    """The hashes of files and folders, each taken once, and only when it is asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.known: dict[tuple[Path, bool], str] = {}

    def find(self, sha256: str, as_manifest: bool) -> Path | None:
        """Return the file, or the folder with the manifest, that has this hash."""
        return next((path for path in self.paths if self._hash(path, as_manifest) == sha256), None)

    def _hash(self, path: Path, as_manifest: bool) -> str:
        key = (path, as_manifest)
        if key not in self.known:
            self.known[key] = self._compute(path, as_manifest)
        return self.known[key]

    @staticmethod
    def _compute(path: Path, as_manifest: bool) -> str:
        if path.is_file():
            if not as_manifest:
                return sha256_of(path)
            return manifest_sha256(path) if path.suffix == ".tar" else ""
        if not as_manifest or not path.is_dir():
            return ""
        with tempfile.TemporaryDirectory() as folder:
            manifest = Path(folder) / "manifest"
            write_manifest(path, walk_files(path, Counter()), manifest)
            return sha256_of(manifest)


def main(args: argparse.Namespace) -> None:
    """Print `identical`, or the first stage that differs and the likely cause (exit status 1)."""
    with scratch_folder(Path("results"), "repeat") as scratch:
        folder = scratch / "bundle"
        run = find_run(args.archive, folder, unpack(args.archive, folder))
        risky = risky_keys(run.provenance["inputs"]["settings"])
        if risky and not args.trust:
            raise UserError(
                f"{args.archive}: refused: its overrides make mmcls load more ({', '.join(risky[:3])}); if you trust"
                " where it comes from, add ARGS=--trust"
            )
        images = find_images(run, args.images)
        changed = changed_since(run, without=run.archives)
        if changed:
            conclude(run, changed)
        logger.info("repeating %s in %s", run.name, scratch)
        difference = repeat(run, scratch, images, args.profile)
    conclude(run, difference, scratch)


if __name__ == "__main__":
    run_cli(build_parser, main)
