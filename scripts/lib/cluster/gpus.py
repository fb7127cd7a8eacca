"""Which GPUs a process was given, and which of them it takes: each GPU is one process's at a time."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.lib.base.problems import PassingError, UserError
from scripts.lib.base.units import plural

logger = logging.getLogger(__name__)
#: Longest wait for a GPU: Snakemake starts no more runs than there are GPUs, but one may take a while to end.
PATIENCE_SECONDS = 300.0
#: By which a process is given GPUs; a value of NO_GPU takes all of them away.
VARIABLES = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS", "SLURM_STEP_GPUS")
NO_GPU = ("", "-1", "NoDevFiles")
DEVICES = Path("/dev")


@dataclass(frozen=True)
class Gpus:
    """The GPUs that a process was given.

    Attributes
    ----------
    names : as CUDA_VISIBLE_DEVICES has them, numbers or UUIDs; where it is not set, the numbers of the device files.
    variable : ``NAME=value`` of the first of VARIABLES by which the process was given GPUs, or "".
    hidden : CUDA_VISIBLE_DEVICES takes all GPUs away.
    """

    names: tuple[str, ...]
    variable: str
    hidden: bool

    @classmethod
    def of(cls, environment: Mapping[str, str], devices: Path = DEVICES) -> Gpus:
        """Return the GPUs of the process with this environment, on a machine with these device files."""
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        names = gpus_of_machine(devices) if visible is None else tuple(map(str.strip, visible.split(",")))
        names = tuple(name for name in names if name not in NO_GPU)
        variables = (f"{name}={environment[name]}" for name in VARIABLES if name in environment)
        naming = (variable for variable in variables if variable.partition("=")[2].strip() not in NO_GPU)
        return cls(names, next(naming, ""), visible is not None and not names)

    def __bool__(self) -> bool:
        """Tell whether a GPU was given: by a variable, or by the machine's device files."""
        return bool(self.names or self.variable) and not self.hidden


def gpus_of_machine(devices: Path = DEVICES) -> tuple[str, ...]:
    """Return the numbers of all GPUs of this machine, whoever may use them."""
    return tuple(sorted((path.name.removeprefix("nvidia") for path in devices.glob("nvidia[0-9]*")), key=int))


@contextmanager
def claimed_gpus(count: int, environment: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    """Hold *count* of the given GPUs for the block, so that runs beside this one take others; yield their names.

    A lock on a file holds a GPU, so that it is free again however its holder ends.

    Raises
    ------
    UserError : fewer GPUs were given, or none gets free.
    """
    names = Gpus.of(environment).names
    if count and names and len(names) < count:
        raise UserError(
            f"this run wants {plural(count, 'GPU')}, and {len(names)} were given: lower `gpus`, or ask for more"
        )
    if not count or len(names) <= count:
        yield names[:count]
        return
    job = environment.get("SLURM_JOB_ID", "machine")
    folder = Path(tempfile.gettempdir()) / f"mimflow-gpus-{os.getuid()}-{job}"
    folder.mkdir(mode=0o700, exist_ok=True)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with ExitStack() as locks:
            claimed: tuple[str, ...] = ()
            for name in names:
                if len(claimed) < count and _lock(folder / name, locks):
                    claimed += (name,)
            if len(claimed) == count:
                logger.info("training on GPU %s of %s", ", ".join(claimed), ", ".join(names))
                yield claimed
                return
        if time.monotonic() > deadline:
            raise PassingError(f"none of the GPUs {', '.join(names)} got free: other runs hold them ({folder})")
        time.sleep(1)


def _lock(file: Path, locks: ExitStack) -> bool:
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    locks.callback(os.close, descriptor)
    return True


def cores_of_this_job(environment: Mapping[str, str]) -> int:
    """Return the cores of this process: what the system lets it use, and what Slurm counts on this node."""
    cores = len(os.sched_getaffinity(0))
    counted = environment.get("SLURM_CPUS_ON_NODE", "")
    return min(cores, int(counted)) if counted.isdecimal() else cores
