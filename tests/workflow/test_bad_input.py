"""A user's mistake costs one line that names file, key and remedy; nothing half-written stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from dag import QUICK, archive_bytes, photograph, settings, snakemake


def errors_of(output: str) -> list[str]:
    """Return the error lines; each is said twice, when it happens and at the end."""
    return list(dict.fromkeys(line for line in output.splitlines() if line.startswith("error: ")))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "data.zip"
    path.write_bytes(archive_bytes(["a", "b"]))
    return path


@pytest.mark.long
def test_an_unknown_key_stops_before_anything_runs(tmp_path: Path, archive: Path) -> None:
    config = settings({"path": str(archive)}, quick={**QUICK, "epoch": 3})
    result = snakemake(tmp_path, config)
    assert result.returncode != 0
    (error,) = errors_of(result.stdout)
    assert error.startswith("error: settings.yaml: experiments.quick.epoch: unknown key, did you mean epochs?")
    assert "Traceback" not in result.stdout and not (tmp_path / "results").exists()


CASES: list[tuple[dict[str, Any], str]] = [
    ({"batch_size": 500}, "experiments.quick.batch_size: 500 is larger than the 14 training images"),
    (
        {"overrides": {"optimizer.weight_deca": 1}},
        "experiments.quick.overrides.optimizer.weight_deca: there is no such key",
    ),
    ({"learning_rate": 1e30}, "the loss became"),
]


@pytest.mark.long
@pytest.mark.parametrize(("change", "message"), CASES, ids=["batch", "override", "loss"])
def test_a_mistake_that_shows_later_is_one_line_too(
    tmp_path: Path, archive: Path, change: dict[str, Any], message: str
) -> None:
    config = settings({"path": str(archive)}, quick={**QUICK, "epochs": 3, **change})
    result = snakemake(tmp_path, config, "--", "results/small/quick/seed0/best.pth")
    assert result.returncode != 0
    (error,) = errors_of(result.stdout)
    assert message in error and "Traceback" not in result.stdout
    run = tmp_path / "results/small/quick/seed0"
    assert not (run / "best.pth").exists() and not list(run.glob(".*.tmp*"))


@pytest.mark.long
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive_bytes(["a", "b"])[:-3000], "archive"),
        (b"<html>404</html>", "archive"),
        (archive_bytes(["only"]), "only"),
        (archive_bytes(["a", "b"], per_class=1), "'a'"),
    ],
    ids=["truncated", "not an archive", "one class", "one image"],
)
def test_an_archive_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "data.zip"
    path.write_bytes(content)
    result = snakemake(tmp_path, settings({"path": str(path)}), "--", "results/small/classes.txt")
    assert result.returncode != 0
    (error,) = errors_of(result.stdout)
    assert message in error
    assert not (tmp_path / "results/small/classes.txt").exists()
    assert not [path for path in (tmp_path / "results").rglob(".*tmp*")]


@pytest.mark.long
def test_an_image_added_to_a_folder_mends_what_its_absence_broke(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    for label, name in enumerate(("a", "b")):
        (folder / name).mkdir(parents=True)
        for index in range(10 if name == "a" else 1):
            (folder / name / f"{index}.jpg").write_bytes(photograph(label, index))
    config = settings({"path": str(folder)})
    result = snakemake(tmp_path, config, "--", "results/small/classes.txt")
    assert result.returncode != 0 and "'b' has 1" in result.stdout
    for index in range(1, 10):
        (folder / "b" / f"{index}.jpg").write_bytes(photograph(1, index))
    result = snakemake(tmp_path, config, "--", "results/small/classes.txt")
    assert result.returncode == 0, result.stdout
    assert "train 14, val 2, test 4" in result.stdout
    result = snakemake(tmp_path, config, "--", "results/small/classes.txt")
    assert "Nothing to be done" in result.stdout
