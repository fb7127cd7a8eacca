"""Measure whole workflows, from the command to the report: where the seconds go, rule by rule, and how they grow.

Each case runs in a copy of the repository of its own, as ``make`` starts it: the demo; one run on real photographs; a
grid of eight runs; and, with ``--grow``, one run on half and a quarter of the photographs, on half of the classes, and
grids of two and four runs. Each step writes down what it cost (:mod:`scripts.lib.base.usage`).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import os
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from bench import datasets
from bench.prepare import Bench, Scale, data_name, prepare_data
from bench.processes import execute
from bench.table import machine_line, markdown
from scripts.lib.base import strict_yaml
from scripts.lib.base.console import run_cli
from scripts.lib.base.environment import ROOT
from scripts.lib.base.files import atomic_path, write_json, write_text
from scripts.lib.runs.train_log import read_train_log

# A copy of the repository as the tests make it.
sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests" / name) for name in ("helpers", "slurm")]
from checkout import Checkout  # noqa: E402

logger = logging.getLogger(__name__)
#: The rules of a run, which are one job on a cluster, with one GPU: rules/train.smk, rules/evaluate.smk, and two more.
OF_A_RUN = frozenset(
    {
        *("patch_config", "fit_head", "train_model", "predict_images", "evaluate_model", "plot_predictions"),
        *("map_embedding", "explain_model", "export_model", "describe_model", "plot_training_curves"),
        *("record_provenance", "write_model_card"),
    }
)
#: What logs say of a pass over images.
PASS = re.compile(
    r"^(?P<time>\S+ \S+) INFO \S+: (?:(?:features of )?[0-9,]+ images? in |.*: features in )(?P<seconds>[0-9.]+) s"
)
#: A line of mmcls's log with its time; what it logs after the first batches begins with one of the words.
LOGGED = re.compile(r"^(?P<time>\S+ \S+) - mmcls - INFO - (?P<message>.*)")
LATER = ("Epoch", "Validation")
MEMORY_UNIT = 1 << 20
#: Of Linux's linux/prctl.h.
PR_SET_CHILD_SUBREAPER = 36
#: What prints the last lines has no log, by which a step is known.
LAST_LINES = "the last lines of a run"


@dataclass(frozen=True)
class Step:
    """What one step cost: seconds since 1970, seconds of the processor, with those of its children, and MiB."""

    rule: str
    run: str
    began: float
    ended: float
    processor: float
    peak: float
    loads_torch: bool

    @property
    def seconds(self) -> float:
        """Return how long it took."""
        return self.ended - self.began


@dataclass(frozen=True)
class Measured:
    """What one workflow cost.

    Attributes
    ----------
    seconds, processor : of all, from the command to its end.
    peak : MiB of all its processes together (proportional set size).
    computing : seconds of training, validation, and of the passes over images of fit_head and predict_images, of all
        runs, and of find_label_suspects, of the data set.
    first_image : seconds from the command to the first batch of a training.
    """

    steps: list[Step]
    runs: int
    seconds: float
    processor: float
    peak: float
    computing: float
    first_image: float

    @property
    def torch_processes(self) -> float:
        """Return how many processes a run loads torch in: its steps, each trainer, and the server of forks."""
        loading = sum(step.loads_torch and step.rule in OF_A_RUN for step in self.steps)
        trainers = sum(step.rule == "train_model" for step in self.steps)
        return (loading + trainers + 1) / self.runs

    @property
    def held(self) -> float:
        """Return the mean of the seconds from the first to the last step of a run: so long its job holds a GPU."""
        spans = defaultdict[str, list[Step]](list)
        for step in self.steps:
            if step.rule in OF_A_RUN:
                spans[step.run].append(step)
        lengths = [max(s.ended for s in run) - min(s.began for s in run) for run in spans.values()]
        return sum(lengths) / len(lengths)


def read_steps(file: Path) -> list[Step]:
    """Return the steps that a workflow has written down."""
    lines = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return [
        Step(
            line["step"] if line["log"] else LAST_LINES, str(Path(line["log"]).parent), line["began"], line["ended"],
            line["processor_seconds"] + line["children_processor_seconds"], line["peak_mib"], line["loads_torch"],
        )
        for line in lines
    ]  # fmt: skip


def passes(log: Path) -> float:
    """Return the seconds of the passes over images that a log tells of."""
    matches = map(PASS.match, log.read_text(encoding="utf-8").splitlines()) if log.is_file() else ()
    return sum(float(match["seconds"]) for match in matches if match)


def first_batches(work: Path) -> Iterator[float]:
    """Yield when each training below a run's work folder had all that it needs to begin: seconds since 1970."""
    for log in work.glob("*/*.log"):
        last = ""
        for match in filter(None, map(LOGGED.match, log.read_text(encoding="utf-8", errors="replace").splitlines())):
            if match["message"].startswith(LATER[0]):
                break
            last = last if match["message"].startswith(LATER[1]) else match["time"]
        if last:
            yield datetime.strptime(last, "%Y-%m-%d %H:%M:%S,%f").timestamp()


def adopt_orphans() -> None:
    """Become the parent of what Snakemake leaves behind: the server of forks, with which all its steps count.

    Raises
    ------
    OSError : the kernel refuses.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def run_workflow(checkout: Checkout, config: str) -> Measured:
    """Run a workflow from nothing to its report.

    Raises
    ------
    UserError : it failed.
    """
    command = ["python", "-m", "scripts.lib.workflow.start", "--profile=profiles/local", f"--configfile={config}"]
    adopt_orphans()
    before = psutil.Process().cpu_times()
    ran = execute(command, checkout.folder / "output.txt", checkout.environment(), checkout.folder)
    with suppress(ChildProcessError):  # there is none left
        while True:
            os.wait()
    after = psutil.Process().cpu_times()
    runs = sorted(path.parent for path in (checkout.folder / "results").glob("*/*/seed*/train_log.csv"))
    names = [run.relative_to(checkout.folder / "results") for run in runs]
    training = sum(read_train_log(run / "train_log.csv")[["train_seconds", "val_seconds"]].sum().sum() for run in runs)
    logs = {Path(name.parts[0], "find_label_suspects.log") for name in names}
    logs |= {name / f"{rule}.log" for name in names for rule in ("fit_head", "predict_images")}
    computing = training + sum(passes(checkout.folder / "logs" / log) for log in logs)
    first = min((moment for run in runs for moment in first_batches(run / "work")), default=float("nan"))
    processor = sum(getattr(after, kind) - getattr(before, kind) for kind in ("children_user", "children_system"))
    return Measured(
        read_steps(checkout.usage),
        len(runs),
        ran.seconds,
        processor,
        ran.peak / MEMORY_UNIT,
        float(computing),
        first - ran.launched,
    )


def rules_table(measured: Measured) -> list[str]:
    """Return the costs of each rule, the most expensive first, as a table in Markdown."""
    by_rule = defaultdict[str, list[Step]](list)
    for step in measured.steps:
        by_rule[step.rule].append(step)
    steps = sum(step.processor for step in measured.steps)
    rows = [
        [
            rule, str(len(group)), f"{sum(step.seconds for step in group):.1f}",
            f"{sum(step.processor for step in group):.1f}", f"{max(step.peak for step in group):.0f}",
        ]
        for rule, group in sorted(by_rule.items(), key=lambda item: -sum(step.processor for step in item[1]))
    ]  # fmt: skip
    rest = ["Snakemake, and what steps are forked of", "", "", f"{measured.processor - steps:.1f}", ""]
    return markdown(["rule", "steps", "seconds", "processor, s", "peak, MiB"], [*rows, rest])


def summary(name: str, measured: Measured) -> list[str]:
    """Return the row of a case."""
    return [
        name, str(measured.runs), f"{measured.seconds:.1f}", f"{measured.processor:.1f}", f"{measured.computing:.1f}",
        f"{measured.seconds / measured.computing:.2f}", f"{measured.first_image:.1f}",
        f"{measured.held - measured.computing / measured.runs:.1f}", f"{measured.torch_processes:.1f}",
        f"{measured.peak:.0f}",
    ]  # fmt: skip


HEAD = [
    "case", "runs", "seconds", "processor, s", "training and passes, s", "seconds / those", "to the first batch, s",
    "a run's job beside its own, s", "processes that load torch, a run", "peak, MiB",
]  # fmt: skip


def settings(name: str, images: Path, seeds: int) -> dict[str, Any]:
    """Return the settings of one experiment on a folder of images, with the demo's model and weights."""
    demo = strict_yaml.read(ROOT / "configs/demo.yaml")
    experiment = {**demo["experiments"]["mobilenet-v2"], "device": "cpu"}
    return {
        "dataset": {"name": name, "source": {"path": str(images)}, "split": demo["dataset"]["split"]},
        "experiments": {"mobilenet-v2": experiment},
        "seeds": list(range(seeds)),
    }


def with_classes(images: Path, folder: Path, count: int) -> Path:
    """Return a folder with links to the images of the first *count* classes."""
    if not folder.exists():
        with atomic_path(folder) as temporary:
            for path in sorted(path for path in images.iterdir() if path.is_dir())[:count]:
                for image in sorted(path.iterdir()):
                    (temporary / path.name).mkdir(parents=True, exist_ok=True)
                    (temporary / path.name / image.name).hardlink_to(image)
    return folder


def cases(output: Path, data: str, limit: int, grow: bool) -> Mapping[str, dict[str, Any] | None]:
    """Return the settings of each case by name; None for the demo's own."""

    def images(count: int) -> Path:
        bench = Bench(output, data_name(data, count), Scale())
        prepare_data(bench, data, count)
        return bench.images

    whole = images(limit)
    wanted = {"demo": None, f"{data}, {limit} images": settings("real", whole, 1)}
    wanted[f"{data}, {limit // 4} images, 8 seeds"] = settings("grid", images(limit // 4), 8)
    if grow:
        for divisor in (2, 4):
            wanted[f"{data}, {limit // divisor} images"] = settings("real", images(limit // divisor), 1)
            seeds = 8 // divisor
            wanted[f"{data}, {limit // 4} images, {seeds} seeds"] = settings("grid", images(limit // 4), seeds)
        classes = len([path for path in whole.iterdir() if path.is_dir()]) // 2
        few = with_classes(whole, output / "data" / f"{data}-{limit}-{classes}-classes", classes)
        wanted[f"{data}, {classes} classes of it"] = settings("real", few, 1)
    return wanted


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.end_to_end", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", default="elpv", choices=[*datasets.DATASETS, "sample"], help="photographs (elpv)")
    parser.add_argument("--limit", type=int, default=2000, metavar="N", help="so many of them (2000)")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="the cases whose names contain one of these words")
    parser.add_argument("--grow", action="store_true", help="also fewer images, classes and runs")
    kept = "folder of images and tables (default: %(default)s)"
    parser.add_argument("--output", type=Path, default=Path("results/bench"), metavar="FOLDER", help=kept)
    return parser


def main(args: argparse.Namespace) -> None:
    """Run the cases, and print their tables."""
    output = args.output.resolve()
    rows, texts = [], []
    for name, wanted in cases(output, args.data, args.limit, args.grow).items():
        if args.only and not any(word in name for word in args.only):
            continue
        logger.info("%s", name)
        with tempfile.TemporaryDirectory(prefix="mimflow-bench-") as folder:
            checkout = Checkout(Path(folder, "checkout"))
            config = checkout.write_settings("bench.yaml", wanted) if wanted else "configs/demo.yaml"
            measured = run_workflow(checkout, config)
        rows.append(summary(name, measured))
        texts += ["", f"{name}:", "", *rules_table(measured)]
        write_json(output / "end_to_end" / f"{name}.json", {"steps": [vars(step) for step in measured.steps]})
    text = "\n".join([machine_line(), "", *markdown(HEAD, rows), *texts])
    write_text(output / "end_to_end" / "table.md", text + "\n")
    print(text)


if __name__ == "__main__":
    run_cli(build_parser, main)
