"""The rows of the bench: how each is trained and timed, and where its accuracy on test is read."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
import statistics
import sys
from collections.abc import Iterable, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from bench.prepare import PEERS, PEERS_PYTHON, Bench
from bench.processes import THREADS, Ran, Row, arguments, command, environment, execute
from bench.table import PEER_ROWS, ROWS, checkpoints_to_read, chosen_checkpoint, epochs_within, target_accuracy
from scripts.lib.base.files import read_json, read_lines, write_json
from scripts.lib.base.problems import UserError
from scripts.lib.model import fast_recipe
from scripts.lib.model.fast_recipe import cached_short_side
from scripts.lib.runs.config_file import read_config, write_config
from scripts.lib.runs.predictions import read_predictions
from scripts.train.train_model import training_environment

#: Epochs of fast that take turns with the limit's bare loop.
TURNS = 6
#: What fit_head imports only when it runs: start-up like any import.
PRELOAD = ("mmcls.models", "mmcls.datasets", "scripts.mmcls_plugins")
#: A process, and what it wrote of itself: ``begun`` and ``gpu_peak`` (bytes).
Noted = tuple[Ran, Row]


def parse_rows(text: str) -> list[str]:
    """Return the rows that *text* names, in the order in which they are run.

    Raises
    ------
    UserError : an unknown row, or none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in ROWS]:
        raise UserError(f"--rows: {unknown[0]!r} is no row: choose of {','.join(ROWS)}")
    if not names:
        raise UserError(f"--rows: names no row: choose of {','.join(ROWS)}")
    return [name for name in ROWS if name in names]


def peak_mb(bench: Bench, noted: Sequence[Noted]) -> float:
    """Return the most memory of several processes: their own, or on a GPU what they had of the GPU's."""
    return max(times["gpu_peak"] if bench.device == "cuda" else ran.peak for ran, times in noted) / 1e6


def run_script(bench: Bench, folder: Path, script: str, **options: object) -> Ran:
    """Run a script of mimflow for a row, whose folder gets its output."""
    return execute(command(script, **options), folder / "output.log", environment(bench.device))


def clocked(bench: Bench, folder: Path, script: str, preload: tuple[str, ...] = (), **options: object) -> Noted:
    """Run a script of mimflow by bench.clock, which notes when it has ``begun`` and ``ended``."""
    times = folder / f"{script.rpartition('.')[2]}.json"
    words = command("bench.clock", output=times, module=script, preload=preload)
    ran = execute([*words, "--", *arguments(**options)], folder / "output.log", environment(bench.device))
    return ran, read_json(times)


def experiment(bench: Bench, recipe: str) -> Row:
    """Return what the bench sets of an experiment of mimflow's; the rest is the recipe's."""
    scale = bench.scale
    if recipe == "tutorial":
        return {"epochs": scale.epochs, "image_size": scale.size, "batch_size": scale.batch_size}
    settings: Row = {"image_size": scale.fast_size} if scale.fast_size else {}
    return settings | ({"epochs": scale.fast_epochs, "batch_size": scale.batch_size} if scale.fast_epochs else {})


def make_config(
    bench: Bench, folder: Path, recipe: str, settings: Row, seed: int, pixel_cache: Path | None = None
) -> Row:
    """Write the config.py of an experiment into *folder* by patch_config; return its values."""
    common: Row = {"base_config": bench.model.base_config, "recipe": recipe, "device": bench.device, "threads": THREADS}
    options: Row = {"experiment": json.dumps(common | settings), "seed": seed, "pixel_cache": pixel_cache}
    options |= {"classes": bench.classes, "splits": bench.folder / "splits", "images": bench.images}
    options["checkpoint"] = None if settings.get("checkpoint") == "none" else bench.checkpoint
    run_script(bench, folder, "scripts.train.patch_config", **options, output=folder / "config.py")
    return read_config(folder / "config.py")


def stock(config: Row) -> Row:
    """Return the same config with mmcv's own runner, sampler, data set, reading of images and checkpoints."""
    plain = copy.deepcopy(config)
    del plain["sampler"]
    plain["runner"] = {"type": "EpochBasedRunner", "max_epochs": config["runner"]["max_epochs"]}
    for split in ("train", "val", "test"):
        plain["data"][split]["type"] = "CustomDataset"
        del plain["data"][split]["seed"]
        first = plain["data"][split]["pipeline"][0]
        plain["data"][split]["pipeline"][0] = {**first, "type": "LoadImageFromFile"}
    plain["custom_imports"] = {"imports": [], "allow_failed_imports": False}
    plain["checkpoint_config"] = {"interval": 1, "max_keep_ckpts": 2}
    return plain


def with_hook(config: Row, module: str, hook: Row) -> Row:
    """Return a config with one more hook, of a module of the bench."""
    imports = config.get("custom_imports", {}).get("imports", [])
    return config | {
        "custom_hooks": [*config.get("custom_hooks", []), hook],
        "custom_imports": {"imports": [*imports, module], "allow_failed_imports": False},
    }


def with_clock(config: Row) -> Row:
    """Return a config with the hook that notes the times, and the weights of every epoch kept."""
    with_times = with_hook(config, "bench.clock", {"type": "BenchClock", "priority": 80})
    return with_times | {"checkpoint_config": {"interval": 1}}


def size_of(config: Row) -> int:
    """Return the pixels a side that the network sees in training."""
    crop = next(step for step in config["data"]["train"]["pipeline"] if step["type"] == "RandomResizedCrop")
    return crop["size"] if isinstance(crop["size"], int) else crop["size"][0]


def epoch_point(number: int, seconds: float, val_accuracy: float, weights: Path) -> Row:
    """Return the checkpoint of an epoch."""
    return {"name": f"epoch {number}", "seconds": seconds, "val_accuracy": val_accuracy, "weights": weights}


def common_result(
    bench: Bench, size: int, noted: Sequence[Noted], rates: Iterable[float], points: Sequence[Row]
) -> Row:
    """Return what the results of all rows that train have in common.

    Parameters
    ----------
    size : pixels a side that the network sees in training.
    rates : images/s of each epoch.
    points : the checkpoints, in the order of their time.
    """
    return {
        "size": size,
        "seconds": points[-1]["seconds"],
        "startup_seconds": sum(times["begun"] - ran.launched for ran, times in noted),
        "wall_seconds": sum(ran.seconds for ran, _ in noted),
        "images_per_second": statistics.median(rates),
        "peak_mb": peak_mb(bench, noted),
        "checkpoints": points,
    }


def finish(bench: Bench, row: str, seed: int, result: Row) -> Row:
    """Return the complete result of a row: what is common to all is added."""
    if "checkpoints" in result:
        result["chosen"] = chosen_checkpoint(row, result["checkpoints"], result.get("within", math.inf))
        result["test"] = {}
        for point in result["checkpoints"]:
            point["weights"] = os.path.relpath(point["weights"], bench.run_folder(row, seed))
    counts = {name: len(read_lines(bench.split(name))) for name in ("train", "val", "test")}
    classes = len(read_lines(bench.classes))
    line = f"{classes} classes; images: " + ", ".join(f"{name} {count}" for name, count in counts.items()) + "."
    if bench.device == "cuda":
        import torch

        line += f" {bench.architecture} on one {torch.cuda.get_device_name()}."
    elif bench.name != bench.data:
        line += f" {bench.architecture}."
    head = {"row": row, "data": bench.name, "seed": seed, "date": str(date.today()), "data_line": line}
    return head | result


def mim_train(config: Path, work_dir: Path, seed: int, device: str) -> list[str]:
    """Return the command line of plain mim."""
    mim = str(Path(sys.executable).with_name("mim"))
    options = arguments(gpus=int(device == "cuda"), work_dir=work_dir, seed=seed)
    return [mim, "train", "mmcls", str(config), *options]


def run_plain(bench: Bench, folder: Path, seed: int) -> Row:
    """Train by plain mim, as a reader of the tutorial does: stock runner, data set, sampler and memory settings."""
    config = make_config(bench, folder, "tutorial", experiment(bench, "tutorial"), seed)
    trained, work_dir, times = folder / "train.py", folder / "work", folder / "clock.json"
    write_config(trained, with_clock(stock(config)), "made by bench.compare", bench.model.base_config)
    words = mim_train(trained, work_dir, seed, bench.device)
    ran = execute(words, folder / "output.log", environment(bench.device, times))
    clock = read_json(times)
    points = [
        epoch_point(number, epoch["done"] - clock["begun"], epoch["val_accuracy"], work_dir / f"epoch_{number}.pth")
        for number, epoch in enumerate(clock["epochs"], 1)
    ]
    rates = [epoch["images"] / (epoch["trained"] - epoch["begun"]) for epoch in clock["epochs"]]
    return common_result(bench, size_of(config), [(ran, clock)], rates, points)


def train_by_mimflow(bench: Bench, folder: Path, config: Row, seed: int) -> tuple[Ran, list[Row]]:
    """Train by train_model; return the process, and the rows of train_log.csv. Hooks write into noted.json."""
    import pandas as pd

    trained, log = folder / "train.py", folder / "train_log.csv"
    write_config(trained, config, "made by the bench", bench.model.base_config)
    words = command("scripts.train.train_model", config=trained, seed=seed, workers=bench.workers, train_log=log)
    words += arguments(work_dir=folder / "work", best=folder / "best.pth", last=folder / "last.pth")
    ran = execute(words, folder / "output.log", environment(bench.device, folder / "noted.json"))
    records: list[Any] = pd.read_csv(log).to_dict("records")
    return ran, records


def mimflow_result(
    bench: Bench, folder: Path, seed: int, config: Row, before: Sequence[Noted] = (), init: Sequence[Row] = ()
) -> Row:
    """Train by mimflow with the clock; return the result.

    An epoch is done when its state is saved: when the next one begins, or training ends.

    Parameters
    ----------
    before : the processes before the training.
    init : the checkpoint that they made, whose ``seconds`` they took.
    """
    ran, log = train_by_mimflow(bench, folder, with_clock(config), seed)
    clock = read_json(folder / "noted.json")
    start = init[0]["seconds"] if init else 0.0
    ends = [*(epoch["begun"] for epoch in clock["epochs"][1:]), clock["ended"]]
    records = [record for record in log if record["epoch"] > 0]
    points = list(init)
    for record, end in zip(records, ends, strict=True):
        number = int(record["epoch"])
        weights = next((folder / "work").glob(f"*/epoch_{number}.pth"), folder / "last.pth")
        points.append(epoch_point(number, start + end - clock["begun"], float(record["val_accuracy"]), weights))
    rates = (record["images_per_second"] for record in records)
    return common_result(bench, size_of(config), [*before, (ran, clock)], rates, points)


def run_tutorial(bench: Bench, folder: Path, seed: int) -> Row:
    """Train the same config by mimflow's own runner."""
    config = make_config(bench, folder, "tutorial", experiment(bench, "tutorial"), seed)
    return mimflow_result(bench, folder, seed, config)


def start_fast(bench: Bench, folder: Path, seed: int, epochs: int | None = None) -> tuple[Row, list[Noted]]:
    """Write the config.py of recipe fast, make its pixel cache, and fit the head.

    Parameters
    ----------
    epochs : train so many, and do not end sooner for want of progress; None: as the recipe has it.

    Returns
    -------
    tuple : the values of config.py; the two processes.
    """
    cache, splits = folder / "pixel_cache", {name: bench.split(name) for name in ("train", "val")}
    settings = experiment(bench, "fast") | ({"epochs": epochs} if epochs else {})
    config = make_config(bench, folder, "fast", settings, seed, cache)
    if epochs:
        config["runner"]["patience"] = 0
    options = {"images": bench.images, "splits": tuple(splits.values()), "output": cache, "threads": bench.workers}
    short_side = cached_short_side(size_of(config))
    packing = clocked(bench, folder, "scripts.data.pack_images", short_side=short_side, **options)
    options = {"config": folder / "config.py", "checkpoint": bench.checkpoint, "pixel_cache": cache, **splits}
    options |= {"classes": bench.classes, "output": folder / "init.pth", "workers": bench.workers}
    fitting = clocked(bench, folder, "scripts.train.fit_head", PRELOAD, **options)
    return config, [packing, fitting]


def run_fast(bench: Bench, folder: Path, seed: int, epochs: int | None = None) -> Row:
    """Make the pixel cache, fit the head and train by recipe fast; *epochs* as of :func:`start_fast`."""
    config, noted = start_fast(bench, folder, seed, epochs)
    packing, fitting = (times["ended"] - times["begun"] for _, times in noted)
    init = {"name": "init", "seconds": packing + fitting, "weights": folder / "init.pth"}
    result = mimflow_result(bench, folder, seed, config, noted, [init])
    shutil.rmtree(folder / "pixel_cache")  # as large as the data set, for each row and seed
    # fit_head knows this accuracy, by which it chooses; here it is read afterwards.
    init["val_accuracy"] = accuracy_of(bench, folder, folder / "init.pth", "val")
    clock = read_json(folder / "noted.json")
    begun = clock["epochs"][0]["begun"]
    return result | {
        "seconds_of": {"pack_images": packing, "fit_head": fitting, "train_model": clock["ended"] - clock["begun"]},
        #: Before the first epoch, and of all epochs.
        "training_seconds": [begun - clock["begun"], clock["ended"] - begun],
    }


def run_fast_longer(bench: Bench, folder: Path, seed: int) -> Row:
    """Give recipe fast the time that plain mim took.

    Raises
    ------
    UserError : the rows plain and fast of this seed are not there.
    """
    for name in ("plain", "fast"):
        if not bench.result_file(name, seed).exists():
            raise UserError(f"fast+ needs the row {name} of seed {seed} first: add it to --rows")
    within = read_json(bench.result_file("plain", seed))["seconds"]
    epochs = epochs_within(within, read_json(bench.result_file("fast", seed)))
    return run_fast(bench, folder, seed, epochs) | {"epochs": epochs, "within": within}


def peer_job(bench: Bench, row: str, folder: Path, seed: int, task: str, **more: Any) -> Noted:
    """Let a peer do a task; return the process, and what the peer wrote."""
    output = folder / f"{task}.json"
    job = {"task": task, "seed": seed, "threads": THREADS, "workers": bench.workers}
    job |= {"architecture": bench.architecture, "timm_name": bench.model.of_timm, "device": bench.device}
    job |= {"folder": str(bench.folder / "peers"), "classes": len(read_lines(bench.classes)), "output": str(output)}
    job |= {"reference": str(bench.reference), "weights_folder": str(folder)}
    job |= {name: getattr(bench.scale, name) for name in ("size", "batch_size", "epochs")}
    words = [str(PEERS_PYTHON), str(PEERS / f"run_{row}.py"), json.dumps(job | more)]
    ran = execute(words, folder / "output.log", environment(bench.device))
    return ran, read_json(output)


def run_peer(row: str, bench: Bench, folder: Path, seed: int) -> Row:
    """Train by a peer; timm also at fast's size, for its images/s alone."""
    ran, result = peer_job(bench, row, folder, seed, "train")
    points = [point | {"seconds": point.pop("at") - result["begun"]} for point in result["checkpoints"]]
    row_result = common_result(bench, bench.scale.size, [(ran, result)], result["images_per_second"], points)
    if row == "timm":
        more = {"size": fast_size(bench), "epochs": bench.scale.throughput_epochs}
        _, again = peer_job(bench, row, folder, seed, "throughput", **more)
        row_result["rate_at_fast_size"] = statistics.median(again["images_per_second"])
    return row_result


def fast_size(bench: Bench) -> int:
    """Return the pixels a side of recipe fast."""
    return bench.scale.fast_size or fast_recipe.image_size(bench.model.base_config)


def run_limit(bench: Bench, folder: Path, seed: int) -> Row:
    """Measure the bare loop, at fast's size and at the tutorial's; and in turns with a training by fast."""
    config = make_config(bench, folder, "tutorial", experiment(bench, "tutorial"), seed)
    output, size = folder / "limit.json", fast_size(bench)
    words = command("bench.peers.limit", config=folder / "config.py", device=bench.device, output=output)
    words += arguments(sizes=tuple(dict.fromkeys((size, bench.scale.size))))
    words += arguments(batch_size=bench.scale.batch_size, steps=bench.scale.limit_steps)
    ran = execute(words, folder / "output.log", training_environment(config, environment(bench.device)))
    measured = read_json(output)
    rates = measured["images_per_second"]
    return {
        "size": size,
        "images_per_second": rates[str(size)],
        "images_per_second_by_size": rates,
        "in_turns": take_turns(bench, folder, seed),
        "peak_mb": peak_mb(bench, [(ran, measured)]),
    }


def take_turns(bench: Bench, folder: Path, seed: int) -> Row:
    """Train by fast, with turns of the bare loop between the epochs, in the same process.

    Returns
    -------
    dict : images/s: ``fast``, of each epoch; ``plain`` and ``absorbed`` (BareLoopInTurns), one more.
    """
    scale = bench.scale
    config, _ = start_fast(bench, folder, seed, scale.fast_epochs or TURNS)
    hook = {"size": size_of(config), "batch_size": scale.batch_size, "steps": scale.limit_steps}
    with_turns = with_hook(config, "bench.peers.limit", {"type": "BareLoopInTurns", **hook})
    _, log = train_by_mimflow(bench, folder, with_turns, seed)
    shutil.rmtree(folder / "pixel_cache")
    fast = [record["images_per_second"] for record in log if record["epoch"] > 0]
    return read_json(folder / "noted.json") | {"fast": fast}


#: How each row is run: with its bench, its empty folder and the seed.
RUNS = {
    "plain": run_plain, "tutorial": run_tutorial, "fast": run_fast, "fast+": run_fast_longer, "limit": run_limit,
    **{name: partial(run_peer, name) for name in PEER_ROWS},
}  # fmt: skip


def run_row(bench: Bench, row: str, seed: int) -> Row:
    """Run one row with one seed, from an empty folder, and write its result."""
    folder = bench.run_folder(row, seed)
    shutil.rmtree(folder, ignore_errors=True)  # of a run that did not end: its times would be worth nothing
    folder.mkdir(parents=True)
    result = finish(bench, row, seed, RUNS[row](bench, folder, seed))
    write_json(bench.result_file(row, seed), result)
    return result


def test_accuracy(bench: Bench, row: Row, position: int) -> float:
    """Return the accuracy of a checkpoint on test, 0 to 1: of mmcls's models by predict_images, of peers by their own.

    Raises
    ------
    UserError : the weights are gone.
    """
    folder = bench.run_folder(row["row"], row["seed"])
    weights = folder / row["checkpoints"][position]["weights"]
    if not weights.exists():
        raise UserError(f"{weights}: is gone: remove {bench.result_file(row['row'], row['seed'])} to run it again")
    if row["row"] in PEER_ROWS:
        _, result = peer_job(bench, row["row"], folder, row["seed"], "test", weights=str(weights))
        return result["accuracy"]
    return accuracy_of(bench, folder, weights, "test")


def accuracy_of(bench: Bench, folder: Path, weights: Path, split: str) -> float:
    """Return the accuracy of one of mmcls's models on a split, 0 to 1, by predict_images and a row's config.py."""
    output = folder / "predictions.csv"
    options = {"config": folder / "config.py", "checkpoint": weights, "device": bench.device, "output": output}
    options |= {"images": bench.images, "split": bench.split(split), "classes": bench.classes}
    run_script(bench, folder, "scripts.evaluate.predict_images", **options)
    predictions = read_predictions(output)
    return float((predictions.labels == predictions.predictions).mean())


def read_test(bench: Bench, rows: Sequence[Row]) -> None:
    """Read the accuracies on test that the table shows and that were not read yet, in place."""
    target = target_accuracy(rows)
    for row in rows:
        for position in checkpoints_to_read(row, target):
            if str(position) not in row["test"]:
                row["test"][str(position)] = test_accuracy(bench, row, position)
                write_json(bench.result_file(row["row"], row["seed"]), row)
