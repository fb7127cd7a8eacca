"""Predictions that are unsure: marked alike by the run, by its model.onnx and by onnx_example.py, and told."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from chinese import english_on
from PIL import Image
from tiny_run import TinyRun, make_run

from scripts import predict
from scripts.evaluate import evaluate_model, export_model, predict_images
from scripts.lib.base.problems import UserError
from scripts.lib.runs.certainty import FAR, NOT_CONFIDENT, Certainty, distances, read_certainty, read_known
from scripts.lib.runs.onnx_model import OnnxModel
from scripts.lib.runs.predictions import read_features, read_predictions
from scripts.lib.runs.run_folder import RunFolder


@dataclass(frozen=True)
class Sure:
    """A run with thresholds."""

    run: TinyRun
    files: RunFolder
    new: Path  # a folder of images: like those of the run, and noise

    @property
    def certainty(self) -> Certainty:
        return read_certainty(self.files.certainty)


@pytest.fixture(scope="module")
def sure(tmp_path_factory: pytest.TempPathFactory) -> Sure:
    root = tmp_path_factory.mktemp("sure")
    run = make_run(root, per_class=6)
    files = RunFolder(run.folder)
    lines = run.split.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):  # of one kind, so that noise is of another
        rows = np.linspace(40 + number, 200, 48)[:, None, None] + np.array([20, 0, -20 - number % 6])
        Image.fromarray(np.broadcast_to(rows, (48, 60, 3)).astype(np.uint8)).save(run.images / line.rpartition(" ")[0])
    for name, numbers in {"train": "01", "val": "234", "test": "5"}.items():
        chosen = [line for line in lines if line.rpartition(" ")[0].removesuffix(".png")[-1] in numbers]
        (root / f"{name}.txt").write_text("".join(f"{line}\n" for line in chosen), encoding="utf-8")
    predict_splits(run, files, root)
    export(run, files, root)
    new = root / "new"
    new.mkdir()
    for number in range(3):
        image = Image.open(run.images / lines[number].rpartition(" ")[0])
        image.save(new / f"like {number}.png")
        noise = np.random.default_rng(number).integers(0, 256, (50, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(new / f"噪声 {number}.png")
    return Sure(run, files, new)


def predict_splits(run: TinyRun, files: RunFolder, splits: Path) -> None:
    words = run.options(Path("unused"))
    words = words[: words.index("--split")] + words[words.index("--classes") : words.index("--output")]
    words += ["--split", str(splits / "test.txt"), str(splits / "val.txt"), "--device", "cpu", "--threads", "1"]
    words += ["--output", str(files.predictions), str(files.val_predictions), "--features", str(files.features)]
    words += ["--train", str(splits / "train.txt"), "--known", str(files.known), "--certainty", str(files.certainty)]
    predict_images.main(predict_images.build_parser().parse_args(words))


def export(run: TinyRun, files: RunFolder, splits: Path) -> None:
    words = run.options(Path("unused"))
    words = words[: words.index("--split")] + words[words.index("--classes") : words.index("--output")]
    words += ["--split", str(splits / "test.txt"), "--predictions", str(files.predictions), "--known", str(files.known)]
    words += ["--certainty", str(files.certainty), "--output", str(files.onnx), "--report", str(files.export)]
    words += ["--example", str(files.onnx_example), "--threads", "1"]
    export_model.main(export_model.build_parser().parse_args(words))


def run_predict(source: Path, images: Path, output: Path, *more: str) -> list[dict[str, str]]:
    kind = "--onnx" if source.suffix else "--run"
    options = [kind, str(source), "--images", str(images), "--output", str(output), "--workers", "0", *more]
    predict.main(predict.build_parser().parse_args(options))
    with open(output / "predictions.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_split_s_distances_are_those_of_its_features(sure: Sure) -> None:
    known, features = read_known(sure.files.known), read_features(sure.files.features, 7)
    assert known.shape == (14, 1280) and known.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(known.astype(np.float64), axis=1), 1, atol=1e-3)
    certainty = sure.certainty
    assert (certainty.val_images, certainty.known_images) == (21, 14) and certainty.far is not None
    model, test = OnnxModel(sure.files.onnx, threads=1), read_predictions(sure.files.predictions)
    images = np.stack([model.prepare((sure.run.images / file).read_bytes()) for file in test.files])
    probabilities, of_graph = model.answer(images)
    np.testing.assert_allclose(probabilities, test.probabilities, atol=1e-4)
    np.testing.assert_allclose(of_graph, distances(features, known), atol=1e-4)
    assert np.ptp(of_graph) > 1e-3, "the images of this test must lie at several distances"
    assert model.certainty == certainty
    assert model.predict(images).shape == (7, 7), "the probabilities alone are still the first output"


@pytest.mark.parametrize("accuracy", [None, "0.01"])
def test_the_run_its_onnx_file_and_the_example_mark_the_same(sure: Sure, tmp_path: Path, accuracy: str | None) -> None:
    more = ["--min-accuracy", accuracy] if accuracy else []
    rows = run_predict(sure.files.path, sure.new, tmp_path / "run", "--device", "cpu", *more)
    of_onnx = run_predict(sure.files.onnx, sure.new, tmp_path / "onnx", *more)
    marks = {Path(row["file"]).name: row["reason"] for row in rows}
    assert marks == {Path(row["file"]).name: row["reason"] for row in of_onnx}
    for name, reason in marks.items():
        assert (FAR in reason) == name.startswith("噪声"), marks
        done = subprocess.run(
            [sys.executable, sure.files.onnx_example, sure.files.onnx, sure.new / name, *(more[1:])],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        told = [line for line in done.stdout.splitlines() if line.startswith("unsure: ")]
        assert [(NOT_CONFIDENT in told[0]) if told else False, any(FAR in line for line in told)] == [
            NOT_CONFIDENT in reason, FAR in reason
        ]  # fmt: skip
    # Weights drawn at random are right too rarely for 95 %, and often enough for 1 %.
    assert all((NOT_CONFIDENT in reason) == (accuracy is None) for reason in marks.values())
    assert {row["unsure"] for row in rows if row["reason"]} == {"yes"}
    assert {row["unsure"] for row in rows if not row["reason"]} <= {"no"}


def test_the_terminal_says_how_many_and_why_and_what_could_be_reached(
    sure: Sure, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level("INFO"):
        run_predict(sure.files.onnx, sure.new, tmp_path, "--min-accuracy", "0.01")
    assert "3 unsure of 6 predictions; 3 unlike the training images" in caplog.text
    printed = capsys.readouterr().out.splitlines()
    assert [", unsure: unlike the training images" in line for line in printed] == ["噪声" in line for line in printed]
    caplog.clear()
    with caplog.at_level("INFO"):
        run_predict(sure.files.onnx, sure.new, tmp_path, "--no-draw")
    best = sure.certainty.best
    assert best is not None
    line = "no confidence keeps an accuracy of 95 % on 21 val images, so no prediction is sure; the best is"
    line += f" {100 * best.accuracy:.1f} %"
    assert [line in record.getMessage() for record in caplog.records].count(True) == 1
    assert "6 unsure of 6 predictions; 6 low confidence; 3 unlike" in caplog.text
    assert not (tmp_path / "predictions.html").exists(), "without drawings no page, not even the one of before"


def test_the_page_shows_the_unsure_first_in_both_languages(sure: Sure, tmp_path: Path) -> None:
    for language, words in {"en": ("Unsure: 3 images", "Sure: 3 images"), "zh": (">没有把握：3", ">有把握：3")}.items():
        run_predict(sure.files.onnx, sure.new, tmp_path, "--min-accuracy", "0.01", "--language", language)
        page = (tmp_path / "predictions.html").read_text(encoding="utf-8")
        unsure, others = (page.index(text) for text in words)
        assert unsure < page.index("噪声 0.png") < page.rindex("噪声 2.png") < others < page.index("like 0.png")
        assert page.count('<figure class="wrong">') == 3 and page.count("<figure>") == 3
        assert 'src="images/%E5%99%AA%E5%A3%B0%200.png"' in page
    assert english_on(page) == [] and "与训练图像差异大" in page


def test_a_model_of_before_marks_nothing_and_says_so(
    sure: Sure, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = {path: path.read_bytes() for path in (sure.files.known, sure.files.certainty)}
    sure.files.certainty.unlink()
    try:
        with caplog.at_level("INFO"):
            rows = run_predict(sure.files.path, sure.new, tmp_path, "--device", "cpu")
    finally:
        for path, content in kept.items():
            path.write_bytes(content)
    assert {(row["unsure"], row["reason"]) for row in rows} == {("", "")}
    assert "nothing is marked as unsure" in caplog.text


def test_what_they_do_on_the_test_images_is_in_metrics_json(sure: Sure, tmp_path: Path) -> None:
    words = ["--predictions", sure.files.predictions, "--dataset", "demo", "--experiment", "tiny", "--seed", "0"]
    words += ["--metrics", tmp_path / "metrics.json", "--per-class", tmp_path / "per_class.csv"]
    words += ["--certainty", sure.files.certainty, "--known", sure.files.known, "--features", sure.files.features]
    evaluate_model.main(evaluate_model.build_parser().parse_args(list(map(str, words))))
    told = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))["unsure"]
    assert told["val_images"] == 21 and told["min_accuracy"] == 0.95 and told["coverage"] == 0
    far = distances(read_features(sure.files.features, 7), read_known(sure.files.known)) > (sure.certainty.far or 0)
    assert told["far_share"] == pytest.approx(far.mean())


@pytest.mark.parametrize("text", ["95", "1", "0", "-0.5", "nan", "x"])
def test_an_accuracy_that_is_none_is_one_line(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        predict.build_parser().parse_args(["--run", "x", "--images", "y", f"--min-accuracy={text}"])
    assert "must be a number between 0 and 1, such as 0.95" in capsys.readouterr().err


def test_options_that_belong_together_are_asked_for(sure: Sure, tmp_path: Path) -> None:
    words = sure.run.options(tmp_path / "p.csv")
    with pytest.raises(UserError, match="give all three, or none"):
        predict_images.main(predict_images.build_parser().parse_args([*words, "--train", str(sure.run.split)]))
    with pytest.raises(UserError, match="give both, or none"):
        words = [*words[: words.index("--output")], "--output", "a", "--report", "b", "--predictions", "c"]
        export_model.main(export_model.build_parser().parse_args([*words, "--known", "d"]))
