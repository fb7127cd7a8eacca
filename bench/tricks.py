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
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from bench.prepare import Bench, Scale, bare_model, data_name, prepare_data, prepare_weights
from bench.processes import THREADS, Row, command, environment
from bench.rows import accuracy_of, make_config, train_by_mimflow
from bench.table import gpu_line, machine_line, markdown
from scripts.lib.base import strict_yaml
from scripts.lib.base.console import run_cli
from scripts.lib.base.environment import ROOT
from scripts.lib.base.files import read_json, read_lines, write_json, write_text
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import in_percent
from scripts.lib.data.pixel_cache_writer import RAW_LIMIT_BYTES, write_pixel_cache
from scripts.lib.data.splits import listed_images
from scripts.lib.model.fast_recipe import cached_short_side
from scripts.train.train_model import training_environment

logger = logging.getLogger(__name__)

SIZE, BATCH_SIZE = 160, 32
#: Turns of the training steps, and steps of each.
TURNS, TURN_STEPS = 3, 6
#: Of the short trainings.
SHORT = {"image_size": 128, "epochs": 4}
#: Variants, each named by what it leaves out; tricks.yaml says more.
VARIANTS: Row = strict_yaml.read(Path(__file__).with_suffix(".yaml"))
PARTS = ("steps", "images", "features", "trainings")


def step_rate(channels_last: bool, folded: bool, fused: bool, size: int, half: bool = False) -> float:
    """Return images/s of training steps of MobileNetV2 in this process: the median of some after two more."""
    import torch

    from scripts.train import fit_head

    torch.set_num_threads(THREADS)
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
    for _ in range(TURN_STEPS + 2):
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            loss = model.train_step({"img": images, "gt_label": labels}, None)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    return BATCH_SIZE / statistics.median(seconds[2:])


def measure_steps() -> dict[str, float]:
    """Return images/s of each step: a process of its own a turn, since the allocator's settings are a process's."""
    rates: dict[str, list[float]] = {name: [] for name in VARIANTS["steps"]}
    for _ in range(TURNS):
        for name, change in VARIANTS["steps"].items():
            options = {"channels_last": True, "folded": True, "fused": True, "size": SIZE, "keep_memory": True} | change
            variables = environment()
            if options.pop("keep_memory"):
                variables = training_environment({"runner": {"threads": THREADS, "device": "cpu"}}, variables)
            words = command("bench.tricks", step=json.dumps(options))
            result = subprocess.run(words, cwd=ROOT, env=variables, capture_output=True, text=True)
            if result.returncode != 0:
                raise UserError(f"a training step failed: {result.stderr.strip().splitlines()[-1]}")
            rates[name].append(float(result.stdout.split()[-1]))
            logger.info("%s: %.1f images/s", name, rates[name][-1])
    return {name: statistics.median(values) for name, values in rates.items()}


def make_pixel_cache(bench: Bench, short_side: int, folder: Path, raw_limit: int = RAW_LIMIT_BYTES) -> Path:
    """Return the pixel cache of train and val with the short side at so many pixels; make it, unless it is there."""
    target = folder / f"pixel-cache-{short_side}-{raw_limit}"
    if not target.exists():
        names = listed_images(bench.split(split) for split in ("train", "val"))
        write_pixel_cache(bench.images, names, short_side, target, raw_limit=raw_limit, threads=THREADS)
    return target


def new_folder(folder: Path, name: str) -> Path:
    """Return an empty folder below another."""
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / name).mkdir()
    return folder / name


def measure_images(bench: Bench, folder: Path) -> dict[str, float]:
    """Return milliseconds to load and augment a training image, in one process: from files, and from pixel caches."""
    from mmcls.datasets import build_dataset

    import scripts.mmcls_plugins  # noqa: F401  (registers ours)

    milliseconds = {}
    kinds = {"from files, tutorial's pipeline": None, "from raw pixels": 1 << 40, "from small JPEGs": 0}
    for name, limit in kinds.items():
        cache = None if limit is None else make_pixel_cache(bench, cached_short_side(SIZE), folder, limit)
        recipe = "tutorial" if limit is None else "fast"
        config = make_config(bench, new_folder(folder, f"images-{limit}"), recipe, {}, 0, cache)
        dataset = build_dataset(copy.deepcopy(config["data"]["train"]))
        count = min(len(dataset), 500)
        began = time.perf_counter()
        for index in range(count):
            dataset[index]
        milliseconds[name] = 1e3 * (time.perf_counter() - began) / count
    return milliseconds


def measure_features(bench: Bench, folder: Path) -> list[Row]:
    """Return, by size and short side of the images, images/s and the accuracy on val of the head that is fitted.

    Images/s: as built, folded, and folded with multiplications in bfloat16; accuracies: folded, and in bfloat16.
    """
    import torch
    from mmcv import Config

    from scripts.lib.model.inference import classifier_layer, keep_freed_memory, read_checkpoint
    from scripts.lib.model.linear_probe import extract, fit_probes
    from scripts.mmcls_plugins.images import Normalizer
    from scripts.train import fit_head

    keep_freed_memory()
    torch.set_num_threads(THREADS)
    classes = read_lines(bench.classes)
    rows = []
    for size, short_side in VARIANTS["features"]:
        cache = make_pixel_cache(bench, short_side, folder)
        run = new_folder(folder, f"features-{size}-{short_side}")
        make_config(bench, run, "fast", {"image_size": size}, 0, cache)
        config = Config.fromfile(str(run / "config.py"))
        weights, _ = read_checkpoint(bench.checkpoint)
        splits = [fit_head.build_split(config, bench.split(name), classes) for name in ("train", "val")]
        model = fit_head.build_pretrained(config, weights, "cpu")
        normalizer = Normalizer(**config.runner.normalize)
        first = torch.utils.data.Subset(splits[0], range(64))
        batches = list(fit_head.image_tensors(first, normalizer, 0, "cpu"))
        quick = fit_head.absorbed(copy.deepcopy(model), batches[0])
        ways: dict[str, tuple[torch.nn.Module, Callable[[], Any]]] = {
            "plain": (model, contextlib.nullcontext),
            "folded": (quick, contextlib.nullcontext),
            "bfloat16": (quick, partial(torch.autocast, "cpu", torch.bfloat16)),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(5):
            for name, (network, precision) in ways.items():
                with torch.no_grad(), precision():
                    began = time.perf_counter()
                    for batch in batches:
                        network(img=batch, return_loss=False, post_process=False)
                    rates[name].append(64 / (time.perf_counter() - began))
        layer = classifier_layer(quick, len(classes), trained=weights)
        assert layer is not None
        labels = [torch.as_tensor(split.get_gt_labels(), dtype=torch.int64) for split in splits]
        row: Row = {"name": f"{size} of {short_side} px"}
        row |= {name: statistics.median(values) for name, values in rates.items()}
        for name, half in (("fit", False), ("bfloat16 fit", True)):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                tensors = (fit_head.image_tensors(split, normalizer, 2, "cpu") for split in splits)
                features = [extract(quick, layer, images) for images in tensors]
            began = time.perf_counter()
            probe = fit_probes(features[0], labels[0], features[1], labels[1], len(classes))[-1]
            row |= {name: time.perf_counter() - began, f"{name} val": probe.accuracy}
        rows.append(row)
        logger.info("features: %s", row)
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
    from mmcv import Config

    from scripts.lib.model.checkpoint_file import write_checkpoint
    from scripts.lib.model.inference import read_checkpoint
    from scripts.train import fit_head

    raw_limit = 0 if start == "JPEG" else RAW_LIMIT_BYTES
    cache = make_pixel_cache(bench, cached_short_side(SHORT["image_size"]), folder, raw_limit)
    run = new_folder(folder, "training")
    values = make_config(bench, run, "fast", {**SHORT, **settings}, seed, cache)
    config, classes = Config.fromfile(str(run / "config.py")), read_lines(bench.classes)
    weights, _ = read_checkpoint(bench.checkpoint)
    splits = [fit_head.build_split(config, bench.split(split), classes) for split in ("train", "val")]
    without: Any = contextlib.nullcontext()
    if start == "not fitted":
        without = mock.patch.object(fit_head, "classifier_layer", return_value=None)
    elif start == "not absorbed":
        without = mock.patch.object(fit_head, "absorbed", side_effect=lambda model, _images: model)
    with without:
        state = fit_head.fit_head(config, weights, splits, "cpu", 2).weights
    write_checkpoint(state, run / "init.pth")
    values["runner"]["patience"] = 0
    try:
        _, log = train_by_mimflow(bench, run, values, seed)
    except UserError as error:
        logger.info("%s", error)
        return None
    test = accuracy_of(bench, run, run / "best.pth", "test")
    return {"start": log[0]["val_accuracy"], "last": log[-1]["val_accuracy"], "test": test}


def measure_trainings(bench: Bench, folder: Path, seeds: Sequence[int]) -> list[Row]:
    """Return the accuracies of short trainings by the recipe, and of those that leave one thing out: over the seeds."""
    variants = [(name, {"overrides": overrides}, "fitted") for name, overrides in VARIANTS["schedules"].items()]
    variants += [(name, {}, start) for name, start in VARIANTS["starts"].items()]
    rows: list[Row] = []
    for name, settings, start in variants:
        runs = [short_training(bench, folder, settings, start, seed) for seed in seeds]
        done = [run for run in runs if run is not None]
        means = {key: statistics.fmean(run[key] for run in done) if done else None for key in ("start", "last", "test")}
        rows.append({"name": name, "data": bench.data, "seeds": len(done), **means})
        logger.info("%s", rows[-1])
    return rows


def text(measured: Row) -> str:
    """Return the tables of what was measured, by part, in Markdown; an accuracy of None is a failed training."""

    def percent(value: float | None) -> str:
        return "failed" if value is None else in_percent(value)

    steps, images, features, trainings = (measured.get(name, {}) for name in PARTS)
    whole = next(iter(steps.values()), 1.0)
    lines = [machine_line(), "", gpu_line(()), ""]
    head = [f"a training step, MobileNetV2, {SIZE} px, batch {BATCH_SIZE}", "images/s", "of all of it"]
    lines += [*markdown(head, ((name, f"{rate:.1f}", f"{rate / whole:.2f}") for name, rate in steps.items())), ""]
    head = ["a training image, loaded and augmented, one process", "ms"]
    lines += [*markdown(head, ((name, f"{value:.2f}") for name, value in images.items())), ""]
    head = ["features at", "images/s", "folded", "folded, bfloat16", "fit, s"]
    head += ["val accuracy of head, %", "of bfloat16's"]
    rates = ([f"{row[name]:.0f}" for name in ("plain", "folded", "bfloat16")] for row in features)
    fits = ([f"{row['fit']:.1f}", percent(row["fit val"]), percent(row["bfloat16 fit val"])] for row in features)
    lines += markdown(head, ([row["name"], *rate, *fit] for row, rate, fit in zip(features, rates, fits, strict=True)))
    head = [f"{SHORT['epochs']} epochs at {SHORT['image_size']} px, accuracy, %", "start, val", "last epoch, val"]
    means = ([percent(row[key]) for key in ("start", "last", "test")] for row in trainings)
    names = (f"{row['data']}, {row['name']}" for row in trainings)
    counts = (str(row["seeds"]) for row in trainings)
    rows = ([name, *three, count] for name, three, count in zip(names, means, counts, strict=True))
    return "\n".join([*lines, "", *markdown([*head, "what is kept, test", "seeds"], rows)]) + "\n"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.tricks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="elpv", help="as of bench.compare (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("results/bench"), metavar="FOLDER", help="of bench.compare")
    seeds = "of the short trainings (0 1 2)"
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED", help=seeds)
    parser.add_argument("--parts", default=",".join(PARTS), help="what to measure; the rest is kept (default: all)")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    return parser


def main(args: argparse.Namespace) -> None:
    """Measure, and write tricks.md."""
    if args.step:
        print(step_rate(**json.loads(args.step)))
        return
    names = args.parts.split(",")
    if set(names) - set(PARTS):
        raise UserError(f"--parts: choose of {', '.join(PARTS)}")
    bench = Bench(args.output.resolve(), data_name(args.data), Scale())
    prepare_data(bench, args.data, None)
    prepare_weights(bench)
    folder = new_folder(bench.output, "tricks")
    kept = bench.output / "tricks.json"
    measured: Row = read_json(kept) if kept.exists() else {}
    measures: dict[str, Callable[[], Any]] = {
        "steps": measure_steps,
        "images": lambda: measure_images(bench, folder),
        "features": lambda: measure_features(bench, folder),
        "trainings": lambda: measure_trainings(bench, folder, args.seeds),
    }
    for name in (name for name in PARTS if name in names):
        result = measures[name]()
        if name == "trainings":  # of several data sets, one after the other
            result = [row for row in measured.get(name, []) if row["data"] != bench.data] + result
        measured[name] = result
        write_json(kept, measured)
    written = text(measured)
    write_text(bench.output / "tricks.md", written)
    shutil.rmtree(folder)
    print(written)


if __name__ == "__main__":
    run_cli(build_parser, main)
