"""The disk of results/ fills in any step: one line says so, and with room again the same command ends as ever."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dag import Finished, snakemake
from small_disk import fill, fill_inodes, small_disk

from scripts.lib.base.disks import LEAST_BYTES
from scripts.lib.base.files import sha256_of

pytestmark = pytest.mark.long

#: Bytes: with less room, no workflow starts.
ENOUGH = LEAST_BYTES + 400_000
RUN, LOGS = Path("results/small/quick/seed0"), Path("logs/small")


@contextmanager
def filled_when(log: Path, disk: Path, fill: Callable[[Path, int], None] = fill, leave: int = ENOUGH) -> Iterator[None]:
    """Fill *disk* as soon as the step of *log* has begun, but for *leave* before that."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.01):
            if log.exists():
                return fill(disk, 0)

    log.unlink(missing_ok=True)
    fill(disk, leave)
    (disk / "filler").rename(disk / "first")
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        subprocess.run(["rm", "-r", "-f", disk / "first", disk / "filler"], check=True)


@pytest.mark.parametrize(
    ("rule", "gone"),
    [
        ("unpack_archive", ["../../images", "../../unpacked.json"]),
        ("quick/seed0/explain_model", ["figures/gradcam.html"]),
        ("quick/seed0/map_embedding", ["figures/embedding.html"]),
        ("audit_images", ["../../audit.csv"]),
        ("split_dataset", ["../../splits"]),
        ("write_try_page", ["../../try.html"]),
        ("quick/seed0/plot_training_curves", ["figures/training_curves.svg"]),
        ("describe_data", ["../../audit.html"]),
        ("quick/seed0/patch_config", ["config.py"]),
        ("quick/seed0/predict_images", ["predictions.csv"]),
        ("quick/seed0/evaluate_model", ["metrics.json"]),
        ("quick/seed0/describe_model", ["model.html"]),
        ("quick/seed0/record_provenance", ["provenance.json"]),
        ("quick/seed0/write_model_card", ["model_card.md"]),
        ("describe_crate", ["../../ro-crate-metadata.json"]),
        ("quick/seed0/train_model", ["best.pth", "last.pth", "train_log.csv", "work"]),
        ("quick/seed0/plot_predictions", ["figures/confusion_matrix.svg"]),
        ("quick/seed0/export_model", ["model.onnx"]),
        ("compare_runs", ["../../leaderboard.csv"]),
        ("write_report", ["../../report.html"]),
    ],
)
def test_a_disk_that_fills_is_one_line_and_costs_nothing(
    finished: Finished, tmp_path: Path, rule: str, gone: list[str]
) -> None:
    folder = tmp_path / "p"
    with small_disk(folder / "results", 100) as disk:
        shutil.copytree(finished[0], folder, symlinks=True, dirs_exist_ok=True)
        weights = sha256_of(folder / RUN / "best.pth")
        for path in (folder / RUN / name for name in gone):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        with filled_when(folder / LOGS / f"{rule}.log", disk):
            failed = snakemake(folder, finished[1])
        assert failed.returncode == 1 and "Traceback" not in failed.stdout, failed.stdout
        lines = [line for line in failed.stdout.splitlines() if line.startswith("error: ")]
        # As its own words, which the tests ask for, and again as the last line.
        assert len(set(lines)) == 1 and "Error recording" not in failed.stdout, failed.stdout
        # unpack_archive looks before it writes, and tells how much is needed.
        told = ("no space left on the disk", "then run the same command again")
        if rule == "unpack_archive":
            told = ("no space left for results/small/images: ", ": free some and run the same command again")
        assert all(words in lines[0] for words in told), lines[0]
        again = snakemake(folder, finished[1])
        assert again.returncode == 0, again.stdout
        assert all((folder / RUN / name).exists() for name in gone)
        assert sha256_of(folder / RUN / "best.pth") == weights


@pytest.mark.parametrize("leave", [0, 1, 2, 3, 4, 40])
def test_a_disk_that_takes_no_more_files_is_one_line_and_costs_nothing(
    finished: Finished, tmp_path: Path, leave: int
) -> None:
    """As where a quota of files is used up: at the start, while the workflow begins, or while it trains."""
    folder = tmp_path / "p"
    with small_disk(folder, 200, "nr_inodes=20000") as disk:
        shutil.copytree(finished[0], folder, symlinks=True, dirs_exist_ok=True)
        weights = sha256_of(folder / RUN / "best.pth")
        for name in ("best.pth", "last.pth", "train_log.csv"):
            (folder / RUN / name).unlink()
        shutil.rmtree(folder / RUN / "work")
        with filled_when(folder / LOGS / "quick/seed0/train_model.log", disk, fill_inodes, leave):
            failed = snakemake(folder, finished[1])
        assert failed.returncode == 1 and "Traceback" not in failed.stdout, failed.stdout
        lines = [line for line in failed.stdout.splitlines() if line.startswith("error: ")]
        assert len(set(lines)) == 1 and "no space left on the disk" in lines[0] and "`df -i`" in lines[0], failed.stdout
        again = snakemake(folder, finished[1])
        assert again.returncode == 0, again.stdout
        assert sha256_of(folder / RUN / "best.pth") == weights
