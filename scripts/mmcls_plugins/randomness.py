"""Every random choice as a pure function of (seed, what it is for, index): no random state to save."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def derive_seed(seed: int, purpose: str, *index: int) -> int:
    """Return 63 bits that depend on nothing but the arguments.

    A hash rather than arithmetic: ``seed + epoch`` would give run 0's epoch 1 the draws of run 1's epoch 0.

    Parameters
    ----------
    seed : the run's seed.
    purpose : what the choice is for, e.g. ``"order"``, ``"augment"``, ``"iteration"``.
    index : which one, e.g. (epoch, sample index).
    """
    key = "\0".join([str(int(seed)), purpose, *(str(int(i)) for i in index)])
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1


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
