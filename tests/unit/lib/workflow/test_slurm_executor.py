"""Snakemake's Slurm executor loses no job, and takes no passing refusal for a failure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import snakemake_executor_plugin_slurm as plugin
from slurm_programs import Program, printing, program, squeue_line

from scripts.lib.base import products
from scripts.lib.cluster.slurm import SlurmSilent
from scripts.lib.workflow import slurm_executor
from scripts.lib.workflow.slurm_executor import PASSING, PatientExecutor

__all__ = ["program"]


@dataclass(frozen=True)
class Job:
    """As much of a job of Snakemake's, or of a group of jobs, as the executor looks at."""

    name: str = "run_small_quick_0"
    output: tuple[str, ...] = ()
    resources: dict[str, str] = field(default_factory=dict, hash=False)

    def is_group(self) -> bool:
        return True


def submitted(number: str, job: Job = Job()) -> Any:
    return SimpleNamespace(external_jobid=number, job=job, aux={"slurm_logfile": Path(f"logs/{number}.log")})


@pytest.fixture
def executor(monkeypatch: pytest.MonkeyPatch) -> Any:
    executor = object.__new__(PatientExecutor)
    executor._looked = time.monotonic()
    monkeypatch.setattr(PatientExecutor, "_made", {})
    settings = SimpleNamespace(init_seconds_before_status_checks=1)
    executor.workflow = SimpleNamespace(executor_settings=settings)
    executor.logger = SimpleNamespace(debug=lambda message: None)
    executor._status_query_calls = 0
    return executor


@pytest.mark.parametrize(
    ("first", "unchanged", "wait"), [(1, 0, 5), (1, 60, 6), (1, 100, 10), (1, 3600, 15), (20, 0, 20), (0, 20, 5)]
)
def test_the_end_of_a_short_job_is_seen_soon_and_that_of_a_long_one_within_15_s(executor, first, unchanged, wait):
    executor.workflow.executor_settings.init_seconds_before_status_checks = first
    executor._changed = time.monotonic() - unchanged
    executor.next_seconds_between_status_checks = 180  # the plugin's wish
    assert executor.next_seconds_between_status_checks == pytest.approx(wait, abs=0.1)


def check(executor: Any, jobs: Sequence[Any]) -> list[str]:
    """Return the ids of the jobs that are still waited for after a check."""

    async def check_all() -> list[str]:
        return [job.external_jobid async for job in executor.check_active_jobs(jobs)]

    return asyncio.run(check_all())


@pytest.mark.parametrize(("slurm_told", "left"), [(True, ["2"]), (False, ["1", "2"])])
def test_a_job_stays_known_where_slurm_does_not_answer(executor, monkeypatch, slurm_told, left):
    async def ask(self, active_jobs):
        if slurm_told:
            self._status_query_calls += 1
            yield active_jobs[1]

    monkeypatch.setattr(plugin.Executor, "check_active_jobs", ask)
    before = executor._changed
    assert check(executor, [submitted("1"), submitted("2")]) == left
    assert (executor._changed > before) == slurm_told  # that of the first is the news


def test_the_first_check_may_come_before_the_plugin_is_set_up(executor):
    del executor._status_query_calls
    assert check(executor, []) == []


@pytest.mark.parametrize(
    ("words", "passes"),
    [
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", True),
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", True),
        ("sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Job violates accounting/QOS policy", True),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit", True),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", True),
        ("sbatch: error: Batch job submission failed: Unexpected message received", True),
        ("sbatch: error: AssocMaxWallDurationPerJobLimit\nsbatch: error: Job violates accounting/QOS policy", False),
        ("sbatch: error: Batch job submission failed: Connection refused", True),
        ("refused", False),
        ("sbatch: error: Invalid account or account/partition combination specified", False),
        ("sbatch: error: invalid partition specified: gpus", False),
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available", False),
    ],
)
def test_only_what_passes_is_waited_for(executor, monkeypatch, words, passes):
    assert bool(PASSING.search(words)) == passes
    calls, reported = [], []

    def submit(self, job):
        calls.append(job.name)
        if len(calls) == 1:
            message = (
                f"SLURM sbatch failed. The error message was '{words}'.\n    sbatch call:\n        sbatch --x timed out"
            )
            self._report_job_error_threadsafe(SimpleNamespace(external_jobid=None), message)

    monkeypatch.setattr(plugin.Executor, "run_job", submit)
    monkeypatch.setattr(
        plugin.Executor, "_report_job_error_threadsafe", lambda self, info, message: reported.append(message)
    )
    monkeypatch.setattr(PatientExecutor, "_arrived", lambda self, job: False)
    monkeypatch.setattr(slurm_executor, "RETRY_SECONDS", 0.01)
    executor.run_job(Job())
    assert (len(calls), len(reported)) == ((2, 0) if passes else (1, 1))


def test_a_job_whose_answer_was_lost_is_not_submitted_twice(executor, monkeypatch):
    asked, ids = [], []
    comment = "rule_run_small_quick_0"

    def my_jobs(folder, prefix, ended):
        asked.append(ended)
        if len(asked) < 3:
            raise SlurmSilent("squeue: Slurm does not answer")
        return [SimpleNamespace(comment=comment, id="6"), SimpleNamespace(comment=comment, id="7")]

    monkeypatch.setattr(slurm_executor, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(slurm_executor.slurm, "my_jobs", my_jobs)
    monkeypatch.setattr(plugin, "get_job_wildcards", lambda job: "")
    monkeypatch.setattr(
        plugin.Executor, "_report_job_submission_threadsafe", lambda self, info: ids.append(info.external_jobid)
    )
    executor.workflow.workdir_init, executor.run_uuid, executor.slurm_logdir = "/here", "mimflow_1", Path("logs")
    executor._submitted = frozenset({"6"})  # an attempt before this one
    assert executor._arrived(Job())
    assert (asked, ids) == ([True, True, True], ["7"])


def test_another_error_while_a_job_is_submitted_ends_the_job(executor, monkeypatch, capsys):
    reported = []
    monkeypatch.setattr(plugin.Executor, "run_job", lambda self, job: 1 / 0)
    monkeypatch.setattr(
        plugin.Executor, "_report_job_error_threadsafe", lambda self, info, message: reported.append(message)
    )
    executor.run_job(Job())
    assert reported == ["error: job run_small_quick_0 could not be submitted: division by zero"]
    assert reported[0] in capsys.readouterr().err


@pytest.fixture
def waiting(executor: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """An executor in an empty folder whose plugin waits for every job, and that looks for their ends at each check."""

    async def wait(self, active_jobs):
        self._status_query_calls += 1
        for job in active_jobs:
            yield job

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plugin.Executor, "check_active_jobs", wait)
    monkeypatch.setattr(plugin.Executor, "run_job", lambda self, job: None)
    monkeypatch.setattr(slurm_executor, "LOOK_SECONDS", 0.0)
    executor.ends = []
    monkeypatch.setattr(PatientExecutor, "report_job_success", lambda self, info: self.ends.append(True))
    monkeypatch.setattr(PatientExecutor, "report_job_error", lambda self, info, msg, aux_logs: self.ends.append(False))
    return executor


def make(*names: str) -> None:
    for path in map(Path, names):
        path.write_text("made")
    products.record("a_job", map(Path, names))


@pytest.mark.parametrize(
    ("before", "after", "finished"),
    [
        ((), ("a.txt", "b.txt"), True),
        ((), ("a.txt",), False),  # it was killed in between
        (("a.txt", "b.txt"), (), False),  # it never began: these are of an earlier run
        (("a.txt", "b.txt"), ("a.txt", "b.txt"), True),
        ((), (), False),
    ],
)
@pytest.mark.parametrize(
    ("state", "told"),
    [
        (None, "is not known to Slurm any more"),
        ("PREEMPTED", "has ended as PREEMPTED"),  # and is not queued again: PreemptMode=CANCEL
    ],
)
def test_a_job_that_slurm_has_forgotten_ends_by_what_it_has_made(
    waiting: Any,
    program: Program,
    capsys: pytest.CaptureFixture[str],
    before: tuple[str, ...],
    after: tuple[str, ...],
    finished: bool,
    state: str | None,
    told: str,
) -> None:
    job = Job(output=("a.txt", "b.txt"))
    make(*before)
    waiting.run_job(job)
    make(*after)
    known = [squeue_line(), *([squeue_line(JobID="12", State=state)] if state else [])]
    printing(program, "squeue", *known)
    jobs = [submitted("11"), submitted("12", job)]
    assert check(waiting, jobs) == ["11", "12"]  # it may be queued again in a moment
    assert (check(waiting, jobs), waiting.ends) == (["11"], [finished])
    counts = "has made its files: it counts as finished" if finished else "has not made its files: it counts as failed"
    assert capsys.readouterr().err == f"note: job 12 (run_small_quick_0) {told}, and {counts}\n"


def test_a_job_is_waited_for_while_slurm_knows_it_or_says_nothing(waiting: Any, program: Program) -> None:
    jobs = [submitted("11"), submitted("12"), submitted("13", Job(resources={"clusters": "other"}))]
    preempted = squeue_line(JobID="12", State="PREEMPTED")
    for lines in ([squeue_line(), preempted], [squeue_line(), squeue_line(JobID="12", State="PENDING")]):
        printing(program, "squeue", *lines)
        assert check(waiting, jobs) == ["11", "12", "13"]
    printing(program, "squeue", squeue_line(), preempted)
    assert check(waiting, jobs) == ["11", "12", "13"]
    program("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    for _ in range(3):
        assert check(waiting, jobs) == ["11", "12", "13"]
    assert waiting.ends == []


def test_slurm_is_asked_for_unseen_ends_every_two_minutes(
    waiting: Any, monkeypatch: pytest.MonkeyPatch, program: Program
) -> None:
    printing(program, "squeue")
    monkeypatch.setattr(slurm_executor, "LOOK_SECONDS", 120.0)
    for seconds, ends in ((119, []), (121, []), (119, []), (121, [False])):
        waiting._looked = time.monotonic() - seconds
        check(waiting, [submitted("11", Job(output=("a.txt",)))])
        assert waiting.ends == ends


def test_how_long_slurm_remembers_jobs_is_asked_until_it_answers() -> None:
    told = [None, 300, 5]
    ask = slurm_executor.until_known(lambda: told.pop(0))
    assert [ask(), ask(), ask()] == [None, 300, 300]
