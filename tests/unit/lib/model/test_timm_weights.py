"""Weights for timm's models: where its own are, and foreign ones under its names and in its sizes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from scripts.lib.base.problems import UserError
from scripts.lib.model import timm_models, timm_weights
from scripts.lib.model.checkpoint_file import read_foreign
from scripts.lib.model.timm_weights import OUR_PREFIX, PretrainedSource, adapted, build, for_backbone, pretrained_source

timm = pytest.importorskip("timm", reason="timm is not installed", exc_type=ImportError)
#: Of timm's own tests: a transformer, two CNNs and one whose filter looks at the weights alone.
MODELS = ["test_vit", "test_resnet", "test_convnext", "regnetx_002"]
Weights = dict[str, torch.Tensor]


@cache
def trained(name: str) -> Weights:
    """Return the weights of a whole model with a classifier, as its author would save them."""
    torch.manual_seed(3)
    return timm.create_model(name).state_dict()


@cache
def built(name: str) -> nn.Module:
    return build(name)


def source_of(name: str) -> PretrainedSource:
    return pretrained_source(timm_models.find_weights(f"timm/{name}"))


def fit(weights: Weights, name: str = "test_vit") -> Weights:
    return adapted(weights, built(name), "x.pth")


def with_prefix(prefix: str) -> Callable[[Weights], object]:
    return lambda weights: {prefix + key: value for key, value in weights.items()}


@pytest.mark.parametrize(
    ("name", "repository", "license"),
    [
        ("resnet18", "timm/resnet18.a1_in1k", "apache-2.0"),
        ("vit_small_patch16_dinov3", "timm/vit_small_patch16_dinov3.lvd1689m", "dinov3-license"),
        ("convnextv2_atto.fcmae_ft_in1k", "timm/convnextv2_atto.fcmae_ft_in1k", "cc-by-nc-4.0"),
    ],
)
def test_the_file_on_the_hub_is_known_without_it(name: str, repository: str, license: str) -> None:
    source = source_of(name)
    assert source.hub is not None and source.hub.repository == repository
    assert source.license == license
    [url, *_] = source.hub.urls(source.hub.names[0], ["http://mirror/"])
    assert url == f"http://mirror/{repository}/resolve/main/model.safetensors"


def test_weights_that_are_on_no_hub_have_an_address_with_a_hash() -> None:
    source = source_of("legacy_seresnet18")
    assert source.hub is None and source.url is not None and source.url.endswith(f"{source.sha256_prefix}.pth")


def test_a_format_of_timm_alone_is_no_address() -> None:
    assert source_of("flexivit_small").url is None  # .npz


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "model._orig_mod.", "backbone.", OUR_PREFIX])
def test_prefixes_of_other_tools_come_off_and_the_classifier_is_left(name: str, prefix: str) -> None:
    weights = trained(name)
    got = fit({prefix + key: value for key, value in weights.items()}, name)
    assert list(got) == list(built(name).state_dict())
    assert all(torch.equal(got[key], weights[key]) for key in got)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda weights: {"state_dict_ema": weights, "epoch": 3},
        lambda weights: {"model_ema": {f"module.{key}": value for key, value in weights.items()}},
        lambda weights: {"model": weights, "optimizer": {"state": {}}},
        lambda weights: {"ema": {"shadow": weights}},
        lambda weights: {"state_dict": {f"model.{key}": value for key, value in weights.items()}, "arch": "test_vit"},
        lambda weights: {
            "state_dict": {f"backbone.{key}": value for key, value in weights.items()},
            "ema_state_dict": {"steps": torch.tensor(5)},
        },
    ],
    ids=["state_dict_ema", "model_ema", "model", "ema only", "lightning", "mmengine"],
)
def test_wrappers_of_other_tools_are_opened(wrap: Callable[[Weights], object], tmp_path: Path) -> None:
    torch.save(wrap(trained("test_vit")), tmp_path / "x.pth")
    got = fit(read_foreign(tmp_path / "x.pth", "x.pth"))
    assert all(torch.equal(got[key], trained("test_vit")[key]) for key in got)


def test_position_embeddings_of_another_size_are_resampled_as_timm_does_it() -> None:
    larger = timm.create_model("test_vit", img_size=224).state_dict()
    got = fit(larger)["pos_embed"]
    small = timm.create_model("test_vit", img_size=160)
    expected = timm.models.vision_transformer.checkpoint_filter_fn(dict(larger), small)["pos_embed"]
    assert got.shape == built("test_vit").pos_embed.shape != larger["pos_embed"].shape
    assert torch.equal(got, expected)


def test_what_does_not_fit_is_said_with_names_and_shapes_of_both() -> None:
    with pytest.raises(
        UserError, match=r"0 of its \d+ tensors fit; expected cls_token \(1x1x64\), .*the file has"
    ) as e:
        fit(trained("test_resnet"))
    assert "conv1" in str(e.value) and "\n" not in str(e.value)
    larger = {key: torch.zeros(*(2 * length for length in value.shape)) for key, value in trained("test_vit").items()}
    with pytest.raises(UserError, match=r"expected cls_token \(1x1x64\), .*the file has cls_token \(2x2x128\)"):
        fit(larger)


def test_what_a_file_lacks_is_said(caplog: pytest.LogCaptureFixture) -> None:
    weights = dict(trained("test_vit"))
    weights["something.else"] = weights.pop("norm.weight")
    assert "norm.weight" not in fit(weights)
    assert "lacks 1 of" in caplog.text and "expected norm.weight (64)" in caplog.text


def test_a_checkpoint_of_ours_keeps_its_head() -> None:
    ours = {OUR_PREFIX + key: value for key, value in fit(trained("test_vit")).items()} | {
        "head.fc.bias": torch.zeros(3)
    }
    assert for_backbone(ours, "test_vit", "x.pth") == ours
    assert set(for_backbone(trained("test_vit"), "test_vit", "x.pth")) == ours.keys() - {"head.fc.bias"}


def test_a_model_that_cannot_be_built_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("no such\noperator")

    monkeypatch.setattr(timm, "create_model", fail)  # which of timm's models a torch cannot build changes with both
    with pytest.raises(UserError, match="timm cannot build resnet18 here: no such operator") as caught:
        build("resnet18")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_b0"])
def test_an_efficientnet_of_the_package_efficientnet_pytorch_fits_tensor_by_tensor(name: str, prefix: str) -> None:
    state = trained(name)
    blocks = list(dict.fromkeys(".".join(key.split(".")[:3]) for key in state if key.startswith("blocks.")))
    top = {ours: theirs for theirs, ours in timm_weights.LAYERS.items()}
    theirs: Weights = {}
    for number, tensor in enumerate(state.values()):
        tensor.view(-1)[0] = number  # so that an exchange of two of one shape is seen
    for key, tensor in state.items():
        if key.startswith("blocks."):
            block, layer = ".".join(key.split(".")[:3]), key.split(".", 3)[3]
            names = timm_weights.EXPANDING if f"{block}.conv_pwl.weight" in state else timm_weights.SEPARABLE
            [(old, new)] = [(old, new) for old, new in names.items() if layer.startswith(f"{new}.")]
            theirs[f"{prefix}_blocks.{blocks.index(block)}.{old}{layer.removeprefix(new)}"] = tensor
        else:
            layer, _, rest = key.partition(".")
            theirs[f"{prefix}{top[layer]}.{rest}"] = tensor
    fitted = fit(theirs, name)
    assert fitted.keys() == built(name).state_dict().keys()
    assert all(torch.equal(fitted[key], state[key]) for key in fitted)
