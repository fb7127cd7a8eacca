"""Convert the weights of a Keras MobileNetV2 (alpha 1.0, HDF5) into those of mmcls's MobileNetV2 backbone.

The two networks have the same layers but differ in four ways. Three are undone exactly in the weights:

* Kernels lie as (height, width, in, out), depthwise ones as (height, width, channels, 1); PyTorch wants (out, in,
  height, width) and (channels, 1, height, width).
* BatchNorm divides by sqrt(variance + epsilon), with 1e-3 in Keras and 1e-5 in mmcls: the difference is added to every
  running_var.
* Keras scales pixels p (RGB, 0-255) to p / 127.5 - 1, mmcls to n = (p - mean) / std. So the kernel of the first
  convolution is multiplied by std / 127.5 a channel, and the constant that remains, the sum of kernel * (mean / 127.5 -
  1), is subtracted from its BatchNorm's running_mean.

The fourth cannot: in its five convolutions of stride 2 Keras pads images of even size at the bottom and right only,
mmcls on all sides. mmcls therefore sees an image as Keras sees it moved by 1 + 2 + 4 + 8 + 16 = 31 pixels to the
bottom right. Away from the border the activations are the same, only those within reach of it differ (there mmcls also
pads with its mean colour, Keras with mid-grey). An image is recognized wherever it lies, so this costs little.

The classification head is left out: it belongs to other classes.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from scripts.lib.base.console import run_cli
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.model.checkpoint_file import printable, write_checkpoint

logger = logging.getLogger(__name__)
#: Mean and standard deviation a channel (RGB) by which mmcls's ImageNet configs normalize pixels of 0-255.
MMCLS_MEAN = np.array([123.675, 116.28, 103.53])
MMCLS_STD = np.array([58.395, 57.12, 57.375])
#: Epsilon of BatchNorm in mmcls (PyTorch's default), and in Keras's MobileNetV2 where the file does not tell.
MMCLS_EPSILON = 1e-5
KERAS_EPSILON = 1e-3
#: Expansion, channels, blocks of each stage at alpha 1.0 (Sandler et al. 2018, table 2; mmcls's arch_settings).
STAGES = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
FIRST_CHANNELS, LAST_CHANNELS = 32, 1280
BATCH_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


@dataclass(frozen=True)
class Layer:
    """One convolution with its BatchNorm, in both networks. ``shape``: the Keras kernel's."""

    mmcls: str
    conv: str
    batch_norm: str
    shape: tuple[int, int, int, int]

    @property
    def depthwise(self) -> bool:
        return self.shape[3] == 1

    @property
    def channels(self) -> int:
        return self.shape[2] if self.depthwise else self.shape[3]


def layers() -> Iterator[Layer]:
    """Yield the 52 convolutions of MobileNetV2 (alpha 1.0) from input to output."""
    yield Layer("conv1", "Conv1", "bn_Conv1", (3, 3, 3, FIRST_CHANNELS))
    channels, block = FIRST_CHANNELS, 0
    for stage, (expansion, out, count) in enumerate(STAGES, start=1):
        for index in range(count):
            keras = f"block_{block}" if block else "expanded_conv"
            hidden = channels * expansion
            parts = [("depthwise", (3, 3, hidden, 1)), ("project", (1, 1, hidden, out))]
            if expansion > 1:
                parts.insert(0, ("expand", (1, 1, channels, hidden)))
            for position, (role, shape) in enumerate(parts):
                name = f"{keras}_{role}"
                yield Layer(f"layer{stage}.{index}.conv.{position}", name, f"{name}_BN", shape)
            channels, block = out, block + 1
    yield Layer("conv2", "Conv_1", "Conv_1_bn", (1, 1, channels, LAST_CHANNELS))


def convert(path: Path, name: str) -> dict[str, torch.Tensor]:
    """Return the weights of a Keras file under mmcls's names (``backbone.*``), float32.

    Parameters
    ----------
    path : HDF5 file of a whole Keras model (2 or 3) or of its weights.
    name : what to call it in messages.

    Raises
    ------
    UserError : no HDF5 file, damaged, or not a MobileNetV2 of alpha 1.0.
    """
    try:
        with h5py.File(path, "r") as file:
            return convert_arrays(read_arrays(file, name), batch_norm_epsilon(file))
    except (OSError, RuntimeError, KeyError, ValueError) as error:  # what h5py raises on damaged files
        if isinstance(error, OSError) and error.errno:
            raise
        raise UserError(f"{name} is a damaged or truncated HDF5 file ({printable(error)})", "fetch it again") from error


def convert_arrays(arrays: Mapping[str, np.ndarray], epsilon: float = KERAS_EPSILON) -> dict[str, torch.Tensor]:
    """Return mmcls's weights from Keras's arrays, which are named ``layer/weight``; see the module's docstring."""
    state: dict[str, torch.Tensor] = {}
    for layer in layers():
        kernel = arrays[f"{layer.conv}/kernel"].astype(np.float64)
        norm = {ours: arrays[f"{layer.batch_norm}/{theirs}"].astype(np.float64) for theirs, ours in BATCH_NORM.items()}
        norm["running_var"] = norm["running_var"] + (epsilon - MMCLS_EPSILON)
        if layer.mmcls == "conv1":
            kernel, constant = fold_input_scaling(kernel)
            norm["running_mean"] = norm["running_mean"] - constant
        kernel = kernel.transpose((2, 3, 0, 1) if layer.depthwise else (3, 2, 0, 1))
        prefix = f"backbone.{layer.mmcls}"
        state[f"{prefix}.conv.weight"] = _float32(kernel)
        for key, values in norm.items():
            state[f"{prefix}.bn.{key}"] = _float32(values)
        state[f"{prefix}.bn.num_batches_tracked"] = torch.tensor(0, dtype=torch.int64)
    return state


def fold_input_scaling(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a kernel for mmcls's input, and the constant by which its output is then too small.

    Parameters
    ----------
    kernel : (height, width, 3, out), for input scaled to p / 127.5 - 1.

    Returns
    -------
    kernel : (height, width, 3, out), for input normalized to (p - mean) / std.
    constant : (out,), to be added to the output, or subtracted from the running mean behind it.
    """
    folded = kernel * (MMCLS_STD / 127.5)[:, None]
    constant = np.einsum("hwio,i->o", kernel, MMCLS_MEAN / 127.5 - 1)
    return folded, constant


def read_arrays(file: h5py.File, name: str) -> dict[str, np.ndarray]:
    """Return the arrays of a MobileNetV2, named ``layer/weight``, wherever in the file they stand.

    Only arrays of the expected names and shapes are read, so a hostile file cannot make this run out of memory.
    """
    datasets: dict[str, h5py.Dataset] = {}

    def visit(path: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            layer, weight = path.split("/")[-2:] if "/" in path else ("", path)
            weight = weight.removesuffix(":0").replace("depthwise_kernel", "kernel")  # Keras 2's names
            datasets.setdefault(f"{layer}/{weight}", item)

    # A whole model keeps them in model_weights, beside the optimizer's; visititems follows no link out of the file.
    file.get("model_weights", file).visititems(visit)
    expected: dict[str, tuple[int, ...]] = {}
    for layer in layers():
        expected[f"{layer.conv}/kernel"] = layer.shape
        expected.update({f"{layer.batch_norm}/{weight}": (layer.channels,) for weight in BATCH_NORM})
    for key, shape in expected.items():
        dataset = datasets.get(key)
        if dataset is None:
            raise UserError(f"{name} is no Keras MobileNetV2: it has no {key}")
        if dataset.shape != shape:
            raise UserError(
                f"{name}: {key} has the shape {dataset.shape}, expected {shape}; only MobileNetV2 with alpha 1.0 "
                "can be converted"
            )
        if dataset.external or dataset.is_virtual or dataset.dtype.kind != "f":
            raise UserError(f"{name}: {key} is no array of floating-point numbers in the file itself")
    return {key: datasets[key][()] for key in expected}


def batch_norm_epsilon(file: h5py.File) -> float:
    """Return BatchNorm's epsilon from the model's description in the file, Keras's usual 1e-3 where it has none."""
    try:
        description = json.loads(file.attrs.get("model_config", "null"))
    except json.JSONDecodeError:
        return KERAS_EPSILON
    return _find_epsilon(description) or KERAS_EPSILON


def _find_epsilon(node: Any) -> float | None:
    if isinstance(node, list):
        return next((epsilon for item in node if (epsilon := _find_epsilon(item))), None)
    if not isinstance(node, dict):
        return None
    config = node.get("config")
    if node.get("class_name") == "BatchNormalization" and isinstance(config, dict) and "epsilon" in config:
        return float(config["epsilon"])
    return _find_epsilon(list(node.values()))


def _float32(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    description = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m scripts.lib.model.convert_keras", description=description)
    parser.add_argument("keras", type=Path, help="HDF5 file (.h5) of the Keras model or of its weights")
    parser.add_argument("--output", type=Path, required=True, help="checkpoint (.pth) to write")
    return parser


def main(args: argparse.Namespace) -> None:
    """Convert one file."""
    weights = convert(args.keras, str(args.keras))
    write_checkpoint(weights, args.output)
    logger.info("converted %s of %s to %s", plural(len(weights), "tensor"), args.keras, args.output)


if __name__ == "__main__":
    run_cli(build_parser, main)
