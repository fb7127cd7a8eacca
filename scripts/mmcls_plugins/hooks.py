"""Hooks on the forward passes of a model, for as long as a block lasts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import nn

#: Called after a forward pass with the module, its positional inputs and its output; what it returns replaces these.
ForwardHook = Callable[[Any, Any, Any], Any]
#: Called before a forward pass with the module and its positional inputs.
ForwardPreHook = Callable[[Any, Any], Any]


@contextmanager
def forward_hooks(
    after: Iterable[tuple[nn.Module, ForwardHook]] = (), before: Iterable[tuple[nn.Module, ForwardPreHook]] = ()
) -> Iterator[None]:
    """Hook modules inside the block; no hook stays behind, however it ends.

    Parameters
    ----------
    after : modules, each with what is called after its forward pass.
    before : modules, each with what is called before it.
    """
    with ExitStack() as hooks:
        for module, pre_hook in before:
            hooks.callback(module.register_forward_pre_hook(pre_hook).remove)
        for module, hook in after:
            hooks.callback(module.register_forward_hook(hook).remove)
        yield
