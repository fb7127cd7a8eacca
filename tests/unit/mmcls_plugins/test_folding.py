"""Normalisation done by convolutions: the same function, the same gradients, the same names in what is saved."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from mmcls.models import build_classifier
from mmcv import Config

from scripts.lib.model import model_zoo
from scripts.mmcls_plugins.folding import (
    absorb,
    compute_folded,
    is_absorbed,
    normalised_convolutions,
    probabilities_of,
    same_probabilities,
)


def zoo_model(name: str) -> torch.nn.Module:
    """Return a model with statistics as of training, all different."""
    base = Config.fromfile(str(model_zoo.config_path(name))).model
    base.pretrained = None
    torch.manual_seed(0)
    model = build_classifier(base).eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_var.uniform_(0.01, 4.0)
                layer.running_mean.normal_()
                layer.weight.uniform_(0.5, 1.5)
                layer.bias.normal_()
    return model


@pytest.mark.parametrize("name", ["mobilenet-v2_8xb32_in1k", "resnet18_8xb32_in1k", "mobilenet-v3-small_8xb32_in1k"])
def test_absorbing_and_folding_change_the_numbers_and_not_the_function(name: str) -> None:
    model, images = zoo_model(name), torch.randn(2, 3, 64, 64)
    norms = [layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        before = model.extract_feat(images)[-1]
        pairs = normalised_convolutions(model, images)
        assert len(pairs) == len(norms)
        for step in (absorb, compute_folded):
            step(pairs)
            after = model.extract_feat(images)[-1]
            torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4 * before.abs().max().item())
    assert all(is_absorbed(norm) for norm in norms)


@pytest.mark.long
def test_folding_keeps_names_gradients_and_what_a_stock_model_computes() -> None:
    stock, images = zoo_model("resnet18_8xb32_in1k"), torch.randn(2, 3, 64, 64)
    absorb(normalised_convolutions(stock, images))
    folded = copy.deepcopy(stock)
    assert compute_folded(normalised_convolutions(folded, images)) == 20
    assert list(folded.state_dict()) == list(stock.state_dict())
    labels = torch.tensor([1, 2])
    for model in (stock, folded):
        model.train_step({"img": images, "gt_label": labels}, None)["loss"].backward()
    theirs = dict(stock.named_parameters())
    for name, parameter in folded.named_parameters():
        if parameter.grad is None:  # the gain of a normalisation
            assert parameter.dim() == 1 and torch.equal(parameter, torch.ones_like(parameter))
        else:
            scale = theirs[name].grad.abs().max().item()
            torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-3, atol=1e-4 * scale)
    fresh = zoo_model("resnet18_8xb32_in1k")
    fresh.load_state_dict(folded.state_dict())
    assert same_probabilities(probabilities_of(fresh, images), probabilities_of(folded, images))


def test_a_normalisation_that_does_more_than_add_is_not_folded() -> None:
    model, images = zoo_model("resnet18_8xb32_in1k"), torch.randn(2, 3, 64, 64)
    expected = probabilities_of(model, images)
    assert compute_folded(normalised_convolutions(model, images)) == 0
    assert torch.equal(probabilities_of(model, images), expected)


class Wired(torch.nn.Module):
    """One convolution whose output is read by something else than its normalisation, too."""

    def __init__(self, also: str) -> None:
        super().__init__()
        self.conv, self.norm, self.other = torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.BatchNorm2d(4)
        torch.nn.init.uniform_(self.norm.running_var, 2.0, 3.0)
        self.also = also

    def forward(self, img: torch.Tensor, **_: Any) -> torch.Tensor:
        made = self.conv(img)
        return self.norm(made) + (self.other(made) if self.also == "normalisation" else made)


def test_a_convolution_that_feeds_two_normalisations_is_left_alone() -> None:
    assert normalised_convolutions(Wired("normalisation"), torch.randn(2, 3, 8, 8)) == []


def test_what_else_reads_a_convolution_shows_in_the_scores() -> None:
    model, images = Wired("skip").eval(), torch.randn(2, 3, 8, 8)
    expected = probabilities_of(model, images)
    assert same_probabilities(expected, probabilities_of(model, images))
    absorb(normalised_convolutions(model, images))
    assert not same_probabilities(expected, probabilities_of(model, images))


def test_a_convolution_of_another_kind_is_left_alone() -> None:
    class Standardised(torch.nn.Conv2d):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self._conv_forward(images, self.weight - self.weight.mean(), self.bias)

    model = Wired("nothing")
    model.conv = Standardised(3, 4, 1)
    assert normalised_convolutions(model, torch.randn(2, 3, 8, 8)) == []
