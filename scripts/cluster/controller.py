"""Who controls this folder: the one Snakemake that submits jobs here, and what a dead one has left behind."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from scripts.cluster import slurm
from scripts.console import UserError
from scripts.files import write_text
from scripts.train.lease import EXPIRY_SECONDS, HEARTBEAT_SECONDS, Holder

logger = logging.getLogger(__name__)

RECORD = Path(".snakemake/mimflow-controller.json")
LOCKS = Path(".snakemake/locks")
#: What to do with Slurm jobs of a dead controller: "cancel" (their state is saved) or "wait" until they have ended.
ORPHANS_VARIABLE = "MIMFLOW_ORPHANS"
#: Longest wait for cancelled jobs to be gone: a trainer saves its state, Slurm's KillWait is 30 s as a rule.
CANCEL_PATIENCE_SECONDS = 300.0
#: Options with which Snakemake runs nothing: none of them needs control of the folder.
IDLE_OPTIONS = frozenset(
    {
        *("--unlock", "--report", "--lint", "--summary", "--detailed-summary", "-D", "-S", "--dag", "--rulegraph"),
        *("--filegraph", "--d3dag", "--list", "-l", "--list-rules", "--list-target-rules", "--lt", "--archive"),
        *(
            "--list-changes",
            "--list-input-changes",
            "--list-params-changes",
            "--list-untracked",
            "--lu",
            "--cleanup-shadow",
        ),
        *(
            "--cleanup-metadata",
            "--cm",
            "--delete-all-output",
            "--delete-temp-output",
            "--print-compilation",
            "--version",
        ),
    }
)


class Controller:
    """What .snakemake/mimflow-controller.json says: the last Snakemake that ran jobs from this folder."""

    def __init__(self, record: Path = RECORD) -> None:
        self.record = record

    def holder(self) -> Holder | None:
        """Return who wrote the record; None where there is none, or one cut short."""
        try:
            return Holder(**json.loads(self.record.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def is_alive(self) -> bool:
        """Tell whether the controller runs: here by its process, elsewhere by its heartbeat."""
        holder = self.holder()
        if holder is None:
            return False
        if holder.is_alive_here():
            return True
        return not holder.is_dead_here() and self._age() < EXPIRY_SECONDS

    def is_provably_dead(self) -> bool:
        """Tell whether the controller was a process of this machine that has ended, or there is none."""
        holder = self.holder()
        return holder is None or holder.is_dead_here()

    def take(self) -> None:
        """Make this process the controller, and keep its heartbeat going until :meth:`release` or its end."""
        self.record.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.record, json.dumps(asdict(Holder.this_process())))
        threading.Thread(target=self._beat, args=(os.getpid(),), daemon=True).start()

    def release(self) -> None:
        """Remove the record, if it is this process's."""
        holder = self.holder()
        if holder is not None and holder.is_alive_here() and holder.pid == os.getpid():
            self.record.unlink(missing_ok=True)

    def _beat(self, process: int) -> None:
        while os.getpid() == process and self.record.exists():
            time.sleep(HEARTBEAT_SECONDS)
            try:
                os.utime(self.record)
            except OSError:  # the folder is gone, or unreachable for the moment
                continue

    def _age(self) -> float:
        # By the file server's clock, as Lease measures: the clocks of two login nodes may differ.
        probe = self.record.with_name(f".clock.{os.getpid()}")
        probe.touch()
        try:
            return probe.stat().st_mtime - self.record.stat().st_mtime
        except FileNotFoundError:
            return float("inf")
        finally:
            probe.unlink(missing_ok=True)


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
    holder = controller.holder()
    if holder is not None and controller.is_alive():
        raise UserError(
            f"another snakemake runs this workflow in this folder ({holder}): wait for it (`make jobs` shows its jobs),"
            " or stop it with `make cancel`"
        )
    settle_orphans(environment, holder)
    if LOCKS.is_dir() and any(LOCKS.iterdir()):
        if holder is not None and controller.is_provably_dead():
            _say(
                f"the snakemake that locked this folder ({holder}) was killed: unlocking, as `snakemake --unlock` does"
            )
            shutil.rmtree(LOCKS)
        else:
            command = f"snakemake --unlock {_configuration(sys.argv[1:])}".strip()
            _say(f"this folder is locked; if no other snakemake runs here, on any machine, unlock it: {command}")
    if holder is not None:
        controller.record.unlink(missing_ok=True)


def settle_orphans(environment: Mapping[str, str], holder: Holder | None) -> None:
    """Cancel the Slurm jobs that no controller waits for any more, or wait for their end.

    Cancelling is safe, and the default: a trainer saves its state when it is told to end, and the next one goes on
    from it. Two jobs that write to the same files are what must not be.
    """
    if not slurm.is_here():
        return
    mine = environment.get("SLURM_JOB_ID")
    jobs = [job for job in slurm.my_jobs(Path.cwd()) if job.id != mine and not job.is_allocation]
    if not jobs:
        return
    ids = [job.id for job in jobs]
    who = f"the snakemake that submitted them ({holder}) is gone" if holder else "no snakemake waits for them"
    what = f"{len(ids)} Slurm job{'s' * (len(ids) > 1)} of an earlier run ({', '.join(ids)})"
    if environment.get(ORPHANS_VARIABLE, "cancel") == "wait":
        _say(f"{what} still there, and {who}: waiting for their end ({ORPHANS_VARIABLE}=cancel ends them)")
        slurm.wait_gone(ids, float("inf"))
        return
    _say(
        f"{what} still there, and {who}: cancelling them; what they trained is saved and goes on"
        f" ({ORPHANS_VARIABLE}=wait lets them finish)"
    )
    slurm.cancel(ids)
    left = slurm.wait_gone(ids, CANCEL_PATIENCE_SECONDS)
    if left:
        raise UserError(
            f"Slurm jobs {', '.join(left)} of an earlier run do not end: look at `squeue -j {','.join(left)}`,"
            " and start again when they are gone"
        )


def _configuration(arguments: Sequence[str]) -> str:
    """Return the --configfile part of a command line, without which `--unlock` would read another configuration."""
    for option in ("--configfile", "--configfiles"):
        if option in arguments[:-1]:
            return f"--configfile {arguments[arguments.index(option) + 1]}"
    return ""


def _say(message: str) -> None:
    print(f"note: {message}", file=sys.stderr, flush=True)
