"""Measure mimflow beside plain mim, timm and fastai: on the same images, weights, machine and threads, in one run.

Each row is run once a seed, rows of one seed in turn. What is finished stays in the output folder, and the same command
goes on from it. The clock of a row runs from the first image opened to the final checkpoint; interpreter start and
imports are reported apart. The stopping point is chosen on val; accuracies are read on test.
"""

from __future__ import annotations

import argparse
import logging
import signal
from collections.abc import Sequence
from pathlib import Path

from bench import datasets, prepare
from bench.prepare import MOBILENET, MODELS, Bench, data_name
from bench.processes import Row
from bench.rows import parse_rows, read_test, run_row
from bench.table import PEER_ROWS, ROWS, draw, gpu_line, is_read, last_line, load_rows, machine_line, table
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import write_text
from scripts.lib.base.problems import UserError

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    description = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=description)
    known = ", ".join((*datasets.DATASETS, "sample"))
    parser.add_argument("--data", default="sample", help=f"{known}, or a folder or archive of images (default: sample)")
    parser.add_argument("--limit", type=int, metavar="N", help="a class-balanced subset of N images")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED", help="default: 0 1 2")
    auto = "auto: the CPU, then a GPU where there is one"
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help=auto)
    models = f"of {', '.join(MODELS)} (default: {MOBILENET} on a CPU, all on a GPU)"
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), metavar="MODEL", help=models)
    parser.add_argument("--rows", default=",".join(ROWS), help="what to measure (default: %(default)s)")
    kept = "folder of results; what is finished in it is kept (default: %(default)s)"
    parser.add_argument("--output", type=Path, default=Path("results/bench"), metavar="FOLDER", help=kept)
    parser.add_argument("--smoke", action="store_true", help="see whether it runs: tiny images, one epoch, no download")
    return parser


def benches(
    data: str, limit: int | None, smoke: bool, output: Path, device: str, models: Sequence[str], gpu: bool
) -> list[Bench]:
    """Return what is to be measured, one after the other.

    Parameters
    ----------
    models : names of MODELS; none: those that a device is measured with.
    gpu : whether torch finds one.

    Raises
    ------
    UserError : a GPU is asked for, and there is none.
    """
    if device == "cuda" and not gpu:
        raise UserError("--device cuda: torch finds no GPU here: `make doctor` says why")
    devices = [device] if device != "auto" else ["cpu", *(["cuda"] if gpu else [])]
    made = []
    for device in devices:
        name, scale = data_name(data, limit, smoke), prepare.Scale()
        if device == "cuda":
            scale = prepare.ON_A_GPU
            name += "-large" if data in (*datasets.DATASETS, "sample") else ""
        for architecture in models or (list(MODELS) if device == "cuda" else [MOBILENET]):
            scale = prepare.SMOKE if smoke else scale
            made.append(Bench(output.resolve(), name, scale, smoke, device, architecture))
    return made


def measure(bench: Bench, rows: Sequence[str], seeds: Sequence[int]) -> None:
    """Run what is not finished of a bench, and read its accuracies on test."""
    prepare.prepare_weights(bench)
    if set(rows) & set(PEER_ROWS):
        prepare.prepare_peers(bench)
    for seed in dict.fromkeys(seeds):
        for row in rows:
            if not bench.result_file(row, seed).exists():
                logger.info("%s, seed %d: %s", bench.name, seed, row)
                result = run_row(bench, row, seed)
                logger.info("%s, seed %d: %s: %s", bench.name, seed, row, summary(result))
    read_test(bench, load_rows(bench.output)[bench.name])


def main(args: argparse.Namespace) -> None:
    """Run what is not finished, write the table and the figure, print the speed-up."""
    rows = parse_rows(args.rows)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what runs is ended with the bench
    import torch  # late: it takes seconds, and --help should not

    gpu = args.device != "cpu" and torch.cuda.is_available()
    wanted = benches(args.data, args.limit, args.smoke, args.output, args.device, args.models, gpu)
    for bench in wanted:
        prepare.prepare_data(bench, args.data, args.limit)
        measure(bench, rows, args.seeds)
    # Another data set's rows are in the table once their accuracies have been read.
    output = wanted[0].output
    finished = load_rows(output)
    results = {name: [row for row in rows if is_read(rows, row)] for name, rows in finished.items()}
    text = table(results, machine_line(), gpu_line(results))
    write_text(output / "table.md", text)
    draw(results, output / "figure.svg")
    print(text)
    print(last_line(results[wanted[0].name]))


def summary(row: Row) -> str:
    """Return one line on a finished row."""
    rate = f"{row['images_per_second']:.1f} images/s"
    if "checkpoints" not in row:
        return rate
    best = row["checkpoints"][row["chosen"]]
    return f"{row['seconds']:.1f} s, val accuracy {100 * best['val_accuracy']:.2f} % ({best['name']}), {rate}"


if __name__ == "__main__":
    run_cli(build_parser, main)
