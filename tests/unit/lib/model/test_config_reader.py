"""mmcls config files of the user's own as base: read as mmcv reads them, refused where they are more than values."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from config_files import MINE, own_file

from scripts.lib.base.problems import UserError
from scripts.lib.model import base_configs, config_reader, fast_recipe, model_zoo
from scripts.lib.settings.load import load_settings
from scripts.lib.settings.schema import Experiment


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return type(value)(map(plain, value)) if isinstance(value, list | tuple) else value


@pytest.mark.long
def test_every_config_of_mmcls_is_read_as_mmcv_reads_it() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmcv import Config

        for name in model_zoo.config_names():
            path = model_zoo.config_path(name)
            expected = Config.fromfile(str(path))._cfg_dict.to_dict()
            expected.pop("_deprecation_", None)
            assert plain(config_reader.read(path).values) == plain(expected), name


def test_a_file_inherits_from_files_beside_it_and_from_mmcls(tmp_path: Path) -> None:
    path = own_file(tmp_path / "cfg")
    config = config_reader.read_base(path)
    assert config["model"]["backbone"] == {"type": "MobileNetV2", "widen_factor": 0.25}
    assert config["model"]["head"]["num_classes"] == 3 and config["model"]["head"]["in_channels"] == 1280
    assert config["optimizer"] == {"type": "AdamW", "lr": 0.0005, "weight_decay": 0.05}
    assert config["runner"] == {"type": "EpochBasedRunner", "max_epochs": 2}
    assert config["data"]["train"]["data_prefix"] == "data/train" and config["log_level"] == "WARNING"
    assert [file.name for file in config_reader.files(path)] == ["mine.py", "runtime.py"]
    assert config_reader.replaced_bases(path)[0] == "../_base_/models/mobilenet_v2_1x.py"
    assert base_configs.load(path) == config


def test_a_base_that_was_edited_is_read_anew(tmp_path: Path) -> None:
    path = own_file(tmp_path / "cfg")
    assert config_reader.max_epochs(path) == 2
    own_file(tmp_path / "cfg", MINE.replace("max_epochs=2", "max_epochs=300"))
    assert config_reader.max_epochs(path) == 300


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("import os", "line 2: more than plain values"),
        ("x = __import__('os').system('touch pwned')", "line 2: more than plain values"),
        ("x = [i for i in range(3)]", "line 2: more than plain values"),
        ("x = open('/etc/passwd').read()", "line 2: more than plain values"),
        ("x = '{{ fileDirname }}/a'", "line 2: more than plain values"),
        ("x = 'a' * 1000000000", "line 2: more than plain values"),
        ("x = 1 / 0", "line 2: more than plain values"),
        ("x = unknown", "line 2: more than plain values"),
        ("x = {1: 2}", "line 2: more than plain values"),
        ("x.y = 3", "line 2: more than plain values"),
        ("for x in []: pass", "line 2: more than plain values"),
        ("x = (", "line 2: it is no Python"),
        ("_base_ = './other.py'", "line 2: _base_: there is no ./other.py"),
        ("_base_ = '../../../../etc/passwd'", "there is no"),
        ("_base_ = './mine.py'", "leads back to itself"),
        ("_base_ = ['./runtime.py', './runtime.py']", "have the key log_level"),
    ],
)
def test_more_than_plain_values_is_refused_with_its_line(tmp_path: Path, line: str, told: str) -> None:
    path = own_file(tmp_path / "cfg", f"# mine\n{line}\n")
    with pytest.raises(UserError) as caught:
        config_reader.read(Path(path))
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert not Path("pwned").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file, no config file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not the file itself, no config file"),
        (b"<!DOCTYPE html>\n<html>", "a web page"),
        (b"\0\0\0\x20ftypisom" + bytes(99), "video, no config file"),
        (b"\xff\xd8\xff\xe0" + bytes(99), "a JPEG image, no config file"),
        (b"PK\x03\x04" + bytes(99), "a zip archive, no config file"),
    ],
)
def test_a_file_of_another_kind_is_said(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "x.py").write_bytes(content)
    with pytest.raises(UserError) as caught:
        config_reader.read(tmp_path / "x.py")
    assert told in str(caught.value) and "line None" not in str(caught.value)


def test_what_a_base_needs_is_named(tmp_path: Path) -> None:
    for text, told in (
        ("model = dict()", "it has no model.backbone.type (the network)"),
        (MINE.replace("runner = dict(max_epochs=2)", "runner = dict(_delete_=True, max_iters=2)"), "no runner.type"),
        (MINE + "custom_imports = dict(imports=['mine'])\n", "custom_imports (mine) would run code of yours"),
    ):
        with pytest.raises(UserError, match=r".") as caught:
            config_reader.read_base(own_file(tmp_path / "cfg", text))
        assert told in str(caught.value)


def test_settings_take_a_file_and_keep_what_it_says(tmp_path: Path) -> None:
    path = own_file(tmp_path / "cfg")
    experiment = Experiment(base_config=path, checkpoint={"zoo": "mobilenet-v2_8xb32_in1k"})
    assert experiment.chosen_recipe() == "tutorial"
    assert model_zoo.base_batch_size(path) == 8
    assert model_zoo.base_batch_size(own_file(tmp_path / "cfg", name="mine_4xb16.py")) == 64


def test_a_setting_that_names_no_usable_file_is_one_line(tmp_path: Path) -> None:
    path = own_file(tmp_path / "cfg", MINE + "load_from = 'https://example.org/a.pth'\n")
    least = {"dataset": {"name": "m", "source": {"sample": {}}}}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"base_config": path}, "checkpoint: {url: https://example.org/a.pth}, as the file says"),
        ({"base_config": "./no/such.py", "checkpoint": "none"}, "no/such.py: there is no such config file"),
        ({"base_config": "auto", "candidates": [path, "resnet18_8xb32_in1k"]}, "a candidate is a name"),
    ]
    for experiment, told in cases:
        with pytest.raises(UserError) as caught:
            load_settings({**least, "experiments": {"e": experiment}}, ["c.yaml"])
        assert told in str(caught.value) and "c.yaml: experiments.e" in str(caught.value)


def test_the_fast_recipe_knows_the_family_by_the_network(tmp_path: Path) -> None:
    path = own_file(tmp_path / "cfg")
    assert fast_recipe.learning_rate(path) == fast_recipe.FAST.learning_rate
    assert fast_recipe.image_size(path) == 32
    swin = own_file(tmp_path / "cfg", "_base_ = 'mmcls::swin_transformer/swin-tiny_16xb64_in1k.py'\n", "b.py")
    assert fast_recipe.learning_rate(swin) == fast_recipe.FAST.gentle_learning_rate
    assert fast_recipe.image_size(swin) == 224
