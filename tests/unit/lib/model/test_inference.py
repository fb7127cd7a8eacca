"""A run's config and weights, as predict, export and the figures open them: whoever they came from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from scripts.lib.base.problems import UserError
from scripts.lib.model.inference import build_model, load_config, read_checkpoint
from scripts.lib.runs.config_file import render

CONFIG: dict[str, Any] = {
    "custom_imports": {"imports": ["scripts.mmcls_plugins"], "allow_failed_imports": False},
    "model": {"type": "ImageClassifier", "backbone": {"type": "LeNet5"}, "head": {"type": "ClsHead"}},
    "data": {"test": {"pipeline": [{"type": "LoadImage"}], "classes": ["a", "b"]}},
}


def write(folder: Path, config: dict[str, Any], more: str = "") -> Path:
    (folder / "config.py").write_text(render(config, "mim", "lenet5") + more)
    return folder / "config.py"


def test_a_config_of_ours_is_read(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, CONFIG))
    assert config.model.backbone.type == "LeNet5" and config.data.test.classes == ["a", "b"]


@pytest.mark.parametrize(
    "more", ["open('ran', 'w')", "import antigravity", "exec('1')", "x = __import__('os').getcwd()"]
)
def test_a_config_is_never_executed(tmp_path: Path, more: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="more than plain values"):
        load_config(write(tmp_path, CONFIG, more + "\n"), trust=True)
    assert not (tmp_path / "ran").exists() and "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"custom_imports": {"imports": ["results.evil"]}}, "custom_imports"),
        ({"model": {"type": "TIMMBackbone"}}, "model.type"),
        ({"data": {"test": {"pipeline": [{"type": "LoadImageFromFile", "file_client_args": {}}]}}}, "file_client_args"),
        ({"log_config": {"hooks": [{"type": "MMClsWandbHook"}]}}, "log_config.hooks.0.type"),
    ],
)
def test_values_that_may_reach_code_are_refused(tmp_path: Path, change: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=f"refused: .*{key}.*not known to be harmless"):
        load_config(write(tmp_path, CONFIG | change))


@pytest.mark.parametrize(
    "change", [{"model": []}, {"data": None}, {"model": {}}, {"model": {"type": "ResNet", "depth": 1}}]
)
def test_a_config_without_a_model_is_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        build_model(load_config(write(tmp_path, CONFIG | change)), {}, "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [[1], {"state_dict": 3}, torch.zeros(3), {"state_dict": [1]}])
def test_a_checkpoint_without_weights_is_one_line(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "best.pth")
    with pytest.raises(UserError, match="holds no weights"):
        read_checkpoint(tmp_path / "best.pth")
