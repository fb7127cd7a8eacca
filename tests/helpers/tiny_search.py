"""Candidates for `base_config: auto` that are so small that an epoch of a test's images takes a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.mmcls_plugins.checkpoints import tensors_sha256

#: Of timm's own tests.
CANDIDATES = ("test_resnet", "test_convnext", "test_byobnet")
#: Where a search among them leaves what it does, of the experiment "best" on the data set "small".
SEARCH = Path("results/small/best/search")


def search_among(folder: Path, names: tuple[str, ...] = CANDIDATES) -> dict[str, Any]:
    """Write weights, drawn at random, into *folder*; return the experiment that searches among these models."""
    timm = pytest.importorskip("timm", reason="timm is not installed", exc_type=ImportError)
    candidates = []
    for number, name in enumerate(names):
        weights = folder / f"{name}.pth"
        if not weights.exists():
            torch.manual_seed(number)
            torch.save(timm.create_model(name).state_dict(), weights)
        candidates.append({"base_config": f"timm/{name}", "checkpoint": {"path": str(weights)}})
    auto = {"base_config": "auto", "candidates": candidates, "image_size": 32, "batch_size": 8, "epochs": 1}
    return {**auto, "threads": 1, "device": "cpu"}


def outcome(folder: Path) -> dict[str, Any]:
    """Return the choice of a search in *folder* without what a clock measured, and the hashes of what it trained."""
    choice = json.loads((folder / SEARCH / "choice.json").read_text())
    for candidate in choice["candidates"]:
        for clocked in ("images_per_second", "seconds", "is_on_front"):
            del candidate[clocked]
        candidate["rounds"] = [result and {**result, "seconds": 0} for result in candidate["rounds"]]
    trained = [path for path in sorted((folder / SEARCH).glob("round*/*/best.pth")) if path.stat().st_size]
    hashes = {
        str(path.relative_to(folder)): tensors_sha256(torch.load(path, weights_only=True)["state_dict"])
        for path in trained
    }
    return {"choice": choice, "hashes": hashes}
