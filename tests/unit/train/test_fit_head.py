"""The head that fit_head fits: for which models, from which features, with which weights around it."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcls.models import build_classifier
from mmcv import Config
from PIL import Image

from scripts.lib.base.problems import UserError
from scripts.lib.data.pixel_cache_writer import write_pixel_cache
from scripts.lib.model import model_zoo
from scripts.lib.model.inference import classifier_layer
from scripts.lib.model.linear_probe import LogitsElsewhereError, extract
from scripts.lib.runs.config_file import nodes
from scripts.mmcls_plugins import folding
from scripts.mmcls_plugins.images import Normalizer
from scripts.train.fit_head import absorbed, build_pretrained, build_split, fit_head, image_tensors

torch.set_num_threads(1)  # two threads that wait for each other on a busy machine are ten times slower

SMALL = {
    "type": "ImageClassifier",
    "backbone": {"type": "MobileNetV2", "widen_factor": 0.25},
    "neck": {"type": "GlobalAveragePooling"},
    "head": {"type": "LinearClsHead", "num_classes": 3, "in_channels": 1280, "loss": {"type": "CrossEntropyLoss"}},
}


def test_the_features_are_what_the_head_is_given() -> None:
    model = build_pretrained(Config({"model": SMALL, "seed": 0}), {}, "cpu")
    layer = classifier_layer(model, 3, trained={})
    assert layer is model.head.fc
    images = torch.randn(5, 3, 32, 32)
    features = extract(model, layer, iter([images[:3], images[3:]]))
    assert features.shape == (5, 1280) and features.dtype == torch.float64
    with torch.no_grad():
        torch.testing.assert_close(features.float(), model.extract_feat(images)[-1], rtol=1e-4, atol=1e-5)


def test_what_a_model_predicts_is_not_changed_by_absorbing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_pretrained(Config({"model": SMALL, "seed": 0}), {}, "cpu")
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.running_var.uniform_(0.5, 2.0)
    images = torch.randn(4, 3, 32, 32)
    expected, names = folding.probabilities_of(model, images), list(model.state_dict())
    result = absorbed(model, images)
    assert result is model and list(model.state_dict()) == names
    assert folding.same_probabilities(folding.probabilities_of(model, images), expected)
    assert all(folding.is_absorbed(layer) for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d))
    # Where it would be changed, the model comes back as it was.
    model = build_pretrained(Config({"model": SMALL, "seed": 0}), {}, "cpu")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    monkeypatch.setattr(folding, "same_probabilities", lambda *_: False)
    result = absorbed(model, images)
    assert all(torch.equal(tensor, before[name]) for name, tensor in result.state_dict().items())


def rendered(folder: Path, split: str, per_class: int, classes: int) -> Path:
    """Write images of *classes* colours, and their annotation file, and pack them; return the annotation file."""
    rng = np.random.default_rng(len(split))
    colours = np.random.default_rng(0).permutation(
        np.stack(np.meshgrid([50, 200], [50, 200], [50, 200]), -1).reshape(-1, 3)
    )
    lines = []
    for number in range(per_class * classes):
        name, label = f"{split}{number}.png", number % classes
        image = np.clip(colours[label] + rng.normal(0, 12, (32, 32, 3)) + rng.normal(0, 8, 3), 0, 255)
        Image.fromarray(image.astype(np.uint8)).save(folder / name)
        lines.append(f"{name} {label}\n")
    (folder / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    return folder / f"{split}.txt"


def test_of_train_and_val_each_has_its_own_choice_of_shuffled_labels(tmp_path: Path) -> None:
    file = rendered(tmp_path, "train", 20, 8)
    val = {"type": "SeededCustomDataset", "data_prefix": str(tmp_path), "pipeline": [], "shuffle_labels": True}
    config, names = Config({"data": {"val": val}}), [str(number) for number in range(8)]
    true = [number % 8 for number in range(160)]
    assert build_split(config, file, names).get_gt_labels().tolist() == true
    assert build_split(config, file, names, shuffle_labels=True).get_gt_labels().tolist() != true


@pytest.mark.long
def test_from_shuffled_labels_nothing_is_learnt_that_is_true(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(8)]
    splits = [rendered(tmp_path, split, count, 8) for split, count in (("train", 20), ("val", 4), ("test", 10))]
    files = [line.rsplit(" ", 1)[0] for split in splits for line in split.read_text(encoding="utf-8").splitlines()]
    write_pixel_cache(tmp_path, files, 32, tmp_path / "packed", raw_limit=1 << 30, threads=1)
    norm = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "to_rgb": True}

    def accuracy(seed: int, shuffle_labels: bool) -> float:
        """Of the fitted head on test; *train*'s labels alone are shuffled."""
        load = {"type": "LoadPackedImage", "folder": str(tmp_path / "packed")}
        ends = [{"type": "ImageToTensor", "keys": ["img"]}, {"type": "Collect", "keys": ["img"]}]
        val = {"type": "SeededCustomDataset", "data_prefix": str(tmp_path), "seed": seed, "pipeline": [load, *ends]}
        backbone = {"type": "ResNet_CIFAR", "depth": 18, "stem_channels": 8, "base_channels": 8}
        head = {**SMALL["head"], "num_classes": 8, "in_channels": 64}
        model = {**SMALL, "backbone": backbone, "head": head}
        config = Config(
            {
                "model": model,
                "seed": 0,
                "data": {"val": val, "samples_per_gpu": 32},
                "optimizer": {"lr": 5e-4},
                "runner": {"normalize": norm},
            }
        )
        train, *others = (build_split(config, file, names, shuffle_labels and file == splits[0]) for file in splits)
        start = fit_head(config, {}, [train, others[0]], "cpu", 0).weights
        fitted = build_pretrained(config, {}, "cpu")
        for name, tensor in fitted.state_dict().items():
            assert torch.equal(tensor, start[name]) != name.startswith("head."), "the head alone is fitted"
        fitted.load_state_dict(start)
        batches = image_tensors(others[1], Normalizer(**norm), 0, "cpu")
        with torch.no_grad():
            outputs = [fitted(img=images, return_loss=False, post_process=False) for images in batches]
        return float((torch.cat(outputs).argmax(1).numpy() == others[1].get_gt_labels()).mean())

    assert accuracy(0, False) > 0.9
    controls = [accuracy(seed, True) for seed in range(3)]
    assert np.mean(controls) < 0.3 and len(set(controls)) > 1, controls


def test_weights_of_another_size_of_image_are_refused() -> None:
    base = Config.fromfile(str(model_zoo.config_path("vit-base-p16_pt-64xb64_in1k-224"))).model
    base.pretrained = None
    base.backbone.update(arch={"embed_dims": 16, "num_layers": 1, "num_heads": 2, "feedforward_channels": 16})
    base.head.in_channels = 16
    weights = build_classifier(copy.deepcopy(base)).state_dict()
    base.backbone.img_size = 160
    with pytest.raises(UserError, match="pos_embed is 1x197x16, not 1x101x16; set image_size"):
        build_pretrained(Config({"model": base, "seed": 0}), weights, "cpu")


def test_weights_that_fit_are_loaded_and_the_others_are_the_seeds() -> None:
    pretrained = build_classifier(copy.deepcopy(SMALL)).state_dict()
    pretrained["head.fc.weight"] = torch.zeros(1000, 1280)
    config = Config({"model": SMALL, "seed": 7})
    first, second = (build_pretrained(config, pretrained, "cpu").state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(first["backbone.conv1.conv.weight"], pretrained["backbone.conv1.conv.weight"])
    assert first["head.fc.weight"].shape == (3, 1280)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "fitted"),
    [
        ("mobilenet-v2_8xb32_in1k", True),
        ("mobilenet-v3-small_8xb32_in1k", True),
        ("resnet18_8xb32_in1k", True),
        ("vit-base-p16_pt-64xb64_in1k-224", True),
        ("swin-tiny_16xb64_in1k", True),
        ("deit-base-distilled_pt-16xb64_in1k", False),  # two heads
        ("conformer-tiny-p16_8xb128_in1k", False),  # two heads
        ("vgg11_8xb32_in1k", False),  # the last layers are the backbone's
    ],
)
def test_the_layer_is_found_in_the_zoo(name: str, fitted: bool) -> None:
    base = Config.fromfile(str(model_zoo.config_path(name))).model
    base.pretrained = None
    pretrained = build_classifier(copy.deepcopy(base)).state_dict()
    for node in nodes(base):
        if "num_classes" in node:
            node["num_classes"] = 4
    model = build_classifier(base).eval()
    layer = classifier_layer(model, 4, trained=pretrained)
    assert (layer is not None) == fitted
    if layer is not None:
        assert extract(model, layer, [torch.randn(2, 3, 224, 224)]).shape == (2, layer.in_features)


def test_layers_before_it_that_nothing_was_trained_for_are_not_built_upon() -> None:
    base = Config.fromfile(str(model_zoo.config_path("mobilenet-v3-small_8xb32_in1k"))).model
    assert classifier_layer(build_classifier(base), 1000, trained={}) is None


def test_a_layer_that_does_not_make_the_logits_is_noticed() -> None:
    model = build_pretrained(Config({"model": SMALL, "seed": 0}), {}, "cpu")
    fitted = model.head.fc

    def other(features: tuple[torch.Tensor, ...], **_: object) -> torch.Tensor:
        return (2 * fitted(features[-1])).softmax(1)  # the layer is asked, and something else is answered

    model.head.simple_test = other
    with pytest.raises(LogitsElsewhereError):
        extract(model, model.head.fc, [torch.randn(2, 3, 32, 32)])
