"""Measure mimflow beside plain mim, timm and fastai: on the same images, weights, machine and threads, in one run.

Each row is run once a seed, rows of one seed in turn. What is finished stays in the output folder, and the same command
goes on from it. The clock of a row runs from the first image opened to the final checkpoint; interpreter start and
imports are reported apart. The stopping point is chosen on val; accuracies are read on test.
"""

from __future__ import annotations

import argparse
import logging
import signal
from pathlib import Path

from bench import datasets
from bench.prepare import SMOKE, Bench, Scale, data_name, prepare_data, prepare_peers, prepare_weights
from bench.processes import Row
from bench.rows import parse_rows, read_test, run_row
from bench.table import PEER_ROWS, ROWS, draw, gpu_line, is_read, last_line, load_rows, machine_line, table
from scripts.console import run_cli
from scripts.files import write_text

logger = logging.getLogger(__name__)


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


def summary(row: Row) -> str:
    """Return one line on a finished row."""
    rate = f"{row['images_per_second']:.1f} images/s"
    if "checkpoints" not in row:
        return rate
    best = row["checkpoints"][row["chosen"]]
    return f"{row['seconds']:.1f} s, val accuracy {100 * best['val_accuracy']:.2f} % ({best['name']}), {rate}"


if __name__ == "__main__":
    run_cli(build_parser, main)
