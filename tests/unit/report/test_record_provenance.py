"""Provenance: true hashes, the result apart from its circumstances; and a page that shows it all and runs nothing."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_run import TinyRun, make_run

from scripts.lib.base.files import hash_weights
from scripts.lib.base.problems import UserError
from scripts.lib.data.archives import HashRecord, format_record
from scripts.lib.data.folders import write_manifest
from scripts.lib.runs import machine
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
    options = ["--run", str(run.folder), "--archive", str(archive), "--splits", str(out / "splits")]
    options += ["--classes", str(run.classes), "--config", str(run.folder / "config.py")]
    options += ["--settings", json.dumps(settings or {}), "--output", str(out / "p.json"), *more]
    record_provenance.main(record_provenance.build_parser().parse_args(options))
    return json.loads((out / "p.json").read_text(encoding="utf-8"))


def test_hashes_are_those_of_the_files(run: TinyRun, tmp_path: Path) -> None:
    provenance = record(run, tmp_path, "--checkpoint", str(run.folder / "best.pth"))
    groups = (provenance["inputs"]["files"], provenance["outputs"], provenance["circumstances"]["files"])
    assert [set(group) for group in groups] == [
        {"archive", "config.py", "classes.txt", "splits/test.txt", "checkpoint"},
        {"best.pth", "metrics.json"},
        {"train_log.csv"},
    ]
    files = groups[0] | groups[1] | groups[2]
    for name, entry in files.items():
        content = Path(entry["path"]).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest(), name
        assert entry["bytes"] == len(content)
    assert files["best.pth"]["weights_sha256"] == files["checkpoint"]["weights_sha256"]


def test_the_archive_is_not_read_again_when_it_has_a_record(run: TinyRun, tmp_path: Path) -> None:
    known = HashRecord("ab" * 32, "https://example.org/a.zip")
    (tmp_path / "archive.sha256").write_text(format_record(known, "archive.zip"))
    entry = record(run, tmp_path, "--archive-record", str(tmp_path / "archive.sha256"))["inputs"]["files"]["archive"]
    assert (entry["sha256"], entry["source"]) == (known.sha256, known.source)
    (tmp_path / "archive.zip").unlink()
    described = record_provenance.describe_archive(tmp_path / "archive.zip", tmp_path / "archive.sha256")
    assert described["sha256"] == known.sha256 and described["bytes"] is None


def test_no_secret_of_several_sources_is_recorded_nor_is_anything_added_to_them() -> None:
    source = [{"url": "https://me:secret@h/a.zip?token=x", "label": "cat"}, {"path": "b.zip"}]
    experiments = {"m": {"base_config": "mobilenet-v2_8xb32_in1k"}}
    settings = record_provenance.complete({"dataset": {"name": "d", "source": source}, "experiments": experiments})
    assert [source.get("path") or source["url"] for source in settings["dataset"]["source"]] == [
        "https://h/a.zip",
        "b.zip",
    ]
    assert settings["dataset"]["source"][0]["label"] == "cat"


def test_images_that_changed_under_a_run_are_not_recorded(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/1.jpg").write_bytes(b"1")
    manifest = tmp_path / "archive_1.jsonl"
    write_manifest(tmp_path / "photos", [tmp_path / "photos/1.jpg"], manifest)
    source = [{"path": "a.zip"}, {"path": str(tmp_path / "photos"), "in_place": True}]
    archives = [tmp_path / "archive_0.zip", manifest]
    record_provenance.check_read_in_place(archives, {"dataset": {"source": source}})
    (tmp_path / "photos/1.jpg").write_bytes(b"12")
    with pytest.raises(UserError, match=r"1\.jpg: changed since the folder was listed"):
        record_provenance.check_read_in_place(archives, {"dataset": {"source": source}})
    record_provenance.check_read_in_place(archives[:1], {})


def test_neither_archive_nor_record_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fetch the data first"):
        record_provenance.describe_archive(tmp_path / "a.zip", tmp_path / "a.sha256")


def test_equal_weights_have_equal_hashes_whatever_the_file_holds_else(tmp_path: Path) -> None:
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}
    torch.save({"state_dict": weights, "meta": {"epoch": 1}}, tmp_path / "1.pth")
    torch.save({"state_dict": dict(reversed(weights.items())), "meta": {"epoch": 2}}, tmp_path / "2.pth")
    torch.save({"state_dict": {**weights, "a": weights["a"].reshape(3, 2)}}, tmp_path / "3.pth")
    torch.save({"state_dict": {**weights, "b": torch.tensor(4)}}, tmp_path / "4.pth")
    hashes = [hash_weights(tmp_path / f"{number}.pth") for number in (1, 2, 3, 4)]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3


def test_run_and_software_are_described(run: TinyRun, tmp_path: Path) -> None:
    provenance = record(run, tmp_path, settings=settings())
    inputs, circumstances = provenance["inputs"], provenance["circumstances"]
    assert provenance["run"] == {"dataset": "demo", "experiment": "tiny", "seed": "seed0"}
    assert inputs["training"] == {"seed": 0, "device": "cpu", "threads": 1, "deterministic": None}
    assert inputs["versions"]["mmcls"] == "0.25.0" and inputs["versions"]["torch"] == torch.__version__
    assert circumstances["training"]["command"] == "mim train mmcls x.py"
    times = {key: circumstances["training"][key] for key in ("epochs", "train_seconds", "val_seconds")}
    assert times == {"epochs": 2, "train_seconds": 60, "val_seconds": 4}
    machine = circumstances["machine"]
    assert machine["cores"] >= 1 and machine["cpu"] and machine["kernels"] and "cudnn" in machine["tf32"]


def test_a_fold_is_part_of_the_run_s_name(run: TinyRun, tmp_path: Path) -> None:
    folder = tmp_path / "demo" / "tiny" / "seed0" / "fold1"
    shutil.copytree(run.folder, folder)
    provenance = record(replace(run, folder=folder), tmp_path)
    assert provenance["run"] == {"dataset": "demo", "experiment": "tiny", "seed": "seed0", "fold": "fold1"}
    assert "splits/test.txt" in provenance["inputs"]["files"], "called as without folds, so that runs compare"


def test_defaults_are_on_record_and_passwords_are_not(run: TinyRun, tmp_path: Path) -> None:
    secret = {"url": "https://me:secret@example.org/a.zip?token=secret", "mirrors": ["https://x.org/a.zip?secret"]}
    recorded = record(run, tmp_path, settings=settings(secret, checkpoint=dict(secret)))["inputs"]["settings"]
    assert recorded["experiments"]["tiny"]["threads"] == 2 and recorded["experiments"]["tiny"]["epochs"] == "auto"
    assert recorded["dataset"]["source"]["url"] == "https://example.org/a.zip"
    assert "secret" not in (tmp_path / "p.json").read_text()


def settings(source: Any = None, **experiment: Any) -> dict[str, Any]:
    experiment = {"base_config": "mobilenet-v2_8xb32_in1k"} | experiment
    dataset = {"name": "demo", "source": source or {"path": "/data/a.zip"}}
    return {"dataset": dataset, "experiments": {"tiny": experiment}, "seeds": [0]}


def test_attempts_and_operations_without_a_deterministic_form_come_from_the_folder_of_this_config(
    run: TinyRun, tmp_path: Path
) -> None:
    config = hashlib.sha256((run.folder / "config.py").read_bytes()).hexdigest()
    for name, identity in (("this", config), ("other", "0" * 64)):
        folder = run.folder / "work" / name
        folder.mkdir(parents=True)
        (folder / "identity.json").write_text(json.dumps({"config.py": identity}))
        start = {"attempt": "a", "start": f"{name} start", "host": "h", "slurm_job_id": "7"}
        end = {"attempt": "a", "end": f"{name} end", "outcome": "finished"}
        (folder / "attempts.jsonl").write_text(f"{json.dumps(start)}\n{json.dumps(end)}")
        (folder / "output.log").write_text(
            f"x.py:1: UserWarning: {name}_cuda does not have a deterministic implementation"
        )
    history = record(run, tmp_path)["circumstances"]["training"]
    assert (history["started"], history["ended"], history["slurm_job_ids"]) == ("this start", "this end", ["7"])
    assert history["nondeterministic_operations"] == ["this_cuda"]


def test_a_changed_file_makes_the_code_dirty_and_no_git_makes_it_unknown(tmp_path: Path) -> None:
    nothing = machine.describe_code(tmp_path)
    assert (nothing["commit"], nothing["dirty"]) == (None, None)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    (tmp_path / "a").write_text("1")
    for command in (["init", "-q"], ["add", "a"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    clean = machine.describe_code(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", clean["commit"]) and clean["dirty"] is False
    (tmp_path / "new, untracked").write_text("")
    assert machine.describe_code(tmp_path)["dirty"] is False
    (tmp_path / "a").write_text("2")
    changed = machine.describe_code(tmp_path)
    assert changed["dirty"] is True and changed["sha256"] == clean["sha256"] == nothing["sha256"]
    (tmp_path / "Snakefile").write_text("")
    assert machine.describe_code(tmp_path)["sha256"] != clean["sha256"], "also without git"
    hashes = {machine.describe_code(tmp_path)["sha256"]}
    for name in (
        "rules/train.smk",
        *(f"scripts/lib/pages/templates/a.{kind}" for kind in ("html", "css", "js", "yaml")),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
        hashes.add(machine.describe_code(tmp_path)["sha256"])
    assert len(hashes) == 6, "rules and templates are code too"


def test_results_that_are_a_link_to_another_disk_are_no_other_code(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    (tmp_path / "results").mkdir()
    (tmp_path / "results/README.md").write_text("")
    (tmp_path / "a").write_text("1")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    shutil.rmtree(tmp_path / "results")
    assert machine.describe_code(tmp_path)["dirty"] is False
    (tmp_path / "a").write_text("2")
    assert machine.describe_code(tmp_path)["dirty"] is True


def test_the_environment_is_the_one_that_the_set_up_stamped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stamp.json").write_text('{"env": "some"}')
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "some.lock").write_text("lock")
    monkeypatch.setattr(machine, "STAMP", tmp_path / "stamp.json")
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    environment = machine.describe_software()["environment"]
    assert environment["name"] == "some"
    assert environment["lock_sha256"] == hashlib.sha256(b"lock").hexdigest()


@pytest.mark.long
def test_the_page_shows_config_and_settings_and_runs_nothing(run: TinyRun, tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    for kept in run.folder.glob("work/*/provenance.json"):  # of the tests before: a run's first record stays
        kept.unlink()
    record(run, tmp_path, "--html", str(tmp_path / "p.html"), settings={"dataset": {hostile: [hostile, None, 1.5]}})
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "<script" not in page and "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not re.search(r"<[^>]+(src|href)=", page)
    assert "MobileNetV2" in page and "苹果" in page, "config.py, with the names of its classes"
    assert torch.__version__ in page


def test_settings_that_are_no_json_are_one_line(run: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--settings: not JSON"):
        record(run, tmp_path, "--settings", "{")
    with pytest.raises(UserError, match=r"--settings: .*unknown key"):
        record(run, tmp_path, settings=settings(epoch=1))


def test_nested_values_become_dotted_rows() -> None:
    rows = record_provenance.flatten({"a": {"b": [{"c": 1}, {"c": None}]}, "d": [1, "x"]})
    assert rows == [("a.b[0].c", "1"), ("a.b[1].c", "-"), ("d", '[1, "x"]')]


@pytest.mark.parametrize("later", ["code", "machine", "page"])
def test_a_record_stays_the_first_one_until_files_change(
    run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: str
) -> None:
    folder = shutil.copytree(run.folder, tmp_path / "seed0")
    mine = replace(run, folder=folder)
    work = folder / "work" / "0"
    work.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256((folder / "config.py").read_bytes()).hexdigest()
    (work / "identity.json").write_text(json.dumps({"config.py": digest}))
    first = record(mine, tmp_path)
    (tmp_path / "p.json").unlink()
    name = {"code": "describe_code", "machine": "describe_machine"}.get(later)
    if name:
        describe = getattr(record_provenance, name)
        monkeypatch.setattr(record_provenance, name, lambda: {**describe(), "host": "other", "sha256": "other"})
    assert record(mine, tmp_path, "--html", str(tmp_path / "p.html"), "--language", "zh") == first
    (folder / "metrics.json").write_text("{}")
    assert record(mine, tmp_path)["outputs"]["metrics.json"] != first["outputs"]["metrics.json"]
