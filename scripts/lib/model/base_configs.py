"""Base configs as plain values, of mmcls's zoo, timm's models and the user's files: what a run's config is made of."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from scripts.lib.base.console import one_line
from scripts.lib.base.problems import UserError
from scripts.lib.model import config_reader, model_zoo, timm_models
from scripts.lib.model.config_patches import input_size, resize_pipeline, unwrapped
from scripts.lib.model.dry_step import FAILURES, OnMeta
from scripts.lib.model.fast_recipe import FAST
from scripts.lib.runs.config_file import Config
from scripts.mmcls_plugins.timm_backbone import TimmFeatures

logger = logging.getLogger(__name__)
#: Epochs of the schedule that a model of timm has here; it is scaled to those of a run.
EPOCHS = 100
#: Of pixels of 0 to 255, as mmcls's Normalize takes them; timm's numbers are of 0 to 1.
WHITE = 255.0


def load(base_config: str, pretrained: bool = True) -> Config:
    """Return a base config, resolved.

    Parameters
    ----------
    pretrained : training starts from weights; of models of timm, the learning rates follow.

    Raises
    ------
    UserError : there is no such base config, or this torch cannot build the model of timm.
    """
    if timm_models.is_timm(base_config):
        return timm_config(base_config, pretrained)
    if config_reader.is_file(base_config):
        if replaced := config_reader.replaced_bases(base_config):
            logger.info("%s: taken from mmcls's own configs: %s", base_config, ", ".join(replaced))
        return config_reader.read_base(base_config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mmcv announces mmcv 2, and operators that classification does not use
        from mmcv import Config as MmcvConfig
    config = MmcvConfig.fromfile(str(model_zoo.config_path(base_config)))._cfg_dict.to_dict()
    return of_one_size(config)


def of_one_size(config: Config) -> Config:
    """Return a config of mmcls's in which a network that is made for images of one size is trained on that size.

    That of RepMLP at 256 pixels trains it on 224, which it refuses: a slip, by which nobody can train it.
    """
    size, train = config["model"]["backbone"].get("img_size"), unwrapped(config["data"]["train"])["pipeline"]
    # Most networks say no size, and those for CIFAR resize nothing.
    if size and size == input_size(unwrapped(config["data"]["test"])["pipeline"]) != input_size(train):
        resize_pipeline(train, size / input_size(train))
    return config


def timm_config(base_config: str, pretrained: bool) -> Config:
    """Return a config for ImageNet around a model of timm, as those of mmcls's zoo are."""
    backbone = timm_backbone(base_config)
    network = built(backbone, base_config)
    train, test = timm_pipelines(timm_models.pretrained_cfg(base_config))
    channels = getattr(network.model, "head_hidden_size", None) or network.model.num_features
    return {
        "model": {
            "type": "ImageClassifier",
            "backbone": backbone,
            "neck": None,
            "head": {
                "type": "LinearClsHead",
                "num_classes": 1000,
                "in_channels": channels,
                "loss": {"type": "CrossEntropyLoss", "loss_weight": 1.0},
                "topk": (1, 5),
            },
        },
        "data": {split: {"type": "ImageNet", "pipeline": steps}
                 for split, steps in (("train", train), ("val", test), ("test", test))},
        "optimizer": {"type": "AdamW", "weight_decay": FAST.weight_decay, **learning_rates(network, pretrained)},
        "optimizer_config": {"grad_clip": None},
        "lr_config": {
            "policy": "CosineAnnealing",
            "min_lr": 0,
            "by_epoch": False,
            "warmup": "linear",
            "warmup_iters": EPOCHS // 20,
            "warmup_ratio": FAST.warmup_ratio,
            "warmup_by_epoch": True,
        },
        "runner": {"type": "EpochBasedRunner", "max_epochs": EPOCHS},
        "dist_params": {"backend": "nccl"},
        "log_level": "INFO",
    }  # fmt: skip


def timm_backbone(base_config: str) -> Config:
    """Return the ``backbone`` of a model of timm, for images of its own size."""
    model = timm_models.find(base_config)
    assert model is not None, f"{base_config}: the settings refuse names that are not in the table"
    backbone: Config = {"type": "TimmFeatures", "model_name": model.name}
    return backbone if model.any_size else {**backbone, "img_size": model.image_size}


def built(backbone: Config, base_config: str) -> TimmFeatures:
    """Return a backbone of timm without its weights, or with random ones where it cannot be built without.

    Raises
    ------
    UserError : this torch cannot build it.
    """
    options = {key: value for key, value in backbone.items() if key != "type"}
    try:
        try:
            with OnMeta():
                return TimmFeatures(**options)
        except FAILURES as error:
            if "meta" not in str(error):
                raise
            return TimmFeatures(**options)
    except FAILURES as error:
        raise UserError(
            f"base_config {base_config}: torch {torch.__version__} cannot build it ({one_line(error)[:160]})",
            "choose another, or an environment with a newer torch",
        ) from error


def timm_pipelines(cfg: Mapping[str, Any]) -> tuple[list[Config], list[Config]]:
    """Return the (train, test) pipelines that timm's ``pretrained_cfg`` describes, with mmcls's augmentation of ResNet.

    timm's crop modes: ``center`` crops from the resized image, ``squash`` first makes it square, ``border`` pads where
    *crop_pct* is above 1, which mmcls does not: there the whole image is taken.
    """
    size = min(cfg["input_size"][1:])
    large = math.floor(size / min(1.0, cfg["crop_pct"]))
    resampling = {"backend": "pillow", "interpolation": cfg["interpolation"]}
    normalize = {
        "type": "Normalize",
        **{key: [round(WHITE * value, 3) for value in cfg[key]] for key in ("mean", "std")},
        "to_rgb": True,
    }
    image = {"type": "ImageToTensor", "keys": ["img"]}
    train = [
        {"type": "LoadImageFromFile"},
        {"type": "RandomResizedCrop", "size": size, **resampling},
        {"type": "RandomFlip", "flip_prob": 0.5, "direction": "horizontal"},
        normalize,
        image,
        {"type": "ToTensor", "keys": ["gt_label"]},
        {"type": "Collect", "keys": ["img", "gt_label"]},
    ]
    test = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "size": large if cfg["crop_mode"] == "squash" else (large, -1), **resampling},
        {"type": "CenterCrop", "crop_size": size},
        normalize,
        image,
        {"type": "Collect", "keys": ["img"]},
    ]
    return train, test


def learning_rates(network: TimmFeatures, pretrained: bool) -> Config:
    """Return ``lr`` for a batch of FAST.batch_size, and for networks normalised by layers how it falls with depth.

    What training from scratch starts with is the same at any depth.
    """
    if not pretrained or is_batch_normalised(network):
        return {"lr": FAST.learning_rate}
    multipliers = layer_multipliers(network.model, FAST.layer_decay)
    keys = {f"backbone.model.{name}": {"lr_mult": multiplier} for name, multiplier in multipliers.items()}
    return {"lr": FAST.gentle_learning_rate, **({"paramwise_cfg": {"custom_keys": keys}} if keys else {})}


def is_batch_normalised(network: nn.Module) -> bool:
    """Tell whether at least half of a network's normalisations are over batches."""
    # timm has normalisations of its own: RmsNorm, GroupNorm1, ...; all have an epsilon, which ConvNormAct has not.
    norms = [module for module in network.modules() if "norm" in type(module).__name__.lower()]
    kinds = [isinstance(module, _BatchNorm) for module in norms if hasattr(module, "eps")]
    return 2 * sum(kinds) >= len(kinds) > 0


def layer_multipliers(model: nn.Module, decay: float) -> dict[str, float]:
    """Return what the learning rate of each part of a model of timm is multiplied by: *decay* for each layer above it.

    By timm's own order of layers (``group_matcher``). Parts are named as briefly as mmcv's substring search allows:
    ``blocks.3.`` for all parameters of a block.
    """
    from timm.models import group_parameters

    if not hasattr(model, "group_matcher"):
        return {}
    layers: dict[str, int] = group_parameters(model, cast(Any, model).group_matcher(coarse=False), reverse=True)
    count = 1 + max(layers.values())
    # Networks of more layers get what one of so many has, from the first to the last.
    step = min(1.0, FAST.decaying_layers / count)
    result = {}
    for name, layer in layers.items():
        parts = name.split(".")
        prefixes = [".".join(parts[:depth]) + "." for depth in range(1, len(parts))]
        uniform = (
            prefix for prefix in prefixes if {layers[other] for other in layers if other.startswith(prefix)} == {layer}
        )
        result[next(uniform, name)] = round(decay ** (step * (count - layer)), 6)  # the head is the layer above
    return result
