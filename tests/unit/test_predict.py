"""make predict: any folder of photographs through a finished run, the broken ones skipped, nothing overwritten."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_run import CLASSES, TinyRun, make_run, photograph

from scripts import predict
from scripts.console import UserError
from scripts.evaluate import predict_images
from scripts.evaluate.predictions import read_predictions
from scripts.report.annotate import LARGEST, SMALLEST, annotate

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return make_run(tmp_path_factory.mktemp("run"), per_class=1)


def run_predict(run: TinyRun, output: Path, *more: str) -> list[dict[str, str]]:
    options = ["--run", str(run.folder), "--output", str(output), "--workers", "0", "--device", "cpu", *more]
    predict.main(predict.build_parser().parse_args(options))
    with open(output / "predictions.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def drawn(output: Path) -> list[str]:
    return sorted(str(path.relative_to(output / "images")) for path in (output / "images").rglob("*.*"))


def test_predictions_are_those_of_predict_images(run: TinyRun, tmp_path: Path) -> None:
    predict_images.main(predict_images.build_parser().parse_args(run.options(tmp_path / "p.csv")))
    expected = read_predictions(tmp_path / "p.csv")
    rows = run_predict(run, tmp_path / "out", "--images", str(run.images), "--no-draw", "--top", "3")
    by_file = {row["file"]: row for row in rows}
    assert len(rows) == len(expected.files)
    for file, label, probabilities in zip(expected.files, expected.predictions, expected.probabilities, strict=True):
        row = by_file[str(run.images / file)]
        assert row["prediction"] == row["top1"] == expected.classes[label]
        assert float(row["confidence"]) == pytest.approx(probabilities.max(), abs=1e-5)
        order = np.argsort(-probabilities)[:3]
        assert [row[f"top{rank}"] for rank in (1, 2, 3)] == [expected.classes[place] for place in order]
    assert list(rows[0]) == ["file", "prediction", "confidence", "top1", "probability1", "top2", "probability2", "top3",
                             "probability3"]  # fmt: skip
    assert not (tmp_path / "out" / "images").exists()


def test_sub_folders_are_kept_and_no_two_drawings_collide(run: TinyRun, tmp_path: Path) -> None:
    for number, name in enumerate(["x.jpg", "X.JPG", "x.webp", "a/x.jpg", "b c/x.png", "苹果/$(x).bmp", ".hidden.jpg"]):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph(number).save(path)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    rows = run_predict(run, tmp_path / "out", "--images", str(tmp_path / "in"))
    assert len(rows) == 6
    assert drawn(tmp_path / "out") == sorted(
        ["X.JPG", "x (2).jpg", "x.webp.jpg", "a/x.jpg", "b c/x.png", "苹果/$(x).bmp.jpg"]
    )


@pytest.mark.parametrize("workers", ["0", "2"])
def test_broken_files_are_named_and_skipped(run: TinyRun, tmp_path: Path, caplog: pytest.LogCaptureFixture,
                                            workers: str) -> None:  # fmt: skip
    photograph(1, (300, 200)).save(tmp_path / "good.jpg", quality=95)
    photograph(1, (300, 200)).save(tmp_path / "good.png")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:2000])
    (tmp_path / "half.png").write_bytes((tmp_path / "good.png").read_bytes()[:2000])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.gif").touch()
    (tmp_path / "link.png").symlink_to("nowhere")
    with caplog.at_level("INFO"):
        rows = run_predict(run, tmp_path / "out", "--images", str(tmp_path), "--workers", workers)
    assert [Path(row["file"]).name for row in rows] == ["good.jpg", "good.png"]
    skipped = [record.getMessage() for record in caplog.records if record.getMessage().startswith("skipped")]
    names = [Path(line.removeprefix("skipped ").split(":")[0]).name for line in skipped]
    assert names == ["empty.gif", "half.jpg", "half.png", "link.png", "text.jpg"]
    assert "2 images predicted, 5 skipped" in caplog.text


def test_a_truncated_photograph_is_told_whatever_opencv_makes_of_it(tmp_path: Path) -> None:
    photograph(1, (300, 200)).save(tmp_path / "good.jpg", quality=95)
    predict.check_whole(tmp_path / "good.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:-1000])
    with pytest.raises(OSError, match="truncated"):
        predict.check_whole(tmp_path / "half.jpg")


def test_nothing_but_broken_files_is_a_failure_and_leaves_no_table(run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.jpg").write_text("no image")
    with pytest.raises(UserError, match="none of the 1 files"):
        run_predict(run, tmp_path / "out", "--images", str(tmp_path / "in"))
    assert not (tmp_path / "out" / "predictions.csv").exists()


def test_a_file_a_folder_and_a_pattern_are_sources(tmp_path: Path) -> None:
    for name in ["a/1.jpg", "a/b/2.png", "c/3.jpg", "4.jpg", "[5].jpg", "6.strange"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def names(*sources: str) -> list[str]:
        found = predict.find_images([str(tmp_path / source) for source in sources], tmp_path / "out")
        return [photo.name for photo in found]

    assert names("a") == ["1.jpg", "b/2.png"]
    assert names("4.jpg") == ["4.jpg"] and names("[5].jpg") == ["[5].jpg"]
    assert names("6.strange") == ["6.strange.jpg"], "a file that is named is taken whatever its suffix"
    assert names("*/*.jpg") == ["a/1.jpg", "c/3.jpg"]
    assert names("**/*.png") == ["a/b/2.png"]
    assert names("[ac]") == ["a/1.jpg", "a/b/2.png", "c/3.jpg"]
    assert names("a", "c", "a/1.jpg") == ["1.jpg", "b/2.png", "3.jpg"], "an image given twice is taken once"


def test_sources_without_images_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        predict.find_images([str(tmp_path / "nowhere")], tmp_path / "out")
    for source in (tmp_path, tmp_path / "*.jpg"):
        with pytest.raises(UserError, match="no image in"):
            predict.find_images([str(source)], tmp_path / "out")


def test_earlier_drawings_are_not_predicted_again(run: TinyRun, tmp_path: Path) -> None:
    photograph(1).save(tmp_path / "x.jpg")
    for _ in range(2):
        assert len(run_predict(run, tmp_path / "out", "--images", str(tmp_path))) == 1


def test_inputs_are_never_overwritten(run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    photograph(1).save(tmp_path / "images" / "x.jpg")
    before = (tmp_path / "images" / "x.jpg").read_bytes()
    with pytest.raises(UserError, match="would overwrite an image"):
        run_predict(run, tmp_path, "--images", str(tmp_path / "images" / "x.jpg"))
    with pytest.raises(UserError):
        run_predict(run, tmp_path, "--images", str(tmp_path / "images"))
    assert (tmp_path / "images" / "x.jpg").read_bytes() == before


def test_a_run_that_is_not_there_is_one_line(run: TinyRun, tmp_path: Path) -> None:
    options = ["--images", str(run.images), "--run"]
    for folder, message in ((tmp_path / "none", "no such folder"), (tmp_path, r"has no config\.py")):
        with pytest.raises(UserError, match=message):
            predict.main(predict.build_parser().parse_args([*options, str(folder)]))
    (tmp_path / "config.py").write_bytes((run.folder / "config.py").read_bytes())
    with pytest.raises(UserError, match=r"has no best\.pth"):
        predict.main(predict.build_parser().parse_args([*options, str(tmp_path)]))


def test_names_of_any_bytes_reach_the_table(run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    photograph(1).save(tmp_path / "x.jpg")
    strange = os.fsdecode(b'\xff "quoted", $(x)\n<b>.jpg')
    (tmp_path / "x.jpg").rename(tmp_path / "in" / strange)
    rows = run_predict(run, tmp_path / "out", "--images", str(tmp_path / "in"))
    assert rows[0]["file"].endswith('"quoted", $(x)\n<b>.jpg')
    assert predict.printable(strange) == '\\udcff "quoted", $(x)\\n<b>.jpg'


def test_the_command_as_typed(run: TinyRun, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.predict", "--run", str(run.folder), "--workers", "0", "--images"]
    image = run.images / CLASSES[0] / "a 0.png"
    options = {"cwd": ROOT, "capture_output": True, "text": True, "encoding": "utf-8"}
    done = subprocess.run([*command, str(image), "--output", str(tmp_path)], **options)  # type: ignore
    assert done.returncode == 0, done.stderr
    assert "1 images predicted, 0 skipped" in done.stderr and "\r" not in done.stderr and "Warning" not in done.stderr
    failed = subprocess.run([*command, str(tmp_path / "none.jpg")], **options)  # type: ignore
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("error: --images:") and "Traceback" not in failed.stderr


@pytest.mark.parametrize("size", [(1, 1), (5, 4000), (4000, 5), (640, 480), (3000, 2000)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "1", "I;16"])
def test_drawings_have_a_legible_box_at_any_size(size: tuple[int, int], mode: str) -> None:
    image = annotate(Image.new(mode, size), CLASSES[:5], [0.6, 0.2, 0.1, 0.06, 0.04])
    assert image.mode == "RGB"
    assert SMALLEST <= max(image.size) <= LARGEST
    assert image.width >= 200 and image.height >= 100
    assert image.getextrema()[0][1] > 200, "white text is on it"


def test_drawings_are_upright() -> None:
    image = Image.new("RGB", (600, 400), "white")
    image.getexif()[0x0112] = 6  # turned a quarter
    assert annotate(image, ["a"], [1.0]).size == (400, 600)
