"""mmcls's CustomDataset with augmentations that are a function of (seed, epoch, sample), whichever worker runs them."""

from __future__ import annotations

import os
import signal
from typing import Any, NamedTuple

from mmcls.datasets import DATASETS, CustomDataset
from torch.utils.data import get_worker_info

from scripts.lib.base.environment import Variable
from scripts.mmcls_plugins.randomness import derive_seed, permutation, seed_generators


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
        """
        if not self._shielded and get_worker_info() is not None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._shielded = True
