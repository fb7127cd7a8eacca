"""One of the processes that train together, as torch.distributed.run starts it: mmcls's train.py, on a card of its own.

mmcls's own ``--launcher pytorch`` needs GPUs (on a CPU it divides by their number) and mmcv's DDP wrapper, which
fails with newer torch. So the processes are joined here, train.py is run as if alone, and ReproducibleRunner, which
sees that it is not, does the rest. The same code with NCCL on GPUs and with gloo on CPUs.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys
from datetime import timedelta
from pathlib import Path

from scripts.train.config_file import read_config

#: Longest wait in a collective operation, e.g. for the slowest start.
PATIENCE = timedelta(minutes=30)
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask Linux to kill this process when torch.distributed.run's dies.

    Newer torch puts each process into a session of its own, where a SIGKILL to train_model's group does not reach it:
    it would go on writing beside the next attempt.
    """
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the request
        os.kill(os.getpid(), signal.SIGKILL)


def train() -> None:
    """Join the other processes and run mmcls's train.py with this process's command line."""
    import mmcls
    import torch
    import torch.distributed as dist

    options = sys.argv[1:]
    if read_config(Path(options[0]))["runner"]["device"] == "cpu":
        dist.init_process_group("gloo", timeout=PATIENCE)
        device = ["--device", "cpu"]
    else:
        card = int(os.environ["LOCAL_RANK"])
        torch.cuda.set_device(card)
        dist.init_process_group("nccl", timeout=PATIENCE)
        device = ["--gpu-id", str(card)]
    script = Path(mmcls.__file__).parent / ".mim" / "tools" / "train.py"
    sys.argv = [str(script), *options[:1], *device, *options[1:]]
    runpy.run_path(str(script), run_name="__main__")
    dist.destroy_process_group()


def main() -> None:
    """Train; an error is left where torch.distributed.run reads it, and ends the process whatever still runs in it."""
    from torch.distributed.elastic.multiprocessing.errors import record

    try:
        record(train)()
    except Exception:
        # Not the usual way out: threads of NCCL that wait for the other processes can hold it up for ever, and only
        # when this process ends does torch.distributed.run end the others.
        sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    die_with_parent()
    main()
