"""Cross-validation through the whole workflow: every image is tested once, by a model that never saw it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from dag import QUICK, archive_bytes, settings, snakemake

from scripts import bundle, verify
from scripts.lib.base.files import read_lines
from scripts.lib.runs.config_file import read_config
from scripts.lib.workflow import bundles
from scripts.lib.workflow.progress import State, Watcher
from scripts.lib.workflow.repetition import changed_since

pytestmark = pytest.mark.long

FOLDS = (0, 1)
RUN = "results/small/quick/seed0/fold{}"
#: The numbers of all folds, and all that is drawn and written of one: the other's would only take time.
TARGETS = ("results/small/leaderboard.csv", f"{RUN.format(1)}/model_card.md", f"{RUN.format(1)}/figures/curves.svg")


def cross_validated(source: dict[str, Any], **experiment: Any) -> dict[str, Any]:
    config = settings(source, quick={**QUICK, "batch_size": 4, **experiment})
    config["dataset"]["split"] = {"folds": len(FOLDS), "val": 0.2}
    return config


@pytest.fixture(scope="module")
def crossed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A cross-validation, and its configuration."""
    folder = tmp_path_factory.mktemp("crossed")
    (folder / "data.zip").write_bytes(archive_bytes(["a", "b"], per_class=9))
    config = cross_validated({"path": str(folder / "data.zip")}, export=False)
    result = snakemake(folder, config, "--", *TARGETS)
    assert result.returncode == 0, result.stdout
    return folder, config


def names(annotations: Path) -> set[str]:
    return {line.rpartition(" ")[0] for line in read_lines(annotations)}


def test_every_image_is_tested_once_by_a_model_that_never_saw_it(crossed: tuple[Path, dict[str, Any]]) -> None:
    dataset = crossed[0] / "results/small"
    images = {path.relative_to(dataset / "images").as_posix() for path in (dataset / "images").rglob("*.jpg")}
    tested: list[str] = []
    for fold in FOLDS:
        run, splits = crossed[0] / RUN.format(fold), dataset / f"splits/fold{fold}"
        train, val, test = (names(splits / f"{split}.txt") for split in ("train", "val", "test"))
        assert train | val | test == images and len(train) + len(val) + len(test) == len(images)
        files = pd.read_csv(run / "predictions.csv")["file"].tolist()
        assert set(files) == test and set(pd.read_csv(run / "val_predictions.csv")["file"]) == val
        tested += files
        data = read_config(run / "config.py")["data"]
        assert {Path(data[split]["ann_file"]).parent.name for split in ("train", "val", "test")} == {f"fold{fold}"}
    assert sorted(tested) == sorted(images)
    assert {path.name for path in (crossed[0] / RUN.format(0)).parent.iterdir()} == {"fold0", "fold1"}
    assert {path.name for path in (dataset / "splits").iterdir()} == {"fold0", "fold1"}


def test_the_leaderboard_is_the_mean_of_the_folds(crossed: tuple[Path, dict[str, Any]]) -> None:
    dataset = crossed[0] / "results/small"
    metrics = [json.loads((crossed[0] / RUN.format(fold) / "metrics.json").read_text()) for fold in FOLDS]
    assert [(entry["seed"], entry["fold"]) for entry in metrics] == [(0, 0), (0, 1)]
    (row,) = pd.read_csv(dataset / "leaderboard.csv").to_dict("records")
    assert (row["seeds"], row["folds"], row["runs"], row["n_test"]) == (1, 2, 2, 18)
    assert row["accuracy_top1_mean"] == pytest.approx(sum(entry["accuracy_top1"] for entry in metrics) / 2)
    assert pd.read_csv(dataset / "costs.csv")["fold"].tolist() == [0, 1]
    assert [(run.which, run.state) for run in Watcher(crossed[0] / "results").look().runs] == [
        ("0 fold 0", State.DONE), ("0 fold 1", State.DONE)
    ]  # fmt: skip
    card = (crossed[0] / RUN.format(1) / "model_card.md").read_text()
    assert "\n# Model card: quick on small, seed 0, fold 1\n" in card


def test_a_second_run_does_nothing(crossed: tuple[Path, dict[str, Any]]) -> None:
    result = snakemake(*crossed, "--dry-run", "--", *TARGETS)
    assert result.returncode == 0 and "Nothing to be done" in result.stdout


def test_a_fold_is_verified_by_itself(crossed: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    provenance = json.loads((crossed[0] / RUN.format(1) / "provenance.json").read_text())
    assert provenance["run"]["fold"] == "fold1"
    assert provenance["inputs"]["files"]["splits/test.txt"]["path"] == "results/small/splits/fold1/test.txt"
    verify.main(verify.build_parser().parse_args(["--run", str(crossed[0] / RUN.format(1))]))
    assert capsys.readouterr().out == "identical\n"
    assert not (crossed[0] / "results/.scratch").exists()


def test_a_fold_is_bundled_with_its_own_splits(
    crossed: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = crossed[0] / RUN.format(1)
    bundle.main(bundle.build_parser().parse_args(["--run", str(run)]))
    archive = crossed[0] / "results/small/small-quick-seed0-fold1.tar"
    unpacked = bundles.find_run(archive, tmp_path, bundles.unpack(archive, tmp_path))
    assert unpacked.name == "small/quick/seed0/fold1" and changed_since(unpacked, without=("archive",)) is None
    assert [path.name for path in (tmp_path / "results/small/splits").iterdir()] == ["fold1"]
    assert "and of the other folds" in (tmp_path / "settings.yaml").read_text()


def test_one_pack_holds_the_images_of_all_folds_and_each_run_reads_its_own(tmp_path: Path) -> None:
    config = cross_validated({"sample": {}}, checkpoint="zoo", recipe="fast")
    result = snakemake(tmp_path, config, "--dry-run", "--printshellcmds")
    assert result.returncode == 0, result.stdout

    def read_by(script: str) -> list[list[str]]:
        commands = [line for line in result.stdout.splitlines() if f"-m scripts.{script} " in line]
        named = [re.findall(r"splits/(fold\d/(?:train|val))", command) for command in commands]
        return sorted(list(dict.fromkeys(names)) for names in named)

    assert read_by("data.pack_images") == [["fold0/train", "fold1/train", "fold0/val", "fold1/val"]]
    for script in ("train.fit_head", "train.train_model"):
        assert read_by(script) == [[f"fold{fold}/train", f"fold{fold}/val"] for fold in FOLDS], script
