"""The recipes: the numbers of both, each with its reason, and what the fast one makes of a config (docs/fast.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from scripts.lib.base.problems import UserError
from scripts.lib.model import config_patches as patches
from scripts.lib.model import config_reader, timm_models
from scripts.lib.runs import config_file


@dataclass(frozen=True)
class Tutorial:
    """The published tutorial's values (README, "Where the numbers come from")."""

    epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 0.005  # SGD, for MobileNetV2 and a batch of 32; it is not 0.045 / 8
    workers: int = 2  # in config.py, for training by hand: train_model sets them by the machine


@dataclass(frozen=True)
class Fast:
    """The fast recipe: a head fitted to frozen features, then fine-tuning."""

    epochs: int = 8  # at most: see patience
    batch_size: int = 32  # per GPU; the learning rate follows it
    learning_rate: float = 5e-4  # AdamW, for a batch of 32; SGD at any rate that gets somewhere loses the start
    gentle_learning_rate: float = 5e-5  # usual for families normalised by layers, not by batches; not measured here
    # Of models of timm that are normalised by layers: the rate of a layer, as a share of that of the layer above it.
    # Usual for fine-tuning transformers is 0.65 to 0.8 (BEiT, MAE, DINOv2); not measured here.
    layer_decay: float = 0.75
    decaying_layers: int = 14  # a ViT of 12 blocks with what is before and after them, for which that is usual
    weight_decay: float = 0.05  # usual with AdamW
    warmup_epochs: float = 1.0  # the first steps after a fitted head must be small
    warmup_ratio: float = 0.01  # of the learning rate, at the first step
    averaged_epochs: float = 1.0  # the average of the weights is over about so many epochs, back from now
    most_momentum: float = 0.1  # share of the newest weights in it, at most: of few steps it must leave its start
    patience: int = 4  # epochs without a better accuracy or loss on val: a late gain may be missed

    image_size: int = 160  # pixels a side, half the work of 224; where neither the user nor the family says otherwise
    kept: float = 1.0  # of the shorter side, by the centre crop; ImageNet's 224 of 256 throws a quarter away
    least_crop: float = 0.5  # of the area of an image: gentler than ImageNet's 8 %, whose crops pretraining has seen
    flip_probability: float = 0.5
    label_smoothing: float = 0.1  # as most modern recipes

    # The fitted head. Weights of the squared norm that are tried, over features of a mean variance of 1, until the loss
    # on val rises. With a few hundred images 1 was chosen (elpv, 280), with 1,839 the one after it. 10 is chosen where
    # the features say next to nothing about the classes, and each fit starts from the solution before it: without 10
    # all heads have other bits.
    penalties: tuple[float, ...] = (10.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
    max_iterations: int = 100  # of L-BFGS for one penalty; few fits use as many
    # The largest element of the gradient at which a fit has converged; the losses then differ in the fourth digit, and
    # a tenth of it takes twice the evaluations.
    tolerance: float = 5e-4


TUTORIAL = Tutorial()
FAST = Fast()
#: Families that are normalised by layers, not by batches.
GENTLE = (
    "conformer", "convnext", "deit", "efficientformer", "mlp-mixer", "mvit", "poolformer", "swin", "t2t", "tnt",
    "twins", "vit",
)  # fmt: skip
#: Families whose weights fit one size of image: their names say which, or it is 224.
ONE_SIZE = (
    "conformer", "deit", "efficientformer", "hornet", "mlp-mixer", "mvit", "repmlp", "swin", "t2t", "tnt", "twins",
    "vgg", "vit",
)  # fmt: skip
#: The families above by what mmcls calls their backbones: of a config file of the user's, the name says nothing.
FAMILIES = {
    "Conformer": "conformer", "ConvNeXt": "convnext", "DistilledVisionTransformer": "deit", "MViT": "mvit",
    "EfficientFormer": "efficientformer", "HorNet": "hornet", "MlpMixer": "mlp-mixer", "PCPVT": "twins",
    "PoolFormer": "poolformer", "RepMLPNet": "repmlp", "SVT": "twins", "SwinTransformer": "swin", "T2T_ViT": "t2t",
    "SwinTransformerV2": "swin", "TNT": "tnt", "VGG": "vgg", "VisionTransformer": "vit",
}  # fmt: skip
_SIZE_IN_NAME = re.compile(r"(?<=[-_])(\d{3})(?:px)?(?=$|[-_])")


def chosen_recipe(recipe: str, checkpoint: object, base_config: str = "") -> str:
    """Return ``fast`` or ``tutorial``: what an experiment's *recipe* stands for with its *checkpoint* and base config.

    Who writes a config file means its optimizer and pipelines, which only ``tutorial`` keeps.
    """
    if recipe == "auto":
        return "tutorial" if checkpoint == "none" or config_reader.is_file(base_config) else "fast"
    return recipe


def image_size(base_config: str) -> int:
    """Return the pixels a side that ``image_size: auto`` stands for, by the name of the base config."""
    if model := timm_models.find(base_config):
        return min(FAST.image_size, model.image_size) if model.any_size else model.image_size
    if config_reader.is_file(base_config):
        config = config_reader.read_base(base_config)
        size = patches.input_size(patches.unwrapped(config["data"]["test"])["pipeline"])
        return size if _family(base_config).startswith(ONE_SIZE) else min(FAST.image_size, size)
    if "cifar" in base_config:
        return 32
    if not base_config.startswith(ONE_SIZE):
        return FAST.image_size
    sizes = [int(digits) for digits in _SIZE_IN_NAME.findall(base_config) if int(digits) % 16 == 0]
    return sizes[-1] if sizes else 224


def learning_rate(base_config: str) -> float:
    """Return the learning rate for a batch of FAST.batch_size, by the family of a base config of mmcls."""
    return FAST.gentle_learning_rate if _family(base_config).startswith(GENTLE) else FAST.learning_rate


def _family(base_config: str) -> str:
    """Return a text that begins with the family of a base config, as :data:`GENTLE` and :data:`ONE_SIZE` have it."""
    if not config_reader.is_file(base_config):
        return base_config
    return FAMILIES.get(config_reader.read_base(base_config)["model"]["backbone"]["type"], "")


def cached_short_side(size: int) -> int:
    """Return the pixels of the short side of an image in the pixel cache of a network that sees *size* pixels."""
    return round(size / FAST.kept)


def make_fast(config: config_file.Config, size: int, pixel_cache: str, iterations_of_epoch: int) -> None:
    """Change a config, in place, into the fast recipe's: gentle fine-tuning from pretrained weights with a fitted head.

    Images come from a pixel cache as bytes and are normalised in the model's own memory. Statistics of batch
    normalisation stay those that the head was fitted to. AdamW, whose steps do not grow with the gradient: with frozen
    statistics it is large, and SGD at any rate that gets somewhere destroys what pretraining made. The learning rate
    warms up and falls as a cosine. What is evaluated and kept is a moving average of the weights: else the first steps
    at a large rate would lose, for some epochs, what the start knows. The start is the first to be the best, and
    training ends when nothing better comes. What the base does to make long training harder (mixup and the like) is
    left out.

    Parameters
    ----------
    size : pixels a side that the network sees.
    pixel_cache : folder that pack_images made of the train and val splits.
    iterations_of_epoch : training steps.

    Raises
    ------
    UserError : a base for grey images.
    """
    model, data = config["model"], config["data"]
    normalization, load_file = _normalization(data["test"]["pipeline"]), data["test"]["pipeline"][0]
    if patches.class_accepts(model["backbone"], "norm_eval"):
        model["backbone"]["norm_eval"] = True
    model.pop("train_cfg", None)
    _smooth_labels(model)
    for split, pipeline in _pipelines(size, pixel_cache, normalization, load_file).items():
        data[split]["pipeline"] = pipeline
    config["optimizer"] = _optimizer(config["optimizer"], config["runner"]["device"])
    config["lr_config"] = {
        "policy": "CosineAnnealing",
        "min_lr": 0,
        "by_epoch": False,
        "warmup": "linear",
        "warmup_iters": max(1, round(FAST.warmup_epochs * iterations_of_epoch)),
        "warmup_ratio": FAST.warmup_ratio,
    }
    momentum = min(FAST.most_momentum, 1 / (FAST.averaged_epochs * iterations_of_epoch))
    others = [hook for hook in config.get("custom_hooks") or [] if hook["type"] != "EMAHook"]
    config["custom_hooks"] = [*others, {"type": "EMAHook", "momentum": momentum, "priority": "ABOVE_NORMAL"}]
    config["runner"] |= {
        "evaluate_first": True,
        "patience": FAST.patience,
        "channels_last": True,
        "normalize": normalization,
    }
    if model["backbone"].get("norm_eval"):
        config["runner"]["fold_norm"] = True


def _smooth_labels(model: config_file.Config) -> None:
    """Smooth the labels of a cross entropy, in place; other losses stay."""
    loss = model["head"].get("loss")
    if loss and loss["type"] == "CrossEntropyLoss":
        # Not always in the head: VGG has it in the backbone.
        classes = next(node["num_classes"] for node in config_file.nodes(model) if "num_classes" in node)
        smooth = {"type": "LabelSmoothLoss", "label_smooth_val": FAST.label_smoothing, "num_classes": classes}
        model["head"]["loss"] = {**smooth, "mode": "original", "loss_weight": loss.get("loss_weight", 1.0)}


def _pipelines(
    size: int, pixel_cache: str, normalization: dict[str, Any], load_file: config_file.Config
) -> dict[str, list[config_file.Config]]:
    """Return the pipeline of each split: train and val read the *pixel_cache*, test reads the files by *load_file*."""
    load = {"type": "LoadPackedImage", "folder": pixel_cache}
    image = {"type": "ImageToTensor", "keys": ["img"]}
    crop = {"type": "CenterCrop", "crop_size": size}
    collect = {"type": "Collect", "keys": ["img"]}
    return {
        "train": [
            load,
            # The flip first: it gives a view with negative strides, which torch refuses; the crop makes a new image.
            {"type": "RandomFlip", "flip_prob": FAST.flip_probability, "direction": "horizontal"},
            {"type": "RandomResizedCrop", "size": size, "scale": (FAST.least_crop, 1.0)},
            dict(image),
            {"type": "ToTensor", "keys": ["gt_label"]},
            {"type": "Collect", "keys": ["img", "gt_label"]},
        ],
        "val": [dict(load), dict(crop), dict(image), dict(collect)],
        "test": [
            load_file,
            {"type": "Resize", "size": (cached_short_side(size), -1), "backend": "pillow"},
            crop,
            {"type": "Normalize", **normalization},
            image,
            collect,
        ],
    }


def _optimizer(base: config_file.Config, device: str) -> config_file.Config:
    """Return AdamW with the learning rate and the parameters' groups of the base's optimizer."""
    optimizer: config_file.Config = {"type": "AdamW", "weight_decay": FAST.weight_decay}
    optimizer |= {key: base[key] for key in ("lr", "paramwise_cfg") if key in base}
    if has_fused_optimizer(device, version("torch")):
        optimizer["fused"] = True
    return optimizer


def has_fused_optimizer(device: str, torch_version: str) -> bool:
    """Tell whether torch's AdamW can do all weights in one go: on a CPU since 2.4."""
    major, minor = torch_version.split(".")[:2]
    return device == "cuda" or (int(major), int(minor)) >= (2, 4)


def _normalization(pipeline: list[config_file.Config]) -> dict[str, Any]:
    """Return the arguments of the pipeline's ``Normalize``."""
    step = next((step for step in pipeline if step["type"] == "Normalize"), None)
    if step is None or len(step["mean"]) != 3:
        raise UserError("recipe: fast is for colour images, and this base_config is not: set recipe: tutorial")
    return {"mean": list(step["mean"]), "std": list(step["std"]), "to_rgb": step.get("to_rgb", True)}
