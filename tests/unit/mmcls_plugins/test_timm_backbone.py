"""Models of timm as backbones of mmcls: what they give, what is frozen, what weights fit them."""

from __future__ import annotations

import pytest
import torch
from mmcls.models import build_backbone, build_classifier
from mmcv.runner import load_state_dict
from torch import nn

from scripts.lib.base.problems import UserError
from scripts.mmcls_plugins import folding
from scripts.mmcls_plugins.timm_backbone import TimmFeatures, adapted

VIT = "test_vit"


def features(name: str, **options: object) -> TimmFeatures:
    """Return a backbone with random weights."""
    torch.manual_seed(0)
    return build_backbone({"type": "TimmFeatures", "model_name": name, **options})


@pytest.mark.parametrize("name", ["hf-hub:timm/test_vit", "local-dir:folder", "a/b", "../model", "", "test vit"])
def test_nothing_that_timm_would_load_from_elsewhere_is_a_name(name: str) -> None:
    with pytest.raises(UserError, match="no model of this name"):
        TimmFeatures(name)


@pytest.mark.parametrize(("norm_eval", "frozen"), [(True, True), (False, False)])
def test_statistics_of_batch_normalisation_are_frozen_only_if_asked(norm_eval: bool, frozen: bool) -> None:
    backbone = features("test_efficientnet", norm_eval=norm_eval).train()
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]

    assert norms and all(norm.training is not frozen for norm in norms)
    assert not any(norm.training for norm in backbone.eval().modules())


def test_weights_of_another_size_of_image_are_resampled_when_they_are_loaded() -> None:
    small, large = features(VIT, img_size=64), features(VIT, img_size=160)
    weights = small.state_dict()
    position = "model.pos_embed"
    assert weights[position].shape != large.state_dict()[position].shape

    load_state_dict(large, weights, strict=True)

    assert torch.equal(large.state_dict()["model.patch_embed.proj.weight"], weights["model.patch_embed.proj.weight"])
    assert large.state_dict()[position].shape[1] > weights[position].shape[1]
    # The mean over the positions changes little where a table is resampled, and would not if it were drawn anew.
    means = [state[position][:, 1:].mean(1) for state in (weights, large.state_dict())]
    assert torch.allclose(*means, atol=0.1 * weights[position].std())


def test_weights_that_fit_are_taken_as_they_are() -> None:
    backbone = features(VIT, img_size=64)
    weights = backbone.model.state_dict()

    assert adapted(weights, backbone.model) is weights


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_vit"])
def test_folding_keeps_what_a_network_computes(name: str) -> None:
    """BatchNormAct2d of timm applies the activation too."""
    torch.manual_seed(0)
    head = {"type": "LinearClsHead", "num_classes": 3, "in_channels": features(name).model.num_features}
    head["loss"] = {"type": "CrossEntropyLoss"}
    backbone = {"type": "TimmFeatures", "model_name": name}
    model = build_classifier({"type": "ImageClassifier", "backbone": backbone, "head": head}).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
    images = torch.randn(2, 3, 160, 160)
    expected = folding.probabilities_of(model, images)

    pairs = folding.normalised_convolutions(model, images)
    folding.absorb(pairs)
    count = folding.compute_folded(pairs)

    assert torch.allclose(folding.probabilities_of(model, images), expected, atol=1e-5)
    assert (count > 0) == (name != "test_vit")
