"""The table of timm's models, and what a configuration may call them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scripts.lib.base.problems import UserError
from scripts.lib.model import fast_recipe, model_zoo, timm_models
from scripts.lib.model.model_zoo import BadBaseConfig


@pytest.mark.parametrize(
    ("name", "size", "license_"),
    [
        ("timm/vit_small_patch14_reg4_dinov2.lvd142m", 518, "apache-2.0"),
        ("timm/vit_small_patch14_reg4_dinov2", 518, "apache-2.0"),
        ("timm/vit_small_patch16_dinov3.lvd1689m", 256, "dinov3-license"),
        ("timm/convnextv2_atto.fcmae_ft_in1k", 224, "cc-by-nc-4.0"),
        ("timm/tf_efficientnet_lite0", 224, "apache-2.0"),
        ("timm/inception_v3.tf_in1k", 299, "apache-2.0"),
    ],
)
def test_a_model_is_known_by_its_name_with_or_without_that_of_its_weights(name: str, size: int, license_: str) -> None:
    model = timm_models.find(name)

    assert model is not None
    assert (model.image_size, model.license, model.has_weights) == (size, license_, True)


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("timm/convnextv2_ato", "timm/convnextv2_atto"),
        ("timm/tf_efficientnet_lite9", "timm/tf_efficientnet_lite4"),
        ("timm/vit_small_patch14_dinov2.lvd42m", "timm/vit_small_patch14_dinov2.lvd142m"),
        ("timm/resnet18.a1", "timm/resnet18.a1_in1k"),
        ("timm/MobileNetV4_conv_small", "timm/mobilenetv4_conv_small"),
    ],
)
def test_a_name_that_does_not_exist_gets_the_closest_ones(name: str, closest: str) -> None:
    with pytest.raises(BadBaseConfig, match="is no model of timm") as error:
        model_zoo.check_name(name)

    assert closest in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["timm/convnextv2_atto", "timm/resnet18.a1_in1k", "mobilenet-v2_8xb32_in1k"])
def test_names_that_exist_are_taken(name: str) -> None:
    model_zoo.check_name(name)


def test_without_timm_there_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = model_zoo.importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "timm" else find_spec(name))

    with pytest.raises(BadBaseConfig, match="run `make setup`"):
        model_zoo.check_name("timm/resnet18")


@pytest.mark.parametrize(
    ("base_config", "name", "message"),
    [
        (
            "timm/resnet18",
            "resnet18.imagenet",
            r"no weights 'resnet18.imagenet': the closest are .*timm/resnet18\.a1_in1k",
        ),
        ("timm/resnet18", "resnet19", "no weights 'resnet19': the closest are .*timm/resnet18"),
        ("timm/resnet18", "resnet34.a1_in1k", r"are not weights of timm/resnet18: the closest are timm/resnet18\."),
        ("timm/cs3darknet_s", None, "no weights for cs3darknet_s.*train from scratch"),
    ],
)
def test_weights_that_are_none_or_of_another_model_are_refused(
    base_config: str, name: str | None, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        timm_models.find_weights(base_config, name)
    with pytest.raises(UserError, match=message):
        model_zoo.checkpoint_name({"zoo": name}, base_config)


def test_weights_are_those_that_the_model_names_or_others_of_it() -> None:
    assert timm_models.find_weights("timm/resnet18").name == "resnet18.a1_in1k"
    assert timm_models.find_weights("timm/resnet18.a2_in1k").name == "resnet18.a2_in1k"
    assert timm_models.find_weights("timm/resnet18", "resnet18.a3_in1k").name == "resnet18.a3_in1k"


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("timm/resnet18.a1_in1k", 160),
        ("timm/vit_small_patch16_dinov3", 256),
        ("timm/swinv2_tiny_window8_256", 256),
        ("timm/efficientnetv2_rw_t", 160),
    ],
)
def test_the_fast_recipe_sees_the_size_of_the_weights_where_the_network_depends_on_it(name: str, size: int) -> None:
    assert fast_recipe.image_size(name) == size


def test_asking_for_a_model_loads_neither_torch_nor_timm() -> None:
    code = (
        "import sys; from scripts.lib.model import model_zoo as z; z.check_name('timm/resnet18'); "
        "print([name for name in ('torch', 'timm', 'mmcls') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout == "[]\n"


def test_the_zoo_lists_models_of_timm_with_size_and_license(capsys: pytest.CaptureFixture[str]) -> None:
    model_zoo.main(model_zoo.build_parser().parse_args(["timm/convnextv2_atto"]))

    lines = capsys.readouterr().out.splitlines()
    assert any("convnextv2_atto.fcmae_ft_in1k" in line and "license: cc-by-nc-4.0" in line for line in lines)
    assert all("input: 224" in line for line in lines)


@pytest.mark.long
def test_the_table_is_that_of_the_installed_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timm_models, "count_parameters", lambda architecture: None)
    expected = {row["name"]: (row["image_size"], row["any_size"], row["license"]) for row in timm_models.rows()}
    written = {
        name: (model.image_size, "yes" if model.any_size else "no", model.license)
        for name, model in timm_models.models().items()
        if name == model.name
    }

    assert written == expected
