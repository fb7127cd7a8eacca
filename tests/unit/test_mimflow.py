"""mimflow from Python and as a command: what each function gives, and which command of make each command is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny_run
import yaml
from PIL import Image
from set_up import ROOT

import mimflow
from scripts.lib.base.problems import UserError


def test_the_version_is_that_of_the_citation_and_of_the_newest_release_in_the_changelog() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    assert releases[0] == (mimflow.__version__, citation["date-released"])
    assert citation["version"] == mimflow.__version__
    assert citation["cff-version"] == "1.2.0" and {"message", "title", "authors"} <= citation.keys()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("run configs/mine.yaml", ["run", "CONFIG=configs/mine.yaml"]),
        ("run a.yaml -n --until x", ["run", "CONFIG=a.yaml", "ARGS=-n --until x"]),
        ("run a.yaml PROFILE=slurm", ["run", "CONFIG=a.yaml", "PROFILE=slurm"]),
        ("predict results/r/seed0 photos", ["predict", "RUN=results/r/seed0", "IMAGES=photos"]),
        ("bundle r OUT=f.tar IMAGES=yes", ["bundle", "RUN=r", "OUT=f.tar", "IMAGES=yes"]),
        ("watch --once", ["watch", "ARGS=--once"]),
        ("serve CONFIG=configs/demo.yaml PORT=9000", ["serve", "CONFIG=configs/demo.yaml", "PORT=9000"]),
    ],
)
def test_each_command_is_the_make_target_of_its_name(
    typed: str, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert mimflow.make_command(typed.split()) == ["make", "--no-print-directory", "-C", str(ROOT), *expected]


def test_paths_are_seen_from_the_folder_in_which_they_are_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.yaml").touch()
    monkeypatch.chdir(tmp_path)
    assert f"CONFIG={tmp_path / 'mine.yaml'}" in mimflow.make_command(["run", "mine.yaml"])
    assert "CONFIG=configs/demo.yaml" in mimflow.make_command(["run", "configs/demo.yaml"])


def test_every_command_is_a_target_of_the_makefile_with_its_words() -> None:
    targets = mimflow._descriptions()
    assert set(mimflow.COMMANDS) <= set(targets) and all(targets[name] for name in mimflow.COMMANDS)
    left_out = {"help", "test", "test-all", "test-faults", "test-grid", "test-slurm", "test-cluster", "bench",
                "wheelhouse", "locks", "lint", "docs", "docs-site", "clean-demo"}  # fmt: skip
    assert set(targets) - left_out == set(mimflow.COMMANDS)


def test_pixels_and_files_get_the_same_predictions(tmp_path: Path) -> None:
    run = tiny_run.make_run(tmp_path)
    files = sorted(run.images.rglob("*.png"))[:3]
    by_file = mimflow.predict(run.folder, files, device="cpu")
    arrays = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    by_array = mimflow.predict(run.folder, arrays, device="cpu")
    alone = mimflow.predict(run.folder, Image.open(files[1]), device="cpu")
    assert list(by_file["image"]) == [str(file) for file in files] and list(by_array["image"]) == [0, 1, 2]
    probabilities = [column for column in by_file.columns if column.startswith("prob:")]
    assert np.array_equal(by_file[probabilities].to_numpy(), by_array[probabilities].to_numpy())
    assert alone["prediction"].tolist() == [by_file["prediction"][1]]
    assert np.allclose(by_file[probabilities].sum(axis=1), 1, atol=1e-5)
    assert (by_file["confidence"] == by_file[probabilities].max(axis=1)).all()


def test_what_is_no_image_is_one_line(tmp_path: Path) -> None:
    run = tiny_run.make_run(tmp_path)
    for wrong in (np.zeros((4, 4, 3)), [np.zeros((4, 4, 7), np.uint8)], tmp_path / "no.png"):
        with pytest.raises(UserError) as caught:
            mimflow.predict(run.folder, wrong, device="cpu")
        assert "\n" not in str(caught.value)


def test_runs_and_the_leaderboard_are_those_of_the_files(tmp_path: Path) -> None:
    run = tiny_run.make_run(tmp_path)
    (finished,) = mimflow.runs(tmp_path)
    assert (finished.dataset, finished.experiment, finished.seed, finished.fold) == ("demo", "tiny", 0, None)
    assert finished.path == run.folder and finished.metrics["accuracy_top1"] == 0.5
    assert isinstance(finished.history(), pd.DataFrame) and len(finished.history()) == 2
    with pytest.raises(UserError, match="there is no report"):
        mimflow.open_report(tmp_path / "demo")
    (tmp_path / "demo" / "report.html").touch()
    assert mimflow.open_report(tmp_path / "demo", show=False).name == "report.html"
    with pytest.raises(UserError):
        mimflow.leaderboard(tmp_path / "demo")
