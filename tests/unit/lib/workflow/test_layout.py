"""Which file lies where: with folds a run is one of experiment, seed and fold; without them nothing speaks of folds."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.lib.runs.run_folder import dataset_folder, run_name
from scripts.lib.settings.load import load_settings
from scripts.lib.workflow.layout import Layout


def layout(**split: Any) -> Layout:
    experiments = {"a": {"base_config": "mobilenet-v2_8xb32_in1k"}, "b": {"base_config": "resnet18_8xb32_in1k"}}
    dataset = {"name": "d", "source": {"sample": {}}, "split": split}
    return Layout(load_settings({"dataset": dataset, "experiments": experiments, "seeds": [0, 7]}))


def test_each_experiment_seed_and_fold_is_a_run() -> None:
    runs = layout(folds=3).runs("metrics.json")
    names = [f"{name}/seed{seed}/fold{fold}" for name in "ab" for seed in (0, 7) for fold in range(3)]
    assert runs == [f"results/d/{name}/metrics.json" for name in names]
    assert set(runs) <= {file.replace("provenance", "metrics") for file in layout(folds=3).targets()}


def test_a_run_of_a_fold_reads_the_splits_of_that_fold() -> None:
    found = layout(folds=2)
    wildcards = {"experiment": "a", "seed": "7", "fold": "1"}
    assert [side.format(**wildcards) for side in (found.train, found.val, found.test)] == [
        f"results/d/splits/fold1/{side}.txt" for side in ("train", "val", "test")
    ]
    assert found.splits("val") == ["results/d/splits/fold0/val.txt", "results/d/splits/fold1/val.txt"]
    assert found.start_of(SimpleNamespace(**wildcards)) == ["results/d/a/seed7/fold1/init.pth"]
    assert found.export_of(SimpleNamespace(**wildcards)) == ["results/d/a/seed7/fold1/export.json"]


def test_runs_of_two_folds_are_two_jobs_with_logs_and_names_of_their_own() -> None:
    found = layout(folds=2)
    patterns = (found.run_group, found.run_logs, found.title.replace("wildcards.", ""), found.fold_option)
    of_folds = [{text.format(experiment="a", seed=0, fold=fold) for text in patterns} for fold in (0, 1)]
    assert of_folds[0] == {"run_d_a_0_fold0", "logs/d/a/seed0/fold0", "a, seed 0, fold 0", "--fold 0"}
    assert not of_folds[0] & of_folds[1]
    assert found.shown("classes", "model card")["labels"] == {
        "seed": "{seed}",
        "fold": "{fold}",
        "what": "01 model card",
    }


def test_the_settings_of_a_run_name_the_number_of_folds() -> None:
    wildcards = SimpleNamespace(experiment="a", seed="7", fold="1")
    settings = json.loads(layout(folds=4).run_json(wildcards))
    assert settings["dataset"]["split"]["folds"] == 4 and settings["seeds"] == [7]
    assert "results/d/a/seed7/fold1/provenance.json" in Layout(load_settings(settings)).runs("provenance.json")


def test_without_folds_nothing_speaks_of_them() -> None:
    found = layout()
    wildcards = SimpleNamespace(experiment="a", seed="0")
    said = [value for value in vars(found).values() if isinstance(value, str)]
    said += [*found.targets(), *found.runs(), *found.start_of(wildcards), *found.export_of(wildcards)]
    said += [found.run_json(wildcards), found.folds_option(), str(found.shown("classes", "model card"))]
    assert not [text for text in said if "fold" in text]
    assert found.splits("train") == [found.train] == ["results/d/splits/train.txt"]
    assert (found.run, found.run_logs) == (
        "results/d/{experiment}/seed{seed}", "logs/d/{experiment}/seed{seed}"
    )  # fmt: skip


@pytest.mark.parametrize("number", [1, 0, 21, "five", 2.5])
def test_a_number_of_folds_that_makes_no_sense_is_refused(number: Any) -> None:
    with pytest.raises(Exception, match=r"dataset\.split\.folds"):
        layout(folds=number)


def test_a_run_is_named_by_its_folder() -> None:
    fold, seed = Path("/x/results/d/fold9/seed3/fold1"), Path("/x/results/d/fold9/seed3")
    assert run_name(fold) == {"dataset": "d", "experiment": "fold9", "seed": "seed3", "fold": "fold1"}
    assert run_name(seed) == {"dataset": "d", "experiment": "fold9", "seed": "seed3"}
    assert dataset_folder(fold) == dataset_folder(seed) == Path("/x/results/d")
