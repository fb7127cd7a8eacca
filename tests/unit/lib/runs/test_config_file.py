"""A config.py from elsewhere: nothing in it is executed, and a trainer executes only what we would write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scripts.lib.base.problems import UserError
from scripts.lib.runs import config_file
from scripts.lib.runs.config_file import check_executable, read_config, read_trusted, render

CONFIG: dict[str, Any] = {
    "custom_imports": {"imports": ["scripts.mmcls_plugins"], "allow_failed_imports": False},
    "model": {"type": "ImageClassifier", "backbone": {"type": "ResNet", "depth": 18}},
    "data": {
        "train": {"type": "SeededCustomDataset", "data_prefix": "results/d/images", "classes": ["a", "b {{ x }}"]}
    },
    "load_from": "results/checkpoints/x.pth",
}


@pytest.fixture(autouse=True)
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(config_file, "WRITTEN", tmp_path / "written")
    return tmp_path / "written"


def write(folder: Path, text: str) -> Path:
    (folder / "config.py").write_text(text, encoding="utf-8")
    return folder / "config.py"


def test_what_we_write_may_be_executed(tmp_path: Path) -> None:
    assert check_executable(write(tmp_path, render(CONFIG, "mim train", "resnet18"))) == CONFIG


@pytest.mark.parametrize(
    "more",
    [
        "import os",
        "x = __import__('os').mkdir('ran')",
        "x = open('ran', 'w')",
        "x = [i for i in (1, 2)]",
        "x = y = 1",
        "x, y = 1, 2",
        "x.y = 1",
        "x[0] = 1",
        "x += 1",
        "def f(): pass",
        "print('x')",
        "'text'",
        "x = f'{1}'",
        "x: int = 1",
        "x = " + "[" * 300 + "]" * 300,
        "x = " + "-" * 100_000 + "1",
    ],
)
def test_more_than_plain_values_is_refused_and_not_run(
    tmp_path: Path, more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, render(CONFIG, "mim train", "resnet18") + more + "\n")
    with pytest.raises(UserError, match="more than plain values") as caught:
        read_config(path)
    assert "\n" not in str(caught.value) and not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# mim train", "# -*- coding: utf-7 -*-"),
        ("# Made by", "# vim: set fileencoding=utf-7 : Made by"),
        ("# mim train", "# {{ fileDirname }}"),
        ("# mim train", ""),
        ("model = ", "model = \\\n"),
        ("\\x7b", "{"),
        ("'ResNet'", "'Res' 'Net'"),
        ("load_from", "# a remark\nload_from"),
    ],
)
def test_what_we_would_write_otherwise_is_not_executed(tmp_path: Path, old: str, new: str) -> None:
    text = render(CONFIG, "mim train", "resnet18")
    assert old in text
    with pytest.raises(UserError, match="not as patch_config writes it"):
        check_executable(write(tmp_path, text.replace(old, new)))


HARMFUL = {
    "custom_imports": {"imports": ["results.evil"], "allow_failed_imports": False},
    "custom_hooks": [{"type": "ProfilerHook", "json_trace_path": "Makefile"}],
    "resume_from": "x.pth",
    "work_dir": "/tmp",
}


@pytest.mark.parametrize("key", list(HARMFUL))
def test_values_that_reach_code_or_files_need_trust(tmp_path: Path, key: str, written: Path) -> None:
    config = CONFIG | {key: HARMFUL[key]}
    path = write(tmp_path, render(config, "mim train", "resnet18"))
    with pytest.raises(UserError, match=f"refused: {key}.*not known to be harmless") as caught:
        check_executable(path)
    assert "\n" not in str(caught.value)
    assert read_trusted(path, trust=True) == config
    written.mkdir()
    (written / config_file._digest(path.read_text())).touch()  # as patch_config does, whose settings have the override
    assert check_executable(path) == config
