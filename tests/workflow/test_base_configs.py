"""Base configs of ten families train through the workflow on 2 classes, and three of them on 12."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dag import archive_bytes, settings, snakemake

from scripts.lib.runs.config_file import read_config

pytestmark = pytest.mark.long

#: Small inputs keep this to minutes; VGG's fully connected layers need the 224 pixels it was made for.
FAMILIES: dict[str, dict[str, Any]] = {
    "mobilenet-v2": {"base_config": "mobilenet-v2_8xb32_in1k", "image_size": 32},
    "mobilenet-v3": {"base_config": "mobilenet-v3-small_8xb32_in1k", "image_size": 32},
    "resnet": {"base_config": "resnet18_8xb32_in1k", "image_size": 32},
    "mixup-cutmix": {"base_config": "resnet50_8xb256-rsb-a3-100e_in1k", "image_size": 32},
    "vgg": {"base_config": "vgg11_8xb32_in1k"},
    "efficientnet": {"base_config": "efficientnet-b0_8xb32_in1k", "image_size": 32},
    "swin": {"base_config": "swin-tiny_16xb64_in1k", "image_size": 64},
    "convnext": {"base_config": "convnext-tiny_32xb128_in1k", "image_size": 32},
    "timm-cnn": {"base_config": "timm/test_resnet", "image_size": 32},
    "timm-vit": {"base_config": "timm/test_vit2", "image_size": 64},
}
#: Those whose losses are computed in different ways: with many classes a head has another loss, and top-5.
OF_MANY_CLASSES = ("mobilenet-v2", "mixup-cutmix", "swin")
COMMON = {"checkpoint": "none", "epochs": 1, "batch_size": 8, "threads": 1, "device": "cpu"}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("classes", [2, 12])
def test_every_family_trains_an_epoch(tmp_path: Path, classes: int) -> None:
    families = FAMILIES if classes == 2 else {name: FAMILIES[name] for name in OF_MANY_CLASSES}
    archive = tmp_path / "data.zip"
    archive.write_bytes(archive_bytes([f"class {i}" for i in range(classes)], per_class=12 if classes == 2 else 4))
    config = settings({"path": str(archive)}, **{name: {**COMMON, **base} for name, base in families.items()})
    targets = [f"results/small/{name}/seed0/train_log.csv" for name in families]
    result = snakemake(tmp_path, config, "--", *targets)
    assert result.returncode == 0, result.stdout
    for name in families:
        run = tmp_path / "results/small" / name / "seed0"
        assert read_config(run / "config.py")["model"]["head"]["topk"] == ((1,) if classes == 2 else (1, 5))
        assert len((run / "train_log.csv").read_text().splitlines()) == 2
        assert (run / "best.pth").stat().st_size > 0
