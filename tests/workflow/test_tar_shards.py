"""Tar shards read where they lie, through the whole workflow: the results of the same shards unpacked, bit for bit."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from dag import jobs_run, photograph, settings, snakemake

from scripts.lib.base import products
from scripts.lib.base.files import read_json
from scripts.lib.base.problems import UserError
from scripts.lib.base.ranges import INDEX
from scripts.lib.workflow import quick

pytestmark = pytest.mark.long

CLASSES = ["apple", "梨 $(touch pwned)", "plum"]
DATA = "results/small"
SHORT_SIDE = 40
RUN = f"{DATA}/quick/seed0"
TARGETS = (f"{RUN}/figures/gradcam.html", f"{RUN}/provenance.json", f"{DATA}/audit.html", f"{DATA}/packed/{SHORT_SIDE}")
PER_SHARD = 15


def write_shard(path: Path, first: int, count: int = PER_SHARD) -> None:
    """Write samples of all classes in turn; the second image of each shard is a copy, and the first ends too early."""
    with tarfile.open(path, "w") as tar:
        for number in range(first, first + count):
            content = photograph(number % 3, number if number != first + 1 else 1)
            content = content[: len(content) // 2] if number == first else content
            for suffix, data in (("jpg", content), ("cls", CLASSES[number % 3].encode())):
                entry = tarfile.TarInfo(f"{number:06d}.{suffix}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("shards")
    paths = [folder / f"{name}.tar" for name in ("set-train-0000", "set-train-0001", "set-train-0002", "set-val-0000")]
    for number, path in enumerate(paths):
        write_shard(path, PER_SHARD * number)
    return paths


def run(folder: Path, source: Any, *targets: str, **dataset: Any) -> list[str]:
    """Return the rules whose jobs ran."""
    config = settings(source)
    config["dataset"] |= dataset
    result = snakemake(folder, config, "--", *targets, seconds=1800)
    assert result.returncode == 0, result.stdout
    return jobs_run(result.stdout)


@pytest.fixture(scope="module")
def unpacked(shards: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    run(folder, [{"path": str(path)} for path in shards], *TARGETS)
    return folder


@pytest.fixture(scope="module")
def in_place(shards: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("in_place")
    run(folder, {"path": str(shards[0].parent), "in_place": True}, *TARGETS)
    return folder


def content(folder: Path, name: str) -> bytes:
    return (folder / DATA / name).read_bytes()


def test_findings_splits_pixels_and_weights_are_those_of_unpacked_images(unpacked: Path, in_place: Path) -> None:
    names = [
        "audit.csv",
        "corrected.csv",
        "classes.txt",
        *(f"splits/{split}.txt" for split in ("train", "val", "test")),
    ]
    names += [f"packed/{SHORT_SIDE}/{name}" for name in ("images.bin", "index.csv", "pack.json")]
    names += [f"quick/seed0/{name}" for name in ("best.pth", "last.pth", "predictions.csv", "figures/gradcam.html")]
    assert [name for name in names if content(unpacked, name) != content(in_place, name)] == []
    findings = content(in_place, "audit.csv").decode()
    assert findings.count(",duplicate,") == 4 and findings.count(",truncated,") == 4, findings
    images = [products.recorded_sha256(folder / DATA / "images") for folder in (unpacked, in_place)]
    assert images[0] == images[1] is not None


def test_the_images_are_one_index_and_that_is_said(in_place: Path) -> None:
    assert [path.name for path in (in_place / DATA / "images").iterdir() if "snakemake" not in path.name] == [INDEX]
    line = "images are read where they lie, in 4 tar shards"
    assert line in read_json(in_place / DATA / "audit.json")["notes"]
    assert line.encode() in content(in_place, "audit.html")
    quick.verify(in_place / "results")


def test_other_images_in_shards_are_evaluated(in_place: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    write_shard(tmp_path / "new/other.tar", 3)
    command = [
        sys.executable,
        "-m",
        "scripts.evaluate_run",
        "--run",
        str(in_place / RUN),
        "--data",
        str(tmp_path / "new"),
    ]
    done = subprocess.run(command, cwd=in_place, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    result = read_json(in_place / "evaluations/small/quick/seed0/new/evaluation.json")
    assert result["images"] == PER_SHARD - 1 and len(result["unread"]) == 1
    assert result["copies_of_training_images"] == 11  # 5 to 14 and 17: the others end too early, or are left out


def test_decisions_on_labels_apply_and_a_changed_shard_is_read_again(in_place: Path, shards: list[Path]) -> None:
    source = {"path": str(shards[0].parent), "in_place": True}
    decisions = in_place / "decisions.csv"
    digests = [hashlib.sha256(photograph(number % 3, number)).hexdigest() for number in (4, 5)]
    rows = [
        "sha256,path,label,new_label,action",
        f"{digests[0]},train/{CLASSES[1]}/000004.jpg,{CLASSES[1]},apple,relabel",
    ]
    rows += [f"{digests[1]},train/plum/000005.jpg,plum,,drop"]
    decisions.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    ran = run(in_place, source, f"{DATA}/splits/train.txt", corrections=str(decisions))
    assert "unpack_archive" not in ran and {"audit_images", "split_dataset"} <= set(ran)
    findings = content(in_place, "audit.csv").decode()
    assert "000004.jpg,relabelled" in findings and "000005.jpg,dropped" in findings
    # The same picture, another number: the copy of image 1 in the third shard is one no more.
    write_shard(shards[2], 500, PER_SHARD)
    with pytest.raises(UserError, match=rf"{shards[2].name} is not what was made"):
        products.check([in_place / DATA / "images"])
    ran = run(in_place, source, f"{DATA}/splits/train.txt")
    assert {"fetch_archive", "unpack_archive", "audit_images"} <= set(ran)
    assert "000501.jpg" in content(in_place, "splits/train.txt").decode() + content(in_place, "audit.csv").decode()
