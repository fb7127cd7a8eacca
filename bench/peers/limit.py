"""The limit of the bench: images/s of a bare training loop on random bytes already in memory, with mimflow's torch."""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scripts.console import run_cli
from scripts.evaluate.inference import build_classifier, load_config
from scripts.files import write_text
from scripts.train import warm_start

#: Batches in memory, which training goes through in turn.
BATCHES = 16
WARMUP_STEPS = 5


def measure(model: Any, size: int, batch_size: int, steps: int, repeats: int, absorbed: bool = False) -> list[float]:
    """Return images/s of each of *repeats* runs of *steps* training steps.

    Parameters
    ----------
    model : an ImageClassifier of mmcls whose head has one linear layer ``fc``.
    size : pixels a side.
    absorbed : compute normalisation as recipe fast does, which leaves less to compute.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (BATCHES, batch_size, 3, size, size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    batches = [batch.contiguous(memory_format=torch.channels_last) for batch in images]
    labels = torch.randint(0, model.head.num_classes, (BATCHES, batch_size), generator=generator)
    mean = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
    factor = 1 / torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)

    def normalised(batch: torch.Tensor) -> torch.Tensor:
        return (batch.float() - mean) * factor

    model.to(memory_format=torch.channels_last)
    if absorbed:
        model = warm_start.absorbed(model, normalised(batches[0][:2]))
    model.train()
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step(number: int) -> None:
        features = model.extract_feat(normalised(batches[number % BATCHES]))
        scores = model.head.fc(features[-1] if isinstance(features, tuple) else features)
        loss = nn.functional.cross_entropy(scores, labels[number % BATCHES])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    for number in range(WARMUP_STEPS):
        step(number)
    rates = []
    for _ in range(repeats):
        started = time.perf_counter()
        for number in range(steps):
            step(number)
        rates.append(steps * batch_size / (time.perf_counter() - started))
    return rates


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers.limit", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="a run's config.py: its model")
    parser.add_argument("--sizes", type=int, nargs="+", required=True, metavar="PIXELS", help="sizes of the images")
    parser.add_argument("--absorbed", type=int, metavar="PIXELS", help="measure this size with norms absorbed, too")
    parser.add_argument("--batch-size", type=int, default=32, metavar="N", help="images a step (32)")
    parser.add_argument("--steps", type=int, default=15, metavar="N", help="training steps of one measurement (15)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="measurements; their median counts (3)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="CPU threads (2)")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE",
        help="JSON to write: images/s by size, plain and with normalisation absorbed",
    )  # fmt: skip
    return parser


def rate_of(args: argparse.Namespace, size: int, absorbed: bool = False) -> float:
    """Return the median images/s at a size, and print all."""
    model = build_classifier(load_config(args.config).model)
    rates = measure(model, size, args.batch_size, args.steps, args.repeats, absorbed)
    how = ", normalisation absorbed" if absorbed else ""
    print(f"{size} pixels{how}: {', '.join(f'{rate:.1f}' for rate in rates)} images/s", flush=True)
    return statistics.median(rates)


def main(args: argparse.Namespace) -> None:
    """Measure each size."""
    torch.set_num_threads(args.threads)
    rates: dict[str, dict[str, float]] = {"plain": {}, "absorbed": {}}
    for size in args.sizes:
        rates["plain"][str(size)] = rate_of(args, size)
    if args.absorbed:
        rates["absorbed"][str(args.absorbed)] = rate_of(args, args.absorbed, absorbed=True)
    write_text(args.output, json.dumps(rates))


if __name__ == "__main__":
    run_cli(build_parser, main)
