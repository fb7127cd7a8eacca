"""Errors of Snakemake's Slurm plugin that it loses: told, and counted as a failure of the job."""

from __future__ import annotations

import sys
from typing import Any

from scripts.lib.base.console import one_line


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
