"""A run that another one starts from: made first, or there; never one that would show it its test images."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.lib.base.problems import UserError
from scripts.lib.settings.load import load_settings
from scripts.lib.settings.schema import Settings
from scripts.lib.workflow.layout import Layout

BASE = "mobilenet-v2_8xb32_in1k"


def settings(starts: dict[str, str | None], *, seeds: tuple[int, ...] = (0,), folds: int | None = None) -> Settings:
    """Return settings whose experiments start from the runs given; None: from the zoo."""
    experiments: dict[str, dict[str, Any]] = {
        name: {"base_config": BASE, **({"checkpoint": {"run": run}} if run else {})} for name, run in starts.items()
    }
    experiments["other"] = {"base_config": "resnet18_8xb32_in1k"}
    dataset = {"name": "d", "source": {"sample": {}}, **({"split": {"folds": folds}} if folds else {})}
    return load_settings({"dataset": dataset, "experiments": experiments, "seeds": list(seeds)})


def test_the_first_run_is_an_input_of_the_second_and_is_not_fetched() -> None:
    layout = Layout(settings({"a": None, "b": "results/d/a/seed0"}))
    name = layout.settings.experiments["b"].checkpoint_name()
    assert name is not None and name.startswith("d-a-seed0-")
    assert layout.local_checkpoint(SimpleNamespace(checkpoint=name)) == ["results/d/a/seed0/best.pth"]
    assert layout.checkpoint_of(SimpleNamespace(experiment="b")) == [f"results/checkpoints/{name}.pth"]
    assert not any(name in path for path in layout.downloads()) and len(layout.downloads()) == 3


@pytest.mark.parametrize(
    ("starts", "more", "message"),
    [
        ({"a": "results/d/a/seed0"}, {}, r"experiments\.a\.checkpoint\.run: it starts from itself \(a <- a\)"),
        ({"a": "results/d/b/seed0", "b": "results/d/a/seed0"}, {}, r"starts from itself \(a <- b <- a\)"),
        (
            {"a": "results/d/b/seed0", "b": "results/d/c/seed0", "c": "results/d/b/seed0"},
            {},
            r"starts from itself \(a <- b <- c <- b\)",
        ),
        ({"a": None, "b": "results/d/a/seed1"}, {}, "is no run of this configuration: add its experiment and seed"),
        ({"b": "results/d/gone/seed0"}, {}, "is no run of this configuration"),
        ({"b": "results/d/other/seed0"}, {}, "has base_config resnet18_8xb32_in1k: give this experiment the same"),
        ({"a": None, "b": "results/d/a/seed0"}, {"folds": 3}, "has seen images that other folds test on"),
        ({"b": "results/elsewhere/a/seed0"}, {}, r"there is no results/elsewhere/a/seed0/best\.pth: train that run"),
        ({"b": "results/../a/seed0"}, {}, r"experiments\.b\.checkpoint\.run"),
        ({"b": "/results/d/a/seed0"}, {}, r"experiments\.b\.checkpoint\.run"),
        ({"b": "results/d/a"}, {}, r"experiments\.b\.checkpoint\.run"),
    ],
)
def test_what_cannot_be_started_from_is_one_line(
    starts: dict[str, str | None], more: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        settings(starts, **more)
    assert "\n" not in str(caught.value)


def test_a_run_of_another_data_set_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    best = tmp_path / "results" / "elsewhere" / "a" / "seed0" / "fold1" / "best.pth"
    best.parent.mkdir(parents=True)
    best.touch()
    assert settings({"b": "results/elsewhere/a/seed0/fold1"}, folds=3)


@pytest.mark.parametrize("more", [{"sha256": "0" * 64}, {"path": "README.md"}, {"zoo": "x"}, {"mirrors": ["http://a"]}])
def test_what_goes_with_other_sources_does_not_go_with_a_run(more: dict[str, Any]) -> None:
    checkpoint = {"run": "results/d/a/seed0", **more}
    experiments = {"a": {"base_config": BASE}, "b": {"base_config": BASE, "checkpoint": checkpoint}}
    with pytest.raises(UserError, match=r"experiments\.b\.checkpoint: "):
        load_settings({"dataset": {"name": "d", "source": {"sample": {}}}, "experiments": experiments})
