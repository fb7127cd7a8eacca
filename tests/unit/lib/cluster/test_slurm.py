"""What is read out of Slurm's programs, and what a user is told when they do not answer."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path

import pytest
from slurm_programs import PENDING, Program, printing, squeue_line

from scripts.lib.base.problems import UserError
from scripts.lib.cluster import slurm
from scripts.lib.cluster.slurm import SACCT_FIELDS, SEPARATOR, Job


def test_squeue_is_read() -> None:
    running, pending = slurm.parse_squeue(f"CLUSTER: hpc\n{squeue_line()}\n{squeue_line(**PENDING)}\n")
    assert (running.id, running.state, running.reason, running.nodes) == ("11", "RUNNING", "", "g1")
    assert (running.used, running.limit, running.gpus, running.ends) == (2, 300, 1, 1795427221)
    assert (running.comment, running.folder) == ("rule_run_demo_a_0_train_model 中文", "/home/a user/mimflow")
    assert (pending.limit, pending.started, pending.ends, pending.comment) == (93600, None, None, "")
    assert not running.has_ended and running.remedy is None and "lower `runtime`" in str(pending.remedy)


def test_gpus_are_found_where_the_site_does_not_account_for_them() -> None:
    bare = {"tres_alloc": "cpu=1,node=2", "NumNodes": "2"}
    asked = [
        squeue_line(**bare, tres_per_job="gres:gpu:3"),
        squeue_line(**bare, tres_per_job="N/A", tres_per_node="gres:gpu:rtx3090:4"),
        squeue_line(**bare, tres_per_job="N/A", tres_per_node="N/A"),
    ]
    assert [job.gpus for job in slurm.parse_squeue("\n".join(asked))] == [3, 8, 0]


@pytest.mark.parametrize(
    ("resources", "count"),
    [
        ("cpu=6,gres/gpu=2,gres/gpu:rtx3090=2,mem=1G", 2),
        ("gres/gpu:a100=1,gres/gpu:rtx3090=2", 3),
        ("gres:gpu", 1),
        ("gpu:2", 2),
        ("gres:gpu:rtx3090:2", 2),
        ("gpu:rtx3090:2(IDX:0-1)", 2),
        ("gres:gpu:rtx3090", 1),
        ("billing=4,cpu=4,gres/gpumem=24G", 0),
        ("gres/shard=4", 0),
        ("N/A", 0),
        ("", 0),
    ],
)
def test_gpus_are_counted(resources: str, count: int) -> None:
    assert slurm.count_gpus(resources) == count


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0:05", 5), ("59:59", 3599), ("1:02:03", 3723), ("2-00:00:01", 172801), ("UNLIMITED", None), ("INVALID", None)],
)
def test_durations_are_read(text: str, seconds: float | None) -> None:
    assert slurm.parse_duration(text) == seconds


def test_times_are_read_in_seconds_and_as_local_time() -> None:
    assert slurm.parse_time("1795426921") == 1795426921
    assert slurm.parse_time("2026-11-23T09:41:00") == datetime(2026, 11, 23, 9, 41).timestamp()
    assert [slurm.parse_time(text) for text in ("N/A", "Unknown", "None", "NONE", "", "0")] == [None] * 6


def test_all_stays_of_a_requeued_job_are_counted(program: Program) -> None:
    rows = [
        ["11", "mimflow_1", "COMPLETED", "1795426935", "1795426951", "1795427000", "49", "cpu=1,gres/gpu=2", "0"],
        ["11", "mimflow_1", "REQUEUED", "1795426921", "1795426930", "1795426935", "5", "cpu=1,gres/gpu=2", ""],
        ["12", "mimflow_1", "CANCELLED by 0", "1795426921", "None", "1795426935", "0", "", "18446744073709551614"],
        ["13", "mimflow_1", "RUNNING", "1795426921", "1795426931", "Unknown", "7", "gres/gpu=1", "3600"],
    ]
    printing(program, "sacct", *(SEPARATOR.join(row) for row in rows), "11.batch|x")
    stays = slurm.accounting(["13", "11", "12", "no id"])
    assert [(stay.elapsed, stay.gpus, stay.queued) for stay in stays["11"]] == [(5, 2, 9), (49, 2, 16)]
    (cancelled,), (running,) = stays["12"], stays["13"]
    assert (cancelled.state, cancelled.queued, cancelled.joules) == ("CANCELLED", 14, None)
    assert (running.ended, running.joules) == (None, 3600)
    assert slurm.accounting([]) == {} and len(SACCT_FIELDS) == len(rows[0])


def test_jobs_of_others_and_of_other_folders_are_not_mine(program: Program, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "link").symlink_to("mine")
    mine, link = str(tmp_path / "mine"), str(tmp_path / "link")
    lines = [
        squeue_line(WorkDir=mine, JobID="101", SubmitTime="200"),
        squeue_line(WorkDir=link, JobID="99", SubmitTime="100", Name=slurm.ALLOCATION_NAME),
        squeue_line(WorkDir=str(tmp_path), JobID="3"),
        squeue_line(WorkDir=mine, JobID="4", Name="other"),
        squeue_line(WorkDir=mine, JobID="5", State="COMPLETED"),
        squeue_line(WorkDir=mine, JobID="6", State="COMPLETING", SubmitTime="300"),
    ]
    printing(program, "squeue", *lines)
    jobs = slurm.my_jobs(tmp_path / "link")
    assert [job.id for job in jobs] == ["99", "101", "6"] and [job.is_allocation for job in jobs] == [
        True,
        False,
        False,
    ]


def test_squeue_is_asked_about_this_user_only_and_no_habit_of_his_changes_the_answer(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    monkeypatch.setenv("SQUEUE_FORMAT", "%i")
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    program("squeue", f'echo "$@" "$SQUEUE_STATES$SQUEUE_FORMAT" "$SLURM_TIME_FORMAT" > {tmp_path}/asked')
    assert slurm.my_jobs(tmp_path) == []
    asked = (tmp_path / "asked").read_text()
    assert f"--user={os.getuid()}" in asked and asked.endswith(" %s\n") and "RUNNING" not in asked and "%i" not in asked


def test_where_there_is_no_slurm_it_is_one_line(program: Program, tmp_path: Path) -> None:
    with pytest.raises(slurm.SlurmAbsent, match=r"squeue: there is no Slurm on this machine: .*login node"):
        slurm.my_jobs(tmp_path)
    assert not slurm.is_here() and not slurm.has_accounting()
    assert slurm.job_end_time("1") is None


@pytest.mark.parametrize(
    ("content", "mode", "reason"),
    [
        (b"#!/bin/sh\n", 0o644, "Permission denied"),
        (b"\x7fELF\x02\x01\x01" + bytes(100), 0o755, "Exec format error"),
        (b"no program\n", 0o755, "Exec format error"),
        (b"#!/bin/sh\necho 'squeue: libslurm.so: not there' >&2; exit 127\n", 0o755, "squeue: libslurm.so: not there"),
    ],
)
def test_a_program_that_cannot_be_started_is_one_line_that_names_it(
    program: Program, tmp_path: Path, content: bytes, mode: int, reason: str
) -> None:
    file = program("squeue", "")
    file.write_bytes(content)
    file.chmod(mode)
    with pytest.raises(slurm.SlurmAbsent) as caught:
        slurm.my_jobs(tmp_path)
    assert str(caught.value).startswith(f"{file}: it cannot be started on this machine ({reason}): mend it")


@pytest.mark.parametrize("target", ["/nonexistent/squeue", "squeue"])
def test_a_link_that_leads_nowhere_is_no_slurm(program: Program, tmp_path: Path, target: str) -> None:
    (program("sbatch", "").parent / "squeue").symlink_to(target)
    with pytest.raises(slurm.SlurmAbsent):
        slurm.my_jobs(tmp_path)


def test_a_controller_that_is_down_is_one_line(program: Program, tmp_path: Path) -> None:
    message = "slurm_load_jobs error: Unable to contact slurm controller (connect failure)"
    program("squeue", f"echo '{message}' >&2; exit 1")
    with pytest.raises(slurm.SlurmSilent, match=r"does not answer .*connect failure.*try again"):
        slurm.my_jobs(tmp_path)
    with pytest.raises(slurm.SlurmSilent):
        slurm.wait_gone(["1"], 0)


@pytest.mark.parametrize(
    ("conf", "message", "remedy"),
    [
        (
            "/gone/slurm.conf",
            "fatal: Unable to process configuration file",
            "unset SLURM_CONF, which names /gone/slurm.conf",
        ),
        ("", "fatal: Could not establish a configuration source", "start this where Slurm is set up: its login node"),
    ],
)
def test_a_slurm_without_settings_is_one_line_with_what_to_do(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, conf: str, message: str, remedy: str
) -> None:
    monkeypatch.setenv("SLURM_CONF", conf)
    program("squeue", f"echo 'squeue: error: x' >&2; echo 'squeue: {message}' >&2; exit 1")
    with pytest.raises(slurm.SlurmAbsent) as caught:
        slurm.my_jobs(tmp_path)
    words = message.removeprefix("fatal: ")
    assert str(caught.value) == f"squeue: Slurm has no settings here ({words}): {remedy}"


def test_a_question_that_hangs_ends(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "TIMEOUT", 0.5)
    program("squeue", "exec sleep 60")
    begun = time.monotonic()
    with pytest.raises(slurm.SlurmSilent, match="did not answer"):
        slurm.my_jobs(tmp_path)
    assert time.monotonic() - begun < 20


def test_the_end_of_a_job_is_asked_for_and_else_what_slurm_said_at_its_start(program: Program) -> None:
    environment = {"SLURM_JOB_ID": "11", "SLURM_JOB_END_TIME": "1795400000"}
    printing(program, "squeue", squeue_line())
    assert slurm.job_end_time(environment=environment) == 1795427221
    assert slurm.job_end_time("77", environment) is None
    program("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert slurm.job("11") is None
    assert slurm.job_end_time(environment=environment) == 1795400000
    assert slurm.job_end_time("12", environment) is None, "the variable is about another job"
    assert slurm.job_end_time(environment={}) is None


@pytest.mark.parametrize(
    ("setting", "there"),
    [("accounting_storage/slurmdbd", True), ("accounting_storage/none", False), ("(null)", False)],
)
def test_sacct_alone_is_no_accounting(program: Program, setting: str, there: bool) -> None:
    printing(program, "scontrol", "Configuration data", f"AccountingStorageType   = {setting}", "AuthType = auth/munge")
    program("sacct", "exit 0")
    assert slurm.has_accounting() is there
    program("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert not slurm.has_accounting()


def test_jobs_that_ended_meanwhile_are_no_failure_to_cancel(program: Program, tmp_path: Path) -> None:
    program("scancel", f'echo "$@" > {tmp_path}/asked')
    slurm.cancel([])
    assert not (tmp_path / "asked").exists()
    slurm.cancel(["1", "2"])
    assert (tmp_path / "asked").read_text() == "1 2\n"
    program("scancel", "echo 'scancel: error: Kill job error on job id 1: Invalid job id specified' >&2; exit 1")
    slurm.cancel(["1"])
    program("scancel", "echo 'scancel: error: Kill job error on job id 1: Access/permission denied' >&2; exit 1")
    with pytest.raises(UserError, match="permission denied"):
        slurm.cancel(["1"])


def test_waiting_ends_with_the_jobs_or_with_patience(program: Program) -> None:
    printing(program, "squeue", squeue_line(State="COMPLETING"), squeue_line(JobID="12", State="CANCELLED"))
    assert slurm.wait_gone(["11", "12"], 0.1) == {"11"}
    assert slurm.wait_gone(["12", "13"], 60) == set()


def test_a_restart_of_slurm_is_waited_for(program: Program, tmp_path: Path) -> None:
    down = "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"
    program("squeue", f"[ -e {tmp_path}/up ] || {{ : > {tmp_path}/up; {down}; }}")
    assert slurm.wait_gone(["11"], 60) == set()


@pytest.mark.parametrize(
    ("reason", "stuck"),
    [
        ("Resources", False),
        ("Priority", False),
        ("QOSMaxJobsPerUserLimit", False),
        ("AssocGrpGRES", False),
        ("QOSMaxGRESPerJob", True),
        ("AssocGrpCPUMinutesLimit", True),
        ("AssocMaxWallDurationPerJobLimit", True),
        ("PartitionTimeLimit", True),
        ("InvalidAccount", True),
        ("JobHeldUser", True),
        ("DependencyNeverSatisfied", True),
    ],
)
def test_what_never_clears_is_told_from_what_does(reason: str, stuck: bool) -> None:
    def job(state: str) -> Job:
        (parsed,) = slurm.parse_squeue(squeue_line(State=state, Reason=reason))
        return parsed

    assert (job("PENDING").remedy is not None) is stuck
    assert job("RUNNING").remedy is None


# --- inside a job -----------------------------------------------------------------------------------------------------


def test_what_is_submitted_from_a_job_is_no_part_of_it_and_finds_slurm() -> None:
    stays = {"SLURM_CONF": "/etc/slurm.conf", "SLURM_JWT": "x", "HOME": "/root", "PATH": "/bin"}
    of_the_job = {
        "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "4", "SLURM_JOB_GPUS": "0", "SLURM_MEM_PER_NODE": "1",
        "SLURMD_NODENAME": "g", "CUDA_VISIBLE_DEVICES": "0", "TMPDIR": "/scratch/7", "SLURM_EXPORT_ENV": "NONE",
    }  # fmt: skip
    environment = stays | of_the_job
    slurm.leave_job(environment)
    assert environment == stays


def test_outside_a_job_nothing_is_taken_away() -> None:
    environment = {"SLURM_CONF": "x", "SLURM_TIME_FORMAT": "%s", "CUDA_VISIBLE_DEVICES": "0", "TMPDIR": "/t"}
    before = dict(environment)
    slurm.leave_job(environment)
    assert environment == before


def test_a_slurm_that_is_absent_or_silent_is_found_before_anything_is_submitted(program: Program) -> None:
    with pytest.raises(slurm.SlurmAbsent, match="sbatch: there is no Slurm"):
        slurm.check_answers()
    program("sbatch", "exit 0")
    with pytest.raises(slurm.SlurmAbsent, match="squeue"):
        slurm.check_answers()
    program("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(slurm.SlurmSilent):
        slurm.check_answers()
    program("squeue", "exit 0")
    slurm.check_answers()
