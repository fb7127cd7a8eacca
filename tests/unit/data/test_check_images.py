"""An audit and a pixel cache that several jobs share: the same files, bit for bit, as of one job."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planted_images import encoded, photograph

from scripts.data import audit_images, check_images, decode_images, pack_images
from scripts.lib.base.problems import UserError
from scripts.lib.data import pixel_cache_writer
from scripts.lib.data.findings import (
    CONFLICTING_LABELS,
    CONTAMINATED,
    DUPLICATE,
    NEAR_DUPLICATE,
    TRAIN_COPY,
    read_findings,
)
from scripts.lib.data.pixel_cache import INDEX, METADATA, PIXELS
from scripts.lib.data.shards import Shard, shards_of

READING = ["--background", "#1020f0"]
AUDITED, CACHED = ("audit.csv", "audit.json"), (PIXELS, INDEX, METADATA)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of two classes, with copies, near copies, one image in two classes and two broken ones."""
    folder = tmp_path_factory.mktemp("shards") / "images"
    files = {f"train/{label}/{number}.jpg": encoded(photograph(10 * (label == "梨") + number), quality=92)
             for label in ("apple", "梨") for number in range(6)}  # fmt: skip
    files |= {f"test/{label}/{number}.jpg": encoded(photograph(40 + number), quality=92)
              for number in range(4) for label in ("apple", "梨")}  # fmt: skip
    files |= {f"test/apple/near {number}.jpg": encoded(photograph(number), quality=60) for number in range(3)}
    files |= {"train/apple/again.jpg": files["train/apple/3.jpg"], "train/apple/empty.jpg": b""}
    files |= {"train/梨/cut.jpg": files["train/梨/1.jpg"][:-400]}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def run(script: object, *words: object) -> None:
    script.main(script.build_parser().parse_args([str(word) for word in words]))  # type: ignore[attr-defined]


def audit(images: Path, folder: Path, count: int) -> Path:
    """Audit in *count* shards, 1: as one job; return the folder of the files."""
    files = []
    for number in range(1, count + 1) if count > 1 else ():
        files.append(folder / f"audit_{number}of{count}.bin")
        cache = folder / f"audit_{number}of{count}.cache"
        run(check_images, "--images", images, "--shard", f"{number}of{count}", "--output", files[-1],
            "--cache", cache, "--threads", 1, *READING)  # fmt: skip
    outputs = ("--output", folder / AUDITED[0], "--summary", folder / AUDITED[1])
    run(audit_images, "--images", images, *outputs, "--threads", 1, *READING, "--shards", *files)
    return folder


@pytest.fixture(scope="module")
def audited(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The audit of one job."""
    return audit(images, tmp_path_factory.mktemp("whole"), 1)


@pytest.mark.parametrize("count", [2, *(pytest.param(count, marks=pytest.mark.long) for count in (7, 60))])
def test_findings_of_shards_are_those_of_one_job(images: Path, audited: Path, tmp_path: Path, count: int) -> None:
    kinds = {row.finding for row in read_findings(audited / "audit.csv")}
    assert kinds >= {TRAIN_COPY, CONTAMINATED, NEAR_DUPLICATE, DUPLICATE, CONFLICTING_LABELS, "truncated", "unreadable"}
    for name in AUDITED:
        assert (audit(images, tmp_path, count) / name).read_bytes() == (audited / name).read_bytes()


def test_near_copies_are_in_different_shards() -> None:
    # Else the test above would say nothing of copies over shards.
    paths = [f"{name}{number}.jpg" for number in range(3) for name in ("train/apple/", "test/apple/near ")]
    for count in (2, 7):
        shards = shards_of(paths, count)
        assert (shards[::2] != shards[1::2]).any()


def test_a_shard_is_a_function_of_the_path_and_all_are_about_as_large() -> None:
    paths = [f"class{number % 10}/{number}.jpg" for number in range(7000)]
    counts = np.bincount(shards_of(paths, 7))
    assert counts[0] == 0 and min(counts[1:]) > 900 and max(counts) < 1100
    chosen = [path for number in range(1, 8) for path in Shard(number, 7).select(paths)]
    assert sorted(chosen) == sorted(paths)
    assert Shard(3, 7).select(paths[::2]) == [path for path in Shard(3, 7).select(paths) if path in set(paths[::2])]


def test_a_shard_goes_on_from_what_a_killed_job_has_checked(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    for _ in range(2):
        run(check_images, "--images", images, "--shard", "1of2", "--output", tmp_path / "audit_1of2.bin",
            "--cache", tmp_path / "audit_1of2.cache", "--threads", 1)  # fmt: skip
    first, second = (record.message for record in caplog.records if record.message.startswith("shard 1of2"))
    assert " 0 decoded" in second and " 0 decoded" not in first


def test_checks_of_other_images_or_settings_are_refused(images: Path, tmp_path: Path) -> None:
    audit(images, tmp_path, 2)
    files = [tmp_path / f"audit_{number}of2.bin" for number in (1, 2)]
    words = ("--images", images, "--output", tmp_path / "audit.csv", "--summary", tmp_path / "audit.json", "--shards")
    with pytest.raises(UserError, match=r"audit_1of2\.bin: not the checks of these images: remove it"):
        run(audit_images, *words, *files)  # made with another background
    with pytest.raises(UserError, match=r"audit_2of2\.bin: not the checks of these images: remove it"):
        run(audit_images, *words, *reversed(files), *READING)


@pytest.mark.parametrize("text", ["", "3", "0of7", "8of7", "1of0", "aofb"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no shard such as 3of7"):
        Shard.parse(text)


# --- the pixel cache --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def splits(images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Lists of images in an order that is no sorted one, some of them in both."""
    names = [path.relative_to(images).as_posix() for path in images.rglob("*.jpg")]
    names = [name for name in sorted(names, reverse=True) if not name.endswith(("empty.jpg", "cut.jpg"))]
    folder = tmp_path_factory.mktemp("splits")
    for name, chosen in (("train", names[:15]), ("val", names[10:])):
        (folder / f"{name}.txt").write_text("".join(f"{path} 0\n" for path in chosen), encoding="utf-8")
    return [folder / "train.txt", folder / "val.txt"]


def cache(images: Path, splits: list[Path], folder: Path, count: int) -> Path:
    """Make a pixel cache in *count* shards, 1: as one job; return it."""
    shards = []
    words = ("--images", images, "--splits", *splits, "--short-side", 40, "--threads", 1, *READING)
    for number in range(1, count + 1) if count > 1 else ():
        shards.append(folder / f"40_{number}of{count}")
        run(decode_images, *words, "--shard", f"{number}of{count}", "--output", shards[-1])
    run(pack_images, *words, "--output", folder / "40", "--shards", *shards)
    return folder / "40"


@pytest.mark.parametrize("limit", [8 << 30, 30 * 3 * 40 * 60, 1000], ids=["raw", "by the headers", "jpeg"])
def test_pixels_of_shards_are_those_of_one_job(
    images: Path, splits: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    for module in (decode_images, pack_images):
        monkeypatch.setattr(module, "RAW_LIMIT_BYTES", limit)
    whole = cache(images, splits, tmp_path / "1", 1)
    for count in (2, 7):
        joined = cache(images, splits, tmp_path / str(count), count)
        for name in CACHED:
            assert (joined / name).read_bytes() == (whole / name).read_bytes()


def test_pixels_of_other_images_are_refused(images: Path, splits: list[Path], tmp_path: Path) -> None:
    cache(images, splits, tmp_path, 2)
    words = ("--images", images, "--short-side", 40, "--output", tmp_path / "other", "--shards")
    shards = [tmp_path / "40_1of2", tmp_path / "40_2of2"]
    with pytest.raises(UserError, match=r"40_[12]of2: not the pixels of these images: remove it"):
        run(pack_images, "--splits", *reversed(splits), *words, *shards)
    (shards[1] / PIXELS).write_bytes((shards[1] / PIXELS).read_bytes()[:-1])
    with pytest.raises(UserError, match="40_2of2: not the pixels of these images: remove it"):
        run(pack_images, "--splits", *splits, *words, *shards)


def test_headers_are_not_read_where_squares_would_be_too_many_bytes(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [path.relative_to(images).as_posix() for path in images.rglob("?.jpg")]
    monkeypatch.setattr(pixel_cache_writer, "_sizes", lambda *arguments: pytest.fail("headers were read"))
    limit = 3 * 40**2 * len(names) - 1
    options = {"raw_limit": limit, "threads": 1}
    assert pixel_cache_writer.write_pixel_cache(images, names, 40, tmp_path / "packed", **options) == "jpeg"
