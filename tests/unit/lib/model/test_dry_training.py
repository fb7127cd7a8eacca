"""What the trainer would stop at is refused when config.py is written: data, optimizer, schedules, hooks, ..."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mmcls.datasets import PIPELINES

from scripts.lib.base.problems import UserError
from scripts.lib.model import base_configs, dry_training
from scripts.lib.settings.schema import Experiment
from scripts.train.patch_config import Inputs, build_config, write

RESNET = "resnet18_8xb32_in1k"
STEPS = 2
IMAGE, LABEL = {"type": "ImageToTensor", "keys": ["img"]}, {"type": "ToTensor", "keys": ["gt_label"]}
NORMALIZE = {"type": "Normalize", "mean": [1, 2, 3], "std": [1, 2, 3]}
COLLECT = {"type": "Collect", "keys": ["img", "gt_label"]}


def inputs_of(overrides: dict[str, Any], base: str = RESNET, **values: Any) -> Inputs:
    """Return what a run of two classes trains on, from scratch."""
    options = {"checkpoint": "none", "learning_rate": 0.1, "image_size": 32, **values, "overrides": overrides}
    files = {"images": "i", "splits": "s", "checkpoint": None, "pixel_cache": "p"}
    experiment = Experiment(base_config=base, **options)
    return Inputs(experiment, ["a", "b"], n_train=50, seed=0, device="cpu", train_counts=[25, 25], **files)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"optimizer.lr": "0.1"}, r"optimizer.lr: .*: write 0.1 without quotes$"),
        ({"optimizer": {"type": "SGD", "lr": 0.1, "momentum": "0.9"}}, r"optimizer: .*: write 0.9 without quotes$"),
        ({"optimizer.type": "Lion9"}, r"optimizer.type: .*Lion9 is not in the optimizer registry"),
        ({"optimizer": {"type": "Adam", "lr": 0.1, "momentum": 0.9}}, r"optimizer: .*argument 'momentum'"),
        ({"optimizer.paramwise_cfg": {"custom_keys": {"head": {"lr_mult": "x"}}}}, r"optimizer.paramwise_cfg: "),
        ({"lr_config.policy": "Cosine"}, r"lr_config.policy: .*CosineLrUpdaterHook is not in the hook registry"),
        ({"lr_config": {"policy": "CosineAnnealing"}}, r"lr_config: .*min_lr is None"),
        ({"lr_config": {"policy": "step", "step": [1], "gama": 0.1}}, r"lr_config: .*'gama'"),
        ({"lr_config.warmup": "linaer"}, r"lr_config.warmup: .*linaer"),
        ({"lr_config": {"policy": "poly", "power": "2"}}, r"lr_config: .*write 2 without quotes$"),
        ({"momentum_config": {"policy": "Foo"}}, r"momentum_config: .*FooMomentumUpdaterHook"),
        ({"optimizer_config.grad_clip": {"max_nrm": 5}}, r"optimizer_config.grad_clip: .*max_nrm"),
        ({"optimizer_config": {"type": "Sam"}}, r"optimizer_config: .*Sam is not in the hook registry"),
        ({"data.train.pipeline.1.type": "RandomResizeCrop"}, r"data.train.pipeline.1.type: .*RandomResizeCrop"),
        ({"data.train.pipeline.2.flip_prob": "x"}, r"data.train.pipeline.2.flip_prob: "),
        ({"data.train.pipeline.3.mean": [1, 2]}, r"data.train.pipeline.3.mean: "),
        ({"data.val.pipeline.1": {"type": "Resize", "size": [32, -1], "backed": "cv2"}}, r"data.val.*'backed'"),
        (
            {"data.train.pipeline.5": {"type": "ToTensor", "keys": ["img"]}},
            r"data.train.pipeline.5: .*no tensor gt_label",
        ),
        ({"data.val.pipeline.2": {"type": "Resize", "size": [32, -1]}}, r"data.val.*: .*different sizes"),
        (
            {"data.train.pipeline": [{"type": "LoadImage"}, {"type": "Resize", "size": 32}, IMAGE, LABEL, COLLECT]},
            r"data.train.pipeline: .*normalised once",
        ),
        ({"data.train.pipeline.3.std": [0, 1, 1]}, r"data.train.pipeline.3.std: .*no finite numbers"),
        ({"data.val.pipeline.3.std": [1, 0, 1]}, r"data.val.*: .*no finite numbers"),
        ({"data.samples_per_gpu": "16"}, r"data.samples_per_gpu: .*: write 16 without quotes$"),
        ({"data.train_dataloader": {"foo": 1}}, r"data.train_dataloader: .*'foo'"),
        ({"sampler": {"type": "DistributedSampler"}}, r"sampler: .*EpochSampler"),
        ({"evaluation.metric": "acuracy"}, r"evaluation.metric: .*acuracy.* not supported"),
        ({"evaluation.interval": 0}, r"evaluation.interval: .*positive"),
        ({"evaluation.metric_options": {"topk": [1, "x"]}}, r"evaluation.metric_options: "),
        ({"runner.patience": "soon"}, r"runner.patience: .*'soon'"),
        ({"runner.max_epochs": "5"}, r"runner.max_epochs: .*: write 5 without quotes$"),
        ({"runner": {"type": "EpochBasedRunner", "max_epochs": 2}}, r"runner: .*ReproducibleRunner"),
        ({"checkpoint_config.interval": "often"}, r"checkpoint_config.interval: .*often"),
        ({"log_config.hooks": [{"type": "WandbLoggerHook"}]}, r"log_config.hooks: .*install wandb"),
        ({"custom_hooks": [{"type": "EMAHok"}]}, r"custom_hooks: .*EMAHok is not in the hook registry"),
        ({"custom_hooks": [{"type": "EMAHook", "momentum": 2}]}, r"custom_hooks: .*momentum < 1"),
        ({"model.backbone.depth": 19}, r"model.backbone.depth: .*invalid depth 19"),
        ({"model.head.loss": {"type": "FocalLos"}}, r"model.head.loss: .*FocalLos"),
        ({"workflow": [["train", 1], ["val", 1]]}, r"workflow: "),
        ({"log_level": "LOUD"}, r"log_level: .*LOUD"),
        ({"custom_imports": {"imports": ["no_such_module"]}}, r"custom_imports: .*no_such_module"),
    ],
)
def test_an_override_that_training_would_stop_at_is_one_line_with_its_key(
    tmp_path: Path, overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        write(tmp_path / "config.py", inputs_of({"model.backbone.frozen_stages": 1, **overrides}))
    assert re.match(rf"overrides\.{message}", str(caught.value)), caught.value
    assert "\n" not in str(caught.value) and "frozen_stages" not in str(caught.value)
    assert not (tmp_path / "config.py").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        {"model.head.num_classes": 5},
        {"model.head": {"type": "LinearClsHead", "num_classes": 1000, "in_channels": 512}},
        {"model.train_cfg": {"augments": [{"type": "BatchMixup", "alpha": 0.2, "num_classes": 10, "prob": 1.0}]}},
    ],
)
def test_another_number_of_classes_than_the_data_have_is_refused(tmp_path: Path, overrides: dict[str, Any]) -> None:
    with pytest.raises(
        UserError, match=r"^overrides: num_classes is \d+ .*, but the data have 2 classes: leave it out"
    ):
        write(tmp_path / "config.py", inputs_of(overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        {"optimizer": {"type": "AdamW", "lr": 0.001, "betas": [0.9, 0.99]}, "lr_config.min_lr_ratio": None},
        {"optimizer.paramwise_cfg": {"norm_decay_mult": 0.0}},
        {"lr_config": {"policy": "OneCycle", "max_lr": 0.1}, "momentum_config": {"policy": "OneCycle"}},
        {"data.train.pipeline.1": {"type": "RandomResizedCrop", "size": [32, 32], "ratio": [1.0, 1.0]}},
        {"data.train.pipeline.1": {"type": "Resize", "size": [40, -1]}, "data.train.pipeline.2": {"type": "CenterCrop",
         "crop_size": 32}},
        {"evaluation": {"interval": 1, "metric": ["accuracy", "precision"]}},
        {"evaluation.metric_options": {"topk": [1, 2]}},
        {"evaluation.metric_options": {"topk": [1, 5]}},
        {"data.workers_per_gpu": 0},
        {"data.pin_memory": False, "data.persistent_workers": False},
        {"optimizer_config.grad_clip": {"max_norm": 5}},
        {"custom_hooks": [{"type": "EMAHook", "momentum": 0.1, "priority": "ABOVE_NORMAL"}]},
        {"checkpoint_config.interval": 1, "log_config.interval": 50, "runner.patience": 3},
    ],
)  # fmt: skip
def test_an_override_that_training_can_use_is_taken(overrides: dict[str, Any]) -> None:
    if "lr_config.min_lr_ratio" in overrides:
        overrides = {key: value for key, value in overrides.items() if value is not None}
    inputs = inputs_of(overrides)
    assert dry_training.failure_of(build_config(base_configs.load(RESNET), inputs), STEPS) is None


@pytest.mark.parametrize(
    "values",
    [
        {"recipe": "fast", "checkpoint": "zoo"},
        {"fit": "pad"},
        {"balance": "sampler"},
        {"gpus": 2, "nodes": 2, "batch_size": 8},
    ],
)
def test_what_mimflow_writes_can_be_used(values: dict[str, Any]) -> None:
    for base in (RESNET, "mobilenet-v2_8xb32_in1k"):
        inputs = inputs_of({}, base, image_size="auto", **values)
        assert dry_training.failure_of(build_config(base_configs.load(base), inputs), STEPS) is None


def test_a_base_config_at_fault_is_named() -> None:
    config = build_config(base_configs.load(RESNET), inputs_of({}))
    config["optimizer"]["type"] = "Lion9"
    with pytest.raises(UserError, match=r"^base_config: its optimizer cannot be used .*: choose another$"):
        dry_training.check(config, STEPS, lambda **_values: config, {"model.backbone.frozen_stages": 1})


def test_the_environment_of_a_job_does_not_lead_the_images_of_noise_astray(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MIMFLOW_IMAGES", str(tmp_path))
    assert dry_training.failure_of(build_config(base_configs.load(RESNET), inputs_of({})), STEPS) is None


def test_random_numbers_go_on_as_if_nothing_had_been_tried() -> None:
    import random

    import numpy as np
    import torch

    states = random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist()
    dry_training.failure_of(build_config(base_configs.load(RESNET), inputs_of({})), STEPS)
    assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.random.get_rng_state().tolist())
    assert "RandomFlip" in PIPELINES


@pytest.mark.long
def test_the_dry_step_leaves_the_compiler_out() -> None:
    code = (
        "import sys; from scripts.lib.model import base_configs, dry_step;"
        "model = base_configs.load('mobilenet-v2_8xb32_in1k')['model'];"
        "assert dry_step._try(model, (2, 3, 32, 32), (1, 3, 32, 32), 'meta') == '';"
        "assert 'torch._dynamo' not in sys.modules; import torch; assert '_dynamo' not in vars(torch)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
