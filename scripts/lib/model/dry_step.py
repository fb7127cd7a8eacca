"""One training step without data or weights: whether a network can compute images and batches of the sizes asked for.

The tensors are on torch's meta device: they have shapes and no content, so that a step costs a fraction of a second,
whatever the network. What fails there is tried again with real tensors, since not every operation knows that device;
only what fails in truth counts.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from scripts.lib.base.console import one_line
from scripts.lib.runs.config_file import Config

logger = logging.getLogger(__name__)
#: What torch, mmcls and mmcv raise for sizes that do not fit.
FAILURES = (RuntimeError, ValueError, AssertionError, TypeError, IndexError, ZeroDivisionError, AttributeError, KeyError)
#: Functions that make the weights of a module: those of a network on the meta device take no memory and no time.
MAKERS = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn)
#: Images of a batch with which a network that fails without content is tried with it.
SMALL_BATCH = 4


class _OnMeta(TorchFunctionMode):
    """Makes weights on the meta device, and lets all else be computed, as tables of positions are, on the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in MAKERS:
            kwargs = {**(kwargs or {}), "device": "meta"}
        return func(*args, **(kwargs or {}))


def failure_of(model: Config, batch: int, channels: int, height: int, width: int) -> str:
    """Return why a network cannot be trained on batches of such images and evaluated on one; "" where it can.

    Parameters
    ----------
    model : the config's section ``model``.
    batch : images of a step.
    channels, height, width : of an image.
    """
    shape = (batch, channels, height, width)
    reason = _try(model, shape, "meta")
    if not reason:
        return ""
    logger.debug("on the meta device, %s fails: %s", shape, reason)
    return _try(model, (min(batch, SMALL_BATCH), *shape[1:]), "cpu")


def first_that_fits(tries: Iterable[tuple[Any, tuple[Config, int, int, int, int]]], most: int = 1) -> list[Any]:
    """Return the names of the first *most* of the tries, (name, arguments of :func:`failure_of`), that do not fail."""
    fitting = []
    for name, arguments in tries:
        if not failure_of(*arguments):
            fitting.append(name)
        if len(fitting) == most:
            break
    return fitting


def _try(model: Config, shape: tuple[int, int, int, int], device: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _step(copy.deepcopy(model), shape, device)
        except FAILURES as error:
            return one_line(error) or type(error).__name__
    return ""


def _step(model: Config, shape: tuple[int, int, int, int], device: str) -> None:
    from mmcls.models import build_classifier

    import scripts.mmcls_plugins  # noqa: F401  (registers ours)

    state = torch.random.get_rng_state()
    try:
        if device == "meta":
            with _OnMeta():
                network = build_classifier(model)
            network = network.to("meta")
        else:
            network = build_classifier(model)
        images = torch.zeros(shape, device=device)
        labels = torch.zeros(shape[0], dtype=torch.long, device=device)
        network.train()
        losses = network(images, return_loss=True, gt_label=labels)
        sum(value.mean() for name, value in losses.items() if "loss" in name).backward()
        network.eval()
        with torch.no_grad():
            network.extract_feat(images[:1])
    finally:
        torch.random.set_rng_state(state)
