"""`make preview`: the pictures are those of the training, whatever its pipeline hands on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_run import CLASSES, make_run

from scripts import preview
from scripts.lib.base.problems import UserError
from scripts.lib.base.text import shorten
from scripts.lib.runs.config_file import render

NORMALISE = {"type": "Normalize", "mean": [120.0, 110.0, 100.0], "std": [60.0, 50.0, 40.0], "to_rgb": True}
ENDS = [{"type": "ImageToTensor", "keys": ["img"]}, {"type": "ToTensor", "keys": ["gt_label"]},
        {"type": "Collect", "keys": ["img", "gt_label"]}]  # fmt: skip


def config_of(root: Path, *steps: dict[str, Any]) -> dict[str, Any]:
    """Return a config of a tiny run whose training pipeline has these steps."""
    run = make_run(root)
    train = {"type": "SeededCustomDataset", "data_prefix": str(run.images), "ann_file": str(run.split), "seed": 3,
             "classes": CLASSES, "pipeline": [{"type": "LoadImage"}, *steps, *ENDS]}  # fmt: skip
    return {"data": {"train": train, "samples_per_gpu": 5}, "sampler": {"type": "EpochSampler"}, "seed": 3}


def pictures(config: dict[str, Any]) -> tuple[list[np.ndarray], list[str]]:
    axes = [axis for axis in preview.draw(config, "a run").axes if axis.images]
    return [axis.images[0].get_array() for axis in axes], [axis.get_title() for axis in axes]


@pytest.mark.long
@pytest.mark.parametrize("steps", [[], [NORMALISE], [{**NORMALISE, "to_rgb": False}]])
def test_pictures_have_the_colours_of_the_files_whatever_the_network_gets(
    tmp_path: Path, steps: list[dict[str, Any]]
) -> None:
    shown, titles = pictures(config_of(tmp_path, *steps))
    files = {path: np.asarray(Image.open(path)) for path in (tmp_path / "demo" / "images").rglob("*.png")}
    assert len(shown) == preview.EPOCHS + 5 and titles[: preview.EPOCHS] == [f"epoch {n}" for n in range(1, 9)]
    for pixels, title in zip(shown[8:], titles[8:], strict=True):
        of_class = [picture for path, picture in files.items() if shorten(path.parent.name, 16) == title]
        assert any(np.array_equal(pixels, picture) for picture in of_class), title


@pytest.mark.long
def test_the_first_image_is_as_each_epoch_trains_on_it(tmp_path: Path) -> None:
    from mmcls.datasets import build_dataset

    from scripts.mmcls_plugins.dataset import EpochSampler, SampleKey

    config = config_of(tmp_path, {"type": "RandomResizedCrop", "size": 20})
    dataset = build_dataset(config["data"]["train"])
    first = next(iter(EpochSampler(dataset, seed=3))).sample
    shown, _ = pictures(config)
    for epoch in range(preview.EPOCHS):
        trained = dataset[SampleKey(epoch, first)]["img"].numpy()[::-1].transpose(1, 2, 0)
        np.testing.assert_array_equal(shown[epoch], trained)
    assert len({picture.tobytes() for picture in shown[: preview.EPOCHS]}) == preview.EPOCHS


@pytest.mark.long
def test_the_command_writes_a_picture_in_the_folder_of_the_run_or_says_how_to_get_its_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "demo" / "tiny" / "seed0"
    words = preview.build_parser().parse_args(["--run", str(run), "--language", "zh"])
    with pytest.raises(UserError, match=r"config\.py: there is no such config: make run .*--until patch_config"):
        preview.main(words)
    config = config_of(tmp_path, NORMALISE)
    (run / "config.py").write_text(render(config, "mim train mmcls x.py", "tiny"), encoding="utf-8")
    preview.main(words)
    assert capsys.readouterr().out == f"{run / 'preview.png'}\n"
    with Image.open(run / "preview.png") as picture:
        assert picture.width > 1000
