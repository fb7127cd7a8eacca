"""Weights that a config names: mmcv reads them by our reader, wherever they stand and however they are addressed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from mmcv.cnn import initialize
from mmcv.runner import CheckpointLoader, load_checkpoint

import scripts.mmcls_plugins  # noqa: F401  (registers our loader)
from scripts.lib.base.problems import UserError
from scripts.lib.model.config_patches import check_weights
from scripts.mmcls_plugins.checkpoints import load_from_file


class Evil:
    """Opening it in the usual way makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.folder,)


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    torch.save({"state_dict": torch.nn.Linear(2, 2).state_dict(), "x": Evil(tmp_path / "ran")}, tmp_path / "x.pth")
    return tmp_path / "x.pth"


def test_every_loader_of_mmcv_is_ours() -> None:
    assert {loader for loader in CheckpointLoader._schemes.values()} == {load_from_file}


def test_load_from_and_init_cfg_run_nothing(hostile: Path) -> None:
    layer = torch.nn.Linear(2, 2)
    ways = {
        "load_from": lambda: load_checkpoint(layer, str(hostile)),
        "init_cfg": lambda: initialize(layer, {"type": "Pretrained", "checkpoint": str(hostile)}),
        "a prefix": lambda: initialize(layer, {"type": "Pretrained", "checkpoint": str(hostile), "prefix": "x"}),
    }
    for load in ways.values():
        with pytest.raises(UserError, match=r"hold more than weights \(posix\.mkdir\)"):
            load()
    assert not hostile.with_name("ran").exists()


@pytest.mark.parametrize(
    "address",
    ["http://localhost:9/x.pth", "s3://x/x.pth", "torchvision://resnet18", "open-mmlab://resnet50", "nowhere"],
)
def test_weights_are_local_files(address: str) -> None:
    with pytest.raises(UserError, match=r"there is no such file: give a local file"):
        load_checkpoint(torch.nn.Linear(2, 2), address)


def test_plain_weights_are_loaded_as_ever(tmp_path: Path) -> None:
    weights = torch.nn.Linear(2, 2)
    torch.save({"state_dict": weights.state_dict()}, tmp_path / "x.pth")
    layer = torch.nn.Linear(2, 2)
    load_checkpoint(layer, str(tmp_path / "x.pth"))
    assert torch.equal(layer.weight, weights.weight)


@pytest.mark.parametrize(
    "where",
    [
        lambda file: {"load_from": file},
        lambda file: {"resume_from": file},
        lambda file: {"model": {"pretrained": file}},
        lambda file: {"model": {"neck": [{"init_cfg": {"type": "Pretrained", "checkpoint": file}}]}},
    ],
)
def test_a_mistake_costs_no_gpu(hostile: Path, where: Any) -> None:
    with pytest.raises(UserError, match=r"overrides: .*holds more than weights"):
        check_weights(where(str(hostile)), None)
    with pytest.raises(UserError, match=r"overrides: .*there is no file"):
        check_weights(where("https://x.org/x.pth"), None)
    check_weights(where(str(hostile)), str(hostile))  # what mimflow fetched is tensors only
