"""The fast recipe through the whole workflow: pretrained weights, a fitted head, fine-tuning that loses nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from dag import QUICK, archive_bytes, jobs_run, settings, snakemake
from mmcls.models import build_classifier

from scripts.lib.base.files import hash_weights

pytestmark = pytest.mark.long

RUN = "results/small/quick/seed0"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a fast run from weights that a file brings, as another project's would be."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "data.zip").write_bytes(archive_bytes(["apple", "pear", "plum"], per_class=10))
    torch.manual_seed(0)
    backbone = {"type": "MobileNetV2", "widen_factor": 0.25}
    head = {"type": "LinearClsHead", "num_classes": 1000, "in_channels": 1280}
    model = build_classifier({"type": "ImageClassifier", "backbone": backbone, "head": head})
    torch.save({"state_dict": model.state_dict()}, folder / "weights.pth")
    fast = {**QUICK, "recipe": "fast", "epochs": 2, "checkpoint": {"path": str(folder / "weights.pth")}}
    return settings({"path": str(folder / "data.zip")}, quick=fast)


@pytest.fixture(scope="module")
def finished(data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fast")
    result = snakemake(folder, data)
    assert result.returncode == 0, result.stdout
    assert "fit_head" in jobs_run(result.stdout)
    return folder


def test_the_start_is_in_the_log_and_nothing_worse_is_kept(finished: Path) -> None:
    log = pd.read_csv(finished / RUN / "train_log.csv")
    assert log["epoch"].tolist() == [0, 1, 2]
    best = log[log["is_best"] == 1]["val_accuracy"]
    assert best.is_monotonic_increasing and best.iloc[-1] == log["val_accuracy"].max() >= log["val_accuracy"][0]


def test_training_starts_from_the_fitted_head(finished: Path) -> None:
    start = torch.load(finished / RUN / "init.pth", weights_only=True)["state_dict"]
    assert start["head.fc.weight"].shape[0] == 3
    assert "val accuracy" in (finished / "logs/small/quick/seed0/fit_head.log").read_text(encoding="utf-8")


def test_what_is_kept_is_the_average_alone_under_the_names_of_mmcls(finished: Path) -> None:
    start = torch.load(finished / RUN / "init.pth", weights_only=True)["state_dict"]
    for name in ("best.pth", "last.pth"):
        kept = torch.load(finished / RUN / name, weights_only=True)["state_dict"]
        assert list(kept) == list(start), name


def test_elsewhere_it_comes_out_the_same(finished: Path, data: dict[str, Any], tmp_path: Path) -> None:
    result = snakemake(tmp_path, data, "--until", "predict_images")
    assert result.returncode == 0, result.stdout
    for name in ("init.pth", "best.pth", "last.pth"):
        assert hash_weights(tmp_path / RUN / name) == hash_weights(finished / RUN / name), name
    name = "predictions.csv"
    assert (tmp_path / RUN / name).read_bytes() == (finished / RUN / name).read_bytes()


def test_the_tutorial_recipe_fits_no_head(data: dict[str, Any], finished: Path) -> None:
    tutorial = {**data["experiments"]["quick"], "recipe": "tutorial"}
    result = snakemake(finished, {**data, "experiments": {"quick": tutorial}}, "--dry-run")
    assert result.returncode == 0, result.stdout
    assert "fit_head" not in result.stdout and "train_model" in result.stdout
