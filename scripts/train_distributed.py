"""Train a config in several processes of this machine, a GPU each: torch.distributed.run on mmcls's train.py (DDP)."""

from __future__ import annotations

import argparse
import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scripts.lib.base.console import one_line, run_cli
from scripts.lib.base.outcome import Ending, Outcome
from scripts.lib.base.problems import UserError
from scripts.lib.base.subprocesses import EXIT_STOPPED
from scripts.lib.base.units import plural
from scripts.lib.runs.config_file import check_executable
from scripts.lib.runs.run_folder import WorkFolder
from scripts.mmcls_plugins.distributed_process import add_options, command_line

logger = logging.getLogger(__name__)
#: Seconds that the processes get to save after a signal; train_model grants 60. torch before 2.8 knows 30 only.
GRACE_SECONDS = 55
#: What a process says when another one died: its own error is then a consequence, not the cause.
LOST_PEER = re.compile(r"gloo|NCCL|Connection (closed|reset)|Broken pipe|Dist(Backend|Network|Store)Error")


def launch_command(count: int, log_dir: Path) -> list[str]:
    """Return the options of torch.distributed.run for *count* processes on this machine.

    Port 0: the system gives a free one, so that trainings side by side never meet (``--standalone`` is port 29400 for
    all of them in torch 2.0).
    """
    return [
        *("--nnodes", "1", "--nproc_per_node", str(count)),
        *("--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", "--rdzv_id", str(os.getpid())),
        *("--local_addr", "127.0.0.1"),  # else the machine's own name, which does not resolve everywhere
        *("--monitor_interval", "0.5", "--log_dir", str(log_dir)),
        *("-m", "scripts.mmcls_plugins.distributed_process"),
    ]


def launch(count: int, options: Sequence[str], log_dir: Path) -> None:
    """Run *count* processes of distributed_process with *options* to their end.

    Parameters
    ----------
    log_dir : where the processes leave their errors; removed at the end, and what a kill left there at the beginning.

    Raises
    ------
    SystemExit : with EXIT_STOPPED: they were asked to stop, and have saved.
    UserError : one of them failed; it says which one, and why.
    """
    from torch.distributed import run  # late: it takes seconds, and --help should not
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(GRACE_SECONDS))
    shutil.rmtree(log_dir, ignore_errors=True)
    try:
        run.main([*launch_command(count, log_dir), *options])
    except SignalException:
        sys.exit(EXIT_STOPPED)
    except ChildFailedError as error:
        failures = [(rank, failure.exitcode, failure.message) for rank, failure in error.failures.items()]
        if have_stopped(status for _, status, _ in failures):
            sys.exit(EXIT_STOPPED)
        raise UserError(describe_failure(failures, count)) from error
    finally:
        shutil.rmtree(log_dir, ignore_errors=True)


def have_stopped(statuses: Iterable[int]) -> bool:
    """Tell whether processes with these exit statuses stopped as they were asked to, their state saved.

    They stop together. torch.distributed.run takes the first that has ended for a failed one and sends the others
    SIGTERM, which ends one whose Python is on its way out, its handlers gone.
    """
    distinct = set(statuses)
    return EXIT_STOPPED in distinct and distinct <= {EXIT_STOPPED, -signal.SIGTERM}


def describe_failure(failures: Iterable[tuple[int, int, Any]], count: int) -> str:
    """Say in one line which process failed first and why; the others failed because it did.

    Parameters
    ----------
    failures : rank, exit status (negative: a signal) and message of each process that failed.
    count : processes in all.
    """

    def is_consequence(failure: tuple[int, int, Any]) -> tuple[bool, int]:
        rank, status, message = failure
        return status == -signal.SIGTERM or bool(LOST_PEER.search(str(message))), rank

    rank, status, message = min(failures, key=is_consequence)
    which = f"process {rank + 1} of {count}"
    if status < 0:
        killed = f"{which} was killed by {signal.Signals(-status).name}"
        return f"{killed}: by the system when memory is short, or by hand; the same command goes on"
    text = message.get("message", "") if isinstance(message, dict) else str(message)
    return f"{which} failed: {one_line(text)}"


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


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.train_distributed", description=__doc__)
    add_options(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Train; what went wrong also stands in work_dir/outcome.json, where train_model looks."""
    folder = WorkFolder(args.work_dir)
    runner = check_executable(args.config)["runner"]
    count = runner.get("gpus", 1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # As the config says, before torch.distributed.run makes it 1.
    os.environ.setdefault("OMP_NUM_THREADS", str(runner["threads"]))
    folder.outcome.unlink(missing_ok=True)
    try:
        check_gpus(runner["device"], count)
        options = command_line(args.config, args.work_dir, args.seed, args.deterministic, args.cfg_options)
        launch(count, options, folder.processes)
    except UserError as error:
        outcome = Outcome.read(folder.outcome)
        if outcome and outcome.ending == Ending.FAILED:  # a process said why by itself
            raise UserError(outcome) from error
        if "out of memory" not in str(error).lower():  # train_model knows the remedy for that
            Outcome(Ending.FAILED, str(error), again=error.again).write(folder.outcome)
        raise


if __name__ == "__main__":
    run_cli(build_parser, main)
