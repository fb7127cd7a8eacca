"""Measure each choice of the fast recipe by leaving it out: training steps, images, features, and short trainings.

Everything in one run, on one data set. Speeds are medians of turns in which all variants take part; accuracies are
means over seeds, of short trainings at 128 pixels: half a point more or less means nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import logging
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from bench.prepare import MOBILENET, MODELS, Bench, Scale, data_name, prepare_data, prepare_weights
from bench.processes import ROOT, Row, command, environment, execute, read_json
from bench.rows import accuracy_of
from bench.table import gpu_line, machine_line
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import read_lines, write_json, write_text
from scripts.lib.base.problems import UserError
from scripts.lib.data.pixel_cache_writer import RAW_LIMIT_BYTES, write_pixel_cache
from scripts.lib.data.splits import listed_images
from scripts.lib.model.fast_recipe import cached_short_side
from scripts.lib.runs.config_file import read_config, write_config
from scripts.train.train_model import training_environment

logger = logging.getLogger(__name__)

SIZE, BATCH_SIZE = 160, 32
BASE_CONFIG = MODELS[MOBILENET].base_config
#: Of the short trainings.
SHORT = {"image_size": 128, "epochs": 4}
#: A training step with everything, and with one thing left out or put in.
STEPS: dict[str, Row] = {
    "all of it": {},
    "glibc gives freed memory back": {"keep_memory": False},
    "channels first": {"channels_last": False},
    "frozen normalisation not folded": {"folded": False},
    "AdamW weight by weight": {"fused": False},
    "multiplications in bfloat16": {"half": True},
    "224 pixels a side": {"size": 224},
}
#: Overrides of a short training, by what they leave out.
SCHEDULES: dict[str, Row] = {
    "as the recipe has it": {},
    "live statistics of batch normalisation": {"model.backbone.norm_eval": False},
    "SGD, 0.005, as in the tutorial": {
        "optimizer": {"type": "SGD", "lr": 0.005, "momentum": 0.9, "weight_decay": 4e-5}
    },
    "crops from 8 % of an image on": {"data.train.pipeline.2.scale": [0.08, 1.0]},
    "labels not smoothed": {"model.head.loss": {"type": "CrossEntropyLoss", "loss_weight": 1.0}},
    "cosine without warm-up": {"lr_config": {"policy": "CosineAnnealing", "min_lr": 0, "by_epoch": False}},
    "one learning rate": {"lr_config": {"policy": "fixed"}},
    "weights not averaged": {"custom_hooks": []},
}
#: Starts of a short training, by what they leave out.
STARTS = {
    "head not fitted": "not fitted",
    "frozen normalisation not absorbed": "not absorbed",
    "images packed as JPEG": "JPEG",
}
#: Pixels that the backbone sees, of the shorter side of the packed image.
FEATURES = ((224, 224), (160, 160), (160, 183), (128, 128), (96, 96))
PARTS = ("steps", "images", "features", "trainings")


def step_rate(channels_last: bool, folded: bool, fused: bool, size: int, steps: int, half: bool = False) -> float:
    """Return images/s of training steps of MobileNetV2 in this process: the median of *steps* after two more."""
    import torch

    from bench.prepare import bare_model
    from scripts.train import fit_head

    torch.set_num_threads(2)
    model = bare_model()
    model.backbone.norm_eval = True
    images = torch.randn(BATCH_SIZE, 3, size, size)
    if channels_last:
        model, images = model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    if folded:
        model = fit_head.absorbed(model, images[:2])
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=fused)
    labels = torch.arange(BATCH_SIZE)
    seconds = []
    for _ in range(steps + 2):
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model.train_step({"img": images, "gt_label": labels}, None)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    return BATCH_SIZE / statistics.median(seconds[2:])


def measure_steps(turns: int, steps: int) -> dict[str, float]:
    """Return images/s of each of STEPS: a process of its own a turn, since the allocator's settings are a process's."""
    rates: dict[str, list[float]] = {name: [] for name in STEPS}
    for _ in range(turns):
        for name, change in STEPS.items():
            options = {"channels_last": True, "folded": True, "fused": True, "size": SIZE, "keep_memory": True} | change
            variables = environment()
            if options.pop("keep_memory"):
                variables = training_environment({"runner": {"threads": 2, "device": "cpu"}}, variables)
            asked = [sys.executable, "-m", "bench.tricks", "--step", json.dumps(options | {"steps": steps})]
            result = subprocess.run(asked, cwd=ROOT, env=variables, capture_output=True, text=True)
            if result.returncode != 0:
                raise UserError(f"a training step failed: {result.stderr.strip().splitlines()[-1]}")
            rates[name].append(float(result.stdout.split()[-1]))
            logger.info("%s: %.1f images/s", name, rates[name][-1])
    return {name: statistics.median(values) for name, values in rates.items()}


def fast_config(
    bench: Bench, folder: Path, packed: Path, settings: Mapping[str, Any], recipe: str = "fast", seed: int = 0
) -> Path:
    """Write the config.py of an experiment into *folder* and return its path."""
    own = {"base_config": BASE_CONFIG, "recipe": recipe, "device": "cpu", "threads": 2, **settings}
    words: list[object] = ["--experiment", json.dumps(own), "--seed", seed, "--classes", bench.classes]
    words += ["--splits", bench.folder / "splits", "--images", bench.images, "--checkpoint", bench.checkpoint]
    words += ["--pixel-cache", packed] if recipe == "fast" else []
    execute(command("scripts.train.patch_config", *words, "--output", folder / "config.py"), folder / "output.log")
    return folder / "config.py"


def pack(bench: Bench, edge: int, folder: Path, raw_limit: int | None = None) -> Path:
    """Pack train and val with the shorter side at *edge*, unless that is done; return the folder."""
    target = folder / f"packed-{edge}-{raw_limit}"
    if not target.exists():
        names = listed_images(bench.split(split) for split in ("train", "val"))
        limit = RAW_LIMIT_BYTES if raw_limit is None else raw_limit
        write_pixel_cache(bench.images, names, edge, target, raw_limit=limit, threads=2)
    return target


def measure_images(bench: Bench, folder: Path) -> dict[str, float]:
    """Return milliseconds to load and augment a training image, in one process: from files, and from packs."""
    from mmcls.datasets import build_dataset

    import scripts.mmcls_plugins  # noqa: F401  (registers ours)

    found = {}
    kinds = {"from files, tutorial's pipeline": None, "from raw pixels": 1 << 40, "from small JPEGs": 0}
    for name, limit in kinds.items():
        place = folder / f"images-{limit}"
        place.mkdir()
        packed = pack(bench, cached_short_side(SIZE), folder, limit) if limit is not None else folder
        config = read_config(fast_config(bench, place, packed, {}, "tutorial" if limit is None else "fast"))
        dataset = build_dataset(copy.deepcopy(config["data"]["train"]))
        count = min(len(dataset), 500)
        began = time.perf_counter()
        for index in range(count):
            dataset[index]
        found[name] = 1e3 * (time.perf_counter() - began) / count
    return found


def measure_features(bench: Bench, folder: Path, kinds: Sequence[tuple[int, int]]) -> list[Row]:
    """Return, by size and packed edge, images/s and the accuracy on val of the head that is fitted.

    Images/s: as built, folded, and folded with multiplications in bfloat16; accuracies: folded, and in bfloat16.
    """
    import torch
    from mmcv import Config

    from scripts.lib.model.inference import classifier_layer, keep_freed_memory, read_checkpoint
    from scripts.lib.model.linear_probe import extract, fit_probes
    from scripts.mmcls_plugins.images import Normalizer
    from scripts.train import fit_head

    keep_freed_memory()
    torch.set_num_threads(2)
    classes = read_lines(bench.classes)
    rows = []
    for size, edge in kinds:
        place = folder / f"features-{size}-{edge}"
        place.mkdir()
        config = Config.fromfile(str(fast_config(bench, place, pack(bench, edge, folder), {"image_size": size})))
        weights, _ = read_checkpoint(bench.checkpoint)
        splits = [fit_head.build_split(config, bench.split(name), classes) for name in ("train", "val")]
        model = fit_head.build_pretrained(config, weights, "cpu")
        normalizer = Normalizer(**config.runner.normalize)
        some = torch.utils.data.Subset(splits[0], range(64))
        batches = list(fit_head.image_tensors(some, normalizer, 0, "cpu"))
        quick = fit_head.absorbed(copy.deepcopy(model), batches[0])
        ways: dict[str, tuple[torch.nn.Module, Callable[[], Any]]] = {
            "plain": (model, contextlib.nullcontext),
            "folded": (quick, contextlib.nullcontext),
            "bfloat16": (quick, partial(torch.autocast, "cpu", torch.bfloat16)),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(5):
            for name, (one, way) in ways.items():
                with torch.no_grad(), way():
                    began = time.perf_counter()
                    for batch in batches:
                        one(img=batch, return_loss=False, post_process=False)
                    rates[name].append(64 / (time.perf_counter() - began))
        layer = classifier_layer(quick, len(classes), trained=weights)
        assert layer is not None
        labels = [torch.as_tensor(one.get_gt_labels(), dtype=torch.int64) for one in splits]
        found = {name: statistics.median(values) for name, values in rates.items()}
        for name, half in (("fit", False), ("bfloat16 fit", True)):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                features = [extract(quick, layer, fit_head.image_tensors(one, normalizer, 2, "cpu")) for one in splits]
            began = time.perf_counter()
            probe = fit_probes(features[0], labels[0], features[1], labels[1], len(classes))[-1]
            found |= {name: time.perf_counter() - began, f"{name} val": probe.accuracy}
        rows.append({"name": f"{size} of {edge} px", **found})
        logger.info("features: %s", rows[-1])
    return rows


def short_training(bench: Bench, folder: Path, settings: Mapping[str, Any], start: str, seed: int) -> Row | None:
    """Train shortly; return the accuracies on val of the start and the last epoch, and on test of what is kept.

    Parameters
    ----------
    start : what training starts from: ``fitted``, ``not fitted``, ``not absorbed``, or fitted to images in ``JPEG``.

    Returns
    -------
    dict : ``start``, ``last`` and ``test``, 0 to 1; None where training ended with an error, which is logged.
    """
    import pandas as pd
    from mmcv import Config

    from scripts.lib.model.checkpoint_file import write_checkpoint
    from scripts.lib.model.inference import read_checkpoint
    from scripts.train import fit_head

    place = folder / "training"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    packed = pack(bench, cached_short_side(SHORT["image_size"]), folder, 0 if start == "JPEG" else None)
    file = fast_config(bench, place, packed, {**SHORT, **settings}, seed=seed)
    config, classes = Config.fromfile(str(file)), read_lines(bench.classes)
    weights, _ = read_checkpoint(bench.checkpoint)
    splits = [fit_head.build_split(config, bench.split(split), classes) for split in ("train", "val")]
    without: Any = contextlib.nullcontext()
    if start == "not fitted":
        without = mock.patch.object(fit_head, "classifier_layer", return_value=None)
    elif start == "not absorbed":
        without = mock.patch.object(fit_head, "absorbed", side_effect=lambda model, _images: model)
    with without:
        state = fit_head.fit_head(config, weights, splits, "cpu", 2)
    write_checkpoint(state, place / "init.pth")
    values = read_config(file)
    values["runner"]["patience"] = 0
    write_config(file, values, "made by bench.tricks", BASE_CONFIG)
    log = place / "train_log.csv"
    products = ("--best", place / "best.pth", "--last", place / "last.pth", "--train-log", log)
    words = ("--config", file, "--seed", seed, "--work-dir", place / "work", "--workers", 2, *products)
    try:
        execute(command("scripts.train.train_model", *words), place / "output.log")
    except UserError as error:
        logger.info("%s", error)
        return None
    accuracy = pd.read_csv(log)["val_accuracy"]
    test = accuracy_of(bench, place, place / "best.pth", "test")
    return {"start": accuracy[0], "last": accuracy.iloc[-1], "test": test}


def measure_trainings(bench: Bench, folder: Path, seeds: Sequence[int]) -> list[Row]:
    """Return the accuracies of short trainings by the recipe, and of those that leave one thing out: over the seeds."""
    variants = [(name, {"overrides": overrides}, "fitted") for name, overrides in SCHEDULES.items()]
    variants += [(name, {}, start) for name, start in STARTS.items()]
    rows: list[Row] = []
    for name, settings, start in variants:
        found = [short_training(bench, folder, settings, start, seed) for seed in seeds]
        done = [one for one in found if one is not None]
        means = {key: statistics.fmean(one[key] for one in done) if done else None for key in ("start", "last", "test")}
        rows.append({"name": name, "data": bench.data, "seeds": len(done), **means})
        logger.info("%s", rows[-1])
    return rows


def percent(value: float | None) -> str:
    """Return an accuracy for the table; None: training ended with an error."""
    return "failed" if value is None else f"{100 * value:.1f}"


def text(found: Row) -> str:
    """Return the tables, in Markdown; *found* has what was measured, by part."""
    steps, images = found.get("steps", {}), found.get("images", {})
    features, trainings = found.get("features", []), found.get("trainings", [])
    whole = next(iter(steps.values()), 1.0)
    lines = [machine_line(), "", gpu_line({}), ""]
    lines += [f"| a training step, MobileNetV2, {SIZE} px, batch {BATCH_SIZE} | images/s | of all of it |"]
    lines += ["|---|---:|---:|", *(f"| {name} | {rate:.1f} | {rate / whole:.2f} |" for name, rate in steps.items()), ""]
    lines += ["| a training image, loaded and augmented, one process | ms |", "|---|---:|"]
    lines += [*(f"| {name} | {value:.2f} |" for name, value in images.items()), ""]
    head = "images/s | folded | folded, bfloat16 | fit, s | val accuracy of head, % | of bfloat16's"
    lines += [f"| features at | {head} |", "|---" + "|---:" * 6 + "|"]
    for row in features:
        numbers = [f"{row[name]:.0f}" for name in ("plain", "folded", "bfloat16")]
        numbers += [f"{row['fit']:.1f}", percent(row["fit val"]), percent(row["bfloat16 fit val"])]
        lines.append(f"| {' | '.join([row['name'], *numbers])} |")
    head = f"{SHORT['epochs']} epochs at {SHORT['image_size']} px, accuracy, %"
    lines += ["", f"| {head} | start, val | last epoch, val | what is kept, test | seeds |", "|---" + "|---:" * 4 + "|"]
    for row in trainings:
        numbers = " | ".join(percent(row[key]) for key in ("start", "last", "test"))
        lines.append(f"| {row['data']}, {row['name']} | {numbers} | {row['seeds']} |")
    return "\n".join(lines) + "\n"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.tricks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="elpv", help="as of bench.compare (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("results/bench"), metavar="FOLDER", help="of bench.compare")
    parser.add_argument("--turns", type=int, default=3, help="turns of the training steps (default: %(default)s)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED", help="of the short trainings (0 1 2)"
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="what to measure; the rest is kept (default: all)")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    return parser


def main(args: argparse.Namespace) -> None:
    """Measure, and write tricks.md."""
    if args.step:
        print(step_rate(**json.loads(args.step)))
        return
    parts = [part for part in PARTS if part in args.parts.split(",")]
    if len(parts) != len(set(args.parts.split(","))):
        raise UserError(f"--parts: choose of {', '.join(PARTS)}")
    bench = Bench(args.output.resolve(), data_name(args.data), Scale())
    prepare_data(bench, args.data, None)
    prepare_weights(bench)
    folder = bench.output / "tricks"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    kept = bench.output / "tricks.json"
    found: Row = read_json(kept) if kept.exists() else {}
    measures: dict[str, Callable[[], Any]] = {
        "steps": lambda: measure_steps(args.turns, 6),
        "images": lambda: measure_images(bench, folder),
        "features": lambda: measure_features(bench, folder, FEATURES),
        "trainings": lambda: measure_trainings(bench, folder, args.seeds),
    }
    for part in parts:
        measured = measures[part]()
        if part == "trainings":  # of several data sets, one after the other
            measured = [row for row in found.get(part, []) if row["data"] != bench.data] + measured
        found[part] = measured
        write_json(kept, found)
    written = text(found)
    write_text(bench.output / "tricks.md", written)
    shutil.rmtree(folder)
    print(written)


if __name__ == "__main__":
    run_cli(build_parser, main)
