"""What the settings accept, and the one line that names what they do not."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from scripts.document_settings import reference_text, schema_text
from scripts.lib.base.problems import UserError
from scripts.lib.model import fast_recipe
from scripts.lib.settings.load import load_settings, read_file
from scripts.lib.settings.schema import Settings
from scripts.lib.settings.sections import PATTERNS

LEAST: dict[str, Any] = {
    "dataset": {"name": "mine", "source": {"sample": {"images_per_class": 10}}},
    "experiments": {"m": {"base_config": "mobilenet-v2_8xb32_in1k"}},
}


def with_value(key: str, value: Any) -> dict[str, Any]:
    """Return the least configuration with a dotted key set."""
    config = copy.deepcopy(LEAST)
    node = config
    *parents, last = key.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
    node[last] = value
    return config


def error_of(config: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        load_settings(config, ["configs/mine.yaml"])
    return str(caught.value)


def test_the_least_configuration_is_enough_and_gets_the_documented_defaults() -> None:
    settings = load_settings(LEAST)
    experiment = settings.experiments["m"]
    assert (settings.dataset.split.val, settings.dataset.split.test, settings.seeds) == (0.1, 0.2, [0])
    assert (experiment.recipe, experiment.checkpoint, experiment.threads) == ("auto", "zoo", 2)
    assert experiment.chosen_recipe() == "fast"
    assert experiment.model_copy(update={"checkpoint": "none"}).chosen_recipe() == "tutorial"
    assert (experiment.size_seen(), experiment.cached_short_side()) == (160, 160)


def test_the_license_has_its_former_key_as_an_alias() -> None:
    for key in ("license", "licence"):  # the alias
        config = {**LEAST, "dataset": {**LEAST["dataset"], key: "CC0"}}
        dataset = load_settings(config).dataset
        assert dataset.license == "CC0" and dataset.model_dump(exclude_none=True)["license"] == "CC0"
    config["dataset"]["license"] = "MIT"
    twice = "dataset: license stands twice: licence is its earlier name: keep one of them"  # an alias
    assert twice in error_of(config)


@pytest.mark.parametrize(
    ("value", "name"), [("GBK", "gbk"), ("Shift_JIS", "shift_jis"), ("latin-1", "iso8859-1"), ("UTF8", "utf-8")]
)
def test_an_encoding_of_names_is_any_of_python_by_any_of_its_names(value: str, name: str) -> None:
    assert load_settings(with_value("dataset.encoding", value)).dataset.encoding == name


@pytest.mark.parametrize("value", ["klingon", "utf-16", "base64", "idna", "utf-7", "a\nb", "x" * 500, 437, ""])
def test_what_is_no_encoding_of_names_is_refused_in_one_line(value: object) -> None:
    message = error_of(with_value("dataset.encoding", value))
    assert "dataset.encoding" in message and "\n" not in message and len(message) < 400


def test_labels_are_shuffled_only_where_it_is_said_so() -> None:
    experiment = load_settings(LEAST).experiments["m"]
    assert experiment.shuffle_labels is False
    assert "shuffle_labels" not in experiment.model_dump_json(exclude_defaults=True), "other configs stay as they are"
    base = {"base_config": "mobilenet-v2_8xb32_in1k"}
    assert (
        load_settings(LEAST | {"experiments": {"m": base | {"shuffle_labels": True}}}).experiments["m"].shuffle_labels
    )
    message = error_of(LEAST | {"experiments": {"m": base | {"shuffle_labels": "yes"}}})
    assert message.startswith("configs/mine.yaml: experiments.m.shuffle_labels: should be a valid boolean")


@pytest.mark.parametrize(
    ("base", "size"),
    [
        ("mobilenet-v2_8xb32_in1k", 160), ("resnet50_8xb32_in1k", 160), ("vit-base-p16_pt-64xb64_in1k-224", 224),
        ("vit-base-p16_ft-64xb64_in1k-384", 384), ("swinv2-tiny-w8_16xb64_in1k-256px", 256),
        ("swin-large_8xb8_cub_384px", 384), ("vgg16_8xb32_in1k", 224), ("resnet18_8xb16_cifar10", 32),
    ],
)  # fmt: skip
def test_the_fast_recipe_takes_the_size_that_a_family_is_bound_to(base: str, size: int) -> None:
    assert fast_recipe.image_size(base) == size


@pytest.mark.parametrize("file", sorted(Path("configs").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_configuration_is_valid(file: Path) -> None:
    assert load_settings(read_file(file), [file]).experiments


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("datset", {}, ["datset: unknown key", "did you mean dataset?"]),
        ("dataset.nme", "x", ["dataset.nme: unknown key", "name"]),
        ("dataset.split.vall", 0.1, ["dataset.split.vall: unknown key", "val, test, seed"]),
        ("dataset.split", {"val": 0.5, "test": 0.6}, ["dataset.split", "below 1"]),
        ("dataset.split.val", 0, ["dataset.split.val", "greater than 0"]),
        ("dataset.name", "a b", ["dataset.name", "a b"]),
        ("dataset.background", None, ["dataset.background", "in quotes: '#808080'"]),
        ("dataset.background", "klingon", ["dataset.background", "'klingon'", "say a name, such as white"]),
        ("dataset.background", "#ff000080", ["dataset.background", "is transparent itself"]),
        ("dataset.background", 808080, ["dataset.background", "808080"]),
        ("dataset.corrections", "none.csv", ["dataset.corrections", "there is no file 'none.csv'"]),
        ("dataset.classes", ["a", ""], ["dataset.classes.1", "at least 1 character"]),
        ("experiments.m.fit", "padd", ["experiments.m.fit", "'crop', 'pad' or 'squash'"]),
        ("experiments.m.threads", 10_000_000, ["experiments.m.threads", "1024"]),
        ("dataset.name", "..", ["dataset.name"]),
        ("dataset.name", "checkpoints", ["dataset.name", "checkpoints"]),
        ("dataset.source", {}, ["dataset.source", "exactly one of url, path and sample"]),
        ("dataset.source", {"path": "/no/such.zip"}, ["dataset.source", "/no/such.zip", "check"]),
        ("dataset.source", {"url": "ftp://x/y.zip"}, ["dataset.source.url", "http"]),
        ("dataset.source", {"url": "http://[::1/y.zip"}, ["dataset.source.url", "not an address"]),
        ("dataset.source", {"url": "http://x:99999/y.zip"}, ["dataset.source.url", "not an address"]),
        ("dataset.source", {"url": "http://x/", "mirrors": ["https://:80/y"]}, ["dataset.source.mirrors", "no host"]),
        ("dataset.source", {"url": "http://x/y.zip", "sha256": "abc"}, ["dataset.source.sha256"]),
        ("dataset.source", "mine.zip", ["dataset.source: it has keys of its own", "(url, mirrors,", "'mine.zip'"]),
        ("dataset.source", ["mine.zip"], ["dataset.source.0: it has keys of its own", "'mine.zip'"]),
        ("dataset.split", 0.2, ["dataset.split: it has keys of its own", "(val, test,", "0.2"]),
        ("dataset.folds", 5, ["dataset.folds: unknown key, did you mean dataset.split.folds?"]),
        ("dataset.licence", 1, ["dataset.license: should be a valid string, not 1", "License of the images"]),  # alias
        ("dataset.licenze", "MIT", ["unknown key, did you mean license?"]),
        ("experiments", ["m"], ["experiments: it has names in lines below it", "['m']"]),
        ("experiments.m.lr", 0.1, ["experiments.m.lr: unknown key, did you mean learning_rate?"]),
        ("experiments.m.seeds", [1], ["unknown key, did you mean seeds at the left margin of the file?"]),
        ("experiments.m.random_state", 1, ["unknown key, did you mean seeds at the left margin of the file?"]),
        ("seeds", [], ["seeds: should have at least one entry"]),
        ("dataset.classes", ["cat"], ["dataset.classes: should have at least 2 entries, not ['cat']"]),
        ("experiments.m.learning_rate", "0,1", ["not '0,1': write a decimal point: 0.1"]),
        ("experiments.m.learning_rate", "2001-01-01", ["should be a valid number or 'auto', not '2001-01-01'. `auto`"]),
        ("experiments.m.epochs", 10**20, ["should be less than or equal to 100000"]),
        ("url", "x", ["did you mean dataset.source.url or experiments.NAME.checkpoint.url?"]),
        (
            "optimizer",
            "SGD",
            ["optimizer: unknown key (allowed here: dataset, experiments, seeds, report, data_shards)"],
        ),
        ("learning_rate", 0.1, ["unknown key, did you mean experiments.NAME.learning_rate?"]),
        ("experiments.m.epochs", "five", ["experiments.m.epochs", "integer or 'auto'", "'five'"]),
        ("experiments.m.epochs", True, ["experiments.m.epochs", "True"]),
        ("experiments.m.epochs", 0, ["experiments.m.epochs", "0"]),
        ("experiments.m.learning_rate", -1, ["experiments.m.learning_rate", "greater than 0"]),
        ("experiments.m.recipe", "faster", ["experiments.m.recipe", "'auto', 'tutorial' or 'fast'", "'faster'"]),
        ("experiments.m", {**LEAST["experiments"]["m"], "recipe": "fast", "checkpoint": "none"}, ["set a checkpoint"]),
        ("experiments.m.balanced", "loss", ["experiments.m.balanced: unknown key", "did you mean balance?"]),
        ("experiments.m.balance", "weights", ["experiments.m.balance", "'none', 'sampler' or 'loss'", "'weights'"]),
        ("experiments.m.checkpoint", "zo", ["experiments.m.checkpoint", "'zoo' or 'none'"]),
        ("experiments.m.checkpoint", {"path": "/no.pth"}, ["experiments.m.checkpoint", "/no.pth"]),
        ("experiments.m.checkpoint", {"package": "p==1", "member": "m.h5"}, ["sha256"]),
        ("experiments.m.checkpoint", {"urll": "x"}, ["experiments.m.checkpoint.urll: unknown key", "did you mean url"]),
        ("experiments.m.base_config", "mobilenet-v2_8xb32", ["base_config", "closest", "mobilenet-v2_8xb32_in1k"]),
        ("experiments.m.base_config", "swin-base_16xb64_in1k", ["several weights", "swin-base_3rdparty_in1k", "zoo:"]),
        ("experiments.m", {"base_config": "lenet5_mnist", "checkpoint": "none"}, ["one image alone", "another base"]),
        ("experiments", {"a b": LEAST["experiments"]["m"]}, ["experiments", "a b"]),
        ("experiments", {}, ["experiments"]),
        ("seeds", [1, 1], ["seeds", "twice"]),
        ("seeds", 3, ["seeds: it is a list of seeds: [0, 1, 2] for three runs, [3] for one"]),
        ("experiments.m.device", 0, ["experiments.m.device: write device: cuda", "CUDA_VISIBLE_DEVICES=0 make run"]),
        ("experiments.m.device", "cuda:1", ["CUDA_VISIBLE_DEVICES=1 make run"]),
        ("experiments.m.device", "gpu", ["should be 'auto', 'cpu' or 'cuda'"]),
        ("seeds", ["x"], ["seeds.0", "integer"]),
        ("data_shards", 0, ["data_shards", "greater than or equal to 1"]),
        ("data_shards", 1001, ["data_shards", "less than or equal to 1000"]),
        ("data_shards", "all", ["data_shards", "integer"]),
    ],
)
def test_a_mistake_is_one_line_that_names_file_key_and_what_is_allowed(key: str, value: Any, words: list[str]) -> None:
    message = error_of(with_value(key, value))
    assert message.startswith("configs/mine.yaml: ") and "\n" not in message
    for word in words:
        assert word in message


def test_keys_that_were_renamed_are_still_understood() -> None:
    source = {"url": "http://x/y.zip", "part": "train"}
    old = {"name": "d", "source": source, "licence": "MIT"}  # alias of license
    dataset = Settings.model_validate({**LEAST, "dataset": old}).dataset
    assert (dataset.license, dataset.sources()[0].split) == ("MIT", "train")
    with pytest.raises(UserError, match="dataset: license stands twice: licence is its earlier name"):  # an alias
        load_settings({**LEAST, "dataset": {**old, "source": LEAST["dataset"]["source"], "license": "CC0"}})
    for sources in ({**source, "split": "test"}, [{**source, "split": "test"}]):
        with pytest.raises(UserError, match="split stands twice: part is its earlier name: keep one of them"):
            load_settings({**LEAST, "dataset": {"name": "d", "source": sources}})


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"optimizer": {"lr": 1}, "optimizer.lr": 2}, "optimizer.lr stands twice, also within optimizer"),
        ({"optimizer.lr": 2, "optimizer": {"lr": 1}}, "optimizer.lr stands twice, also within optimizer"),
        ({"a.b.c.d": 0, "a.b": {"c": {"d": None}}}, "a.b.c.d stands twice, also within a.b: keep one of them"),
        ({"model.head": {"loss": 1}, "model": {"head": {"x": 1}}}, "model.head stands twice, also within model"),
        ({"optimizer": {"type": "Adam"}, "optimizer.lr": 2, "optim.lr": 1}, ""),
    ],
)
def test_a_value_that_overrides_set_twice_is_refused(overrides: dict[str, Any], words: str) -> None:
    config = with_value("experiments.m.overrides", overrides)
    assert words in error_of(config) if words else load_settings(config)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"optimizer.nesterov": "false"}, "optimizer.nesterov: 'false' is a text, which counts as true: write false"),
        ({"lr_config": {"by_epoch": "False"}}, "lr_config.by_epoch: 'False' is a text"),
        ({"custom_hooks": [{"a": 1}, {"b": ["True"]}]}, "custom_hooks.1.b.0: 'True' is a text"),
        ({"optimizer_config.grad_clip": "None"}, "'None' is a text, which counts as true: write null without quotes"),
        ({"model.head.loss": {"reduction": "none", "a": None, "b": False, "c": "falsetto"}}, ""),
    ],
)
def test_a_text_in_overrides_that_means_a_constant_is_refused(overrides: dict[str, Any], words: str) -> None:
    config = with_value("experiments.m.overrides", overrides)
    assert words in error_of(config) if words else load_settings(config)


def test_a_missing_key_is_named() -> None:
    config = copy.deepcopy(LEAST)
    del config["dataset"]["name"]
    assert "dataset.name: this key is required" in error_of(config)


def test_a_typo_is_told_before_the_key_that_is_missing_because_of_it() -> None:
    config = copy.deepcopy(LEAST)
    config["dataset"]["nmae"] = config["dataset"].pop("name")
    assert "dataset.nmae: unknown key, did you mean name?" in error_of(config)
    assert error_of(config).endswith(" (and 1 more wrong: dataset.name)")


def test_wrong_keys_are_named_with_the_first_one_as_far_as_a_line_goes() -> None:
    config = with_value("experiments.a", {"epochs": -1, "base_config": 3})
    assert error_of(config).endswith(" (and 1 more wrong: experiments.a.epochs)")
    for number in range(6):
        config[f"wrong{number}"] = 0
    message = error_of(config)
    assert message.startswith("configs/mine.yaml: wrong0: unknown key")
    assert message.endswith(" (and 7 more wrong: wrong1, wrong2, wrong3, wrong4, wrong5, ...)")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: [\n", ["line 2", "YAML"]),
        ("- a\n", ["no keys"]),
        ("", ["empty"]),
        ("text", ["a text"]),
        (f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 123\n", ["LFS", "git lfs pull"]),
        ("/annex/objects/MD5E-s1\n", ["git-annex pointer", "git annex get"]),
        ("<!DOCTYPE html>\n<html>", ["a web page", "give a YAML file"]),
        (b"PAR1\0\0", ["a Parquet table", "give a YAML file"]),
        (b"\xff\xfe", ["UTF-8"]),
    ],
)
def test_a_file_that_is_no_configuration_is_one_line(tmp_path: Path, content: str | bytes, words: list[str]) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError) as caught:
        read_file(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and all(word in message for word in words)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such configuration file"):
        read_file(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ({"url": "http://h/x/fruit30_split.zip"}, "archive.zip"),
        ({"url": "http://h/x.TAR.GZ?token=1"}, "archive.tar.gz"),
        ({"url": "http://h/download?id=3"}, "archive.bin"),
        ({"sample": {}}, "archive.zip"),
    ],
)
def test_the_archive_bears_the_suffix_of_its_source(source: dict[str, Any], name: str) -> None:
    assert load_settings(with_value("dataset.source", source)).dataset.source.archive_name() == name


def test_a_folder_becomes_a_tar(tmp_path: Path) -> None:
    settings = load_settings(with_value("dataset.source", {"path": str(tmp_path)}))
    assert settings.dataset.source.archive_name() == "archive.tar"


def test_numbers_in_scientific_notation_are_numbers_at_any_depth(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "dataset: {name: d, source: {sample: {}}}\nexperiments:\n  m:\n    base_config: mobilenet-v2_8xb32_in1k\n"
        "    learning_rate: 1e-3\n    overrides: {optimizer.weight_decay: 1e-4, a.b: [1E5, {c: -1e-3}], d: '1e-4'}\n"
    )
    experiment = load_settings(read_file(path)).experiments["m"]
    assert experiment.learning_rate == 0.001
    assert experiment.overrides == {"optimizer.weight_decay": 1e-4, "a.b": [1e5, {"c": -1e-3}], "d": "1e-4"}


@pytest.mark.parametrize("value", ["1e-3", "inf", True, float("inf"), float("nan")])
def test_a_learning_rate_is_a_finite_number_and_no_text(value: object) -> None:
    assert "experiments.m.learning_rate: should be a" in error_of(with_value("experiments.m.learning_rate", value))


@pytest.mark.parametrize(
    ("classes", "line"),
    [
        ([1, 2], 'classes: ["1", "2"]'), ([True, "a"], 'classes: ["true", "a"]'),
        (["a", None], 'classes: ["a", "null"]'),
        (["a", {"c1": None}], 'classes: ["a", "{c1}"]'), ([1.5, "狗"], 'classes: ["1.5", "狗"]'),
    ],
)  # fmt: skip
def test_a_class_that_is_no_text_is_shown_in_quotes(classes: list[Any], line: str) -> None:
    assert f"quotes are needed: {line}" in error_of(with_value("dataset.classes", classes))
    assert f'quotes are needed: - "{0}"' in error_of(with_value("dataset.classes", list(range(2000))))
    assert "(each as its folder is called)" in error_of(with_value("dataset.classes", [1e3, "cat"]))


@pytest.mark.parametrize(
    "name",
    [
        "leaderboard.csv",
        "Leaderboard.CSV",
        "Images",
        "audit.cache",
        "report.html",
        "archive.tar.gz",
        "con",
        "NUL.x",
        "a.",
    ],
)
def test_a_name_that_a_file_of_ours_or_a_device_has_is_refused(name: str) -> None:
    of_experiment = error_of({**LEAST, "experiments": {name: LEAST["experiments"]["m"]}})
    of_dataset = error_of(with_value("dataset.name", name))
    assert all(f"{name!r} is a name that" in message for message in (of_experiment, of_dataset))


def test_names_that_differ_in_case_only_are_refused() -> None:
    experiment = LEAST["experiments"]["m"]
    assert "a and A are one folder" in error_of({**LEAST, "experiments": {"a": experiment, "A": experiment}})


@pytest.mark.parametrize(
    ("path", "reason"),
    [("x" * 5000, "too long"), ("a\0b", "null byte"), ("~nobody-of-that-name/x", "home"), ("", "at least 1 character")],
)
def test_a_path_that_cannot_be_opened_is_one_short_line(path: str, reason: str) -> None:
    for key in ("dataset.source", "experiments.m.checkpoint"):
        message = error_of(with_value(key, {"path": path}))
        assert reason in message and len(message) < 300


@pytest.mark.parametrize("key", ["k" * 10_000_000, "dataset." + "k" * 100_000, "experiments." + "k" * 100_000])
def test_a_long_key_or_value_is_not_printed_whole(key: str) -> None:
    assert len(error_of(with_value(key, 1))) < 400
    assert len(error_of(with_value("dataset.name", key))) < 400


def test_schema_and_reference_are_up_to_date() -> None:
    assert Path("configs/schema.json").read_text(encoding="utf-8") == schema_text(), "run `make docs`"
    assert Path("docs/settings.md").read_text(encoding="utf-8") == reference_text(), "run `make docs`"


def test_the_reference_describes_every_key() -> None:
    text = reference_text()
    for name, field in Settings.model_fields.items():
        assert f"| `{name}` |" in text and field.description
    assert "|  |\n" not in text, "a key without a description"


def test_a_logger_whose_package_is_missing_is_one_line_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = {"log_config.hooks": [{"type": "TextLoggerHook"}, {"type": "TensorboardLoggerHook"}]}
    config = with_value("experiments.m.overrides", hooks)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = error_of(config)
    assert message.startswith("configs/mine.yaml: experiments.m.overrides: TensorboardLoggerHook needs")
    assert "docs/trackers.md" in message and "\n" not in message
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert load_settings(config).experiments["m"].overrides == hooks


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("dataset.name", "我的数据", "it may hold letters a-z and A-Z, digits, _, - and ., and must begin with"),
        ("dataset.name", "my data", "may hold letters"),
        ("experiments", {"实验": {"base_config": "mobilenet-v2_8xb32_in1k"}}, "may hold letters"),
        ("dataset.source", {"url": "www.example.org/a.zip"}, "must be an address that begins with http:// or https://"),
        ("dataset.source", {"path": "/", "labels": "./"}, "must name a file"),
        (
            "experiments.m.checkpoint",
            {"package": "weights", "member": "a.pth"},
            "must be a name and a version, such as",
        ),
        ("experiments.m.checkpoint", {"run": "seed0"}, "must be results/<dataset>/<experiment>/seed<k>"),
    ],
)
def test_what_a_text_may_hold_is_said_in_words(key: str, value: Any, words: str) -> None:
    message = error_of(with_value(key, value))
    assert words in message and "pattern" not in message and "^" not in message and "[" not in message.split(" not ")[0]


def test_each_pattern_has_its_words() -> None:
    schema = Path("configs/schema.json").read_text(encoding="utf-8")
    patterns = set(re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', schema))
    assert patterns and {json.loads(pattern) for pattern in patterns} <= PATTERNS.keys()


def test_a_configuration_that_is_named_without_its_folder_is_found_for_the_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.yaml").touch()
    for typed in ("mine", "mine.yaml"):
        with pytest.raises(UserError, match=rf"{typed}: .*did you mean configs/mine\.yaml\?"):
            read_file(Path(typed))
    with pytest.raises(UserError, match="examples are in configs/"):
        read_file(Path("other"))
