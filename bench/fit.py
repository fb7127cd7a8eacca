"""Measure `fit: crop`, `pad` and `squash` by linear probes on pretrained features of what each of them shows.

The fitted head is what training with `recipe: fast` starts from; nothing is trained beyond it. Each image is tested
once by each fit, in cross-validation, and val, which chooses the penalty as in `fit_head`, is taken from train. Images
are compared one by one, so that the difference of two fits has the interval of paired values.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.model_selection import StratifiedKFold, train_test_split

from bench import datasets
from bench.prepare import Bench, Scale, bare_model, data_name, prepare_data, prepare_weights
from bench.table import machine_line, markdown
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import write_text
from scripts.lib.base.units import in_percent
from scripts.lib.data.decoding import Undecodable, decode_image
from scripts.lib.data.reading import WHITE
from scripts.lib.data.splits import find_images
from scripts.lib.data.squares import FITS, cropped_share, make_square
from scripts.lib.model.inference import read_checkpoint
from scripts.lib.model.linear_probe import fit_probes
from scripts.mmcls_plugins.randomness import derive_seed

logger = logging.getLogger(__name__)
#: Of each data set: the folds, and the share of the rest that is val.
FOLDS, VAL = 5, 0.125
BATCH = 32
#: Crop leaves out this share or more of images that are half again as long as they are wide.
WIDE = 1 / 3
#: Of the demo's base config, as the data of an image are normalised: red, green, blue.
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m bench.fit", description=(__doc__ or "").split("\n")[0])
    known = ", ".join((*datasets.DATASETS, "sample"))
    default = ["stamps", "clipart", "flags"]
    parser.add_argument("--data", nargs="+", default=default, help=f"{known}, or folders of images (%(default)s)")
    parser.add_argument("--limit", type=int, metavar="N", help="a class-balanced subset of N images of each")
    parser.add_argument("--size", type=int, default=128, metavar="PIXELS", help="a side of the square (128)")
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="repetitions of the folds (2)")
    kept = "folder of images, weights and tables (default: %(default)s)"
    parser.add_argument("--output", type=Path, default=Path("results/bench"), metavar="FOLDER", help=kept)
    return parser


def shown(image: np.ndarray, fit: str, size: int) -> np.ndarray:
    """Return the square that a network sees of an image: uint8 (size, size, 3), blue first, as the image is."""
    if fit != "crop":
        return make_square(image, size, fit, WHITE)
    height, width = image.shape[:2]
    scaled = (width * size // min(height, width), height * size // min(height, width))
    small = np.asarray(Image.fromarray(image).resize(scaled, Image.Resampling.BILINEAR))
    top, left = (max(0, round((length - size) / 2)) for length in small.shape[:2])
    return small[top : top + size, left : left + size]


def features_of(images: Sequence[np.ndarray], model: torch.nn.Module) -> torch.Tensor:
    """Return the pooled features of squares: float64 (images, dimensions)."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            batch = np.stack([(image[..., ::-1] - MEAN) / STD for image in images[start : start + BATCH]])
            pixels = torch.from_numpy(batch.transpose(0, 3, 1, 2).astype(np.float32))
            output = model.extract_feat(pixels)  # type: ignore[operator]
            parts.append((output[-1] if isinstance(output, tuple) else output).double())
    return torch.cat(parts)


@dataclass(frozen=True)
class Result:
    """Of one fit: ``val``, accuracy on val of each probe; ``right``, of each seed and image, whether test was right."""

    val: np.ndarray
    right: np.ndarray


def probe(features: torch.Tensor, labels: np.ndarray, seeds: int) -> Result:
    """Return what probes on the features of all images answer: each image is tested once for each seed."""
    classes = int(labels.max()) + 1
    val_accuracies = []
    right = np.zeros((seeds, len(labels)), bool)
    targets = torch.from_numpy(labels)
    for seed in range(seeds):
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=derive_seed(seed, "bench.fit") % 2**32)
        for fold, (rest, test) in enumerate(folds.split(labels, labels)):
            state = derive_seed(seed, "bench.fit val", fold) % 2**32
            train, val = train_test_split(rest, test_size=VAL, stratify=labels[rest], random_state=state)
            best = fit_probes(features[train], targets[train], features[val], targets[val], classes)[-1]
            val_accuracies.append(best.accuracy)
            predicted = (features[test] @ best.weight.T + best.bias).argmax(1)
            right[seed, test] = (predicted == targets[test]).numpy()
    return Result(np.array(val_accuracies), right)


def compared(result: Result, reference: Result, images: np.ndarray) -> str:
    """Return the difference of the accuracies on some of the images, with its 95 % interval over the images.

    What an image counts is the share of seeds in which it is right; the same images are compared.
    """
    differences = 100 * (result.right[:, images].mean(0) - reference.right[:, images].mean(0))
    mean, half = differences.mean(), 1.96 * differences.std(ddof=1) / np.sqrt(len(differences))
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"


def rows_of(bench: Bench, args: argparse.Namespace, model: torch.nn.Module) -> list[list[str]]:
    """Return the lines of one data set; the fit that is best on val is bold."""
    labelled, shares = [], []
    squares: dict[str, list[np.ndarray]] = {fit: [] for fit in FITS}
    for image in find_images(bench.images):
        try:
            pixels = decode_image((bench.images / image.path).read_bytes())
        except Undecodable as error:
            logger.warning("%s is left out: %s", image.path, error)
            continue
        labelled.append(image.label)
        shares.append(cropped_share(*pixels.shape[1::-1]))
        for fit in FITS:
            squares[fit].append(shown(pixels, fit, args.size))
    classes = sorted(set(labelled))
    labels, outside = np.array([classes.index(label) for label in labelled]), np.array(shares)
    wide = outside >= WIDE
    logger.info("%s: %d images of %d classes", bench.data, len(labels), len(classes))
    results = {fit: probe(features_of(squares[fit], model), labels, args.seeds) for fit in FITS}
    best = max(FITS, key=lambda fit: results[fit].val.mean())
    lines = []
    for fit, result in results.items():
        against = [compared(result, results["crop"], chosen) for chosen in (wide | ~wide, wide)]
        name = f"**`{fit}`**" if fit == best else f"`{fit}`"
        accuracies = [in_percent(result.val.mean()), in_percent(result.right.mean())]
        lines.append(["", name, *accuracies, *(["", ""] if fit == "crop" else against)])
    lines[0][0] = (
        f"{bench.data}: {len(labels):,} images, {len(classes)} classes; crop leaves out {100 * outside.mean():.0f} %;"
        f" {wide.sum()} from 3 : 2"
    )
    return lines


def main(args: argparse.Namespace) -> None:
    """Measure each data set, and print the table."""
    rows: list[list[str]] = []
    for data in args.data:
        bench = Bench(args.output.resolve(), data_name(data, args.limit), Scale(sample_images=60))
        bench.output.mkdir(parents=True, exist_ok=True)
        prepare_data(bench, data, args.limit)
        prepare_weights(bench)
        model = bare_model(bench.model).eval()
        weights, _ = read_checkpoint(bench.checkpoint)
        missing = model.load_state_dict({k: v for k, v in weights.items() if k.startswith("backbone.")}, strict=False)
        assert not [name for name in missing.missing_keys if name.startswith("backbone.")], missing.missing_keys
        rows += rows_of(bench, args, model)
        logger.info("%s", "; ".join(" ".join(row[1:]) for row in rows[-len(FITS) :]))
    head = [
        "data",
        "`fit`",
        "val, %",
        "test, %",
        "test, against `crop`, points (95 % interval)",
        "on images from 3 : 2",
    ]
    text = "\n".join([machine_line(), "", *markdown(head, rows), ""])
    write_text(args.output / "fit.md", text)
    print(text)


if __name__ == "__main__":
    run_cli(build_parser, main)
