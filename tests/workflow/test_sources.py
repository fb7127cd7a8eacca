"""The layouts that people have, up to the split: labels in files, a folder read in place, several archives."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from dag import archive_bytes, jobs_run, photograph, settings, snakemake

from scripts import bundle, repeat, verify
from scripts.lib.base.files import sha256_of
from scripts.lib.base.problems import UserError
from scripts.lib.workflow import bundles
from scripts.lib.workflow.repetition import FinishedRun, find_archives

pytestmark = pytest.mark.long

DATA_RULES = ["audit_images", "fetch_archive", "split_dataset", "unpack_archive"]


def split(folder: Path, source: Any) -> str:
    """Run the workflow up to the split and return what it printed."""
    result = snakemake(folder, settings(source), "--until", "split_dataset")
    assert result.returncode == 0, result.stdout
    return result.stdout


def listed(folder: Path) -> dict[str, set[str]]:
    """Return the images of each split as its file names them; all of them can be read."""
    splits = {}
    for path in sorted((folder / "results/small/splits").glob("*.txt")):
        splits[path.stem] = {line.rpartition(" ")[0] for line in path.read_text(encoding="utf-8").split("\n")[:-1]}
        assert all(
            (folder / "results/small/images" / name).read_bytes()[:2] == b"\xff\xd8" for name in splits[path.stem]
        )
    return splits


def write_photos(folder: Path, names: dict[str, int]) -> None:
    for index, (name, label) in enumerate(names.items()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(photograph(label, index))


def test_a_flat_folder_with_a_table_beside_it(tmp_path: Path) -> None:
    names = {f"IMG {n}.jpg": n % 2 for n in range(20)}
    write_photos(tmp_path / "photos", names)
    table = tmp_path / "my labels.csv"
    rows = [f"{name.removesuffix('.jpg')};{'草莓' if label else 'two words'}" for name, label in names.items()]
    table.write_bytes("\r\n".join(["文件名;标签", *rows]).encode("gb18030"))
    source = {"path": "photos", "labels": "my labels.csv"}
    assert "2 classes: train 14, val 2, test 4 images" in split(tmp_path, source)
    assert (tmp_path / "results/small/labels.csv").read_bytes() == table.read_bytes()
    assert (tmp_path / "results/small/labels.sha256").read_text().endswith("# source: my labels.csv\n")
    # One label is corrected: only what follows from labels is done again.
    rows[0] = rows[0].replace("two words", "草莓")
    table.write_bytes("\n".join(["文件名;标签", *rows]).encode("gb18030"))
    assert jobs_run(output := split(tmp_path, source)) == DATA_RULES and "fetching results/small/labels.csv" in output
    assert (tmp_path / "results/small/images/草莓/IMG 0.jpg").is_file()


def test_annotation_files_in_a_folder_that_is_read_in_place(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    names = {f"img/{n:02d}.jpg": n % 2 for n in range(24)}
    write_photos(folder, names)
    lines = [f"{name.removeprefix('img/')} {label}" for name, label in names.items()]
    (folder / "train.txt").write_text("\n".join(lines[:18]) + "\n")
    (folder / "test.txt").write_text("\n".join(lines[18:]) + "\n")
    (folder / "classes.txt").write_text("cat\ndog\n")
    labels = {"train": "train.txt", "test": "test.txt", "classes": "classes.txt"}
    source = {"path": "photos", "in_place": True, "labels": labels}
    split(tmp_path, source)
    splits = listed(tmp_path)
    assert splits["test"] == {f"test/{('cat', 'dog')[n % 2]}/{n:02d}.jpg" for n in range(18, 24)}
    link = tmp_path / "results/small/images/test/cat/18.jpg"
    assert link.is_symlink() and Path(os.readlink(link)) == folder / "img/18.jpg"
    assert jobs_run(split(tmp_path, source)) == []
    # A changed file is noticed at the next run, and its link leads to what it is now.
    (folder / "img/18.jpg").write_bytes(photograph(0, 99))
    assert jobs_run(split(tmp_path, source)) == DATA_RULES
    assert (folder / "img/19.jpg").is_file(), "only links are removed with images/"


def test_an_archive_a_class_and_one_with_its_own_classes(tmp_path: Path) -> None:

    def write(name: str, label: int, count: int) -> None:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for index in range(count):
                archive.writestr(f"{name}/{index}.jpg", photograph(label, index))

    write("one.zip", 2, 10)
    write("two.zip", 3, 10)
    (tmp_path / "rest.zip").write_bytes(archive_bytes(["c", "d"]))
    source = [{"path": "one.zip", "label": "草莓"}, {"path": "two.zip", "label": "b"}, {"path": "rest.zip"}]
    output = split(tmp_path, source)
    assert "4 classes: train 28, val 4, test 8 images" in output
    assert jobs_run(output) == sorted(["fetch_archive"] * 2 + DATA_RULES)
    folder = tmp_path / "results/small"
    assert (folder / "classes.txt").read_text(encoding="utf-8").split() == ["b", "c", "d", "草莓"]
    for number in range(3):
        assert (folder / f"archive_{number}.sha256").read_text().split()[1] == f"archive_{number}.zip"
    # Another second archive: the others are not fetched again.
    (tmp_path / "two.zip").unlink()  # archive_1.zip may be a link to it
    write("two.zip", 4, 11)
    output = split(tmp_path, source)
    assert jobs_run(output) == DATA_RULES and "unpacked 41 images of 4 classes" in output


def test_archives_some_with_parts_and_some_without_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(archive_bytes(["c", "d"]))
    result = snakemake(
        tmp_path, settings([{"path": "a.zip", "part": "train"}, {"path": "a.zip"}]), "--until", "split_dataset"
    )
    errors = {line for line in result.stdout.splitlines() if line.startswith("error: ")}
    assert result.returncode != 0 and len(errors) == 1
    assert "dataset.source.1: its images are in no split" in errors.pop()
    assert not (tmp_path / "results/small/images").exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on a folder read in place with a table beside it, and an archive that is one class."""
    folder = tmp_path_factory.mktemp("finished")
    names = {f"IMG {n}.jpg": n % 2 for n in range(20)}
    write_photos(folder / "photos", names)
    rows = [f"{name},{'dog' if label else 'two words'}" for name, label in names.items()]
    (folder / "my labels.csv").write_text("\n".join(["file,label", *rows]))
    with zipfile.ZipFile(folder / "third.zip", "w") as archive:
        for index in range(10):
            archive.writestr(f"{index}.jpg", photograph(2, index))
    source = [
        {"path": "photos", "in_place": True, "labels": "my labels.csv"},
        {"path": "third.zip", "label": "草莓"},
    ]
    result = snakemake(folder, settings(source), "--", f"{RUN}/provenance.json")
    assert result.returncode == 0, result.stdout
    return folder


RUN = "results/small/quick/seed0"


def outcome(script: Any, capsys: pytest.CaptureFixture[str], *options: object) -> tuple[int, str]:
    """Return the exit status of a script and what it printed on stdout."""
    status = 0
    try:
        script.main(script.build_parser().parse_args([str(option) for option in options]))
    except SystemExit as end:
        status = int(str(end.code))
    return status, capsys.readouterr().out


def test_the_provenance_names_every_archive_and_the_labels(finished: Path) -> None:
    inputs = json.loads((finished / RUN / "provenance.json").read_text(encoding="utf-8"))["inputs"]
    files = {name: entry for name, entry in inputs["files"].items() if name.startswith(("archive", "labels"))}
    assert [Path(entry["path"]).name for entry in files.values()] == [
        "archive_0.jsonl",
        "archive_1.zip",
        "labels_0.csv",
    ]
    for entry in files.values():
        assert entry["sha256"] == sha256_of(finished / entry["path"])
    assert [files[f"archive_{number}"]["source"] for number in (0, 1)] == ["photos, in place", "third.zip"]
    assert [source["path"] for source in inputs["settings"]["dataset"]["source"]] == ["photos", "third.zip"]


def test_a_run_on_a_folder_in_place_is_verified_against_the_folder(
    finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run = FinishedRun.read(finished / RUN)
    assert find_archives(run) == {
        "archive_0": finished / "photos", "archive_1": finished / "results/small/archive_1.zip",
    }  # fmt: skip
    shutil.copytree(finished, tmp_path / "copy", ignore=shutil.ignore_patterns("images"))
    (tmp_path / "copy/photos/IMG 0.jpg").write_bytes(photograph(0, 77))
    status, output = outcome(verify, capsys, "--run", tmp_path / "copy" / RUN)
    assert status == 1 and output.startswith("differs: archive (archive_0)\n")


def test_a_bundle_holds_the_folder_as_a_tar_and_comes_out_identical(
    finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without, whole = tmp_path / "without.tar", tmp_path / "whole.tar"
    assert outcome(bundle, capsys, "--run", finished / RUN, "--output", without)[0] == 0
    assert outcome(bundle, capsys, "--run", finished / RUN, "--output", whole, "--images")[0] == 0
    with tarfile.open(without) as less, tarfile.open(whole) as more:
        assert set(more.getnames()) - set(less.getnames()) == {
            f"results/small/{name}" for name in ("archive_0.jsonl", "archive_0.tar", "archive_1.zip")
        }
        assert "results/small/labels_0.csv" in less.getnames()
    monkeypatch.chdir(tmp_path)
    # Without the images they must be given: here a folder with the archive and the folder that was read in place.
    with pytest.raises(UserError, match="IMAGES=FILE"):
        outcome(repeat, capsys, "--archive", without)
    status, output = outcome(repeat, capsys, "--archive", without, "--images", finished / "photos")
    assert status == 1 and output.startswith("differs: archive (archive_1)\nlikely cause: nothing in ")
    run = bundles.find_run(without, tmp_path / "unpacked", bundles.unpack(without, tmp_path / "unpacked"))
    images = bundles.find_images(run, finished)
    assert images == {"archive_0": finished / "photos", "archive_1": finished / "third.zip"}
    assert outcome(repeat, capsys, "--archive", whole) == (0, "identical\n")


def test_a_folder_that_changed_since_is_not_bundled(
    finished: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "copy", ignore=shutil.ignore_patterns("images"))
    (tmp_path / "copy/photos/IMG 0.jpg").write_bytes(photograph(0, 77))
    with pytest.raises(bundle.UserError, match="not the files that the run was made with"):
        outcome(bundle, capsys, "--run", tmp_path / "copy" / RUN, "--images")
    assert not list((tmp_path / "copy/results").rglob("*.tar"))
