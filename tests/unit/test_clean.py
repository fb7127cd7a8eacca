"""`make clean RUN=...`: what is named goes, with its logs; nothing else does, and nothing that is in use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import clean
from scripts.lib.base import console
from scripts.lib.base.problems import UserError
from scripts.lib.runs.lease import Lease
from scripts.lib.workflow.controller import RECORD, Controller

FILES = ("images/x.jpg", "a/seed0/best.pth", "a/seed1/best.pth", "a/seed2/fold0/best.pth", "a/seed2/fold1/best.pth",
         "b/seed0/best.pth", "leaderboard.csv")  # fmt: skip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with results of two data sets and their logs, in which commands are typed."""
    for name in [f"results/{dataset}/{file}" for dataset in ("mine", "other") for file in FILES]:
        log = Path(name.replace("results/", "logs/", 1)).with_name("train_model.log")
        for file in (Path(name), log):
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text("x")
    (tmp_path / "results/checkpoints").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def there(project: Path) -> set[str]:
    return {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}


def typed(*words: str) -> None:
    clean.main(clean.build_parser().parse_args(["--run", *words]))


@pytest.mark.parametrize(
    "name", ["mine", "mine/a", "mine/a/seed0", "mine/a/seed2/fold1", "../results/mine/b/", "{absolute}/mine/b"]
)
def test_what_is_named_goes_with_its_logs_and_nothing_else(
    name: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = there(project)
    name = name.format(absolute=project / "results")
    typed(str(Path("results", name)))
    folder = os.path.relpath(os.path.normpath(project / "results" / name), project / "results")
    gone = {file for file in before if file.partition("/")[2].startswith(f"{folder}/")}
    assert len(gone) >= 2 and there(project) == before - gone
    assert "1 files" in capsys.readouterr().out or folder.count("/") < 2


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "checkpoints", "mine/images", "mine/a/work", "mine/a/seed0/figures", "mine/a/seed2/fold0/work",
     "../logs", "mine/../..", "/etc"],
)  # fmt: skip
def test_what_is_no_run_and_no_set_of_runs_is_refused(name: str, project: Path) -> None:
    before = there(project)
    with pytest.raises(UserError, match="neither a run, nor an experiment, nor a data set: give results/NAME"):
        typed(str(Path("results", name)))
    assert there(project) == before and (project / "results/checkpoints").is_dir()


def test_what_is_not_there_is_one_line(project: Path) -> None:
    with pytest.raises(UserError, match=r"seed7: there is no such folder: `make watch ARGS=--once` lists the runs"):
        typed("results/mine/a/seed7")


@pytest.fixture
def lease(project: Path) -> Iterator[Lease]:
    """This process trains one of the runs."""
    lease = Lease(project / "results/mine/a/seed1/work/abc")
    lease.acquire()
    yield lease
    lease.release()


def test_a_run_that_trains_stays_and_others_may_go(project: Path, lease: Lease) -> None:
    for name in ("mine", "mine/a", "mine/a/seed1"):
        with pytest.raises(UserError, match=rf"a, seed 1: starting \(process {os.getpid()} on .*\): stop it first"):
            typed(f"results/{name}")
    assert "results/mine/a/seed1/best.pth" in there(project)
    typed("results/mine/a/seed0")
    typed("results/other")
    assert not any(name.startswith(("results/mine/a/seed0", "results/other")) for name in there(project))


def test_while_snakemake_runs_nothing_goes(project: Path) -> None:
    controller = Controller(project / RECORD)
    controller.take(slurm=False)
    try:
        with pytest.raises(UserError, match=r"snakemake runs here .*: wait for it, or stop it with Ctrl-C"):
            typed("results/mine/a/seed0")
    finally:
        controller.release()
    assert "results/mine/a/seed0/best.pth" in there(project)


def test_of_a_data_set_on_another_disk_folder_and_link_go_and_of_images_only_the_links(project: Path) -> None:
    (project / "photographs").mkdir()
    (project / "photographs/mine.jpg").write_text("x")
    (project / "results/mine").rename(project / "on_another_disk")
    (project / "results/mine").symlink_to(project / "on_another_disk")
    (project / "results/mine/images/mine.jpg").symlink_to(project / "photographs/mine.jpg")
    typed("results/mine")
    assert not os.path.lexists(project / "results/mine") and not (project / "on_another_disk").exists()
    assert (project / "photographs/mine.jpg").is_file()


@pytest.mark.parametrize(("answer", "goes"), [("y\n", True), ("\n", False), ("no\n", False), ("", False)])
def test_a_person_at_a_terminal_is_asked(
    answer: str, goes: bool, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Keyboard:
        isatty = staticmethod(lambda: True)
        readline = staticmethod(lambda: answer)

    monkeypatch.setattr(console.sys, "stdin", Keyboard)
    typed("results/mine/b")
    assert (project / "results/mine/b").exists() != goes
    told = capsys.readouterr().out
    assert "results/mine/b: 1 files" in told and ("removed; the next" if goes else "nothing was removed") in told
