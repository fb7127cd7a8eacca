"""The audit of whole data sets: every planted defect is found, none is invented, and nothing is checked twice."""

from __future__ import annotations

import csv
import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image
from planted_images import encoded, many_pixels, photograph, turned

from scripts.data.audit_images import build_parser, main
from scripts.lib.base.language import speaking, tr
from scripts.lib.base.problems import UserError
from scripts.lib.data.audit_findings import judge_depth, notes_on_classes
from scripts.lib.data.findings import CONTAMINATED, TRAIN_COPY
from scripts.lib.data.image_checks import Status
from scripts.lib.data.sample.render import encode_jpeg, render_image

ROOT = Path(__file__).resolve().parents[3]
Row = tuple[str, str, str]


def save_files(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def audit(images: Path, *words: str) -> list[dict[str, str]]:
    """Run the command; return the rows of audit.csv."""
    out = images.parent
    files = ["--output", out / "audit.csv", "--summary", out / "audit.json", "--cache", out / "audit.cache"]
    main(build_parser().parse_args(["--images", str(images), *map(str, files), "--threads", "2", *words]))
    with open(out / "audit.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def triples(rows: list[dict[str, str]]) -> list[Row]:
    return [(row["file"], row["finding"], row["action"]) for row in rows]


def clean(folder: Path, splits: tuple[str, ...] = ("",), per_class: int = 6) -> Path:
    """Make a data set without defects."""
    files = {}
    for label in ("apple", "pear"):
        for split in splits:
            for number in range(per_class):
                path = "/".join(filter(None, (split, label, f"{number}.jpg")))
                files[path] = encoded(photograph(len(files)), quality=92)
    return save_files(folder, files)


def test_what_unpacking_guessed_and_left_out_is_among_the_notes(tmp_path: Path) -> None:
    record = {"notes": ["folders are read as splits by their names: 'a' as train"], "left_out": ["left out 3: junk"]}
    (tmp_path / "unpacked.json").write_text(json.dumps(record))
    audit(clean(tmp_path / "images", per_class=1), "--unpacked", str(tmp_path / "unpacked.json"))
    summary = json.loads((tmp_path / "audit.json").read_text())
    assert (summary["notes"], summary["left_out_files"]) == (record["notes"], record["left_out"])


@pytest.mark.long
def test_a_rendered_data_set_is_clean(tmp_path: Path) -> None:
    files = {
        f"{label}/{number}.jpg": encode_jpeg(render_image(label, number, size=96))
        for label in ("apple", "草莓") for number in range(1, 16)
    }  # fmt: skip
    assert audit(save_files(tmp_path / "images", files)) == []
    assert (tmp_path / "audit.csv").read_text() == "file,finding,action,group,detail\n"
    assert json.loads((tmp_path / "audit.json").read_text()) == {
        "images": 30, "set_aside": 0, "left_out": 0, "findings": {},
        "classes": {"apple": {"all": 15}, "草莓": {"all": 15}}, "formats": {"JPEG": 30},
        "widths": {"min": 96, "median": 96, "max": 96}, "heights": {"min": 96, "median": 96, "max": 96},
        "outside_square": {"mean": 0.0, "most": 0.0, "file": "apple/1.jpg"},
        "imbalance": 1.0, "notes": [], "left_out_files": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("width", "height", "mode", "told"),
    [
        (96, 64, "RGB", ""), (64, 96, "RGB", ""), (160, 90, "RGB", "squash"), (90, 160, "RGB", "squash"),
        (96, 64, "RGBA", "try fit: pad"), (70, 64, "RGBA", ""),
    ],
)  # fmt: skip
def test_what_a_crop_leaves_out_is_said(width: int, height: int, mode: str, told: str, tmp_path: Path) -> None:
    pictures = [photograph(seed).resize((width, height)).convert(mode) for seed in range(12)]
    images = {f"{'ab'[seed % 2]}/{seed}.png": encoded(picture, "PNG") for seed, picture in enumerate(pictures)}
    images["a/square.png"] = encoded(photograph(99).resize((80, 80)), "PNG")
    audit(save_files(tmp_path / "images", images))
    summary = json.loads((tmp_path / "audit.json").read_text())
    most = 1 - min(width, height) / max(width, height)
    assert summary["outside_square"]["most"] == round(most, 4)
    assert summary["outside_square"]["mean"] == round(most * 12 / 13, 4)
    lines = [note for note in summary["notes"] if note.startswith("fit: crop leaves out")]
    assert len(lines) == bool(told) and all(told in line for line in lines)


@functools.cache
def defects() -> dict[str, tuple[bytes, str, str]]:
    """Return files with one defect each, what they are called and what is done."""
    whole = encoded(photograph(200))
    picture = photograph(201)
    frames = encoded(picture, "GIF", save_all=True, append_images=[photograph(202)])
    sixteen = Image.fromarray(np.asarray(photograph(203).convert("L"), np.uint16) * 257)
    return {
        "apple/text.jpg": (b"not found", "unreadable", "set_aside"),
        "apple/empty.png": (b"", "unreadable", "set_aside"),
        "pear/empty.png": (b"", "unreadable", "set_aside"),
        "apple/half.jpg": (whole[: len(whole) // 2], "truncated", "set_aside"),
        "apple/ended.jpg": (whole[: len(whole) // 2] + b"\xff\xd9", "truncated", "set_aside"),
        "apple/zeros.jpg": (whole[: len(whole) // 2] + bytes(len(whole) // 2), "truncated", "set_aside"),
        "apple/half.png": (encoded(picture, "PNG")[:-900], "truncated", "set_aside"),
        "apple/bomb.png": (many_pixels(20_000, 6_000), "too_many_pixels", "set_aside"),
        "apple/really.jpg": (encoded(photograph(204), "PNG"), "wrong_extension", "kept"),
        "apple/film.gif": (frames, "animated", "kept"),
        "apple/print.jpg": (encoded(photograph(205).convert("CMYK")), "cmyk", "kept"),
        "apple/deep.png": (encoded(sixteen, "PNG"), "sixteen_bit", "kept"),
        "apple/glass.png": (encoded(photograph(206).convert("RGBA"), "PNG"), "alpha", "kept"),
        "apple/few.png": (encoded(photograph(207).quantize(40), "PNG"), "palette", "kept"),
        "apple/turned.jpg": (turned(photograph(208), 6), "rotated", "kept"),
        "apple/small.png": (encoded(photograph(209, (40, 31)), "PNG"), "tiny", "kept"),
        "apple/large.jpg": (encoded(photograph(210).resize((6000, 4200)), quality=60), "huge", "kept"),
        "apple/blank.jpg": (encoded(Image.new("RGB", (80, 80), "white")), "blank", "kept"),
        "apple/blank2.jpg": (encoded(Image.new("RGB", (90, 80), "white")), "blank", "kept"),
    }


@pytest.mark.long
def test_every_planted_defect_is_found_and_none_is_invented(tmp_path: Path) -> None:
    images = clean(tmp_path / "images")
    planted = defects()
    save_files(images, {name: content for name, (content, _, _) in planted.items()})
    expected = [(name, finding, action) for name, (_, finding, action) in planted.items()]
    # Copies: exact, to the eye, and under another class.
    exact, near, other = ((images / f"apple/{number}.jpg").read_bytes() for number in range(3))
    small = photograph(1).resize((90, 72), Image.Resampling.BICUBIC)
    assert encoded(photograph(1), quality=92) == near
    save_files(images, {"apple/again.jpg": exact, "apple/smaller.jpg": encoded(small), "pear/lie.jpg": other})
    expected += [(f"apple/{name}.jpg", "duplicate", "kept") for name in ("0", "again")]
    expected += [(f"apple/{name}.jpg", "near_duplicate", "kept") for name in ("1", "smaller")]
    expected += [(name, "conflicting_labels", "set_aside") for name in ("apple/2.jpg", "pear/lie.jpg")]
    expected += [("apple/smaller.jpg", "blurred", "kept")]  # without its noise it is all slopes
    rows = audit(images)
    assert triples(rows) == sorted(expected)
    assert all(row["detail"] for row in rows)
    groups = {row["file"]: row["group"] for row in rows}
    assert groups["apple/0.jpg"] == groups["apple/again.jpg"] != ""
    assert groups["apple/1.jpg"] == groups["apple/smaller.jpg"] not in ("", groups["apple/0.jpg"])
    assert groups["apple/blank.jpg"] == ""
    summary = json.loads((tmp_path / "audit.json").read_text())
    assert summary["images"] == 12 + len(planted) + 3
    assert summary["set_aside"] == sum(action == "set_aside" for _, _, action in expected)
    assert summary["findings"]["truncated"] == 4
    assert summary["classes"] == {"apple": {"all": 26}, "pear": {"all": 8}}
    # apple/smaller.jpg looks like one of its own class: no note
    (note,) = summary["notes"]
    assert note.startswith("1 image of 16 bits a channel")
    assert summary["imbalance"] == 3.25


def test_copies_in_another_given_split_are_contaminated(tmp_path: Path) -> None:
    images = clean(tmp_path / "images", ("train", "val", "test"), per_class=3)
    content = {name: (images / name).read_bytes() for name in ("test/apple/0.jpg", "val/pear/1.jpg")}
    save_files(images, {
        "train/apple/seen.jpg": content["test/apple/0.jpg"],
        "val/apple/seen.jpg": content["test/apple/0.jpg"],
        "train/pear/looks.png": encoded(Image.open(images / "val/pear/1.jpg"), "PNG"),
    })  # fmt: skip
    rows = audit(images)
    copies = [row for row in triples(rows) if row[1] in (TRAIN_COPY, CONTAMINATED)]
    assert copies == [
        ("test/apple/0.jpg", CONTAMINATED, "kept"),
        ("train/apple/seen.jpg", TRAIN_COPY, "left_out"),
        ("train/pear/looks.png", TRAIN_COPY, "left_out"),
        ("val/apple/seen.jpg", TRAIN_COPY, "left_out"),
        ("val/apple/seen.jpg", CONTAMINATED, "kept"),
        ("val/pear/1.jpg", CONTAMINATED, "kept"),
    ]
    assert json.loads((tmp_path / "audit.json").read_text())["left_out"] == 3
    assert {row[1] for row in triples(rows)} == {TRAIN_COPY, CONTAMINATED, "duplicate", "near_duplicate"}


def test_a_given_val_without_a_test_is_the_test(tmp_path: Path) -> None:
    images = clean(tmp_path / "images", ("train", "val"), per_class=3)
    save_files(images, {"train/apple/seen.jpg": (images / "val/apple/0.jpg").read_bytes()})
    assert ("val/apple/0.jpg", CONTAMINATED, "kept") in triples(audit(images))
    summary = json.loads((tmp_path / "audit.json").read_text())
    assert summary["classes"]["apple"] == {"train": 4, "test": 3}


@pytest.mark.long
def test_images_of_a_known_group_in_test_and_train_are_contaminated(tmp_path: Path) -> None:
    files = {
        f"{split}/{label}/patient{patient}_{number}.jpg": encoded(photograph(20 * patient + number))
        for split, label, patient, number in (
            ("train", "ill", 1, 0), ("train", "well", 2, 1), ("test", "ill", 1, 2), ("test", "well", 3, 3),
        )
    }  # fmt: skip
    rows = audit(save_files(tmp_path / "images", files), "--group-by", r"/(patient\d+)_")
    assert triples(rows) == [("test/ill/patient1_2.jpg", CONTAMINATED, "kept")]
    assert "train/ill/patient1_0.jpg" in rows[0]["detail"]
    assert audit(tmp_path / "images") == []


def test_a_pattern_that_is_no_regular_expression_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--group-by"):
        audit(clean(tmp_path / "images"), "--group-by", "(")


def test_copies_of_two_classes_that_only_look_alike_are_kept_and_said(tmp_path: Path) -> None:
    images = clean(tmp_path / "images")
    save_files(images, {"pear/looks.png": encoded(Image.open(images / "apple/3.jpg"), "PNG")})
    rows = audit(images)
    assert triples(rows) == [(name, "near_duplicate", "kept") for name in ("apple/3.jpg", "pear/looks.png")]
    assert all("another class" in row["detail"] for row in rows)
    assert json.loads((tmp_path / "audit.json").read_text())["notes"] == [
        "2 images look like one of another class, apple/3.jpg like pear/looks.png for one: a label of each pair may be"
        " wrong"
    ]


def decoded(caplog: pytest.LogCaptureFixture) -> int:
    last = caplog.messages[-1]
    caplog.clear()
    return int(last.split(" decoded")[0].rpartition(" ")[2])


@pytest.mark.long
def test_a_rerun_decodes_only_what_is_new_and_says_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    images = clean(tmp_path / "images")
    save_files(images, {name: content for name, (content, _, _) in defects().items()})
    first = audit(images)
    written = [(tmp_path / name).read_bytes() for name in ("audit.csv", "audit.json")]
    assert decoded(caplog) == 12 + len(defects())
    (images / "apple/0.jpg").rename(images / "pear/moved.jpg")
    (images / "pear/moved.jpg").rename(images / "apple/0.jpg")
    assert audit(images) == first
    assert decoded(caplog) == 0
    assert [(tmp_path / name).read_bytes() for name in ("audit.csv", "audit.json")] == written
    save_files(images, {"pear/new.jpg": encoded(photograph(300), quality=92), "pear/bad.jpg": b"bad"})
    assert set(triples(audit(images))) - set(triples(first)) == {("pear/bad.jpg", "unreadable", "set_aside")}
    assert decoded(caplog) == 2
    (tmp_path / "audit.cache").unlink()
    (images / "pear/new.jpg").unlink()
    (images / "pear/bad.jpg").unlink()
    assert audit(images, "--threads", "1") == first
    assert [(tmp_path / name).read_bytes() for name in ("audit.csv", "audit.json")] == written


@pytest.mark.long
def test_bad_images_stop_it_where_they_shall_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    images = clean(tmp_path / "images")
    assert audit(images, "--on-bad-image", "fail") == []
    save_files(images, {f"pear/bad{number}.jpg": b"bad" for number in range(5)})
    save_files(images, {"pear/tiny.png": encoded(photograph(9, (20, 20)), "PNG")})
    with pytest.raises(
        UserError, match=r"5 images cannot be used: pear/bad0.jpg \(unreadable: .*on_bad_image"
    ) as caught:
        audit(images, "--on-bad-image", "fail")
    # Beside audit.csv, which Snakemake removes when the step fails.
    listing = tmp_path / "audit_bad.csv"
    assert str(listing) in str(caught.value)
    with open(listing, encoding="utf-8", newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == [f"pear/bad{number}.jpg" for number in range(5)]
    for number in range(5):
        (images / f"pear/bad{number}.jpg").unlink()
    audit(images, "--on-bad-image", "fail")
    assert not listing.exists(), "nothing is left of what has been repaired"


def test_class_names_that_are_probably_one_are_noted() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    (note,) = notes_on_classes([composed, decomposed, "tea"])
    assert repr(composed) in note
    (note,) = notes_on_classes(["Apple", "apple", "apple%20", "apples"])
    assert "'apples'" not in note
    assert "'apple%20'" in note
    assert notes_on_classes(["apple", "pear", "100%"]) == []


@pytest.mark.long
def test_the_command_prints_nothing_per_file_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    images = clean(tmp_path / "images", per_class=150)
    for number in range(20):
        save_files(images, {f"apple/bad{number}.png": encoded(photograph(number), "PNG")[:-700]})
    files = ("--output", tmp_path / "audit.csv", "--summary", tmp_path / "audit.json", "--cache", tmp_path / "cache")
    command = [sys.executable, "-m", "scripts.data.audit_images", "--images", images, *files, "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    while not (tmp_path / "cache").exists() or (tmp_path / "cache").stat().st_size < 30_000:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert again.stdout == ""
    (line,) = again.stderr.splitlines()
    assert line.startswith("320 images in ")
    assert 0 < int(line.split(" known")[0].rpartition(" ")[2]) < 320
    assert "20 set aside" in line


def deep_images(folder: Path, peaks: dict[str, int]) -> Path:
    """Make a data set of 16-bit images, the largest value of each as given."""
    files = {}
    for number, (suffix, peak) in enumerate(peaks.items()):
        grey = np.asarray(photograph(number).convert("L"), np.uint16).astype(np.float64)
        deep = (grey / grey.max() * peak).astype(np.uint16)
        files[f"apple/{number}{suffix}"] = cv2.imencode(suffix, deep)[1].tobytes()
        files[f"pear/{number}.jpg"] = encoded(photograph(100 + number))
    return save_files(folder, files)


@pytest.mark.long
@pytest.mark.parametrize(
    ("peaks", "bits"),
    [
        ({".png": 4095, ".tif": 1000}, 12),
        ({".png": 900, ".tif": 1023, ".pgm": 800}, 10),
        ({".jp2": 12_000, ".png": 100}, 14),
        ({".tif": 100, ".png": 90}, 9),
    ],
)
def test_images_of_16_bits_are_never_silently_black(peaks: dict[str, int], bits: int, tmp_path: Path) -> None:
    images = deep_images(tmp_path / "images", peaks)
    with pytest.raises(UserError, match=f"would be nearly black: set dataset.bit_depth: {bits} "):
        audit(images)
    assert audit(images, "--bit-depth", str(bits))
    (note,) = json.loads((tmp_path / "audit.json").read_text())["notes"]
    assert f"they are scaled as {bits} bits (dataset.bit_depth)" in note and "white" not in note


@pytest.mark.parametrize(
    ("peaks", "words"),
    [
        ([4095] * 9 + [65535], "65,535, but 4,095 in 9 of them, so that they would be nearly black: set.* 12 "),
        ([900, 1023, 40_000], "40,000, but 1,023 in 2 of them, so that they would be nearly black: set.* 10 "),
        ([255] * 20 + [65535] * 19, "255 in 20 of them, .* 9 "),
        ([16_383] * 3, "the largest value is 16,383, so that they would be nearly black: set.* 14 "),
    ],
)
def test_a_few_bright_images_do_not_hide_that_most_would_be_black(peaks: list[int], words: str) -> None:
    checks = [SimpleNamespace(status=Status.READABLE, peak=peak) for peak in peaks]
    with pytest.raises(UserError, match=words):
        judge_depth(checks, None)
    assert "nearly black" not in judge_depth(checks, 16)[0]


def test_dark_images_among_bright_ones_are_named() -> None:
    checks = [SimpleNamespace(status=Status.READABLE, peak=peak) for peak in [60_000] * 3 + [4095] * 2]
    (note,) = judge_depth(checks, None)
    assert note.endswith("scaled as 16 bits (dataset.bit_depth); 2 of them have no value above 4,095: nearly black")
    with speaking("zh"):
        assert tr(note).endswith("其中 2 张没有大于 4,095 的值，几乎全黑")


@pytest.mark.long
def test_what_is_above_the_bit_depth_is_counted_and_full_range_is_taken_as_it_is(tmp_path: Path) -> None:
    images = deep_images(tmp_path / "images", {".png": 60_000, ".tif": 1000})
    audit(images)
    audit(images, "--bit-depth", "12")
    (note,) = json.loads((tmp_path / "audit.json").read_text())["notes"]
    assert "the largest value is 60,000" in note and "in 1 image some are larger than that, and become white" in note
