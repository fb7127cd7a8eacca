"""A pipeline step whose result depends on random, numpy and torch alike; loaded by the config of a test."""

from __future__ import annotations

import random

import numpy as np
import torch
from mmcls.datasets import PIPELINES


@PIPELINES.register_module()
class NoiseFromEveryGenerator:
    """Add a draw of each generator to the image (height x width x 3, uint8)."""

    def __call__(self, results: dict) -> dict:
        shift = random.random() + np.random.rand() + torch.rand(()).item()
        results["img"] = np.clip(results["img"] + 10 * (shift - 1.5), 0, 255).astype(np.uint8)
        return results
