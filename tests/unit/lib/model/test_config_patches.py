"""How a base config becomes one for the user's images."""

from __future__ import annotations

from typing import Any

import pytest
from mmcv import Config

from scripts.lib.base.problems import UserError
from scripts.lib.model import config_patches as patches
from scripts.lib.model import model_zoo
from scripts.lib.runs import config_file
from scripts.lib.settings.schema import Experiment
from scripts.train.patch_config import Inputs, build_config, mixed_precision


def base_of(name: str) -> dict[str, Any]:
    return Config.fromfile(str(model_zoo.config_path(name)))._cfg_dict.to_dict()


def build(name: str, classes: int = 3, n_train: int = 100, device: str = "cpu", **settings: Any) -> dict[str, Any]:
    experiment = Experiment(base_config=name, checkpoint="none", **settings)
    return build_config(
        base_of(experiment.base_config),
        Inputs(
            experiment,
            classes=[f"class {i}" for i in range(classes)],
            n_train=n_train,
            images="images",
            splits="splits",
            checkpoint=None,
            seed=0,
            device=device,
        ),
    )


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet-v2_8xb32_in1k",
        "vgg11_8xb32_in1k",
        "resnet50_8xb256-rsb-a3-100e_in1k",
        "resnet18_8xb16_cifar10",
        "swin-tiny_16xb64_in1k",
        "conformer-tiny-p16_8xb128_in1k",
        "deit-tiny_pt-4xb256_in1k",
    ],
)
def test_the_number_of_classes_is_set_wherever_it_stands(name: str) -> None:
    config = build(name, classes=3, n_train=100)
    values = [node["num_classes"] for node in config_file.nodes(config["model"]) if "num_classes" in node]
    assert values and set(values) == {3}


def test_a_model_that_knows_no_number_of_classes_is_refused() -> None:
    with pytest.raises(UserError, match="num_classes"):
        patches.patch_model({"type": "ImageClassifier", "head": {"type": "ClsHead"}}, 3)


@pytest.mark.parametrize(("classes", "expected"), [(2, (1,)), (4, (1,)), (5, (1, 5)), (30, (1, 5))])
def test_top_k_stays_within_the_number_of_classes_in_head_and_evaluation(classes: int, expected: tuple) -> None:
    config = build("mobilenet-v2_8xb32_in1k", classes=classes)
    assert config["model"]["head"]["topk"] == expected
    assert config["evaluation"]["metric_options"]["topk"] == expected


def test_nothing_is_downloaded_during_training() -> None:
    config = build("resnet50_8xb8_cub", classes=3)
    assert "http" not in repr(config)


def test_intermediate_variables_are_dropped() -> None:
    config = build("swin-tiny_16xb64_in1k")
    assert set(config) <= set(patches.TOP_LEVEL_KEYS)


def test_an_image_size_scales_every_step_of_both_pipelines() -> None:
    config = build("mobilenet-v2_8xb32_in1k", image_size=128)
    sizes = [
        step.get("size", step.get("crop_size"))
        for split in ("train", "test")
        for step in config["data"][split]["pipeline"]
    ]
    assert [size for size in sizes if size is not None] == [128, (146, -1), 128]


@pytest.mark.parametrize("name", ["swin-tiny_16xb64_in1k", "vit-base-p16_ft-64xb64_in1k-384"])
def test_a_transformer_learns_of_its_new_image_size(name: str) -> None:
    assert build(name, image_size=160)["model"]["backbone"]["img_size"] == 160


def test_a_convolutional_backbone_gets_no_image_size() -> None:
    assert "img_size" not in build("resnet18_8xb32_in1k", image_size=160)["model"]["backbone"]


def test_pickled_data_sets_become_image_files() -> None:
    steps = build("resnet18_8xb16_cifar10")["data"]["train"]["pipeline"]
    assert [step["type"] for step in steps[:2]] == ["LoadImage", "Resize"] and steps[1]["size"] == 32


def test_one_channel_models_read_gray_images() -> None:
    _, steps = patches.pipelines(Config.fromfile(model_zoo.config_path("lenet5_mnist"))["data"])
    assert steps[0]["color_type"] == "grayscale"


@pytest.mark.parametrize(
    ("name", "batch_size", "expected"),
    [
        ("mobilenet-v2_8xb32_in1k", 32, 0.005),  # the tutorial's own
        ("mobilenet-v2_8xb32_in1k", 64, 0.01),
        ("resnet18_8xb32_in1k", 32, 0.1 / 8),
        ("resnet50_b32x8_imagenet", 64, 0.1 / 4),
        ("swin-tiny_16xb64_in1k", 32, 1e-3 / 32),
    ],
)
def test_the_learning_rate_follows_the_effective_batch(name: str, batch_size: int, expected: float) -> None:
    config = build(name, batch_size=batch_size)
    assert config["optimizer"]["lr"] == pytest.approx(expected, rel=1e-12)


def test_milestones_and_warm_up_keep_their_place_in_a_shorter_schedule() -> None:
    new = patches.scale_schedule({"policy": "step", "step": [30, 60, 90]}, 100, 10, 1000, 100)
    assert new["step"] == [3, 6, 9]
    new = patches.scale_schedule(
        {"policy": "CosineAnnealing", "warmup": "linear", "warmup_iters": 20, "warmup_by_epoch": True}, 300, 5, 0, 90
    )
    assert new["warmup_iters"] == 6 and "warmup_by_epoch" not in new
    new = patches.scale_schedule({"policy": "poly", "warmup": "linear", "warmup_iters": 500}, 100, 5, 50_000, 200)
    assert new["warmup_iters"] == 2
    assert patches.scale_schedule({"policy": "step", "step": 1, "gamma": 0.98}, 300, 5, 9, 9)["step"] == 1


def test_an_average_of_weights_spans_the_same_fraction_of_a_shorter_schedule() -> None:
    hooks = patches.scale_hooks([{"type": "EMAHook", "momentum": 4e-5}], base_iterations=100_000, iterations=100)
    assert hooks == [{"type": "EMAHook", "momentum": pytest.approx(0.04)}]


@pytest.mark.parametrize(
    "overrides",
    [
        {"optimizer.weight_decay": 0.1, "optimizer": {"type": "SGD", "lr": 0.1}},
        {"model.head.topk": [1], "model.head": {"type": "LinearClsHead"}},
        {"data.train.pipeline.2.size": 9, "optimizer.lr": 1.0, "data.train": {}},
    ],
)
def test_an_override_that_would_be_lost_is_refused(overrides: dict[str, Any]) -> None:
    first, *_, last = overrides
    with pytest.raises(UserError, match=rf"overrides\.{last} replaces overrides\.{first}, .*: change their order"):
        build("mobilenet-v2_8xb32_in1k", overrides=overrides)


def test_overrides_come_last_and_reach_lists_and_arguments_with_defaults() -> None:
    config = build(
        "mobilenet-v2_8xb32_in1k",
        overrides={
            "optimizer.lr": 0.1,
            "data.train.pipeline.2.flip_prob": 0.0,
            "model.backbone.frozen_stages": 7,
            "optimizer.paramwise_cfg": {"custom_keys": {"head": {"lr_mult": 10}}},
            "lr_config.warmup": "linear",
            "model.head.loss": {"type": "LabelSmoothLoss", "label_smooth_val": 0.1, "num_classes": 3},
        },
    )
    assert config["optimizer"]["lr"] == 0.1
    assert config["data"]["train"]["pipeline"][2]["flip_prob"] == 0.0
    assert config["model"]["backbone"]["frozen_stages"] == 7
    assert config["optimizer"]["paramwise_cfg"]["custom_keys"]["head"] == {"lr_mult": 10}
    assert config["lr_config"]["warmup"] == "linear"
    assert config["model"]["head"]["loss"]["type"] == "LabelSmoothLoss"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("optimizer.weight_deca", ["overrides.optimizer.weight_deca", "weight_decay"]),
        ("optimiser.lr", ["overrides.optimiser.lr", "optimizer"]),
        ("data.train.pipeline.99.size", ["data.train.pipeline.99", "0 to 6"]),
        ("model.backbone.depht", ["overrides.model.backbone.depht"]),
        ("optimizer.lr.x", ["optimizer.lr", "no keys"]),
    ],
)
def test_an_override_of_a_key_that_does_not_exist_is_refused_with_the_closest(key: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        build("mobilenet-v2_8xb32_in1k", overrides={key: 1})
    assert all(word in str(caught.value) for word in words)


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(UserError, match=r"batch_size: 32 is larger than the 20 training images: set it to 20"):
        build("mobilenet-v2_8xb32_in1k", n_train=20)


def test_a_rest_of_one_image_is_left_out_and_any_other_rest_is_not() -> None:
    assert build("resnet18_8xb32_in1k", n_train=65)["data"]["train_dataloader"] == {"drop_last": True}
    for n_train in (64, 66, 95):
        assert "train_dataloader" not in build("resnet18_8xb32_in1k", n_train=n_train)["data"]


def test_a_base_for_other_hardware_is_refused() -> None:
    with pytest.raises(UserError, match="IPU"):
        build("vit-base-p16_ft-4xb544-ipu_in1k")


def test_mixed_precision_follows_the_device() -> None:
    auto = Experiment(base_config="resnet50_8xb32_in1k", checkpoint="none")
    asked = auto.model_copy(update={"amp": True})
    assert mixed_precision(auto, {"loss_scale": 512.0}, "cpu") is None
    assert mixed_precision(auto, {"loss_scale": 512.0}, "cuda") == {"loss_scale": 512.0}
    assert mixed_precision(auto, None, "cuda") is None
    assert mixed_precision(asked, None, "cuda") == {"loss_scale": "dynamic"}
    with pytest.raises(UserError, match="GPU"):
        mixed_precision(asked, None, "cpu")
