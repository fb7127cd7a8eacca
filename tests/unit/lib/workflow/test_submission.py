"""The Slurm plugin is told what it would lose or learn late."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import snakemake_executor_plugin_slurm as plugin

from scripts.lib.workflow import submission


@pytest.mark.parametrize(("first", "later"), [(1, [11, 15, 15, 15]), (15, [15] * 4), (40, [40] * 4)])
def test_the_end_of_a_long_job_is_seen_as_soon_as_that_of_a_short_one(first, later, monkeypatch):
    name = "next_seconds_between_status_checks"
    monkeypatch.setattr(plugin.Executor, name, getattr(plugin.Executor, name))  # is put back after the test
    submission.see_ends_soon()
    executor = object.__new__(plugin.Executor)
    executor.workflow = SimpleNamespace(executor_settings=SimpleNamespace(init_seconds_before_status_checks=first))
    waits = []
    executor.next_seconds_between_status_checks = first
    for _ in later:  # what the plugin does when no job has ended
        executor.next_seconds_between_status_checks = min(executor.next_seconds_between_status_checks + 10, 180)
        waits.append(executor.next_seconds_between_status_checks)
    assert waits == later
