"""Decide which candidates of `base_config: auto` are trained in a round, and give each its slot.

A slot is a folder in which training runs. The first round starts from the fitted head, each other one from the best
weights that the round before left. A candidate that stays among the finalists keeps its slot, so that a changed list of
candidates trains only what is new.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from scripts.lib.base.console import run_cli
from scripts.lib.base.files import copy_file, find_json, read_json, write_json
from scripts.lib.base.problems import UserError
from scripts.lib.data.splits import Split
from scripts.lib.model import model_search
from scripts.lib.model.model_search import EPOCHS, MOST_FINALISTS, Trained, Tried
from scripts.lib.runs.config_file import copy_config
from scripts.lib.runs.run_folder import RunFolder
from scripts.lib.runs.train_log import kept_epoch, read_train_log

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.search.choose_finalists", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, metavar="DIR", help="folder of the search")
    parser.add_argument("--round", type=int, required=True, metavar="N", help="which round, from 1 on")
    parser.add_argument("--probes", type=Path, required=True, nargs="+", metavar="FILE", help="of all candidates")
    parser.add_argument("--train", type=Path, required=True, metavar="FILE", help="train.txt")
    parser.add_argument("--val", type=Path, required=True, metavar="FILE", help="val.txt")
    parser.add_argument("--slots", type=int, required=True, metavar="N", help="how many are trained")
    parser.add_argument("--minutes", type=float, metavar="N", help="the budget of the whole search (none)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="who is in this round, .json")
    return parser


def read_probes(files: Sequence[Path]) -> dict[str, Tried]:
    """Return what the probes found, by the names of the candidates."""
    probes = [Tried(**read_json(file)) for file in files]
    return {tried.name: tried for tried in probes}


def read_round(file: Path, val_images: int) -> list[Trained]:
    """Return what the finalists of a round reached.

    Parameters
    ----------
    file : who they were, as this command writes it.
    """
    return [trained(run, name, val_images) for name, run in finalists(file).items()]


def finalists(file: Path) -> dict[str, RunFolder]:
    """Return where each finalist of the round that *file* describes was trained."""
    names = read_json(file)["slots"]
    return {name: RunFolder(slot(file, number)) for number, name in enumerate(names) if name is not None}


def slot(file: Path, number: int) -> Path:
    """Return the folder of one slot of the round that *file* describes."""
    return file.with_suffix("") / str(number)


def trained(run: RunFolder, name: str, val_images: int) -> Trained:
    """Return what one training reached on val.

    Raises
    ------
    UserError : it validated no epoch.
    """
    log = read_train_log(run.train_log)
    kept = kept_epoch(log)
    if kept is None:
        raise UserError(f"{run.train_log}: no epoch was validated", "give more images to val")
    seconds = float(log["train_seconds"].sum() + log["val_seconds"].sum())
    ending = "_balanced" if "val_accuracy_balanced" in log else ""  # where classes count the same
    accuracy, loss = (float(kept[f"val_{name}{ending}"]) for name in ("accuracy", "loss"))
    return Trained(name, accuracy * val_images, val_images, loss, seconds)


def main(args: argparse.Namespace) -> None:
    """Choose, and lay out the folders of this round."""
    tried = read_probes(args.probes)
    images, val_images = (len(Split.read(path).images) for path in (args.train, args.val))
    rounds = [args.output.with_name(f"round{number}.json") for number in range(1, args.round)]
    results = [read_round(file, val_images) for file in rounds]
    if results:
        order = [tried[result.name] for result in model_search.best_first(results[-1])]
    else:
        order = model_search.ranked(tried.values())
    if not order:
        reasons = "; ".join(f"{probe.name}: {probe.left_out}" for probe in tried.values())
        raise UserError(f"none of the candidates can be tried: {reasons}", "mend one of these, or give others")
    spent = sum(probe.seconds for probe in tried.values())
    spent += sum(result.seconds for trained_before in results for result in trained_before)
    left = None if args.minutes is None else 60 * args.minutes - spent
    chosen = model_search.affordable(order, args.slots, images, EPOCHS, left)
    memory = args.output.with_suffix(".slots")  # no output: Snakemake removes those before a rerun
    slots = model_search.kept_slots(
        [finalist.name for finalist in chosen], find_json(memory).get("slots", []), args.slots
    )
    before = {name: run.best for name, run in finalists(rounds[-1]).items()} if rounds else {}
    for number, name in enumerate(padded(slots)):
        lay_out(slot(args.output, number), args.folder / name if name else None, before.get(name or ""))
    write_json(memory, {"slots": slots})
    left_over = [candidate.name for candidate in order[: args.slots] if candidate not in chosen]
    write_json(args.output, {"round": args.round, "slots": slots, "too_dear": left_over})
    logger.info("round %d trains %s", args.round, ", ".join(name for name in slots if name) or "nothing")


def padded(slots: Sequence[str | None]) -> list[str | None]:
    """Return who is in which slot of all that a round may have: the rule's outputs are the same for every search."""
    return [*slots, *[None] * (MOST_FINALISTS - len(slots))]


def lay_out(folder: Path, candidate: Path | None, weights: Path | None) -> None:
    """Write the config and the weights that a slot's training starts from; both empty where nobody is in it.

    Parameters
    ----------
    weights : of the round before; None: those with the fitted head.
    """
    run = RunFolder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if candidate is None:
        for path in (run.config, run.init):
            path.write_bytes(b"")
        return
    copy_file(weights or candidate / RunFolder.init, run.init)
    copy_config(candidate / RunFolder.config, run.config, run.init)


if __name__ == "__main__":
    run_cli(build_parser, main)
