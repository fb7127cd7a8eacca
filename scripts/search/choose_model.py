"""End the search of `base_config: auto`: name the candidate that is best on val, and copy its pretrained weights.

The test split is not read. Beside the choice it writes what each candidate reached and cost, for the page of the
search.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from scripts.lib.base.console import run_cli
from scripts.lib.base.files import copy_file, read_json, write_json
from scripts.lib.base.problems import UserError
from scripts.lib.data.splits import Split
from scripts.lib.metrics.metrics import wilson_interval
from scripts.lib.model.model_search import EPOCHS, Trained, Tried, best_first, ranked, trade_off
from scripts.search.choose_finalists import read_probes, read_round

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.search.choose_model", description=__doc__)
    parser.add_argument("--probes", type=Path, required=True, nargs="+", metavar="FILE", help="of all candidates")
    parser.add_argument("--checkpoints", type=Path, required=True, nargs="+", metavar="FILE", help="theirs, as listed")
    parser.add_argument("--rounds", type=Path, required=True, nargs="+", metavar="FILE", help="who was in each round")
    parser.add_argument("--val", type=Path, required=True, metavar="FILE", help="val.txt")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the choice, .json")
    parser.add_argument("--weights", type=Path, required=True, metavar="FILE", help="pretrained weights of the chosen")
    return parser


def chosen(tried: dict[str, Tried], rounds: list[list[Trained]]) -> Tried:
    """Return the best of the last round that trained anything; of none, the best probe.

    Raises
    ------
    UserError : no candidate could be tried.
    """
    for result in reversed(rounds):
        if result:
            return tried[best_first(result)[0].name]
    order = ranked(tried.values())
    if not order:
        raise UserError("none of the candidates could be tried", "see the reasons in the logs, and give others")
    return order[0]


def table(tried: dict[str, Tried], rounds: list[list[Trained]], too_dear: list[str]) -> list[dict[str, Any]]:
    """Return a row for each candidate: what its probe found, and what each round reached, each with its interval."""
    in_order = ranked(tried.values())
    front = trade_off({candidate.name: (candidate.accuracy, candidate.images_per_second) for candidate in in_order})
    rows = []
    for candidate in [*in_order, *(candidate for candidate in tried.values() if candidate.left_out)]:
        reached = [next((result for result in results if result.name == candidate.name), None) for results in rounds]
        rows.append(
            {
                **candidate.as_json(),
                "accuracy": candidate.accuracy,
                "interval": interval(candidate.correct, candidate.images),
                "is_on_front": candidate.name in front,
                "is_too_dear": candidate.name in too_dear,
                "rounds": [
                    result and {
                        "accuracy": result.accuracy,
                        "interval": interval(result.correct, result.images),
                        "loss": result.loss,
                        "seconds": round(result.seconds, 1),
                    }
                    for result in reached
                ],
            }
        )  # fmt: skip
    return rows


def interval(correct: float, images: int) -> list[float] | None:
    """Return the 95 % interval of an accuracy over new images; None of none."""
    return list(wilson_interval(round(correct), images)) if images else None


def main(args: argparse.Namespace) -> None:
    """Choose, and write the choice."""
    tried = read_probes(args.probes)
    val_images = len(Split.read(args.val).images)
    rounds = [read_round(file, val_images) for file in args.rounds]
    best = chosen(tried, rounds)
    too_dear = [name for file in args.rounds for name in read_json(file)["too_dear"]]
    checkpoints = dict(zip(tried, args.checkpoints, strict=True))
    copy_file(checkpoints[best.name], args.weights)
    write_json(
        args.output,
        {
            "chosen": best.name,
            "base_config": best.base_config,
            "epochs": [EPOCHS * number for number in range(1, len(rounds) + 1)],
            "val_images": val_images,
            "candidates": table(tried, rounds, too_dear),
        },
    )
    logger.info("%s: chosen of %d candidates: %s", args.output, len(tried), best.base_config)


if __name__ == "__main__":
    run_cli(build_parser, main)
