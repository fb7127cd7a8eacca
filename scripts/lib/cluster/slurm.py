"""Ask Slurm and tell Slurm: one call of squeue, sacct, scontrol or scancel a question, the answers as types.

Written for Slurm 20.02 to 24; the fields are asked for one by one, since the default formats differ between versions.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from scripts.lib.base.console import one_line
from scripts.lib.base.problems import PassingError, UserError

logger = logging.getLogger(__name__)
#: Every Slurm job of mimflow's has a name that begins so: the profiles say it, and so does run.sbatch.
JOB_NAME_PREFIX = "mimflow"
#: Name of the job in which the whole workflow runs inside one allocation (run.sbatch).
ALLOCATION_NAME = "mimflow-allocation"
#: Seconds for one question: a controller under load may take half a minute.
TIMEOUT = 60.0
TRY_AGAIN = "try again in a few minutes; if it lasts, ask the cluster's support"
#: Exit statuses of a shell and of the loader: a program, or a library of it, is not there or cannot be run.
CANNOT_START = (126, 127)
#: ASCII's unit separator: no name, comment or path holds it.
SEPARATOR = "\x1f"
#: Fields of squeue --Format and their widths in bytes: longer values are cut, shorter ones filled.
SQUEUE_FIELDS = {
    "JobID": 32, "Name": 128, "State": 32, "Reason": 128, "NodeList": 512, "TimeUsed": 32, "TimeLimit": 32,
    "tres-alloc": 512, "tres-per-job": 256, "tres-per-node": 256, "NumNodes": 16, "Partition": 128, "SubmitTime": 32,
    "StartTime": 32, "EndTime": 32, "Comment": 1024, "WorkDir": 2048,
}  # fmt: skip
SACCT_FIELDS = (
    "JobIDRaw", "JobName", "State", "Submit", "Start", "End", "ElapsedRaw", "AllocTRES", "ConsumedEnergyRaw",
)  # fmt: skip
#: States in which a job has nothing left that could run; in any other it may still run, or be running.
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT",
}  # fmt: skip
#: Variables by which programs of Slurm's find it, and may speak to it.
CONNECTION = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SLURM_CLUSTERS")
#: Why a job waits for ever, by Slurm's word for it, and what to do. Other reasons clear when others' jobs end.
STUCK = (
    (r"(Assoc|QOS)\w*(Minutes|MinutesLimit)", "the budget of the account is used up: ask whoever manages it"),
    (r"(Assoc|QOS)MaxWall\w*|PartitionTimeLimit", "it asks for more time than is allowed: lower `runtime`"),
    (r"(Assoc|QOS)Max(Cpu|CPU|GRES|Mem|Node)\w*Per(Job|Node)\w*|(QOS|Assoc)Min\w+|PartitionNodeLimit|BadConstraints",
     "it asks for more than one job may have here, or for what no node has: lower `gpus`, threads or memory"),
    (r"InvalidAccount|AccountNotAllowed|AssocNotAllowed", "Slurm does not accept the account: check `slurm_account`"),
    (r"InvalidQOS|QOSNotAllowed", "Slurm does not accept the QOS: check `qos`"),
    (r"JobHeld\w*|JobHoldMaxRequeue|launch_failed_requeued_held",
     "it is held: `scontrol release JOBID`, or ask the cluster's support"),
    (r"Partition(Down|Inactive)", "the partition is closed: choose another one, or ask when it opens"),
    (r"DependencyNeverSatisfied", "the job that it waits for has failed: cancel it"),
)  # fmt: skip


class SlurmAbsent(UserError):
    """This machine has no Slurm, or none that it can ask."""


class SlurmSilent(PassingError):
    """Slurm does not answer; it may in a minute."""


@dataclass(frozen=True)
class Job:
    """A job as squeue tells of it. Times are seconds since 1970, durations seconds; None where Slurm has none.

    Of a job that waits, ``started`` and ``ends`` are what Slurm's planning expects.
    """

    id: str
    name: str
    state: str
    reason: str
    nodes: str
    partition: str
    used: float | None
    limit: float | None
    gpus: int
    submitted: float | None
    started: float | None
    ends: float | None
    comment: str
    folder: str

    @property
    def has_ended(self) -> bool:
        """Tell whether nothing of it can run any more."""
        return self.state in ENDED

    @property
    def is_allocation(self) -> bool:
        """Tell whether a whole workflow runs inside this one job."""
        return self.name == ALLOCATION_NAME

    @property
    def remedy(self) -> str | None:
        """Return what to do where the job would wait for ever, else None."""
        if self.state != "PENDING":
            return None
        return next((text for words, text in STUCK if re.fullmatch(words, self.reason)), None)


@dataclass(frozen=True)
class JobRecord:
    """One stay of a job in Slurm's accounting; a job that was requeued has several."""

    id: str
    name: str
    state: str
    submitted: float | None
    started: float | None
    ended: float | None
    elapsed: float
    gpus: int
    joules: float | None

    @property
    def queued(self) -> float | None:
        """Return the seconds between submission and start, or the end where it never started."""
        until = self.started if self.started is not None else self.ended
        return None if until is None or self.submitted is None else max(0.0, until - self.submitted)


def is_here() -> bool:
    """Tell whether this machine has the programs of Slurm; whether it answers is another question."""
    return shutil.which("squeue") is not None


def check_answers() -> None:
    """Make sure that jobs can be submitted from here: an error later is lost in a thread, and Snakemake waits for ever.

    Raises
    ------
    UserError : there is no Slurm, or it does not answer.
    """
    if shutil.which("sbatch") is None:
        raise _absent("sbatch")
    _squeue(f"--user={os.getuid()}")


def leave_job(environment: MutableMapping[str, str]) -> None:
    """Take out of *environment* what a Slurm job has told its processes: what they submit is no part of that job.

    How Slurm is reached (SLURM_CONF) stays; the plugin of Snakemake takes that out, too, and then finds no Slurm.
    """
    job = environment.get("SLURM_JOB_ID")
    if job is None:
        return
    for name in [name for name in environment if name.startswith("SLURM") and name not in CONNECTION]:
        del environment[name]
    for name in ("CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES"):
        environment.pop(name, None)
    if job in environment.get("TMPDIR", ""):  # which ends with the job
        del environment["TMPDIR"]


def my_jobs(
    folder: Path | str, prefix: str = JOB_NAME_PREFIX, ended: bool = False, user: str | None = None
) -> list[Job]:
    """Return this user's jobs whose name begins with *prefix* and that were submitted from *folder*, the oldest first.

    Those that have ended are among them only if *ended*, and for some minutes.

    Parameters
    ----------
    user : whose jobs instead; a cluster may show none of others (PrivateData).

    Raises
    ------
    UserError : there is no Slurm, or it does not answer.
    """
    here = os.path.realpath(folder)
    jobs = [
        job
        for job in _squeue(f"--user={user or os.getuid()}")
        if job.name.startswith(prefix)
        and (ended or not job.has_ended)
        and job.folder
        and os.path.realpath(job.folder) == here
    ]
    return sorted(jobs, key=lambda job: (job.submitted or 0.0, len(job.id), job.id))


def states() -> dict[str, str]:
    """Return the state of each of this user's jobs that Slurm knows, by id; it forgets them minutes after their end.

    Raises
    ------
    UserError : there is no Slurm, or it does not answer.
    """
    return {job.id: job.state for job in _squeue(f"--user={os.getuid()}")}


def job(job_id: str) -> Job | None:
    """Return one job, or None where Slurm does not know it (any more).

    Raises
    ------
    UserError : there is no Slurm, or it does not answer.
    """
    try:
        jobs = _squeue(f"--jobs={job_id}")
    except UserError as error:
        if "Invalid job id" in str(error):
            return None
        raise
    return next((candidate for candidate in jobs if candidate.id == job_id), None)


def job_end_time(job_id: str | None = None, environment: Mapping[str, str] = os.environ) -> float | None:
    """Return when Slurm will end a job, in seconds since 1970; None where nobody knows.

    Without *job_id*: of the job that this process runs in. Slurm is asked first, since an administrator may have
    changed the limit; where a node must not ask it, SLURM_JOB_END_TIME says what held at the job's start. Never raises.
    """
    current_id = environment.get("SLURM_JOB_ID")
    job_id = job_id or current_id
    if not job_id:
        return None
    try:
        slurm_job = job(job_id)
    except UserError as error:
        logger.debug("Slurm does not say when job %s ends: %s", job_id, error)
        slurm_job = None
    if slurm_job and slurm_job.ends is not None:
        return slurm_job.ends
    return parse_time(environment.get("SLURM_JOB_END_TIME", "")) if job_id == current_id else None


def accounting(job_ids: Iterable[str], since: float | None = None) -> dict[str, list[JobRecord]]:
    """Return the records of jobs in Slurm's accounting, by job id, the oldest first; unknown jobs are left out.

    Parameters
    ----------
    job_ids : as SLURM_JOB_ID has them.
    since : seconds since 1970; what ended before is left out. Ids are used again after some years.

    Raises
    ------
    UserError : there is no accounting, or it does not answer.
    """
    wanted = sorted({job_id for job_id in job_ids if job_id.isdecimal()}, key=int)
    if not wanted:
        return {}
    options = ["--allocations", "--duplicates", "--noheader", "--parsable2", f"--delimiter={SEPARATOR}"]
    start = datetime.fromtimestamp(since or 0.0)
    options += [f"--starttime={start:%Y-%m-%dT%H:%M:%S}", f"--format={','.join(SACCT_FIELDS)}"]
    records: dict[str, list[JobRecord]] = {}
    for record in parse_sacct(ask("sacct", *options, f"--jobs={','.join(wanted)}")):
        if record.id in wanted:
            records.setdefault(record.id, []).append(record)
    for stays in records.values():
        stays.sort(key=lambda record: record.submitted or 0.0)
    return records


def has_accounting() -> bool:
    """Tell whether sacct knows the jobs of this cluster: it is there on clusters without accounting too."""
    try:
        storage = parse_setting(ask("scontrol", "show", "config"), "AccountingStorageType")
        if storage is None or storage in ("(null)", "accounting_storage/none", "none"):
            return False
        ask("sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID", "--starttime=now")
    except UserError as error:
        logger.debug("no accounting: %s", error)
        return False
    return True


def cancel(job_ids: Sequence[str]) -> None:
    """Cancel jobs; those that have ended meanwhile are none to worry about.

    Raises
    ------
    UserError : there is no Slurm, it does not answer, or refuses.
    """
    if not job_ids:
        return
    try:
        ask("scancel", *job_ids)
    except UserError as error:
        if not re.search(r"Invalid job id|already complet", str(error)):
            raise


def wait_gone(job_ids: Collection[str], seconds: float) -> set[str]:
    """Wait until none of the jobs runs or could run any more, at most *seconds*; return those that still may.

    Raises
    ------
    UserError : there is no Slurm, or it was silent when the time was over; a restart in between is waited for.
    """
    deadline = time.monotonic() + seconds
    pause = 0.5
    while True:
        try:
            left = {job.id for job in _squeue(f"--user={os.getuid()}") if job.id in job_ids and not job.has_ended}
            if not left or time.monotonic() > deadline:
                return left
        except SlurmSilent:
            if time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(1.5 * pause, 10.0)  # a controller has better things to do than to answer every second for hours


def _squeue(whose: str) -> list[Job]:
    fields = ",".join(f"{name}:{width}{SEPARATOR}" for name, width in SQUEUE_FIELDS.items())
    return parse_squeue(ask("squeue", "--noheader", f"--Format={fields}", whose, "--states=all"))


def _rows(text: str, fields: Collection[str], cells_a_line: int) -> Iterator[dict[str, str]]:
    """Yield the lines with so many cells, as dicts by *fields*; other lines are passed over."""
    for line in text.split("\n"):
        cells = [cell.strip() for cell in line.split(SEPARATOR)]
        if len(cells) == cells_a_line:
            yield dict(zip(fields, cells, strict=False))


def parse_squeue(text: str) -> list[Job]:
    """Return the jobs that squeue printed with the fields SQUEUE_FIELDS; other lines are passed over."""
    jobs = []
    for row in _rows(text, SQUEUE_FIELDS, len(SQUEUE_FIELDS) + 1):  # the separator ends each field
        nodes = int(row["NumNodes"]) if row["NumNodes"].isdecimal() else 1
        gpus = [count_gpus(row["tres-alloc"]), count_gpus(row["tres-per-job"]), count_gpus(row["tres-per-node"])]
        jobs.append(
            Job(
                id=row["JobID"],
                name=row["Name"],
                state=row["State"],
                reason="" if row["Reason"] in ("None", "(null)") else row["Reason"].strip("()"),
                nodes=_known(row["NodeList"]),
                partition=row["Partition"],
                used=parse_duration(row["TimeUsed"]),
                limit=parse_duration(row["TimeLimit"]),
                # Sites that do not account for GPUs leave them out of the first one.
                gpus=gpus[0] or gpus[1] or nodes * gpus[2],
                submitted=parse_time(row["SubmitTime"]),
                started=parse_time(row["StartTime"]),
                ends=parse_time(row["EndTime"]),
                comment=_known(row["Comment"]),
                folder=_known(row["WorkDir"]),
            )
        )
    return jobs


def parse_sacct(text: str) -> list[JobRecord]:
    """Return the records that sacct printed with the fields SACCT_FIELDS; other lines are passed over."""
    return [
        JobRecord(
            id=row["JobIDRaw"],
            name=row["JobName"],
            state=row["State"].split(" ")[0],  # CANCELLED by 1000
            submitted=parse_time(row["Submit"]),
            started=parse_time(row["Start"]),
            ended=parse_time(row["End"]),
            elapsed=float(row["ElapsedRaw"] or 0),
            gpus=count_gpus(row["AllocTRES"]),
            joules=_joules(row["ConsumedEnergyRaw"]),
        )
        for row in _rows(text, SACCT_FIELDS, len(SACCT_FIELDS))
    ]


def count_gpus(resources: str) -> int:
    """Return the GPUs in a list of Slurm's: ``cpu=6,gres/gpu=2,gres/gpu:rtx3090=2``, ``gres:gpu:rtx3090:2``.

    The count without a type is the sum over the types, where it is given.
    """
    plain = typed = 0
    for entry in resources.split(","):
        # An index may follow in brackets: gpu:rtx3090:2(IDX:0-1).
        match = re.fullmatch(r"(?:gres[:/])?gpu(?::([A-Za-z_][^:=(]*))?(?:[:=](\d+))?(?:\(.*)?", entry.strip())
        if match:
            count = int(match[2] or 1)
            plain, typed = (plain, typed + count) if match[1] else (plain + count, typed)
    return plain or typed


def parse_time(text: str) -> float | None:
    """Return seconds since 1970 of a time that Slurm printed (by SLURM_TIME_FORMAT already seconds), None for none."""
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text) or None
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:  # N/A, NONE, Unknown, None, Invalid
        return None


def parse_duration(text: str) -> float | None:
    """Return the seconds of ``days-hours:minutes:seconds``, of which the front may be missing; None for UNLIMITED."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)(?:\.\d+)?", text.strip())
    if not match:
        return None
    days, hours, minutes, seconds = (int(number or 0) for number in match.groups())
    return 86400.0 * days + 3600 * hours + 60 * minutes + seconds


def parse_setting(text: str, name: str) -> str | None:
    """Return one setting out of what ``scontrol show config`` printed."""
    match = re.search(rf"^{re.escape(name)}\s*=\s*(.*?)\s*$", text, re.MULTILINE | re.IGNORECASE)
    return match[1] if match else None


def _known(text: str) -> str:
    return "" if text in ("(null)", "N/A", "None") else text


def _joules(text: str) -> float | None:
    # Without an energy plugin Slurm writes 0 or nothing; 2^64 - 2 stands for "not known".
    joules = float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else 0.0
    return joules if 0 < joules < 2**63 else None


def _absent(program: str) -> SlurmAbsent:
    remedy = "on a cluster, log in to its login node (or load its module)"
    return SlurmAbsent(f"{program}: there is no Slurm on this machine", remedy)


def cannot_start(program: str, reason: str) -> SlurmAbsent:
    """Return the error of a program that is there and does not start: of another machine, not executable, damaged."""
    files = (Path(folder, program) for folder in os.get_exec_path())
    where = next((file for file in files if file.exists()), program)
    remedy = "mend it, take its folder out of PATH, or use a login node of the cluster"
    return SlurmAbsent(f"{where}: it cannot be started on this machine ({reason})", remedy)


def ask(program: str, *options: str) -> str:
    """Return what a program of Slurm's prints.

    Raises
    ------
    UserError : it is not there, cannot be started, does not answer in time, or says no.
    """
    # A user's own formats and filters would change what comes out.
    environment = {
        name: value for name, value in os.environ.items() if not re.match(r"(SQUEUE|SACCT|SCANCEL|SCONTROL)_", name)
    }
    environment["SLURM_TIME_FORMAT"] = "%s"
    try:
        result = subprocess.run(
            [program, *options],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise _absent(program) from None
    except OSError as error:
        raise cannot_start(program, error.strerror or type(error).__name__) from error
    except subprocess.TimeoutExpired:
        raise SlurmSilent(f"{program}: Slurm did not answer within {TIMEOUT:.0f} s", TRY_AGAIN) from None
    if result.returncode == 0:
        return result.stdout
    reason = one_line(result.stderr or result.stdout) or f"exit status {result.returncode}"
    if re.search(r"contact|connect|refused|timed out|Zero Bytes|not respond", reason, re.IGNORECASE):
        raise SlurmSilent(f"{program}: Slurm does not answer ({reason})", TRY_AGAIN)
    if re.search(r"configuration source|configuration file|s_p_parse_file", reason):
        conf = os.environ.get("SLURM_CONF")
        remedy = f"unset SLURM_CONF, which names {conf}" if conf else "start this where Slurm is set up: its login node"
        raise SlurmAbsent(f"{program}: Slurm has no settings here ({reason.rpartition('fatal: ')[2]})", remedy)
    if result.returncode in CANNOT_START:
        raise cannot_start(program, reason)
    raise UserError(f"{program}: {reason}")
