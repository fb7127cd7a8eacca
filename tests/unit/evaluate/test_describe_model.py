"""Layers, parameters and multiply-adds: the published numbers, and nothing counted twice or left out."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmcls.models import build_classifier
from mmcv import Config, ConfigDict
from tiny_run import CLASSES, PIPELINE, TinyRun, make_run

from scripts.evaluate import describe_model
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import human
from scripts.lib.model import summary
from scripts.lib.model.model_zoo import config_path
from scripts.lib.model.summary import Stage, describe

#: Parameters and multiply-adds in millions at 224 pixels and 1,000 classes, as published: Sandler et al. 2018 (table 4,
#: and 3,504,872 of torchvision's), He et al. 2016 (25,557,032 of torchvision's), Touvron et al. 2021, Liu et al. 2021,
#: Liu et al. 2022, Tan & Le 2019.
PUBLISHED = {
    "mobilenet-v2_8xb32_in1k": (3_504_872, 300),
    "resnet50_8xb32_in1k": (25_557_032, 4_100),
    "deit-small_pt-4xb256_in1k": (22_050_664, 4_600),
    "swin-tiny_16xb64_in1k": (28_288_354, 4_500),
    "convnext-tiny_32xb128_in1k": (28_589_128, 4_500),
    "efficientnet-b0_8xb32_in1k": (5_288_548, 390),
}


def build(name: str) -> torch.nn.Module:
    model = Config.fromfile(str(config_path(name))).model
    model.train_cfg = None  # no mixup is needed to predict
    return build_classifier(model).eval()


@pytest.fixture(scope="module")
def stages() -> dict[str, list[Stage]]:
    return {name: describe(build(name), torch.zeros(1, 3, 224, 224)) for name in PUBLISHED}


@pytest.mark.long
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_numbers_are_those_that_the_papers_give(stages: dict[str, list[Stage]], name: str) -> None:
    parameters, millions = PUBLISHED[name]
    assert sum(stage.parameters for stage in stages[name]) == parameters
    assert sum(stage.multiply_adds for stage in stages[name]) / 1e6 == pytest.approx(millions, rel=0.03)


@pytest.mark.long
@pytest.mark.parametrize("name", ["mobilenet-v2_8xb32_in1k", "swin-tiny_16xb64_in1k"])
def test_torch_counts_the_same(stages: dict[str, list[Stage]], name: str) -> None:
    counter = pytest.importorskip("torch.utils.flop_counter", reason="torch 2.0 has no counter").FlopCounterMode
    model = build(name)
    with counter(display=False) as flops:
        model(img=torch.zeros(1, 3, 224, 224), return_loss=False)
    assert 2 * sum(stage.multiply_adds for stage in stages[name]) == flops.get_total_flops()


def test_stages_are_what_people_call_them_in_the_order_of_an_image(stages: dict[str, list[Stage]]) -> None:
    names = {name.split("_")[0]: [stage.name for stage in described] for name, described in stages.items()}
    assert names["resnet50"] == ["conv1, bn1, relu, maxpool", "layer1", "layer2", "layer3", "layer4", "neck", "head"]
    layers = [f"layer{number}" for number in range(1, 8)]
    assert names["mobilenet-v2"] == ["conv1", *layers, "conv2", "neck", "head"]
    assert names["swin-tiny"] == ["patch_embed", *(f"stages.{number}" for number in range(4)), "norm3", "neck", "head"]
    deit = ["backbone", "patch_embed", *(f"layers.{number}" for number in range(12)), "ln1", "head"]
    assert [name.replace("norm1", "ln1") for name in names["deit-small"]] == deit
    parts = [f"{kind}.{number}" for number in range(4) for kind in ("downsample_layers", "stages")]
    assert names["convnext-tiny"] == [*parts, "norm3", "head"]
    assert names["efficientnet-b0"] == [
        *(f"layers.{number}" for number in range(len(names["efficientnet-b0"]) - 2)),
        "neck",
        "head",
    ]


def test_shapes_are_of_one_image(stages: dict[str, list[Stage]]) -> None:
    shapes = {stage.name: stage.shape for stage in stages["resnet50_8xb32_in1k"]}
    assert shapes["conv1, bn1, relu, maxpool"] == [64, 56, 56]
    assert shapes["layer4"] == [2048, 7, 7] and shapes["neck"] == [2048] and shapes["head"] == [1000]
    swin = {stage.name: stage.shape for stage in stages["swin-tiny_16xb64_in1k"]}
    assert swin["stages.1"] == [28 * 28, 192] and swin["head"] == [1000]


def test_what_attention_computes_by_itself_is_counted(stages: dict[str, list[Stage]]) -> None:
    [block] = [stage for stage in stages["deit-small_pt-4xb256_in1k"] if stage.name == "layers.0"]
    counts = {layer.kind: layer.multiply_adds for layer in block.layers}
    assert counts["MultiheadAttention"] == 2 * 197 * 197 * 384, "queries by keys, and weights by values"
    assert sum(layer.multiply_adds for layer in block.layers) == 197 * 384 * 384 * 12 + counts["MultiheadAttention"]


class Odd(torch.nn.Module):
    """Operations of which each has its own count."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = torch.nn.Conv2d(6, 12, 3, padding=1, groups=3)
        self.up = torch.nn.ConvTranspose2d(12, 4, 2, stride=2)
        self.line = torch.nn.Linear(10, 7, bias=False)
        self.shared = self.line
        self.unused = torch.nn.Linear(5, 5)

    def forward(self, img: torch.Tensor, return_loss: bool = False) -> torch.Tensor:
        maps = self.up(self.grouped(img))
        lines = self.shared(self.line.weight.T[None] @ self.line.weight[None])
        heads = maps.flatten(2)[:, None]
        return torch.nn.functional.scaled_dot_product_attention(heads, heads, heads).sum() + lines.sum()


def test_each_kind_of_operation_has_its_count() -> None:
    model = Odd().eval()
    layers = {layer.name: layer for stage in describe(model, torch.zeros(1, 6, 5, 5)) for layer in stage.layers}
    assert layers["grouped"].multiply_adds == 12 * 5 * 5 * 2 * 3 * 3
    assert layers["up"].multiply_adds == 12 * 5 * 5 * 4 * 2 * 2
    assert layers["line"].multiply_adds == 10 * 10 * 7, "and its parameters once, though it has two names"
    assert layers[""].multiply_adds == 10 * 7 * 10 + 2 * 4 * 4 * 100
    assert layers["unused"].shape is None and layers["unused"].multiply_adds == 0
    assert sum(layer.parameters for layer in layers.values()) == sum(weight.numel() for weight in model.parameters())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return make_run(tmp_path_factory.mktemp("run"), per_class=1)


def make_page(run: TinyRun, out: Path) -> tuple[str, dict[str, Any]]:
    options = ["--config", str(run.folder / "config.py"), "--checkpoint", str(run.folder / "best.pth")]
    options += ["--output", str(out / "model.html"), "--json", str(out / "model.json")]
    describe_model.main(describe_model.build_parser().parse_args(options))
    return (out / "model.html").read_text(encoding="utf-8"), json.loads((out / "model.json").read_text())


class Page(HTMLParser):
    """How often each element is there, and the cells of the tables."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.count: dict[str, int] = {}
        self.cells: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside in ("td", "span"):
            self.cells.append(data)


def test_page_and_numbers_of_a_run_agree_and_are_the_same_again(run: TinyRun, tmp_path: Path) -> None:
    page, summary = make_page(run, tmp_path)
    assert summary["input"] == [3, 32, 32], "as its test pipeline crops"
    weights = torch.load(run.folder / "best.pth", weights_only=True)["state_dict"]
    assert summary["weights_bytes"] == sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    assert summary["checkpoint_bytes"] == (run.folder / "best.pth").stat().st_size
    counted = [name for name in weights if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    assert summary["parameters"] == sum(weights[name].numel() for name in counted) == summary["parameters_trainable"]
    for key in ("parameters", "multiply_adds"):
        assert summary[key] == sum(stage[key] for stage in summary["stages"])
        assert summary[key] == sum(layer[key] for stage in summary["stages"] for layer in stage["layers"])
    assert summary["flops"] == 2 * summary["multiply_adds"]
    assert summary["stages"][-1]["layers"][0]["multiply_adds"] == 1280 * len(CLASSES)
    assert summary["model"]["backbone"] == "MobileNetV2, widen_factor 0.1"
    content = Page(page)
    assert content.count["details"] == len(summary["stages"]) and "script" not in content.count
    assert f"{summary['parameters']:,}" in content.cells and human(summary["flops"]) in content.cells
    assert make_page(run, tmp_path) == (page, summary)


@pytest.mark.long
def test_the_description_leaves_the_compiler_out(run: TinyRun, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from scripts.evaluate import describe_model;"
        "describe_model.main(describe_model.build_parser().parse_args(sys.argv[1:]));"
        "assert 'torch._dynamo' not in sys.modules"
    )
    options = ["--config", run.folder / "config.py", "--checkpoint", run.folder / "best.pth"]
    command = [sys.executable, "-c", code, *options, "--output", tmp_path / "model.html"]
    subprocess.run(command, check=True)
    assert (tmp_path / "model.html").is_file()


def test_frozen_stages_are_not_trainable(run: TinyRun) -> None:
    config = Config.fromfile(str(run.folder / "config.py"))
    config.model.backbone.frozen_stages = 3
    numbers = summary.summarise(config, build_classifier(config.model), run.folder / "best.pth")
    assert 0 < numbers["parameters_trainable"] < numbers["parameters"]


def test_names_from_outside_are_text() -> None:
    layer = {"name": "<i>", "type": "<b>", "output": None, "parameters": 1, "multiply_adds": 0}
    summary = {
        "model": {"backbone": "<script>alert(1)</script>"}, "input": [3, 8, 9], "parameters": 1, "flops": 0,
        "parameters_trainable": 1, "multiply_adds": 0, "weights_bytes": 4, "checkpoint_bytes": 9,
        "stages": [{**layer, "layers": [layer]}],
    }  # fmt: skip
    content = Page(describe_model.model_page(summary))
    assert not {"script", "i", "b"} & content.count.keys() and {"<i>", "<b>"} <= set(content.cells)


def config_of(pipeline: list[dict[str, Any]]) -> Any:
    return ConfigDict(data={"test": {"pipeline": pipeline}})


def test_the_image_is_as_large_as_the_pipeline_makes_it() -> None:
    assert summary.sample_image(config_of(PIPELINE)).shape == (1, 3, 32, 32)
    wide = [{"type": "LoadImageFromFile"}, {"type": "Resize", "size": (24, 40)}, *PIPELINE[3:]]
    assert summary.sample_image(config_of(wide)).shape == (1, 3, 24, 40)
    assert summary.sample_image(config_of([PIPELINE[0], *PIPELINE[3:]])).shape == (1, 3, 224, 224)
    large = [PIPELINE[0], {"type": "CenterCrop", "crop_size": 384}, *PIPELINE[3:]]
    assert summary.sample_image(config_of(large)).shape == (1, 3, 384, 384)
    grey = [{"type": "LoadImageFromFile", "color_type": "grayscale"}, {"type": "Resize", "size": 32}, *PIPELINE[4:]]
    assert summary.sample_image(config_of(grey)).shape == (1, 1, 32, 32)
    with pytest.raises(UserError, match=r"data\.test\.pipeline"):
        summary.sample_image(config_of(PIPELINE[:-2]))


def test_numbers_are_short() -> None:
    numbers = (0, 999, 9999, 10_000, 99_960, 999_600, 2_236_682, 4_089_184_256, 15_400_000_000, 3_000_000_000_000)
    expected = ["0", "999", "9,999", "10.0 k", "100 k", "1.00 M", "2.24 M", "4.09 G", "15.4 G", "3.00 T"]
    assert list(map(human, numbers)) == expected
    assert np.all([len(human(number)) <= 6 for number in np.logspace(0, 13, 200).astype(np.int64).tolist()])
