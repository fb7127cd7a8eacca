"""Train a config in several processes, a GPU each: torch.distributed.run on mmcls's train.py (DDP), on each node."""

from __future__ import annotations

import argparse
import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from scripts.lib.base.console import one_line, run_cli
from scripts.lib.base.environment import Variable
from scripts.lib.base.files import find_json, write_json
from scripts.lib.base.outcome import Ending, Outcome, may_pass
from scripts.lib.base.problems import PassingError, UserError
from scripts.lib.base.subprocesses import EXIT_STOPPED
from scripts.lib.base.units import plural
from scripts.lib.cluster import nodes
from scripts.lib.cluster.gpus import claimed_gpus
from scripts.lib.runs.config_file import check_executable
from scripts.lib.runs.run_folder import WorkFolder
from scripts.mmcls_plugins.distributed_process import add_options, command_line

logger = logging.getLogger(__name__)
#: Seconds that the processes get to save after a signal; train_model grants 60. torch before 2.8 knows 30 only.
GRACE_SECONDS = 55
#: Seconds that the other nodes get to end after the first one.
OTHERS_SECONDS = 30
#: What a process says when another one died: its own error is then a consequence, not the cause.
LOST_PEER = re.compile(r"gloo|NCCL|Connection (closed|reset)|Broken pipe|Dist(Backend|Network|Store)Error")


@dataclass(frozen=True)
class Meeting:
    """Where the nodes of a training meet: the first node's address, and ports that were free there.

    Attributes
    ----------
    node : index of this node among the nodes of the training.
    lifeline : port of the :class:`nodes.Lifeline`.
    """

    count: int
    node: int
    address: str
    port: int
    lifeline: int = 0


@dataclass(frozen=True)
class Failure:
    """Why the processes of one node ended; *is_consequence*: because others did, by what they say."""

    what: str
    is_consequence: bool = False
    again: bool = False


class NodeFailed(UserError):
    """The processes of this node failed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.what)
        self.failure = failure
        self.again = failure.again


def launch_command(count: int, log_dir: Path, meeting: Meeting | None = None) -> list[str]:
    """Return the options of torch.distributed.run for *count* processes on this machine.

    Alone, port 0: the system gives a free one, so that trainings side by side never meet (``--standalone`` is port
    29400 for all of them in torch 2.0). With other nodes each has a rank of its own: then no order of arrival matters.
    """
    if meeting is None:
        where = ["--nnodes", "1", "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]
        where += ["--rdzv_id", str(os.getpid())]
        where += ["--local_addr", "127.0.0.1"]  # else the machine's own name, which does not resolve everywhere
    else:
        where = ["--nnodes", str(meeting.count), "--node_rank", str(meeting.node)]
        where += ["--master_addr", meeting.address, "--master_port", str(meeting.port)]
    return [
        *(*where, "--nproc_per_node", str(count), "--monitor_interval", "0.5", "--log_dir", str(log_dir)),
        *("-m", "scripts.mmcls_plugins.distributed_process"),
    ]


def launch(count: int, options: Sequence[str], log_dir: Path, meeting: Meeting | None = None) -> None:
    """Run *count* processes of distributed_process with *options* on this node to their end.

    Parameters
    ----------
    log_dir : where the processes leave their errors; removed at the end, and what a kill left there at the beginning.

    Raises
    ------
    SystemExit : with EXIT_STOPPED: they were asked to stop, and have saved.
    NodeFailed : one of them failed; it says which one, and why.
    """
    from torch.distributed import run  # late: it takes seconds, and --help should not
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(GRACE_SECONDS))
    shutil.rmtree(log_dir, ignore_errors=True)
    try:
        run.main([*launch_command(count, log_dir, meeting), *options])
    except SignalException:
        sys.exit(EXIT_STOPPED)
    except ChildFailedError as error:
        failures = [(rank, failure.exitcode, failure.message) for rank, failure in error.failures.items()]
        if have_stopped(status for _, status, _ in failures):
            sys.exit(EXIT_STOPPED)
        in_all = count * (meeting.count if meeting else 1)
        raise NodeFailed(describe_failure(failures, in_all)) from error
    except Exception as error:
        if meeting is None:
            raise
        raise NodeFailed(Failure(f"the nodes did not meet: {one_line(error)}", True, again=True)) from error
    finally:
        shutil.rmtree(log_dir, ignore_errors=True)


def have_stopped(statuses: Iterable[int]) -> bool:
    """Tell whether processes with these exit statuses stopped as they were asked to, their state saved.

    They stop together. torch.distributed.run takes the first that has ended for a failed one and sends the others
    SIGTERM, which ends one whose Python is on its way out, its handlers gone.
    """
    distinct = set(statuses)
    return EXIT_STOPPED in distinct and distinct <= {EXIT_STOPPED, -signal.SIGTERM}


def describe_failure(failures: Iterable[tuple[int, int, Any]], count: int) -> Failure:
    """Say in one line which process failed first and why; the others failed because it did.

    Parameters
    ----------
    failures : rank, exit status (negative: a signal) and message of each process that failed.
    count : processes in all.
    """

    def is_consequence(failure: tuple[int, int, Any]) -> bool:
        _, status, message = failure
        return status == -signal.SIGTERM or bool(LOST_PEER.search(str(message)))

    first = min(failures, key=lambda failure: (is_consequence(failure), failure[0]))
    rank, status, message = first
    which = f"process {rank + 1} of {count}"
    if status < 0:
        killed = f"{which} was killed by {signal.Signals(-status).name}"
        what = f"{killed}: by the system when memory is short, or by hand; the same command goes on"
        return Failure(what, is_consequence(first), again=True)
    text = one_line(message.get("message", "") if isinstance(message, dict) else str(message))
    return Failure(f"{which} failed: {text}", is_consequence(first), may_pass(text))


def cause(here: Failure | None, others: Sequence[Failure], lost: Sequence[str]) -> Failure:
    """Return why a training on several nodes failed.

    Parameters
    ----------
    here : what this node says; None where nothing failed here.
    others : what the other nodes have left on record.
    lost : names of the nodes that have left nothing.
    """
    reasons = [*([here] if here else []), *others]
    if causes := [failure for failure in reasons if not failure.is_consequence]:
        return causes[0]
    if lost:
        what = f"{plural(len(lost), 'node')} ended without a word ({', '.join(lost)}), or the network to it failed"
        return Failure(f"{what}; the same command goes on", again=True)
    return Failure(f"the processes lost each other; the same command goes on ({reasons[0].what})", again=True)


def check_gpus(device: str, count: int) -> None:
    """Stop where fewer GPUs are visible than the config has processes: mmcls would put two on one GPU, or hang."""
    if device == "cpu":
        return
    import torch  # late: it takes seconds

    visible = torch.cuda.device_count()
    if visible < count:
        raise UserError(
            f"gpus: {count}, but torch sees {visible} here: give the job {plural(count, 'GPU')}, or lower gpus"
        )


def set_interface(address: str) -> None:
    """Have gloo use the network by which the first node is reached, unless the site names one.

    Left alone, it takes the address of the machine's own name, which is 127.0.1.1 on many.
    """
    if "GLOO_SOCKET_IFNAME" not in os.environ and (name := nodes.interface_towards(address)):
        os.environ["GLOO_SOCKET_IFNAME"] = name


@contextmanager
def prepared_elsewhere(config: dict[str, Any]) -> Iterator[None]:
    """On another node than the first: have GPUs and a copy of the images of this node's own, as train_model has."""
    from scripts.train.train_model import staged_images  # late: on the first node it is train_model that starts this

    for name in (Variable.IMAGES, Variable.PIXEL_CACHE):
        os.environ.pop(name, None)
    os.environ[Variable.PARENT] = str(os.getpid())
    with ExitStack() as held:
        gpus = config["runner"].get("gpus", 1) if config["runner"]["device"] == "cuda" else 0
        if claimed := held.enter_context(claimed_gpus(gpus, os.environ)):
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(claimed)
        os.environ.update(staged_images(config, held))
        yield


def train_elsewhere(args: argparse.Namespace, config: dict[str, Any], options: Sequence[str]) -> None:
    """Train on another node than the first; leave there what went wrong, and end when the first one ends.

    Its exit status is 0 after a stop too: a failed step would have srun end those that still save.
    """
    count, address, port, lifeline = args.meet
    step_rank = int(os.environ.get("SLURM_PROCID", "0"))
    meeting = Meeting(int(count), 1 + step_rank, address, int(port), int(lifeline))
    nodes.hold_lifeline(meeting.address, meeting.lifeline, end_this_group)
    folder, gpus = WorkFolder(args.work_dir).processes, config["runner"].get("gpus", 1)
    record = folder / f"node{meeting.node}.json"
    name = nodes.this_node(os.environ) or f"node {meeting.node + 1}"
    try:
        set_interface(meeting.address)
        with prepared_elsewhere(config):
            check_gpus(config["runner"]["device"], gpus)
            launch(gpus, options, folder / f"node{meeting.node}", meeting)
    except SystemExit:
        return
    except NodeFailed as error:
        write_json(record, asdict(replace(error.failure, what=f"{error.failure.what} (on {name})")))
        raise
    except Exception as error:
        where = f"{one_line(error)} (on {name})"
        write_json(record, asdict(Failure(where, again=getattr(error, "again", may_pass(where)))))
        raise


def end_this_group() -> None:
    """End what runs on this node at once: the first node, which writes all files, has ended."""
    os.killpg(os.getpgid(0), signal.SIGKILL)  # the processes die with their parent


def train_on_nodes(args: argparse.Namespace, config: dict[str, Any], options: Sequence[str]) -> None:
    """Train on this node, the first one, and by srun on the others of this Slurm job.

    Raises
    ------
    SystemExit : with EXIT_STOPPED: they were asked to stop, and have saved.
    UserError : the job has too few nodes, or a process failed; it says which one, and why.
    """
    count, gpus = config["runner"]["nodes"], config["runner"].get("gpus", 1)
    folder = WorkFolder(args.work_dir).processes
    others = nodes.other_nodes(count, os.environ)
    address = nodes.address_of(nodes.this_node(os.environ) or "")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    lifeline = nodes.Lifeline()
    meeting = Meeting(count, 0, address, nodes.free_port(), lifeline.port)
    meet = ["--meet", *map(str, (count, address, meeting.port, lifeline.port))]
    words = [sys.executable, "-m", "scripts.train_distributed", *meet, *sys.argv[1:]]
    logger.info("training on %s: this one and %s", plural(count, "node"), ", ".join(others))
    environment = nodes.step_environment(os.environ)
    set_interface(address)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_STOPPED))  # until torch's own handler, seconds later
    # When it fails, the processes here would wait for those that are gone, NCCL's for half an hour.
    step = nodes.Step(
        nodes.step_command(others, os.environ["SLURM_JOB_ID"], words),
        environment,
        on_failure=lambda: os.kill(os.getpid(), signal.SIGTERM),
    )
    try:
        follow(step, partial(launch, gpus, options, folder / "node0", meeting), WorkFolder(args.work_dir), others)
    finally:
        lifeline.close()
        shutil.rmtree(folder, ignore_errors=True)


def follow(step: nodes.Step, train: Callable[[], None], folder: WorkFolder, others: Sequence[str]) -> None:
    """Train here while *step* trains on the other nodes; say why it failed, wherever that was.

    Raises
    ------
    SystemExit : with EXIT_STOPPED: they were asked to stop, and have saved.
    UserError : a process failed, or a node.
    """
    here: Failure | None = None
    try:
        train()
        return
    except SystemExit:
        outcome = Outcome.read(folder.outcome)
        if not step.has_failed or (outcome and outcome.ending == Ending.STOPPED):
            raise
    except NodeFailed as error:
        here = error.failure
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends, within seconds
        step.finish(OTHERS_SECONDS)
    records = {name: find_json(folder.processes / f"node{index}.json") for index, name in enumerate(others, start=1)}
    reasons = [Failure(**record) for record in records.values() if record]
    lost = [name for name, record in records.items() if not record]
    failure = cause(here, reasons, lost if step.has_failed else [])
    raise (PassingError if failure.again else UserError)(failure.what)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.train_distributed", description=__doc__)
    add_options(parser)
    # What the first node tells the others: nodes in all, its address, and two of its ports.
    parser.add_argument("--meet", nargs=4, help=argparse.SUPPRESS)
    return parser


def main(args: argparse.Namespace) -> None:
    """Train; what went wrong also stands in work_dir/outcome.json, where train_model looks."""
    folder = WorkFolder(args.work_dir)
    config = check_executable(args.config)
    runner = config["runner"]
    count = runner.get("gpus", 1)
    # As the config says, before torch.distributed.run makes it 1.
    os.environ.setdefault("OMP_NUM_THREADS", str(runner["threads"]))
    options = command_line(args.config, args.work_dir, args.seed, args.deterministic, args.cfg_options)
    if args.meet:
        train_elsewhere(args, config, options)
        return
    folder.outcome.unlink(missing_ok=True)
    try:
        check_gpus(runner["device"], count)
        if runner.get("nodes", 1) > 1:
            train_on_nodes(args, config, options)
        else:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
            launch(count, options, folder.processes)
    except UserError as error:
        outcome = Outcome.read(folder.outcome)
        if outcome and outcome.ending == Ending.FAILED:  # a process has told why by itself
            raise UserError(outcome) from error
        if "out of memory" not in str(error).lower():  # train_model knows the remedy for that
            Outcome(Ending.FAILED, str(error), again=error.again).write(folder.outcome)
        raise


if __name__ == "__main__":
    run_cli(build_parser, main)
