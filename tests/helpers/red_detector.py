"""A classifier of which one knows where it looks: at what is red, or green."""

from __future__ import annotations

import torch
from torch import nn


class RedDetector(nn.Module):
    """The logit of class 1 is how red the image is, of class 0 how green, as a classifier of mmcls answers."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Sequential(nn.Conv2d(3, 2, 16, 16, bias=False), nn.ReLU())
        with torch.no_grad():
            weight = next(self.parameters()).zero_()
            weight[0, 1], weight[1, 0] = 1, 1

    def forward(self, img: torch.Tensor, return_loss: bool, softmax: bool, post_process: bool) -> torch.Tensor:
        logits = self.patches(img).mean(dim=(2, 3))
        return logits.softmax(dim=1) if softmax else logits
