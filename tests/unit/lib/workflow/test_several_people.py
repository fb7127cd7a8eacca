"""A results folder that two people of a group share: each replaces what the other made, and one controls it."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from people import ALICE, BOB, GROUP, as_user, run_where_others_are_hidden, shared_folder

from scripts.lib.base import products
from scripts.lib.base.disks import check_folders, share_with_group
from scripts.lib.base.files import atomic_path, write_text
from scripts.lib.base.problems import UserError
from scripts.lib.cluster import slurm
from scripts.lib.workflow.controller import RECORD, Controller, clear_the_way


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with shared_folder() as folder, monkeypatch.context() as patch:
        patch.chdir(folder)
        yield folder


def make(text: str) -> None:
    """What a job does: files under new names, in new folders, and what says how they were made."""
    share_with_group(Path.cwd())
    write_text(Path("results/small/run/metrics.json"), text)
    with atomic_path(Path("results/small/images")) as images:
        (images / "apple").mkdir(parents=True)
        (images / "apple/1.jpg").write_text(text)
    products.record("a_job", [Path("results/small/run/metrics.json"), Path("results/small/images")])
    log = Path("logs/small/a.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text(text)


def test_what_one_has_made_the_other_replaces(folder: Path) -> None:
    assert as_user(ALICE, lambda: make("alice")) == ""
    assert as_user(BOB, lambda: check_folders(Path("results/small"))) == ""
    assert as_user(BOB, lambda: make("bob")) == ""
    assert as_user(ALICE, lambda: make("alice again")) == ""
    assert (folder / "results/small/images/apple/1.jpg").read_text() == "alice again"
    for path in Path("results").rglob("*"):
        assert path.stat().st_gid == GROUP and path.stat().st_mode & 0o020, path


def test_a_folder_that_is_not_shared_stays_its_owners(folder: Path) -> None:
    folder.chmod(0o755)
    assert as_user(ALICE, lambda: make("alice")) == ""
    assert Path("results/small/run").stat().st_mode & 0o777 == 0o755
    folder.chmod(0o2775)  # too late: what is in it is closed
    line = as_user(BOB, lambda: check_folders(Path("results/small")))
    assert line.startswith(
        f"{folder}/results/small is a folder of {ALICE}, in which you cannot write: {ALICE} can share it"
    )
    assert "\n" not in line
    for command in line.split("`")[1].replace("GROUP", str(GROUP)).split(" && "):
        subprocess.run(["sh", "-c", command], check=True)
    assert as_user(BOB, lambda: make("bob")) == ""
    assert as_user(ALICE, lambda: check_folders(Path("results/small"))) == ""


def take_and_wait(reading: int) -> None:
    share_with_group(Path.cwd())
    Controller().take(slurm=False)
    os.read(reading, 1)


def test_one_controls_the_folder_and_the_other_is_told_who(folder: Path) -> None:
    reading, writing = os.pipe()
    alice = os.fork()
    if alice == 0:
        os.close(writing)
        as_user(ALICE, lambda: take_and_wait(reading))
        os._exit(0)
    try:
        while not RECORD.exists():
            os.sched_yield()
        line = as_user(BOB, lambda: clear_the_way({}))
        assert "another snakemake runs this workflow in this folder (process " in line
        assert f" of {ALICE} on {socket.gethostname()})" in line
    finally:
        os.close(writing)
        os.waitpid(alice, 0)
    assert as_user(BOB, lambda: clear_the_way({})) == ""


def test_one_whose_processes_are_hidden_counts_as_alive_by_its_heartbeat(folder: Path) -> None:
    """On login nodes with hidepid=2, nobody sees whether a colleague's process is there."""
    program = """
import os, time
from pathlib import Path
from people import ALICE, BOB, as_user
from scripts.lib.workflow.controller import LOCKS, RECORD, Controller, clear_the_way
from scripts.lib.base.disks import share_with_group
LOCKS.mkdir(parents=True); (LOCKS / "0.input.lock").touch()
os.chmod(RECORD.parent, 0o2777); os.chmod(LOCKS, 0o2777)
as_user(ALICE, lambda: Controller().take(slurm=False))  # and ends: which another user cannot tell
print(as_user(BOB, lambda: clear_the_way({})))
os.utime(RECORD, (time.time() - 3600,) * 2)
print(as_user(BOB, lambda: clear_the_way({})), LOCKS.exists())
as_user(ALICE, lambda: Controller().take(slurm=False))
print(as_user(ALICE, lambda: clear_the_way({})), LOCKS.exists())
"""
    lines = run_where_others_are_hidden(program, folder).splitlines()
    assert "another snakemake runs this workflow in this folder (process " in lines[0]
    assert lines[1:] == [" True", " False"]  # it may live, and only the user can know; one's own is seen to be dead


def test_two_that_start_at_the_same_moment_are_one(folder: Path) -> None:
    first, second = Controller(), Controller()
    clear_the_way({}, first)
    clear_the_way({}, second)
    first.take(slurm=False)
    with pytest.raises(UserError, match=rf"another snakemake runs .* \(process {os.getpid()} on"):
        second.take(slurm=False)
    assert sorted(path.name for path in RECORD.parent.iterdir()) == [RECORD.name]
    first.release()


def test_jobs_that_a_colleague_left_behind_are_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = {str(ALICE): [SimpleNamespace(id="11"), SimpleNamespace(id="12")]}
    monkeypatch.setattr(slurm, "my_jobs", lambda _folder, user="": jobs.get(user, []))
    Path(".snakemake").mkdir(mode=0o777)
    Path(".snakemake").chmod(0o777)
    as_user(ALICE, lambda: Controller().take(slurm=True))
    line = as_user(BOB, lambda: clear_the_way({}))
    assert line.startswith(f"Slurm jobs 11,12 of {ALICE}, whose snakemake (process ") and "\n" not in line
    assert line.endswith(f"wait for their end, or have {ALICE} cancel them: `scancel 11,12`") and RECORD.exists()
    jobs.clear()
    assert as_user(BOB, lambda: clear_the_way({})) == "" and not RECORD.exists()
