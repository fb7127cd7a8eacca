"""Records of products: whatever happens to a file after it was made is noticed, and nothing else is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.lib.base import products
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import sha256_of
from scripts.lib.base.problems import UserError


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_in_secret(path: Path) -> None:
    """As a disk does: neither size nor time of modification tell."""
    status = path.stat()
    flip(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 5)


def replace(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"another one")


FAULTS = [flip, flip_in_secret, truncate, replace, Path.unlink]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Return a folder with a file and a folder of files, which a job has made."""
    (tmp_path / "images" / "类").mkdir(parents=True)
    for name in ("images/类/1.jpg", "images/类/2.jpg", "best.pth"):
        (tmp_path / name).write_bytes(name.encode() * 100)
    products.record("job", [tmp_path / "images", tmp_path / "best.pth"])
    return tmp_path


def names(folder: Path, **options: bool) -> list[str]:
    changes = [change for path in products.recorded(folder) for change in products.changes(path, **options)]
    return [change.path.relative_to(folder).as_posix() for change in changes]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["best.pth", "images/类/2.jpg"])
@pytest.mark.parametrize("thorough", [True, False])
def test_every_change_is_noticed(made: Path, fault: Callable[[Path], None], name: str, thorough: bool) -> None:
    assert names(made) == []
    fault(made / name)
    assert names(made, thorough=thorough) == [name]
    with pytest.raises(UserError, match="is made again") as caught:
        products.check([made / "best.pth", made / "images"])
    assert str(made / name) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_came_to_a_folder_is_noticed_but_those_of_snakemake_and_file_managers(made: Path) -> None:
    for name in (".snakemake_timestamp", ".DS_Store", "Thumbs.db"):
        (made / "images" / name).touch()
    assert names(made) == []
    (made / "images" / "类" / "3.jpg").write_bytes(b"new")
    assert names(made) == ["images/类/3.jpg"]


@pytest.mark.parametrize("year", [946_684_800, 4_000_000_000])
def test_other_times_or_another_place_are_no_change_and_hashed_once(
    made: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    copy = tmp_path_factory.mktemp("elsewhere") / "copy"
    shutil.copytree(made, copy)
    for path in copy.rglob("*"):
        os.utime(path, (year, year))
    assert names(copy, thorough=False) == []
    monkeypatch.setattr(products, "sha256_of", lambda path: pytest.fail(f"{path} was hashed again"))
    assert names(copy, thorough=False) == []


def test_a_record_that_another_process_is_writing_is_none(made: Path) -> None:
    """Else the next one is written to its name, and stays beside the true one for ever; or nothing is on record."""
    records = made / products.RECORDS
    written = records / ".job.12345.tmp.json"
    written.write_bytes((records / "job.json").read_bytes())
    vanished = records / ".job.67890.tmp.json"
    vanished.symlink_to("nothing")  # as one that is renamed between the list and the look at it
    assert names(made) == []
    assert {record.name for _, _, record in products.recorded_hashes(made / "best.pth")} == {products.RECORDS}
    os.utime(made / "best.pth")
    assert names(made, thorough=True) == []  # hashed once, and written down
    assert sorted(path.name for path in records.iterdir()) == sorted(
        [written.name, vanished.name, "job.json", *(path.name for path in records.glob("images*"))]
    )
    assert products.recorded(made)


def test_who_only_looks_writes_nothing(made: Path) -> None:
    os.utime(made / "best.pth")
    os.utime(made / "images" / "类" / "1.jpg")
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    assert names(made, keep=False) == []
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["job.json", "images.files.jsonl"])
def test_a_damaged_record_never_makes_a_wrong_file_right(made: Path, fault: Callable[[Path], None], name: str) -> None:
    fault(made / products.RECORDS / name)
    changed = names(made)
    assert changed in ([], ["images"], ["best.pth"], ["best.pth", "images"])
    if name == "images.files.jsonl":
        assert changed == ["images"]


def test_links_into_a_folder_elsewhere_have_the_hash_of_its_manifest(made: Path, tmp_path: Path) -> None:
    source = tmp_path / "source.jpg"
    source.write_bytes(b"photo")
    (made / "linked").mkdir()
    (made / "linked" / "1.jpg").symlink_to(source)
    products.record("linked", [made / "linked"], {str(source): sha256_of(source)})
    assert names(made) == []
    flip_in_secret(source)
    assert names(made) == ["linked/1.jpg"]


def test_what_it_was_made_of_belongs_to_a_product_until_it_is_made_anew_or_forgotten(made: Path) -> None:
    images, best = made / "images", made / "best.pth"
    assert products.origin(best) is None
    products.describe([images, best], {"rule": "train"})
    assert products.origin(images) == products.origin(best) == {"rule": "train"}
    os.utime(best, (1, 1))
    assert names(made) == [] and products.origin(best), "new times are noted beside it"
    assert sorted(products.made_with(best)) == [best, images]
    products.record("job", [images, best])
    assert products.origin(best) is None
    assert products.forget(best) and not products.forget(images) and products.expected(best) is None


@pytest.mark.parametrize("name", ["best.pth", "images"])
def test_the_hash_of_a_product_is_that_of_now(made: Path, name: str) -> None:
    path = made / name
    recorded = products.recorded_sha256(path)
    assert recorded and products.sha256_now(path) == recorded
    os.rename(path, made / "elsewhere")
    assert products.sha256_now(path) == recorded, "it was removed to save space"
    os.rename(made / "elsewhere", path)
    flip(path if path.is_file() else path / "类" / "1.jpg")
    now = products.sha256_now(path)
    assert now and now != recorded
    products.record("job", [path])
    assert products.recorded_sha256(path) == now


def test_a_rule_refuses_changed_inputs_before_it_starts_and_records_what_it_makes(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import argparse

    started = []

    def main(_args: argparse.Namespace) -> None:
        started.append(1)
        (made / "table.csv").write_text("a\n")

    words = ["--reads", str(made / "best.pth"), "--makes", str(made / "table.csv"), "--log", str(made / "rule.log")]
    with pytest.raises(SystemExit) as ended:
        run_cli(argparse.ArgumentParser, main, words)
    assert ended.value.code == 0 and names(made) == []
    flip(made / "table.csv")
    assert names(made) == ["table.csv"]
    flip(made / "best.pth")
    with pytest.raises(SystemExit) as ended:
        run_cli(argparse.ArgumentParser, main, words)
    assert ended.value.code == 1 and len(started) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {made}/best.pth is not what was made")
