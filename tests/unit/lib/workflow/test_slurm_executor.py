"""Snakemake's Slurm executor loses no job, and takes no passing refusal for a failure."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import snakemake_executor_plugin_slurm as plugin

from scripts.lib.cluster.slurm import SlurmSilent
from scripts.lib.workflow import slurm_executor
from scripts.lib.workflow.slurm_executor import PASSING, PatientExecutor


@pytest.fixture
def executor() -> Any:
    executor = object.__new__(PatientExecutor)
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


@pytest.mark.parametrize(("slurm_told", "left"), [(True, ["b"]), (False, ["a", "b"])])
def test_a_job_stays_known_where_slurm_does_not_answer(executor, monkeypatch, slurm_told, left):
    async def check(self, active_jobs):
        if slurm_told:
            self._status_query_calls += 1
            yield active_jobs[1]

    async def check_all():
        return [job async for job in executor.check_active_jobs(["a", "b"])]

    monkeypatch.setattr(plugin.Executor, "check_active_jobs", check)
    before = executor._changed
    assert asyncio.run(check_all()) == left
    assert (executor._changed > before) == slurm_told  # that of a is the news


def test_the_first_check_may_come_before_the_plugin_is_set_up(executor):
    del executor._status_query_calls

    async def check_all():
        return [job async for job in executor.check_active_jobs([])]

    assert asyncio.run(check_all()) == []


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
    job = SimpleNamespace(name="run_small_quick_0")

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
    executor.run_job(job)
    assert (len(calls), len(reported)) == ((2, 0) if passes else (1, 1))


def test_a_job_whose_answer_was_lost_is_not_submitted_twice(executor, monkeypatch):
    asked, submitted = [], []
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
        plugin.Executor, "_report_job_submission_threadsafe", lambda self, info: submitted.append(info.external_jobid)
    )
    executor.workflow.workdir_init, executor.run_uuid, executor.slurm_logdir = "/here", "mimflow_1", Path("logs")
    executor._submitted = frozenset({"6"})  # an attempt before this one
    assert executor._arrived(SimpleNamespace(name="run_small_quick_0", is_group=lambda: True))
    assert (asked, submitted) == ([True, True, True], ["7"])


def test_another_error_while_a_job_is_submitted_ends_the_job(executor, monkeypatch, capsys):
    reported = []
    monkeypatch.setattr(plugin.Executor, "run_job", lambda self, job: 1 / 0)
    monkeypatch.setattr(
        plugin.Executor, "_report_job_error_threadsafe", lambda self, info, message: reported.append(message)
    )
    executor.run_job(SimpleNamespace(name="run_small_quick_0"))
    assert reported == ["error: job run_small_quick_0 could not be submitted: division by zero"]
    assert reported[0] in capsys.readouterr().err
