"""A data set divided among several jobs: which image is whose, by a hash of its path."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: What the job of one shard makes, which the job that puts all shards together reads; it is removed after that.
PRODUCT = re.compile(r"audit_\d+of\d+\.bin|\d+_\d+of\d+")
#: Images for which one shard more is worth the start of a job: minutes of a node with few cores.
WORTHWHILE = 250_000
#: Shards of one data set.
MOST = 1000


@dataclass(frozen=True)
class Shard:
    """One of *count* shards; *number* is counted from 1. In names it is ``3of7``."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}of{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard of this name.

        Raises
        ------
        ValueError : it is none.
        """
        match = re.fullmatch(r"(\d+)of(\d+)", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"{text!r} is no shard such as 3of7")
        return cls(int(match[1]), int(match[2]))

    def select(self, paths: Sequence[str]) -> list[str]:
        """Return those of *paths* that are in this shard, in their order."""
        mine = shards_of(paths, self.count) == self.number
        return [path for path, is_mine in zip(paths, mine.tolist(), strict=True) if is_mine]


def worthwhile(images: int) -> int:
    """Return among how many jobs it is worth while to divide so many images, 1 to MOST."""
    return min(max(1, images // WORTHWHILE), MOST)


def shards_of(paths: Sequence[str], count: int) -> np.ndarray:
    """Return the number of each path's shard, 1 to *count*: a function of the path, whatever other images there are."""
    digests = (hashlib.blake2b(os.fsencode(path), digest_size=8).digest() for path in paths)
    return np.array([int.from_bytes(digest, "little") % count + 1 for digest in digests], np.intp)


def is_product(name: str) -> bool:
    """Tell whether a file or folder of this name is of one shard, and may be gone."""
    return PRODUCT.fullmatch(name) is not None
