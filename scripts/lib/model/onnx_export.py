"""A trained classifier as one ONNX graph that takes bytes, its preprocessing described for who runs it."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from scripts.lib.base.console import one_line
from scripts.lib.base.problems import UserError
from scripts.lib.data.reading import Reading
from scripts.lib.model.config_patches import LOADERS
from scripts.lib.model.inference import feature_hooks
from scripts.lib.runs.onnx_model import (
    BGR,
    CERTAINTY,
    DISTANCE,
    GREY,
    INPUT,
    INSIDE,
    OUTPUT,
    OUTSIDE,
    RGB,
    Preprocessing,
)

#: What torch 2.0 writes and onnxruntime 1.16 reads, and all later ones too.
OPSET = 17
#: What to do about a model that ONNX cannot express.
REMEDY = "`export: false` in the experiment goes on without it"
#: Steps of a pipeline that only change how the image is held.
_PACKING = ("ImageToTensor", "Collect", "ToTensor")


class Classifier(nn.Module):
    """A classifier of mmcls as a function from images to probabilities.

    Parameters
    ----------
    model : one of mmcls's, in eval mode.
    preprocessing : what its images went through, the normalisation OUTSIDE.
    inside : take bytes, of shape (n, height, width, channels) in the order of :func:`moved_inside`, and normalise them.
    known : directions of training images, as :func:`scripts.lib.runs.certainty.distances` takes them: tell how far from
        these an image is, too.
    num_classes : with *known*: how many classes the model knows.
    """

    mean: torch.Tensor
    factor: torch.Tensor
    known: torch.Tensor | None

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        inside: bool = False,
        known: np.ndarray | None = None,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.register_buffer("known", None if known is None else torch.from_numpy(known))
        self.model = model
        self.inside = inside
        self.flipped = preprocessing.channel_order == BGR
        outside = moved_inside(preprocessing)
        self.register_buffer("mean", torch.tensor(outside.mean))
        self.register_buffer("factor", torch.tensor(outside.std, dtype=torch.float64).reciprocal().float())

    def forward(self, images: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Return float32 probabilities of shape (n, classes); of a model with ``known`` also distances, (n,)."""
        if self.inside:
            images = ((images.float() - self.mean) * self.factor).permute(0, 3, 1, 2)
            if self.flipped:
                images = images.flip(1)
        if self.known is None:
            return self.model(img=images, return_loss=False, post_process=False)
        noted: list[torch.Tensor] = []
        with feature_hooks(self.model, self.num_classes, noted.append):
            probabilities = self.model(img=images, return_loss=False, post_process=False)
        length = noted[0].norm(dim=1, keepdim=True).clamp(min=1e-12)
        return probabilities, 1 - (noted[0] / length @ self.known.float().T).amax(1)


def moved_inside(preprocessing: Preprocessing) -> Preprocessing:
    """Return what is left to be done outside of a model that normalises: bytes in RGB, or GREY."""
    if preprocessing.channel_order != BGR:
        return replace(preprocessing, normalisation=INSIDE)
    mean, std = preprocessing.mean[::-1], preprocessing.std[::-1]
    return replace(preprocessing, mean=mean, std=std, channel_order=RGB, normalisation=INSIDE)


def describe_pipeline(pipeline: Sequence[Mapping[str, Any]]) -> Preprocessing:
    """Return what a test pipeline of mmcls does to an image, in the words of model.onnx.

    Raises
    ------
    UserError : a step that the metadata of a model.onnx have no words for.
    """
    steps: list[dict[str, Any]] = []
    normalize: Mapping[str, Any] = {}
    grey, reading = False, Reading()
    for step in pipeline:
        kind = step["type"]
        if normalize and kind not in _PACKING:
            raise UserError(f"data.test.pipeline: model.onnx cannot describe {kind} after Normalize; {REMEDY}")
        if kind in LOADERS and step.get("color_type", "color") in ("color", "grayscale"):
            grey, reading = step.get("color_type") == "grayscale", Reading.of_arguments(step)
        elif kind == "Resize" and step.get("adaptive_side", "short") == "short":
            steps.append({"step": "resize", **_resized(step["size"]), **_resampling(step)})
        elif kind == "CenterCrop" and step.get("efficientnet_style"):
            size = step["crop_size"]
            steps.append({"step": "crop", "share": size / (size + step.get("crop_padding", 32))})
            steps.append({"step": "resize", "height": size, "width": size, **_resampling(step)})
        elif kind == "CenterCrop":
            height, width = _pair(step["crop_size"])
            steps.append({"step": "crop", "height": height, "width": width})
        elif kind == "MakeSquare" and "size" in step:
            steps.append(_square(step))
        elif kind == "Normalize":
            normalize = step
        elif kind not in _PACKING:
            raise UserError(f"data.test.pipeline: model.onnx cannot describe its step {dict(step)}; {REMEDY}")
    colours = RGB if normalize.get("to_rgb", bool(normalize)) else BGR
    channels = 1 if grey else 3
    mean = [float(value) for value in normalize.get("mean", [0.0] * channels)]
    std = [float(value) for value in normalize.get("std", [1.0] * channels)]
    order = GREY if grey else colours
    return Preprocessing(steps, mean, std, order, OUTSIDE, reading.bit_depth, reading.background)


def _square(step: Mapping[str, Any]) -> dict[str, Any]:
    size, interpolation = step["size"], step.get("interpolation", "bilinear")
    if step["fit"] == "squash":
        return {"step": "resize", "height": size, "width": size, "library": "pillow", "interpolation": interpolation}
    background = list(Reading.of_arguments(step).background)
    return {"step": "pad", "pixels": size, "interpolation": interpolation, "background": background}


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _resized(size: int | Sequence[int]) -> dict[str, int]:
    height, width = _pair(size)
    return {"shorter_side": height} if width == -1 else {"height": height, "width": width}


def _resampling(step: Mapping[str, Any]) -> dict[str, str]:
    library = "pillow" if step.get("backend", "cv2") == "pillow" else "opencv"
    return {"interpolation": step.get("interpolation", "bilinear"), "library": library}


def export(classifier: Classifier, images: np.ndarray, path: Path, name: str) -> None:
    """Write *classifier* to *path* as ONNX: any number of images of one size, the weights in the file.

    Parameters
    ----------
    images : two or more, as the classifier takes them: the graph is what happens to them.
    name : what to call the model in messages.

    Raises
    ------
    UserError : ONNX has no words for what the model does.
    """
    # The other exporter, the default since torch 2.9, needs a package of its own and is not in torch 2.0.
    old_exporter: dict[str, Any] = (
        {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    )
    outputs = [OUTPUT] if classifier.known is None else [OUTPUT, DISTANCE]
    printed = io.StringIO()  # torch 2.0 prints a report, and all versions warn of each Python number in the graph
    with warnings.catch_warnings(), contextlib.redirect_stdout(printed), any_batch(classifier), written_out(classifier):
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                classifier,
                (torch.from_numpy(images),),
                str(path),
                input_names=[INPUT],
                output_names=outputs,
                dynamic_axes={name: {0: "batch"} for name in (INPUT, *outputs)},
                opset_version=OPSET,
                **old_exporter,
            )
        except Exception as error:  # RuntimeError, TypeError, ...: whatever the code of a model meets while traced
            if isinstance(error, OSError) and error.errno:  # the system's, as of a full disk; not the model's
                raise
            operator = re.search(r"operator '([^']+)'", str(error))
            reason = f"there is no {operator[1]} in opset {OPSET}" if operator else one_line(error)[:300]
            raise UserError(f"{name} cannot be exported to ONNX: {reason}; {REMEDY}") from error


@contextlib.contextmanager
def any_batch(model: nn.Module) -> Iterator[None]:
    """Let the attention of Swin transformers be traced for any number of images.

    mmcls computes that number as a Python integer, which then stands in the graph for ever.
    """
    from mmcls.models.utils import ShiftWindowMSA  # here, since mmcv's first import is noisy: inference silences it

    layers = [layer for layer in model.modules() if isinstance(layer, ShiftWindowMSA)]
    for layer in layers:
        layer.window_reverse = reverse_windows
    try:
        yield
    finally:
        for layer in layers:
            del layer.window_reverse  # what the class has shows again


@contextlib.contextmanager
def written_out(model: nn.Module) -> Iterator[None]:
    """Let the attention of timm's models be traced step by step: torch 2.0 has no ONNX for it as one operator."""
    layers: list[Any] = [layer for layer in model.modules() if getattr(layer, "fused_attn", False) is True]
    for layer in layers:
        layer.fused_attn = False
    try:
        yield
    finally:
        for layer in layers:
            layer.fused_attn = True


def reverse_windows(windows: torch.Tensor, height: int, width: int, size: int) -> torch.Tensor:
    """Put windows, shape (n * rows * columns, size, size, channels), together to maps (n, height, width, channels)."""
    rows, columns, channels = int(height) // size, int(width) // size, int(windows.shape[-1])
    maps = windows.view(-1, rows, columns, size, size, channels).permute(0, 1, 3, 2, 4, 5)
    return maps.reshape(-1, rows * size, columns * size, channels)


def finish(path: Path, metadata: Mapping[str, str], name: str) -> None:
    """Add *metadata* to the model in *path*, and check it.

    Raises
    ------
    UserError : it is not valid, or not what :func:`export` was to write.
    """
    model = onnx.load(path)
    onnx.helper.set_model_props(model, dict(metadata))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UserError(f"{name}: its ONNX graph is not valid: {one_line(error)[:300]}") from error
    size, classes = list(json.loads(metadata["image_size"]).values()), json.loads(metadata["class_names"])
    inside = metadata["normalisation"] == INSIDE
    channels = 1 if metadata["channel_order"] == GREY else 3
    shape = [*size, channels] if inside else [channels, *size]
    wanted = {
        "opset": [("", OPSET)],
        INPUT: ("UINT8" if inside else "FLOAT", ["batch", *shape]),
        OUTPUT: ("FLOAT", ["batch", len(classes)]),
        **({DISTANCE: ("FLOAT", ["batch"])} if CERTAINTY in metadata else {}),
    }
    written = {
        "opset": [(entry.domain, entry.version) for entry in model.opset_import],
        **{value.name: _type(value) for value in (*model.graph.input, *model.graph.output)},
    }
    if written != wanted:
        raise UserError(f"{name}: its ONNX graph has {written}, which should be {wanted}")
    onnx.save(model, path)


def _type(value: onnx.ValueInfoProto) -> tuple[str, list[str | int]]:
    tensor = value.type.tensor_type
    return onnx.TensorProto.DataType.Name(tensor.elem_type), [
        size.dim_param or size.dim_value for size in tensor.shape.dim
    ]
