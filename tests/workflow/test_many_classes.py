"""Pages and figures of very many classes, and of many runs: a bound in memory, time and bytes for each script."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from config_files import MINE, own_file
from PIL import Image
from report_folder import write_results
from simulated_predictions import simulate, write_csv
from small_runs import make_run
from tiny_run import make_run as make_tiny_run

from scripts.lib.data.label_suspects import NEIGHBOURS, LabelSuspect, write_suspects
from scripts.lib.model.label_probe import FOLDS
from scripts.lib.runs.run_folder import RunFolder

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


def run_script(module: str, *options: str | Path, folder: Path = ROOT, most_seconds: float = SECONDS) -> None:
    """Run a script in *folder* as its rule does, within MEMORY and *most_seconds* of the processor."""
    # By a process of little memory: a child counts what its parent had when it was started.
    command = [sys.executable, "-c", MEASURE, sys.executable, "-m", module, *map(str, options)]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    memory, seconds = map(float, result.stdout.splitlines()[-1].split())
    print(f"{module}: {memory / 1e9:.2f} GB, {seconds:.0f} s")
    assert memory < MEMORY and seconds < most_seconds, module


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


def settings_of(folder: Path, experiments: list[str], seeds: int) -> str:
    """Return a configuration over the data set "simulated", whose archive is in *folder*, as JSON."""
    (folder / "data.zip").touch()
    source = {"path": "data.zip"}
    names = {name: {"base_config": "mobilenet-v2_8xb32_in1k", "checkpoint": "none"} for name in experiments}
    content = {"dataset": {"name": "simulated", "source": source}, "experiments": names, "seeds": list(range(seeds))}
    return json.dumps(content)


@pytest.mark.timeout(1800)
@pytest.mark.long
def test_the_pages_of_data_labels_and_results_of_2000_classes_take_little(tmp_path: Path) -> None:
    dataset, classes = tmp_path / "results" / "simulated", [f"class {number}" for number in range(CLASSES)]
    (run,) = write_results(dataset, classes, {"x": 6.0}, per_class=1, size=56)
    files = [f"c{number}/0.jpg" for number in range(CLASSES)]
    (dataset / "splits").mkdir()
    for split in ("train", "val", "test"):
        lines = "".join(f"{file} {number}\n" for number, file in enumerate(files))
        (dataset / "splits" / f"{split}.txt").write_text(lines)
    near = tuple(files[:NEIGHBOURS])
    suspects = [LabelSuspect(file, classes[n], classes[n - 1], 0.9, 0.1, 0.9, "train", f"{n:064x}", near, near)
                for n, file in enumerate(files)]  # fmt: skip
    write_suspects(dataset / "label_suspects.csv", suspects)
    judged = {"reason": None, "images": CLASSES, "suspects": CLASSES, "odd_ones_out": files, "base_config": "b"}
    pairs = [
        {"first": a, "second": b, "there": 1, "back": 1, "share": 0.5, "are_one": False} for a, b in pairwise(classes)
    ]
    judged |= {"probe_accuracy": 0.6, "classes_not_judged": classes, "pairs": pairs, "is_weak": False}
    judged |= {"two_groups": [], "check": None}
    (dataset / "label_suspects.json").write_text(json.dumps(judged))
    (run / "model.json").write_text(json.dumps({"model": {"backbone": "B"}, "parameters": 1, "multiply_adds": 1,
                                                "input": [3, 224, 224], "checkpoint_bytes": 1}))  # fmt: skip
    common = ["--images", dataset / "images", "--classes", dataset / "classes.txt", "--title", "simulated"]
    run_script(
        "scripts.data.describe_data", "--audit", dataset / "audit.csv", "--summary", dataset / "audit.json",
        "--splits", dataset / "splits", *common, "--output", dataset / "audit.html",
    )  # fmt: skip
    run_script(
        "scripts.data.describe_label_suspects", "--suspects", dataset / "label_suspects.csv",
        "--summary", dataset / "label_suspects.json", *common, "--output", dataset / "label_suspects.html",
    )  # fmt: skip
    run_script(
        "scripts.report.write_model_card", "--run", run, "--model", run / "model.json",
        "--val-predictions", run / "val_predictions.csv", "--audit-summary", dataset / "audit.json",
        "--label-suspects", dataset / "label_suspects.json", "--output", run / "model_card.md",
        "--html", run / "model_card.html",
    )  # fmt: skip
    run_script(
        "scripts.report.write_report", "--settings", settings_of(tmp_path, ["x"], 1), "--dataset", "results/simulated",
        folder=tmp_path,
    )  # fmt: skip
    sizes = {path.name: path.stat().st_size for path in (*dataset.glob("*.html"), *run.glob("*.html"))}
    assert len(sizes) == 4 + (dataset / "leaderboard.html").exists() and max(sizes.values()) < 20e6, sizes


@pytest.mark.timeout(1800)
@pytest.mark.long
def test_grad_cam_and_the_page_to_try_a_model_of_2000_classes_take_little(tmp_path: Path) -> None:
    made = make_tiny_run(tmp_path, per_class=1, classes=[f"class {number}" for number in range(CLASSES)])
    run, split = RunFolder(made.folder), made.split
    model = ["--config", made.folder / "config.py", "--checkpoint", run.best, "--images", made.images]
    of_training = ["--known", run.known, "--certainty", run.certainty]
    split_options = ["--classes", made.classes, "--device", "cpu", "--split", split, split, "--train", split]
    outputs = ["--output", run.predictions, run.val_predictions, "--features", run.features]
    run_script("scripts.evaluate.predict_images", *model, *split_options, *outputs, *of_training)
    run_script(
        "scripts.evaluate.export_model", *model, "--split", split, "--classes", made.classes,
        "--predictions", run.predictions, "--output", run.onnx, "--report", run.export, *of_training,
    )  # fmt: skip
    grad_cam, try_page = tmp_path / "gradcam.html", tmp_path / "try.html"
    run_script(
        "scripts.evaluate.explain_model", *model, "--predictions", run.predictions, "--features", run.features,
        "--output", grad_cam,
    )  # fmt: skip
    assert "<img" in grad_cam.read_text(encoding="utf-8")
    run_script(
        "scripts.report.write_try_page", "--runs", run.path, "--train", split, "--images", made.images,
        "--output", try_page,
    )  # fmt: skip
    assert grad_cam.stat().st_size < 2.5e6 and try_page.stat().st_size < 20e6


@pytest.mark.timeout(1800)
@pytest.mark.long
def test_wrong_labels_are_looked_for_among_2000_classes_in_little_memory_and_time(tmp_path: Path) -> None:
    made = make_tiny_run(tmp_path, per_class=FOLDS, classes=[f"class {number}" for number in range(CLASSES)])
    splits, audit, summary = tmp_path / "splits", tmp_path / "audit.csv", tmp_path / "label_suspects.json"
    splits.mkdir()
    lines = made.split.read_text(encoding="utf-8").splitlines(keepends=True)
    for number, split in enumerate(("train", "val", "test")):
        (splits / f"{split}.txt").write_text("".join(lines[number::3]), encoding="utf-8")
    audit.write_text("file,finding,action,group,detail\n")
    experiment = {
        "base_config": own_file(tmp_path / "base", MINE.replace("0.25", "0.1")),
        "checkpoint": "none",
        "recipe": "tutorial",
        "image_size": 32,
    }
    run_script(
        "scripts.data.find_label_suspects", "--experiment", json.dumps(experiment), "--name", "x",
        "--checkpoint", made.folder / "best.pth", "--images", made.images, "--splits", splits,
        "--classes", made.classes, "--audit", audit, "--output", tmp_path / "suspects.csv", "--summary", summary,
        most_seconds=2 * SECONDS,
    )  # fmt: skip
    judged = json.loads(summary.read_text())
    assert judged["reason"] is None and judged["images"] > 0.9 * FOLDS * CLASSES


@pytest.mark.timeout(1800)
@pytest.mark.long
def test_the_report_of_40_runs_of_200_classes_takes_little(tmp_path: Path) -> None:
    dataset, names = tmp_path / "results" / "simulated", [f"experiment{number:02d}" for number in range(20)]
    strengths = {name: 3.0 + 0.1 * number for number, name in enumerate(names)}
    runs = write_results(dataset, [f"class {number}" for number in range(200)], strengths, seeds=2, per_class=2)
    run_script(
        "scripts.report.write_report", "--settings", settings_of(tmp_path, names, 2), "--dataset", "results/simulated",
        folder=tmp_path,
    )  # fmt: skip
    run_script(
        "scripts.report.describe_crate", "--folder", dataset, "--runs", *runs,
        "--output", dataset / "ro-crate-metadata.json",
    )  # fmt: skip
    sizes = {name: (dataset / name).stat().st_size for name in ("report.html", "ro-crate-metadata.json")}
    assert max(sizes.values()) < 20e6, sizes
