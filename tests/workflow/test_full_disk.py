"""The disk of results/ fills in any step: one line says so, and with room again the same command ends as ever."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from dag import Finished, snakemake
from small_disk import fill, small_disk

from scripts.lib.base.files import sha256_of

pytestmark = pytest.mark.long

RUN = Path("results/small/quick/seed0")


@pytest.mark.parametrize(
    ("gone", "room"),
    [
        (["best.pth", "last.pth", "train_log.csv", "work"], 300_000),  # not for one state
        (["figures/confusion_matrix.svg"], 20_000),
        (["model.onnx"], 20_000),
        (["../../report.html"], 20_000),
        (["../../leaderboard.csv"], 0),
    ],
    ids=lambda value: Path(value[0]).name if isinstance(value, list) else "",
)
def test_a_disk_that_fills_is_one_line_and_costs_nothing(
    finished: Finished, tmp_path: Path, gone: list[str], room: int
) -> None:
    folder = tmp_path / "p"
    with small_disk(folder / "results", 200) as disk:
        shutil.copytree(finished[0], folder, symlinks=True, dirs_exist_ok=True)
        weights = sha256_of(folder / RUN / "best.pth")
        for path in (folder / RUN / name for name in gone):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        fill(disk, leave=room)
        failed = snakemake(folder, finished[1])
        (disk / "filler").unlink()
        assert failed.returncode == 1 and "Traceback" not in failed.stdout, failed.stdout
        lines = [line for line in failed.stdout.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and "full" in lines[0] and failed.stdout.splitlines()[-1] == lines[0], failed.stdout
        again = snakemake(folder, finished[1])
        assert again.returncode == 0, again.stdout
        assert all((folder / RUN / name).exists() for name in gone)
        assert sha256_of(folder / RUN / "best.pth") == weights
