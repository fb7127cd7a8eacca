"""Provenance: true hashes, the same for equal weights; and a page that shows it all and runs nothing."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import TinyRun, make_run

from scripts.console import UserError
from scripts.data.fetch_archive import Record, format_record
from scripts.report import record_provenance


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> TinyRun:
    return make_run(tmp_path_factory.mktemp("run"), per_class=1)


def record(run: TinyRun, out: Path, *more: str, settings: Any = None) -> dict[str, Any]:
    archive = out / "archive.zip"
    if not archive.exists():
        archive.write_bytes(b"an archive")
    (out / "splits").mkdir(exist_ok=True)
    (out / "splits" / "test.txt").write_text("a b 0\n")
    options = ["--run-dir", str(run.folder), "--archive", str(archive), "--splits", str(out / "splits")]
    options += ["--classes", str(run.classes), "--config", str(run.folder / "config.py")]
    options += ["--settings", json.dumps(settings or {}), "--output", str(out / "p.json"), *more]
    record_provenance.main(record_provenance.build_parser().parse_args(options))
    return json.loads((out / "p.json").read_text(encoding="utf-8"))


def test_hashes_are_those_of_the_files(run: TinyRun, tmp_path: Path) -> None:
    files = record(run, tmp_path, "--checkpoint", str(run.folder / "best.pth"))["files"]
    assert set(files) == {
        "archive", "config.py", "classes.txt", "splits/test.txt", "checkpoint", "best.pth", "train_log.csv",
        "metrics.json",
    }  # fmt: skip
    for name, entry in files.items():
        content = Path(entry["path"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest(), name
        assert entry["bytes"] == len(content)
    assert files["best.pth"]["weights_sha256"] == files["checkpoint"]["weights_sha256"]


def test_the_archive_is_not_read_again_when_it_has_a_record(run: TinyRun, tmp_path: Path) -> None:
    known = Record("ab" * 32, "https://example.org/a.zip")
    (tmp_path / "archive.sha256").write_text(format_record(known, "archive.zip"))
    entry = record(run, tmp_path, "--archive-record", str(tmp_path / "archive.sha256"))["files"]["archive"]
    assert (entry["sha256"], entry["source"]) == (known.sha256, known.source)
    (tmp_path / "archive.zip").unlink()
    described = record_provenance.describe_archive(tmp_path / "archive.zip", tmp_path / "archive.sha256")
    assert described["sha256"] == known.sha256 and described["bytes"] is None


def test_neither_archive_nor_record_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fetch the data first"):
        record_provenance.describe_archive(tmp_path / "a.zip", tmp_path / "a.sha256")


def test_equal_weights_have_equal_hashes_whatever_the_file_holds_else(tmp_path: Path) -> None:
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}
    torch.save({"state_dict": weights, "meta": {"epoch": 1}}, tmp_path / "1.pth")
    torch.save({"state_dict": dict(reversed(weights.items())), "meta": {"epoch": 2}}, tmp_path / "2.pth")
    torch.save({"state_dict": {**weights, "a": weights["a"].reshape(3, 2)}}, tmp_path / "3.pth")
    torch.save({"state_dict": {**weights, "b": torch.tensor(4)}}, tmp_path / "4.pth")
    hashes = [record_provenance.hash_weights(tmp_path / f"{number}.pth") for number in (1, 2, 3, 4)]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3


def test_run_and_software_are_described(run: TinyRun, tmp_path: Path) -> None:
    provenance = record(run, tmp_path, settings={"base_config": "x"})
    described = provenance["run"]
    assert (described["seed"], described["device"], described["threads"]) == (0, "cpu", 1)
    assert described["command"] == "mim train mmcls x.py"
    assert (described["epochs"], described["train_seconds"], described["val_seconds"]) == (2, 60, 4)
    assert provenance["versions"]["mmcls"] == "0.25.0" and provenance["versions"]["torch"] == torch.__version__
    assert provenance["settings"] == {"base_config": "x"}
    assert provenance["machine"]["cores"] >= 1 and provenance["machine"]["cpu"]


def test_a_changed_file_makes_the_code_dirty_and_no_git_makes_it_unknown(tmp_path: Path) -> None:
    assert record_provenance.describe_code(tmp_path) == {"commit": None, "dirty": None}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    (tmp_path / "a").write_text("1")
    for command in (["init", "-q"], ["add", "a"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    clean = record_provenance.describe_code(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", clean["commit"]) and clean["dirty"] is False
    (tmp_path / "new, untracked").write_text("")
    assert record_provenance.describe_code(tmp_path)["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert record_provenance.describe_code(tmp_path)["dirty"] is True


def test_the_environment_is_the_one_that_the_set_up_stamped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stamp.json").write_text('{"env": "some"}')
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "some.lock").write_text("lock")
    monkeypatch.setattr(record_provenance, "STAMP", tmp_path / "stamp.json")
    monkeypatch.setattr(record_provenance, "ROOT", tmp_path)
    environment = record_provenance.describe_software()["environment"]
    assert environment["name"] == "some"
    assert environment["lock_sha256"] == hashlib.sha256(b"lock").hexdigest()


def test_the_page_shows_config_and_settings_and_runs_nothing(run: TinyRun, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    record(run, tmp_path, "--html", str(tmp_path / "p.html"), settings={"a": {hostile: [hostile, None, 1.5]}})
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not re.search(r"<[^>]+(src|href)=", page)
    assert "MobileNetV2" in page and "苹果" in page, "config.py, with the names of its classes"
    assert torch.__version__ in page


def test_settings_that_are_no_json_are_one_line(run: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--settings: not JSON"):
        record(run, tmp_path, "--settings", "{")


def test_nested_values_become_dotted_rows() -> None:
    rows = record_provenance._flatten({"a": {"b": [{"c": 1}, {"c": None}]}, "d": [1, "x"]})
    assert rows == [("a.b[0].c", "1"), ("a.b[1].c", "-"), ("d", '[1, "x"]')]
