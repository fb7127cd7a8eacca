"""The fast recipe: what it makes of a base config. What each choice gains and costs: docs/fast.md."""

from __future__ import annotations

import re
from importlib.metadata import version
from typing import Any

from scripts.lib.base.problems import UserError
from scripts.lib.model import config_patches as patches
from scripts.lib.runs import config_file

EPOCHS = 8
BATCH_SIZE = 32
LEARNING_RATE = 5e-4  # AdamW, for BATCH_SIZE
#: For families that are normalised by layers, not by batches: what is usual for their fine-tuning; not measured here.
GENTLE_LEARNING_RATE = 5e-5
GENTLE = (
    "conformer", "convnext", "deit", "efficientformer", "mlp-mixer", "mvit", "poolformer", "swin", "t2t", "tnt",
    "twins", "vit",
)  # fmt: skip
WEIGHT_DECAY = 0.05
WARMUP_EPOCHS = 1.0
LEAST_CROP = 0.5  # of the area of an image
LABEL_SMOOTHING = 0.1
PATIENCE = 4
#: What is evaluated and kept is an average of the weights over about so many epochs, back from now.
AVERAGED_EPOCHS = 1.0
#: The share of the newest weights in it, at most: in a training of few steps it must leave its start.
MOST_MOMENTUM = 0.1

#: Pixels a side, where neither the user nor the base config says otherwise: half the work of 224.
IMAGE_SIZE = 160
#: The part of the shorter side that the centre crop keeps. ImageNet's 224 of 256 throws a quarter of an image away.
CROPPED = 1.0
#: Families whose weights fit one size of image: their names say which, or it is 224.
ONE_SIZE = (
    "conformer", "deit", "efficientformer", "hornet", "mlp-mixer", "mvit", "repmlp", "swin", "t2t", "tnt", "twins",
    "vgg", "vit",
)  # fmt: skip
_SIZE_IN_NAME = re.compile(r"(?<=[-_])(\d{3})(?:px)?(?=$|[-_])")


def chosen_recipe(recipe: str, checkpoint: object) -> str:
    """Return ``fast`` or ``tutorial``: what an experiment's *recipe* stands for with its *checkpoint*."""
    if recipe == "auto":
        return "tutorial" if checkpoint == "none" else "fast"
    return recipe


def image_size(base_config: str) -> int:
    """Return the pixels a side that ``image_size: auto`` stands for, by the name of the base config."""
    if "cifar" in base_config:
        return 32
    if not base_config.startswith(ONE_SIZE):
        return IMAGE_SIZE
    sizes = [int(found) for found in _SIZE_IN_NAME.findall(base_config) if int(found) % 16 == 0]
    return sizes[-1] if sizes else 224


def learning_rate(base_config: str) -> float:
    """Return the learning rate for a batch of BATCH_SIZE, by the name of the base config."""
    return GENTLE_LEARNING_RATE if base_config.startswith(GENTLE) else LEARNING_RATE


def packed_edge(size: int) -> int:
    """Return the pixels of the shorter side of a packed image for a network that sees *size* pixels a side."""
    return round(size / CROPPED)


def make_fast(config: config_file.Config, size: int, packed: str, iterations_of_epoch: int) -> None:
    """Change a config, in place, into the fast recipe's: gentle fine-tuning from the weights of a warm start.

    Images come from a pack as bytes and are normalised in the model's own memory. Statistics of batch normalisation
    stay those that the head was fitted to. AdamW, whose steps do not grow with the gradient: with frozen statistics it
    is large, and SGD at any rate that gets somewhere destroys what pretraining made. The learning rate warms up and
    falls as a cosine. What is evaluated and kept is a moving average of the weights: else the first steps at a large
    rate would lose, for some epochs, what the start knows. The start is the first to be the best, and training ends
    when nothing better comes. What the base does to make long training harder (mixup and the like) is left out.

    Parameters
    ----------
    size : pixels a side that the network sees.
    packed : folder that pack_images made of the train and val splits.
    iterations_of_epoch : training steps.

    Raises
    ------
    UserError : a base for grey images.
    """
    model, data = config["model"], config["data"]
    norm = _normalisation(data["test"]["pipeline"])
    if patches.class_accepts(model["backbone"], "norm_eval"):
        model["backbone"]["norm_eval"] = True
    model.pop("train_cfg", None)
    loss = model["head"].get("loss")
    if loss and loss["type"] == "CrossEntropyLoss":
        # Not always in the head: VGG has it in the backbone.
        classes = next(node["num_classes"] for node in config_file.nodes(model) if "num_classes" in node)
        smooth = {"type": "LabelSmoothLoss", "label_smooth_val": LABEL_SMOOTHING, "num_classes": classes}
        model["head"]["loss"] = {**smooth, "mode": "original", "loss_weight": loss.get("loss_weight", 1.0)}

    load = {"type": "LoadPackedImage", "folder": packed}
    image = {"type": "ImageToTensor", "keys": ["img"]}
    crop = {"type": "CenterCrop", "crop_size": size}
    data["train"]["pipeline"] = [
        dict(load),
        # The flip first: it gives a view with negative strides, which torch refuses, and the crop makes a new image.
        {"type": "RandomFlip", "flip_prob": 0.5, "direction": "horizontal"},
        {"type": "RandomResizedCrop", "size": size, "scale": (LEAST_CROP, 1.0)},
        dict(image),
        {"type": "ToTensor", "keys": ["gt_label"]},
        {"type": "Collect", "keys": ["img", "gt_label"]},
    ]
    collect = {"type": "Collect", "keys": ["img"]}
    data["val"]["pipeline"] = [dict(load), dict(crop), dict(image), dict(collect)]
    data["test"]["pipeline"] = [
        {"type": "LoadImageFromFile"},
        {"type": "Resize", "size": (packed_edge(size), -1), "backend": "pillow"},
        dict(crop),
        {"type": "Normalize", **norm},
        dict(image),
        dict(collect),
    ]

    kept = {key: config["optimizer"][key] for key in ("lr", "paramwise_cfg") if key in config["optimizer"]}
    config["optimizer"] = {"type": "AdamW", "weight_decay": WEIGHT_DECAY, **kept}
    if has_fused_optimizer(config["runner"]["device"], version("torch")):
        config["optimizer"]["fused"] = True
    config["lr_config"] = {
        "policy": "CosineAnnealing",
        "min_lr": 0,
        "by_epoch": False,
        "warmup": "linear",
        "warmup_iters": max(1, round(WARMUP_EPOCHS * iterations_of_epoch)),
        "warmup_ratio": 0.01,
    }
    average = {
        "type": "EMAHook",
        "momentum": min(MOST_MOMENTUM, 1 / (AVERAGED_EPOCHS * iterations_of_epoch)),
        "priority": "ABOVE_NORMAL",
    }
    others = [hook for hook in config.get("custom_hooks") or [] if hook["type"] != "EMAHook"]
    config["custom_hooks"] = [*others, average]
    config["runner"] |= {"evaluate_first": True, "patience": PATIENCE, "channels_last": True, "normalize": norm}
    if model["backbone"].get("norm_eval"):
        config["runner"]["fold_norm"] = True


def has_fused_optimizer(device: str, torch_version: str) -> bool:
    """Tell whether torch's AdamW can do all weights in one go: on a CPU since 2.4."""
    major, minor = torch_version.split(".")[:2]
    return device == "cuda" or (int(major), int(minor)) >= (2, 4)


def _normalisation(pipeline: list[config_file.Config]) -> dict[str, Any]:
    """Return the arguments of the pipeline's ``Normalize``."""
    step = next((step for step in pipeline if step["type"] == "Normalize"), None)
    if step is None or len(step["mean"]) != 3:
        raise UserError("recipe: fast is for colour images, and this base_config is not: set recipe: tutorial")
    return {"mean": list(step["mean"]), "std": list(step["std"]), "to_rgb": step.get("to_rgb", True)}
