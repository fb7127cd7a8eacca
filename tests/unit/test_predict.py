"""make predict: any folder of photographs through a run or its model.onnx, broken ones skipped, nothing overwritten."""

from __future__ import annotations

import csv
import hashlib
import os
import pty
import socket
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_run import CLASSES, TinyRun, make_run, photograph

from scripts import predict
from scripts.evaluate import export_model, predict_images
from scripts.lib.base.language import speaking
from scripts.lib.base.problems import UserError
from scripts.lib.base.ranges import Range, write_index
from scripts.lib.model import photos
from scripts.lib.pages.photo_predictions import LARGEST, SMALLEST, annotate
from scripts.lib.runs import onnx_model
from scripts.lib.runs.predictions import read_predictions

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return make_run(tmp_path_factory.mktemp("run"), per_class=1)


@pytest.fixture(scope="module")
def onnx(run: TinyRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(run, tmp_path_factory.mktemp("onnx"))


def export(run: TinyRun, folder: Path) -> Path:
    predict_images.main(predict_images.build_parser().parse_args(run.options(folder / "predictions.csv")))
    of_run = run.options(Path("unused"))
    files = {"predictions": "predictions.csv", "output": "model.onnx", "report": "export.json"}
    options = [text for option, file in files.items() for text in (f"--{option}", str(folder / file))]
    export_model.main(export_model.build_parser().parse_args([*of_run[: of_run.index("--output")], *options]))
    return folder / "model.onnx"


def run_predict(model: TinyRun | Path, output: Path, *more: str) -> list[dict[str, str]]:
    source = ["--onnx", str(model)] if isinstance(model, Path) else ["--run", str(model.folder)]
    options = [*source, "--output", str(output), "--workers", "0", "--device", "cpu", *more]
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
        assert [row[f"top{rank}"] for rank in (1, 2, 3)] == [expected.classes[index] for index in order]
    assert list(rows[0]) == ["file", "prediction", "confidence", "top1", "probability1", "top2", "probability2", "top3",
                             "probability3", "drawing", "unsure", "reason"]  # fmt: skip
    assert {row["drawing"] for row in rows} == {""}
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


@pytest.mark.parametrize("images", [1, 12])
def test_the_first_predictions_are_printed(
    run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], images: int
) -> None:
    for number in range(images):
        photograph(number, (60, 40)).save(tmp_path / f"{number:02}.png")
    rows = run_predict(run, tmp_path / "out", "--images", str(tmp_path))
    lines = capsys.readouterr().out.splitlines()
    expected = [f"{row['file']}: {row['prediction']} ({100 * float(row['confidence']):.1f} %)" for row in rows]
    assert lines == expected[:10] + (["and 2 more"] if images > 10 else [])


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
    assert sorted(names) == ["empty.gif", "half.jpg", "half.png", "link.png", "text.jpg"]
    assert "2 images predicted, 5 skipped" in caplog.text


def test_every_file_is_predicted_skipped_or_ignored_and_counted(
    run: TinyRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    kinds = {"a.jfif": "JPEG", "b.jpe": "JPEG", "c.avif": "AVIF", "d.jp2": "JPEG2000", "e": "PNG", "f.JPG": "GIF"}
    for name, kind in kinds.items():
        photograph(1, (60, 60)).save(folder / name, kind)
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    for name, content in {
        "g.heic": heic,
        "h.jpg": heic,
        "i.dng": b"II*\0aaaa",
        "j.txt": b"text",
        "k.csv": b"a,b",
        "Thumbs.db": b"\xd0\xcf\x11\xe0",
        "._a.jfif": b"\0\x05\x16\x07",
    }.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "l.jpg")
    (folder / "m.jpg").symlink_to("nowhere")
    (folder / "n.jpg").symlink_to("n.jpg")
    (folder / "o.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(folder)  # the name of a socket has 107 bytes at most
        listening.bind("p.jpg")
        os.chdir(ROOT)
        with caplog.at_level("INFO"):
            rows = run_predict(run, tmp_path / "out", "--images", str(folder), "--workers", "0", "--no-draw")
    assert [Path(row["file"]).name for row in rows] == list(kinds)
    assert "6 images predicted, 7 skipped" in caplog.text and "4 other files ignored" in caplog.text
    links = {"m.jpg": "a link to nothing", "n.jpg": "a link to nothing"}
    special = {"l.jpg": "a pipe, not a file", "p.jpg": "a socket, not a file"} | links
    for name, why in ({"g.heic": "HEIC", "h.jpg": "HEIC", "i.dng": "camera raw"} | special).items():
        assert f"{name}: {why}" in caplog.text
    assert "1 HEIC, which mimflow does not read: convert to JPEG (magick mogrify" in caplog.records[-1].getMessage()


@pytest.mark.parametrize("source", ["pipe.jpg", "*.jpg"])
def test_a_pipe_that_is_named_is_not_waited_for(source: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    listed = photos.find_images([str(tmp_path / source)], tmp_path / "out")
    with pytest.raises(OSError, match="a pipe, not a file"):
        photos.check_whole(listed[0].path)


def test_a_truncated_photograph_is_told_whatever_opencv_makes_of_it(tmp_path: Path) -> None:
    photograph(1, (300, 200)).save(tmp_path / "good.jpg", quality=95)
    photos.check_whole(tmp_path / "good.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:-1000])
    with pytest.raises(OSError, match="truncated"):
        photos.check_whole(tmp_path / "half.jpg")


def test_nothing_but_broken_files_is_a_failure_and_leaves_no_table(run: TinyRun, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.jpg").write_text("no image")
    with pytest.raises(UserError, match="none of 1 file is an image"):
        run_predict(run, tmp_path / "out", "--images", str(tmp_path / "in"))
    assert not (tmp_path / "out" / "predictions.csv").exists()


def test_a_file_a_folder_and_a_pattern_are_sources(tmp_path: Path) -> None:
    for name in ["a/1.jpg", "a/b/2.png", "c/3.jpg", "4.jpg", "[5].jpg", "6.strange"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def names(*sources: str) -> list[str]:
        images = photos.find_images([str(tmp_path / source) for source in sources], tmp_path / "out")
        return [photo.name for photo in images]

    assert names("a") == ["1.jpg", "b/2.png"]
    assert names("4.jpg") == ["4.jpg"] and names("[5].jpg") == ["[5].jpg"]
    assert names("6.strange") == ["6.strange.jpg"], "a file that is named is taken whatever its suffix"
    assert names("*/*.jpg") == ["a/1.jpg", "c/3.jpg"]
    assert names("**/*.png") == ["a/b/2.png"]
    assert names("[ac]") == ["a/1.jpg", "a/b/2.png", "c/3.jpg"]
    assert names("a", "c", "a/1.jpg") == ["1.jpg", "b/2.png", "3.jpg"], "an image given twice is taken once"


def test_sources_without_images_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        photos.find_images([str(tmp_path / "nowhere")], tmp_path / "out")
    for source in (tmp_path, tmp_path / "*.jpg"):
        with pytest.raises(UserError, match="no image that can be read in"):
            photos.find_images([str(source)], tmp_path / "out")


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
    assert photos.printable(strange) == '\\udcff "quoted", $(x)\\n<b>.jpg'


@pytest.mark.long
def test_the_command_as_typed(run: TinyRun, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.predict", "--run", str(run.folder), "--workers", "0", "--images"]
    image = run.images / CLASSES[0] / "a 0.png"
    options = {"cwd": ROOT, "capture_output": True, "text": True, "encoding": "utf-8"}
    done = subprocess.run([*command, str(image), "--output", str(tmp_path)], **options)  # type: ignore
    assert done.returncode == 0, done.stderr
    assert "1 image predicted, 0 skipped" in done.stderr and "\r" not in done.stderr and "Warning" not in done.stderr
    failed = subprocess.run([*command, str(tmp_path / "none.jpg")], **options)  # type: ignore
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("error: --images:") and "Traceback" not in failed.stderr


@pytest.mark.long
def test_the_onnx_file_predicts_what_the_checkpoint_does(run: TinyRun, onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for number, name in enumerate(["a.jpg", "b.png", "deep/c.webp", "d.gif"]):
        photograph(number, (300 - 40 * number, 200)).save(tmp_path / "in" / name)
    turned = Image.Exif()
    turned[0x0112] = 8
    photograph(9, (200, 120)).save(tmp_path / "in" / "turned.jpg", exif=turned)
    (tmp_path / "in" / "broken.jpg").write_bytes((tmp_path / "in" / "a.jpg").read_bytes()[:900])
    images = ["--images", str(tmp_path / "in"), "--top", "7", "--batch-size", "2"]
    expected = run_predict(run, tmp_path / "run", *images)
    for workers in ("0", "3"):
        rows = run_predict(onnx, tmp_path / "onnx", *images, "--workers", workers)
        assert [row["file"] for row in rows] == [row["file"] for row in expected] and len(rows) == 5
        for row, other in zip(rows, expected, strict=True):
            assert row["prediction"] == other["prediction"]
            got = {row[f"top{rank}"]: float(row[f"probability{rank}"]) for rank in range(1, 8)}
            wanted = {other[f"top{rank}"]: float(other[f"probability{rank}"]) for rank in range(1, 8)}
            assert got == pytest.approx(wanted, abs=1e-4)
        assert (
            drawn(tmp_path / "onnx")
            == drawn(tmp_path / "run")
            == sorted(["a.jpg", "b.png", "d.gif.jpg", "turned.jpg", "deep/c.webp.jpg"])
        )


def test_images_in_tar_shards_are_predicted_as_files_are(onnx: Path, tmp_path: Path) -> None:
    shard, images = tmp_path / "a.tar", []
    with open(shard, "wb") as file:
        for number, name in enumerate(["梨/a.png", "b.png"]):
            (tmp_path / "files" / name).parent.mkdir(parents=True, exist_ok=True)
            photograph(number).save(tmp_path / "files" / name)
            content = (tmp_path / "files" / name).read_bytes()
            images.append(Range(name, str(shard), file.tell(), len(content), hashlib.sha256(content).hexdigest()))
            file.write(content)
    (tmp_path / "shards").mkdir()
    write_index(tmp_path / "shards", images)
    rows = [
        run_predict(onnx, tmp_path / f"of {kind}", "--images", str(tmp_path / kind)) for kind in ("files", "shards")
    ]
    for row in (row for each in rows for row in each):
        row["file"] = row["file"].rpartition("/")[2]
        row["drawing"] = row["drawing"].rpartition("/")[2]
    assert sorted(map(str, rows[0])) == sorted(map(str, rows[1])) and len(rows[0]) == 2
    assert drawn(tmp_path / "of files") == drawn(tmp_path / "of shards")
    for name in ("梨", "梨/a.png"):  # a folder in the shards, and an image of it
        (row,) = run_predict(onnx, tmp_path / "of a part", "--images", str(tmp_path / "shards" / name))
        assert row["file"] == str(tmp_path / "shards/梨/a.png")
    with pytest.raises(UserError, match=r"shards/b: no such file or folder"):
        run_predict(onnx, tmp_path / "of nothing", "--images", str(tmp_path / "shards" / "b"))


def test_the_onnx_file_needs_neither_torch_nor_mmcls(run: TinyRun, onnx: Path, tmp_path: Path) -> None:
    without = "import sys; sys.modules.update(dict.fromkeys(['torch', 'mmcls', 'mmcv', 'onnx'])); "
    program = without + "from scripts import predict; predict.run_cli(predict.build_parser, predict.main)"
    command = [
        sys.executable,
        "-c",
        program,
        "--onnx",
        str(onnx),
        "--images",
        str(run.images),
        "--output",
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    assert f"predicting 7 images with {onnx} on cpu" in done.stderr and "7 images predicted, 0 skipped" in done.stderr
    assert len(drawn(tmp_path)) == 7


def test_broken_files_are_named_and_skipped_with_onnx_too(
    onnx: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    photograph(1, (300, 200)).save(tmp_path / "good.jpg", quality=95)
    (tmp_path / "half.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:2000])
    (tmp_path / "link.png").symlink_to("nowhere")
    (tmp_path / "text.jpg").write_text("no image")
    with caplog.at_level("INFO"):
        rows = run_predict(onnx, tmp_path / "out", "--images", str(tmp_path))
    assert [Path(row["file"]).name for row in rows] == ["good.jpg"]
    skipped = [record.getMessage() for record in caplog.records if record.getMessage().startswith("skipped")]
    assert [Path(line.split(":")[0]).name for line in skipped] == ["link.png", "half.jpg", "text.jpg"]
    assert "truncated" in skipped[1], "told by pillow: OpenCV 4 fills the rest with grey"
    assert "1 image predicted, 3 skipped" in caplog.text


def test_images_are_read_one_batch_ahead_and_no_further(run: TinyRun, onnx: Path) -> None:
    started: list[Path] = []
    paths = [run.images / CLASSES[0] / "a 0.png"] * 40
    outputs = onnx_model.predict_files(onnx_model.OnnxModel(onnx, threads=1), paths, 4, 2, started.append)
    for number, output in enumerate(outputs, 1):
        time.sleep(0.02)
        assert len(output.indices) == 4 and len(started) <= 4 * (number + 1)
    assert number == 10 and len(started) == 40


def test_files_that_are_no_model_of_ours_are_one_line(run: TinyRun, onnx: Path, tmp_path: Path) -> None:
    images = ["--images", str(run.images)]
    with pytest.raises(UserError, match="no such file"):
        run_predict(tmp_path / "none.onnx", tmp_path / "out", *images)

    for content, what in {
        b"no model": "it is a text",
        b"version https://git-lfs.github.com/spec/v1\n": "it is a Git LFS pointer, not the file itself",
        b"\x89HDF\r\n\x1a\n": "it is an HDF5 file",
        onnx.read_bytes()[:5000]: r"\[ONNXRuntimeError\]",
    }.items():
        (tmp_path / "text.onnx").write_bytes(content)
        message = f"text.onnx: onnxruntime cannot open it: {what}.*: give the model.onnx of a finished run, whole"
        with pytest.raises(UserError, match=message):
            run_predict(tmp_path / "text.onnx", tmp_path / "out", *images)
    with pytest.raises(UserError, match="--device cuda"):
        run_predict(onnx, tmp_path / "out", *images, "--device", "cuda")
    foreign = tmp_path / "foreign.onnx"
    foreign.write_bytes(onnx.read_bytes().replace(b"channel_order", b"channel_other"))
    with pytest.raises(UserError, match="does not say how to prepare images"):
        run_predict(foreign, tmp_path / "out", *images)
    with pytest.raises(SystemExit):
        predict.build_parser().parse_args(["--onnx", "a", "--run", "b", *images])


def test_the_folder_is_named_after_the_run_or_the_model(tmp_path: Path) -> None:
    folder = tmp_path / "demo" / "net" / "seed0"
    folder.mkdir(parents=True)
    named = Path("predictions", "demo", "net", "seed0")
    assert predict.default_output(folder / "model.onnx") == Path("predictions", "model")
    (folder / "config.py").touch()
    assert predict.default_output(folder / "model.onnx") == predict.default_output(folder) == named
    (folder / "fold1").mkdir()
    (folder / "fold1" / "config.py").touch()
    assert predict.default_output(folder / "fold1") == named / "fold1"


def test_drawings_of_an_earlier_run_go_and_other_files_stay(
    run: TinyRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("old.jpg", "both.jpg", "deep/er/old.jpg", os.fsdecode(b"\xff\xfe.jpg")):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        photograph(1).save(tmp_path / "x.jpg")
        (tmp_path / "x.jpg").rename(tmp_path / "in" / name)
    output = tmp_path / "out"
    run_predict(run, output, "--images", str(tmp_path / "in"))
    assert len(drawn(output)) == 4 and "replaced" not in caplog.text
    (output / "images" / "notes.txt").write_text("of the user")
    photograph(2).save(output / "images" / "photo.jpg")
    both = ["--images", str(tmp_path / "in" / "both.jpg")]
    rows = run_predict(run, output, *both)
    assert [row["drawing"] for row in rows] == ["images/both.jpg"]
    assert f"{output}: replaced those of 4 images; to keep both, give one another folder: ARGS='--output" in caplog.text
    assert drawn(output) == ["both.jpg", "notes.txt", "photo.jpg"]
    assert not (output / "images" / "deep").exists()
    run_predict(run, output, *both, "--no-draw")
    assert drawn(output) == ["notes.txt", "photo.jpg"] and "replaced those of 1 image; to" in caplog.text


def test_what_an_earlier_table_names_is_removed_below_the_drawings_only(run: TinyRun, tmp_path: Path) -> None:
    photograph(1).save(tmp_path / "x.jpg")
    output = tmp_path / "out"
    (output / "images").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    kept = [tmp_path / "precious.jpg", output / "beside.jpg", tmp_path / "elsewhere" / "linked.jpg"]
    for path in kept:
        path.write_bytes(b"kept")
    (output / "images" / "link").symlink_to(tmp_path / "elsewhere")
    (output / "images" / "own.jpg").write_bytes(b"of no table of ours")
    header = ["file", "prediction", "confidence", "top1", "probability1"]
    names = ["../precious.jpg", "beside.jpg", str(kept[0]), "images/../beside.jpg", "images/link/linked.jpg"]
    images = ["--images", str(tmp_path / "x.jpg")]
    for head, drawings in (([*header, "drawing"], names), ([*header, "sketch"], ["images/own.jpg"])):
        with open(output / "predictions.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([head, *([*(["1"] * 5), name] for name in drawings)])
        run_predict(run, output, *images)
        assert all(path.read_bytes() == b"kept" for path in kept)
        assert (output / "images" / "own.jpg").exists()


def test_an_earlier_drawing_that_is_predicted_itself_stays(run: TinyRun, tmp_path: Path) -> None:
    photograph(1).save(tmp_path / "x.jpg")
    run_predict(run, tmp_path / "out", "--images", str(tmp_path / "x.jpg"))
    run_predict(run, tmp_path / "out", "--images", str(tmp_path / "out" / "images" / "x.jpg"), "--no-draw")
    assert drawn(tmp_path / "out") == ["x.jpg"]


def test_nothing_is_removed_where_nothing_was_predicted(run: TinyRun, tmp_path: Path) -> None:
    photograph(1).save(tmp_path / "x.jpg")
    (tmp_path / "broken.jpg").write_text("no image")
    run_predict(run, tmp_path / "out", "--images", str(tmp_path / "x.jpg"))
    with pytest.raises(UserError, match="nothing was predicted"):
        run_predict(run, tmp_path / "out", "--images", str(tmp_path / "broken.jpg"))
    assert drawn(tmp_path / "out") == ["x.jpg"]


def peak_megabytes(*options: str) -> float:
    """Run predict as a process of its own, and return the most memory that it held."""
    program = """
import re
from scripts import predict
try:
    predict.run_cli(predict.build_parser, predict.main)
finally:  # not ru_maxrss, which counts the memory of the process that started this one, too
    print(int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) / 1000)
"""
    command = [sys.executable, "-c", program, *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.splitlines()[-1])


@pytest.mark.long
@pytest.mark.parametrize("kind", ["checkpoint", "onnx"])
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_number_of_images(kind: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", per_class=1)
    config = (run.folder / "config.py").read_text(encoding="utf-8")
    # 786 kB an image as the model gets it, so that images that are kept would be seen.
    config = config.replace("(40, -1)", "(256, -1)").replace("'crop_size': 32", "'crop_size': 256")
    (run.folder / "config.py").write_text(config, encoding="utf-8")
    source = ["--run", str(run.folder)] if kind == "checkpoint" else ["--onnx", str(export(run, tmp_path / "run"))]
    photograph(1, (320, 240)).save(tmp_path / "first.jpg")
    peaks = []
    for count in (64, 320):
        (tmp_path / str(count)).mkdir()
        for number in range(count):
            os.link(tmp_path / "first.jpg", tmp_path / str(count) / f"{number:04}.jpg")
        options = ["--output", str(tmp_path / "out"), "--batch-size", "4", "--no-draw"]
        peaks.append(peak_megabytes(*source, "--images", str(tmp_path / str(count)), *options))
        assert len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == count + 1
    # 201 MB more, were images kept. Tens of MB are where malloc happened to put a small block between large ones.
    assert peaks[1] - peaks[0] < 100, "256 images more, each of 0.8 MB for the model"


def test_a_terminal_gets_a_progress_bar(onnx: Path, run: TinyRun, tmp_path: Path) -> None:
    controller, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    command = [sys.executable, "-m", "scripts.predict", "--onnx", str(onnx), "--images", str(run.images)]
    process = subprocess.Popen([*command, "--output", str(tmp_path), "--batch-size", "2"], cwd=ROOT, stderr=terminal)
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(controller, 4096):
            shown += chunk
    except OSError:  # how Linux says that the other end was closed
        pass
    os.close(controller)
    assert process.wait() == 0
    assert b"\r" in shown and b"7/7" in shown and b"images/s" in shown


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


@pytest.mark.parametrize(
    ("language", "line"),
    [
        ("en", "a; b/x: 1.jpg: `x`; &, (9 %) (21.0 %), unsure: low confidence"),
        ("zh", "a; b/x: 1.jpg：`x`; &, (9 %)（21.0 %），没有把握：置信度低"),
    ],
)
def test_names_stay_as_they_are_in_each_language(language: str, line: str) -> None:
    row = {"file": "a; b/x: 1.jpg", "prediction": "`x`; &, (9 %)", "confidence": "0.21", "reason": "low confidence"}
    with speaking(language):
        assert predict.shown(row) == line
