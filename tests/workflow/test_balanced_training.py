"""Balanced classes through the whole workflow: said in config.py alone, and reported by class."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from dag import QUICK, photograph, settings, snakemake
from mmcls.models import build_classifier

from scripts.lib.base.files import hash_weights

pytestmark = pytest.mark.long

COUNTS = {"apple": 14, "pear": 14, "plum": 5}
RESULTS = Path("results/small")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each kind: the fast recipe with the sampler, training from scratch with the loss."""
    folder = tmp_path_factory.mktemp("balance")
    with zipfile.ZipFile(folder / "data.zip", "w") as archive:
        for label, (name, count) in enumerate(COUNTS.items()):
            for index in range(count):
                archive.writestr(f"data/{name}/{index}.jpg", photograph(label, index))
    torch.manual_seed(0)
    backbone = {"type": "MobileNetV2", "widen_factor": 0.25}
    head = {"type": "LinearClsHead", "num_classes": 1000, "in_channels": 1280}
    model = build_classifier({"type": "ImageClassifier", "backbone": backbone, "head": head})
    torch.save({"state_dict": model.state_dict()}, folder / "weights.pth")
    fast: dict[str, Any] = {**QUICK, "recipe": "fast", "checkpoint": {"path": str(folder / "weights.pth")}}
    experiments = {"sampler": {**fast, "balance": "sampler"}, "loss": {**QUICK, "balance": "loss"}}
    config = settings({"path": str(folder / "data.zip")}, **experiments)
    result = snakemake(folder, config, "--", str(RESULTS / "leaderboard.csv"))
    assert result.returncode == 0, result.stdout
    return folder


def test_the_training_images_of_each_class_and_balanced_accuracy_are_reported(finished: Path) -> None:
    train = (finished / RESULTS / "splits/train.txt").read_text(encoding="utf-8").splitlines()
    labels = [int(line.rsplit(" ", 1)[1]) for line in train]
    for experiment in ("sampler", "loss"):
        table = pd.read_csv(finished / RESULTS / experiment / "seed0/per_class.csv")
        assert table["n_train"].tolist() == [labels.count(label) for label in range(3)]
        log = pd.read_csv(finished / RESULTS / experiment / "seed0/train_log.csv")
        assert log["val_accuracy_balanced"].between(0, 1).all() and log["val_loss_balanced"].gt(0).all()
    board = pd.read_csv(finished / RESULTS / "leaderboard.csv")
    assert board["accuracy_balanced_mean"].between(0, 1).all()


@pytest.mark.parametrize("experiment", ["sampler", "loss"])
def test_training_by_hand_gives_the_weights_of_the_workflow(finished: Path, experiment: str) -> None:
    run = finished / RESULTS / experiment / "seed0"
    command = shlex.split((run / "config.py").read_text(encoding="utf-8").splitlines()[0].removeprefix("# "))
    command[0] = str(Path(sys.executable).with_name("mim"))
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(finished)}
    environment |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    subprocess.run(command, cwd=finished, env=environment, check=True, capture_output=True)
    for name in ("best.pth", "last.pth"):
        assert hash_weights(run / "by_hand" / name) == hash_weights(run / name)
