"""Measure which images are called unlike all others, by the features of the pretrained MobileNetV2.

``python -m bench.odd_one_out`` counts them in collections of real pictures, then puts a few pictures of each collection
among those of each other one, and counts how many of these strangers are named.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bench.fit import features_of, shown
from bench.odd_pictures import collect
from bench.prepare import Bench, Scale, bare_model, prepare_weights
from bench.table import machine_line, markdown
from scripts.lib.base.console import run_cli
from scripts.lib.data.decoding import decode_image
from scripts.lib.data.image_checks import Status, check_image
from scripts.lib.metrics.odd_one_out import odd_ones_out
from scripts.lib.model.inference import read_checkpoint

COLLECTIONS = ("elpv", "cifar10-test", "the sample", "digits", "stamps", "clipart")
#: Images of a collection; strangers that are put among them at a time, and how often.
IMAGES, STRANGERS, ROUNDS = 600, 5, 20
SIZE = 128


def features_of_files(files: Sequence[bytes], model: object) -> np.ndarray:
    """Return the features of images as `fit: pad` shows them: float64 (images, features)."""
    squares = [shown(decode_image(content), "pad", SIZE) for content in files]
    return features_of(squares, model).numpy()  # type: ignore[arg-type]


def share_named(features: np.ndarray, others: np.ndarray) -> str:
    """Return the share of strangers that are named, STRANGERS at a time among *features*."""
    named = 0
    for number in range(ROUNDS):
        strangers = others[np.random.default_rng(number).choice(len(others), STRANGERS, replace=False)]
        both = np.concatenate([features, strangers])
        named += int((odd_ones_out(both, np.arange(len(both))) >= len(features)).sum())
    return f"{named / (ROUNDS * STRANGERS):.2f}"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.odd_one_out", description=__doc__)
    kept = "folder of the weights (default: %(default)s)"
    parser.add_argument("--output", type=Path, default=Path("results/bench"), metavar="FOLDER", help=kept)
    return parser


def main(args: argparse.Namespace) -> None:
    """Measure all pairs of collections, and print the table."""
    bench = Bench(args.output.resolve(), "sample", Scale())
    bench.output.mkdir(parents=True, exist_ok=True)
    prepare_weights(bench)
    model, (weights, _) = bare_model(bench.model).eval(), read_checkpoint(bench.checkpoint)
    model.load_state_dict(weights, strict=False)
    features = {}
    for name in COLLECTIONS:
        files = [content for content in collect(name) if check_image(content).status is Status.READABLE]
        chosen = np.sort(np.random.default_rng(0).permutation(len(files))[:IMAGES])
        features[name] = features_of_files([files[index] for index in chosen], model)
        print(f"{name}: {len(features[name])} images", file=sys.stderr, flush=True)
    rows = []
    for name, vectors in features.items():
        count = len(odd_ones_out(vectors, np.arange(len(vectors))))
        cells = ["–" if name == other else share_named(vectors, features[other]) for other in COLLECTIONS]
        rows.append([name, f"{count} of {len(vectors)}", *cells])
    print(machine_line())
    heads = (f"{STRANGERS} of {name}" for name in COLLECTIONS)
    print("\n" + "\n".join(markdown(("among", "nothing planted", *heads), rows)))


if __name__ == "__main__":
    run_cli(build_parser, main)
