"""A real Slurm on this one machine for tests: munge, MariaDB, slurmdbd, slurmctld, and five nodes.

``python tests/slurm/cluster.py up|down|status|install --folder DIR``; only on Debian, as root, without systemd.
n1 has CPUs, g1 four fake RTX 3090 GPUs, m1 to m3 two each; more nodes with two each (partition `virtual`) as asked.
Every daemon talks on loopback addresses and keeps its
files in DIR; only /etc/slurm lies outside, and what was there comes back when the cluster goes down. Not
``python -m tests....``: a package that mmcls's dependencies install is named ``tests`` too.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from daemons import Daemons, descendants, start_time, wait_until

from scripts.lib.base.console import run_cli
from scripts.lib.base.problems import UserError

logger = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent
#: Where Slurm looks by default: the executor plugin's job step strips SLURM_CONF from the environment.
ETC = Path("/etc/slurm")
SAVED = Path("/etc/slurm.before-mimflow")
#: In ETC while it is ours; it holds the cluster's folder.
MARKER = "mimflow-test-cluster"
CLUSTER = "mimflowtest"
NODES = ("n1", "g1", "m1", "m2", "m3")
GPUS = 4
PACKAGES = ("slurm-wlm", "slurmdbd", "munge", "mariadb-server")
PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sbatch", "sacct")
#: What a job of Slurm, or a user's habit, would change in the commands below.
FOREIGN = re.compile(r"(SLURM|SLURMD|SBATCH|SRUN|SQUEUE|SACCT|SINFO|SCANCEL)_|SACCT_|CUDA_VISIBLE_DEVICES$|ROCR_|GPU_")
#: The first port of the nodes of the partition `virtual`, their GPUs, and how they are configured.
VIRTUAL_PORT, VIRTUAL_GPUS = 17100, 2
VIRTUAL_NODES = """NodeName=v[001-@LAST@] NodeHostname=@HOST@ NodeAddr=127.0.0.1 Port=[17101-@PORT@] CPUs=16 Boards=1 \
SocketsPerBoard=1 CoresPerSocket=16 ThreadsPerCore=1 RealMemory=64000 Gres=gpu:rtx3090:2 State=UNKNOWN
PartitionName=virtual Nodes=v[001-@LAST@] MaxTime=1440 DefaultTime=30 PriorityTier=5 PreemptMode=REQUEUE \
DefMemPerCPU=500 State=UP
PartitionName=n30_virtual Nodes=v[001-@LAST@] MaxTime=1440 DefaultTime=30 PriorityTier=5 PreemptMode=REQUEUE \
DefCpuPerGPU=6 DefMemPerGPU=30000 State=UP
PartitionName=urgent Nodes=v[001-@LAST@] MaxTime=60 DefaultTime=1 PriorityTier=20 PreemptMode=OFF \
DefMemPerCPU=500 State=UP
"""
VIRTUAL_GRES = "NodeName=v[001-@LAST@] Name=gpu Type=rtx3090 File=@DIR@/dev/nvidia[0-1]"
ACCOUNTING = """AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=6819
AccountingStoragePass=@DIR@/run/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,limits"""
NO_ACCOUNTING = "AccountingStorageType=accounting_storage/none"
SACCT_FIELDS = ("JobIDRaw", "JobName", "State", "ExitCode", "Submit", "Start", "End", "ElapsedRaw", "Partition",
                "NodeList", "AllocTRES", "WorkDir", "Comment")  # fmt: skip


class ClusterError(UserError):
    """The cluster cannot be brought up, or did not do in time what it was asked to."""


def missing() -> str:
    """Return in one line why this machine cannot have a test cluster; empty when it can (or once it is installed)."""
    if os.geteuid() != 0:
        return "this needs a Slurm cluster, brought up by root only: run it as root, in a container for example"
    if not Path("/etc/debian_version").exists() or not shutil.which("apt-get"):
        return "this needs a Slurm cluster, brought up on Debian only: run it in a Debian 12 container, for example"
    return ""


def install() -> None:
    """Install what is missing from Debian's packages; start none of their services."""
    reason = missing()
    if reason:
        raise ClusterError(reason)
    if all(shutil.which(program, path=clean_environment()["PATH"]) for program in PROGRAMS):
        return
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        # Debian's way to say that an installation starts no daemon.
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        environment = {**clean_environment(), "DEBIAN_FRONTEND": "noninteractive"}
        # The lists may be old or missing: only then is a package not found.
        if not _apt(["install", "-y", "-qq", "--no-install-recommends", *PACKAGES], environment):
            _apt(["update", "-qq"], environment)
            if not _apt(["install", "-y", "-qq", "--no-install-recommends", *PACKAGES], environment):
                raise ClusterError(f"could not install {' '.join(PACKAGES)}: see what apt-get says above")
    finally:
        if ours:
            policy.unlink()


def _apt(words: list[str], environment: Mapping[str, str]) -> bool:
    return subprocess.run(["apt-get", *words], env=environment, timeout=600).returncode == 0


def clean_environment() -> dict[str, str]:
    """Return this process's environment without what a Slurm job around it would set, sbin on the path."""
    environment = {name: value for name, value in os.environ.items() if not FOREIGN.match(name)}
    path = environment.get("PATH", "")
    return {**environment, "PATH": f"{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


class Cluster:
    """The test cluster in *folder*; as a context manager it is up inside the block and down after it."""

    def __init__(self, folder: Path, virtual: int = 0, accounting: bool = True) -> None:
        """Describe a cluster; *virtual*: how many more nodes it has, at most 999."""
        self.virtual = [f"v{number:03d}" for number in range(1, virtual + 1)]
        self.nodes = (*NODES, *self.virtual)
        self.folder = Path(folder).resolve()
        self.accounting = accounting
        self.daemons = Daemons(self.folder / "daemons.json")

    def __enter__(self) -> Cluster:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    # --- up and down --------------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Bring up whatever is not; take all down again when something does not come."""
        install()
        other = running_folder()
        if other and other != self.folder:
            raise ClusterError(
                f"a test cluster is up in {other}: use that one, or take it down: {_down_command(other)}"
            )
        if len(f"{self.folder}/run/munge.socket") > 100:
            raise ClusterError(f"the path {self.folder} is too long for a socket: choose a shorter --folder")
        try:
            self._make_folders()
            if self._configure():
                # Read at the start only. Jobs go on meanwhile.
                for name in (*(f"slurmd-{node}" for node in self.nodes), "slurmctld", "slurmdbd"):
                    self.daemons.stop(name)
            self._start_munge()
            if self.accounting:
                self._start_database()
                self._start_slurmdbd()
            self.start_slurmctld()
            if self.accounting:
                self._make_account()
            for node in self.nodes:
                self.start_slurmd(node)
            for node in self.nodes:
                self.resume(node)
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """End every daemon that was started here and what its jobs left, and give /etc/slurm back as it was."""
        if not self.folder.exists():
            return
        if self.daemons.alive("slurmctld"):
            self.command("scancel", "--user=root", check=False)
            wait_until(lambda: not self.queue(), 15, every=0.5)
        started = (name.removeprefix("slurmd-") for name in self.daemons.names() if name.startswith("slurmd-"))
        for node in dict.fromkeys((*self.nodes, *started)):  # also those of a test that was killed
            self.kill_node(node)
        for name in ("slurmctld", "slurmdbd", "mysqld", "munged"):
            self.daemons.stop(name)
        if _marked_folder() == self.folder:
            shutil.rmtree(ETC)
            if SAVED.is_symlink() or SAVED.exists():
                SAVED.rename(ETC)

    def status(self) -> str:
        """Return what is alive, and the nodes as Slurm sees them."""
        alive = ", ".join(self.daemons.names()) or "nothing"
        nodes = self.command("sinfo", "-N", "-o", "%N %P %T %c %m %G", check=False) if self._answers() else ""
        return f"alive: {alive}\n{nodes}".rstrip()

    def _make_folders(self) -> None:
        for name in ("run", "log", "state", "dev", "conf", *(f"spool/{node}" for node in self.nodes)):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(GPUS):
            device = self.folder / "dev" / f"nvidia{index}"
            if not device.exists():
                # A null device: Slurm only wants a file to hand out.
                os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))

    def _configure(self, requeue_seconds: int = 15) -> bool:
        """Write the configuration into /etc/slurm; return whether it is another than before.

        What was in /etc/slurm is kept aside until :meth:`down`.
        """
        host = socket.gethostname().split(".")[0]
        # Slurm's daemons listen on the address of the host's name when told to, else on every address.
        loopback = _resolves_to_loopback(host)
        values = {
            "ACCOUNTING": ACCOUNTING if self.accounting else NO_ACCOUNTING,
            "LOOPBACK": "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny" if loopback else "",
            "VIRTUAL_NODES": VIRTUAL_NODES if self.virtual else "",
            "VIRTUAL_GRES": VIRTUAL_GRES if self.virtual else "",
            "LAST": f"{len(self.virtual):03d}",
            "HOST": host,
            "PORT": str(VIRTUAL_PORT + len(self.virtual)),
            "REQUEUE_SECONDS": str(requeue_seconds),
            "DIR": str(self.folder),
        }
        if _marked_folder() is None:
            if ETC.is_symlink() or ETC.exists():
                ETC.rename(SAVED)
            ETC.mkdir(mode=0o755)
        (ETC / MARKER).write_text(f"{self.folder}\n")
        changed = False
        for template in sorted(path for path in (HERE / "conf").iterdir() if path.is_file()):
            text = template.read_text(encoding="utf-8")
            for name, value in values.items():
                text = text.replace(f"@{name}@", value)
            target = (self.folder / "conf" if template.name == "my.cnf" else ETC) / template.name
            if target.exists() and target.read_text(encoding="utf-8") == text:
                continue
            changed = True
            target.write_text(text, encoding="utf-8")
            # slurmdbd refuses a file with its password that others can read.
            target.chmod(0o600 if template.name == "slurmdbd.conf" else 0o644)
        return changed

    def _start_munge(self) -> None:
        key = self.folder / "run" / "munge.key"
        if not key.exists():
            key.touch(mode=0o400)
            key.write_bytes(secrets.token_bytes(1024))
        run, log = self.folder / "run", self.folder / "log"
        # --force: a folder below /tmp is writable for others, which munged would refuse.
        socket_option = f"--socket={run}/munge.socket"
        command = ["munged", "--foreground", "--force", f"--key-file={key}", socket_option,
                   f"--pid-file={run}/munged.pid", f"--seed-file={run}/munge.seed",
                   f"--log-file={log}/munged.log"]  # fmt: skip
        self._start("munged", command)
        self._wait("munged", 20, lambda: self._succeeds("munge", "--no-input", socket_option))

    def _start_database(self) -> None:
        options = f"--defaults-file={self.folder}/conf/my.cnf"
        data = self.folder / "mysql"
        if not (data / "mysql").exists():
            data.mkdir(mode=0o700, exist_ok=True)
            self.command("mariadb-install-db", options, "--auth-root-authentication-method=socket", "--skip-test-db",
                         seconds=180)  # fmt: skip
        self._start("mysqld", ["mariadbd", options])
        client = f"--socket={self.folder}/run/mysql.sock"
        self._wait("mysqld", 60, lambda: self._succeeds("mariadb-admin", "--no-defaults", client, "ping"))
        user = "'slurm'@'127.0.0.1'"
        statements = f"""CREATE DATABASE IF NOT EXISTS slurm_acct_db;
            CREATE USER IF NOT EXISTS {user} IDENTIFIED BY 'slurm'; GRANT ALL ON slurm_acct_db.* TO {user};"""
        self.command("mariadb", "--no-defaults", client, "-e", statements)

    def _start_slurmdbd(self) -> None:
        self._start("slurmdbd", ["slurmdbd", "-D"])
        self._wait("slurmdbd", 60, lambda: self._succeeds("sacctmgr", "-n", "show", "cluster"))
        if CLUSTER not in self.command("sacctmgr", "-n", "-P", "show", "cluster", "format=cluster").split():
            self.command("sacctmgr", "-i", "add", "cluster", CLUSTER)

    def _make_account(self) -> None:
        accounts = self.command("sacctmgr", "-n", "-P", "show", "user", "root", "withassoc", "format=account").split()
        if "lab" not in accounts:
            self.command("sacctmgr", "-i", "add", "account", "lab", "Description=lab", "Organization=lab", check=False)
            self.command("sacctmgr", "-i", "add", "user", "root", "Account=lab", "DefaultAccount=lab")

    # --- faults -------------------------------------------------------------------------------------------------------

    def start_slurmctld(self) -> None:
        """Start the controller and wait until it answers."""
        self._start("slurmctld", ["slurmctld", "-D"])
        self._wait("slurmctld", 30, self._answers)

    def stop_slurmctld(self, kill: bool = False) -> None:
        """Stop the controller; jobs go on. *kill*: by KILL, without time to save its state."""
        self.daemons.stop("slurmctld", signal.SIGKILL if kill else signal.SIGTERM)

    def restart_slurmctld(self, kill: bool = False) -> None:
        """Stop the controller and start it again, as an administrator or a crash would."""
        self.stop_slurmctld(kill)
        self.start_slurmctld()

    def kill_node(self, name: str) -> None:
        """Take a node away as a power cut would: slurmd, its steps and all their processes, by KILL."""
        # slurmd first, so that it reports nothing and starts nothing more.
        self.daemons.stop(f"slurmd-{name}", signal.SIGKILL)
        deadline = time.monotonic() + 20
        while (running := self._processes_on(name)) and time.monotonic() < deadline:
            for pid, began in running.items():
                if start_time(pid) == began:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
            time.sleep(0.1)
        # What a node keeps of its jobs is gone after a boot; left here, it would refuse the job when it is requeued.
        for left in self._step_sockets(name):
            left.unlink(missing_ok=True)
        for left in (self.folder / "spool" / name).glob("job[0-9]*"):
            shutil.rmtree(left, ignore_errors=True)

    def start_node(self, name: str) -> None:
        """Start a node and wait until jobs can run on it."""
        self.start_slurmd(name)
        self.resume(name)

    def start_slurmd(self, name: str) -> None:
        """Start the daemon of a node."""
        self._start(f"slurmd-{name}", ["slurmd", "-D", "-N", name])

    def resume(self, name: str) -> None:
        """Wait until jobs can run on a node; a drained one (its processes were hard to kill) is given back first."""
        self._wait(f"slurmd-{name}", 40, lambda: self._registered(name))
        if "DRAIN" in self._flags(name):
            self.command("scontrol", "update", f"NodeName={name}", "State=RESUME")
        self._wait(f"slurmd-{name}", 40, lambda: self._registered(name) and "DRAIN" not in self._flags(name))

    @contextmanager
    def without_accounting(self) -> Iterator[None]:
        """Inside the block the cluster keeps no accounts: sacct says so and ends with an error."""
        self._account(False)
        try:
            yield
        finally:
            self._account(True)

    def _account(self, accounting: bool) -> None:
        self.wait_idle()
        self.accounting = accounting
        self.up()

    def _flags(self, name: str) -> list[str]:
        return self.node_state(name).split("+")

    def _registered(self, name: str) -> bool:
        base, *flags = self._flags(name)
        return base in ("IDLE", "MIXED", "ALLOCATED") and not {"NOT_RESPONDING", "INVALID_REG"} & set(flags)

    def _step_sockets(self, name: str) -> list[Path]:
        return [path for path in (self.folder / "spool" / name).glob(f"{name}_*.*") if path.is_socket()]

    def _processes_on(self, name: str) -> dict[int, int]:
        """Return the processes of a node's jobs with their start times: slurmstepd and all that it started."""
        jobs = {re.split("[_.]", path.name.removeprefix(f"{name}_"))[0] for path in self._step_sockets(name)}
        pids: set[int] = set()
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                environment = (entry / "environ").read_bytes().split(b"\0")
            except (OSError, ProcessLookupError):
                continue
            step = re.match(r"slurmstepd: \[(\d+)\.", words)
            variables = dict(pair.split(b"=", 1) for pair in environment if b"=" in pair)
            here = (
                variables.get(b"SLURMD_NODENAME") == name.encode()
                and variables.get(b"SLURM_CLUSTER_NAME") == CLUSTER.encode()
            )
            if (step and step[1] in jobs and _is_of(entry, name)) or here:
                pids |= {int(entry.name), *descendants(int(entry.name))}
        pids.discard(os.getpid())
        times = {pid: start_time(pid) for pid in pids}
        return {pid: began for pid, began in times.items() if began is not None}

    # --- questions ----------------------------------------------------------------------------------------------------

    def command(self, *words: str, check: bool = True, seconds: float = 60) -> str:
        """Run a command (of Slurm's) and return what it printed on stdout."""
        try:
            result = subprocess.run(
                words,
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"{words[0]} did not answer within {seconds:.0f} s: see {self.folder}/log") from error
        if check and result.returncode:
            message = (result.stderr or result.stdout).strip()
            raise ClusterError(f"{' '.join(words)} ended with {result.returncode}: {message}")
        return result.stdout

    def node_state(self, name: str) -> str:
        """Return a node's state as scontrol writes it, e.g. IDLE, MIXED+DRAIN or DOWN+NOT_RESPONDING."""
        state = re.search(r"State=(\S+)", self.command("scontrol", "-o", "show", "node", name, check=False))
        return state[1] if state else "UNKNOWN"

    def queue(self) -> list[str]:
        """Return the ids of the jobs that are pending, running or ending."""
        return self.command("squeue", "-h", "-o", "%i").split()

    def wait_idle(self, seconds: float = 120) -> None:
        """Wait until no job is queued or running."""
        if not wait_until(lambda: not self.queue(), seconds, every=0.5):
            raise ClusterError(f"jobs were still there after {seconds:.0f} s: {' '.join(self.queue())}")

    def jobs(self, since: float | None = None) -> list[dict[str, Any]]:
        """Return every job, oldest first: from sacct, or what slurmctld remembers where there is no accounting.

        Keys as :data:`SACCT_FIELDS` says; times are seconds since 1970, None while unknown. A requeued job appears
        once, as it is now. *since*: only jobs submitted then or later.
        """
        rows = self._sacct() if self.accounting else self._remembered()
        return [row for row in rows if since is None or (row["Submit"] or 0) >= int(since)]

    def _sacct(self) -> list[dict[str, Any]]:
        words = ["env", "SLURM_TIME_FORMAT=%s", "sacct", "-X", "-n", "-P", "--delimiter=\x1f", "-S", "now-1days",
                 "--format", ",".join(SACCT_FIELDS)]  # fmt: skip
        lines = self.command(*words).splitlines()
        rows: list[dict[str, Any]] = [dict(zip(SACCT_FIELDS, line.split("\x1f"), strict=True)) for line in lines]
        return sorted((_with_times(row) for row in rows), key=lambda row: int(row["JobIDRaw"]))

    def _remembered(self) -> list[dict[str, Any]]:
        names = {"JobIDRaw": "JobId", "JobName": "JobName", "State": "JobState", "ExitCode": "ExitCode",
                 "Submit": "SubmitTime", "Start": "StartTime", "End": "EndTime", "ElapsedRaw": "RunTime",
                 "Partition": "Partition", "NodeList": "NodeList", "AllocTRES": "TRES", "WorkDir": "WorkDir",
                 "Comment": "Comment"}  # fmt: skip
        rows = []
        for line in self.command("env", "SLURM_TIME_FORMAT=%s", "scontrol", "-o", "show", "job").splitlines():
            values = dict(re.findall(r"(\S+?)=(.*?)(?= +[A-Z][\w:/]*=| *$)", line))
            if "JobId" in values:
                rows.append(_with_times({name: values.get(key, "") for name, key in names.items()}))
        return sorted(rows, key=lambda row: int(row["JobIDRaw"]))

    def _answers(self) -> bool:
        return "is UP" in self.command("scontrol", "ping", check=False)

    def _succeeds(self, *words: str) -> bool:
        quiet: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        try:
            return subprocess.run(words, env=clean_environment(), timeout=30, **quiet).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def _start(self, name: str, command: list[str]) -> None:
        self.daemons.start(name, command, self.folder / "log" / f"{name}.out", clean_environment())

    def _wait(self, name: str, seconds: float, condition: Any) -> None:
        if wait_until(lambda: condition() or not self.daemons.alive(name), seconds) and self.daemons.alive(name):
            return
        lines = [line for log in (f"{name}.log", f"{name}.out") for line in self._last_lines(log)]
        ended = "did not come up" if self.daemons.alive(name) else "ended"
        raise ClusterError(f"{name} {ended}: {' | '.join(lines) or 'it said nothing'}")

    def _last_lines(self, log: str, count: int = 3) -> Iterable[str]:
        path = self.folder / "log" / log
        return path.read_text(errors="replace").splitlines()[-count:] if path.exists() else []


def running_folder() -> Path | None:
    """Return the folder of a test cluster that is up on this machine."""
    folder = _marked_folder()
    return folder if folder and Daemons(folder / "daemons.json").names() else None


def _marked_folder() -> Path | None:
    try:
        return Path((ETC / MARKER).read_text().strip())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_of(process: Path, node: str) -> bool:
    """Tell by the log that it writes whether a slurmstepd is a node's: a job may have several, all on this machine."""
    try:
        return any(os.readlink(file).endswith(f"/slurmd-{node}.log") for file in (process / "fd").iterdir())
    except OSError:
        return False


def _down_command(folder: Path) -> str:
    return f"python tests/slurm/cluster.py down --folder {folder}"


def _resolves_to_loopback(host: str) -> bool:
    try:
        return socket.gethostbyname(host).startswith("127.")
    except OSError:
        return False


def _with_times(row: dict[str, Any]) -> dict[str, Any]:
    times = {name: int(row[name]) if row[name].isdecimal() else None for name in ("Submit", "Start", "End")}
    # sacct writes "CANCELLED by 0".
    return {**row, **times, "State": row["State"].split()[0]}


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["up", "down", "status", "install"])
    parser.add_argument("--folder", type=Path, default=Path("/tmp/mimflow-slurm"), help="(%(default)s)")
    parser.add_argument("--accounting", action=argparse.BooleanOptionalAction, default=True, help="sacct works")
    return parser


def main(args: argparse.Namespace) -> None:
    """Do what the command line asks."""
    cluster = Cluster(args.folder, accounting=args.accounting)
    began = time.monotonic()
    if args.action == "install":
        install()
    elif args.action == "down":
        cluster.down()
    else:
        if args.action == "up":
            cluster.up()
        print(cluster.status())
    logger.info("%s: %.1f s", args.action, time.monotonic() - began)


if __name__ == "__main__":
    run_cli(build_parser, main)
