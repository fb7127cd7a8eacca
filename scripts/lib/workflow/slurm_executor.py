"""The executor of Snakemake's Slurm plugin with patience: what it would lose, learn late, or count as a failure.

What is said of the plugin here is true of version 2.6.0, which the locks pin.
"""

from __future__ import annotations

import re
import shlex
import sys
import threading
import time
import types
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import snakemake_executor_plugin_slurm as plugin
import snakemake_executor_plugin_slurm_jobstep as jobstep
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from scripts.lib.base import products
from scripts.lib.base.console import one_line
from scripts.lib.base.problems import UserError
from scripts.lib.cluster import job_step, slurm

#: Seconds between two questions for the states of all jobs: a tenth of the time since a job came or ended, but from the
#: first to the second number. So the end of a short job is seen soon, and Slurm is asked twelve times a minute at most.
CHECK_SECONDS = (5.0, 15.0)
#: Submissions without a pause, and the seconds before each later one. Two threads submit.
AT_ONCE, SUBMIT_SECONDS = 10, 1.0
#: Seconds until a refused submission is tried again, and between two lines about it.
RETRY_SECONDS, TELL_SECONDS = 15.0, 600.0
#: Seconds between two looks for jobs that have ended without the plugin seeing it; what two of them tell is believed.
LOOK_SECONDS = 120.0
#: What Slurm says when a submission may go well later: nobody answers, or the user has all the jobs that are allowed.
PASSING = re.compile(
    "contact|connection|timed out|zero bytes|not respond|unexpected message|standby|temporarily|MaxSubmit",
    re.IGNORECASE,
)


def be_patient() -> None:
    """Have Snakemake use `PatientExecutor` for Slurm.

    And the plugin not pause for 5 s before each submission, nor ask at each check how long Slurm remembers jobs.
    """
    ExecutorPluginRegistry().get_plugin("slurm").executor = PatientExecutor
    plugin.time = types.SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
    plugin.get_min_job_age = until_known(plugin.get_min_job_age)


def until_known(ask: Callable[[], int | None]) -> Callable[[], int | None]:
    """Return a function that asks until there is an answer, and then gives that."""
    known: list[int] = []

    def ask_once() -> int | None:
        if not known and (seconds := ask()) is not None:
            known.append(seconds)
        return known[0] if known else None

    return ask_once


class Refusal(Exception):
    """A submission that Slurm did not take now."""


class PatientExecutor(plugin.Executor):
    """The plugin's executor, which submits again what may be taken later, and loses no job.

    - A submission that was refused for what passes is repeated. The plugin would report a failed job, and use up its
      attempts within seconds.
    - Any other error while a job is submitted ends that job. The plugin loses it in a thread, and Snakemake waits for
      ever.
    - Jobs whose states Slurm did not tell stay known. The plugin forgets them, and Snakemake waits for ever.
    - A job that Slurm has forgotten, as it does some minutes after the end (MinJobAge), or that has ended in a way that
      the plugin does not know, is ended here: by what it has made. The plugin waits for ever.
    - The end of a job is seen within `CHECK_SECONDS`. The plugin waits longer after each check, up to three minutes.
    - A job starts one Snakemake, which `job_step` makes its step. The plugin starts two, the first only to start the
      second: two seconds of the processor, and more where Python is read over a network.
    - After Ctrl-C nothing is submitted any more. The plugin cancels its jobs, and then submits those that waited.
    """

    # One executor a process; set here, as threads of the base class run before __post_init__.
    _stopping = threading.Event()
    _changed = time.monotonic()
    _submitted: frozenset[str] = frozenset()
    #: By job: when the records of its products were written that stood before it was submitted.
    _made: ClassVar[dict[Any, dict[Path, int | None]]] = {}
    _looked = time.monotonic()
    _ended: frozenset[str] = frozenset()  # jobs that had ended at the last look
    _status_query_calls = 0  # the plugin's

    @property
    def next_seconds_between_status_checks(self) -> float:
        """Seconds until the next check; at least those of the profile until the first one."""
        first = self.workflow.executor_settings.init_seconds_before_status_checks or 0
        least, most = CHECK_SECONDS
        return max(first, min(max((time.monotonic() - self._changed) / 10, least), most))

    @next_seconds_between_status_checks.setter
    def next_seconds_between_status_checks(self, wanted: float | None) -> None:
        pass  # what the plugin would wait

    def additional_general_args(self) -> list[str]:
        """Return no options: the Snakemake of a job is the one that runs its steps."""
        return []

    def format_job_exec(self, job: Any) -> str:
        """Return the line of shell that a job is: its Snakemake, as a step with the job's cores and GPUs."""
        options = ["", ""]
        if "mpi" not in job.resources.keys():  # noqa: SIM118 - Snakemake's resources are no mapping
            rest = f"{jobstep.get_gpu_setting(job)} {jobstep.get_node_setting(job)}"
            options = [f"-n1 --cpu-bind=q {jobstep.get_cpu_setting(job, gpu)} {rest}" for gpu in (False, True)]
        words = [self.get_python_executable(), "-I", "-S", job_step.__file__, *options]
        return f"{shlex.join(words)} {super().format_job_exec(job)}"

    def run_job(self, job: Any) -> None:
        """Submit a job; try again while Slurm refuses it for what passes."""
        told = -TELL_SECONDS
        while not self._stopping.is_set():
            try:
                if len(self._submitted) >= AT_ONCE:
                    self._stopping.wait(SUBMIT_SECONDS)
                self._made[job] = recorded_products(job)
                super().run_job(job)
                return
            except Exception as error:
                message = one_line(error)
                if not isinstance(error, Refusal) and not PASSING.search(message):
                    self._fail(job, message)
                    return
            if time.monotonic() - told >= TELL_SECONDS:
                told = time.monotonic()
                note = f"note: Slurm does not take {job.name} now ({message}): trying again"
                print(note, file=sys.stderr, flush=True)
            try:
                if self._arrived(job):
                    return
            except UserError as error:
                self._fail(job, one_line(error))
                return

    def _fail(self, job: Any, message: str) -> None:
        message = f"error: job {job.name} could not be submitted: {message}"
        print(message, file=sys.stderr, flush=True)  # Snakemake does not show it
        super()._report_job_error_threadsafe(SubmittedJobInfo(job), message)

    def _arrived(self, job: Any) -> bool:
        """Wait a while, and until Slurm answers; tell whether it has the job after all, which then counts as submitted.

        Raises
        ------
        UserError : there is no Slurm.
        """
        known: list[slurm.Job] = []
        while not self._stopping.wait(RETRY_SECONDS):
            try:
                known = slurm.my_jobs(self.workflow.workdir_init, self.run_uuid, ended=True)
                break
            except slurm.SlurmSilent:  # submitted now, it might be there twice
                continue
        wildcards = plugin.get_job_wildcards(job)
        comment = f"rule_{job.name}" + (f"_wildcards_{wildcards}" if wildcards else "")
        for here in known:
            if here.comment == comment and here.id not in self._submitted:
                folder = f"group_{job.name}" if job.is_group() else f"rule_{job.name}"
                log = self.slurm_logdir / folder / wildcards / f"{here.id}.log"
                info = SubmittedJobInfo(job, external_jobid=here.id, aux={"slurm_logfile": log})
                self._report_job_submission_threadsafe(info)
                return True
        return False

    def _report_job_error_threadsafe(self, job_info: SubmittedJobInfo, msg: str) -> None:
        if PASSING.search(msg.partition("sbatch call:")[0]):
            raise Refusal(msg.partition("The error message was ")[2].partition("\n")[0].strip("'.") or msg)
        super()._report_job_error_threadsafe(job_info, msg)

    def _report_job_submission_threadsafe(self, job_info: SubmittedJobInfo) -> None:
        self._changed = time.monotonic()
        self._submitted |= {job_info.external_jobid}
        if self._stopping.is_set():  # it came after the others were cancelled
            self.cancel_jobs([job_info])
        super()._report_job_submission_threadsafe(job_info)

    async def check_active_jobs(self, active_jobs: Sequence[SubmittedJobInfo]) -> AsyncIterator[SubmittedJobInfo]:
        """Yield the jobs that have not ended: all of them where Slurm did not answer."""
        queries = self._status_query_calls
        left = [job async for job in super().check_active_jobs(active_jobs)]
        if self._status_query_calls == queries:
            left = list(active_jobs)
        elif len(left) < len(active_jobs):
            self._changed = time.monotonic()
        ended = self._unseen_ends(left)
        for job in left:
            if job.external_jobid in ended:
                self._end(job, ended[job.external_jobid])
            else:
                yield job

    def _unseen_ends(self, active_jobs: Sequence[SubmittedJobInfo]) -> dict[str, str]:
        """Return those of *active_jobs* that have ended, and what Slurm says of them: twice, `LOOK_SECONDS` apart.

        So a job that is queued again, or whose end the plugin is about to see, is none.
        """
        if not active_jobs or time.monotonic() - self._looked < LOOK_SECONDS:
            return {}
        self._looked = time.monotonic()
        try:
            states = slurm.states()
        except UserError:
            return {}
        # Those of another cluster, which squeue does not know, are left to the plugin.
        ids = {job.external_jobid for job in active_jobs if not job.job.resources.get("clusters")}
        ended = {job: states.get(job, "") for job in ids if states.get(job, "") in {"", *slurm.ENDED}}
        before, self._ended = self._ended, frozenset(ended)
        return {job: state for job, state in ended.items() if job in before}

    def _end(self, job_info: SubmittedJobInfo, state: str) -> None:
        """End a job whose end the plugin does not see: well where it has made all its products, else as a failure."""
        job, self._changed = job_info.job, time.monotonic()
        told = f"has ended as {state}" if state else "is not known to Slurm any more"
        what = f"job {job_info.external_jobid} ({job.name}) {told}"
        before = self._made.get(job, {})
        now = recorded_products(job)
        if all(when and when != before.get(path) and path.exists() for path, when in now.items()):
            print(f"note: {what}, and has made its files: it counts as finished", file=sys.stderr, flush=True)
            self.report_job_success(job_info)
        else:
            print(f"note: {what}, and has not made its files: it counts as failed", file=sys.stderr, flush=True)
            self.report_job_error(job_info, msg=f"{what}. ", aux_logs=[str(job_info.aux["slurm_logfile"])])

    def cancel(self) -> None:
        """Submit nothing more, then cancel the jobs."""
        self._stopping.set()
        self._job_submission_executor.shutdown(wait=True, cancel_futures=True)
        super().cancel()

    def cancel_jobs(self, active_jobs: Sequence[SubmittedJobInfo]) -> None:
        """Cancel jobs, and say which where Slurm does not take that."""
        try:
            super().cancel_jobs(active_jobs)
        except WorkflowError as error:
            print(f"error: {one_line(error)}: `make cancel` when Slurm answers", file=sys.stderr, flush=True)


def recorded_products(job: Any) -> dict[Path, int | None]:
    """Return when the records of what a job makes, or the jobs of a group, were written; None: there is none."""
    paths = [Path(name) for member in getattr(job, "jobs", [job]) for name in member.output]
    return {path: products.recorded_at(path) for path in paths}
