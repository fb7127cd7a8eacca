"""Any classification model of timm as a backbone of mmcls: pooled features, the head is mmcls's."""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from mmcls.models.backbones.base_backbone import BaseBackbone
from mmcls.models.builder import BACKBONES
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from scripts.lib.base.console import one_line
from scripts.lib.base.problems import UserError
from scripts.lib.runs.config_values import MODEL_NAME

logger = logging.getLogger(__name__)


def require_timm() -> None:
    """Raise UserError where this environment has no timm: one that was set up before mimflow used it."""
    if find_spec("timm") is None:
        raise UserError("base_config: timm is not installed in this environment", "run `make setup`, which adds it")


@BACKBONES.register_module()
class TimmFeatures(BaseBackbone):
    """A model of timm without its classifier: images to pooled features, (n, channels).

    Parameters
    ----------
    model_name : one of timm's; its weights are drawn, never fetched.
    img_size : pixels a side, for models whose layers depend on it; None: the model's own.
    norm_eval : batch normalisation keeps its statistics in training.
    drop_path_rate : of stochastic depth; None: the model's own.
    """

    def __init__(
        self,
        model_name: str,
        img_size: int | None = None,
        norm_eval: bool = False,
        drop_path_rate: float | None = None,
    ) -> None:
        super().__init__()
        require_timm()
        if not MODEL_NAME.fullmatch(model_name):
            raise UserError(f"model_name {model_name!r}: timm has no model of this name")
        import timm  # seconds, and most runs do without

        values = {"img_size": img_size, "drop_path_rate": drop_path_rate}
        options: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
        self.model = timm.create_model(model_name, num_classes=0, **options)
        self.norm_eval = norm_eval
        #: Class and register tokens before those of the patches, for Grad-CAM; None: it makes none, or does not tell.
        self.num_prefix_tokens: int | None = getattr(self.model, "num_prefix_tokens", None)

    def init_weights(self) -> None:
        """Leave the weights as timm has drawn them."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features, float32, (n, channels), of images (n, 3, height, width)."""
        return self.model(images)

    def train(self, mode: bool = True) -> TimmFeatures:
        """Set the mode; with norm_eval, batch normalisation stays in eval mode."""
        super().train(mode)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def fitting(self, weights: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
        """Return *weights* with those of this backbone, below *prefix*, as timm makes them fit (:func:`adapted`)."""
        inside = f"{prefix}model."
        mine = {name.removeprefix(inside): tensor for name, tensor in weights.items() if name.startswith(inside)}
        others = {name: tensor for name, tensor in weights.items() if not name.startswith(inside)}
        return others | {inside + name: tensor for name, tensor in adapted(mine, self.model).items()}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Before the modules inside look for theirs: weights of another size of image are resampled.
        fitting = self.fitting(state_dict, prefix)
        for name in state_dict.keys() - fitting.keys():
            del state_dict[name]
        state_dict.update(fitting)
        super()._load_from_state_dict(state_dict, prefix, *args)


def adapted(weights: Mapping[str, torch.Tensor], model: nn.Module) -> Mapping[str, torch.Tensor]:
    """Return *weights* as timm makes them fit *model*: renamed, its tables of positions resampled.

    The same object, where they fit already, or where timm has nothing to make them fit.

    Parameters
    ----------
    weights : under timm's own names, or those of the code that they were trained with.
    """
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if not weights or all(wanted.get(name) == tensor.shape for name, tensor in weights.items()):
        return weights
    described = getattr(model, "pretrained_cfg", None) or {}
    change = filter_of(".".join(filter(None, (described.get("architecture"), described.get("tag")))))
    if change is None:
        return weights
    arguments = [dict(weights), model][: len(inspect.signature(change).parameters)]  # some look at the weights alone
    try:
        return dict(change(*arguments))
    except Exception as error:  # of another network's weights, whatever timm meets in them
        logger.debug("timm's own function", exc_info=True)
        logger.warning("timm cannot adapt these weights to the model (%s)", one_line(error)[:200])
        return weights  # what does not fit is told where they are loaded


@cache
def filter_of(model_name: str) -> Callable[..., Mapping[str, torch.Tensor]] | None:
    """Return the function by which timm adapts weights to a model, or None.

    Every architecture hands its function to one place of timm, and to none that can be asked for it.
    """
    import timm

    builder: Any = sys.modules["timm.models._builder"]
    filters: list[Any] = [None]

    def note_filter(*_arguments: Any, filter_fn: Any = None, **_options: Any) -> None:
        filters.append(filter_fn)

    original = builder.load_pretrained
    builder.load_pretrained = note_filter  # so nothing is fetched
    try:
        with torch.device("meta"):
            timm.create_model(model_name, pretrained=True, num_classes=0)
    except Exception:  # some have layers that need numbers, and so memory
        timm.create_model(model_name, pretrained=True, num_classes=0)
    finally:
        builder.load_pretrained = original
    return filters[-1]
