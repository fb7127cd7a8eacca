"""Seeds of random choices as a pure function of (seed, what it is for, index): no random state to save."""

from __future__ import annotations

import hashlib


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
