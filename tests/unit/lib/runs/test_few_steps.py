"""Training of very few steps is said to mean little, unless it began with weights that were measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.lib.base.language import speaking, tr
from scripts.lib.runs.config_file import write_config
from scripts.lib.runs.few_steps import FEW_STEPS, REMEDY, describe_few_steps, too_few_steps


@pytest.mark.parametrize(
    ("epochs", "n_train", "batch", "steps"),
    [
        ([1, 2, 3], 20, 32, 3),
        ([1], 100, 10, 10),
        ([1, 2], 32 * 24, 32, 48),
        (range(1, 6), 10 * 32, 32, None),
        ([1], FEW_STEPS, 1, None),
        ([0, 1, 2, 3], 20, 32, None),
        ([], 20, 32, None),
    ],
)
def test_steps_are_counted(epochs: list[int], n_train: int, batch: int, steps: int | None) -> None:
    assert too_few_steps(epochs, n_train, batch) == steps


def test_a_run_is_described_in_one_line_in_each_language(tmp_path: Path) -> None:
    assert describe_few_steps(tmp_path) == "", "nothing is there"
    images, log = tmp_path / "train.txt", tmp_path / "train_log.csv"
    data = {"samples_per_gpu": 8, "train": {"ann_file": str(images)}}
    write_config(tmp_path / "config.py", {"data": data, "runner": {"gpus": 2}}, "", "a base")
    log.write_text("epoch,val_accuracy\n1,0.5\n2,0.6\n3,0.6\n", encoding="utf-8")
    assert describe_few_steps(tmp_path) == "", "nobody knows how many images"
    images.write_text("".join(f"{number}.jpg 0\n" for number in range(40)), encoding="utf-8")
    line = describe_few_steps(tmp_path)
    assert line == f"{tmp_path}: trained for 6 steps only, its numbers mean little: {REMEDY}"
    with speaking("zh"):
        assert (
            tr(line).startswith(f"{tmp_path}：只训练了 6 步") and tr(" (and 1 more run)") == "（另有 1 次运行也是如此）"
        )
    log.write_text("epoch,val_accuracy\n0,0.5\n1,0.6\n", encoding="utf-8")
    assert describe_few_steps(tmp_path) == "", "it began with a fitted head"
