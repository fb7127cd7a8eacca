"""One of the processes that train together, as torch.distributed.run starts it: mmcls's train.py, on a GPU of its own.

mmcls's own ``--launcher pytorch`` needs GPUs (on a CPU it divides by their number) and mmcv's DDP wrapper, which
fails with newer torch. So the processes are joined here, train.py is run as if alone, and ReproducibleRunner, which
sees that it is not, does the rest. The same code with NCCL on GPUs and with gloo on CPUs.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from scripts.lib.base.subprocesses import die_with_parent
from scripts.lib.runs.config_file import read_config

#: Longest wait in a collective operation, e.g. for the slowest start.
PATIENCE = timedelta(minutes=30)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add to *parser* what of train.py's command line a training in several processes takes."""
    parser.add_argument("config", type=Path, help="config.py of the run; its runner.gpus is the number of processes")
    parser.add_argument("--work-dir", type=Path, required=True, help="folder of states and logs")
    parser.add_argument("--seed", type=int, required=True, help="the run's seed")
    parser.add_argument("--deterministic", action="store_true", help="deterministic kernels of cuDNN")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="as mmcls's train.py has it")


def command_line(config: Path, work_dir: Path, seed: int, deterministic: bool, cfg_options: Sequence[str]) -> list[str]:
    """Return the words of the options of :func:`add_options`, the config first."""
    words = [str(config), "--work-dir", str(work_dir), "--seed", str(seed)]
    words += ["--deterministic"] if deterministic else []
    return words + (["--cfg-options", *cfg_options] if cfg_options else [])


def train(config: Path, words: Sequence[str]) -> None:
    """Join the other processes and run mmcls's train.py on *config* with the other *words* of its command line."""
    import mmcls
    import torch
    import torch.distributed as dist

    if read_config(config)["runner"]["device"] == "cpu":
        dist.init_process_group("gloo", timeout=PATIENCE)
        device = ["--device", "cpu"]
    else:
        gpu = int(os.environ["LOCAL_RANK"])
        torch.cuda.set_device(gpu)
        dist.init_process_group("nccl", timeout=PATIENCE)
        device = ["--gpu-id", str(gpu)]
    script = Path(mmcls.__file__).parent / ".mim" / "tools" / "train.py"
    sys.argv = [str(script), str(config), *device, *words]
    runpy.run_path(str(script), run_name="__main__")
    dist.destroy_process_group()


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.mmcls_plugins.distributed_process", description=__doc__)
    add_options(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    """Train; an error is left where torch.distributed.run reads it, and ends the process whatever still runs in it."""
    from torch.distributed.elastic.multiprocessing.errors import record

    try:
        record(train)(args.config, command_line(**vars(args))[1:])
    except Exception:
        # Not the usual way out: threads of NCCL that wait for the other processes can hold it up for ever, and only
        # when this process ends does torch.distributed.run end the others.
        sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    # Not run_cli: mmcv has a log of its own, and of several processes only the first one speaks.
    arguments = build_parser().parse_args()
    # Newer torch puts each process into a session of its own, where a SIGKILL to train_model's group does not reach
    # it: it would go on writing beside the next attempt.
    die_with_parent(os.getppid())
    main(arguments)
