"""Generators of random numbers that are seeded, and kernels that compute the same bits each time."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_generators(value: int) -> None:
    """Seed the global generators of random, numpy and torch (every device), which pipelines and layers draw from."""
    random.seed(value)
    np.random.seed(value & 0xFFFFFFFF)
    torch.manual_seed(value)


def permutation(count: int, seed: int) -> list[int]:
    """Return the numbers 0 .. count - 1 in the order that *seed* stands for."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()


def use_deterministic_kernels() -> None:
    """Have torch compute the same bits each time, and warn of an operation that cannot."""
    # Not use_deterministic_algorithms: in newer torch that imports the compiler, 1.5 s of every process.
    torch.set_deterministic_debug_mode("warn")
    # Filling every new tensor with NaN finds reads of unwritten memory, and costs a fifth of a step on a CPU.
    if hasattr(torch.utils, "deterministic"):  # since torch 2.2
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
