"""Measure `base_config: auto` against training every candidate fully: what it chooses, and in which share of the time.

All of it is the workflow's own: one set of images, an experiment with `base_config: auto`, and one for each candidate:
those of configs/auto.yaml, and two with random weights, which must lose. Beside them stands the published tutorial:
MobileNetV2 by `recipe: tutorial`, on the same images. The images, their pixel caches and the weights are there before
the clock runs. What is finished is kept, but the clocks are those of the first time.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas

from bench import datasets
from bench.prepare import Bench, Scale, data_name, prepare_data
from bench.processes import Row, arguments, command, execute
from bench.table import machine_line, markdown
from scripts.lib.base import strict_yaml
from scripts.lib.base.console import run_cli
from scripts.lib.base.environment import ROOT
from scripts.lib.base.files import atomic_path, find_json, read_json, write_json, write_text
from scripts.lib.base.units import in_percent
from scripts.lib.model import model_zoo

logger = logging.getLogger(__name__)
#: Candidates with real weights.
CANDIDATES: list[Row] = strict_yaml.read(ROOT / "configs/auto.yaml")["experiments"]["best"]["candidates"]
#: Models that get weights drawn at random.
RANDOM = ("timm/resnet18", "timm/mobilenetv4_conv_small")
#: The experiment that searches.
AUTO = "auto"
#: The experiment that trains as the published tutorial does.
TUTORIAL = "tutorial"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.search", description=(__doc__ or "").split("\n")[0])
    known = ", ".join((*datasets.DATASETS, "sample"))
    parser.add_argument("--data", default="sample", help=f"{known}, or a folder or archive of images (default: sample)")
    parser.add_argument("--limit", type=int, metavar="N", help="a class-balanced subset of N images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="SEED", help="of the full trainings (0)")
    kept = "folder of images, weights and tables (default: %(default)s)"
    parser.add_argument("--output", type=Path, default=Path("results/bench"), metavar="FOLDER", help=kept)
    return parser


def random_weights(base_config: str, folder: Path) -> dict[str, str]:
    """Return a checkpoint of a model of timm with weights drawn at random."""
    path = folder / f"random-{model_zoo.folder_name(base_config)}.pth"
    if not path.exists():
        import timm
        import torch

        torch.manual_seed(0)
        with atomic_path(path) as temporary:
            torch.save(timm.create_model(base_config.removeprefix("timm/")).state_dict(), temporary)
    return {"path": str(path)}


def settings(name: str, images: Path, weights: Path, seeds: list[int]) -> dict[str, Any]:
    """Return the settings: the search, each candidate as an experiment of its own, and the tutorial's training."""
    of_random = ({"base_config": name, "checkpoint": random_weights(name, weights)} for name in RANDOM)
    candidates = [*CANDIDATES, *of_random]
    shared = {"device": "cpu", "export": False}
    return {
        "dataset": {"name": name, "source": {"path": str(images)}},
        "experiments": {
            AUTO: {"base_config": "auto", "candidates": candidates, **shared},
            **{model_zoo.folder_name(fields["base_config"]): {**fields, **shared} for fields in candidates},
            TUTORIAL: {**CANDIDATES[0], "recipe": "tutorial", **shared},
        },
        "seeds": seeds,
    }


def main(args: argparse.Namespace) -> None:
    """Search, train everything, and print the table."""
    bench = Bench(args.output.resolve(), data_name(args.data, args.limit), Scale())
    prepare_data(bench, args.data, args.limit)
    folder = args.output.resolve() / "search" / bench.data
    folder.mkdir(parents=True, exist_ok=True)
    wanted = settings(f"search-{bench.data}", bench.images, folder, args.seeds)
    write_text(folder / "settings.yaml", json.dumps(wanted, indent=1))
    results = ROOT / "results" / wanted["dataset"]["name"]
    choice = results / AUTO / "search" / "choice.json"
    names = [name for name in wanted["experiments"] if name not in (AUTO, TUTORIAL)]
    seconds = find_json(folder / "seconds.json")

    def weights(*names: str) -> list[str]:
        folders = [results.relative_to(ROOT) / name for name in names]
        return [str(folder / f"seed{seed}" / "best.pth") for folder in folders for seed in args.seeds]

    for stage, words in {
        "prepared": ["--until", "pack_images", "fetch_checkpoint", "split_dataset"],
        "search": [str(choice.relative_to(ROOT))],
        "full": weights(*names),
        "tutorial": weights(TUTORIAL),
        "end": [str((results / "leaderboard.csv").relative_to(ROOT))],
    }.items():
        if stage not in seconds:
            logger.info("%s: %s", bench.data, stage)
            # What to make goes first: --configfile takes all words behind it.
            start = [*command("scripts.lib.workflow.start"), *words]
            options = arguments(profile="profiles/local", configfile=folder / "settings.yaml")
            seconds[stage] = round(execute([*start, *options], folder / "log.txt").seconds, 1)
            write_json(folder / "seconds.json", seconds)
    text = table(results, read_json(choice), wanted["experiments"], seconds)
    write_text(folder / "table.md", text)
    print(text)


def table(
    results: Path, choice: Mapping[str, Any], experiments: Mapping[str, Row], seconds: Mapping[str, float]
) -> str:
    """Return the table of candidates, and what the search took beside training all of them, in Markdown."""
    leaderboard = pandas.read_csv(results / "leaderboard.csv").set_index("experiment")
    rows = []
    for name, fields in experiments.items():
        if name == AUTO:
            continue
        mark, searched = "", ["" for _ in range(1 + len(choice["epochs"]))]
        if name != TUTORIAL:
            candidate = next(row for row in choice["candidates"] if row["base_config"] == fields["base_config"])
            reached = [in_percent(row["accuracy"]) if row else "" for row in candidate["rounds"]]
            mark, searched = (
                "**" if candidate["name"] == choice["chosen"] else "",
                [in_percent(candidate["accuracy"]), *reached],
            )
        full = leaderboard.loc[name]
        interval = f"{in_percent(full.accuracy_top1_ci95_low)} to {in_percent(full.accuracy_top1_ci95_high)}"
        rows.append([
            f"{mark}{name}{mark}", *searched,
            in_percent(full.val_accuracy_best_mean), in_percent(full.accuracy_top1_mean), interval,
            f"{full.train_seconds_mean:.0f}",
        ])  # fmt: skip
    rounds = [f"round {number + 1}" for number in range(len(choice["epochs"]))]
    head = ["candidate", "probe", *rounds, "full: val", "full: test", "95 % interval", "training, s"]
    lines = [machine_line(), "", *markdown(head, rows), ""]
    lines += [
        f"Chosen (bold) in {seconds['search']:.0f} s; training all {len(rows) - 1} candidates fully: "
        f"{seconds['full']:.0f} s, {seconds['full'] / seconds['search']:.1f} times as long."
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run_cli(build_parser, main)
