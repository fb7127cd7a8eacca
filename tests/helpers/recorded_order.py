"""Noise that also writes down which process read which image; loaded by the config of a test."""

from __future__ import annotations

import os
from pathlib import Path

from mmcls.datasets import PIPELINES
from noisy_steps import NoiseFromEveryGenerator


@PIPELINES.register_module()
class RecordedNoise(NoiseFromEveryGenerator):
    """Append the image's name to $MIMFLOW_TEST_ORDER/<rank>, where that is set."""

    def __call__(self, results: dict) -> dict:
        folder = os.environ.get("MIMFLOW_TEST_ORDER")
        if folder:
            with open(Path(folder) / os.environ["RANK"], "a", encoding="utf-8") as file:
                file.write(f"{results['img_info']['filename']}\n")
        return super().__call__(results)
