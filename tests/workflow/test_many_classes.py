"""Pages and figures of very many classes, and of many runs: a bound in memory, time and bytes for each script."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from simulated_predictions import simulate, write_csv
from small_runs import make_run

ROOT = Path(__file__).resolve().parent.parent.parent
CLASSES, TEST, VAL = 2000, 2000, 400
#: Bytes of memory at most, and seconds of processor.
MEMORY, SECONDS = 1.5e9, 240
MEASURE = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(1024 * usage.ru_maxrss, usage.ru_utime + usage.ru_stime)
sys.exit(status)
"""


def run_script(module: str, *options: str | Path) -> None:
    """Run a script as its rule does, within MEMORY and SECONDS."""
    # By a process of little memory: a child counts what its parent had when it was started.
    command = [sys.executable, "-c", MEASURE, sys.executable, "-m", module, *map(str, options)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    memory, seconds = map(float, result.stdout.splitlines()[-1].split())
    print(f"{module}: {memory / 1e9:.2f} GB, {seconds:.0f} s")
    assert memory < MEMORY and seconds < SECONDS, module


@pytest.mark.timeout(1800)
@pytest.mark.long
def test_2000_classes_take_little_memory_time_and_room(tmp_path: Path) -> None:
    test = simulate(TEST, CLASSES, strength=4.0)
    val = simulate(VAL, CLASSES, seed=1, strength=4.0)
    val = replace(val, files=[f"val_{file}" for file in val.files])
    of_test, of_val = write_csv(tmp_path / "test.csv", test), write_csv(tmp_path / "val.csv", val)
    features = np.random.default_rng(0).normal(size=(TEST, 16)).astype(np.float32)
    np.save(tmp_path / "features.npy", features)
    stream = BytesIO()
    Image.new("RGB", (56, 48), "olive").save(stream, "JPEG")
    images = tmp_path / "images"
    images.mkdir()
    for file in test.files:
        (images / file).write_bytes(stream.getvalue())
    shown = tmp_path / "shown"
    run_script(
        "scripts.evaluate.plot_predictions", "--predictions", of_test, "--val-predictions", of_val,
        "--images", images, "--output", shown,
    )  # fmt: skip
    run_script(
        "scripts.evaluate.evaluate_model", "--predictions", of_test, "--dataset", "d", "--experiment", "e",
        "--seed", "0", "--metrics", tmp_path / "metrics.json", "--per-class", tmp_path / "per_class.csv",
    )  # fmt: skip
    run_script(
        "scripts.evaluate.map_embedding", "--predictions", of_test, "--features", tmp_path / "features.npy",
        "--images", images, "--output", shown / "embedding.html",
    )  # fmt: skip
    sizes = {path.name: path.stat().st_size for path in shown.iterdir()}
    assert max(sizes.values()) < 2.5e6, sizes
    assert "200 of 2,000 classes" in re.sub(r"\s+", " ", (shown / "embedding.html").read_text())


@pytest.mark.long
def test_40_runs_of_200_classes_are_compared_in_little_memory_and_time(tmp_path: Path) -> None:
    folders = []
    for number in range(40):
        predictions = simulate(400, 200, strength=3.0 + 0.05 * number)
        accuracy = float((predictions.labels == predictions.predictions).mean())
        folders.append(make_run(tmp_path, f"experiment{number:02d}", 0, accuracy))
        write_csv(folders[-1] / "predictions.csv", predictions)
    shown = tmp_path / "shown"
    run_script(
        "scripts.report.compare_runs", "--runs", *folders, "--leaderboard", shown / "leaderboard.csv",
        "--figure", shown / "leaderboard.svg", "--html", shown / "leaderboard.html",
        "--comparisons", shown / "comparisons.csv", "--costs", shown / "costs.csv",
    )  # fmt: skip
    assert sum(path.stat().st_size for path in shown.iterdir()) < 1e6
