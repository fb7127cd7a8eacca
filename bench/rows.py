"""The rows of the bench: how each is trained and timed, and where its accuracy on test is read."""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from bench.plugins_cost import stock
from bench.prepare import PEERS, PEERS_PYTHON, Bench
from bench.processes import ROOT, THREADS, Ran, Row, command, environment, execute, read_json
from bench.table import PEER_ROWS, ROWS, chosen_checkpoint, epochs_within, places_to_read, target_accuracy
from scripts.lib.base.files import read_lines, write_json
from scripts.lib.base.problems import UserError
from scripts.lib.model.fast_recipe import cached_short_side
from scripts.lib.runs.config_file import read_config, write_config
from scripts.lib.runs.predictions import read_predictions
from scripts.train.train_model import training_environment

#: Epochs of fast that take turns with the limit's bare loop.
TURNS = 6
#: What fit_head imports only when it runs: start-up like any import.
PRELOAD = ("mmcls.models", "mmcls.datasets", "scripts.mmcls_plugins")


def parse_rows(text: str) -> list[str]:
    """Return the rows that *text* names, in the order in which they are run.

    Raises
    ------
    UserError : an unknown row, or none.
    """
    given = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in given if name not in ROWS]:
        raise UserError(f"--rows: {unknown[0]!r} is no row: choose of {','.join(ROWS)}")
    if not given:
        raise UserError(f"--rows: names no row: choose of {','.join(ROWS)}")
    return [name for name in ROWS if name in given]


def clocked(bench: Bench, folder: Path, module: str, *words: object, preload: Sequence[str] = ()) -> tuple[Ran, Row]:
    """Run a script of mimflow by bench.clock; return the process, and when it was ``ready`` and ``ended``."""
    times = folder / f"{module.rpartition('.')[2]}.json"
    asked = command("bench.clock", "--output", times, "--module", module, "--preload", *preload, "--", *words)
    ran = execute(asked, folder / "output.log", environment(bench.device))
    return ran, read_json(times)


def peak_mb(bench: Bench, noted: Sequence[tuple[Ran, Row]]) -> float:
    """Return the most memory of several processes: their own, or on a GPU what they had of the card's.

    Parameters
    ----------
    noted : the processes, with what each wrote: ``card_peak``, bytes.
    """
    return max(one["card_peak"] if bench.device == "cuda" else ran.peak for ran, one in noted) / 1e6


def experiment(bench: Bench, recipe: str) -> Row:
    """Return the settings of one of mimflow's experiments."""
    scale = bench.scale
    own: Row = {"base_config": bench.model.base_config, "recipe": recipe, "device": bench.device, "threads": THREADS}
    if recipe == "tutorial":
        return own | {"epochs": scale.epochs, "image_size": scale.size, "batch_size": scale.batch_size}
    own |= {"image_size": scale.fast_size} if scale.fast_size else {}
    own |= {"epochs": scale.fast_epochs, "batch_size": scale.batch_size} if scale.fast_epochs else {}
    return own


def make_config(bench: Bench, folder: Path, recipe: str, seed: int, epochs: int | None = None) -> Row:
    """Write the config.py of a run by patch_config and return its values."""
    settings = experiment(bench, recipe) | ({"epochs": epochs} if epochs else {})
    words: list[object] = ["--experiment", json.dumps(settings), "--seed", seed, "--classes", bench.classes]
    words += ["--splits", bench.folder / "splits", "--images", bench.images, "--checkpoint", bench.checkpoint]
    words += ["--pixel-cache", folder / "packed"] if recipe == "fast" else []
    config = folder / "config.py"
    patch = command("scripts.train.patch_config", *words, "--output", config)
    execute(patch, folder / "output.log", environment(bench.device))
    return read_config(config)


def with_hook(config: Row, module: str, hook: Row) -> Row:
    """Return a config with one more hook, of a module of the bench."""
    own = config.get("custom_imports", {}).get("imports", [])
    return config | {
        "custom_hooks": [*config.get("custom_hooks", []), hook],
        "custom_imports": {"imports": [*own, module], "allow_failed_imports": False},
    }


def with_clock(config: Row) -> Row:
    """Return a config with the hook that notes the times, and the weights of every epoch kept."""
    with_times = with_hook(config, "bench.clock", {"type": "BenchClock", "priority": 80})
    return with_times | {"checkpoint_config": {"interval": 1}}


def size_of(config: Row) -> int:
    """Return the pixels a side that the network sees in training."""
    crop = next(step for step in config["data"]["train"]["pipeline"] if step["type"] == "RandomResizedCrop")
    return crop["size"] if isinstance(crop["size"], int) else crop["size"][0]


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


def run_plain(bench: Bench, folder: Path, seed: int) -> Row:
    """Train by plain mim, as a reader of the tutorial does: stock runner, data set, sampler and memory settings."""
    config = make_config(bench, folder, "tutorial", seed)
    plain = stock(config) | {"custom_imports": {"imports": [], "allow_failed_imports": False}}
    trained, work_dir, times = folder / "train.py", folder / "work", folder / "clock.json"
    write_config(trained, with_clock(plain), "made by bench.compare", bench.model.base_config)
    mim = str(Path(sys.executable).with_name("mim"))
    words = [mim, "train", "mmcls", str(trained), "--gpus", "1" if bench.device == "cuda" else "0"]
    words += ["--work-dir", str(work_dir), "--seed", str(seed)]
    variables = environment(bench.device, PYTHONPATH=str(ROOT), MIMFLOW_BENCH_OUTPUT=str(times))
    ran = execute(words, folder / "output.log", variables)
    clock = read_json(times)
    points = [
        {
            "name": f"epoch {number}",
            "seconds": epoch["done"] - clock["begun"],
            "val_accuracy": epoch["val_accuracy"],
            "weights": work_dir / f"epoch_{number}.pth",
        }
        for number, epoch in enumerate(clock["epochs"], 1)
    ]
    rates = [epoch["images"] / (epoch["trained"] - epoch["begun"]) for epoch in clock["epochs"]]
    return {
        "size": size_of(config),
        "seconds": points[-1]["seconds"],
        "startup_seconds": clock["begun"] - ran.launched,
        "wall_seconds": ran.ended - ran.launched,
        "images_per_second": statistics.median(rates),
        "peak_mb": peak_mb(bench, [(ran, clock)]),
        "checkpoints": points,
    }


def train_by_mimflow(bench: Bench, folder: Path, config: Row, seed: int) -> tuple[Ran, Row, list[Row]]:
    """Train by train_model; return the process, the times (or rates) that the hook wrote, the rows of train_log.csv."""
    import pandas as pd

    trained, noted, log = folder / "train.py", folder / "noted.json", folder / "train_log.csv"
    write_config(trained, config, "made by bench.compare", bench.model.base_config)
    products = ("--best", folder / "best.pth", "--last", folder / "last.pth", "--train-log", log)
    words = ("--config", trained, "--seed", seed, "--work-dir", folder / "work", "--workers", bench.workers, *products)
    variables = environment(bench.device, PYTHONPATH=str(ROOT), MIMFLOW_BENCH_OUTPUT=str(noted))
    ran = execute(command("scripts.train.train_model", *words), folder / "output.log", variables)
    records: list[Any] = pd.read_csv(log).to_dict("records")
    return ran, read_json(noted), records


def mimflow_points(folder: Path, clock: Row, log: Sequence[Row], start: float) -> list[Row]:
    """Return the checkpoints of a training by mimflow, whose first batch was fetched at *start* seconds.

    An epoch is done when its state is saved: when the next one begins, or training ends.
    """
    ends = [*(epoch["begun"] for epoch in clock["epochs"][1:]), clock["ended"]]
    records = [record for record in log if record["epoch"] > 0]
    points = []
    for record, end in zip(records, ends, strict=True):
        number = int(record["epoch"])
        kept = next((folder / "work").glob(f"*/epoch_{number}.pth"), folder / "last.pth")
        points.append(
            {
                "name": f"epoch {number}",
                "seconds": start + end - clock["begun"],
                "val_accuracy": float(record["val_accuracy"]),
                "weights": kept,
            }
        )
    return points


def run_tutorial(bench: Bench, folder: Path, seed: int) -> Row:
    """Train the same config by mimflow's own runner."""
    config = make_config(bench, folder, "tutorial", seed)
    ran, clock, log = train_by_mimflow(bench, folder, with_clock(config), seed)
    return {
        "size": size_of(config),
        "seconds": clock["ended"] - clock["begun"],
        "startup_seconds": clock["begun"] - ran.launched,
        "wall_seconds": ran.ended - ran.launched,
        "images_per_second": statistics.median(record["images_per_second"] for record in log),
        "peak_mb": peak_mb(bench, [(ran, clock)]),
        "checkpoints": mimflow_points(folder, clock, log, 0.0),
    }


def start_fast(bench: Bench, folder: Path, config: Row) -> list[tuple[Ran, Row]]:
    """Pack, and fit the head, for a row's config.py; return the two processes, each with its times."""
    packed, splits = folder / "packed", (bench.split("train"), bench.split("val"))
    words: tuple[object, ...] = (
        "--images",
        bench.images,
        "--splits",
        *splits,
        "--short-side",
        cached_short_side(size_of(config)),
    )
    packing = clocked(bench, folder, "scripts.data.pack_images", *words, "--output", packed, "--threads", bench.workers)
    words = ("--config", folder / "config.py", "--checkpoint", bench.checkpoint, "--pixel-cache", packed)
    words += ("--train", splits[0], "--val", splits[1], "--classes", bench.classes, "--output", folder / "init.pth")
    words += ("--workers", bench.workers)
    return [packing, clocked(bench, folder, "scripts.train.fit_head", *words, preload=PRELOAD)]


def run_fast(bench: Bench, folder: Path, seed: int, epochs: int | None = None) -> Row:
    """Pack, fit the head and train by recipe fast.

    Parameters
    ----------
    epochs : train so many, and do not end sooner for want of progress; None: as the recipe has it.
    """
    config = make_config(bench, folder, "fast", seed, epochs)
    if epochs:
        config["runner"]["patience"] = 0
    noted = start_fast(bench, folder, config)
    packing, fitting = (times for _, times in noted)
    ran, clock, log = train_by_mimflow(bench, folder, with_clock(config), seed)
    noted.append((ran, clock))
    shutil.rmtree(folder / "packed")  # as large as the data set, for each row and seed
    pack_seconds, fit_seconds = (times["ended"] - times["ready"] for times in (packing, fitting))
    start = pack_seconds + fit_seconds
    # fit_head knows this accuracy, by which it chooses; here it is read afterwards.
    early = {
        "name": "init",
        "seconds": start,
        "weights": folder / "init.pth",
        "val_accuracy": accuracy_of(bench, folder, folder / "init.pth", "val"),
    }
    points = mimflow_points(folder, clock, log, start)
    begun = clock["epochs"][0]["begun"]
    return {
        "size": size_of(config),
        "seconds": start + clock["ended"] - clock["begun"],
        "seconds_of": {
            "pack_images": pack_seconds,
            "fit_head": fit_seconds,
            "train_model": clock["ended"] - clock["begun"],
        },
        #: Before the first epoch, and of all epochs.
        "training_seconds": [begun - clock["begun"], clock["ended"] - begun],
        "startup_seconds": sum(
            ready - one.launched
            for (one, _), ready in zip(noted, (packing["ready"], fitting["ready"], clock["begun"]), strict=True)
        ),
        "wall_seconds": sum(one.ended - one.launched for one, _ in noted),
        "images_per_second": statistics.median(r["images_per_second"] for r in log if r["epoch"] > 0),
        "peak_mb": peak_mb(bench, noted),
        "checkpoints": [early, *points],
    }


def run_fast_longer(bench: Bench, folder: Path, seed: int) -> Row:
    """Give recipe fast the time that plain mim took.

    Raises
    ------
    UserError : the rows plain and fast of this seed are not there.
    """
    needed = {name: bench.result_file(name, seed) for name in ("plain", "fast")}
    for name, path in needed.items():
        if not path.exists():
            raise UserError(f"fast+ needs the row {name} of seed {seed} first: add it to --rows")
    within = read_json(needed["plain"])["seconds"]
    epochs = epochs_within(within, read_json(needed["fast"]))
    return run_fast(bench, folder, seed, epochs) | {"epochs": epochs, "within": within}


def peer_job(bench: Bench, row: str, folder: Path, seed: int, task: str, **more: Any) -> tuple[Ran, Row]:
    """Let a peer do a task; return the process, and what the peer wrote."""
    output = folder / f"{task}.json"
    job = {
        "task": task,
        "architecture": bench.architecture,
        "timm_name": bench.model.of_timm,
        "device": bench.device,
        "folder": str(bench.folder / "peers"),
        "classes": len(read_lines(bench.classes)),
        "reference": str(bench.reference),
        "weights_folder": str(folder),
        "size": bench.scale.size,
        "batch_size": bench.scale.batch_size,
        "epochs": bench.scale.epochs,
        "seed": seed,
        "seconds": bench.seconds,
        "threads": THREADS,
        "workers": bench.workers,
        "output": str(output),
    }
    words = [str(PEERS_PYTHON), str(PEERS / f"run_{row}.py"), json.dumps(job | more)]
    ran = execute(words, folder / "output.log", environment(bench.device))
    return ran, read_json(output)


def run_peer(bench: Bench, row: str, folder: Path, seed: int) -> Row:
    """Train by a peer; timm also at fast's size, for its images/s alone."""
    ran, result = peer_job(bench, row, folder, seed, "train")
    points = [point | {"seconds": point.pop("at") - result["begun"]} for point in result["checkpoints"]]
    row_result = {
        "size": bench.scale.size,
        "seconds": points[-1]["seconds"],
        "startup_seconds": result["begun"] - ran.launched,
        "wall_seconds": ran.ended - ran.launched,
        "images_per_second": statistics.median(result["images_per_second"]),
        "peak_mb": peak_mb(bench, [(ran, result)]),
        "checkpoints": points,
    }
    if row == "timm":
        more = {"size": fast_size(bench), "epochs": bench.scale.throughput_epochs}
        _, again = peer_job(bench, row, folder, seed, "throughput", **more)
        row_result["rate_at_fast_size"] = statistics.median(again["images_per_second"])
    return row_result


def fast_size(bench: Bench) -> int:
    """Return the pixels a side of recipe fast."""
    from scripts.lib.model import fast_recipe

    return bench.scale.fast_size or fast_recipe.image_size(bench.model.base_config)


def run_limit(bench: Bench, folder: Path, seed: int) -> Row:
    """Measure the bare loop, at fast's size and at the tutorial's; and in turns with a training by fast."""
    config = make_config(bench, folder, "tutorial", seed)
    variables = training_environment(config, environment(bench.device))
    output, size = folder / "limit.json", fast_size(bench)
    words: list[object] = ["--config", folder / "config.py", "--sizes", *dict.fromkeys((size, bench.scale.size))]
    words += ["--batch-size", bench.scale.batch_size, "--steps", bench.scale.limit_steps, "--threads", THREADS]
    words += ["--device", bench.device]
    ran = execute(command("bench.peers.limit", *words, "--output", output), folder / "output.log", variables)
    found = read_json(output)
    rates = found["images_per_second"]
    return {
        "size": size,
        "images_per_second": rates[str(size)],
        "images_per_second_by_size": rates,
        "in_turns": take_turns(bench, folder, seed),
        "peak_mb": peak_mb(bench, [(ran, found)]),
    }


def take_turns(bench: Bench, folder: Path, seed: int) -> Row:
    """Train by fast, with turns of the bare loop between the epochs, in the same process.

    Returns
    -------
    dict : images/s: ``fast``, of each epoch; ``plain`` and ``absorbed`` (BareLoopInTurns), one more.
    """
    epochs = bench.scale.fast_epochs or TURNS
    config = make_config(bench, folder, "fast", seed, epochs)
    config["runner"]["patience"] = 0
    start_fast(bench, folder, config)
    scale = bench.scale
    hook = {"size": size_of(config), "batch_size": scale.batch_size, "steps": scale.limit_steps}
    with_turns = with_hook(config, "bench.turns", {"type": "BareLoopInTurns", **hook})
    _, rates, log = train_by_mimflow(bench, folder, with_turns, seed)
    shutil.rmtree(folder / "packed")
    return rates | {"fast": [record["images_per_second"] for record in log if record["epoch"] > 0]}


def run_row(bench: Bench, row: str, seed: int) -> Row:
    """Run one row with one seed, from an empty folder, and write its result."""
    folder = bench.run_folder(row, seed)
    shutil.rmtree(folder, ignore_errors=True)  # of a run that did not end: its times would be worth nothing
    folder.mkdir(parents=True)
    if row in PEER_ROWS:
        result = run_peer(bench, row, folder, seed)
    else:
        runs = {
            "plain": run_plain, "tutorial": run_tutorial, "fast": run_fast, "fast+": run_fast_longer,
            "limit": run_limit,
        }  # fmt: skip
        result = runs[row](bench, folder, seed)
    result = finish(bench, row, seed, result)
    write_json(bench.result_file(row, seed), result)
    return result


def test_accuracy(bench: Bench, row: Row, place: int) -> float:
    """Return the accuracy of a checkpoint on test, 0 to 1: of mmcls's models by predict_images, of peers by their own.

    Raises
    ------
    UserError : the weights are gone.
    """
    folder = bench.run_folder(row["row"], row["seed"])
    weights = folder / row["checkpoints"][place]["weights"]
    if not weights.exists():
        raise UserError(f"{weights}: is gone: remove {bench.result_file(row['row'], row['seed'])} to run it again")
    if row["row"] in PEER_ROWS:
        _, result = peer_job(bench, row["row"], folder, row["seed"], "test", weights=str(weights))
        return result["accuracy"]
    return accuracy_of(bench, folder, weights, "test")


def accuracy_of(bench: Bench, folder: Path, weights: Path, split: str) -> float:
    """Return the accuracy of one of mmcls's models on a split, 0 to 1, by predict_images and a row's config.py."""
    predictions = folder / "predictions.csv"
    words: tuple[object, ...] = (
        "--config",
        folder / "config.py",
        "--checkpoint",
        weights,
        "--images",
        bench.images,
        "--device",
        bench.device,
    )
    words += ("--split", bench.split(split), "--classes", bench.classes, "--output", predictions)
    execute(command("scripts.evaluate.predict_images", *words), folder / "output.log", environment(bench.device))
    found = read_predictions(predictions)
    return float((found.labels == found.predictions).mean())


def read_test(bench: Bench, rows: Sequence[Row]) -> None:
    """Read the accuracies on test that the table shows and that were not read yet, in place."""
    target = target_accuracy(rows)
    for row in rows:
        for place in places_to_read(row, target):
            if str(place) not in row["test"]:
                row["test"][str(place)] = test_accuracy(bench, row, place)
                write_json(bench.result_file(row["row"], row["seed"]), row)
