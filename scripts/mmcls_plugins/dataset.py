"""The training samples: their order and augmentations are a function of (seed, epoch, sample), whatever runs them."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from mmcls.datasets import DATASETS, SAMPLERS, CustomDataset
from torch.utils.data import Sampler, get_worker_info

from scripts.lib.base.environment import Variable
from scripts.lib.base.seeds import derive_seed
from scripts.mmcls_plugins.randomness import permutation, seed_generators


class SampleKey(NamedTuple):
    """What EpochSampler asks for: *sample* (its index), as augmented in *epoch* when it comes again (*repeat*)."""

    epoch: int
    sample: int
    repeat: int = 0


@DATASETS.register_module()
class SeededCustomDataset(CustomDataset):
    """CustomDataset whose pipeline finds random, numpy and torch seeded for each sample.

    Parameters
    ----------
    seed : the run's seed.
    shuffle_labels : deal the labels out among the images anew, by the seed: a control, which can learn nothing true.
    options : CustomDataset's own.
    """

    def __init__(self, *, seed: int = 0, shuffle_labels: bool = False, **options: Any) -> None:
        self.seed = seed
        self.shuffle_labels = shuffle_labels
        self._shielded = False
        if Variable.IMAGES in os.environ:
            options["data_prefix"] = os.environ[Variable.IMAGES]
        super().__init__(**options)

    def load_annotations(self) -> list[dict[str, Any]]:
        """Return what CustomDataset reads; shuffled labels are those of the whole list in another order."""
        infos = super().load_annotations()
        if self.shuffle_labels:
            labels = [info["gt_label"] for info in infos]
            order = permutation(len(infos), derive_seed(self.seed, "shuffle_labels"))
            for info, position in zip(infos, order, strict=True):
                info["gt_label"] = labels[position]
        return infos

    def evaluate(
        self, results: Any, metric: Any = "accuracy", metric_options: dict[str, Any] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Return what CustomDataset does, without top-k accuracies of more than all classes, at which mmcls fails.

        Its test.py does not read the config's options: it asks for top 5 of any data set.
        """
        wanted = dict(metric_options or {"topk": (1, 5)})
        if isinstance(wanted.get("topk"), list | tuple):
            wanted["topk"] = tuple(k for k in wanted["topk"] if k <= len(self.CLASSES)) or (1,)
        return super().evaluate(results, metric, wanted, **options)

    def __getitem__(self, key: SampleKey | int) -> dict[str, Any]:
        self._shield_worker()
        if isinstance(key, SampleKey):
            again = (key.repeat,) if key.repeat else ()  # what comes once keeps the seed that it always had
            seed_generators(derive_seed(self.seed, "augment", key.epoch, key.sample, *again))
            return self.prepare_data(key.sample)
        return self.prepare_data(key)

    def _shield_worker(self) -> None:
        """Let a worker outlive the signal that asks its trainer to save and stop.

        SIGTERM goes to the whole process group. A worker that dies of it makes torch raise in the middle of the
        trainer's iteration, before the trainer can save. When the trainer ends, its workers end too: torch's
        watchdog in each worker sees the parent go.

        Only of a process that handles the signal itself, which its workers inherit: mmcls's test.py ends its workers by
        it, and would wait for ever for those that ignore it.
        """
        if not self._shielded and get_worker_info() is not None and callable(signal.getsignal(signal.SIGTERM)):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._shielded = True


@SAMPLERS.register_module()
class EpochSampler(Sampler):
    """Yield (epoch, index) keys, so that a worker knows what an augmentation is to be a function of.

    Balanced, an epoch is as long as ever, and each class has equally many of its samples, up to one. The images of a
    class come in turns: none again before all others of its class have come, over the ends of epochs too. An image
    that comes again in the same epoch has another key, and with it another augmentation.

    Parameters
    ----------
    dataset : the data set; only its length is used, and balanced its labels.
    num_replicas, rank : processes that share an epoch, and which one this is. Each takes every num_replicas-th
        sample of the one global order, which is repeated from its start until it divides evenly.
    seed : the run's seed.
    shuffle : False keeps the order of the annotation file.
    balanced : draw the classes equally often.
    """

    def __init__(
        self,
        dataset: Any,
        num_replicas: int = 1,
        rank: int = 0,
        seed: int | None = 0,
        shuffle: bool = True,
        balanced: bool = False,
    ) -> None:
        self.length = len(dataset)
        self.num_replicas = num_replicas
        self.rank = rank
        self.seed = seed or 0
        self.shuffle = shuffle
        self.balanced = balanced
        self.epoch = 0
        self.start = 0
        labels = np.asarray(dataset.get_gt_labels()) if balanced else np.array([], dtype=np.int64)
        self._images_of = {int(label): np.flatnonzero(labels == label).tolist() for label in np.unique(labels)}

    def set_position(self, epoch: int, start: int = 0) -> None:
        """Make the next iteration yield *epoch*, from this replica's sample number *start* on."""
        self.epoch = epoch
        self.start = start

    def global_order(self) -> list[int]:
        """Return the indices of the whole epoch, over all replicas."""
        drawn = self._draw_classes() if self.balanced else list(range(self.length))
        if not self.shuffle:
            return drawn
        return [drawn[position] for position in permutation(self.length, derive_seed(self.seed, "order", self.epoch))]

    def _draw_classes(self) -> list[int]:
        """Return the images of a balanced epoch, sorted."""
        drawn: list[int] = []
        labels, epoch = list(self._images_of), self.epoch
        share, rest = divmod(self.length, len(labels))
        for turn, which in enumerate(permutation(len(labels), derive_seed(self.seed, "balance"))):
            # The classes take turns, over the epochs, with the samples by which an epoch does not divide evenly.
            first, last = (at * share + _dealt_to(turn, at * rest, len(labels)) for at in (epoch, epoch + 1))
            drawn += self._stretch(labels[which], first, last)
        return sorted(drawn)

    def _stretch(self, label: int, first: int, last: int) -> list[int]:
        """Return the draws *first* to *last* of a class, counted from the start of training.

        Its images come in an endless row of rounds, each in an order of its own; of whole rounds the order is no
        matter, since an epoch is shuffled.
        """
        images = self._images_of[label]
        (round_of_first, begin), (round_of_last, end) = divmod(first, len(images)), divmod(last, len(images))

        def of_round(number: int) -> list[int]:
            return [images[i] for i in permutation(len(images), derive_seed(self.seed, "balance", label, number))]

        if round_of_first == round_of_last:
            return of_round(round_of_first)[begin:end]
        whole = images * (round_of_last - round_of_first - 1)
        return of_round(round_of_first)[begin:] + whole + of_round(round_of_last)[:end]

    def __iter__(self) -> Iterator[SampleKey]:
        order = self.global_order()
        total = len(self) * self.num_replicas
        order = (order * -(-total // len(order)))[:total]
        keys = [SampleKey(self.epoch, index) for index in order]
        if self.balanced:
            seen: Counter[int] = Counter()
            for position, index in enumerate(order):
                keys[position] = SampleKey(self.epoch, index, seen[index])
                seen[index] += 1
        return iter(keys[self.rank :: self.num_replicas][self.start :])

    def __len__(self) -> int:
        return -(-self.length // self.num_replicas)


def _dealt_to(turn: int, count: int, turns: int) -> int:
    """Return how many of *count* things the player of *turn* has when they are dealt out in turn."""
    return -(-(count - turn) // turns)
