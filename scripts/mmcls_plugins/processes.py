"""The processes that train one model together (DDP): what they tell each other, and how all of them stop as one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any, TypeVar

import psutil
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from scripts.lib.base.environment import Variable
from scripts.lib.base.files import tensors_sha256

T = TypeVar("T")
#: Longest wait for another process that lives. One that died is noticed at once: its connections break.
PATIENCE = timedelta(hours=1)


class Processes:
    """The processes of this training, one a GPU; in a training of one process every method is trivial.

    They talk over a gloo group of their own: its messages lie in the memory of the CPU and do not wait for a GPU.
    Every method with a message must be called by all processes, in the same order.
    """

    def __init__(self) -> None:
        self.distributed = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if self.distributed else 0
        self.count = dist.get_world_size() if self.distributed else 1
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE) if self.count > 1 else None

    def highest(self, *values: int) -> tuple[int, ...]:
        """Return, in each position, the highest value that any process gave."""
        if self.count == 1:
            return values
        tensor = torch.tensor(values)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self._group)
        return tuple(tensor.tolist())

    def from_first(self, value: T) -> T:
        """Return what the first process gave."""
        if self.count == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self._group)
        return box[0]

    def to_first(self, value: T) -> list[T]:
        """Return, in the first process, what each one gave, by rank; elsewhere nothing."""
        if self.count == 1:
            return [value]
        gathered: list[Any] = [None] * self.count if self.rank == 0 else []
        dist.gather_object(value, gathered or None, dst=0, group=self._group)
        return gathered

    def wait_for_all(self) -> None:
        """Return when every process has come here."""
        self.highest(0)


class TrainStep(nn.Module):
    """mmcls's ``train_step`` as a forward pass, which is what torch's DistributedDataParallel wraps.

    mmcv's own wrapper, MMDistributedDataParallel, repeats parts of torch's code of 2022: with torch 2.13 its forward
    fails (``_use_replicated_tensor_module`` is gone), and its train_step leaves out what torch has added since.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Any) -> dict[str, Any]:
        """Return loss, log_vars and num_samples of *batch*."""
        return self.model.train_step(batch, None)  # type: ignore[operator]  # mmcls's take an optimizer and do not use it


def share_gradients(model: nn.Module) -> nn.Module:
    """Return a :class:`TrainStep` of *model* whose backward pass leaves the mean gradient of all processes.

    Weights and buffers of the first process are copied to the others.
    """
    # find_unused_parameters also keeps torch from laying its buckets out anew after the first step. Three and more
    # processes add in an order that depends on the layout, so a run that goes on would add its first step otherwise.
    return DistributedDataParallel(TrainStep(model), broadcast_buffers=False, find_unused_parameters=True)


def copy_normalisation(model: nn.Module) -> None:
    """Give every process the first one's running statistics of batch normalisation, as mmcv's DistEvalHook does."""
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            for statistics in (module.running_mean, module.running_var, module.num_batches_tracked):
                if statistics is not None:
                    dist.broadcast(statistics, 0)


def collect_buffers(model: nn.Module, processes: Processes) -> list[dict[str, torch.Tensor]]:
    """Return, in the first process, the buffers in which each other one differs from it, by rank from 1 on.

    Each process sees other images, so the running statistics of batch normalisation differ between two evaluations.
    What is equal everywhere (averages of weights, the bulk of all buffers) is not sent.
    """
    buffers = {name: tensor.detach().cpu() for name, tensor in model.named_buffers()}
    hashes = {name: tensors_sha256({name: tensor}) for name, tensor in buffers.items()}
    first = processes.from_first(hashes)
    return processes.to_first({name: buffers[name] for name in buffers if hashes[name] != first[name]})[1:]


def restore_buffers(model: nn.Module, collected: list[dict[str, torch.Tensor]], processes: Processes) -> None:
    """Give this process its own buffers again, after the first one's were loaded."""
    if processes.rank:
        differing = collected[processes.rank - 1]
        for name, tensor in model.named_buffers():
            if name in differing:
                tensor.copy_(differing[name])


def share_batches(loader: DataLoader, processes: Processes) -> DataLoader:
    """Return a loader of this process's batches of *loader*'s data set: each *count*-th, every one whole and in order.

    Whole batches, so that each image is computed among the same others, to the same bits, as in one process.
    """
    size = loader.batch_size or 1
    indices = range(len(loader.dataset))  # type: ignore[arg-type]
    batches = [list(indices[start : start + size]) for start in indices[::size]]
    kept = ("num_workers", "collate_fn", "pin_memory", "worker_init_fn", "persistent_workers")
    options: dict[str, Any] = {name: getattr(loader, name) for name in kept}
    return DataLoader(loader.dataset, batch_sampler=batches[processes.rank :: processes.count], **options)


def merge_batches(shares: list[list[T]]) -> list[T]:
    """Return the batches of :func:`share_batches`' loaders in the order of the whole; *shares* are by rank."""
    return [shares[number % len(shares)][number // len(shares)] for number in range(sum(map(len, shares)))]


#: Seconds before its end (Variable.END_TIME) at which training stops: enough to save a large model on a slow disk.
END_MARGIN_SECONDS = 60.0
#: Why training stops before its end; processes that train together tell each other the number. The last one wins.
STOP_REASONS = ("", "the end of train_model", "the end of its time", "SIGINT", "SIGTERM")


class StopRequests:
    """Requests to stop: a signal, the end of the job's time, or of train_model, which passes signals on."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._reason = self._agreed = 0  # indices of STOP_REASONS: of this process, and of all
        self._parent = int(os.environ.get(Variable.PARENT, "0"))
        self._end_time = float(os.environ.get(Variable.END_TIME, "inf"))

    @contextmanager
    def signals_noticed(self) -> Iterator[None]:
        """Turn SIGTERM and SIGINT into a request that is met at the end of the iteration."""

        def notice(number: int, _frame: FrameType | None) -> None:
            self._reason = STOP_REASONS.index(signal.Signals(number).name)

        previous = {number: signal.signal(number, notice) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def agree(self, due: bool = False) -> bool:
        """Tell whether any process is asked to stop, or finds that saving is *due*: one answer for all of them."""
        if self._parent and not psutil.pid_exists(self._parent):
            self._reason = self._reason or STOP_REASONS.index("the end of train_model")
        if time.time() > self._end_time - END_MARGIN_SECONDS:
            self._reason = self._reason or STOP_REASONS.index("the end of its time")
        # A signal that comes after this line waits for the next round: all processes know the same.
        self._agreed, saving = self._processes.highest(self._reason, due)
        return bool(self._agreed or saving)

    @property
    def agreed(self) -> str:
        """Why all processes stop, by the last round of :meth:`agree`; "" where they go on."""
        return STOP_REASONS[self._agreed]


@contextmanager
def signals_held_back() -> Iterator[None]:
    """Keep SIGTERM and SIGINT from this process during the block, and from those that start in it for ever.

    A data-loader worker would die of the signal that asks its trainer to save and stop, before it has read anything
    (``SeededCustomDataset`` shields it from then on), and with it the trainer.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
