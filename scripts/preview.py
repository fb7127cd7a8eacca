"""Draw training images of a run as the network sees them, before it is trained: `make preview RUN=...`.

The augmentations are those of the training, image for image: they are a function of seed, epoch and image. What a model
itself mixes (mixup, cutmix) comes after them and is not shown.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scripts.lib.base import language
from scripts.lib.base.console import run_cli
from scripts.lib.base.language import tr
from scripts.lib.base.problems import UserError
from scripts.lib.base.text import shorten
from scripts.lib.runs.config_file import read_trusted
from scripts.lib.runs.run_folder import RunFolder

#: Of the first image in so many epochs, and so many images of the first epoch.
EPOCHS, IMAGES = 8, 32
COLUMNS = 8
INCHES = 1.4
NAME_WIDTH = 16


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.preview", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="a run with a config.py, .../seed0")
    parser.add_argument("--output", type=Path, metavar="FILE", help="the picture (preview.png in the run's folder)")
    language.add_option(parser, None)
    return parser


def shown_pixels(image: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Return what a pipeline hands on as a picture again: uint8, (height, width, 3), red first.

    Parameters
    ----------
    image : (channels, height, width): numbers, or bytes, blue first, which ``runner.normalize`` makes numbers of later.
    config : of the run.
    """
    pixels = np.asarray(image).transpose(1, 2, 0)
    steps = [step for step in config["data"]["train"]["pipeline"] if step["type"] == "Normalize"]
    if steps and pixels.dtype != np.uint8:
        pixels = pixels * np.asarray(steps[0]["std"]) + np.asarray(steps[0]["mean"])
    if not (steps and steps[0].get("to_rgb", True)):
        pixels = pixels[..., ::-1]
    pixels = np.clip(np.round(pixels), 0, 255).astype(np.uint8)
    return pixels if pixels.shape[-1] == 3 else np.repeat(pixels, 3, axis=-1)


def draw(config: dict[str, Any], title: str) -> Any:
    """Return the figure: the first image in the first epochs, then the first batch of the first epoch."""
    from matplotlib.figure import Figure
    from mmcls.datasets import build_dataset

    import scripts.mmcls_plugins  # noqa: F401 - registers what config.py names
    from scripts.lib.pages.figures.style import house_style
    from scripts.mmcls_plugins.dataset import EpochSampler, SampleKey

    dataset = build_dataset(config["data"]["train"])
    options = {key: value for key, value in (config.get("sampler") or {}).items() if key != "type"}
    order = list(EpochSampler(dataset, seed=config["seed"], **options))
    batch = order[: min(IMAGES, config["data"]["samples_per_gpu"])]
    shown = [(SampleKey(epoch, batch[0].sample), tr(f"epoch {epoch + 1}")) for epoch in range(EPOCHS)]
    labels = dataset.get_gt_labels()
    shown += [(key, shorten(dataset.CLASSES[labels[key.sample]], NAME_WIDTH)) for key in batch]
    rows = math.ceil(len(shown) / COLUMNS)
    with house_style():
        figure = Figure(figsize=(COLUMNS * INCHES, (rows + 0.6) * INCHES * 1.15), layout="constrained")
        figure.suptitle(title)
        axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
        for axis in axes:
            axis.axis("off")
        for axis, (key, name) in zip(axes, shown, strict=False):
            axis.imshow(shown_pixels(dataset[key]["img"].numpy(), config), interpolation="nearest")
            axis.set_title(name, fontsize=8)
    return figure


@language.in_its_language
def main(args: argparse.Namespace) -> None:
    """Write the picture."""
    run = RunFolder(args.run)
    if not run.config.is_file():
        remedy = "make run CONFIG=configs/mine.yaml ARGS='--until patch_config pack_images' writes it, without training"
        raise UserError(f"{run.config}: there is no such config", remedy)
    from scripts.lib.pages.figures.style import save_figure

    output = args.output or run.path / "preview.png"
    names = "/".join(run.names.values())
    title = tr(f"{names}: training images as the network sees them; first row: one of them in eight epochs")
    save_figure(draw(read_trusted(run.config), title), output)
    print(output)


if __name__ == "__main__":
    run_cli(build_parser, main)
