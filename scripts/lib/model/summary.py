"""The stages and layers of a model: output shapes, parameters, multiply-adds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from scripts.lib.base.problems import UserError
from scripts.lib.model.config_patches import LOADERS
from scripts.mmcls_plugins.hooks import forward_hooks
from scripts.mmcls_plugins.timm_backbone import TimmFeatures

#: Pixels a side of the image that is sent through the test pipeline to see what size the model gets.
LARGE = 2048
#: Pixels a side where the pipeline leaves an image as large as it is.
USUAL = 224
#: What a multiply-add counts as, where FLOPs are counted.
FLOPS = 2
#: Layers that do nothing when a model predicts.
IDLE = ("Identity", "Dropout", "Dropout2d", "DropPath")


@dataclass
class Layer:
    """A module of the network that has parameters of its own, computes, or is a leaf.

    Attributes
    ----------
    name : where it is in the model, e.g. ``backbone.layer1.0.conv.0``.
    kind : its class.
    shape : of its output for one image, without the batch; None where it was not called.
    parameters : its own, not those of modules inside.
    multiply_adds : of one image, its own.
    """

    name: str
    kind: str
    shape: list[int] | None
    parameters: int
    multiply_adds: int


@dataclass
class Stage:
    """A part of the network that people name, with its layers in the order in which an image meets them."""

    name: str
    kind: str
    shape: list[int] | None
    layers: list[Layer] = field(default_factory=list)

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        return sum(layer.multiply_adds for layer in self.layers)


def multiply_adds(operation: str, args: Sequence[Any], result: Any) -> int:
    """Return the multiplications that an operation adds up; 0 of all but convolutions and products of matrices.

    Parameters
    ----------
    operation : its name, ``aten::...``.
    args : what it gets, by position.
    result : what it returns.
    """
    name = operation.removeprefix("aten::")
    if name == "convolution":
        images, weight, transposed = args[0], args[1], args[6]
        return int((images if transposed else result).numel()) * math.prod(weight.shape[1:])
    if name in ("mm", "bmm"):
        return int(result.numel()) * int(args[0].shape[-1])
    if name in ("addmm", "baddbmm"):
        return int(result.numel()) * int(args[1].shape[-1])
    if name.startswith("_scaled_dot_product"):
        query, key, value = args[:3]
        return math.prod(query.shape[:-1]) * int(key.shape[-2]) * int(query.shape[-1] + value.shape[-1])
    return 0


@dataclass
class Trace:
    """What one image did on its way through a model: all by the name of the module, in the order of the first call."""

    shapes: dict[str, list[int] | None] = field(default_factory=dict)
    multiply_adds: dict[str, int] = field(default_factory=dict)


def trace(model: nn.Module, image: Tensor) -> Trace:
    """Send *image*, float32 of shape (1, channels, height, width), through *model* and note what happens.

    Operations are counted below the level of modules, so that none is left out that a module computes by itself, as
    attention does.
    """
    from torch.utils._python_dispatch import TorchDispatchMode

    recorded = Trace()
    inside = [""]

    class Counter(TorchDispatchMode):
        @classmethod
        def _should_skip_dynamo(cls) -> bool:
            return False  # else torch loads its compiler only to keep it away from this mode: 2 s

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            count = multiply_adds(func._schema.name, args, result)
            recorded.multiply_adds[inside[-1]] = recorded.multiply_adds.get(inside[-1], 0) + count
            return result

    def enter(name: str, _module: Any, _inputs: Any) -> None:
        recorded.shapes.setdefault(name, None)
        inside.append(name)

    def leave(name: str, _module: Any, _inputs: Any, result: Any) -> None:
        recorded.shapes[name] = shape_of(result)
        inside.pop()

    modules = list(model.named_modules())
    entering, leaving = ([(module, partial(hook, name)) for name, module in modules] for hook in (enter, leave))
    # With gradients, since without them torch computes whole transformer layers as one operation of its own.
    with forward_hooks(leaving, entering), Counter():
        model(img=image, return_loss=False)
    return recorded


def shape_of(output: Any) -> list[int] | None:
    """Return the shape of the first tensor in what a module returns, without the batch; None without one.

    Of several outputs of a backbone the last one is what goes on.
    """
    if isinstance(output, list | tuple):
        shapes = [shape for shape in map(shape_of, output) if shape]
        return shapes[0] if shapes else None
    return list(output.shape[1:]) if hasattr(output, "shape") and len(output.shape) else None


def describe(model: nn.Module, image: Tensor) -> list[Stage]:
    """Return the stages of *model* as one *image*, float32 of shape (1, channels, height, width), meets them.

    A stage is a child of the backbone, or the whole neck or head. A list of modules is none, those in it are; leaves
    that follow each other (a convolution, its normalisation, activation and pooling) are one. What a model or backbone
    has or computes by itself, such as a class token, is a stage too.
    """
    traced = trace(model, image)
    modules = dict(model.named_modules())
    called = {name: index for index, name in enumerate(traced.shapes)}
    layers: dict[str, list[Layer]] = {name: [] for name in _tops(model)}
    first_calls: dict[str, int] = {}
    for name in sorted(modules, key=lambda name: called.get(name, len(modules))):
        top = max((top for top in layers if not top or f"{name}.".startswith(f"{top}.")), key=len)
        first_calls.setdefault(top, called.get(name, len(modules)))
        if layer := _layer(name, modules[name], traced):
            layers[top].append(layer)
    stages: list[Stage] = []
    grown = False
    for top in sorted((top for top in layers if layers[top]), key=lambda top: first_calls[top]):
        kind, shape = type(modules[top]).__name__, traced.shapes.get(top) or layers[top][-1].shape
        is_leaf = next(modules[top].children(), None) is None and top.startswith("backbone.")
        name = top.removeprefix("backbone.").removeprefix("model.") or "model"
        if is_leaf and grown:
            stages[-1].name += f", {name}"
            stages[-1].kind += f", {kind}"
            stages[-1].shape = shape
            stages[-1].layers += layers[top]
        else:
            stages.append(Stage(name, kind, shape, layers[top]))
        grown = is_leaf
    return stages


def _tops(model: nn.Module) -> Iterator[str]:
    """Yield the names of the modules that a stage is made of."""
    yield ""
    for name, child in model.named_children():
        yield name
        if name == "backbone" and isinstance(child, TimmFeatures):
            yield f"{name}.model"
            yield from _flat_children(child.model, f"{name}.model")
        elif name == "backbone":
            yield from _flat_children(child, name)


def _flat_children(module: nn.Module, prefix: str) -> Iterator[str]:
    for name, child in module.named_children():
        # timm keeps its blocks or stages in a sequence, by these names.
        if isinstance(child, nn.ModuleList) or (name in ("blocks", "stages") and isinstance(child, nn.Sequential)):
            yield from _flat_children(child, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}"


def _layer(name: str, module: nn.Module, traced: Trace) -> Layer | None:
    """Return what is to be told of a module; None where it is only a frame around others, or idle."""
    kind = type(module).__name__
    parameters = sum(parameter.numel() for parameter in module.parameters(recurse=False))
    count = traced.multiply_adds.get(name, 0)
    is_active_leaf = name in traced.shapes and next(module.children(), None) is None and kind not in IDLE
    is_told = parameters or count or is_active_leaf
    return Layer(name, kind, traced.shapes.get(name), parameters, count) if is_told else None


def sample_image(config: Any) -> Tensor:
    """Return an image as the test pipeline of *config* gives it to the model: float32, (1, channels, height, width).

    Raises
    ------
    UserError : the pipeline does not run.
    """
    import numpy as np
    from mmcls.datasets.pipelines import Compose

    steps = [step for step in config.data.test.pipeline if step["type"] not in LOADERS]
    is_grey = any(step.get("color_type") == "grayscale" for step in config.data.test.pipeline)
    sized = any("size" in step or "crop_size" in step for step in steps)
    pixels = LARGE if sized else USUAL
    sample = {"img": np.zeros((pixels, pixels) if is_grey else (pixels, pixels, 3), np.uint8), "gt_label": np.array(0)}
    try:
        return Compose(steps)(sample)["img"].unsqueeze(0).float()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"data.test.pipeline of the config gives no image ({error!r}); look at its steps") from error


def summarise(config: Any, model: nn.Module, checkpoint: Path) -> dict[str, Any]:
    """Return model.json: what *model* is, has and computes for one image, in all and stage by stage.

    ``multiply_adds`` are those of convolutions, linear layers and products of matrices; ``flops`` twice as many.
    ``weights_bytes`` is the memory of parameters and buffers, ``checkpoint_bytes`` the size of the file.
    """
    image = sample_image(config)
    model.train()  # which freezes what the config wants frozen
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    model.eval()
    stages = describe(model, image)
    tensors = [*model.parameters(), *model.buffers()]
    total = sum(stage.multiply_adds for stage in stages)
    sections = [name for name in ("backbone", "neck", "head") if config.model.get(name)]
    return {
        "model": {name: described(config.model[name]) for name in sections},
        "input": list(image.shape[1:]),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "parameters_trainable": trainable,
        "multiply_adds": total,
        "flops": FLOPS * total,
        "weights_bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        "checkpoint_bytes": checkpoint.stat().st_size,
        "stages": [_record(stage) | {"layers": [_record(layer) for layer in stage.layers]} for stage in stages],
    }


def _record(entry: Stage | Layer) -> dict[str, Any]:
    counts = {"parameters": entry.parameters, "multiply_adds": entry.multiply_adds}
    return {"name": entry.name, "type": entry.kind, "output": entry.shape, **counts}


def described(section: Mapping[str, Any]) -> str:
    """Return the type of a section of a config with what tells its size.

    >>> described({"type": "ResNet", "depth": 50, "style": "pytorch"})
    'ResNet, depth 50'
    """
    sizes = [
        f"{key} {section[key]}"
        for key in ("arch", "model_name", "depth", "widen_factor")
        if isinstance(section.get(key), str | int | float)
    ]
    return ", ".join([str(section["type"]), *sizes])
