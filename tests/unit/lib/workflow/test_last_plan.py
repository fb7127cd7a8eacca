"""A plan that found nothing to do: remembered only as long as nothing that decided it has changed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.lib.workflow import last_plan
from scripts.lib.workflow.last_plan import FOLDER, LEFT, LastPlan, facts_of, is_plain, named_files

PRODUCTS = ["results/d", "results/checkpoints", *LEFT]
SETTINGS = {"dataset": {"source": {"path": "mine.zip"}}, "classes": ["", ".", "~", "a\0b", "there may be such a file"]}
RUN = "results/d/quick/seed0"
FILES = [
    "mine.zip", "results/d/archive.zip", "results/d/images/a.jpg", "results/d/images/link.jpg", f"{RUN}/best.pth",
    f"{RUN}/.made/train_model.json", "results/d/.made/images.files.jsonl", "results/d/report.html",
    "results/checkpoints/a.pth", "photos/b.jpg", "code/Snakefile", "code/rules/a.smk", "code/envs/cpu.lock",
    ".snakemake/metadata/abc", f"{RUN}/figures/curves.svg",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run as a plan sees it, one of whose images is a link; the clock of files is taken to be fine."""
    folder = tmp_path / "project"
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if not name.endswith("link.jpg"):
            (folder / name).write_text(f"content of {name}")
    (folder / "results/d/images/link.jpg").symlink_to(folder / "photos/b.jpg")
    (folder / f"{RUN}/in_circles").symlink_to(folder / "results/d")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(os, "fsync", lambda _file: None)  # waiting for the disk is no part of this
    monkeypatch.setattr(last_plan, "CODE", ["code/Snakefile", "code/rules", "code/envs", "code/stamp.json"])
    monkeypatch.setattr(last_plan, "CLOCK_SECONDS", -1e6)
    return folder


def plan(facts: Any = None) -> LastPlan:
    return LastPlan(facts, PRODUCTS, named_files(SETTINGS), lambda: [])


def touch(path: Path) -> None:
    os.utime(path)


def replace_by_the_same(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy2(path, copy)
    os.replace(copy, path)


def change_a_byte(path: Path) -> None:
    status, content = path.stat(), path.read_bytes()
    path.write_bytes(b"C" + content[1:])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def truncate(path: Path) -> None:
    status = path.stat()
    os.truncate(path, 3)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def rename(path: Path) -> None:
    path.rename(path.with_name("other"))


def make_a_folder_of_it(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES = [touch, replace_by_the_same, change_a_byte, truncate, rename, make_a_folder_of_it, Path.unlink]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", FILES)
def test_no_file_changes_unseen(name: str, change: Callable[[Path], None], folder: Path) -> None:
    plan().remember("a note")
    assert plan().note() == "a note"
    change(folder / name)
    assert plan().note() is None


@pytest.mark.parametrize(
    "name",
    [
        "results/d/images/new.jpg", f"{RUN}/new.txt", "results/checkpoints/b.pth", "code/rules/new.smk",
        ".snakemake/incomplete/abc", ".snakemake/locks/0.input.lock", ".snakemake/mimflow-controller.json",
        "there may be such a file", "code/stamp.json",
    ],
)  # fmt: skip
def test_what_comes_is_seen(name: str, folder: Path) -> None:
    plan().remember("")
    assert plan().note() == ""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).touch()
    assert plan().note() is None


@pytest.mark.parametrize("way", ["copied", "moved", "without .snakemake", "other settings", "other words"])
def test_another_folder_or_command_has_a_plan_of_its_own(
    way: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan().remember("")
    facts = None
    if way == "copied":
        monkeypatch.chdir(shutil.copytree(folder, folder.with_name("copy"), symlinks=True))
    elif way == "moved":
        monkeypatch.chdir(folder.rename(folder.with_name("other")))
    elif way == "without .snakemake":
        shutil.rmtree(folder / ".snakemake")
    elif way == "other settings":
        facts = {"settings": 1}
    else:
        monkeypatch.setattr(sys, "argv", [*sys.argv, "train_model"])
    assert plan(facts).note() is None


@pytest.mark.parametrize("name", ["mine.zip", f"{RUN}/best.pth", "code/Snakefile", "results/d/images/a.jpg"])
def test_what_changes_while_it_is_planned_is_not_remembered(name: str, folder: Path) -> None:
    planning = plan()
    touch(folder / name)
    planning.remember("")
    assert plan().note() is None and not list(FOLDER.iterdir())


def run_of(
    planning: LastPlan, note: str | None = "of a run", while_compared: Callable[[], None] = lambda: None
) -> None:
    def find_note() -> str | None:
        while_compared()
        return note

    planning.remember_run(find_note)


def test_a_run_that_ended_well_is_remembered(folder: Path) -> None:
    planning = plan()
    change_a_byte(folder / f"{RUN}/best.pth")  # as a run does
    (folder / f"{RUN}/new.txt").touch()
    run_of(planning)
    assert plan().note() == "of a run"


@pytest.mark.parametrize("name", ["mine.zip", "code/rules/a.smk", "code/rules/new.smk", "there may be such a file"])
def test_a_run_whose_code_or_archive_changed_meanwhile_is_not_remembered(name: str, folder: Path) -> None:
    planning = plan()
    (folder / name).write_text("another")
    run_of(planning)
    assert plan().note() is None


@pytest.mark.parametrize("name", ["mine.zip", f"{RUN}/best.pth", f"{RUN}/new.txt", ".snakemake/incomplete/a"])
def test_a_run_is_not_remembered_where_something_changes_while_it_is_looked_at(name: str, folder: Path) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    run_of(plan(), while_compared=lambda: (folder / name).touch())
    assert plan().note() is None


def test_a_good_run_does_not_fail_of_files_that_go_while_they_are_looked_at(folder: Path) -> None:
    run_of(plan(), while_compared=lambda: (folder / "gone").unlink())
    assert plan().note() is None


def test_a_run_after_which_there_is_something_to_do_is_not_remembered(folder: Path) -> None:
    run_of(plan(), note=None)
    assert plan().note() is None


@pytest.mark.parametrize("name", ["mine.zip", f"{RUN}/best.pth", f"{RUN}/.made/train_model.json"])
def test_a_change_within_one_tick_of_the_clock_is_seen(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what is too new for its times to tell a later change, the content counts."""
    find_states = last_plan._states
    same = find_states(name)
    monkeypatch.setattr(last_plan, "_states", lambda path: same if path == name else find_states(path))
    monkeypatch.setattr(last_plan, "CLOCK_SECONDS", 60.0)
    monkeypatch.setattr(last_plan, "CODE", [])
    plan().remember("")
    assert plan().note() == ""
    change_a_byte(folder / name)
    assert plan().note() is None


def test_where_much_is_new_nothing_is_remembered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_plan, "CLOCK_SECONDS", 60.0)
    monkeypatch.setattr(last_plan, "CODE", [])
    monkeypatch.setattr(last_plan, "ALWAYS_BYTES", 100)
    plan().remember("")
    assert plan().note() is None and not list(FOLDER.iterdir())


def test_code_that_changed_since_this_process_began_is_not_sure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_plan, "CLOCK_SECONDS", 0.0)
    plan().remember("")
    assert plan().note() is None and not list(FOLDER.iterdir())


def test_a_folder_that_cannot_be_looked_at_leads_to_a_plan(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: str) -> Any:
        raise PermissionError

    plan().remember("")
    monkeypatch.setattr(os, "listdir", refuse)
    planning = plan()
    planning.remember("")
    assert planning.note() is None


def test_the_folder_that_images_come_from_is_looked_at(folder: Path) -> None:
    LastPlan(None, PRODUCTS, [], lambda: ["a"]).remember("")
    assert LastPlan(None, PRODUCTS, [], lambda: ["a"]).note() == ""
    assert LastPlan(None, PRODUCTS, [], lambda: ["b"]).note() is None


@pytest.mark.parametrize("words", ["-n", "--forcerun x", "-R x", "--until x", "--unlock", "--report", "-F", "--touch"])
def test_another_option_leads_to_a_plan(words: str) -> None:
    workflow = SimpleNamespace(main_snakefile=last_plan.CODE[0], modifier=SimpleNamespace(skip_configfile=False))
    usual = ["--profile=profiles/slurm", "--configfile", "configs/mine.yaml", "--config", "a=--b"]
    assert is_plain(workflow, usual) and not is_plain(workflow, [*usual, *words.split()])
    workflow.main_snakefile = "/elsewhere/Snakefile"
    assert not is_plain(workflow, usual)


@pytest.mark.parametrize("name", ["packages", "variables", "python", "snakemake"])
def test_environment_and_options_are_part_of_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("dag", "deployment", "execution", "storage", "workflow")
    workflow = SimpleNamespace(**{f"{section}_settings": {"forceall": False} for section in names})
    before = facts_of(workflow, {"MIMFLOW_SITE": "a", "HOME": "/b", "TERM": "c"})
    assert before == facts_of(workflow, {"MIMFLOW_SITE": "a", "HOME": "/b", "TERM": "d", "MIMFLOW_LIVE": "1"})
    variables = {"MIMFLOW_SITE": "a", "HOME": "/c" if name == "variables" else "/b"}
    if name == "packages":
        monkeypatch.setattr(os, "listdir", lambda _folder: ["snakemake-9.99.dist-info"])
    elif name == "python":
        monkeypatch.setattr(sys, "version", "3.99")
    elif name == "snakemake":
        workflow.dag_settings = {"forceall": True}
    after = facts_of(workflow, variables)
    assert {key for key in before if before[key] != after[key]} == {name}


def test_the_weights_of_a_run_to_start_from_are_looked_at() -> None:
    experiments = {"a": {"checkpoint": {"run": "results/other/b/seed0"}}}
    assert "results/other/b/seed0/best.pth" in list(named_files({"experiments": experiments}))
