"""What rules tell their scripts: each value is one word of the shell, and what is not set is no option at all."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.lib.base import long_values
from scripts.lib.settings.load import load_settings
from scripts.lib.settings.schema import Site
from scripts.lib.workflow.layout import Layout
from scripts.lib.workflow.options import Options, RuleOptions, option

RUN = SimpleNamespace(experiment="a", seed="7", fold="1")


def options(site: Site | None = None, experiment: dict[str, Any] | None = None, **dataset: Any) -> Options:
    config = {
        "dataset": {"name": "d", "source": {"sample": {}}, **dataset},
        "experiments": {"a": {"base_config": "mobilenet-v2_8xb32_in1k", **(experiment or {})}},
        "seeds": [0, 7],
    }
    settings = load_settings(config)
    return Options(settings, site or Site(), Layout(settings))


@pytest.mark.parametrize("value", ["a b", "$(x)", "it's", '"', "狗", ";"])
def test_each_value_is_one_word_of_the_shell(value: str) -> None:
    assert shlex.split(option("labels", value, "b")) == ["--labels", value, "b"]


def test_an_option_without_a_value_is_none() -> None:
    assert option("labels") == option("license", "") == ""


def test_what_is_not_set_is_not_told() -> None:
    plain = options(experiment={"checkpoint": "none", "export": False})
    told = [plain.sources, plain.labels, plain.classes, plain.group_by, plain.folds, plain.fold(RUN), plain.license]
    told += [plain.price, plain.checkpoint(RUN), plain.pixel_cache(RUN), plain.export(RUN)]
    assert set(told) == {""}


def test_what_is_set_is_told() -> None:
    full = options(
        Site(price_per_gpu_hour=1.5, currency="CNY"), classes=["b", "a"], split={"folds": 2, "group_by": "-(x)"}
    )
    assert shlex.split(full.classes) == ["--classes", '["b", "a"]']
    assert shlex.split(full.group_by) == ["--group-by=-(x)"]
    assert (full.folds, full.fold(RUN), full.price) == ("--folds 2", "--fold 1", "--price 1.5 --currency CNY")
    assert full.export(RUN) == "--export results/d/a/seed7/fold1/export.json"
    assert full.checkpoint(RUN).startswith("--checkpoint results/checkpoints/")


def test_the_settings_of_a_run_name_the_number_of_folds() -> None:
    settings = json.loads(options(split={"folds": 4}).run_json(RUN))
    assert settings["dataset"]["split"]["folds"] == 4 and settings["seeds"] == [7]
    layout = Layout(load_settings(settings))
    assert "results/d/a/seed7/fold1/provenance.json" in layout.runs(layout.run.provenance)


def test_text_of_the_settings_reaches_rules_by_a_function_which_snakemake_does_not_search_for_wildcards() -> None:
    told = options(classes=["{c1}", "b"], license="CC {BY}", split={"group_by": "i([0-9]{2})"})
    rules = RuleOptions(told)
    for name in ("classes", "license", "group_by", "sources", "labels", "folds", "price"):
        assert getattr(rules, name)(RUN) == getattr(told, name)
    assert rules.run_json(RUN) == told.run_json(RUN) and "{c1}" in rules.run_json(RUN)


@pytest.mark.parametrize("name", ["a long list of classes", "one long name", "long overrides"])
def test_a_value_too_long_for_a_shell_line_goes_by_a_file(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    many = [f"class {index:06d} 狗" for index in range(20_000)]
    told = {
        "a long list of classes": lambda: options(classes=many).classes,
        "one long name": lambda: options(classes=["a" * 300_000, "b"]).run_json(RUN),
        "long overrides": lambda: options(experiment={"overrides": {"x": many}}).experiment_json(RUN),
    }[name]()
    assert len(told) < 200
    value = long_values.take(shlex.split(told)[-1])
    assert len(json.loads(value)) and (many[-1] in value or "a" * 300_000 in value)
    assert long_values.take("[1]") == long_values.pass_on("[1]") == "[1]"
