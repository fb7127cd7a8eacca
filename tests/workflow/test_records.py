"""What made each file is recorded in results/: results that came from elsewhere are finished, or seen to be others."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import stand_in
from dag import QUICK, archive_bytes, jobs_run, settings

pytestmark = pytest.mark.long

RUN = "results/small/quick/seed0"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return a folder with results, and the settings that made them; the data lie elsewhere."""
    folder = tmp_path_factory.mktemp("made")
    archive = tmp_path_factory.mktemp("data") / "data.zip"
    archive.write_bytes(archive_bytes(["a", "b"]))
    config = settings({"path": str(archive)})
    assert stand_in.run(folder, config).returncode == 0
    return folder, config


def copied(made: Path, folder: Path) -> Path:
    """Copy the results without .snakemake; the files' times say nothing."""
    shutil.copytree(made / "results", folder / "results")
    for number, path in enumerate(sorted(folder.rglob("*"))):
        os.utime(path, (1e9 + number * 7919 % 1000,) * 2)
    return folder


def planned(folder: Path, config: dict[str, Any]) -> set[str]:
    result = stand_in.run(folder, config, "-n")
    assert result.returncode == 0, result.stdout
    return {line.split(" ")[0] for line in result.stdout.split("Job stats:")[-1].splitlines() if line[:1].isalpha()}


def test_copied_results_are_finished_and_stay_what_they_are(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder = copied(made[0], tmp_path)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert "Nothing to be done" in stand_in.run(folder, made[1], "-n").stdout
    assert all(path.read_bytes() == content for path, content in before.items() if "results" in path.parts)
    result = stand_in.run(folder, made[1])
    assert "Nothing to be done" in result.stdout and jobs_run(result.stdout) == []


def other_epochs(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "experiments": {"quick": {**QUICK, "epochs": 300}}}


def other_split(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "dataset": {**config["dataset"], "split": {"val": 0.3, "test": 0.1}}}


def other_data(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    (folder / "data.zip").write_bytes(archive_bytes(["a", "c"]))
    return settings({"path": str(folder / "data.zip")})


def other_language(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "report": {"language": "zh"}}


def edited(name: str) -> Callable[[Path, dict[str, Any]], dict[str, Any]]:
    def edit(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
        path = folder / name
        status, content = path.stat(), bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return config

    return edit


def deleted(name: str) -> Callable[[Path, dict[str, Any]], dict[str, Any]]:
    def delete(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
        (folder / name).unlink()
        return config

    return delete


@pytest.mark.parametrize(
    ("change", "again", "stays"),
    [
        (other_epochs, {"patch_config", "train_model", "compare_runs", "write_report"}, {"unpack_archive"}),
        (other_split, {"split_dataset", "train_model", "write_report"}, {"unpack_archive"}),
        (other_data, {"fetch_archive", "unpack_archive", "train_model"}, set()),
        (other_language, {"describe_data", "write_report"}, {"train_model", "evaluate_model"}),
        (edited(f"{RUN}/metrics.json"), {"evaluate_model", "compare_runs", "write_report"}, {"train_model"}),
        (edited("results/small/images/a.jpg"), {"unpack_archive"}, {"fetch_archive"}),
        (deleted("results/small/report.html"), {"write_report"}, {"compare_runs", "train_model"}),
        (
            deleted(f"{RUN}/.made/train_model.json"),
            {"train_model", "compare_runs"},
            {"unpack_archive", "split_dataset"},
        ),
    ],
)
def test_what_differs_is_made_again(
    made: tuple[Path, dict[str, Any]],
    tmp_path: Path,
    change: Callable[[Path, dict[str, Any]], dict[str, Any]],
    again: set[str],
    stays: set[str],
) -> None:
    folder = copied(made[0], tmp_path)
    rules = planned(folder, change(folder, made[1]))
    assert again <= rules and not stays & rules


def test_images_that_somebody_changed_are_neither_used_nor_thrown_away(
    made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder = copied(made[0], tmp_path)
    edited("results/small/images/a.jpg")(folder, {})
    content = (folder / "results/small/images/a.jpg").read_bytes()
    result = stand_in.run(folder, {**made[1], "seeds": [0, 1]})
    assert result.returncode == 1 and jobs_run(result.stdout) == []
    lines = [line for line in result.stdout.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "results/small/images: its images are not those that were unpacked" in lines[0]
    assert (folder / "results/small/images/a.jpg").read_bytes() == content


def test_a_step_that_failed_leaves_the_record_of_what_was_made_before(
    made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder = copied(made[0], tmp_path)
    record = folder / RUN / ".made/train_model.json"
    before, weights = json.loads(record.read_text()), (folder / RUN / "best.pth").read_bytes()
    (folder / "fails").write_text("best.pth")
    config = other_epochs(folder, made[1])
    assert stand_in.run(folder, config).returncode == 1
    assert json.loads(record.read_text())["origin"] == before["origin"]
    for name in ("best.pth", "last.pth", "train_log.csv"):  # as from a backup
        shutil.copyfile(made[0] / RUN / name, folder / RUN / name)
    assert (folder / RUN / "best.pth").read_bytes() == weights
    assert "train_model" in planned(folder, config), "they are the weights of other settings"


def test_a_record_says_what_each_file_was_made_of(made: tuple[Path, dict[str, Any]]) -> None:
    job = json.loads((made[0] / RUN / ".made/evaluate_model.json").read_text())
    origin = job["origin"]
    assert origin["rule"] == "evaluate_model" and set(job["files"]) == {"metrics.json", "per_class.csv"}
    of_run = {f"{RUN}/{name}" for name in ("predictions.csv", "features.npy", "known.npy", "certainty.json")}
    assert set(origin["inputs"]) == {*of_run, "results/small/splits/train.txt"}
    assert len(origin["code"]) == 64
