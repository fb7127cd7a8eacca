"""`make jobs` and `make cancel`: what they show of this project's jobs, and that they touch no others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from slurm_programs import Program, printing, squeue_line

from scripts import cancel, jobs
from scripts.lib.base.problems import UserError
from scripts.lib.cluster import slurm
from scripts.lib.cluster.slurm import Job
from scripts.lib.workflow import job_table
from scripts.lib.workflow.controller import RECORD, Controller

PROGRESS = {"epochs_done": 3, "max_epochs": 5, "iteration": 30, "loss": 0.412, "val_accuracy": 0.912}
LINE = "epoch 3/5  loss 0.412  val accuracy 91.2 %"


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    """One for the test's folder, whose heartbeat ends with the test."""
    controller = Controller(tmp_path / RECORD)
    yield controller
    controller.release()


def job(**fields: str) -> Job:
    (job,) = slurm.parse_squeue(squeue_line(**fields))
    return job


def work(root: Path, run: str, identity: str = "abc", holder: str | None = None, **progress: Any) -> Path:
    """A folder in which a run is trained: its progress, and the lease of a Slurm job."""
    folder = root / "results" / run / "work" / identity
    folder.mkdir(parents=True)
    (folder / "progress.json").write_text(json.dumps(PROGRESS | progress))
    if holder:
        (folder / "lease.json").write_text(json.dumps({"token": "x", "host": "g1", "pid": 1, "job": holder}))
    return folder


@pytest.mark.parametrize(
    ("comment", "run"),
    [
        ("rule_run_demo_mobilenet-v2_0_evaluate_model_patch_config_plot_confusion_matrix_...", "demo mobilenet-v2 0"),
        ("rule_run_my_data_exp_2_12_train_model", "my_data exp_2 12"),
        ("rule_run_my_other_exp_2_12_train_model", "my other_exp_2 12"),
        ("rule_run_new_exp_3_train_model", "new exp 3"),
        ("rule_run_demo_a_0_fold3_patch_config_train_model", "demo a 0 3"),
        ("rule_run_my_data_exp_2_12_fold10_train_model", "my_data exp_2 12 10"),
        ("rule_run_demo_a_fold3_0_train_model", "demo a_fold3 0"),
        ("rule_data_demo_split_dataset_unpack_archive", None),
        ("", None),
    ],
)
def test_a_comment_names_the_run_with_underscores_too(comment: str, run: str | None, tmp_path: Path) -> None:
    (tmp_path / "results/my_data/exp_2/seed12").mkdir(parents=True)
    (tmp_path / "results/my_data/exp_2/seed12/fold10").mkdir(parents=True)
    (tmp_path / "results/my/archive").mkdir(parents=True)
    (tmp_path / "results/demo").mkdir(parents=True)
    named = job_table.run_of(comment, tmp_path)
    assert (None if named is None else f"{named.dataset} {named.experiment} {named.seed} {named.fold}".strip()) == run


def test_jobs_are_called_by_what_they_are_for(tmp_path: Path) -> None:
    assert job_table.label(job(Comment="rule_run_demo_a_0_train_model"), tmp_path) == "a, seed 0"
    assert job_table.label(job(Comment="rule_run_demo_a_0_fold1_train_model"), tmp_path) == "a, seed 0, fold 1"
    assert job_table.label(job(Comment="rule_data_my_set_split_dataset_unpack_archive"), tmp_path) == "data: my_set"
    assert job_table.label(job(Name=slurm.ALLOCATION_NAME), tmp_path) == "the whole workflow"
    assert job_table.label(job(Comment="(null)"), tmp_path) == "mimflow_1111"


def test_progress_is_that_of_the_folder_that_the_job_holds(tmp_path: Path) -> None:
    work(tmp_path, "demo/a/seed0", "held", holder="11")
    os.utime(work(tmp_path, "demo/a/seed0", "newer", epochs_done=1) / "progress.json", (2e9, 2e9))
    comment = {"Comment": "rule_run_demo_a_0_train_model"}
    assert job_table.progress(job(**comment), tmp_path) == [LINE]
    assert job_table.progress(job(**comment, JobID="12"), tmp_path) == [LINE.replace("3/5", "1/5")]
    assert job_table.progress(job(**comment, JobID="12", State="PENDING"), tmp_path)[0].startswith("so far: epoch 1/5")
    assert job_table.progress(job(Comment="rule_run_demo_a_1_train_model", JobID="14"), tmp_path) == []


def test_progress_of_a_fold_is_its_own(tmp_path: Path) -> None:
    for fold in (0, 1):
        work(tmp_path, f"demo/a/seed0/fold{fold}", holder=f"1{fold}", epochs_done=fold + 1)
    comments = [{"Comment": f"rule_run_demo_a_0_fold{fold}_train_model", "JobID": "7"} for fold in (0, 1)]
    lines = [LINE.replace("3/5", f"{fold + 1}/5") for fold in (0, 1)]
    assert [job_table.progress(job(**comment), tmp_path) for comment in comments] == [[line] for line in lines]
    assert job_table.progress(job(Name=slurm.ALLOCATION_NAME, JobID="11"), tmp_path) == [f"a, seed0, fold1: {lines[1]}"]


def test_an_allocation_shows_each_run_that_trains_in_it(tmp_path: Path) -> None:
    for seed, holder in [(0, "11"), (1, "11"), (2, "99")]:
        work(tmp_path, f"demo/a/seed{seed}", holder=holder)
    lines = job_table.progress(job(Name=slurm.ALLOCATION_NAME), tmp_path)
    assert lines == [f"a, seed0: {LINE}", f"a, seed1: {LINE}"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"epochs_done": 1, "max_epochs": 2, "loss": "x"}'])
def test_a_progress_that_cannot_be_read_is_left_out(text: str, tmp_path: Path) -> None:
    (work(tmp_path, "demo/a/seed0") / "progress.json").write_text(text)
    assert job_table.progress(job(Comment="rule_run_demo_a_0_train_model"), tmp_path) == []


def test_the_table_is_aligned_and_says_what_will_not_start(tmp_path: Path) -> None:
    work(tmp_path, "demo/苹果/seed0")
    lines = [
        squeue_line(Comment="rule_run_demo_苹果_0_train_model", TimeUsed="1:00:05", TimeLimit="2-00:00:00"),
        squeue_line(JobID="12345", State="PENDING", Reason="PartitionTimeLimit", NodeList="", TimeLimit="UNLIMITED"),
    ]
    text = job_table.render(slurm.parse_squeue("\n".join(lines)), tmp_path).splitlines()
    assert text[1].split()[:4] == ["11", "running", "苹果,", "seed"] and text[1].endswith(LINE)
    assert "pending (PartitionTimeLimit)" in text[2]
    assert text[1].split("  epoch")[0].split()[-3:] == ["1:00:05", "2-00:00:00", "1"]
    ends = [text[0].removesuffix("  progress"), text[1].split("  epoch")[0], text[2]]
    assert len(set(map(cell_len, ends))) == 1
    assert text[3] == "12345 will not start by itself: it asks for more time than is allowed: lower `runtime`"


def show(folder: Path) -> None:
    jobs.main(jobs.build_parser().parse_args(["--folder", str(folder)]))


def test_no_jobs_and_no_slurm_are_said_plainly(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="there is no Slurm on this machine"):
        show(tmp_path)
    printing(program, "squeue")
    show(tmp_path)
    assert capsys.readouterr().out == f"no Slurm job of {tmp_path} is queued or running\n"


def test_it_says_whether_a_snakemake_waits_for_the_jobs(
    program: Program, tmp_path: Path, controller: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    printing(program, "squeue", squeue_line(WorkDir=str(tmp_path)))
    show(tmp_path)
    assert "no snakemake waits for these jobs" in capsys.readouterr().out
    controller.take(slurm=True)
    show(tmp_path)
    assert f"controlled by process {os.getpid()}" in capsys.readouterr().out


# --- make cancel ------------------------------------------------------------------------------------------------------


def cluster(program: Program, folder: Path) -> Path:
    """Programs of Slurm's with two jobs of this project and a foreign one; return the file of what scancel is told."""
    queue = folder / "queue"
    queue.mkdir()
    for number, where in [("11", folder), ("12", folder), ("13", folder / "elsewhere")]:
        (queue / number).write_text(squeue_line(JobID=number, WorkDir=str(where)) + "\n", encoding="utf-8")
    program("squeue", f"cat {queue}/*")
    program("scancel", f'echo "$@" >> {folder}/cancelled; for job; do : > {queue}/$job; done')
    return folder / "cancelled"


def run_cancel(folder: Path, *options: str) -> None:
    cancel.main(cancel.build_parser().parse_args([*options, "--folder", str(folder)]))


def test_all_jobs_of_the_project_are_cancelled_and_no_other(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cancelled = cluster(program, tmp_path)
    run_cancel(tmp_path)
    assert cancelled.read_text() == "11 12\n"
    output = capsys.readouterr().out
    assert "cancelling 2 jobs: 11, 12" in output and "states are kept" in output
    run_cancel(tmp_path)
    assert "nothing to cancel" in capsys.readouterr().out


def test_some_jobs_can_be_named_but_none_of_others(program: Program, tmp_path: Path) -> None:
    cancelled = cluster(program, tmp_path)
    with pytest.raises(UserError, match=r"^13: no queued or running job of this project"):
        run_cancel(tmp_path, "12", "13")
    assert not cancelled.exists()
    run_cancel(tmp_path, "12", "--yes")
    assert cancelled.read_text() == "12\n"


@pytest.mark.parametrize(("answer", "done"), [("y\n", True), ("\n", False), ("n\n", False), ("", False)])
def test_a_person_is_asked(
    answer: str,
    done: bool,
    program: Program,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cancelled = cluster(program, tmp_path)
    ours, theirs = os.openpty()
    os.write(ours, answer.encode() or b"\x04")
    with open(theirs, encoding="utf-8") as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        run_cancel(tmp_path)
    os.close(ours)
    assert "cancel these 2 jobs? [y/N]" in capsys.readouterr().out
    assert cancelled.exists() is done


def test_a_living_snakemake_that_would_submit_them_again_is_named(
    program: Program, tmp_path: Path, controller: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster(program, tmp_path)
    controller.take(slurm=True)
    run_cancel(tmp_path)
    assert "may submit them again: stop it first with Ctrl-C" in capsys.readouterr().out


def test_jobs_that_do_not_end_are_named(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster(program, tmp_path)
    program("scancel", "exit 0")
    monkeypatch.setattr(cancel, "CANCEL_PATIENCE_SECONDS", 0.1)
    with pytest.raises(UserError, match="Slurm jobs 11, 12 do not end"):
        run_cancel(tmp_path)
