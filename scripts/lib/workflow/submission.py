"""What Snakemake's Slurm plugin would lose or learn late: an error while a job is submitted, and the end of a job."""

from __future__ import annotations

import sys
from typing import Any

from scripts.lib.base.console import one_line

#: The plugin asks Slurm for the states of all its jobs at least so often, by one command.
CHECK_SECONDS = 15


def tell_lost_errors() -> None:
    """Have an error while a job is submitted end that job.

    The plugin (2.6.0) submits in a thread of its own and never asks how that ended: without this, Snakemake submits
    nothing, says nothing, and waits for ever.
    """
    import snakemake_executor_plugin_slurm as plugin
    from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

    run_job = plugin.Executor.run_job

    def run_job_or_fail(self: Any, job: Any) -> None:
        try:
            run_job(self, job)
        except Exception as error:
            message = f"error: job {job.name} could not be submitted: {one_line(error)}"
            print(message, file=sys.stderr, flush=True)  # Snakemake does not show it
            self._report_job_error_threadsafe(SubmittedJobInfo(job), message)

    plugin.Executor.run_job = run_job_or_fail


def see_ends_soon() -> None:
    """Have the end of a job be seen within `CHECK_SECONDS`, or within the profile's time until the first check.

    The plugin (2.6.0) waits 10 seconds longer after each check in which no job has ended, up to three minutes.
    """
    import snakemake_executor_plugin_slurm as plugin

    seconds = plugin.Executor.next_seconds_between_status_checks  # a property

    def wait_at_most(self: Any, wanted: float) -> None:
        first = self.workflow.executor_settings.init_seconds_before_status_checks or 0
        seconds.fset(self, min(wanted, max(first, CHECK_SECONDS)))

    plugin.Executor.next_seconds_between_status_checks = property(seconds.fget, wait_at_most)
