"""The limit of the bench: images/s of a bare training loop on random bytes already in memory, with mimflow's torch.

A shared machine computes a tenth more or less from one minute to the next. What is measured an hour apart cannot tell
95 % from 100; what takes turns of some seconds can: so a hook lets the loop and a training take turns, in one process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmcv import Config
from mmcv.runner import HOOKS, Hook
from torch import nn

from bench.processes import OUTPUT_VARIABLE, THREADS, gpu_peak
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import write_json
from scripts.lib.model.inference import build_classifier, load_config
from scripts.train import fit_head

#: Batches in memory, which training goes through in turn.
BATCHES = 16
WARMUP_STEPS = 5
#: Measurements of a size, of which the median counts.
REPEATS = 3


@contextmanager
def fastest_kernels() -> Iterator[None]:
    """Let torch take any kernels meanwhile, and on a GPU try which are the fastest; a training asks for others."""
    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("default")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            yield
    finally:
        torch.set_deterministic_debug_mode(before)


class BareLoop:
    """A model, some batches of bytes and an optimizer, with frozen statistics of batch normalisation.

    Parameters
    ----------
    model : an ImageClassifier of mmcls whose head has one linear layer ``fc``.
    size : pixels a side.
    device : cpu, or cuda: with float16 where torch's autocast has it, and the fastest kernels.
    absorbed : compute normalisation as recipe fast does, which leaves less to compute.
    """

    def __init__(self, model: Any, size: int, batch_size: int, device: str = "cpu", absorbed: bool = False) -> None:
        self.device = device
        generator = torch.Generator().manual_seed(0)
        shape = (BATCHES, batch_size, 3, size, size)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        self.batches = [batch.to(device).contiguous(memory_format=torch.channels_last) for batch in images]
        labels = torch.randint(0, model.head.num_classes, (BATCHES, batch_size), generator=generator)
        self.labels = labels.to(device)
        self.mean = torch.tensor([123.675, 116.28, 103.53], device=device).view(1, 3, 1, 1)
        self.factor = 1 / torch.tensor([58.395, 57.12, 57.375], device=device).view(1, 3, 1, 1)
        model.to(device, memory_format=torch.channels_last)
        self.model = fit_head.absorbed(model, self._normalised(0)[:2]) if absorbed else model
        self.model.train()
        for layer in self.model.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.eval()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-6, fused=True)
        self.scaler = torch.amp.GradScaler(device, enabled=device == "cuda")
        self.rate(WARMUP_STEPS)

    def _normalised(self, number: int) -> torch.Tensor:
        return (self.batches[number % BATCHES].float() - self.mean) * self.factor

    def _step(self, number: int) -> None:
        with torch.autocast(self.device, torch.float16, enabled=self.device == "cuda"):
            features = self.model.extract_feat(self._normalised(number))
            logits = self.model.head.fc(features[-1] if isinstance(features, tuple) else features)
            loss = nn.functional.cross_entropy(logits, self.labels[number % BATCHES])
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _wait(self) -> None:
        """Until a GPU has done what it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def rate(self, steps: int) -> float:
        """Return images/s of so many training steps."""
        with fastest_kernels():
            self._wait()
            started = time.perf_counter()
            for number in range(steps):
                self._step(number)
            self._wait()
            return steps * len(self.batches[0]) / (time.perf_counter() - started)


@HOOKS.register_module(force=True)
class BareLoopInTurns(Hook):
    """Measure the bare loop before each epoch and after the last, while the data loader's processes have no work.

    Its JSON: ``plain`` and ``absorbed`` (normalisation, as recipe fast does it), images/s of each turn, one more than
    there are epochs.

    Parameters
    ----------
    size, batch_size : of the training.
    steps : of the bare loop, in one turn.
    """

    def __init__(self, size: int, batch_size: int, steps: int) -> None:
        self.size, self.batch_size, self.steps = size, batch_size, steps
        self.rates: dict[str, list[float]] = {"plain": [], "absorbed": []}

    def before_run(self, runner: object) -> None:
        model = Config.fromstring(runner.meta["config"], ".py").model  # type: ignore[attr-defined]
        device = next(runner.model.parameters()).device.type  # type: ignore[attr-defined]
        self.loops = {
            name: BareLoop(build_classifier(model), self.size, self.batch_size, device, absorbed=name == "absorbed")
            for name in self.rates
        }

    def before_train_epoch(self, runner: object) -> None:
        for name, loop in self.loops.items():
            self.rates[name].append(loop.rate(self.steps))

    def after_run(self, runner: object) -> None:
        self.before_train_epoch(runner)
        write_json(os.environ[OUTPUT_VARIABLE], self.rates)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers.limit", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="a run's config.py: its model")
    parser.add_argument("--sizes", type=int, nargs="+", required=True, metavar="PIXELS", help="sizes of the images")
    parser.add_argument("--batch-size", type=int, required=True, metavar="N", help="images a step")
    parser.add_argument("--steps", type=int, required=True, metavar="N", help="training steps of one measurement")
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True, help="where")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON to write")
    return parser


def main(args: argparse.Namespace) -> None:
    """Measure each size; the JSON has ``images_per_second`` by size, and ``gpu_peak`` in bytes."""
    torch.set_num_threads(THREADS)
    medians = {}
    for size in args.sizes:
        loop = BareLoop(build_classifier(load_config(args.config).model), size, args.batch_size, args.device)
        rates = [loop.rate(args.steps) for _ in range(REPEATS)]
        medians[str(size)] = statistics.median(rates)
        print(f"{size} pixels: {', '.join(f'{rate:.1f}' for rate in rates)} images/s", flush=True)
    write_json(args.output, {"images_per_second": medians, "gpu_peak": gpu_peak()})


if __name__ == "__main__":
    run_cli(build_parser, main)
