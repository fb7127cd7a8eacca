"""The order of the training samples: a function of (seed, epoch), startable at any sample of it."""

from __future__ import annotations

from collections.abc import Iterator, Sized

from mmcls.datasets import SAMPLERS
from torch.utils.data import Sampler

from scripts.mmcls_plugins.dataset import SampleKey
from scripts.mmcls_plugins.randomness import derive_seed, permutation


@SAMPLERS.register_module()
class EpochSampler(Sampler):
    """Yield (epoch, index) keys, so that a worker knows what an augmentation is to be a function of.

    Parameters
    ----------
    dataset : the data set; only its length is used.
    num_replicas, rank : processes that share an epoch, and which one this is. Each takes every num_replicas-th
        sample of the one global order, which is repeated from its start until it divides evenly.
    seed : the run's seed.
    shuffle : False keeps the order of the annotation file.
    """

    def __init__(
        self, dataset: Sized, num_replicas: int = 1, rank: int = 0, seed: int | None = 0, shuffle: bool = True
    ) -> None:
        self.length = len(dataset)
        self.num_replicas = num_replicas
        self.rank = rank
        self.seed = seed or 0
        self.shuffle = shuffle
        self.epoch = 0
        self.start = 0

    def set_position(self, epoch: int, start: int = 0) -> None:
        """Make the next iteration yield *epoch*, from this replica's sample number *start* on."""
        self.epoch = epoch
        self.start = start

    def global_order(self) -> list[int]:
        """Return the indices of the whole epoch, over all replicas."""
        if not self.shuffle:
            return list(range(self.length))
        return permutation(self.length, derive_seed(self.seed, "order", self.epoch))

    def __iter__(self) -> Iterator[SampleKey]:
        order = self.global_order()
        total = len(self) * self.num_replicas
        order = (order * -(-total // len(order)))[:total]
        mine = order[self.rank :: self.num_replicas]
        return iter([SampleKey(self.epoch, index) for index in mine[self.start :]])

    def __len__(self) -> int:
        return -(-self.length // self.num_replicas)
