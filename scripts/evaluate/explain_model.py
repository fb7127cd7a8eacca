"""Show where a trained model looks: Grad-CAM of test images of each class, and of the pair that is confused most."""

from __future__ import annotations

import argparse
import logging
import os
import time
from functools import partial
from pathlib import Path

from scripts.lib.base import language
from scripts.lib.base.console import one_line, run_cli
from scripts.lib.base.files import write_text
from scripts.lib.base.units import plural
from scripts.lib.cluster.gpus import claimed_gpus
from scripts.lib.model.gradcam import NoFeatureLayer
from scripts.lib.model.inference import build_model, choose_device, load_config, read_checkpoint, trained_on_cpu
from scripts.lib.pages.explanation_page import SAME_PROBABILITY, choose, explain, explanation_page, skipped_page
from scripts.lib.runs.predictions import read_features, read_predictions

logger = logging.getLogger(__name__)

#: What a model that captum or our search for the layer cannot treat may raise: a page that says so is no failed run.
UNEXPLAINABLE = (NoFeatureLayer, RuntimeError, TypeError, ValueError, AssertionError)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.evaluate.explain_model", description=__doc__)
    file = partial(parser.add_argument, type=Path, metavar="FILE")
    folder = partial(parser.add_argument, type=Path, metavar="DIR")
    file("--config", required=True, help="the run's config.py")
    file("--checkpoint", required=True, help="its weights, best.pth")
    folder("--images", required=True, help="the folder of the predicted files")
    file("--predictions", required=True, help="predictions.csv of the run")
    file("--features", help="features.npy of the run: adds the images nearest to confused ones")
    file("--output", required=True, help="the page, .html")
    parser.add_argument("--title", default="", metavar="TEXT", help="its heading")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the model runs (auto: as in training)"
    )
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="CPU threads of the model (2)")
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs to hold meanwhile (0: the first one)")
    language.add_option(parser)
    return parser


@language.in_its_language
def main(args: argparse.Namespace) -> None:
    """Write the page; of a model that cannot be explained, one that says why."""
    predictions = read_predictions(args.predictions)
    features = read_features(args.features, len(predictions.files)) if args.features else None
    with claimed_gpus(args.gpus, os.environ) as gpus:
        if gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[0]  # before torch looks for GPUs
        start = time.perf_counter()
        config = load_config(args.config)
        device = choose_device("cpu" if args.device == "auto" and trained_on_cpu(config) else args.device)
        weights, _ = read_checkpoint(args.checkpoint)
        model = build_model(config, weights, device, args.threads)
        choice = choose(predictions, features)
        try:
            explanations = explain(model, config.data.test.pipeline, predictions, choice.rows(), args.images, device)
        except UNEXPLAINABLE as error:
            reason = one_line(error)[:300] or type(error).__name__
            logger.debug("no explanation", exc_info=True)
            logger.warning("skipped: %s", reason)
            write_text(args.output, skipped_page(args.title, language.tr(reason)))
            return
        if explanations.difference > SAME_PROBABILITY:
            logger.warning(
                "%s was not made by these weights (by up to %.2f)", args.predictions, explanations.difference
            )
        logger.info(
            "explained %s of %s by %s in %.1f s: %s",
            *(plural(len(explanations.images), "image"), plural(len(choice.classes), "class"), explanations.layer),
            *(time.perf_counter() - start, args.output),
        )
        write_text(args.output, explanation_page(predictions, choice, explanations, args.title))


if __name__ == "__main__":
    run_cli(build_parser, main)
