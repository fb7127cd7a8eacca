"""The config.py that is written: the tutorial's values, plain literals, its own command first."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mmcls.datasets.pipelines import Compose
from mmcv import Config

from scripts.lib.base.problems import UserError
from scripts.lib.data.reading import Reading
from scripts.lib.model import model_zoo
from scripts.lib.model.fast_recipe import FAST
from scripts.lib.runs.config_file import read_config, render, write_config
from scripts.lib.settings.schema import Experiment
from scripts.train.patch_config import Inputs, build_config, training_command

FRUIT30 = [f"水果{i}" for i in range(30)]


def tutorial_config() -> dict[str, Any]:
    base = Config.fromfile(str(model_zoo.config_path("mobilenet-v2_8xb32_in1k")))._cfg_dict.to_dict()
    return build_config(
        base,
        Inputs(
            Experiment(base_config="mobilenet-v2_8xb32_in1k", recipe="tutorial"),
            classes=FRUIT30,
            n_train=3836,
            images="results/fruit30/images",
            splits="results/fruit30/splits",
            checkpoint="results/checkpoints/x.pth",
            seed=3,
            device="cpu",
        ),
    )


def test_the_fast_recipe_starts_from_a_fitted_head_and_is_gentle() -> None:
    base = Config.fromfile(str(model_zoo.config_path("mobilenet-v2_8xb32_in1k")))._cfg_dict.to_dict()
    files = {"images": "images", "splits": "splits", "checkpoint": "run/init.pth"}
    inputs = {"classes": FRUIT30, "n_train": 320, "seed": 3, "device": "cpu", "pixel_cache": "packed/160", **files}
    experiment = Experiment(base_config="mobilenet-v2_8xb32_in1k", recipe="fast")
    config = build_config(base, Inputs(experiment, **inputs))
    assert config["load_from"] == "run/init.pth"
    assert config["model"]["backbone"]["norm_eval"] is True
    load, flip, crop = config["data"]["train"]["pipeline"][:3]
    assert load == config["data"]["val"]["pipeline"][0] == {"type": "LoadPackedImage", "folder": "packed/160"}
    assert flip["type"] == "RandomFlip"
    assert crop == {"type": "RandomResizedCrop", "size": 160, "scale": (FAST.least_crop, 1.0)}
    resize, centre, normalize = config["data"]["test"]["pipeline"][1:4]
    assert (resize["size"], centre["crop_size"]) == ((160, -1), 160)
    assert {"type": "Normalize", **config["runner"]["normalize"]} == normalize
    assert config["data"]["train_dataloader"] == {"drop_last": True}
    assert config["lr_config"]["policy"] == "CosineAnnealing" and config["lr_config"]["warmup_iters"] == 10
    assert config["runner"]["evaluate_first"] is True and config["runner"]["patience"] > 0
    assert config["optimizer"]["lr"] == FAST.learning_rate
    average = {"type": "EMAHook", "momentum": 0.1, "priority": "ABOVE_NORMAL"}  # over an epoch, of 10 steps here
    assert config["custom_hooks"] == [average]
    mine = experiment.model_copy(update={"epochs": 2, "batch_size": 16, "overrides": {"runner.patience": 0}})
    config = build_config(base, Inputs(mine, **inputs))
    assert (config["runner"]["max_epochs"], config["data"]["samples_per_gpu"]) == (2, 16)
    assert (config["runner"]["patience"], config["optimizer"]["lr"]) == (0, FAST.learning_rate / 2)
    assert config["custom_hooks"] == [{**average, "momentum": 1 / 20}]


@pytest.mark.parametrize("fit", ["pad", "squash"])
@pytest.mark.parametrize("recipe", ["fast", "tutorial"])
@pytest.mark.parametrize("name", ["mobilenet-v2_8xb32_in1k", "efficientnet-b0_8xb32_in1k", "swin-tiny_16xb64_in1k"])
def test_all_of_an_image_reaches_the_network(fit: str, recipe: str, name: str) -> None:
    base = Config.fromfile(str(model_zoo.config_path(name)))._cfg_dict.to_dict()
    experiment = Experiment(
        base_config=name, recipe=recipe, fit=fit, checkpoint={"url": "https://example.org/weights.pth"}
    )
    files = {"images": "images", "splits": "splits", "checkpoint": "run/init.pth", "pixel_cache": "packed/160"}
    inputs = Inputs(experiment, classes=FRUIT30, n_train=320, seed=3, device="cpu", **files)
    inputs = replace(inputs, reading=Reading(background=(1, 2, 3)))
    config = build_config(base, inputs)
    size = experiment.size_seen() or 224
    image = np.zeros((160, 320, 3), np.uint8)
    image[:, :8], image[:, -8:] = 255, 255  # what a crop of the middle never shows
    for split in ("train", "val", "test"):
        steps = config["data"][split]["pipeline"]
        assert "CenterCrop" not in {step["type"] for step in steps}
        square = next(step for step in steps if step["type"] == "MakeSquare")
        assert square["background"] == [1, 2, 3]
        if split == "train":
            assert steps.index(square) == 1
            continue
        skipped = ("LoadImage", "LoadPackedImage", "Normalize", "ImageToTensor", "Collect")
        shown = Compose([step for step in steps if step["type"] not in skipped])({"img": image})["img"]
        assert shown.shape == (size, size, 3)
        rows = slice(None) if fit == "squash" else slice(size // 4 + 2, size - size // 4 - 2)
        assert (shown[rows, 0] > 200).all() and (shown[rows, -1] > 200).all()
        bars = shown[: size // 4 - 1]
        assert fit == "squash" or (bars == [3, 2, 1]).all(), "blue first"


def test_the_fast_recipe_smooths_labels_where_the_backbone_has_the_number_of_classes() -> None:
    base = Config.fromfile(str(model_zoo.config_path("vgg11_8xb32_in1k")))._cfg_dict.to_dict()
    files = {"images": "images", "splits": "splits", "checkpoint": "run/init.pth"}
    inputs = {"classes": FRUIT30, "n_train": 320, "seed": 3, "device": "cpu", "pixel_cache": "packed/224", **files}
    config = build_config(base, Inputs(Experiment(base_config="vgg11_8xb32_in1k", recipe="fast"), **inputs))
    assert config["model"]["head"]["loss"]["num_classes"] == config["model"]["backbone"]["num_classes"] == 30


def test_the_fast_recipe_averages_weights_once() -> None:
    base = Config.fromfile(str(model_zoo.config_path("convnext-tiny_32xb128_in1k")))._cfg_dict.to_dict()
    assert [hook["type"] for hook in base["custom_hooks"]] == ["EMAHook"]
    files = {"images": "images", "splits": "splits", "checkpoint": "run/init.pth"}
    inputs = {"classes": FRUIT30, "n_train": 3200, "seed": 3, "device": "cpu", "pixel_cache": "packed/160", **files}
    weights = {"zoo": "convnext-tiny_3rdparty_32xb128_in1k"}
    experiment = Experiment(base_config="convnext-tiny_32xb128_in1k", recipe="fast", checkpoint=weights)
    config = build_config(base, Inputs(experiment, **inputs))
    assert config["custom_hooks"] == [{"type": "EMAHook", "momentum": 1 / 100, "priority": "ABOVE_NORMAL"}]


def test_the_tutorial_recipe_has_every_value_of_the_published_tutorial() -> None:
    config = tutorial_config()
    normalize = {
        "type": "Normalize",
        "mean": [123.675, 116.28, 103.53],
        "std": [58.395, 57.12, 57.375],
        "to_rgb": True,
    }
    test_pipeline = [
        {"type": "LoadImage"},
        {"type": "Resize", "size": (256, -1), "backend": "pillow"},
        {"type": "CenterCrop", "crop_size": 224},
        normalize,
        {"type": "ImageToTensor", "keys": ["img"]},
        {"type": "Collect", "keys": ["img"]},
    ]
    assert config["model"]["backbone"] == {"type": "MobileNetV2", "widen_factor": 1.0}
    assert config["model"]["head"]["num_classes"] == 30
    assert config["model"]["head"]["topk"] == (1, 5)
    assert config["load_from"] == "results/checkpoints/x.pth"
    assert config["data"]["samples_per_gpu"] == 32
    assert config["data"]["workers_per_gpu"] == 2
    assert config["optimizer"] == {"type": "SGD", "lr": 0.005, "momentum": 0.9, "weight_decay": 4e-5}
    assert config["optimizer_config"] == {"grad_clip": None}
    assert config["lr_config"] == {"policy": "step", "gamma": 0.98, "step": 1}
    assert config["runner"]["max_epochs"] == 5
    assert config["checkpoint_config"]["interval"] == 5
    assert config["log_config"]["interval"] == 10
    assert (config["evaluation"]["interval"], config["evaluation"]["metric"]) == (1, "accuracy")
    assert config["data"]["train"]["pipeline"] == [
        {"type": "LoadImage"},
        {"type": "RandomResizedCrop", "size": 224, "backend": "pillow"},
        {"type": "RandomFlip", "flip_prob": 0.5, "direction": "horizontal"},
        normalize,
        {"type": "ImageToTensor", "keys": ["img"]},
        {"type": "ToTensor", "keys": ["gt_label"]},
        {"type": "Collect", "keys": ["img", "gt_label"]},
    ]
    assert config["data"]["val"]["pipeline"] == test_pipeline
    assert config["data"]["test"]["pipeline"] == test_pipeline


def test_the_data_sets_are_mmcls_custom_data_sets_with_annotation_files_and_one_class_order() -> None:
    from mmcls.datasets import DATASETS, CustomDataset

    from scripts import mmcls_plugins  # noqa: F401  (registers)

    for split in ("train", "val", "test"):
        dataset = tutorial_config()["data"][split]
        assert issubclass(DATASETS.get(dataset["type"]), CustomDataset)
        assert dataset["ann_file"] == f"results/fruit30/splits/{split}.txt"
        assert dataset["classes"] == FRUIT30


@pytest.mark.parametrize("recipe", ["tutorial", "fast"])
def test_a_control_shuffles_the_labels_of_train_and_val_and_changes_nothing_else(recipe: str) -> None:
    base = Config.fromfile(str(model_zoo.config_path("mobilenet-v2_8xb32_in1k")))._cfg_dict.to_dict()
    files = {"images": "images", "splits": "splits", "checkpoint": "run/init.pth", "pixel_cache": "packed/160"}
    inputs = {"classes": FRUIT30, "n_train": 320, "seed": 3, "device": "cpu", **files}
    experiment = Experiment(base_config="mobilenet-v2_8xb32_in1k", recipe=recipe)
    plain = build_config(base, Inputs(experiment, **inputs))
    control = build_config(base, Inputs(experiment.model_copy(update={"shuffle_labels": True}), **inputs))
    for split in ("train", "val"):
        assert control["data"][split].pop("shuffle_labels") is True
    assert control == plain and "shuffle_labels" not in str(plain)


def test_the_first_line_is_the_command_that_trains_it(tmp_path: Path) -> None:
    path = tmp_path / "a b" / "config.py"
    command = training_command(path, 3, "cpu", True)
    write_config(path, tutorial_config(), command, "mobilenet-v2_8xb32_in1k")
    words = shlex.split(path.read_text(encoding="utf-8").split("\n")[0].removeprefix("# "))
    assert words[:4] == ["mim", "train", "mmcls", str(path)]
    assert words[4:6] == ["--gpus", "0"] and words[-3:] == ["--seed", "3", "--deterministic"]


def test_what_is_written_is_read_back_by_mmcv_and_by_us(tmp_path: Path) -> None:
    path = tmp_path / "config.py"
    write_config(path, tutorial_config(), "mim", "base")
    assert read_config(path) == tutorial_config()


@pytest.mark.parametrize(
    "name", ["it's", '"""', "a\\", "__import__('os').system('x')", "{{ fileDirname }}", "a\nb", "<script>"]
)
def test_no_class_name_becomes_code_or_is_changed(tmp_path: Path, name: str) -> None:
    config = {"classes": ["plain", name], "nested": {"x": {"y": [name]}}}
    write_config(tmp_path / "config.py", config, "mim", "base")
    assert read_config(tmp_path / "config.py") == config


def test_equal_settings_give_equal_files() -> None:
    assert render(tutorial_config(), "mim", "b") == render(tutorial_config(), "mim", "b")


@pytest.mark.parametrize("text", ["import os\n", "x = open('y')\n", "x = (\n", "print(1)\n"])
def test_a_config_that_holds_code_is_not_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.py"
    path.write_text(text)
    with pytest.raises(UserError, match="plain values"):
        read_config(path)
