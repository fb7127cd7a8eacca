"""Which file lies where: with folds a run is one of experiment, seed and fold; without them nothing speaks of folds."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.lib.runs.run_folder import dataset_folder, run_name
from scripts.lib.settings.load import load_settings
from scripts.lib.settings.schema import Settings, Site
from scripts.lib.workflow.layout import Layout
from scripts.lib.workflow.options import Options
from scripts.lib.workflow.report_menu import ReportMenu
from scripts.lib.workflow.resources import Resources


def settings_with(**split: Any) -> Settings:
    experiments = {"a": {"base_config": "mobilenet-v2_8xb32_in1k"}, "b": {"base_config": "resnet18_8xb32_in1k"}}
    dataset = {"name": "d", "source": {"sample": {}}, "split": split}
    return load_settings({"dataset": dataset, "experiments": experiments, "seeds": [0, 7]})


def test_each_experiment_seed_and_fold_is_a_run() -> None:
    layout = Layout(settings_with(folds=3))
    runs = layout.runs(layout.run.metrics)
    names = [f"{name}/seed{seed}/fold{fold}" for name in "ab" for seed in (0, 7) for fold in range(3)]
    assert runs == [f"results/d/{name}/metrics.json" for name in names]
    assert set(runs) <= {file.replace("provenance", "metrics") for file in layout.targets()}


def test_a_run_of_a_fold_reads_the_splits_of_that_fold() -> None:
    layout = Layout(settings_with(folds=2))
    wildcards = {"experiment": "a", "seed": "7", "fold": "1"}
    assert [split.format(**wildcards) for split in (layout.train, layout.val, layout.test)] == [
        f"results/d/splits/fold1/{split}.txt" for split in ("train", "val", "test")
    ]
    assert layout.splits("val") == ["results/d/splits/fold0/val.txt", "results/d/splits/fold1/val.txt"]
    assert layout.start_of(SimpleNamespace(**wildcards)) == ["results/d/a/seed7/fold1/init.pth"]
    assert layout.export_of(SimpleNamespace(**wildcards)) == ["results/d/a/seed7/fold1/export.json"]


def test_runs_of_two_folds_are_two_jobs_with_logs_and_names_of_their_own() -> None:
    settings = settings_with(folds=2)
    layout = Layout(settings)
    group = Resources(settings, Site(), layout).run_group
    patterns = (group, layout.run_logs, layout.title.replace("wildcards.", ""))
    option = Options(settings, Site(), layout).fold
    of_folds = [
        {option(SimpleNamespace(fold=fold)), *(text.format(experiment="a", seed=0, fold=fold) for text in patterns)}
        for fold in ("0", "1")
    ]
    assert of_folds[0] == {"run_d_a_0_fold0", "logs/d/a/seed0/fold0", "a, seed 0, fold 0", "--fold 0"}
    assert not of_folds[0] & of_folds[1]
    assert ReportMenu(settings).shown("classes", "model card")["labels"] == {
        "seed": "{seed}",
        "fold": "{fold}",
        "what": "01 model card",
    }


def test_without_folds_nothing_speaks_of_them() -> None:
    settings = settings_with()
    layout = Layout(settings)
    options, resources = Options(settings, Site(), layout), Resources(settings, Site(), layout)
    wildcards = SimpleNamespace(experiment="a", seed="0")
    texts = [value for owner in (layout, resources) for value in vars(owner).values() if isinstance(value, str)]
    texts += [*layout.targets(), *layout.runs(layout.run.path)]
    texts += [*layout.start_of(wildcards), *layout.export_of(wildcards)]
    texts += [options.run_json(wildcards), options.folds, options.fold(wildcards)]
    texts += [str(ReportMenu(settings).shown("classes", "model card")["labels"])]
    assert not [text for text in texts if "fold" in text]
    assert layout.splits("train") == [layout.train] == ["results/d/splits/train.txt"]
    assert (str(layout.run.path), layout.run_logs) == (
        "results/d/{experiment}/seed{seed}", "logs/d/{experiment}/seed{seed}"
    )  # fmt: skip


@pytest.mark.parametrize("number", [1, 0, 21, "five", 2.5])
def test_a_number_of_folds_that_makes_no_sense_is_refused(number: Any) -> None:
    with pytest.raises(Exception, match=r"dataset\.split\.folds"):
        settings_with(folds=number)


def test_a_run_is_named_by_its_folder() -> None:
    fold, seed = Path("/x/results/d/fold9/seed3/fold1"), Path("/x/results/d/fold9/seed3")
    assert run_name(fold) == {"dataset": "d", "experiment": "fold9", "seed": "seed3", "fold": "fold1"}
    assert run_name(seed) == {"dataset": "d", "experiment": "fold9", "seed": "seed3"}
    assert dataset_folder(fold) == dataset_folder(seed) == Path("/x/results/d")


def test_the_first_pretrained_experiment_judges_the_labels_but_none_that_starts_from_a_run() -> None:
    base = {"base_config": "mobilenet-v2_8xb32_in1k"}
    experiments = {
        "scratch": base | {"checkpoint": "none"},
        "other": base | {"checkpoint": {"run": "results/d/zoo/seed0"}},
        "zoo": base,
        "more": base | {"base_config": "resnet18_8xb32_in1k"},
    }

    def of(*names: str) -> Layout:
        chosen = {name: experiments[name] for name in names}
        dataset = {"name": "d", "source": {"url": "http://host/a.zip"}}
        return Layout(Settings.model_validate({"dataset": dataset, "experiments": chosen}))

    layout = of(*experiments)
    assert layout.label_judge is not None and layout.label_judge[0] == "zoo"
    assert layout.judge_pixel_cache() == ["results/d/packed/160"]
    assert layout.judge_checkpoint() and "results/d/label_suspects.html" in layout.targets()
    nobody = of("scratch")
    assert nobody.label_judge is None and not nobody.judge_checkpoint() and not nobody.judge_pixel_cache()
    assert "results/d/label_suspects.html" not in nobody.targets()
