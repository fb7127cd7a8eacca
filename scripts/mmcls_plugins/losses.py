"""The label-smoothed cross entropy with a weight for each class, which mmcls's own does not take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmcls.models import LOSSES
from mmcls.models.losses import LabelSmoothLoss


@LOSSES.register_module()
class WeightedLabelSmoothLoss(LabelSmoothLoss):
    """LabelSmoothLoss in which an image counts as much as its class's weight.

    The image, not the terms of its sum: its smoothed target has a share of every class, and a heavy rare class would
    draw all images to itself by that share. So it is, on average, what drawing images by these weights gives.

    Parameters
    ----------
    class_weight : one weight a class. An image that mixup or cutmix made has those of its classes in proportion.
    options : LabelSmoothLoss's own.
    """

    def __init__(self, class_weight: Sequence[float], **options: Any) -> None:
        super().__init__(**options)
        self.class_weight = list(class_weight)
        self.num_classes = len(self.class_weight)

    def forward(
        self, cls_score: torch.Tensor, label: torch.Tensor, weight: torch.Tensor | None = None, **options: Any
    ) -> torch.Tensor:
        """Return the loss of scores, (images, classes), for labels: (images,), or (images, classes) where mixed."""
        of_classes = torch.tensor(self.class_weight, device=cls_score.device)
        of_images = (self.generate_one_hot_like_label(label) * of_classes).sum(dim=1)
        return super().forward(cls_score, label, of_images if weight is None else weight * of_images, **options)
