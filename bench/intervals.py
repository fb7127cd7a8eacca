"""Measure what the intervals of leaderboard.csv and comparisons.csv cover: a simulation of seeds, folds and images.

``python -m bench.intervals`` prints two Markdown tables. An image is answered right where a sum of normal numbers is
above 0: how easy the image is (for everyone, and for this experiment), how good the training of this seed and fold came
out, and chance. So the true accuracy is known, of the recipe and of each model.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from bench.table import machine_line
from scripts.lib.base.console import run_cli
from scripts.lib.metrics.intervals import MODELS, RECIPE, Accuracy, Difference, accuracy_interval, difference_interval

REPETITIONS = 1500
#: Of the images' difficulty, how much is the same for two experiments.
SHARED = 0.8
#: What a coverage of 95 % may be.
BAND = (0.93, 0.97)
IMAGES = (30, 300, 3000)
ACCURACIES = (0.5, 0.9, 0.99, 0.999)
#: Of two experiments.
PAIRS = ((0.5, 0.5), (0.9, 0.85), (0.99, 0.97), (0.999, 0.99))
#: Seeds, folds, and how much models of a recipe differ: the standard deviation in probits, of which 0.1 is 4 points at
#: an accuracy of 50 %, 1.8 at 90 % and 0.3 at 99 %.
RUNS = (
    *((1, 1, 0.1), (1, 5, 0.1), (2, 1, 0.1), (2, 3, 0.1), (3, 1, 0.0), (3, 1, 0.1), (3, 1, 0.3), (3, 10, 0.1)),
    *((5, 5, 0.1), (10, 1, 0.1)),
)
RUNS_OF_PAIRS = ((1, 1, 0.1), (2, 1, 0.1), (2, 3, 0.1), (3, 1, 0.1), (5, 5, 0.1), (10, 1, 0.1))


class Design(NamedTuple):
    """What is simulated."""

    seeds: int
    folds: int  # 1: no cross-validation
    spread: float  # of the models, in probits
    images: int
    accuracies: tuple[float, ...]  # true ones, of one recipe or of two


class Coverage(NamedTuple):
    """What the intervals of a design did."""

    of: str  # RECIPE or MODELS
    covered: float  # share of the intervals that hold the truth
    error: float  # standard error of the share
    width: float  # mean

    @property
    def mark(self) -> str:
        """Empty where the coverage may be in BAND; `+` where it is above, `-` where it is below, by two errors."""
        below, above = self.covered + 2 * self.error < BAND[0], self.covered - 2 * self.error > BAND[1]
        return "-" if below else "+" if above else ""


def simulate(design: Design, repetitions: int = REPETITIONS) -> Coverage:
    """Draw the answers of a design again and again, and count the intervals that hold the truth."""
    rng = np.random.default_rng([round(1000 * number) for number in (*design[:4], *design.accuracies)])
    fold_of = np.arange(design.images) % design.folds
    folds = tuple(fold_of.tolist()) if design.folds > 1 else ()
    hits, width, of = 0, 0.0, MODELS
    for _ in range(repetitions):
        easy = np.sqrt(SHARED) * rng.standard_normal(design.images, dtype=np.float32)
        right, true = zip(
            *(_answer(design, rng, accuracy, easy, fold_of) for accuracy in design.accuracies), strict=True
        )
        result: Accuracy | Difference
        if len(right) == 1:
            result = accuracy_interval(right[0].astype(float), folds)
        else:
            result = difference_interval(right[0].astype(float) - right[1], folds)
        of = result.of
        truths = design.accuracies if of == RECIPE else true
        truth = truths[0] if len(truths) == 1 else truths[0] - truths[1]
        low, high = result.interval
        hits, width = hits + (low <= truth <= high), width + high - low
    covered = hits / repetitions
    return Coverage(of, covered, float(np.sqrt(covered * (1 - covered) / repetitions)), width / repetitions)


def _answer(
    design: Design, rng: np.random.Generator, accuracy: float, easy: np.ndarray, fold_of: np.ndarray
) -> tuple[np.ndarray, float]:
    """Return which images the seeds of an experiment get right (seeds, images), and its models' mean true accuracy.

    Six tenths of what decides an answer are the image's, four are chance: seeds agree on most images, not on all.
    """
    seeds, folds, spread, images, _ = design
    model = ndtri(accuracy) * np.sqrt(1 + spread**2) + rng.normal(0, spread, (seeds, folds))
    ease = np.sqrt(0.6) * (easy + np.sqrt(1 - SHARED) * rng.standard_normal(images, dtype=np.float32))
    chance = np.sqrt(0.4) * rng.standard_normal((seeds, images), dtype=np.float32)
    return model[:, fold_of] + ease + chance > 0, float(ndtr(model).mean())


def designs(runs: Sequence[tuple[int, int, float]], accuracies: Sequence[tuple[float, ...]]) -> Iterator[Design]:
    """Yield a row of the table after the other, each with every one of *accuracies*; folds need ten images each."""
    for seeds, folds, spread in runs:
        for images in IMAGES:
            if images >= 10 * folds or folds == 1:
                yield from (Design(seeds, folds, spread, images, values) for values in accuracies)


def render(of_designs: Sequence[tuple[Design, Coverage]]) -> list[str]:
    """Return the lines of a Markdown table: of each design coverage and mean width of the interval."""
    columns = list(dict.fromkeys(design.accuracies for design, _ in of_designs))
    names = [" against ".join(f"{100 * value:g} %" for value in values) for values in columns]
    lines = [f"| seeds | folds | models differ by | images | interval of | {' | '.join(names)} |"]
    lines.append("| --: " * 4 + "| --- " + "| --: " * len(columns) + "|")
    rows: dict[tuple[object, ...], list[str]] = {}
    for (seeds, folds, spread, images, _), coverage in of_designs:
        cell = f"{100 * coverage.covered:.1f}{coverage.mark} ({100 * coverage.width:.1f})"
        folds_text = "-" if folds == 1 else str(folds)
        rows.setdefault((seeds, folds_text, spread, images, coverage.of), []).append(cell)
    return lines + ["| " + " | ".join(map(str, (*row, *cells))) + " |" for row, cells in rows.items()]


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.intervals", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, metavar="N", help=f"per cell ({REPETITIONS})")
    return parser


def main(args: argparse.Namespace) -> None:
    """Print the tables."""
    everything: list[tuple[Design, Coverage]] = []
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for runs, accuracies in ((RUNS, [(value,) for value in ACCURACIES]), (RUNS_OF_PAIRS, PAIRS)):
            all_designs = list(designs(runs, accuracies))
            measured = pool.map(partial(simulate, repetitions=args.repetitions), all_designs)
            of_designs = list(zip(all_designs, measured, strict=True))
            everything += of_designs
            sys.stdout.write("\n".join(["", *render(of_designs), ""]))
            sys.stdout.flush()
    low = min(coverage.covered for _, coverage in everything)
    marks = [coverage.mark for _, coverage in everything]
    sys.stdout.write(
        f"\nCoverage in %, and in brackets the mean width in points, of {args.repetitions} repetitions a cell; the"
        f" smallest is {100 * low:.1f} %. Of {len(marks)} cells, {marks.count('-')} are below {100 * BAND[0]:.0f} %"
        f" (`-`) and {marks.count('+')} above {100 * BAND[1]:.0f} % (`+`), by more than two standard errors.\n"
        f"Measured on {machine_line()}.\n"
    )


if __name__ == "__main__":
    run_cli(build_parser, main)
