"""The nodes of a Slurm job: which they are, how they reach each other, and a step on all of them but this one."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import psutil

from scripts.lib.base.problems import PassingError, UserError
from scripts.lib.base.units import plural
from scripts.lib.cluster import slurm

#: Seconds of silence after which a node that answers nothing, as after a power cut, counts as gone.
SILENCE_SECONDS = 60
#: Set by slurmd, on the nodes of a job only: a shell of `salloc` on a login node does not have it.
NODE_NAME = "SLURMD_NODENAME"
REMEDY = "start it by `sbatch --nodes=N profiles/slurm/run.sbatch CONFIG`, or with --profile slurm from a login node"


def this_node(environment: Mapping[str, str]) -> str | None:
    """Return the name that Slurm has for the node of this process; None outside a job."""
    return environment.get(NODE_NAME) if environment.get("SLURM_JOB_ID") else None


def nodes_of_job(environment: Mapping[str, str]) -> list[str]:
    """Return the names of the nodes of this process's Slurm job, the first one first; none outside a job.

    Raises
    ------
    UserError : Slurm does not answer.
    """
    job_id = environment.get("SLURM_JOB_ID")
    if not job_id:
        return []
    # A step has a list of its own, and Snakemake's step takes it out; the variable of a batch script is the job's.
    nodes = slurm.ask("squeue", "--noheader", f"--jobs={job_id}", "--Format=NodeList:65536").strip()
    return slurm.ask("scontrol", "show", "hostnames", nodes).split() if nodes else []


def other_nodes(count: int, environment: Mapping[str, str]) -> list[str]:
    """Return *count* - 1 nodes of this job beside this node.

    Raises
    ------
    UserError : this process is on no node of a job, or the job has fewer nodes.
    """
    if problem := nodes_problem(count, environment):
        raise UserError(problem, REMEDY)
    here = this_node(environment)
    return [node for node in nodes_of_job(environment) if node != here][: count - 1]


def nodes_problem(count: int, environment: Mapping[str, str]) -> str:
    """Say why a training on *count* nodes cannot start from this process; "" where it can."""
    if this_node(environment) is None:
        return f"nodes: {count} needs a Slurm job of {count} nodes, and this is none"
    there = len(nodes_of_job(environment))
    return "" if there >= count else f"nodes: {count}, and this Slurm job has {plural(there, 'node')}"


def address_of(node: str) -> str:
    """Return the address by which Slurm reaches a node: its name need not be one that the network knows.

    Raises
    ------
    UserError : Slurm does not answer, or does not know the node.
    """
    match = re.search(r"NodeAddr=(\S+)", slurm.ask("scontrol", "--oneliner", "show", "node", node))
    return match[1] if match else node


def free_port() -> int:
    """Return the number of a port that no program of this machine listens on."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def interface_towards(address: str) -> str | None:
    """Return the name of the network interface by which this machine reaches an address; None where none is known.

    Nothing is sent: connecting a datagram socket only looks up the route.
    """
    try:
        family, kind, *_, target = socket.getaddrinfo(address, 1, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(target)
            here = probe.getsockname()[0]
    except OSError:
        return None
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address.split("%")[0] == here for entry in addresses):
            return name
    return None


def step_command(nodes: Sequence[str], job_id: str, words: Sequence[str]) -> list[str]:
    """Return the call of srun that runs *words* once on each of the nodes, and ends all when one of them fails."""
    count = str(len(nodes))
    return [
        *("srun", f"--jobid={job_id}", f"--nodes={count}", f"--ntasks={count}", "--ntasks-per-node=1"),
        *(f"--nodelist={','.join(nodes)}", "--cpu-bind=none", "--kill-on-bad-exit=1", "--wait=0", "--input=none"),
        *(["--overlap"] if _knows_overlap() else []),
        *words,
    ]


def enter_step(words: Sequence[str], environment: Mapping[str, str]) -> None:
    """Go on as the command *words*, in a step on this node, unless this process is in one or in no job.

    Before a job is cancelled or displaced, its steps are asked to end and get time for it; its batch script, whose
    shell ends at once, and what that has started do not.
    """
    node = this_node(environment)
    if node is None or "SLURM_STEP_ID" in environment:
        return
    command = step_command([node], environment["SLURM_JOB_ID"], words)
    sys.stdout.flush()
    os.execvpe(command[0], command, step_environment(environment))


def _knows_overlap() -> bool:
    """Tell whether steps have to be allowed to share what a job has: before Slurm 20.11 they shared, unasked."""
    return "--overlap" in slurm.ask("srun", "--help")


def step_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of srun: what Slurm told of this node and of this step does not hold on others."""
    words = ("SLURM_", "SRUN_", "SBATCH_")
    kept = {name: value for name, value in environment.items() if not name.startswith(words)}
    kept |= {name: environment[name] for name in slurm.CONNECTION if name in environment}
    for name in ("CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", NODE_NAME):
        kept.pop(name, None)
    return kept


class Lifeline:
    """A port to which processes on other nodes hold a connection; it breaks when the process of this object ends.

    Nothing is sent. A process that Slurm started elsewhere outlives the srun that asked for it, if that is killed.
    """

    def __init__(self) -> None:
        self._server = socket.create_server(("", 0))
        self.port = int(self._server.getsockname()[1])
        self._held: list[socket.socket] = []
        threading.Thread(target=self._accept, name="lifeline", daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # it is closed
            while True:
                connection, _ = self._server.accept()
                self._held.append(connection)

    def close(self) -> None:
        """Let the others go, which ends them."""
        for connection in (self._server, *self._held):
            connection.close()


def hold_lifeline(address: str, port: int, on_break: Callable[[], None]) -> None:
    """Hold a connection to a :class:`Lifeline` from now on, in a thread, and call *on_break* when it breaks.

    Raises
    ------
    PassingError : it cannot be reached.
    """
    try:
        connection = socket.create_connection((address, port), timeout=SILENCE_SECONDS)
    except OSError as error:
        raise PassingError(f"the first node of the training ({address}) cannot be reached: {error.strerror}") from error
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, SILENCE_SECONDS // 4),
        (socket.TCP_KEEPINTVL, SILENCE_SECONDS // 4),
        (socket.TCP_KEEPCNT, 3),
    ):
        connection.setsockopt(socket.IPPROTO_TCP, option, value)

    def wait() -> None:
        with suppress(OSError):
            connection.recv(1)
        on_break()

    threading.Thread(target=wait, name="lifeline", daemon=True).start()


class Step:
    """A command on other nodes by srun, and a thread that tells when it has failed."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], on_failure: Callable[[], None]) -> None:
        self._process = subprocess.Popen(command, env=dict(environment), stdin=subprocess.DEVNULL)
        self._on_failure = on_failure
        self.has_failed = False
        threading.Thread(target=self._watch, name="srun", daemon=True).start()

    def _watch(self) -> None:
        if self._process.wait() != 0:
            self.has_failed = True
            self._on_failure()

    def finish(self, seconds: float) -> None:
        """Wait for the end, and end it after so many *seconds*."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.terminate()  # srun passes it on, and then leaves
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
            self._process.kill()
            self._process.wait()
