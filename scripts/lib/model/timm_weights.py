"""Weights for the backbones of timm: where its own are, and foreign ones under its names and in its sizes."""

from __future__ import annotations

import difflib
import inspect
import logging
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import nn

from scripts.lib.base.console import one_line
from scripts.lib.base.problems import UserError
from scripts.lib.model.hub import HubFile
from scripts.lib.model.weight_names import difference, with_our_names

logger = logging.getLogger(__name__)
#: What stands in a checkpoint before the names of a timm model.
PREFIX = "backbone.model."
#: Share of the model's tensors that must be in a file.
NEEDED = 0.9
#: How timm calls a file of weights on the hub, where its index does not say.
WEIGHTS_NAME, SAFE_NAME = "pytorch_model.bin", "model.safetensors"
Filter = Callable[..., Mapping[str, torch.Tensor]]


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


def pretrained_source(name: str) -> PretrainedSource:
    """Return where the weights of the timm model *name* (with or without a tag, no ``timm/``) are.

    Raises
    ------
    UserError : timm has no model or no tag of this name, or no weights for it.
    """
    config = _pretrained_config(name)
    hub = None
    if config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        hub = HubFile(repository, revision or "main", _hub_names(config.hf_hub_filename or WEIGHTS_NAME))
    url = config.url if isinstance(config.url, str) and not config.custom_load else None
    if not hub and not url:
        raise UserError(
            f"timm has no weights for {name}",
            f"{_others(name)}, or train from scratch by checkpoint: none, or give some by checkpoint: {{path: ...}}",
        )
    digits = re.search(r"-([0-9a-f]{8,64})\.\w+$", urlsplit(url).path) if url else None
    license = None if config.license in (None, "", "unknown") else config.license
    full_name = f"{config.architecture}.{config.tag}".rstrip(".")
    return PretrainedSource(full_name, hub, url or None, digits[1] if digits else None, license)


def _pretrained_config(name: str) -> Any:
    from timm.models import get_pretrained_cfg, is_model  # seconds: only when needed

    try:
        config = get_pretrained_cfg(name) if is_model(name) else None
    except RuntimeError:  # timm's own for a tag that is none
        config = None
    if config is None:
        raise UserError(f"timm has no model {name!r}", _others(name))
    return config


def _others(name: str) -> str:
    """Return the names with weights that may be meant: other tags of this architecture, else those that look alike."""
    from timm.models import list_models, list_pretrained

    architecture = name.partition(".")[0]
    own_names = [other for other in list_pretrained() if other.partition(".")[0] == architecture]
    close = own_names or difflib.get_close_matches(architecture, list_models(), n=4, cutoff=0.5)
    what = "its weights are" if own_names else "the closest names are"
    return f"{what} {', '.join(close[:4])}" if close else "all names: `timm.list_models()`"


def _hub_names(name: str) -> tuple[str, ...]:
    """Return what timm looks for: weights as .safetensors before those in a pickle."""
    if name == WEIGHTS_NAME:
        return SAFE_NAME, name
    return (name.removesuffix(".bin") + ".safetensors", name) if name.endswith(".bin") else (name,)


def build(name: str, **options: Any) -> tuple[nn.Module, Filter | None]:
    """Return a timm model without a classifier, untrained, and the function by which timm adapts weights to it.

    Parameters
    ----------
    options : for ``timm.create_model``, as ``img_size``.

    Raises
    ------
    UserError : there is no such model, or this torch cannot build it.
    """
    import timm

    builder: Any = sys.modules["timm.models._builder"]
    filters: list[Filter | None] = [None]

    def note_filter(*_arguments: Any, filter_fn: Filter | None = None, **_options: Any) -> None:
        filters.append(filter_fn)

    original = builder.load_pretrained
    builder.load_pretrained = note_filter  # the one place that every architecture hands its function to
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0, **options)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        _pretrained_config(name)  # a name that is none is said in its own line
        raise UserError(f"timm cannot build {name} here: {one_line(error)[:300]}") from error
    finally:
        builder.load_pretrained = original
    return model, filters[-1]


def adapted(
    weights: Mapping[str, torch.Tensor], model: nn.Module, filter_: Filter | None, name: str
) -> dict[str, torch.Tensor]:
    """Return those of *weights* that a timm model takes, under its names; position embeddings in its size.

    Parameters
    ----------
    weights : of a file, under whatever prefix; a classifier among them is left out.
    model, filter_ : as :func:`build` returns them.
    name : of the file, for messages.

    Raises
    ------
    UserError : several networks in one file; less than nearly all of the model's tensors fit.
    """
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    taken = with_our_names(weights, wanted, name, prefix="")
    if filter_ is not None:
        try:
            has_model = len(inspect.signature(filter_).parameters) > 1  # some look at the weights alone
            taken = dict(filter_(dict(taken), model) if has_model else filter_(dict(taken)))
        except Exception as error:  # of another network's weights, whatever timm meets in them
            logger.debug("timm's own filter", exc_info=True)
            logger.info("%s: timm cannot adapt its weights (%s)", name, one_line(error)[:200])
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


def backbone_shapes(model_name: str) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of a timm model as a checkpoint of mimflow has them."""
    model, _ = build(model_name)
    return {PREFIX + key: tuple(value.shape) for key, value in model.state_dict().items()}


def for_backbone(weights: Mapping[str, torch.Tensor], model_name: str, name: str) -> dict[str, torch.Tensor]:
    """Return *weights* as a checkpoint of mimflow has them for ``base_config: timm/<model_name>``.

    A checkpoint of mimflow for this model stays as it is, with its head.

    Raises
    ------
    UserError : as :func:`build` and :func:`adapted`.
    """
    model, filter_ = build(model_name)
    wanted = model.state_dict()
    if all(PREFIX + key in weights and weights[PREFIX + key].shape == wanted[key].shape for key in wanted):
        return dict(weights)
    return {PREFIX + key: value for key, value in adapted(weights, model, filter_, name).items()}
