"""Training starts without torch's compiler, which it never uses: 800 modules, 2.4 s of the processor."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.optim import Optimizer


def leave_compiler_out() -> None:
    """Have torch's optimizers work without loading its compiler.

    They load it only to keep it away from themselves: some methods remember the function that it gave them for that,
    and each step is told to be no part of a graph. Without a graph, both do what the bare functions do.
    """
    if "torch._dynamo" in sys.modules:
        return
    for method in vars(Optimizer).values():
        if function := getattr(method, "__wrapped__", None):
            vars(function).setdefault("__dynamo_disable", function)
    for optimizer in vars(torch.optim).values():
        step: Any = vars(optimizer).get("step") if isinstance(optimizer, type) else None
        is_guarded = hasattr(step, "__wrapped__") and getattr(step, "__code__", None)  # torch 2.0 guards nothing
        if is_guarded and step.__code__.co_name == "_use_grad":
            optimizer.step = torch.no_grad()(step.__wrapped__)
