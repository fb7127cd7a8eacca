"""A finished run in miniature: a small network with random weights, a few images, and the files that a run leaves."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcls.models import build_classifier
from mmcv import ConfigDict
from PIL import Image

from scripts.lib.runs.config_file import render

torch.set_num_threads(1)  # two threads that wait for each other on a busy machine are ten times slower

CLASSES = ["苹果", 'it\'s "quoted", really', "$(touch x) $y$", "<script>alert(1)<%2Fscript>", "NA", "01", "梨"]
MODEL: dict[str, Any] = {
    "type": "ImageClassifier",
    "backbone": {"type": "MobileNetV2", "widen_factor": 0.1},
    "neck": {"type": "GlobalAveragePooling"},
    "head": {"type": "LinearClsHead", "num_classes": len(CLASSES), "in_channels": 1280, "topk": (1, 5)},
}
PIPELINE: list[dict[str, Any]] = [
    {"type": "LoadImageFromFile"},
    {"type": "Resize", "size": (40, -1), "backend": "pillow"},
    {"type": "CenterCrop", "crop_size": 32},
    {"type": "Normalize", "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "to_rgb": True},
    {"type": "ImageToTensor", "keys": ["img"]},
    {"type": "Collect", "keys": ["img"]},
]


@dataclass(frozen=True)
class TinyRun:
    folder: Path
    images: Path
    split: Path
    classes: Path

    def options(self, output: Path) -> list[str]:
        """The command line of predict_images for this run."""
        return [
            *("--config", str(self.folder / "config.py"), "--checkpoint", str(self.folder / "best.pth")),
            *("--images", str(self.images), "--split", str(self.split), "--classes", str(self.classes)),
            *("--output", str(output), "--device", "cpu", "--threads", "1"),
        ]


def photograph(seed: int, size: tuple[int, int] = (60, 48)) -> Image.Image:
    """Smooth colours that differ with *seed*."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def make_run(
    root: Path, per_class: int = 3, model: dict[str, Any] = MODEL, classes: Sequence[str] = CLASSES
) -> TinyRun:
    """Make a run with *per_class* images a class, two in three of them in the order of the classes."""
    model = {**model, "head": {**model["head"], "num_classes": len(classes)}}
    run = TinyRun(
        root / "demo" / "tiny" / "seed0", root / "demo" / "images", root / "demo" / "test.txt", root / "classes"
    )
    run.folder.mkdir(parents=True)
    lines = []
    for label, name in enumerate(classes):
        (run.images / name).mkdir(parents=True)
        for number in range(per_class):
            photograph(100 * label + number).save(run.images / name / f"a {number}.png")
            lines.append(f"{name}/a {number}.png {label}")
    run.split.write_text("".join(f"{line}\n" for line in reversed(lines)), encoding="utf-8")
    run.classes.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
    dataset = {"type": "CustomDataset", "data_prefix": "unused", "classes": list(classes), "pipeline": PIPELINE}
    config = {"model": model, "data": {"test": dataset}, "runner": {"device": "cpu", "threads": 1}, "seed": 0}
    (run.folder / "config.py").write_text(render(config, "mim train mmcls x.py", "tiny"), encoding="utf-8")
    weights = random_weights(model)
    torch.save({"meta": {"epoch": 1, "CLASSES": list(classes)}, "state_dict": weights}, run.folder / "best.pth")
    metrics = {"dataset": "demo", "experiment": "tiny", "seed": 0, "accuracy_top1": 0.5}
    (run.folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    write_train_log(run.folder / "train_log.csv")
    return run


def random_weights(config: dict[str, Any] = MODEL) -> dict[str, torch.Tensor]:
    """Weights that tell images apart: normalisation fitted to noise, and a head of large random numbers."""
    torch.manual_seed(0)
    model = build_classifier(ConfigDict(copy.deepcopy(config)))
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train().extract_feat(torch.randn(16, 3, 32, 32))
        model.head.fc.weight.normal_(0, 0.1)
        for name, parameter in model.named_parameters():
            if name.endswith("gamma"):  # ConvNeXt's layer scale of 1e-6 would hide what its layers do
                parameter.fill_(0.5)
    return model.state_dict()


def write_train_log(path: Path, epochs: int = 2, val_loss: str = "") -> None:
    """A train_log.csv whose validation accuracy rises to 0.8 and whose epochs take 30 + 2 seconds at 20 images/s."""
    head = "epoch,iteration,learning_rate,train_loss,val_accuracy,val_loss,images_per_second,train_seconds,val_seconds"
    rows = [
        f"{epoch},{10 * epoch},0.01,{2 / epoch},{0.8 * epoch / epochs},{val_loss},20.0,30.0,2.0,1"
        for epoch in range(1, epochs + 1)
    ]
    path.write_text("\n".join([head + ",is_best", *rows]) + "\n", encoding="utf-8")
