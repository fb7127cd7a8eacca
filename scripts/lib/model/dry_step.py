"""One training step without data or weights: whether a network can compute images and batches of the sizes asked for.

The tensors are on torch's meta device: they have shapes and no content, so that a step takes a second at most, whatever
the network. Where an operation does not know that device, a small batch with content is tried.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from mmcv.utils import import_modules_from_strings
from torch.overrides import TorchFunctionMode

from scripts.lib.base.console import one_line
from scripts.lib.base.problems import UserError
from scripts.lib.model import config_patches as patches
from scripts.lib.runs.config_file import Config

logger = logging.getLogger(__name__)
#: What torch, mmcls and mmcv raise for sizes that do not fit.
FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
#: Functions that make the weights of a module: those of a network on the meta device take no memory and no time.
MAKERS = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn)
#: Those that fill weights with random numbers: on the meta device there is nothing to fill, and torch would load its
#: compiler for it, for more than a second.
FILLERS = (torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.exponential_, torch.Tensor.bernoulli_)
#: Images of a batch that is large enough for every network, and of one that is tried with content.
ENOUGH, SMALL = 8, 2
#: Sizes that are tried in the place of one that does not fit: multiples of what, how many in each direction,
#: and for how many seconds of processor time.
TRIES, SECONDS = {32: 8, 4: 4}, 60.0
#: Of torch's words, as many characters are shown.
WORDS = 160

Shape = tuple[int, int, int, int]


def import_modules(config: Config) -> None:
    """Import the modules that a config asks for, which register what it names.

    Raises
    ------
    UserError : one cannot be imported.
    """
    try:
        import_modules_from_strings(**config["custom_imports"])
    except (*FAILURES, ImportError, SyntaxError) as error:
        words = one_line(error) or one_line(error.__context__)  # mmcv raises anew, without words
        raise UserError(f"overrides.custom_imports: {words}", "put the module into this folder") from error


def check(config: Config, smallest: int, rebuild: Callable[..., Config], overrides: Mapping[str, Any]) -> None:
    """Make sure that training can take a step.

    Parameters
    ----------
    config : of the run.
    smallest : images of the smallest batch of an epoch.
    rebuild : makes the config with other values of the experiment's keys, which are given by name.
    overrides : the experiment's.

    Raises
    ------
    UserError : it cannot: the key at fault and values that fit, as far as some tries find them.
    """
    reason = failure_of(config, smallest)
    if not reason:
        return
    because = f"({reason[:WORDS]})"
    if smallest < ENOUGH and not failure_of(config, ENOUGH):
        fits = next(images for images in range(smallest + 1, ENOUGH + 1) if not failure_of(config, images))
        raise UserError(f"batch_size: a batch of {smallest} cannot be trained on {because}", f"set {fits} or more")
    if not failure_of(rebuild(image_size="auto"), max(smallest, ENOUGH)):
        raise size_error(config, smallest, rebuild, because)
    if guilty := guilty_of(overrides, rebuild, lambda other: not failure_of(other, max(smallest, ENOUGH))):
        raise UserError(f"{guilty}: the network cannot be computed {because}", "correct it")
    raise UserError(f"base_config: it cannot be trained {because}", "choose another")


def size_error(config: Config, batch: int, rebuild: Callable[..., Config], because: str) -> UserError:
    """Return what is to be said where a network can be computed with images of its usual size, and not with these."""
    size = patches.input_size(config["data"]["test"]["pipeline"])
    remedy = f"set {' or '.join(map(str, sizes_that_fit(size, batch, rebuild))) or 'auto'}"
    return UserError(f"image_size: this network cannot compute images of {size} pixels {because}", remedy)


def guilty_of(overrides: Mapping[str, Any], rebuild: Callable[..., Config], works: Callable[[Config], bool]) -> str:
    """Return the keys of the overrides without each of which a config works; where none alone mends it, of all; or "".

    Parameters
    ----------
    works : tells of a config.
    """

    def works_with(others: Mapping[str, Any]) -> bool:
        try:
            return works(rebuild(overrides=others))
        except UserError:  # one override builds on another
            return False

    if not overrides or not works_with({}):
        return ""
    guilty = [key for key in overrides if works_with({name: overrides[name] for name in overrides if name != key})]
    return " and ".join(f"overrides.{key}" for key in guilty or overrides)


def sizes_that_fit(size: int, batch: int, rebuild: Callable[..., Config]) -> list[int]:
    """Return the nearest smaller and the nearest larger size that a network computes, where some tries find them."""
    began, fitting = time.process_time(), dict[bool, int]()
    usual = patches.input_size(rebuild(image_size="auto")["data"]["test"]["pipeline"])
    for candidate in (*_candidates(size), usual):
        is_larger = candidate > size
        if is_larger in fitting:
            continue
        if len(fitting) == 2 or (time.process_time() - began > SECONDS and candidate != usual):
            continue
        try:
            if not failure_of(rebuild(image_size=candidate), batch, certain=False):
                fitting[is_larger] = candidate
        except (UserError, *FAILURES) as error:
            logger.debug("image_size %d: %s", candidate, error)
    return sorted(fitting.values())


def _candidates(size: int) -> Iterator[int]:
    """Yield other sizes, the nearest first: multiples of 32, which most networks are made for, then of 4."""
    for step, tries in TRIES.items():
        below = size // step * step
        for distance in range(tries):
            yield from (
                candidate
                for candidate in (below - distance * step, below + (distance + 1) * step)
                if 16 <= candidate <= 2048 and candidate != size
            )


def failure_of(config: Config, batch: int, certain: bool = True) -> str:
    """Return why a network cannot be trained on batches of *batch* images, or evaluated on one; "" where it can.

    Parameters
    ----------
    certain : try what fails with content, too.
    """
    data = config["data"]
    sizes = [patches.input_size(data[split]["pipeline"]) for split in ("train", "test")]
    channels = 1 if any(step.get("color_type") == "grayscale" for step in data["test"]["pipeline"]) else 3
    trained, tested = ((images, channels, size, size) for images, size in zip((batch, 1), sizes, strict=True))
    reason = _try(config["model"], trained, tested, "meta")
    if "meta" not in reason or not certain:  # else it is the device that the operation does not know
        return reason
    logger.debug("on the meta device, %s fails: %s", trained, reason)
    return _try(config["model"], (min(batch, SMALL), *trained[1:]), tested, "cpu")


def _try(model: Config, trained: Shape, tested: Shape, device: str) -> str:
    state, reason = torch.random.get_rng_state(), ""
    for surroundings in (compiler_left_out, contextlib.nullcontext):  # what the first refuses, the second decides
        with warnings.catch_warnings(), surroundings():
            warnings.simplefilter("ignore")
            try:
                _step(copy.deepcopy(model), trained, tested, device)
            except (*FAILURES, ImportError) as error:
                reason = one_line(error) or type(error).__name__
            else:
                return ""
            finally:
                torch.random.set_rng_state(state)
    return reason


@contextlib.contextmanager
def compiler_left_out() -> Iterator[None]:
    """Compute without torch's compiler, which operations on meta tensors load only to be kept away from it: 1.3 s."""
    if "torch._dynamo" in sys.modules:
        yield
        return
    stand_in = types.ModuleType("torch._dynamo")
    stand_in.__dict__["disable"] = lambda function, *_args, **_options: function
    sys.modules[stand_in.__name__] = torch.__dict__["_dynamo"] = stand_in
    try:
        yield
    finally:
        del sys.modules[stand_in.__name__], torch.__dict__["_dynamo"]


def _step(model: Config, trained: Shape, tested: Shape, device: str) -> None:
    from mmcls.models import build_classifier

    if device == "meta":
        with OnMeta():
            network = build_classifier(model)
    else:
        network = build_classifier(model)
    network = network.to(device).train()
    labels = torch.zeros(trained[0], dtype=torch.long, device=device)
    losses = network(torch.zeros(trained, device=device), return_loss=True, gt_label=labels)
    sum(value.mean() for name, value in losses.items() if "loss" in name).backward()
    if tested[1:] != trained[1:]:
        with torch.no_grad():
            network.eval().extract_feat(torch.zeros(tested, device=device))


class OnMeta(TorchFunctionMode):
    """Makes weights on the meta device, and lets all else be computed, as tables of positions are, on the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in FILLERS and args[0].is_meta:
            return args[0]
        if func in MAKERS:
            kwargs = {**(kwargs or {}), "device": "meta"}
        return func(*args, **(kwargs or {}))
