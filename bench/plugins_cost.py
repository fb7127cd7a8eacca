"""Measure what the training plug-ins cost: images/s with them against stock mmcv, on the same config, in turn."""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

from scripts.data.split_dataset import main as split_main
from scripts.data.unpack_archive import main as unpack_main
from scripts.lib.base.console import run_cli
from scripts.lib.base.problems import UserError
from scripts.lib.data.sample.render import write_archive
from scripts.lib.model import model_zoo
from scripts.lib.runs.config_file import write_config
from scripts.lib.settings.schema import Experiment
from scripts.train.patch_config import Inputs, build_config
from scripts.train.train_model import training_environment

HERE = Path(__file__).resolve().parent


def stock(config: dict[str, Any]) -> dict[str, Any]:
    """Return the same config with mmcv's own runner, sampler, data set and checkpoints."""
    plain = copy.deepcopy(config)
    del plain["sampler"]
    plain["runner"] = {"type": "EpochBasedRunner", "max_epochs": config["runner"]["max_epochs"]}
    for split in ("train", "val", "test"):
        plain["data"][split]["type"] = "CustomDataset"
        del plain["data"][split]["seed"]
    plain["custom_imports"] = {"imports": ["iteration_timer"], "allow_failed_imports": False}
    plain["checkpoint_config"] = {"interval": 1, "max_keep_ckpts": 2}
    return plain


def run(config: Path, work_dir: Path, values: dict[str, Any]) -> float:
    """Train once through mim; return images/s over all epochs but the first, which warms up."""
    output = work_dir.with_suffix(".json")
    environment = training_environment(values, os.environ)
    environment.pop("MIMFLOW_TRAIN_MODEL_PID")
    environment.update(MIMFLOW_BENCH_OUTPUT=str(output), PYTHONPATH=str(HERE))
    command = [str(Path(sys.executable).with_name("mim")), "train", "mmcls", str(config), "--gpus", "0"]
    command += ["--work-dir", str(work_dir), "--seed", "0", "--deterministic"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode != 0:
        raise UserError(f"{config}: training failed: {result.stderr.strip().splitlines()[-1]}")
    epochs = json.loads(output.read_text())[1:]
    return sum(epoch["images"] for epoch in epochs) / sum(epoch["seconds"] for epoch in epochs)


def prepare(folder: Path, images_per_class: int, epochs: int, size: int) -> tuple[dict[str, Any], list[str]]:
    """Render a data set and return mimflow's config for it."""
    write_archive(folder / "archive.zip", images_per_class)
    for main, words in (
        (unpack_main, ["--archive", "archive.zip", "--output", "images"]),
        (split_main, ["--images", "images", "--output", "splits", "--class-list", "classes.txt"]),
    ):
        module = sys.modules[main.__module__]
        main(module.build_parser().parse_args([str(folder / w) if not w.startswith("--") else w for w in words]))
    from mmcv import Config

    name = "mobilenet-v2_8xb32_in1k"
    base = Config.fromfile(str(model_zoo.config_path(name)))._cfg_dict.to_dict()
    classes = (folder / "classes.txt").read_text(encoding="utf-8").splitlines()
    config = build_config(
        base,
        Inputs(
            Experiment(base_config=name, checkpoint="none", epochs=epochs, image_size=size, device="cpu"),
            classes=classes,
            n_train=len((folder / "splits" / "train.txt").read_text(encoding="utf-8").splitlines()),
            images=str(folder / "images"),
            splits=str(folder / "splits"),
            checkpoint=None,
            seed=0,
            device="cpu",
        ),
    )
    config["custom_hooks"] = [{"type": "IterationTimer"}]
    config["custom_imports"]["imports"].append("iteration_timer")
    return config, classes


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.plugins_cost", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side, in turn (default 3)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of a run; the first is not counted (default 3)")
    parser.add_argument("--images-per-class", type=int, default=30, help="rendered images of each class (default 30)")
    parser.add_argument("--size", type=int, default=128, help="pixels a side that the network sees (default 128)")
    return parser


def main(args: argparse.Namespace) -> None:
    """Run both sides in turn and print the ratio pair by pair."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours, _ = prepare(folder, args.images_per_class, args.epochs, args.size)
        write_config(folder / "ours.py", ours, "mim", "bench")
        write_config(folder / "stock.py", stock(ours), "mim", "bench")
        rates: dict[str, list[float]] = {"ours": [], "stock": []}
        for repeat in range(args.repeats):
            for side in ("stock", "ours") if repeat % 2 == 0 else ("ours", "stock"):
                rates[side].append(run(folder / f"{side}.py", folder / f"{side}{repeat}", ours))
    ratios = [a / b for a, b in zip(rates["ours"], rates["stock"], strict=True)]
    print(f"{date.today()}  {platform.processor() or platform.machine()}, {os.cpu_count()} cores")
    for side, values in rates.items():
        print(f"{side:6} images/s: " + "  ".join(f"{value:.1f}" for value in values))
    print("ratio pair by pair: " + "  ".join(f"{ratio:.3f}" for ratio in ratios))
    print(f"plug-ins against stock mmcv, median: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    run_cli(build_parser, main)
