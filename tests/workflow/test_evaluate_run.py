"""`make evaluate`: a finished run on other labelled images, and what it says of those that it cannot judge."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from dag import HOSTILE_CLASSES, Finished, photograph

from scripts.lib.data.splits import Split
from scripts.lib.runs.predictions import read_predictions


def evaluate(folder: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    run = ["--run", folder / "results/small/quick/seed0"] if "--run" not in words else []
    command = [sys.executable, "-m", "scripts.evaluate_run", *run, *words]
    return subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, timeout=300)


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as content:
        for name, data in files.items():
            content.writestr(name, data)
    return path


@pytest.fixture(scope="module")
def run(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished run's folder: nothing is written into the one that other tests look at."""
    folder = tmp_path_factory.mktemp("evaluate") / "project"
    shutil.copytree(finished[0], folder, symlinks=True)
    return folder


@pytest.mark.long
def test_other_images_are_judged_and_what_cannot_be_is_said(run: Path, tmp_path: Path) -> None:
    before = {
        path: path.read_bytes() for path in (run / "results").rglob("*") if path.is_file() and ".made" not in path.parts
    }
    known = [name for name in (run / "results/small/classes.txt").read_text(encoding="utf-8").splitlines()]
    trained = Split.read(run / "results/small/splits/train.txt").images[0]
    label = known.index(trained.split("/")[0])
    files = {
        f"new/{name}/{index}.jpg": photograph(number, 100 + index)
        for number, name in enumerate(known[:-1]) for index in range(4)
    }  # fmt: skip
    files |= {f"new/durian/{index}.jpg": photograph(9, index) for index in range(3)}
    files |= {f"new/{known[0]}/broken.jpg": b"\xff\xd8\xff\xe0 cut off", "new/notes.txt": b"seen in May"}
    files |= {f"new/{known[label]}/seen.jpg": (run / "results/small/images" / trained).read_bytes()}
    done = evaluate(run, "--data", archive(tmp_path / "new photos.tar.zip", files))
    assert done.returncode == 0, done.stderr
    output = run / "evaluations/small/quick/seed0/new-photos"
    result = json.loads((output / "evaluation.json").read_text(encoding="utf-8"))
    images = 4 * (len(known) - 1) + 1
    assert result["images"] == images and result["unknown_classes"] == {"durian": 3}
    assert list(result["unread"]) == [f"images/{known[0]}/broken.jpg"]
    assert result["missing_classes"] == ([known[-1]] if label != len(known) - 1 else [])
    assert result["copies_of_training_images"] == 1
    rows = list(csv.DictReader((output / "predictions.csv").read_text(encoding="utf-8").splitlines()))
    metrics = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    right = sum(row["label"] == row["prediction"] for row in rows)
    assert len(rows) == images and metrics["accuracy_top1"] == result["accuracy"] == right / images
    of_run = json.loads((run / "results/small/quick/seed0/metrics.json").read_text(encoding="utf-8"))
    assert result["reference"] == of_run["accuracy_top1"]
    assert 0 <= metrics["unsure"]["sure_share"] <= 1 and metrics["unsure"]["val_images"] > 0
    page = (output / "evaluation.html").read_text(encoding="utf-8")
    for words in ("left out 3 images of classes that the run does not know: durian", "left out 1 image that cannot be",
                  "training images of the run"):  # fmt: skip
        assert words in done.stderr and words in page
    for file in ("confusion_matrix.svg", "errors.html", "embedding.html", "reliability.svg"):
        assert (output / "figures" / file).stat().st_size > 1000 and f"figures/{file}" in page
    assert {path: path.read_bytes() for path in before} == before, "the run stays as it is"


@pytest.mark.long
def test_the_run_s_own_test_images_give_its_own_numbers_and_lie_near(run: Path, tmp_path: Path) -> None:
    images = run / "results/small/images"
    data = tmp_path / "same"
    for name in Split.read(run / "results/small/splits/test.txt").images:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(images / name, data / name)
    done = evaluate(run, "--data", data, "--output", tmp_path / "out", "--language", "zh")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out/evaluation.json").read_text(encoding="utf-8"))
    assert result["difference"] == 0 and result["same_mix"] == pytest.approx(result["reference"])
    assert result["far_share"] in (None, 0.0) and result["copies_of_training_images"] == 0
    assert "在该运行自己的测试图像上的准确率" in (tmp_path / "out/evaluation.html").read_text(encoding="utf-8")
    of_run = read_predictions(run / "results/small/quick/seed0/predictions.csv")
    again = read_predictions(tmp_path / "out/predictions.csv")
    order = [again.files.index(f"images/{file}") for file in of_run.files]
    np.testing.assert_array_equal(again.predictions[order], of_run.predictions)
    # In another order: the sums of a batch are then those of other images, and differ in their last bits.
    np.testing.assert_allclose(again.probabilities[order], of_run.probabilities, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("where", ["beside the images", "elsewhere"])
def test_labels_come_from_a_table_and_a_folder_is_not_copied(run: Path, tmp_path: Path, where: str) -> None:
    known = (run / "results/small/classes.txt").read_text(encoding="utf-8").splitlines()
    chinese = known.index(HOSTILE_CLASSES[3])
    folder = tmp_path / "新照片"
    (folder / "五月").mkdir(parents=True)
    rows = ["文件名\t标签"]
    for index in range(4):
        for label in (chinese, 0):
            (folder / "五月" / f"照片 {label} {index}.jpg").write_bytes(photograph(label, 200 + index))
            rows.append(f"五月/照片 {label} {index}.jpg\t{known[label]}")
    (folder / "五月" / "榴莲.jpg").write_bytes(photograph(7, 7))
    (folder / "没有标签.jpg").write_bytes(photograph(8, 8))
    rows.append("五月/榴莲.jpg\t榴莲")
    table = (folder if where == "beside the images" else tmp_path) / "标签.tsv"
    table.write_text("\n".join(rows), encoding="utf-8")
    labels = "标签.tsv" if where == "beside the images" else table
    output = tmp_path / "out"
    done = evaluate(run, "--data", folder, "--labels", labels, "--output", output)
    assert done.returncode == 0, done.stderr
    result = json.loads((output / "evaluation.json").read_text(encoding="utf-8"))
    assert result["images"] == 8 and result["unknown_classes"] == {"榴莲": 1}
    told = [row["label"] for row in csv.DictReader((output / "predictions.csv").open(encoding="utf-8", newline=""))]
    assert sorted(told) == sorted([known[chinese]] * 4 + [known[0]] * 4)
    assert "没有标签.jpg" in done.stderr, "an image without a label is said"
    links = [path for path in (output / "images").rglob("*.jpg")]
    assert links and all(path.is_symlink() and path.resolve().is_relative_to(folder) for path in links)
    assert not (output / "archive").exists() and not (output / "archive.jsonl").exists()
    again = evaluate(run, "--data", folder, "--labels", labels, "--output", output)
    assert again.returncode == 0, again.stderr
    assert len(list(folder.rglob("*.jpg"))) == 10, "the folder is as it was"


@pytest.mark.long
def test_a_mistake_is_one_line(run: Path, tmp_path: Path) -> None:
    strangers = archive(
        tmp_path / "x.zip", {f"{name}/{n}.jpg": photograph(1, n) for name in ("a", "b") for n in (1, 2)}
    )
    broken = {f"{HOSTILE_CLASSES[3]}/1.jpg": b"\xff\xd8\xff\xe0", "a/1.jpg": photograph(1, 1)}
    (wrong := tmp_path / "wrong.csv").write_text("file,label\nz/9.jpg,a\n")
    for words, message in (
        (["--data", tmp_path / "none.zip"], "none.zip"),
        (["--data", strangers], "none of its classes (a, b) is one of the run's"),
        (["--data", archive(tmp_path / "b.zip", broken)], "no image of the run's classes can be read"),
        (["--data", strangers, "--output", run / "results/small/quick/seed0/x"], "lies in the run"),
        (["--run", run / "results/small", "--data", strangers], "has no config.py"),
        (["--data", strangers, "--labels", "none.csv"], "none.csv"),
        (["--data", strangers, "--labels", wrong], "wrong.csv"),
    ):
        done = evaluate(run, *words)
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert done.returncode == 1 and len(errors) == 1 and message in errors[0], done.stderr
        assert "Traceback" not in done.stderr
