"""Models of timm of many families: base config, one training step, Grad-CAM, layers, ONNX."""

from __future__ import annotations

import copy
import re
from functools import cache
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import onnxruntime
import pytest
import torch
from mmcls.apis import set_random_seed, train_model
from mmcls.datasets import build_dataset
from mmcls.models import build_classifier
from mmcv.runner import HOOKS, Hook
from torch import nn
from training import make_data

from scripts.lib.base.problems import UserError
from scripts.lib.model import base_configs, dry_step, onnx_export, summary, timm_models
from scripts.lib.model.fast_recipe import FAST
from scripts.lib.model.gradcam import class_logits, find_layer, grad_cam
from scripts.lib.runs import config_file, config_values
from scripts.lib.settings.schema import Experiment
from scripts.train.patch_config import Inputs, build_config

CLASSES = ["a", "b", "c"]
#: Small models of different families, and a small image that they take: (name, pixels, tokens before the patches).
FAMILIES = {
    "vit": ("vit_tiny_patch16_224", 64, 1),
    "vit-registers": ("vit_small_patch16_dinov3", 64, 5),
    "vit-registers-only": ("vit_wee_patch16_reg1_gap_256", 64, 1),
    "vit-no-prefix": ("test_vit_relpos", 64, 0),
    "deit": ("deit_tiny_distilled_patch16_224", 64, 2),
    "beit": ("beit_base_patch16_224", 48, 1),
    "dinov2": ("vit_small_patch14_dinov2", 70, 1),
    "dinov2-registers": ("vit_small_patch14_reg4_dinov2", 70, 5),
    "eva02": ("eva02_tiny_patch14_224", 70, 1),
    "swin": ("swin_tiny_patch4_window7_224", 112, None),
    "swinv2": ("swinv2_tiny_window8_256", 64, None),
    "convnextv2": ("convnextv2_atto", 64, None),
    "convnext": ("convnext_atto", 64, None),
    "mobilenetv4": ("mobilenetv4_conv_small_050", 64, None),
    "mobilenetv4-hybrid": ("mobilenetv4_hybrid_medium_075", 64, None),
    "mobilenetv3": ("mobilenetv3_small_050", 64, None),
    "efficientvit": ("efficientvit_b0", 64, None),
    "efficientvit-msra": ("efficientvit_m0", 224, None),
    "fastvit": ("fastvit_t8", 64, None),
    "tiny-vit": ("tiny_vit_5m_224", 64, None),
    "regnet": ("regnetx_002", 64, None),
    "regnety": ("regnety_002", 64, None),
    "resnet-d": ("resnet18d", 64, None),
    "maxvit": ("test_maxvit", 64, None),
    "coatnet": ("test_coatnet", 64, None),
    "efficientnet-lite": ("tf_efficientnet_lite0", 64, None),
    "efficientnetv2": ("efficientnetv2_rw_t", 64, None),
    "inception": ("inception_v3", 107, None),
    "mobilevit": ("mobilevit_xxs", 64, None),
    "repvit": ("repvit_m0_9", 64, None),
    "levit": ("levit_128s", 64, None),
    "edgenext": ("edgenext_xx_small", 64, None),
    "ghostnet": ("ghostnet_050", 64, None),
    "nfnet": ("test_nfnet", 64, None),
    "mambaout": ("test_mambaout", 64, None),
    "mixer": ("mixer_s32_224", 64, 0),
}


def inputs_of(experiment: Experiment, **changes: Any) -> Inputs:
    """Return what a config is made from, for three classes."""
    return Inputs(
        **{
            "experiment": experiment,
            "classes": CLASSES,
            "n_train": 320,
            "images": "images",
            "splits": "splits",
            "checkpoint": None,
            "seed": 3,
            "device": "cpu",
            **changes,
        }
    )


@cache
def config_of(name: str, size: int | None = None) -> dict[str, Any]:
    """Return the config of a run that trains from scratch."""
    experiment = Experiment(base_config=f"timm/{name}", checkpoint="none", image_size=size or "auto")
    return build_config(base_configs.load(experiment.base_config, pretrained=False), inputs_of(experiment))


def classifier(config: dict[str, Any]) -> nn.Module:
    """Return the classifier of a config, its weights random, and its running statistics too."""
    torch.manual_seed(0)
    return build_classifier(copy.deepcopy(config["model"])).eval()


def images_of(count: int, size: int) -> torch.Tensor:
    """Return images of noise, float32 of shape (count, 3, size, size)."""
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


# --- the config ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size", "large", "interpolation", "mean", "std"),
    [
        ("tf_efficientnet_lite0", 224, (256, -1), "bicubic", 127.5, 127.5),
        ("resnet18.tv_in1k", 224, (256, -1), "bilinear", 123.675, 58.395),
        ("mobilenetv4_conv_small.e2400_r224_in1k", 224, (256, -1), "bicubic", 123.675, 58.395),
        ("inception_v3.tf_in1k", 299, (341, -1), "bicubic", 127.5, 127.5),
        ("eva02_base_patch14_448.mim_in22k_ft_in22k_in1k", 448, 448, "bicubic", 122.771, 68.501),
    ],
)
def test_the_pipelines_have_timms_size_crop_and_normalisation(
    name: str, size: int, large: Any, interpolation: str, mean: float, std: float
) -> None:
    cfg = timm_models.pretrained_cfg(f"timm/{name}")
    train, test = base_configs.timm_pipelines(cfg)
    resize, crop, normalize = test[1:4]

    assert (resize["size"], crop["crop_size"], train[1]["size"]) == (large, size, size)
    assert resize["interpolation"] == train[1]["interpolation"] == interpolation
    assert (normalize["mean"][0], normalize["std"][0], normalize["to_rgb"]) == (mean, std, True)


def test_the_fast_recipe_normalises_and_sizes_as_timm_says() -> None:
    experiment = Experiment(
        base_config="timm/tf_efficientnet_lite0", recipe="fast", checkpoint={"url": "http://x/y.pth"}
    )
    base = base_configs.load(experiment.base_config)
    config = build_config(base, inputs_of(experiment, checkpoint="init.pth", pixel_cache="cache"))

    assert config["runner"]["normalize"] == {"mean": [127.5] * 3, "std": [127.5] * 3, "to_rgb": True}
    assert config["model"]["backbone"]["norm_eval"] is True and config["runner"]["fold_norm"] is True
    assert "img_size" not in config["model"]["backbone"]
    assert experiment.cached_short_side() == 160
    assert config["optimizer"]["lr"] == FAST.learning_rate and "paramwise_cfg" not in config["optimizer"]


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("vit_tiny_patch16_224", "backbone.model.blocks.0.", "backbone.model.blocks.11."),
        ("vit_small_patch14_reg4_dinov2", "backbone.model.blocks.0.", "backbone.model.blocks.11."),
        ("eva02_tiny_patch14_224", "backbone.model.blocks.0.", "backbone.model.blocks.11."),
    ],
)
def test_the_learning_rate_of_networks_normalised_by_layers_falls_with_depth(name: str, first: str, last: str) -> None:
    network = base_configs.built(base_configs.timm_backbone(f"timm/{name}"), name)
    rates = base_configs.learning_rates(network, pretrained=True)
    multipliers = {key: value["lr_mult"] for key, value in rates["paramwise_cfg"]["custom_keys"].items()}

    assert rates["lr"] == FAST.gentle_learning_rate
    assert multipliers[first] < 0.06 < 0.5 < multipliers[last] < 1
    assert len(multipliers) < 30, "one for each block, not one for each tensor"
    for key, value in multipliers.items():
        names = [
            f"backbone.model.{name}" for name, _ in network.model.named_parameters() if key in f"backbone.model.{name}"
        ]
        assert names and 0 < value < 1
    assert base_configs.learning_rates(network, pretrained=False) == {"lr": FAST.learning_rate}


@pytest.mark.parametrize(
    ("name", "is_batch_normalised"),
    [
        ("tf_efficientnet_lite0", True),
        ("mobilenetv4_conv_small_050", True),
        ("resnet18d", True),
        ("efficientvit_b0", True),
        ("convnextv2_atto", False),
        ("vit_small_patch16_dinov3", False),
        ("swinv2_tiny_window8_256", False),
        ("mixer_s32_224", False),
    ],
)
def test_networks_normalised_by_batches_are_told_from_those_by_layers(name: str, is_batch_normalised: bool) -> None:
    network = base_configs.built(base_configs.timm_backbone(f"timm/{name}"), name)

    assert base_configs.is_batch_normalised(network.model) is is_batch_normalised


def test_a_model_that_this_torch_cannot_build_says_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: Any, **_options: Any) -> None:
        raise AttributeError("module 'torch' has no attribute 'xyz'")

    monkeypatch.setattr("timm.create_model", fail)
    with pytest.raises(UserError, match=r"base_config timm/resnet18: torch .* cannot build it .*no attribute 'xyz'"):
        base_configs.load("timm/resnet18")


@pytest.mark.parametrize(("name", "size"), [("efficientvit_m0", 64), ("swin_tiny_patch4_window7_224", 16)])
def test_a_size_that_a_model_cannot_compute_gets_one_that_it_can(name: str, size: int) -> None:
    experiment = Experiment(base_config=f"timm/{name}", checkpoint="none", image_size=size)
    base = base_configs.load(experiment.base_config, pretrained=False)

    def rebuild(**values: Any) -> dict[str, Any]:
        return build_config(copy.deepcopy(base), inputs_of(experiment.model_copy(update=values)))

    try:
        dry_step.check(rebuild(), 2, rebuild, {})
    except UserError as error:
        assert "image_size" in str(error) and "set " in str(error)


# --- all of mimflow -----------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_goes_through_config_training_resume_grad_cam_and_onnx(family: str, tmp_path: Path) -> None:
    name, size, prefix_tokens = FAMILIES[family]
    config = config_of(name, size)
    assert not list(config_values.unknown(config, with_paths=True))
    config_file.write_config(tmp_path / "config.py", config, "mim train mmcls ...", f"timm/{name}")
    assert not dry_step.failure_of(config, 2)
    model, images = classifier(config), images_of(3, size)

    _step(model, images)
    _train_and_resume(name, size, tmp_path)
    _explain(model, images, prefix_tokens)
    described = summary.describe(model, images[:1])
    assert len(described) > 3, "a wrapped backbone is not one stage"
    assert sum(stage.parameters for stage in described) == sum(parameter.numel() for parameter in model.parameters())
    _export(model, config, images, tmp_path / "model.onnx")


def _step(model: nn.Module, images: torch.Tensor) -> None:
    """Train one step; every weight but those that timm does not use must have a gradient."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    losses = model(images, return_loss=True, gt_label=torch.arange(3))
    losses["loss"].backward()
    optimizer.step()
    model.eval()
    with_gradient = [parameter for parameter in model.parameters() if parameter.grad is not None]
    assert len(with_gradient) > 0.9 * len(list(model.parameters()))


def _train_and_resume(name: str, size: int, folder: Path) -> None:
    """Train two epochs, and one and then another: the weights are the same, bit for bit."""
    make_data(folder)
    for split, count in {"train": 2, "val": 1}.items():  # of each class
        lines = [f"class {label}/{index}.jpg {label}\n" for label in range(3) for index in range(count)]
        (folder / "splits" / f"{split}.txt").write_text("".join(lines))
    experiment = Experiment(base_config=f"timm/{name}", checkpoint="none", image_size=size, epochs=2, batch_size=3)
    base = base_configs.load(experiment.base_config, pretrained=False)
    files = {"images": str(folder / "images"), "splits": str(folder / "splits"), "n_train": 6}
    config = build_config(base, inputs_of(experiment, **files, classes=[f"class {label}" for label in range(3)]))

    whole = _trained(config, folder / "whole")
    with pytest.raises(Stopped):
        _trained(config, folder / "stopped", stop_after=3)  # of four steps: in the second epoch
    assert not (folder / "stopped" / "last.pth").exists()
    resumed = _trained(config, folder / "stopped")
    assert resumed.keys() == whole.keys() and all(torch.equal(whole[key], resumed[key]) for key in whole)


class Stopped(Exception):
    """Training was ended from outside."""


@HOOKS.register_module(force=True)
class StopAfter(Hook):
    """Ends training after some steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def after_train_iter(self, runner: Any) -> None:
        if runner.iter + 1 == self.steps:
            raise Stopped


def _trained(config: dict[str, Any], work_dir: Path, stop_after: int | None = None) -> dict[str, torch.Tensor]:
    """Train as mim does, in this process, and go on from what is in *work_dir*; return the last weights."""
    cfg = mmcv.Config(copy.deepcopy(config))
    cfg.data.workers_per_gpu, cfg.data.persistent_workers = 0, False
    cfg.merge_from_dict({"work_dir": str(work_dir), "gpu_ids": [0], "device": "cpu"})
    text = re.sub(r"work_dir = .*", "", cfg.pretty_text)
    if stop_after:
        cfg.custom_hooks = [
            *cfg.get("custom_hooks", []),
            {"type": "StopAfter", "steps": stop_after, "priority": "LOWEST"},
        ]
    set_random_seed(cfg.seed, deterministic=True)
    model = build_classifier(cfg.model)
    model.init_weights()
    dataset = build_dataset(cfg.data.train)
    meta = {"config": text, "CLASSES": dataset.CLASSES, "seed": cfg.seed}
    train_model(model, [dataset], cfg, validate=True, device="cpu", meta=meta)
    return torch.load(work_dir / "last.pth", weights_only=True)["state_dict"]


def _explain(model: nn.Module, images: torch.Tensor, prefix_tokens: int | None) -> None:
    layer = find_layer(model, images[:2])
    assert layer.extra_tokens == prefix_tokens
    assert layer.grid[0] == layer.grid[1] > 1
    maps, logits = grad_cam(model, layer, images[:2], [0, 1])
    assert maps.shape == (2, *layer.grid) and maps.min() >= 0 and torch.isfinite(logits).all()
    assert torch.allclose(
        maps, _by_hand(model, layer.module, images[:2], [0, 1], layer), rtol=1e-3, atol=1e-3 * maps.max() + 1e-12
    )


def _by_hand(model: nn.Module, module: nn.Module, images: torch.Tensor, classes: list[int], layer: Any) -> torch.Tensor:
    """Return Grad-CAM by autograd alone, each image for itself, the layer's output taken apart by shape only."""
    result = []
    for image, label in zip(images, classes, strict=True):
        kept: list[torch.Tensor] = []
        handle = module.register_forward_hook(lambda _module, _inputs, output, kept=kept: kept.append(output))
        try:
            logit = class_logits(model, image[None])[0, label]
        finally:
            handle.remove()
        gradient, output = torch.autograd.grad(logit, kept[0])[0][0], kept[0][0]
        if output.dim() == 2:  # tokens
            cells = layer.grid[0] * layer.grid[1]
            gradient, output = gradient[-cells:].T, output[-cells:].T
        elif layer.channels_last:
            gradient, output = gradient.flatten(0, 1).T, output.flatten(0, 1).T
        else:
            gradient, output = gradient.flatten(1), output.flatten(1)
        result.append((gradient.mean(1)[:, None] * output).sum(0).clamp_min(0).view(layer.grid).detach())
    return torch.stack(result)


def _export(model: nn.Module, config: dict[str, Any], images: torch.Tensor, path: Path) -> None:
    wrapped = onnx_export.Classifier(model, onnx_export.describe_pipeline(config["data"]["test"]["pipeline"])).eval()
    with torch.no_grad():
        onnx_export.export(wrapped, images[:2].numpy(), path, "model")
        expected = wrapped(images).numpy()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (3, 1):  # other numbers of images than it was traced with
        predicted = session.run(None, {session.get_inputs()[0].name: images[:count].numpy()})[0]
        assert np.abs(predicted - expected[:count]).max() < 1e-4


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    ["resnet18d", "tf_efficientnet_lite0", "convnextv2_atto", "vit_tiny_patch16_224", "eva02_tiny_patch14_224",
     "test_maxvit"],
)  # fmt: skip
def test_flops_are_those_of_torchs_counter(name: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = classifier(config_of(name))
    image = torch.zeros(1, 3, *[timm_models.models()[name].image_size] * 2)
    # Of attention as one operator, torch's counter knows nothing on a CPU.
    with onnx_export.written_out(model), FlopCounterMode(display=False) as counter, torch.enable_grad():
        model(img=image, return_loss=False, post_process=False)

    counted = summary.FLOPS * sum(stage.multiply_adds for stage in summary.describe(model, image))
    assert counted == pytest.approx(counter.get_total_flops(), rel=1e-3)
