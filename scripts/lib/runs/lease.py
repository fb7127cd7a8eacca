"""One trainer at a time in a work_dir: a lease with a heartbeat, sound on NFS, that a dead holder loses."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil

from scripts.lib.base.disks import user_name
from scripts.lib.base.files import create_once, write_text
from scripts.lib.base.problems import PassingError
from scripts.lib.runs.run_folder import WorkFolder

#: Seconds without a heartbeat after which the holder counts as dead. Well above a hiccup of a network file system.
EXPIRY_SECONDS = 60.0
#: Seconds between two heartbeats.
HEARTBEAT_SECONDS = 10.0


def living_group(group: int) -> list[int]:
    """Return the living processes of a process group; a zombie that nobody reaps does not count."""
    members = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess, PermissionError):
            continue
    return members


def others_are_hidden() -> bool:
    """Tell whether this machine shows a user no processes of others (hidepid), as login nodes may."""
    try:
        psutil.Process(1).create_time()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return True
    return False


@dataclass(frozen=True)
class Holder:
    """Who holds a lease."""

    token: str
    host: str
    pid: int
    started: float
    job: str | None
    group: int | None = None  # of the trainer, which ends a little later than train_model does
    user: str = ""

    @classmethod
    def this_process(cls) -> Holder:
        """Describe the process that asks."""
        started = psutil.Process().create_time()
        job = os.environ.get("SLURM_JOB_ID")
        user = user_name(os.getuid())
        return cls(uuid.uuid4().hex, socket.gethostname(), os.getpid(), started, job, user=user)

    def is_alive_here(self) -> bool:
        """Tell whether the holder is a living process of this machine."""
        if self.host != socket.gethostname():
            return False
        try:
            # A process id is used again: the time of its start tells them apart.
            return abs(psutil.Process(self.pid).create_time() - self.started) < 1
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False

    def is_others(self) -> bool:
        """Tell whether the holder is another user."""
        return self.user not in ("", user_name(os.getuid()))

    def is_dead_here(self) -> bool:
        """Tell whether the holder was a process of this machine that has ended, with all that it started."""
        here = self.host == socket.gethostname() and not (self.is_others() and others_are_hidden())
        return here and not self.is_alive_here() and not (self.group and living_group(self.group))

    def __str__(self) -> str:
        job = f", Slurm job {self.job}" if self.job else ""
        of = f" of {self.user}" if self.is_others() else ""
        return f"process {self.pid}{of} on {self.host}{job}"


class Lease:
    """Exclusive use of a folder.

    Taking it is one ``link``, which is atomic on NFS too, where O_EXCL was not always. Its age is measured with a
    file made beside it, by the file server's clock: the clocks of two nodes may differ.
    """

    def __init__(self, folder: Path) -> None:
        self.path = WorkFolder(folder).lease
        self.me = Holder.this_process()
        self._beaten_at = 0.0

    def acquire(self, patience: float = EXPIRY_SECONDS + HEARTBEAT_SECONDS) -> None:
        """Take the lease; wait at most *patience* seconds for a holder elsewhere that may be dead.

        Raises
        ------
        UserError : another trainer is at work in this folder.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + patience
        while not self._take():
            holder = self._read()
            if holder is None:
                continue
            if holder.is_dead_here() or self._age() > EXPIRY_SECONDS:
                self._remove(holder)
            elif holder.is_alive_here() or time.monotonic() > deadline:
                raise PassingError(
                    f"{self.path.parent}: {holder} is training here: wait for it, or stop it;"
                    " two trainers in one folder would overwrite each other"
                )
            else:
                time.sleep(1)

    def name_group(self, group: int) -> None:
        """Add the trainer's process group to the lease: while it lives, nobody else trains here."""
        self.me = replace(self.me, group=group)
        write_text(self.path, json.dumps(asdict(self.me)))

    def heartbeat(self) -> None:
        """Say that this process is alive, at most every HEARTBEAT_SECONDS.

        Raises
        ------
        UserError : the lease was taken over, since this process was thought dead.
        """
        if time.monotonic() - self._beaten_at < HEARTBEAT_SECONDS:
            return
        holder = self._read()
        if holder is None or holder.token != self.me.token:
            raise PassingError(f"{self.path}: the lease was taken over by {holder or 'nobody'}: this trainer stops")
        os.utime(self.path)
        self._beaten_at = time.monotonic()

    def release(self) -> None:
        """Give the lease back, if it is still this process's."""
        holder = self._read()
        if holder is not None and holder.token == self.me.token:
            self.path.unlink(missing_ok=True)

    def _take(self) -> bool:
        is_taken = create_once(self.path, json.dumps(asdict(self.me)), self.me.token)
        if is_taken:
            self._beaten_at = time.monotonic()
        return is_taken

    def _read(self) -> Holder | None:
        try:
            return Holder(**json.loads(self.path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def _age(self) -> float:
        probe = self.path.with_name(f".clock.{self.me.token}")
        probe.touch()
        try:
            return probe.stat().st_mtime - self.path.stat().st_mtime
        except FileNotFoundError:
            return 0.0
        finally:
            probe.unlink(missing_ok=True)

    def _remove(self, dead: Holder) -> None:
        """Remove the lease of a dead holder; when another one was quicker, put its lease back."""
        aside = self.path.with_name(f".expired.{self.me.token}")
        try:
            os.rename(self.path, aside)
        except FileNotFoundError:
            return
        if json.loads(aside.read_text(encoding="utf-8"))["token"] != dead.token:
            os.link(aside, self.path)
        aside.unlink()
