"""The base configs: those of mmcls's model zoo, with their weights, batch sizes and tasks, and the models of timm.

mim installs mmcls's configs and metafiles inside the package, under ``mmcls/.mim``. They are read here as files:
neither mmcls nor torch is imported, since the Snakefile asks these questions while it is being parsed.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import importlib.util
import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from scripts.lib.base.console import run_cli
from scripts.lib.base.problems import UserError
from scripts.lib.model import config_reader, timm_models
from scripts.lib.model.fast_recipe import FAST

#: Where `make verify` lays out the weights that a run started from: they keep their name, which config.py holds.
KEPT_NAMES = Path("inputs") / "checkpoints"
#: Configs that mmcls 0.25.0 ships without a base file of theirs: no tool can load them.
BROKEN_CONFIGS = frozenset({"mobilenet-v3-small_8xb16_cifar10", "mobilenet_v3_small_cifar"})
#: Configs whose name does not tell their batch. Both set 128 images a GPU on 8 GPUs (as their first comment and their
#: metafile's "Batch Size: 1024" say), and their learning rate of 0.064 belongs to that.
MISNAMED_BATCH = {"mobilenet-v3-large_8xb32_in1k": 1024, "mobilenet-v3-small_8xb32_in1k": 1024}
#: ``8xb32`` (GPUs x batch a GPU) and the older ``b32x8`` (batch a GPU x GPUs), alone or after ``pt-`` and ``ft-``:
#: a config that pretrains or fine-tunes names its own batch there, never two.
BATCH_IN_NAME = re.compile(r"(?<![A-Za-z0-9])(?:(\d+)xb(\d+)|b(\d+)x(\d+))(?![A-Za-z0-9])")


@dataclass(frozen=True)
class Weights:
    """One set of trained weights of the zoo.

    Attributes
    ----------
    model : name of the zoo's entry, which ``checkpoint: {zoo: NAME}`` takes.
    url : its official address.
    file_name : last part of that address.
    sha256_prefix : the first 8 hex digits of the file's sha256, which OpenMMLab writes at the end of the name; or None.
    parameters : of the network with its classifier; None: the metafile does not say.
    accuracy : top-1, in percent, on the data set that the weights were trained for last; None likewise.
    """

    model: str
    url: str
    file_name: str
    sha256_prefix: str | None
    parameters: int | None = None
    accuracy: float | None = None


def config_names() -> list[str]:
    """Return the names of all base configs that can be used, sorted."""
    return sorted(_configs())


class BadBaseConfig(UserError):
    """The setting base_config does not do; *problem* says why, without the setting's name."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"base_config {problem}")
        self.problem = problem


def config_path(name: str) -> Path:
    """Return the file of the base config *name*; raise UserError with the closest names when there is none."""
    path = _configs().get(name)
    if path:
        return path
    if name in BROKEN_CONFIGS:
        raise BadBaseConfig(f"{name}: mmcls 0.25.0 ships it without its base file, so it cannot be used")
    raise BadBaseConfig(
        f"{name!r} is not in mmcls's model zoo: {_closest(name, config_names(), 'name')}; "
        "all names: .venv/bin/python -m scripts.lib.model.model_zoo"
    )


def is_named(name: str) -> bool:
    """Tell whether a base config of mmcls has this name."""
    return name in _configs()


def check_name(base_config: str) -> None:
    """Make sure that a base config of mmcls's zoo, or a model of timm, has this name.

    Raises
    ------
    BadBaseConfig : it has not: the closest ones. Or timm is not installed.
    """
    if config_reader.is_file(base_config):
        config_reader.read_base(base_config)
    elif not timm_models.is_timm(base_config):
        config_path(base_config)
    elif importlib.util.find_spec("timm") is None:
        raise BadBaseConfig(f"{base_config}: this environment has no timm: run `make setup`, which adds it")
    elif timm_models.find(base_config) is None:
        raise BadBaseConfig(
            f"{base_config!r} is no model of timm: {timm_models.hint(base_config.removeprefix(timm_models.PREFIX))}"
        )


def weights_of(name: str) -> list[Weights]:
    """Return the zoo's weights for the base config *name*, in the metafile's order; empty when it has none.

    A renamed config (mmcls keeps the old names as one-line files) has the weights of its new name.
    """
    if config_reader.is_file(name):
        return []
    path = config_path(_current_name(name))
    wanted = f"configs/{path.parent.name}/{path.name}"
    return [
        _weights(entry) for entry in _entries(path.parent) if entry.get("Config") == wanted and entry.get("Weights")
    ]


def find_weights(base_config: str, model: str | None = None) -> Weights:
    """Return the weights that a ``zoo`` checkpoint means.

    Parameters
    ----------
    base_config : name of the base config.
    model : name of an entry of the zoo, or None for the only one of *base_config*.

    Raises
    ------
    UserError : unknown base config or model; no weights, or several, for *base_config*.
    """
    offered = weights_of(base_config)
    if model is not None:
        return _weights_by_model(model, offered)
    if len(offered) == 1:
        return offered[0]
    if offered:
        choices = ", ".join(weights.model for weights in offered)
        raise BadBaseConfig(
            f"{base_config} has several weights in the zoo: {choices}; "
            f"choose one with checkpoint: {{zoo: {offered[0].model}}}"
        )
    if config_reader.is_file(base_config):
        raise BadBaseConfig(
            f"{base_config} is a file of yours, so its weights have to be named: {_weights_hint(base_config)}"
        )
    raise BadBaseConfig(
        f"{base_config} has no weights in mmcls's model zoo; "
        "give checkpoint: {url: ...} or {path: ...}, or checkpoint: none to train from scratch"
    )


def _weights_hint(base_config: str) -> str:
    """Return the settings that give a config file of the user's weights: those that it names itself, if any."""
    config = config_reader.read_base(base_config)
    backbone = config["model"]["backbone"]
    pretrained = backbone.get("init_cfg") if isinstance(backbone.get("init_cfg"), Mapping) else {}
    named = config.get("load_from") or pretrained.get("checkpoint") or config["model"].get("pretrained")
    if isinstance(named, str) and not named.startswith(("torchvision://", "open-mmlab://", "modelzoo://")):
        key = "url" if named.startswith(("http://", "https://")) else "path"
        return f"checkpoint: {{{key}: {named}}}, as the file says; or checkpoint: none to train from scratch"
    return "checkpoint: {zoo: NAME}, {url: ...} or {path: ...}, or checkpoint: none to train from scratch"


def base_batch_size(name: str) -> int | None:
    """Return the images a step (all GPUs together) for which the base config's learning rate was chosen.

    Read from the name (``8xb32``, ``b32x8``), or from the new name of a renamed config, or from the content of a file
    of the user's; None where nothing tells.
    """
    if timm_models.is_timm(name):
        return FAST.batch_size
    if config_reader.is_file(name):
        match = BATCH_IN_NAME.search(Path(name).stem)
        if match:
            return math.prod(int(number) for number in match.groups() if number)
        return config_reader.samples_per_gpu(name)  # plain mim trains it so on one GPU
    for candidate in (name, _current_name(name)):
        if candidate in MISNAMED_BATCH:
            return MISNAMED_BATCH[candidate]
        match = BATCH_IN_NAME.search(candidate)
        if match:
            first, second = (int(number) for number in match.groups() if number)
            return first * second
    return None


def is_multi_label(name: str) -> bool:
    """Tell whether the base config is for several labels an image (the VOC configs), which is another task."""
    if config_reader.is_file(name):
        return "MultiLabel" in config_reader.read_base(name)["model"]["head"]["type"]
    return re.search(r"_voc(07)?(-|_|$)", name) is not None


def loses_single_images(name: str) -> bool:
    """Tell whether the network drops the dimension of a batch that has one image, so that it cannot predict one."""
    if config_reader.is_file(name):
        return config_reader.read_base(name)["model"]["backbone"]["type"] == "LeNet5"
    return name.startswith("lenet")


def checkpoint_name(checkpoint: Mapping[str, Any], base_config: str) -> str:
    """Return the file stem under results/checkpoints/ for a checkpoint setting; no network, no file is opened.

    Two settings have one name only if they name one file, of one hash, that is read for one network: the tensors are
    renamed to fit it.

    Parameters
    ----------
    checkpoint : ``{"zoo": None or model}``, ``{"url": ...}``, ``{"path": ...}``, ``{"run": ...}`` or
        ``{"package": ..., "member": ...}``; keys whose value is None count as absent.
    base_config : name of the base config, which decides what ``{"zoo": None}`` means.

    Raises
    ------
    UserError : as :func:`find_weights` here and in timm_models, for a ``zoo`` checkpoint.
    """
    if checkpoint.get("path") and Path(checkpoint["path"]).parent == KEPT_NAMES:
        return Path(checkpoint["path"]).stem
    keys = ("url", "path", "run", "package", "member", "sha256", "license")
    named = {key: checkpoint[key] for key in keys if checkpoint.get(key)}
    is_zoo = named.keys() <= {"sha256", "license"}
    if is_zoo and timm_models.is_timm(base_config):
        named["zoo"] = timm_models.find_weights(base_config, checkpoint.get("zoo")).name
        name = _safe(f"timm-{named['zoo']}")
    elif is_zoo:
        weights = find_weights(base_config, checkpoint.get("zoo"))
        if not named and weights in weights_of(base_config):
            return _stem(weights.file_name)  # which has digits of its hash, and is taken over as it is
        name, named["zoo"] = _stem(weights.file_name), weights.model
    elif checkpoint.get("run"):
        name = _safe("-".join(Path(checkpoint["run"]).parts[1:]))
    elif checkpoint.get("package"):
        package = "-".join(re.split(r"\s*==\s*", checkpoint["package"].strip()))
        name = f"{_safe(package)}-{_stem(checkpoint['member'])}"
    else:
        name = _stem(urlsplit(checkpoint["url"]).path if checkpoint.get("url") else str(checkpoint["path"]))
    return f"{name}-{_short_hash(json.dumps([named, base_config], sort_keys=True))}"


@cache
def _configs() -> dict[str, Path]:
    # One level only: repvgg/deploy holds the same networks folded for inference, which cannot be trained.
    files = (path for path in config_reader.mim_folder().glob("configs/*/*.py") if path.parent.name != "_base_")
    return {path.stem: path for path in files if path.stem not in BROKEN_CONFIGS}


def _current_name(name: str) -> str:
    """Return the new name of a config that mmcls renamed, or *name* itself."""
    text = config_path(name).read_text(encoding="utf-8")
    match = re.search(r"_deprecation_ = dict\(\s*expected='([^']+)\.py'", text)
    return PurePosixPath(match[1]).name if match else name


@cache
def _entries(folder: Path) -> list[dict[str, Any]]:
    """Return the Models entries of the metafile in *folder*.

    The folder's own metafile, not the list in model-index.yml: that one forgets MobileNetV3.
    """
    import yaml  # here, since most questions are answered without it

    metafile = folder / "metafile.yml"
    if not metafile.is_file():
        return []
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(metafile.read_text(encoding="utf-8"), Loader=loader).get("Models") or []


def _all_entries() -> Iterator[dict[str, Any]]:
    for metafile in sorted(config_reader.mim_folder().glob("configs/*/metafile.yml")):
        yield from _entries(metafile.parent)


def _weights_by_model(model: str, offered: list[Weights]) -> Weights:
    """Return the weights of the entry *model*: among those of the base config first, then in the whole zoo."""
    for weights in offered:
        if weights.model == model:
            return weights
    zoo = {entry["Name"]: entry for entry in _all_entries() if entry.get("Weights")}
    if model in zoo:
        return _weights(zoo[model])
    if offered:
        hint = "the base config's own: " + ", ".join(weights.model for weights in offered)
    else:
        hint = _closest(model, sorted(zoo), "name")
    raise UserError(f"checkpoint.zoo: {model!r} is no model with weights in mmcls's model zoo; {hint}")


def _weights(entry: Mapping[str, Any]) -> Weights:
    url = entry["Weights"]
    file_name = PurePosixPath(unquote(urlsplit(url).path)).name
    match = re.search(r"[-_]([0-9a-f]{8})\.\w+$", file_name)
    results = entry.get("Results") or [{}]
    accuracy = (results[0].get("Metrics") or {}).get("Top 1 Accuracy")
    parameters = (entry.get("Metadata") or {}).get("Parameters")
    return Weights(
        *(entry["Name"], url, file_name, match[1] if match else None),
        parameters=parameters if isinstance(parameters, int) else None,
        accuracy=accuracy if isinstance(accuracy, int | float) else None,
    )


def _closest(name: str, names: list[str], what: str) -> str:
    """Say which *names* begin most like *name*, by letters and digits; among equals those of ImageNet first."""
    wanted = _letters(name)

    def likeness(other: str) -> tuple[float, bool, float]:
        letters = _letters(other)
        start, whole = (difflib.SequenceMatcher(None, wanted, text) for text in (letters[: len(wanted)], letters))
        return start.ratio(), other.endswith("_in1k"), whole.ratio()

    close = [other for other in sorted(names, key=likeness, reverse=True)[:4] if likeness(other)[0] >= 0.6]
    return f"the closest {what}s are {', '.join(close)}" if close else f"no {what} is close to it"


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def folder_name(base_config: str) -> str:
    """Return a base config's name as that of a folder."""
    return _safe(base_config.replace("/", "-"))


def _stem(path: str) -> str:
    name = PurePosixPath(unquote(path).rstrip("/")).name
    return _safe(re.sub(r"(\.pth)?\.([A-Za-z0-9]{1,5}|safetensors)$", "", name))


def _safe(name: str) -> str:
    """Return *name* as a file name of ``[A-Za-z0-9._-]`` that is neither hidden nor empty nor long."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip("._-")[:120] or "checkpoint"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.lib.model.model_zoo", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("text", nargs="?", default="", help="list only the base configs whose name holds this text")
    return parser


def main(args: argparse.Namespace) -> None:
    """Print the base configs of mmcls with size, batch (images a step) and weights, and the models of timm."""
    for name in config_names():
        if args.text in name:
            offered = weights_of(name)
            size = next((f"{each.parameters / 1e6:.1f} M" for each in offered if each.parameters), "unknown")
            weights = ", ".join(
                each.model + (f" (top-1 {each.accuracy:.1f} %)" if each.accuracy else "") for each in offered
            )
            print(
                f"{name}  parameters: {size}  batch: {base_batch_size(name) or 'unknown'}  weights: {weights or 'none'}"
            )
    for model in dict.fromkeys(timm_models.models().values()):
        if args.text in (name := timm_models.PREFIX + model.name):
            parameters = f"{model.parameters / 1e6:.1f} M" if model.parameters else "unknown"
            license_ = (model.license or "not said") if model.has_weights else "no weights"
            print(f"{name}  parameters: {parameters}  input: {model.image_size}  license: {license_}")
    print("which one? base_config: auto tries several on your images: docs/models.md", file=sys.stderr)


if __name__ == "__main__":
    run_cli(build_parser, main)
