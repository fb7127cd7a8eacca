"""What the peers share: their job, the pretrained weights, the clock. Runs in its own .venv, without mimflow."""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

#: Features of the peer's model and of mmcls's may differ by this part of their greatest value: rounding, no more.
TOLERANCE = 1e-3


class PeerError(Exception):
    """What stops a peer; its message is one line."""


def import_torchvision() -> None:
    """Import torchvision, where torch is a CPU build and PyPI's torchvision is not, too.

    Its library of detection operators does not load there, and its import stops because they are unknown. They are
    declared here, and never used: classification needs none of them.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import_torchvision.library = library  # type: ignore[attr-defined]  # what it declares ends with it
        import torchvision  # noqa: F401


def take_weights(model: nn.Module, reference: dict[str, Any]) -> None:
    """Load pretrained weights by the order of the convolutions and of the batch normalisations, in place.

    Parameters
    ----------
    reference : ``convolutions``: weights (out, in, height, width); ``norms``: (weight, bias, mean, variance) each.

    Raises
    ------
    PeerError : another number of layers, or another shape.
    """
    convolutions = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d)]
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    needed = (len(reference["convolutions"]), len(reference["norms"]))
    if (len(convolutions), len(norms)) != needed:
        raise PeerError(f"the model has {len(convolutions)} convolutions and {len(norms)} norms, the weights {needed}")
    with torch.no_grad():
        for convolution, weight in zip(convolutions, reference["convolutions"], strict=True):
            if convolution.weight.shape != weight.shape or convolution.bias is not None:
                raise PeerError(
                    f"a convolution is {tuple(convolution.weight.shape)}, its weights {tuple(weight.shape)}"
                )
            convolution.weight.copy_(weight)
        for norm, tensors in zip(norms, reference["norms"], strict=True):
            targets = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
            for target, tensor in zip(targets, tensors, strict=True):
                target.copy_(tensor)
            norm.eps = reference["eps"]


def check_features(features: Callable[[torch.Tensor], torch.Tensor], reference: dict[str, Any]) -> None:
    """Compare *features* of the reference's images with mmcls's; print the greatest difference.

    Raises
    ------
    PeerError : they differ by more than rounding.
    """
    with torch.no_grad():
        computed = features(reference["images"])
    difference = (computed - reference["features"]).abs().max().item()
    scale = reference["features"].abs().max().item()
    print(f"features against mmcls's: greatest difference {difference:.2e}, greatest value {scale:.2e}", flush=True)
    if not difference <= TOLERANCE * scale:
        raise PeerError(f"the same weights give other features: difference {difference:.2e} of {scale:.2e}")


class Record:
    """The clock of a row: checkpoints with their time and accuracy, written as JSON at its end."""

    def __init__(self, job: SimpleNamespace) -> None:
        self.job = job
        self.rates: list[float] = []
        self.checkpoints: list[dict[str, Any]] = []
        self.begun = 0.0

    def begin(self) -> None:
        """Start the clock: the next thing that happens is that the first image is opened."""
        self.begun = time.time()

    def add(self, name: str, accuracy: float, weights: dict[str, torch.Tensor]) -> None:
        """Save *weights* and note the checkpoint, with its accuracy on val, 0 to 1."""
        path = Path(self.job.weights_folder) / f"{name.replace(' ', '_')}.pth"
        torch.save(weights, path)
        self.checkpoints.append({"name": name, "at": time.time(), "val_accuracy": accuracy, "weights": str(path)})
        print(f"{name}: {time.time() - self.begun:.1f} s, val accuracy {100 * accuracy:.2f} %", flush=True)

    def result(self) -> dict[str, Any]:
        """Return what the bench reads."""
        gpu_peak = torch.cuda.max_memory_allocated() if self.job.device == "cuda" else 0
        rates = {"images_per_second": self.rates, "gpu_peak": gpu_peak}
        return {"begun": self.begun, "checkpoints": self.checkpoints, **rates}


def run(tasks: dict[str, Callable[[SimpleNamespace], dict[str, Any]]]) -> None:
    """Do the job that stands as JSON on the command line, and write its result as JSON to ``output``.

    Parameters
    ----------
    tasks : train, test and throughput: each takes the job and returns the result.
    """
    job = SimpleNamespace(**json.loads(sys.argv[1]))
    torch.set_num_threads(job.threads)
    torch.backends.cudnn.benchmark = True  # a CPU knows nothing of it
    random.seed(job.seed)
    np.random.seed(job.seed)
    torch.manual_seed(job.seed)
    try:
        result = tasks[job.task](job)
    except PeerError as error:
        sys.exit(f"error: {error}")
    Path(job.output).write_text(json.dumps(result), encoding="utf-8")
