"""Values of a config from elsewhere: what can reach an import or a file is refused, one way after the other."""

from __future__ import annotations

from typing import Any

import pytest

from scripts.lib.runs.config_values import unknown

#: The known ways from the values of a config of mmcv 1.7 and mmcls 0.25 to an import, to code, or to a file.
WAYS: dict[str, dict[str, Any]] = {
    "modules by name": {"custom_imports": {"imports": ["results.evil"]}},
    "modules by a dotted key": {"custom_imports.imports": ["results.evil"]},
    "another config": {"_base_": "/tmp/evil.py"},
    "another config, deep": {"model": {"_base_": "evil.py"}},
    "a replaced section": {"model": {"_delete_": True, "type": "ImageClassifier"}},
    "weights": {"load_from": "http://evil.org/x.pth"},
    "a state": {"resume_from": "results/evil.pth"},
    "weights of a part": {"model.backbone.init_cfg": {"type": "Pretrained", "checkpoint": "x.pth"}},
    "weights of a part, in a list": {"model.backbone.init_cfg": [{"type": "Constant"}, {"type": "Pretrained"}]},
    "weights by the constructor": {"model.backbone.pretrained": "torchvision://resnet18"},
    "weights by the model": {"model.pretrained": "x.pth"},
    "weights of timm": {"model.backbone": {"type": "TIMMBackbone", "model_name": "hf-hub:evil/x", "pretrained": True}},
    "a state of the average": {"custom_hooks": [{"type": "EMAHook", "resume_from": "x.pth"}]},
    "sys.path by memcached": {"data.train.pipeline.0.file_client_args": {"backend": "memcached", "sys_path": "evil"}},
    "petrel": {"data.test.pipeline": [{"type": "LoadImageFromFile", "file_client_args": {"backend": "petrel"}}]},
    "lmdb": {"data": {"val": {"file_client_args": {"backend": "lmdb", "db_path": "/tmp/evil"}}}},
    "albumentations by name": {"data.train.pipeline": [{"type": "Albu", "transforms": [{"type": "os.system"}]}]},
    "a pickle as data": {"data.train": {"type": "CIFAR10", "data_prefix": "evil"}},
    "a pickle as data, by its type": {"data.train.type": "CIFAR100"},
    "images from elsewhere": {"data.test.data_prefix": "/etc"},
    "labels from elsewhere": {"data.train.ann_file": "/etc/passwd"},
    "a folder of pixels": {"data.train.pipeline.0.folder": "/etc"},
    "a wrapper of data": {"data.train": {"type": "RepeatDataset", "dataset": {"type": "MNIST"}}},
    "a profile over any file": {"custom_hooks": [{"type": "ProfilerHook", "json_trace_path": "Makefile"}]},
    "a handler of profiles": {"custom_hooks": [{"type": "ProfilerHook", "on_trace_ready": {"type": "tb_trace"}}]},
    "eval of a string": {"custom_hooks": [{"type": "RFSearchHook", "config": {"structure": "__import__('os')"}}]},
    "checkpoints anywhere": {"custom_hooks": [{"type": "CheckpointHook", "out_dir": "/tmp/evil"}]},
    "checkpoints anywhere, by the section": {"checkpoint_config.out_dir": "/tmp/evil"},
    "checkpoints by a file client": {"checkpoint_config": {"file_client_args": {"backend": "disk"}}},
    "a log anywhere": {"log_config.hooks": [{"type": "TextLoggerHook", "out_dir": "/tmp/evil"}]},
    "a log of tensorboard": {"log_config": {"hooks": [{"type": "TensorboardLoggerHook", "log_dir": "/tmp/evil"}]}},
    "a log by network": {"log_config.hooks": [{"type": "WandbLoggerHook", "init_kwargs": {"project": "evil"}}]},
    "a log of mlflow": {"log_config.hooks.0": {"type": "MlflowLoggerHook", "tracking_uri": "http://evil.org"}},
    "a log of pavi": {"log_config.hooks": [{"type": "PaviLoggerHook", "init_kwargs": {"session_text": "x"}}]},
    "a log of dvclive": {"log_config.hooks": [{"type": "DvcliveLoggerHook", "model_file": "/tmp/evil"}]},
    "the best model anywhere": {"evaluation": {"save_best": "auto", "out_dir": "/tmp/evil"}},
    "a closure": {"custom_hooks": [{"type": "ClosureHook", "fn_name": "x", "fn": "os.system"}]},
    "a dotted class": {"optimizer.type": "os.system"},
    "a class of another scope": {"model.type": "mmdet.FasterRCNN"},
    "a constructor": {"optimizer": {"constructor": "evil.Constructor"}},
    "a constructor of the runner": {"runner": {"constructor": "evil"}},
    "a plain runner": {"runner.type": "EpochBasedRunner"},
    "a folder of work": {"work_dir": "/tmp/evil"},
    "a folder of the runner": {"runner.work_dir": "/tmp/evil"},
    "a schedule by its class": {"lr_config.policy": "evil.Updater"},
    "a sampler": {"data.train_dataloader.sampler_cfg": {"type": "RepeatAugSampler"}},
    "a start method": {"mp_start_method": "spawn"},
    "processes": {"dist_params": {"backend": "mpi"}},
    "a workflow": {"workflow": [["val", 1]]},
    "a path as a choice": {"data.train.pipeline.1.backend": "../evil"},
    "a substitution": {"model.backbone.arch": "{{ fileDirname }}"},
    "a key that is no text": {"model": {3: 1}},
    "bytes": {"model.backbone.depth": b"x"},
    "no table": "text",  # type: ignore[dict-item]
}


@pytest.mark.parametrize("way", list(WAYS))
def test_each_known_way_to_an_import_or_a_file_is_refused(way: str) -> None:
    assert list(unknown(WAYS[way]))


def test_endless_nesting_is_refused() -> None:
    deep: Any = 1
    for _ in range(200):
        deep = {"model": [deep]}
    assert list(unknown(deep))


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"optimizer.weight_decay": 1e-4, "optimizer.type": "Adam", "optimizer.betas": [0.9, 0.99]},
        {"model.backbone": {"type": "MobileNetV2", "widen_factor": 0.5}, "model.head.loss.loss_weight": 2.0},
        {"lr_config": {"policy": "step", "step": [3, 6], "warmup": "linear", "warmup_iters": 10}},
        {"data.train.pipeline.2": {"type": "RandomFlip", "flip_prob": 0.5, "direction": "vertical"}},
        {"optimizer.paramwise_cfg": {"custom_keys": {".backbone.cls_token": {"decay_mult": 0.0}}}},
        {"custom_hooks": [{"type": "EMAHook", "momentum": 0.01, "priority": "ABOVE_NORMAL"}]},
        {"model.backbone.init_cfg": {"type": "Kaiming", "layer": ["Conv2d"], "mode": "fan_in"}, "load_from": None},
        {"runner.max_epochs": 3, "evaluation.interval": 2, "optimizer_config.grad_clip": {"max_norm": 5.0}},
    ],
)
def test_what_experiments_change_is_harmless(overrides: dict[str, Any]) -> None:
    assert list(unknown(overrides)) == []


def test_paths_are_those_of_a_run_only() -> None:
    config = {"load_from": "results/checkpoints/x.pth", "data": {"train": {"data_prefix": "a", "classes": ["a/b"]}}}
    assert list(unknown(config, with_paths=True)) == []
    assert [key for key, _ in unknown(config)] == ["load_from", "data.train.data_prefix", "data.train.classes"]
