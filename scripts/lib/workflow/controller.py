"""Who controls this folder: the one Snakemake that submits jobs here, and what a dead one has left behind."""

from __future__ import annotations

import itertools
import json
import logging
import os
import shlex
import shutil
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from scripts.lib.base.environment import Variable
from scripts.lib.base.files import create_once
from scripts.lib.base.problems import UserError
from scripts.lib.cluster import slurm
from scripts.lib.runs.lease import EXPIRY_SECONDS, HEARTBEAT_SECONDS, Holder

logger = logging.getLogger(__name__)

RECORD = Path(".snakemake/mimflow-controller.json")
LOCKS = Path(".snakemake/locks")
#: Snakemake's own, each named after the time of its start.
SNAKEMAKE_LOGS = Path(".snakemake/log")
#: Longest wait for cancelled jobs to be gone: a trainer saves its state, Slurm's KillWait is 30 s as a rule.
CANCEL_PATIENCE_SECONDS = 300.0
#: Options with which Snakemake runs nothing: none of them needs control of the folder.
IDLE_OPTIONS = frozenset(
    {
        *("--unlock", "--report", "--lint", "--summary", "--detailed-summary", "-D", "-S", "--dag", "--rulegraph"),
        *("--filegraph", "--d3dag", "--list", "-l", "--list-rules", "--list-target-rules", "--lt", "--archive"),
        *("--list-changes", "--list-input-changes", "--list-params-changes", "--list-untracked", "--lu"),
        *("--cleanup-shadow", "--cleanup-metadata", "--cm", "--delete-all-output", "--delete-temp-output"),
        *("--print-compilation", "--version"),
    }
)


@dataclass(frozen=True)
class ControllerRecord:
    """Who controls, or controlled, the folder, and whether by Slurm jobs, which outlive a controller that is killed."""

    holder: Holder
    slurm: bool


class Controller:
    """What .snakemake/mimflow-controller.json says: the last Snakemake that ran jobs from this folder."""

    def __init__(self, path: Path = RECORD) -> None:
        self.path = path
        self.job = os.environ.get("SLURM_JOB_ID")  # now: a controller that submits jobs leaves its own
        self._released = threading.Event()

    def record(self) -> ControllerRecord | None:
        """Return the record; None where there is none, or one that cannot be read."""
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return ControllerRecord(Holder(**content["holder"]), bool(content["slurm"]))
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def is_alive(self) -> bool:
        """Tell whether the controller runs: here by its process, elsewhere by its Slurm job and its heartbeat."""
        record = self.record()
        if record is None:
            return False
        return record.holder.is_alive_here() or (not is_surely_dead(record.holder) and self._age() < EXPIRY_SECONDS)

    def take(self, slurm: bool) -> None:
        """Make this process the controller, and keep its heartbeat going until :meth:`release` or its end.

        Raises
        ------
        UserError : another one, which has started at the same moment, was faster.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        holder = replace(Holder.this_process(), job=self.job)
        if not create_once(self.path, json.dumps({"holder": asdict(holder), "slurm": slurm}), holder.token):
            raise another_controller(self.record())
        self._released.clear()
        name = f"heartbeat of {self.path}"
        threading.Thread(target=self._beat, args=(os.getpid(),), name=name, daemon=True).start()

    def release(self) -> None:
        """End the heartbeat, and remove the record if it is this process's."""
        self._released.set()
        record = self.record()
        if record is not None and record.holder.is_alive_here() and record.holder.pid == os.getpid():
            self.path.unlink(missing_ok=True)

    def _beat(self, process: int) -> None:
        # Once it is released, the record may be another's, and must go silent when that one dies.
        while not self._released.wait(HEARTBEAT_SECONDS) and os.getpid() == process and self.path.exists():
            with suppress(OSError):  # the folder is gone, or unreachable for the moment
                os.utime(self.path)
                os.utime(sys.prefix)  # by which the set-up sees that this environment is in use (envs/install.py)

    def _age(self) -> float:
        # By the file server's clock, as Lease measures: the clocks of two login nodes may differ.
        probe = self.path.with_name(f".clock.{os.getpid()}")
        probe.touch()
        try:
            return probe.stat().st_mtime - self.path.stat().st_mtime
        except FileNotFoundError:
            return float("inf")
        finally:
            probe.unlink(missing_ok=True)


def another_controller(record: ControllerRecord | None) -> UserError:
    """Return the error of a folder that another Snakemake controls."""
    remedy = "wait for it, or stop it there with Ctrl-C (kill -INT); `make jobs` shows its jobs"
    who = f" ({record.holder})" if record else ""
    return UserError(f"another snakemake runs this workflow in this folder{who}", remedy)


def is_surely_dead(holder: Holder, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether a holder has ended for certain: a process of this machine, or one in a Slurm job that is over.

    One on another machine whose heartbeat is merely silent is not: the network may be what is silent.
    """
    if holder.is_dead_here():
        return True
    if not holder.job or holder.is_alive_here() or not slurm.is_here():
        return False
    if holder.job == environment.get("SLURM_JOB_ID"):
        return holder.host != socket.gethostname()  # this job, before it was queued again
    try:
        job = slurm.job(holder.job)
    except UserError as error:
        logger.debug("Slurm does not say whether job %s is over: %s", holder.job, error)
        return False
    return job is None or job.has_ended


def will_run(arguments: Sequence[str], dryrun: bool) -> bool:
    """Tell whether Snakemake, called with *arguments*, is about to run jobs."""
    return not dryrun and not IDLE_OPTIONS.intersection(word.split("=")[0] for word in arguments)


def clear_the_way(environment: Mapping[str, str], controller: Controller | None = None) -> None:
    """Before anything runs: stop if another controller is at work, and settle what a dead one left behind.

    Snakemake's own lock comes later, knows no owner and no cluster; two writers would follow `--unlock`.

    Raises
    ------
    UserError : another controller lives, or jobs of a dead one could not be settled.
    """
    controller = controller or Controller()
    record = controller.record()
    if record is not None and controller.is_alive():
        raise another_controller(record)
    if record is not None and record.slurm:
        try:
            settle_orphans(environment, record.holder)
        except (slurm.SlurmAbsent, slurm.SlurmSilent) as error:
            what = (
                f"a snakemake that was killed ({record.holder}) has submitted Slurm jobs from here, which may still run"
            )
            remedy = f"if none of them does, `{unlock_command()}`, then the same command again"
            raise UserError(f"{what} ({error.what})", f"{error.remedy}; {remedy}") from error
    if LOCKS.is_dir() and any(LOCKS.iterdir()):
        if record is not None and is_surely_dead(record.holder):
            _say(f"the snakemake that locked this folder ({record.holder}) was killed: unlocking, as --unlock does")
            shutil.rmtree(LOCKS)
        else:
            _say(
                f"this folder is locked; if no other snakemake runs here, on any machine, unlock it: {unlock_command()}"
            )
    controller.path.unlink(missing_ok=True)


def unlock(controller: Controller | None = None) -> None:
    """With `--unlock`: forget a dead controller whose Slurm jobs nobody can be asked about here.

    Where Slurm answers, they are not forgotten: the next start settles them.
    """
    controller = controller or Controller()
    record = controller.record()
    if record is None or not record.slurm or controller.is_alive():
        return
    try:
        slurm.my_jobs(Path.cwd())
    except UserError as error:
        _say(f"the Slurm jobs of an earlier run ({record.holder}) are taken to be over ({error.what})")
        controller.path.unlink(missing_ok=True)


def unlock_command() -> str:
    """Return the command line that unlocks this folder, by make if that started this one, with its configuration."""
    file = _configuration(sys.argv[1:])
    if Path(sys.argv[0]).name == "start.py":
        return f"make run CONFIG={file} ARGS=--unlock" if file else "make demo ARGS=--unlock"
    return f"snakemake --unlock --configfile {file}" if file else "snakemake --unlock"


def settle_orphans(environment: Mapping[str, str], holder: Holder) -> None:
    """Cancel the Slurm jobs that no controller waits for any more, or wait for their end.

    Cancelling is safe, and the default: a trainer saves its state when it is told to end, and the next one goes on
    from it. Two jobs that write to the same files are what must not be.

    Raises
    ------
    UserError : Slurm does not say which jobs there are, or they do not end.
    """
    if holder.is_others() and (jobs := slurm.my_jobs(Path.cwd(), user=holder.user)):
        names = ",".join(job.id for job in jobs)
        what = f"Slurm jobs {names} of {holder.user}, whose snakemake ({holder}) is gone, may still write here"
        raise UserError(what, f"wait for their end, or have {holder.user} cancel them: `scancel {names}`")
    mine = environment.get("SLURM_JOB_ID")
    jobs = [job for job in slurm.my_jobs(Path.cwd()) if job.id != mine and not job.is_allocation]
    if not jobs:
        return
    ids = [job.id for job in jobs]
    who = f"the snakemake that submitted them ({holder}) is gone"
    what = f"{len(ids)} Slurm job{'s' * (len(ids) > 1)} of an earlier run ({', '.join(ids)})"
    if environment.get(Variable.ORPHANS, "cancel") == "wait":
        _say(f"{what} still there, and {who}: waiting for their end ({Variable.ORPHANS}=cancel ends them)")
        slurm.wait_gone(ids, float("inf"))
        return
    goes_on = f"what they trained is saved and goes on ({Variable.ORPHANS}=wait lets them finish)"
    _say(f"{what} still there, and {who}: cancelling them; {goes_on}")
    slurm.cancel(ids)
    if left := slurm.wait_gone(ids, CANCEL_PATIENCE_SECONDS):
        names = ",".join(sorted(left))
        remedy = f"look at `squeue -j {names}`, and start again when they are gone"
        raise UserError(f"Slurm jobs {names} of an earlier run do not end", remedy)


def _configuration(arguments: Sequence[str]) -> str:
    """Return the configuration that a command line names, quoted; without it `--unlock` would read another one."""
    words = itertools.pairwise(word for argument in arguments for word in argument.split("=", 1))
    files = (file for name, file in words if name in ("--configfile", "--configfiles"))
    return next(map(shlex.quote, files), "")


def _say(message: str) -> None:
    print(f"note: {message}", file=sys.stderr, flush=True)
