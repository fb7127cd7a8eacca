"""What a network cannot compute is said before training, with the key at fault and values that fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from scripts.lib.base.problems import UserError
from scripts.lib.runs.config_file import read_config
from scripts.lib.settings.schema import Experiment
from scripts.train.patch_config import Inputs, write

RESNET = "resnet18_8xb32_in1k"


def write_config(folder: Path, base: str, n_train: int = 50, **values: Any) -> Path:
    """Write the config of an experiment that trains from scratch."""
    experiment = Experiment(base_config=base, **{"checkpoint": "none", "learning_rate": 0.1, **values})
    files = {"images": "i", "splits": "s", "checkpoint": None, "pixel_cache": "p"}
    counts = [n_train // 2, n_train // 2]
    inputs = Inputs(experiment, ["a", "b"], n_train=n_train, seed=0, device="cpu", train_counts=counts, **files)
    write(folder / "config.py", inputs)
    return folder / "config.py"


@pytest.mark.long
@pytest.mark.parametrize(
    ("base", "values", "message"),
    [
        pytest.param(
            *("vgg11_8xb32_in1k", {"image_size": 112}, r"image_size: .* 112 pixels \(.*\): set 224$"),
            marks=pytest.mark.long,
        ),
        pytest.param(
            *("convnext-tiny_32xb128_in1k", {"image_size": 30}, r"image_size: .* 30 pixels \(.*\): set 32$"),
            marks=pytest.mark.long,
        ),
        (
            RESNET,
            {"image_size": 32, "batch_size": 1},
            r"batch_size: a batch of 1 .*more than 1.*: set 2 or more$",
        ),
        (
            RESNET,
            {"image_size": 32, "batch_size": 7, "overrides": {"data.train_dataloader": {"drop_last": False}}},
            "batch_size: a batch of 1 .*: set 2 or more$",
        ),
        (
            RESNET,
            {"overrides": {"model.head.in_channels": 100}},
            r"overrides.model.head.in_channels: .* cannot be computed .*: correct it",
        ),
        pytest.param(
            "efficientformer-l1_8xb128_in1k",
            {},
            "base_config: it cannot be trained .* choose another",
            marks=pytest.mark.long,
        ),
    ],
)
def test_what_cannot_be_computed_is_one_line_with_what_fits(
    tmp_path: Path, base: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        write_config(tmp_path, base, **values)
    assert re.match(message, str(caught.value)), caught.value
    assert "\n" not in str(caught.value) and not (tmp_path / "config.py").exists()


@pytest.mark.long
@pytest.mark.parametrize(("base", "size"), [("timm/gcvit_base.in1k", 16), ("timm/halo2botnet50ts_256.a1h_in1k", 17)])
def test_a_size_for_which_a_network_cannot_even_be_made_is_named(tmp_path: Path, base: str, size: int) -> None:
    with pytest.raises(UserError, match=rf"image_size: .* {size} pixels .*: set \d+"):
        write_config(tmp_path, base, image_size=size)


@pytest.mark.long
def test_an_odd_size_of_a_network_of_several_resolutions_names_its_neighbours(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"image_size: .* 33 pixels .*: set 32 or 64"):
        write_config(tmp_path, "hrnet-w18_4xb32_in1k", image_size=33)


@pytest.mark.parametrize(
    ("base", "values"),
    [
        (RESNET, {"batch_size": 1, "image_size": 64}),
        (RESNET, {"balance": "loss", "image_size": 32}),
        ("vgg11_8xb32_in1k", {"image_size": 230}),
        ("resnet50_8xb32-mixup_in1k", {"image_size": 32}),
        ("resnet50_8xb32-cutmix_in1k", {"image_size": 32}),
        ("vit-base-p16_pt-64xb64_in1k-224", {"image_size": 96}),
        ("swin-tiny_16xb64_in1k", {"image_size": 50}),
        # Of one size of images, which mmcls's own config trains on another.
        pytest.param("repmlp-base_8xb64_in1k-256px", {}, marks=pytest.mark.long),
        pytest.param("repmlp-base_8xb64_in1k-256px", {"image_size": 224}, marks=pytest.mark.long),
        (RESNET, {"checkpoint": "zoo", "recipe": "fast", "batch_size": 1, "image_size": 32}),  # of frozen statistics
    ],
)
def test_what_can_be_computed_is_written(tmp_path: Path, base: str, values: dict[str, Any]) -> None:
    assert read_config(write_config(tmp_path, base, **values))["data"]["samples_per_gpu"] > 0
