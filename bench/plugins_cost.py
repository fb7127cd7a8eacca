"""Measure what the training plug-ins cost: images/s with them against stock mmcv, on the same config, in turn."""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from bench.prepare import Bench, Scale, prepare_data
from bench.processes import THREADS, Row, environment, execute
from bench.rows import make_config, mim_train, stock, with_hook
from bench.table import machine_line
from scripts.lib.base.console import run_cli
from scripts.lib.base.environment import Variable
from scripts.lib.base.files import read_json
from scripts.lib.runs.config_file import write_config
from scripts.train.train_model import training_environment

IMAGES_PER_CLASS, SIZE = 30, 128
#: Of each run; the first warms up and is not counted.
EPOCHS = 3


def rate(config: Row, file: Path) -> float:
    """Train once through mim; return images/s over all epochs but the first.

    mmcv's two seconds of sleep, between an epoch's begin and its first batch, do not count.
    """
    write_config(file, config, "mim", "bench")
    output = file.with_suffix(".json")
    variables = training_environment({"runner": {"threads": THREADS, "device": "cpu"}}, environment("cpu", output))
    variables.pop(Variable.PARENT)  # the trainer is mim's, not train_model's
    execute([*mim_train(file, file.with_suffix(""), 0, "cpu"), "--deterministic"], file.with_suffix(".log"), variables)
    epochs = read_json(output)["epochs"][1:]
    return sum(epoch["images"] for epoch in epochs) / sum(epoch["trained"] - epoch["stepping"] for epoch in epochs)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.plugins_cost", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="runs with and without them, in turn (default 3)")
    return parser


def main(args: argparse.Namespace) -> None:
    """Run both in turn and print the ratio pair by pair."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = Bench(folder, "sample", Scale(sample_images=IMAGES_PER_CLASS))
        prepare_data(bench, "sample", None)
        config = make_config(bench, folder, "tutorial", {"checkpoint": "none", "epochs": EPOCHS, "image_size": SIZE}, 0)
        config["custom_hooks"] = []
        configs = {
            which: with_hook(values, "bench.clock", {"type": "BenchClock"})
            for which, values in (("stock", stock(config)), ("ours", config))
        }
        rates: dict[str, list[float]] = {which: [] for which in configs}
        for repeat in range(args.repeats):
            for which in list(configs)[:: -1 if repeat % 2 else 1]:
                rates[which].append(rate(configs[which], folder / f"{which}{repeat}.py"))
    ratios = [ours / plain for ours, plain in zip(rates["ours"], rates["stock"], strict=True)]
    print(machine_line())
    for which, values in rates.items():
        print(f"{which:6} images/s: " + "  ".join(f"{value:.1f}" for value in values))
    print("ratio pair by pair: " + "  ".join(f"{ratio:.3f}" for ratio in ratios))
    print(f"plug-ins against stock mmcv, median: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    run_cli(build_parser, main)
