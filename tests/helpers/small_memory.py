"""A layer that fails as a full GPU does, a mock, since CI has none; loaded by the config of a test."""

from __future__ import annotations

import torch
from mmcls.models import NECKS
from mmcls.models.necks import GlobalAveragePooling

MOST_IMAGES = 5


@NECKS.register_module()
class PoolingWithLittleMemory(GlobalAveragePooling):
    """Take MOST_IMAGES at a time in training, no more."""

    def forward(self, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        if self.training and len(inputs[-1]) > MOST_IMAGES and not inputs[-1].is_meta:  # which takes no memory
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more than there is (a test).")
        return super().forward(inputs)
