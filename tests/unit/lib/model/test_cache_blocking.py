"""Stages computed a few images at a time: the same scores, the stages one would name, and no trace of it afterwards."""

from __future__ import annotations

import pytest
import torch
from mmcls.models import build_classifier
from mmcv import Config
from torch import nn

from scripts.lib.model import model_zoo
from scripts.lib.model.cache_blocking import cache_blocked, large_stages
from scripts.mmcls_plugins.folding import scores_of

torch.set_num_threads(1)  # two threads that wait for each other on a busy machine are ten times slower


def zoo_model(name: str) -> nn.Module:
    base = Config.fromfile(str(model_zoo.config_path(name))).model
    base.pretrained = None
    torch.manual_seed(0)
    return build_classifier(base).eval().to(memory_format=torch.channels_last)


def noise(images: int, side: int = 64) -> torch.Tensor:
    made = torch.randn(images, 3, side, side, generator=torch.Generator().manual_seed(0))
    return made.to(memory_format=torch.channels_last)


def named_stages(model: nn.Module, side: int = 64) -> dict[str, int]:
    names = {module: name for name, module in model.named_modules()}
    return {names[stage]: size for stage, size in large_stages(model, noise(2, side)).items()}


def test_the_stages_of_mobilenet_v2_and_their_largest_maps() -> None:
    found = named_stages(zoo_model("mobilenet-v2_8xb32_in1k"), 160)
    assert list(found) == [f"backbone.layer{number}" for number in range(1, 8)]
    # The expanded maps of the second stage: 96 channels of 80 x 80 float32.
    assert found["backbone.layer2"] == 96 * 80 * 80 * 4 == max(found.values())


@pytest.mark.parametrize(
    ("name", "some"),
    [
        ("mobilenet-v2_8xb32_in1k", "backbone.layer1"),
        ("resnet18_8xb32_in1k", "backbone.layer1"),
        ("mobilenet-v3-small_8xb32_in1k", "backbone.layer1"),
        ("efficientnet-b0_8xb32_in1k", "backbone.layers.1"),
        ("densenet121_4xb256_in1k", "backbone.stages.0"),
        ("swin-tiny_16xb64_in1k", None),  # its stages get tokens
    ],
)
def test_the_scores_are_the_same_a_few_images_at_a_time(name: str, some: str | None) -> None:
    model, side = zoo_model(name), 224 if "swin" in name else 64
    images = noise(7, side)
    expected = scores_of(model, images)
    assert (some in named_stages(model, side)) if some else not named_stages(model, side)
    with cache_blocked(model, images[:2], most_bytes=1) as count:
        assert (count > 0) == bool(some)
        torch.testing.assert_close(scores_of(model, images), expected)
    torch.testing.assert_close(scores_of(model, images), expected, rtol=0, atol=0)


def test_so_many_images_at_a_time_as_their_largest_maps_fit() -> None:
    model = zoo_model("mobilenet-v2_8xb32_in1k")
    seen: list[int] = []
    inner = model.get_submodule("backbone.layer2.0")
    handle = inner.register_forward_hook(lambda _module, given, _result: seen.append(len(given[0])))
    before = {name: module.forward for name, module in model.named_modules()}
    sizes = named_stages(model)
    seen.clear()
    with cache_blocked(model, noise(2), most_bytes=3 * sizes["backbone.layer2"]):
        seen.clear()
        scores_of(model, noise(7))
    assert seen == [3, 2, 2]
    handle.remove()
    assert before == {name: module.forward for name, module in model.named_modules()}, "as they were"


class Centred(nn.Module):
    """Takes the mean over the batch away: images depend on each other."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.convolutions(images)
        return result - result.mean(0)


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(Centred())

    def forward(self, img: torch.Tensor, **_: bool) -> torch.Tensor:
        result: torch.Tensor = self.backbone(img).mean((2, 3))
        return result


def test_images_that_depend_on_each_other_are_not_parted() -> None:
    model, images = Classifier().eval(), noise(4, 8)
    expected = scores_of(model, images)
    assert len(large_stages(model, images)) == 1
    with cache_blocked(model, images, most_bytes=1) as count:
        assert count == 0
        assert torch.equal(scores_of(model, images), expected)
