"""Grad-CAM: the same maps as written out by hand, a planted signal is found, every family of backbones, a safe page."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmcls.models import build_backbone, build_classifier
from mmcv import Config, ConfigDict
from PIL import Image
from red_detector import RedDetector
from simulated_predictions import predictions_of, simulate, write_csv
from tiny_run import TinyRun, make_run, photograph
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate

from scripts.evaluate import explain_model, predict_images
from scripts.lib.base.problems import UserError
from scripts.lib.model.gradcam import Axis, FeatureLayer, NoFeatureLayer, class_logits, find_layer, grad_cam, token_grid
from scripts.lib.model.inference import build_model
from scripts.lib.pages.explanation_page import (
    BATCH,
    Choice,
    Explained,
    Explanations,
    Map,
    as_seen,
    choose,
    explain,
    explanation_page,
    overlay,
)
from scripts.lib.runs.predictions import Predictions, read_predictions

N_CLASSES = 3
POOLING = ("kernel_size", "stride", "padding", "ceil_mode")
MIXER = {"embed_dims": 24, "num_layers": 2, "tokens_mlp_dims": 8, "channels_mlp_dims": 48}
VIT = {"embed_dims": 24, "num_layers": 2, "num_heads": 2, "feedforward_channels": 48}
SWIN = {"embed_dims": 8, "depths": [1, 1, 2, 2], "num_heads": [1, 1, 2, 2]}
CONVNEXT = {"depths": [1, 1, 2, 1], "channels": [8, 16, 24, 32]}
EFFICIENTNET = {"type": "EfficientNet", "arch": "b0"}
#: Backbone, what its head reads, the type of the head, and rows, columns and the layer that are found at 64 x 96.
BACKBONES: dict[str, tuple[dict[str, Any], Any, str, tuple[int, int], str]] = {
    "mobilenet-v2": ({"type": "MobileNetV2", "widen_factor": 0.1}, 1280, "LinearClsHead", (2, 3), "backbone.conv2"),
    "resnet-18": ({"type": "ResNet", "depth": 18}, 512, "LinearClsHead", (2, 3), "backbone.layer4"),
    "efficientnet": (EFFICIENTNET, 1280, "LinearClsHead", (2, 3), "backbone.layers.6"),
    "convnext": ({"type": "ConvNeXt", "arch": CONVNEXT}, 32, "LinearClsHead", (2, 3), "backbone.stages.3"),
    "swin": (
        *({"type": "SwinTransformer", "arch": SWIN, "img_size": (64, 96), "window_size": 2}, 64, "LinearClsHead"),
        *((2, 3), "backbone.norm3"),
    ),
    "vit": (
        *({"type": "VisionTransformer", "arch": VIT, "img_size": (64, 96)}, 24, "VisionTransformerClsHead"),
        *((4, 6), "backbone.layers.1.ln1"),
    ),
    "deit": (
        *({"type": "DistilledVisionTransformer", "arch": VIT, "img_size": (64, 96)}, 24, "DeiTClsHead"),
        *((4, 6), "backbone.layers.1.ln1"),
    ),
    "mlp-mixer": (
        *({"type": "MlpMixer", "arch": MIXER, "img_size": (64, 96)}, 24, "LinearClsHead"),
        *((4, 6), "backbone.ln1"),
    ),
}


def classifier(backbone: dict[str, Any], width: int, head: str) -> nn.Module:
    """A classifier of random weights that sees: statistics fitted to noise, a head of large random numbers."""
    config: dict[str, Any] = {
        "type": "ImageClassifier",
        "backbone": backbone,
        "head": {"type": head, "num_classes": N_CLASSES, "in_channels": width, "topk": (1,)},
    }
    if head == "LinearClsHead" and backbone["type"] != "ConvNeXt":
        config["neck"] = {"type": "GlobalAveragePooling", **({"dim": 1} if backbone["type"] == "MlpMixer" else {})}
    torch.manual_seed(0)
    model = build_classifier(ConfigDict(config))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
            model.train().extract_feat(noise(8))
        for parameter in model.head.parameters():
            parameter.normal_(0, 0.3)
    return model.eval()


def noise(n: int, height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(n))


@pytest.fixture(scope="module")
def built() -> Callable[[str], nn.Module]:
    models: dict[str, nn.Module] = {}

    def build(name: str) -> nn.Module:
        if name not in models:
            models[name] = classifier(*BACKBONES[name][:3])
        return models[name]

    return build


@pytest.mark.parametrize("name", list(BACKBONES))
def test_every_family_is_explained_at_its_last_layer_with_positions(
    name: str, built: Callable[[str], nn.Module]
) -> None:
    model, images = built(name), noise(2)
    layer = find_layer(model, images)
    assert (layer.grid, layer.name) == BACKBONES[name][3:]
    maps, logits = grad_cam(model, layer, images, [0, 2])
    assert maps.shape == (2, *layer.grid) and bool((maps >= 0).all()) and bool(maps.any())
    with torch.no_grad():
        assert torch.allclose(logits, class_logits(model, images), atol=1e-5)
    assert all(parameter.requires_grad for parameter in model.parameters()), "the model is left as it was"
    assert not any(module._forward_hooks for module in model.modules())


def by_hand(features: torch.Tensor, logit: torch.Tensor) -> torch.Tensor:
    """Grad-CAM of feature maps (n, channels, rows, columns), as its paper writes it."""
    (gradient,) = torch.autograd.grad(logit.sum(), features)
    weights = gradient.sum(dim=(2, 3)) / (features.shape[2] * features.shape[3])
    return torch.einsum("nc,nchw->nhw", weights, features).clamp_min(0).detach()


@pytest.mark.parametrize("name", ["mobilenet-v2", "convnext"])
def test_maps_of_a_cnn_are_those_written_out_by_hand(name: str, built: Callable[[str], nn.Module]) -> None:
    model, images, classes = built(name), noise(3), [2, 0, 1]
    maps, _ = grad_cam(model, find_layer(model, images), images, classes)
    if name == "convnext":
        features = images
        for down, stage in zip(model.backbone.downsample_layers, model.backbone.stages, strict=True):
            features = stage(down(features))
        pooled = model.backbone.norm3(features.mean([2, 3], keepdim=True)).flatten(1)
    else:
        features = model.backbone(images)[-1]
        pooled = features.mean(dim=(2, 3))
    expected = by_hand(features, model.head.fc(pooled)[range(3), classes])
    assert float(expected.max()) > 1e-3
    assert torch.allclose(maps, expected, rtol=1e-4, atol=1e-6)


def test_maps_of_a_vision_transformer_are_those_written_out_by_hand(built: Callable[[str], nn.Module]) -> None:
    """All of the last block and the head once more, with the patch tokens as a map and the class token beside it."""
    model, images, classes = built("vit"), noise(3), [2, 0, 1]
    backbone = model.backbone
    tokens = torch.cat([backbone.cls_token.expand(3, -1, -1), backbone.patch_embed(images)[0]], dim=1)
    tokens = backbone.layers[0](tokens + backbone.pos_embed)
    last = backbone.layers[1]
    normalised = last.ln1(tokens)
    features = normalised[:, 1:].reshape(3, 4, 6, 24).permute(0, 3, 1, 2)
    attended = tokens + last.attn(torch.cat([normalised[:, :1], features.permute(0, 2, 3, 1).flatten(1, 2)], dim=1))
    answer = backbone.norm1(last.ffn(last.ln2(attended), identity=attended))[:, 0]
    expected = by_hand(features, model.head.layers.head(answer)[range(3), classes])
    maps, _ = grad_cam(model, find_layer(model, images), images, classes)
    assert float(expected.max()) > 1e-4
    assert torch.allclose(maps, expected, rtol=1e-4, atol=1e-7)


def test_tokens_of_swin_become_the_map_that_it_answers_with(built: Callable[[str], nn.Module]) -> None:
    model, images = built("swin"), noise(2)
    layer = find_layer(model, images)
    outputs: list[torch.Tensor] = []
    hook = layer.module.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    answer = model.backbone(images)[-1]
    hook.remove()
    assert torch.equal(layer.as_map(outputs[0]), answer)
    assert torch.equal(layer.as_output(answer, outputs[0]), outputs[0])


def planted(row: int, column: int) -> torch.Tensor:
    """A dark image of 64 x 96 with one red patch of 16 x 16."""
    image = torch.zeros(1, 3, 64, 96)
    image[:, 0, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 1
    return image


def red_vit() -> nn.Module:
    """A vision transformer of one layer whose class 1 is how red its patches are: its attention is a plain mean."""
    arch = {"embed_dims": 8, "num_layers": 1, "num_heads": 1, "feedforward_channels": 8}
    model = classifier({"type": "VisionTransformer", "arch": arch, "img_size": (64, 96)}, 8, "VisionTransformerClsHead")
    state = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    for name in state:
        if name.rpartition(".")[0].endswith(("ln1", "ln2", "norm1")) and name.endswith("weight"):
            state[name].fill_(1)
    state["backbone.patch_embed.projection.weight"][0, 0] = 1 / 16  # channel 0 is the red of a patch
    state["backbone.patch_embed.projection.bias"][1] = 1
    state["backbone.layers.0.attn.qkv.weight"][16:] = torch.eye(8)  # queries and keys of 0: all patches count the same
    state["backbone.layers.0.attn.proj.weight"].copy_(torch.eye(8))
    state["head.layers.head.weight"][1, 0] = 1
    model.load_state_dict(state)
    return model


class Scored(nn.Module):
    """A backbone whose one logit is the mean of its last feature map."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: torch.Tensor, *, return_loss: bool, softmax: bool, post_process: bool) -> torch.Tensor:
        features: torch.Tensor = self.backbone(images)[-1]
        return features.mean(dim=(1, 2, 3))[:, None]


@pytest.mark.parametrize("make", [RedDetector, red_vit])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 5), (3, 0), (3, 5)])
def test_a_planted_patch_is_where_the_map_has_its_maximum(make: Callable[[], nn.Module], row: int, column: int) -> None:
    model, images = make(), planted(row, column)
    layer = find_layer(model, images)
    maps, _ = grad_cam(model, layer, images, [1])
    assert layer.grid == (4, 6)
    assert divmod(int(maps[0].argmax()), 6) == (row, column)
    large = layer.enlarge(maps, (64, 96))[0]
    y, x = divmod(int(large.argmax()), 96)
    assert (y // 16, x // 16) == (row, column)
    assert float(large.max()) == 1


def test_a_class_that_nothing_speaks_for_has_an_empty_map() -> None:
    model = RedDetector()
    layer = find_layer(model, planted(1, 1))
    maps, _ = grad_cam(model, layer, planted(1, 1), [0])
    assert not maps.any() and not layer.enlarge(maps, (64, 96)).any()


def test_the_score_is_the_one_before_the_softmax() -> None:
    """Of a model that is sure, the gradient of the probability is 0: no map would be left."""
    model = RedDetector()
    images = 100 * planted(2, 2)
    assert float(model(images, False, True, False)[0, 1].detach()) == 1
    maps, logits = grad_cam(model, find_layer(model, images), images, [1])
    assert float(maps.max()) > 1 and float(logits[0, 1]) > 10


def test_maps_are_enlarged_bilinearly() -> None:
    maps = torch.rand(2, 3, 4)
    expected = interpolate(maps[:, None], (30, 40), mode="bilinear", align_corners=False)[:, 0]
    layer = FeatureLayer("", nn.Identity(), (3, 4), None, (Axis.even(3, 30), Axis.even(4, 40)))
    assert torch.allclose(layer.enlarge(maps, (30, 40)), expected / expected.flatten(1).amax(1)[:, None, None])


@pytest.mark.long
@pytest.mark.parametrize(
    ("backbone", "first"),
    [
        ({"type": "MobileNetV2", "widen_factor": 0.1}, 0),  # padded convolutions of stride 2
        ({"type": "ResNet", "depth": 18}, 0),  # the same, with a pooling
        ({"type": "EfficientNet", "arch": "b0"}, 31),  # padded as TensorFlow does, at the end
        ({"type": "VGG", "depth": 11}, 15.5),  # poolings of 2 x 2
        ({"type": "ConvNeXt", "arch": CONVNEXT, "gap_before_final_norm": False}, 15.5),  # convolutions without padding
    ],
)
def test_places_lie_where_they_look(backbone: dict[str, Any], first: float) -> None:
    """Against the centre of what one place depends on, where all weights are equal and the borders are far away."""
    model = build_backbone(ConfigDict(backbone))
    model.eval()  # returns None with some backbones
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            squeezing = ".se." in name or "se_layer" in name  # looks at the whole image, equally
            nn.init.constant_(module.weight, 0 if squeezing else 1 / module.weight[0].numel())
            nn.init.zeros_(module.bias) if module.bias is not None else None
        if isinstance(module, nn.MaxPool2d):  # which of equal pixels is the largest would be chance
            module.forward = partial(avg_pool2d, **{key: getattr(module, key) for key in POOLING})
        if "LayerNorm" in type(module).__name__:
            module.forward = lambda data, **_: data  # it couples channels, and divides by a spread of 0
    cells = 17
    width = 32 * cells
    image = torch.full((1, 3, width, width), 1e-3, requires_grad=True)  # so small that no ReLU6 comes to its end
    layer = find_layer(Scored(model), image)
    assert layer.grid == (cells, cells)
    assert [(axis.first, axis.step) for axis in layer.axes] == [(first, 32), (first, 32)]
    (gradient,) = torch.autograd.grad(model(image)[-1][0, :, 8, 7].sum(), image)
    weight = gradient[0].abs().sum(0)
    centre = [float((weight.sum(1 - axis) * torch.arange(width)).sum() / weight.sum()) for axis in (0, 1)]
    assert centre == pytest.approx([first + 32 * 8, first + 32 * 7], abs=1)


def test_a_score_that_depends_on_no_place_is_not_explained(built: Callable[[str], nn.Module]) -> None:
    model = classifier(*BACKBONES["mobilenet-v2"][:3])
    model.head.fc.weight.data.zero_()
    with pytest.raises(NoFeatureLayer, match="the logit depends on no layer that has positions of the image"):
        find_layer(model, noise(2))


def test_a_model_that_recomputes_its_activations_is_explained(built: Callable[[str], nn.Module]) -> None:
    model, images = classifier({**BACKBONES["swin"][0], "with_cp": True}, *BACKBONES["swin"][1:3]), noise(2)
    layer = find_layer(model, images)
    expected, _ = grad_cam(built("swin"), find_layer(built("swin"), images), images, [0, 1])
    assert torch.equal(grad_cam(model, layer, images, [0, 1])[0], expected)
    assert any(getattr(module, "with_cp", False) for module in model.modules()), "the model is left as it was"


def test_attention_from_the_class_token_is_no_map_of_the_image() -> None:
    """Of a square image the attention of all tokens to all is square as well; the logit depends on one row of it."""
    model = classifier({"type": "VisionTransformer", "arch": VIT, "img_size": 64}, 24, "VisionTransformerClsHead")
    layer = find_layer(model, noise(2, 64, 64))
    assert (layer.name, layer.grid, layer.extra_tokens) == ("backbone.layers.1.ln1", (4, 4), 1)


class Repeated(RedDetector):
    """The same, with one layer through which its map passes twice: that has two outputs, and is not to be explained."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv2d(2, 2, 3, padding=1, groups=2)

    def forward(self, img: torch.Tensor, return_loss: bool, softmax: bool, post_process: bool) -> torch.Tensor:
        return self.mix(self.mix(self.patches(img))).mean(dim=(2, 3))


def test_a_layer_that_is_called_twice_is_not_explained() -> None:
    assert find_layer(Repeated(), noise(2)).name == "patches"


def test_frozen_stages_are_explained(built: Callable[[str], nn.Module]) -> None:
    model, images = classifier(*BACKBONES["mobilenet-v2"][:3]), noise(2)
    model.requires_grad_(False)
    expected, _ = grad_cam(built("mobilenet-v2"), find_layer(built("mobilenet-v2"), images), images, [0, 1])
    assert torch.equal(grad_cam(model, find_layer(model, images), images, [0, 1])[0], expected)
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("tokens", "size", "extra", "grid"),
    [
        (49, (224, 224), None, (7, 7, 0)),
        (197, (224, 224), 1, (14, 14, 1)),
        (198, (224, 224), None, (14, 14, 2)),
        (196, (224, 224), 1, (14, 14, 0)),
        (7 * 5, (224, 160), 0, (7, 5, 0)),
        (5 * 7 + 1, (160, 224), None, (5, 7, 1)),
        (15 * 10, (230, 160), None, (15, 10, 0)),
        (1, (224, 224), None, None),
        (2, (224, 224), None, None),
        (13, (224, 224), 0, None),
    ],
)
def test_tokens_get_the_shape_of_the_image(
    tokens: int, size: tuple[int, int], extra: int | None, grid: tuple[int, int, int] | None
) -> None:
    assert token_grid(tokens, size, extra) == grid


def test_the_most_confident_images_are_chosen_and_the_worst_class_is_first() -> None:
    images = [(0, 0, 0.6), (0, 0, 0.9), (0, 0, 0.8), (1, 2, 0.7), (1, 2, 0.9), (1, 0, 0.8), (2, 1, 0.6), (2, 2, 0.5)]
    probabilities = np.full((len(images), 3), 0.0)
    for row, (_, prediction, confidence) in enumerate(images):
        probabilities[row] = (1 - confidence) / 2
        probabilities[row, prediction] = confidence
    choice = choose(predictions_of(probabilities, np.array([label for label, _, _ in images])))
    rows = [(shown.label, shown.n, shown.n_wrong, shown.right, shown.wrong) for shown in choice.classes]
    assert rows == [(1, 3, 3, [], [4, 5]), (2, 2, 1, [7], [6]), (0, 3, 0, [1, 2], [])]
    assert (choice.pair, choice.pair_counts, choice.pair_rows) == ((1, 2), (2, 1), [4, 3, 6])
    assert choice.rows() == [1, 2, 3, 4, 5, 6, 7] and choice.hidden == 0


def test_the_worst_pair_is_counted_both_ways() -> None:
    """Class 0 was predicted as 1 twice; 1 and 2 were confused three times in all."""
    labels, predicted = [0, 0, 2, 2, 1], [1, 1, 1, 1, 2]
    choice = choose(predictions_of(np.eye(3)[predicted], np.array(labels)))
    assert (choice.pair, choice.pair_counts, choice.pair_rows) == ((1, 2), (1, 2), [2, 3, 4])
    assert choice.equal_pairs == 0


def test_of_pairs_confused_equally_often_the_one_of_the_surest_error_is_shown() -> None:
    rows = np.array([[0.4, 0.6, 0, 0], [0, 0, 0.3, 0.7], [0.1, 0, 0, 0.9], [0.9, 0.1, 0, 0]])
    predictions = predictions_of(rows, np.array([0, 2, 0, 0]))
    choice = choose(predictions)
    assert (choice.pair, choice.pair_rows, choice.equal_pairs) == ((0, 3), [2], 2)
    page = explanation_page(predictions, choice, explained_by_noise(choice))
    assert (
        "1 of 3 errors" in page
        and "2 other pairs are confused as often; this one has the most confident error." in page
    )


def test_a_confused_image_stands_beside_the_right_ones_that_are_most_like_it() -> None:
    """The lime at row 2 is confused with a lemon; nearest to it are the lemon at row 1 and the lime at row 4."""
    labels, predicted = np.array([0, 0, 1, 1, 1, 0]), [0, 0, 0, 1, 1, 1]
    features = np.array([[9.0, 9], [1, 1], [0, 0], [5, 5], [2, 0], [0.1, 0]])
    predictions = predictions_of(np.eye(2)[predicted], labels)
    choice = choose(predictions, features)
    assert choice.pair_rows == [2, 5]
    assert choice.like == {2: [1, 4], 5: [4, 1]}, "rows 2 and 5 are wrong: nothing is shown as like them"
    page = explanation_page(predictions, choice, explained_by_noise(choice))
    assert page.count("most like it, correctly predicted as") == 4 and "Why: on the right of each" in page
    assert choose(predictions).like == {} and "Why: " not in explanation_page(
        predictions, choose(predictions), explained_by_noise(choice)
    )


def test_of_a_class_without_a_right_image_nothing_is_shown_as_like() -> None:
    predictions = predictions_of(np.eye(2)[[0, 0]], np.array([0, 1]))
    assert choose(predictions, np.zeros((2, 3))).like == {1: [0]}


def test_without_an_error_there_is_no_pair() -> None:
    choice = choose(predictions_of(np.eye(2), np.array([0, 1])))
    assert choice.pair is None and choice.pair_rows == []
    explanations = explained_by_noise(choice)
    assert "All 2 test images are classified correctly" in explanation_page(
        predictions_of(np.eye(2), np.array([0, 1])), choice, explanations
    )


def explained_by_noise(choice: Choice) -> Explanations:
    """Explanations whose pictures are as large as JPEGs get."""
    rng = np.random.default_rng(0)
    wrong = {row for shown in choice.classes for row in shown.wrong} | set(choice.pair_rows)
    images = {}
    for row in choice.rows():
        first, *maps = (
            Image.fromarray(rng.integers(0, 256, (160, 160, 3), dtype=np.uint8)) for _ in range(2 + (row in wrong))
        )
        images[row] = Explained(first, [Map(label, image, False) for label, image in enumerate(maps)])
    return Explanations(images, "backbone.conv2", (5, 5), 0.0)


def test_two_hundred_classes_stay_below_the_limit() -> None:
    predictions = simulate(1200, 200, strength=3.0)
    choice = choose(predictions)
    assert len(choice.classes) == 30 and choice.hidden == 170
    assert min(shown.n_wrong for shown in choice.classes) > 0
    page = explanation_page(predictions, choice, explained_by_noise(choice))
    assert "Of 200 classes the 30 with most misclassified images are shown; 170 are not." in page
    assert 400_000 < len(page) < 1_700_000
    assert page.count('href="#class') == page.count('id="class') == 30


@pytest.mark.parametrize("to_rgb", [True, False])
def test_an_input_is_shown_as_it_was_before_the_normalisation(to_rgb: bool) -> None:
    from mmcls.datasets.pipelines import Compose

    pixels = np.asarray(photograph(1))
    pipeline = Config(
        {"p": [{"type": "Normalize", "mean": [100.0, 110, 120], "std": [50.0, 60, 70], "to_rgb": to_rgb}]}
    ).p
    normalised = Compose(pipeline)({"img": pixels[:, :, ::-1].astype(np.float32)})["img"]
    assert np.array_equal(np.asarray(as_seen(normalised.transpose(2, 0, 1), pipeline)), pixels)
    as_loaded = pixels[:, :, ::-1].transpose(2, 0, 1).astype(np.float32)
    assert np.array_equal(np.asarray(as_seen(as_loaded, [{"type": "CenterCrop"}])), pixels)


def test_a_stronger_place_is_lighter_whatever_the_image() -> None:
    strength = np.linspace(0, 1, 50)[None].repeat(4, axis=0)
    for grey in (0, 128, 255):
        seen = Image.new("RGB", (50, 4), (grey, grey, grey))
        light = np.asarray(overlay(seen, strength).convert("L"), np.float64)[0]
        assert light[-1] > light[0] or grey == 255
        assert len({tuple(pixel) for pixel in np.asarray(overlay(seen, strength))[0]}) > 40


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    run = make_run(tmp_path_factory.mktemp("run"))
    args = predict_images.build_parser().parse_args([*run.options(run.folder / "predictions.csv"), "--workers", "0"])
    predict_images.main(args)
    return run


def make_page(run: TinyRun, output: Path, **replaced: Path) -> str:
    files = {
        "config": run.folder / "config.py",
        "checkpoint": run.folder / "best.pth",
        "images": run.images,
        "predictions": run.folder / "predictions.csv",
    } | replaced
    options = [text for name, path in files.items() for text in (f"--{name}", str(path))]
    explain_model.main(explain_model.build_parser().parse_args([*options, "--output", str(output), "--threads", "1"]))
    return output.read_text(encoding="utf-8")


def shown_pictures(page: str) -> list[Image.Image]:
    encoded = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in encoded]


@pytest.mark.long
def test_the_page_shows_each_image_and_its_maps(run: TinyRun, tmp_path: Path) -> None:
    predictions = read_predictions(run.folder / "predictions.csv")
    features = np.random.default_rng(0).normal(size=(len(predictions.files), 4)).astype(np.float32)
    np.save(tmp_path / "features.npy", features)
    page = make_page(run, tmp_path / "a.html", features=tmp_path / "features.npy")
    choice = choose(predictions, features)
    expected = [
        3 if predictions.labels[row] != predictions.predictions[row] else 2
        for row in [*choice.pair_rows, *(row for of in choice.classes for row in (*of.right, *of.wrong))]
    ]
    expected += [len(rows) for rows in choice.like.values()]
    pictures = shown_pictures(page)
    assert len(pictures) == sum(expected) and 3 in expected and 2 in expected
    assert {picture.size for picture in pictures} == {(32, 32)}
    assert page.count('width="112" height="112"') == len(pictures), "names fit below a picture"
    assert "weights, make them again" not in page and "skipped" not in page
    again = make_page(run, tmp_path / "b.html", features=tmp_path / "features.npy")
    assert page == again, "the same input gives the same bytes"


@pytest.mark.long
def test_each_image_gets_the_maps_of_its_own_classes(run: TinyRun) -> None:
    """More images than a batch, against one image at a time, read and cropped by Pillow alone."""
    predictions = read_predictions(run.folder / "predictions.csv")
    rows = list(range(len(predictions.files)))
    config = Config.fromfile(str(run.folder / "config.py"))
    weights = torch.load(run.folder / "best.pth", weights_only=True)["state_dict"]
    model = build_model(config, weights, "cpu")
    pipeline = config.data.test.pipeline
    explanations = explain(model, pipeline, predictions, rows, run.images, "cpu")
    assert len(rows) > BATCH and explanations.difference < 1e-5
    mean, std = (np.array(pipeline[3][key], np.float32) for key in ("mean", "std"))
    layer = None
    for row in rows:
        explained = explanations.images[row]
        whole = Image.open(run.images / predictions.files[row]).resize((50, 40), Image.Resampling.BILINEAR)
        seen = whole.crop((9, 4, 41, 36))
        assert np.abs(np.asarray(explained.seen, int) - np.asarray(seen, int)).max() <= 1
        classes = dict.fromkeys([int(predictions.predictions[row]), int(predictions.labels[row])])
        assert [shown.label for shown in explained.maps] == list(classes)
        image = torch.from_numpy(((np.asarray(explained.seen, np.float32) - mean) / std).transpose(2, 0, 1))[None]
        layer = layer or find_layer(model, image)
        for shown in explained.maps:
            large = layer.enlarge(grad_cam(model, layer, image, [shown.label])[0], (32, 32))[0].numpy()
            assert np.abs(np.asarray(overlay(explained.seen, large), int) - np.asarray(shown.image, int)).max() <= 2
            assert shown.empty == (not large.any())


def test_names_from_outside_stay_text(run: TinyRun, tmp_path: Path) -> None:
    page = make_page(run, tmp_path / "a.html")
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;%2Fscript&gt;" in page
    assert "苹果" in page and "it&#39;s &#34;quoted&#34;" in page
    assert not re.search(r'(?:src|href)="(?!data:image/jpeg|#class)', page), "nothing is requested"


def test_a_missing_and_a_broken_image_are_one_line(tmp_path: Path, run: TinyRun) -> None:
    copy = make_run(tmp_path)
    predictions = run.folder / "predictions.csv"
    chosen = read_predictions(predictions)
    name = chosen.files[choose(chosen).rows()[-1]]
    broken = copy.images / name
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(UserError, match=f"{re.escape(name)}: .*repair it"):
        make_page(copy, tmp_path / "a.html", predictions=predictions)
    broken.unlink()
    with pytest.raises(UserError, match=f"{re.escape(name)}: No such file or directory; repair it"):
        make_page(copy, tmp_path / "a.html", predictions=predictions)
    assert not (tmp_path / "a.html").exists()


def test_predictions_of_other_weights_are_noticed(run: TinyRun, tmp_path: Path) -> None:
    predictions = read_predictions(run.folder / "predictions.csv")
    turned = Predictions(
        predictions.files,
        predictions.labels,
        np.roll(predictions.predictions, 1),
        np.roll(predictions.probabilities, 1, axis=0),
        predictions.classes,
    )
    page = make_page(run, tmp_path / "a.html", predictions=write_csv(tmp_path / "p.csv", turned))
    assert "the predictions are not of these weights, make them again" in page


def test_a_model_of_other_classes_is_refused(run: TinyRun, tmp_path: Path) -> None:
    predictions = read_predictions(run.folder / "predictions.csv")
    fewer = predictions_of(np.eye(7, 8), np.arange(7))
    fewer = Predictions(predictions.files[:7], fewer.labels, fewer.predictions, fewer.probabilities, fewer.classes)
    with pytest.raises(UserError, match=r"the model knows 7 classes, predictions\.csv has 8"):
        make_page(run, tmp_path / "a.html", predictions=write_csv(tmp_path / "p.csv", fewer))


def test_a_model_that_cannot_be_explained_leaves_a_page_that_says_why(run: TinyRun, tmp_path: Path) -> None:
    content = torch.load(run.folder / "best.pth", weights_only=True)
    content["state_dict"]["head.fc.weight"].zero_()
    torch.save(content, tmp_path / "best.pth")
    page = make_page(run, tmp_path / "a.html", checkpoint=tmp_path / "best.pth")
    assert "<p>skipped: the logit depends on no layer that has positions of the image</p>" in page
