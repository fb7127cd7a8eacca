"""Compare experiments over their seeds: leaderboard.csv and a figure, one row an experiment, the best first."""

from __future__ import annotations

import argparse
import logging
import math
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from scripts.lib.base import language, products
from scripts.lib.base.console import run_cli, terminal_width
from scripts.lib.base.files import atomic_path, write_text
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.metrics import contamination, cost, history, leaderboard, likeness, paired
from scripts.lib.pages import templates
from scripts.lib.runs.provenance import check_made
from scripts.lib.runs.run_folder import RunFolder

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.report.compare_runs", description=__doc__)
    parser.add_argument("--runs", type=Path, nargs="+", metavar="DIR", help="folders of runs: .../seed<k>[/fold<j>]")
    parser.add_argument("--leaderboard", type=Path, metavar="FILE", help="leaderboard.csv")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="leaderboard.svg")
    parser.add_argument("--html", type=Path, metavar="FILE", help="the leaderboard as a self-contained page, if wanted")
    parser.add_argument("--costs", type=Path, metavar="FILE", help="costs.csv, what each run cost, if wanted")
    parser.add_argument("--comparisons", type=Path, metavar="FILE", help="comparisons.csv, paired tests, if wanted")
    parser.add_argument("--price", type=parse_price, metavar="NUMBER", help="of one GPU for an hour, where it is known")
    parser.add_argument("--currency", default="", metavar="TEXT", help="of the price, for example CNY")
    parser.add_argument(
        "--audit", type=Path, metavar="FILE", help="audit.csv: adds accuracy without contaminated images"
    )
    parser.add_argument("--show", type=Path, metavar="FILE", help="only print an existing leaderboard.csv as a table")
    language.add_option(parser)
    return parser


def parse_price(text: str) -> float:
    """Read a price.

    Raises
    ------
    ArgumentTypeError : it is no number, or below 0.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no price: give a number, for example 1.8")
    return value


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, atomically."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def leaderboard_page(
    board: pd.DataFrame,
    title: str,
    costs: pd.DataFrame | None = None,
    comparisons: pd.DataFrame | None = None,
    contaminated: contamination.Contamination | None = None,
) -> str:
    """Return the leaderboard, who is better than whom, and what each run cost, as a self-contained page."""
    compared = comparisons if comparisons is not None and len(comparisons) else None
    return templates.page(
        "leaderboard.html",
        title,
        style="leaderboard.css" if contaminated else (),
        contamination=contaminated,
        contamination_cells=contamination.cells(contaminated, board["experiment"].tolist()) if contaminated else None,
        runs=leaderboard.cells(board),
        notes=leaderboard.remarks(board),
        comparisons=None if compared is None else paired.cells(compared),
        comparison_notes=[] if compared is None else paired.remarks(compared),
        costs=None if costs is None else cost.cells(costs),
        cost_notes=[] if costs is None else cost.remarks(costs),
    )


@language.in_its_language
def main(args: argparse.Namespace) -> None:
    """Write the leaderboard, its figure, and what else is wanted; or print an existing one."""
    if args.show:
        products.check([args.show])
        board = leaderboard.read_leaderboard(args.show)
        sys.stdout.write(leaderboard.render_text(board, colour=sys.stdout.isatty(), width=terminal_width()))
        return
    if not (args.runs and args.leaderboard and args.figure):
        raise UserError("give --runs, --leaderboard and --figure, or --show; see --help")
    from scripts.lib.pages.figures import leaderboard as leaderboard_figure  # not for --show: matplotlib is slow
    from scripts.lib.pages.figures.style import save_figure

    for run in map(RunFolder, args.runs):  # not by --reads: hundreds of runs are too long for a shell line
        check_made(run.path, [run.metrics, run.predictions, run.train_log, run.config, run.provenance])
    runs, groups = likeness.set_apart(leaderboard.collect(args.runs))
    costs = leaderboard.collect_costs(runs, args.price, args.currency)
    runs = runs.merge(costs, on=[name for name in leaderboard.RUN if name in runs], validate="one_to_one")
    correct = leaderboard.read_correct(runs)
    board = leaderboard.compare(runs, correct)
    if any(groups.values()):
        board["made_with"] = board["experiment"].map(groups)
    comparisons = None
    if args.comparisons:
        comparisons = paired.compare_pairs(correct, board["experiment"].tolist(), groups)
        verdicts = paired.against_best(comparisons, board["experiment"].iloc[0])
        board["against_best"] = board["experiment"].map(verdicts)
    contaminated = contamination.find_contamination(correct, args.audit) if args.audit else None
    board = contamination.add_columns(board, contaminated)
    title = language.tr(f"Test accuracy on {runs['dataset'].iloc[0]}")
    save_figure(leaderboard_figure.draw(board, runs, title), args.figure)
    if args.html:
        write_text(args.html, leaderboard_page(board, title, costs, comparisons, contaminated))
    if args.costs:
        write_table(args.costs, costs)
    if comparisons is not None:
        write_table(args.comparisons, comparisons)
    write_table(args.leaderboard, board)
    history.add(args.leaderboard.with_name(history.NAME), board, correct, datetime.now(UTC))
    best = board.iloc[0]
    logger.info(
        "%s, %s; best: %s, %.1f %%",
        *(plural(len(runs), "run"), plural(len(board), "experiment")),
        *(best["experiment"], 100 * best["accuracy_top1_mean"]),
    )


if __name__ == "__main__":
    run_cli(build_parser, main)
