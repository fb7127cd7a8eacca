"""Stages with large feature maps, computed a few images at a time: what is inside them stays in a processor's cache.

The first stages of a network have the largest maps and little work on each number, so for a whole batch they wait for
the main memory: half of the time of MobileNetV2 on two cores. A few images at a time fit the cache. The later stages,
whose weights are large and maps small, get the whole batch. (Loop tiling, or cache blocking: Lam, Rothberg and Wolf,
"The cache performance and optimizations of blocked algorithms", 1991.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from scripts.mmcls_plugins.folding import same_scores, scores_of

#: What the largest map in a stage may take, of all images computed at a time together.
BLOCK_BYTES = 10_000_000


@torch.no_grad()
def large_stages(model: nn.Module, images: torch.Tensor) -> dict[nn.Module, int]:
    """Return the stages of a backbone, with the bytes of their largest map for one image.

    A stage is an outermost module of two convolutions and more that gets one batch of maps, gives one, and halves their
    sides at most once: it is all of large maps, or all of small ones.

    Parameters
    ----------
    model : one of mmcls's classifiers, in which no image depends on the others of its batch.
    images : any, as the model takes them: by passing them it is seen what modules get.
    """
    largest: dict[nn.Module, int] = {}
    fitting: set[nn.Module] = set()
    calls: Counter[nn.Module] = Counter()

    def note(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
        calls[module] += 1
        maps = [one for one in (*given, result) if isinstance(one, torch.Tensor) and one.dim() == 4]
        largest[module] = max((one[0].numel() * one.element_size() for one in maps), default=0)
        alone = len(given) == 1 and not named and len(maps) == 2 and len(maps[0]) == len(maps[1])
        if alone and 2 * maps[1].shape[2] >= maps[0].shape[2]:
            fitting.add(module)

    backbone: nn.Module = model.backbone  # type: ignore[assignment]
    modules = [module for module in backbone.modules() if module is not backbone]
    handles = [module.register_forward_hook(note, with_kwargs=True) for module in modules]
    try:
        scores_of(model, images)
    finally:
        for handle in handles:
            handle.remove()

    found: dict[nn.Module, int] = {}

    def look(module: nn.Module) -> None:
        for child in module.children():
            if child in fitting and calls[child] == 1 and _convolutions(child) > 1:
                found[child] = max(largest.get(part, 0) for part in child.modules())
            else:
                look(child)

    look(backbone)
    return found


@contextmanager
def cache_blocked(model: nn.Module, images: torch.Tensor, most_bytes: int = BLOCK_BYTES) -> Iterator[int]:
    """Let each stage of *model* compute few images at a time inside the block: as many as *most_bytes* hold, or one.

    Forward passes only: for gradients, the many small steps back take what is saved. Nothing is changed where it would
    change the scores, since images depend on each other.

    Parameters
    ----------
    model : as in :func:`large_stages`.
    images : two and more, as the model takes them.

    Yields
    ------
    int : stages that do.
    """
    stages = large_stages(model, images)
    expected = scores_of(model, images)
    own = {stage: stage.forward for stage in stages}

    def restore() -> None:
        for stage in stages:
            del stage.forward

    for stage in stages:
        stage.forward = partial(_in_parts, own[stage], 1)
    if not same_scores(scores_of(model, images), expected):
        restore()
        yield 0
        return
    for stage, image_bytes in stages.items():
        stage.forward = partial(_in_parts, own[stage], max(1, most_bytes // image_bytes))
    try:
        yield len(stages)
    finally:
        restore()


def _in_parts(whole: Callable[[torch.Tensor], torch.Tensor], most: int, images: torch.Tensor) -> torch.Tensor:
    """Return what *whole* makes of *images*, of which it gets *most* at a time, in parts of equal size but for one."""
    if len(images) <= most:
        return whole(images)
    return torch.cat([whole(part) for part in images.tensor_split(-(-len(images) // most))])


def _convolutions(module: nn.Module) -> int:
    return sum(isinstance(part, nn.Conv2d) for part in module.modules())
