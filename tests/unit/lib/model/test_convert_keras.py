"""The converted network computes what Keras's does: compared with a forward pass written from Keras's definition."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from keras_padding import largest_difference, normalized, pad_like_keras

from scripts.lib.base.problems import UserError
from scripts.lib.model.checkpoint_file import write_checkpoint
from scripts.lib.model.convert_keras import convert

ROOT = Path(__file__).resolve().parents[4]
Arrays = dict[str, np.ndarray]


class KerasMobileNetV2:
    """MobileNetV2 as keras.applications defines it (alpha 1.0, no top), in float64, with random weights.

    Written from keras/src/applications/mobilenet_v2.py, not from the code under test. With ``arrays`` empty, the first
    forward pass makes the weights up.
    """

    def __init__(self, epsilon: float = 1e-3) -> None:
        self.arrays: Arrays = {}
        self.epsilon = epsilon
        self.random = np.random.default_rng(0)
        self.after: dict[str, torch.Tensor] = {}

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the last activations for pixels (n, 3, height, width) of 0-255."""
        self.after = {}
        x = pixels / 127.5 - 1
        x = self.norm(self.conv(self.same(x), "Conv1", 32, 3, stride=2), "bn_Conv1").clamp(0, 6)
        self.after["Conv1_relu"] = x
        block = 0
        for expansion, out, count, stride in (
            (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
        ):  # fmt: skip
            for index in range(count):
                x = self.block(x, expansion, out, stride if index == 0 else 1, block)
                block += 1
            self.after[f"stage{len(self.after)}"] = x
        return self.norm(self.conv(x, "Conv_1", 1280, 1), "Conv_1_bn").clamp(0, 6)

    def block(self, inputs: torch.Tensor, expansion: int, out: int, stride: int, block: int) -> torch.Tensor:
        x, name = inputs, f"block_{block}_" if block else "expanded_conv_"
        if block:
            x = self.norm(self.conv(x, name + "expand", x.shape[1] * expansion, 1), name + "expand_BN").clamp(0, 6)
        x = self.same(x) if stride == 2 else F.pad(x, (1, 1, 1, 1))
        x = self.conv(x, name + "depthwise", x.shape[1], 3, stride=stride, depthwise=True)
        x = self.norm(x, name + "depthwise_BN").clamp(0, 6)
        x = self.norm(self.conv(x, name + "project", out, 1), name + "project_BN")
        return inputs + x if stride == 1 and inputs.shape[1] == out else x

    @staticmethod
    def same(x: torch.Tensor) -> torch.Tensor:
        """Pad an image of even size for a 3 x 3 kernel of stride 2 as Keras does: at the bottom and right only."""
        return F.pad(x, (0, 1, 0, 1))

    def conv(
        self, x: torch.Tensor, name: str, out: int, size: int, stride: int = 1, depthwise: bool = False
    ) -> torch.Tensor:
        key, inputs = f"{name}/kernel", x.shape[1]
        shape = (size, size, inputs, 1) if depthwise else (size, size, inputs, out)
        if key not in self.arrays:
            scale = (2 / (size * size * (1 if depthwise else inputs))) ** 0.5
            self.arrays[key] = self.random.normal(0, scale, shape).astype(np.float32)
        kernel = torch.from_numpy(self.arrays[key].astype(np.float64))
        if depthwise:  # output channel c is the sum over the window of input channel c times kernel[..., c, 0]
            return F.conv2d(x, torch.einsum("hwcm->cmhw", kernel), stride=stride, groups=inputs)
        return F.conv2d(x, torch.einsum("hwio->oihw", kernel), stride=stride)

    def norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        if f"{name}/gamma" not in self.arrays:  # as training would leave them: near the statistics of the input
            channels, uniform = x.shape[1], self.random.uniform
            made_up = {
                "moving_mean": x.mean((0, 2, 3)).numpy() + uniform(-0.1, 0.1, channels),
                "moving_variance": x.var((0, 2, 3)).numpy() * uniform(0.8, 1.2, channels),
                "gamma": uniform(0.5, 1.0, channels),
                "beta": uniform(0.0, 1.0, channels),
            }
            self.arrays.update({f"{name}/{key}": array.astype(np.float32) for key, array in made_up.items()})
        mean, variance, gamma, beta = (
            torch.from_numpy(self.arrays[f"{name}/{key}"].astype(np.float64))[:, None, None]
            for key in ("moving_mean", "moving_variance", "gamma", "beta")
        )
        return (x - mean) / torch.sqrt(variance + self.epsilon) * gamma + beta


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    """A coloured image of smooth blobs: (1, 3, 64, 64), 0-255."""
    small = torch.from_numpy(np.random.default_rng(1).uniform(0, 255, (1, 3, 8, 8)))
    return F.interpolate(small, size=(64, 64), mode="bicubic").clamp(0, 255)


@pytest.fixture(scope="module")
def keras(pixels: torch.Tensor) -> KerasMobileNetV2:
    network = KerasMobileNetV2()
    network(pixels)
    return network


def write_keras3(path: Path, arrays: Arrays, description: str | None = None) -> Path:
    """Write arrays as Keras 3 saves a whole model, with an optimizer whose slots have the same names."""
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[f"model_weights/mobilenetv2_1.00_160/{key}"] = array
            file[f"a_optimizer/{key}"] = np.zeros_like(array)
        if description:
            file.attrs["model_config"] = description
    return path


def write_keras2(path: Path, arrays: Arrays) -> Path:
    """Write arrays as Keras 2 saved weights alone."""
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            layer, weight = key.split("/")
            weight = "depthwise_kernel" if layer.endswith("depthwise") else weight
            file[f"{layer}/{layer}/{weight}:0"] = array
    return path


@pytest.fixture(scope="module")
def converted(keras: KerasMobileNetV2, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    return convert(write_keras3(tmp_path_factory.mktemp("keras") / "model.h5", keras.arrays), "model.h5")


def mmcls_backbone(weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    """Return mmcls's network in float64 with every stage's output, the weights loaded strictly."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmcls.models import MobileNetV2
    backbone = MobileNetV2(out_indices=range(8)).double()
    backbone.load_state_dict({key.removeprefix("backbone."): value for key, value in weights.items()}, strict=True)
    backbone.eval()
    return backbone


@torch.no_grad()
def test_every_stage_computes_what_keras_does_when_the_borders_are_padded_alike(
    keras: KerasMobileNetV2, converted: dict[str, torch.Tensor], pixels: torch.Tensor
) -> None:
    backbone = mmcls_backbone(converted)
    pad_like_keras(backbone)
    last = keras(pixels)
    stages = backbone(normalized(pixels))
    assert largest_difference(backbone.conv1(normalized(pixels)), keras.after["Conv1_relu"]) < 1e-5
    for number in range(1, 8):
        assert largest_difference(stages[number - 1], keras.after[f"stage{number}"]) < 1e-3, number
    assert largest_difference(stages[7], last) < 1e-3
    assert last.std() > 0.1  # the comparison is not one of zeros


@torch.no_grad()
def test_mmcls_itself_sees_the_image_one_pixel_further_in_its_first_convolution(
    keras: KerasMobileNetV2, converted: dict[str, torch.Tensor], pixels: torch.Tensor
) -> None:
    got = mmcls_backbone(converted).conv1(normalized(pixels))
    keras(torch.roll(pixels, (1, 1), (2, 3)))
    inner = (..., slice(1, -1), slice(1, -1))
    assert largest_difference(got[inner], keras.after["Conv1_relu"][inner]) < 1e-5


def test_both_generations_of_keras_files_give_the_same_weights(
    keras: KerasMobileNetV2, converted: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    old = convert(write_keras2(tmp_path / "old.h5", keras.arrays), "old.h5")
    assert list(old) == list(converted)
    assert all(torch.equal(old[key], converted[key]) for key in old)


def test_the_files_own_epsilon_is_used(keras: KerasMobileNetV2, converted: dict, tmp_path: Path) -> None:
    description = '{"config": {"layers": [{"class_name": "BatchNormalization", "config": {"epsilon": 0.01}}]}}'
    other = convert(write_keras3(tmp_path / "model.h5", keras.arrays, description), "model.h5")
    key = "backbone.layer3.1.conv.1.bn.running_var"
    assert torch.allclose(other[key] - converted[key], torch.tensor(0.009), atol=1e-6)


def test_a_network_of_another_width_is_refused(keras: KerasMobileNetV2, tmp_path: Path) -> None:
    arrays = {**keras.arrays, "Conv1/kernel": np.zeros((3, 3, 3, 16), np.float32)}
    with pytest.raises(UserError, match=r"Conv1/kernel has the shape \(3, 3, 3, 16\).*only MobileNetV2 with alpha 1"):
        convert(write_keras3(tmp_path / "model.h5", arrays), "model.h5")


def test_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no Keras MobileNetV2: it has no Conv1/kernel"):
        convert(write_keras3(tmp_path / "model.h5", {"dense/kernel": np.zeros((2, 2))}), "model.h5")


def test_an_array_that_lies_in_another_file_is_refused(keras: KerasMobileNetV2, tmp_path: Path) -> None:
    arrays = {key: array for key, array in keras.arrays.items() if key != "Conv1/kernel"}
    path = write_keras3(tmp_path / "model.h5", arrays)
    (tmp_path / "secret").write_bytes(bytes(3 * 3 * 3 * 32 * 4))
    with h5py.File(path, "a") as file:
        group = file["model_weights"].create_group("Conv1")
        group.create_dataset(
            "kernel", (3, 3, 3, 32), "f4", external=[(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)]
        )
    with pytest.raises(UserError, match="no array of floating-point numbers in the file itself"):
        convert(path, "model.h5")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_file_is_said_to_be_so(keras: KerasMobileNetV2, tmp_path: Path, share: float) -> None:
    path = write_keras3(tmp_path / "model.h5", keras.arrays)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match="damaged or truncated HDF5 file"):
        convert(path, "model.h5")


@pytest.mark.long
def test_the_command_writes_the_same_checkpoint_each_time(keras: KerasMobileNetV2, tmp_path: Path) -> None:
    path = write_keras3(tmp_path / "model.h5", keras.arrays)
    command = [sys.executable, "-m", "scripts.lib.model.convert_keras", str(path), "--output", str(tmp_path / "a.pth")]
    subprocess.run(command, cwd=ROOT, check=True)
    write_checkpoint(convert(path, "model.h5"), tmp_path / "b.pth")
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()
    assert set(torch.load(tmp_path / "a.pth", weights_only=True)) == {"meta", "state_dict"}
