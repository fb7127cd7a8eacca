"""Weights for the backbones of timm: where its own are, and foreign ones under its names and in its sizes."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import torch
from torch import nn

from scripts.lib.base.console import one_line
from scripts.lib.base.problems import UserError
from scripts.lib.model import timm_models
from scripts.lib.model.hub import HubFile
from scripts.lib.model.timm_models import TimmModel
from scripts.lib.model.weight_names import difference, with_our_names
from scripts.mmcls_plugins import timm_backbone

logger = logging.getLogger(__name__)
#: What stands in a checkpoint before the names of a timm model.
OUR_PREFIX = "backbone.model."
#: Share of the model's tensors that must be in a file.
NEEDED = 0.9
#: What the package efficientnet_pytorch, and those made after it, call the layers of an EfficientNet, and timm does.
LAYERS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
#: The same of a block that expands its channels, and of one that does not.
SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
EXPANDING = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
EXPANDING |= {**SQUEEZE, "_project_conv": "conv_pwl", "_bn2": "bn3"}
SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", **SQUEEZE, "_project_conv": "conv_pw", "_bn2": "bn2"}
OLD_BLOCK = re.compile(r"(?P<prefix>.*?)_blocks\.(?P<number>\d+)\.(?P<layer>_\w+)\.(?P<tensor>.+)")
#: How timm calls a file of weights on the hub, where its index does not say.
WEIGHTS_NAME, SAFE_NAME = "pytorch_model.bin", "model.safetensors"


@dataclass(frozen=True)
class PretrainedSource:
    """Where timm's weights of one model are.

    Attributes
    ----------
    name : architecture and tag, as ``resnet18.a1_in1k``.
    hub : the file on the hub; None where there is only the url.
    url : another address, None where there is none or where its format is timm's own to read (.npz).
    sha256_prefix : the first digits of the sha256 of the file at *url*, where its name has them.
    license : as timm names it; None where it does not.
    """

    name: str
    hub: HubFile | None
    url: str | None
    sha256_prefix: str | None
    license: str | None


def pretrained_source(model: TimmModel) -> PretrainedSource:
    """Return where weights of timm are.

    Raises
    ------
    UserError : they are in no place from which they can be fetched.
    """
    config = timm_models.pretrained_cfg(timm_models.PREFIX + model.name)
    hub = None
    if config["hf_hub_id"]:
        repository, _, revision = config["hf_hub_id"].partition("@")
        hub = HubFile(repository, revision or "main", _hub_names(config["hf_hub_filename"] or WEIGHTS_NAME))
    url = config["url"] if isinstance(config["url"], str) and not config["custom_load"] else None
    if not hub and not url:
        raise UserError(
            f"timm says no address of {model.name}",
            "train from scratch by checkpoint: none, or give them by checkpoint: {path: ...}",
        )
    digits = re.search(r"-([0-9a-f]{8,64})\.\w+$", urlsplit(url).path) if url else None
    return PretrainedSource(model.name, hub, url or None, digits[1] if digits else None, model.known_license)


def _hub_names(name: str) -> tuple[str, ...]:
    """Return what timm looks for: weights as .safetensors before those in a pickle."""
    if name == WEIGHTS_NAME:
        return SAFE_NAME, name
    return (name.removesuffix(".bin") + ".safetensors", name) if name.endswith(".bin") else (name,)


def build(name: str) -> nn.Module:
    """Return a timm model without a classifier, untrained.

    Raises
    ------
    UserError : this torch cannot build it.
    """
    timm_backbone.require_timm()
    import timm  # seconds: only when needed

    try:
        return timm.create_model(name, num_classes=0)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"timm cannot build {name} here: {one_line(error)[:300]}") from error


def adapted(weights: Mapping[str, torch.Tensor], model: nn.Module, name: str) -> dict[str, torch.Tensor]:
    """Return those of *weights* that a timm model takes, under its names; position embeddings in its size.

    Parameters
    ----------
    weights : of a file, under whatever prefix; a classifier among them is left out.
    name : of the file, for messages.

    Raises
    ------
    UserError : several networks in one file; less than nearly all of the model's tensors fit.
    """
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    taken = timm_backbone.adapted(with_our_names(of_efficientnet_pytorch(weights, wanted), wanted, name, ""), model)
    fitting = {key: taken[key] for key, shape in wanted.items() if key in taken and tuple(taken[key].shape) == shape}
    missing = wanted.keys() - fitting.keys()
    if len(fitting) < NEEDED * len(wanted):
        raise UserError(
            f"{name} does not belong to this timm model: {len(fitting)} of its {len(wanted)} tensors fit; "
            f"{difference(taken, wanted)}",
            "choose the base_config that they were trained with",
        )
    if missing:
        logger.warning("%s lacks %d of %d tensors: %s", name, len(missing), len(wanted), difference(taken, wanted))
    return fitting


def of_efficientnet_pytorch(weights: Mapping[str, torch.Tensor], wanted: Iterable[str]) -> dict[str, torch.Tensor]:
    """Return *weights* with timm's names of layers where they have those of the package efficientnet_pytorch.

    Parameters
    ----------
    wanted : names of timm's model, which numbers its blocks by stages.
    """
    blocks = list(dict.fromkeys(match[0] for key in wanted if (match := re.match(r"blocks\.\d+\.\d+", key))))
    prefixes = {match["prefix"] for key in weights if (match := OLD_BLOCK.fullmatch(key))}
    if len(prefixes) != 1 or not blocks:
        return dict(weights)
    (prefix,) = prefixes
    renamed = {}
    for key, tensor in weights.items():
        if block := OLD_BLOCK.fullmatch(key):
            number = int(block["number"])
            expands = f"{prefix}_blocks.{number}._expand_conv.weight" in weights
            layer = (EXPANDING if expands else SEPARABLE).get(block["layer"], block["layer"])
            key = f"{blocks[number] if number < len(blocks) else number}.{layer}.{block['tensor']}"
        else:
            layer, _, name = key.removeprefix(prefix).partition(".")
            key = f"{LAYERS.get(layer, layer)}.{name}"
        renamed[key] = tensor
    return renamed


def backbone_shapes(model_name: str) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a timm model as a checkpoint of mimflow has them."""
    model = build(model_name)
    return {OUR_PREFIX + key: tuple(value.shape) for key, value in model.state_dict().items()}


def for_backbone(weights: Mapping[str, torch.Tensor], model_name: str, name: str) -> dict[str, torch.Tensor]:
    """Return *weights* as a checkpoint of mimflow has them for ``base_config: timm/<model_name>``.

    A checkpoint of mimflow for this model stays as it is, with its head.

    Raises
    ------
    UserError : as :func:`build` and :func:`adapted`.
    """
    model = build(model_name)
    wanted = model.state_dict()
    if all(OUR_PREFIX + key in weights and weights[OUR_PREFIX + key].shape == wanted[key].shape for key in wanted):
        return dict(weights)
    return {OUR_PREFIX + key: value for key, value in adapted(weights, model, name).items()}
