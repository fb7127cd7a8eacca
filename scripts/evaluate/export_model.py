"""Export a trained model to ONNX, prove on the test split that it predicts what the checkpoint did, and time both."""

from __future__ import annotations

import argparse
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scripts.lib.base import language
from scripts.lib.base.console import run_cli
from scripts.lib.base.files import atomic_path, read_lines, sha256_of, write_json, write_text
from scripts.lib.base.problems import UserError
from scripts.lib.model import onnx_parity
from scripts.lib.model.inference import build_model, load_config, read_checkpoint
from scripts.lib.model.onnx_export import OPSET, Classifier, describe_pipeline, export, finish, moved_inside
from scripts.lib.pages import templates
from scripts.lib.runs.certainty import certainty_text, read_certainty, read_known
from scripts.lib.runs.machine import describe_machine
from scripts.lib.runs.onnx_example import example
from scripts.lib.runs.onnx_model import CERTAINTY, OnnxModel
from scripts.lib.runs.predictions import Predictions, read_predictions

logger = logging.getLogger(__name__)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.evaluate.export_model", description=__doc__)
    file = partial(parser.add_argument, type=Path, metavar="FILE")
    folder = partial(parser.add_argument, type=Path, metavar="DIR")
    file("--config", required=True, help="the run's config.py")
    file("--checkpoint", required=True, help="its weights, best.pth")
    folder("--images", required=True, help="the folder that the split refers to")
    file("--split", required=True, help="annotation file: `path label` lines")
    file("--classes", required=True, help="one class a line, in label order")
    file("--predictions", required=True, help="predictions.csv of the checkpoint")
    file("--known", help="known.npy of the run: the model then tells how far an image is from training, too")
    file("--certainty", help="certainty.json of the run, with --known: when to rely on it")
    file("--output", required=True, help="model.onnx")
    file("--report", required=True, help="export.json: what was compared and timed")
    file("--example", help="onnx_example.py: a program that uses the model")
    file("--html", help="the same as a page, and how to use the model")
    parser.add_argument(
        "--preprocessing", action="store_true", help="put the normalisation into the model: it then takes bytes"
    )
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="CPU threads of both engines (2)")
    language.add_option(parser)
    return parser


@language.in_its_language
def main(args: argparse.Namespace) -> None:
    if (args.known is None) != (args.certainty is None):
        raise UserError("--known and --certainty belong together: give both, or none")
    config = load_config(args.config)
    name = f"{args.config}: {config.model.backbone.type}"
    classes, reference = read_lines(args.classes), read_predictions(args.predictions)
    check_reference(reference, args.predictions, args.classes, args.split)
    described = describe_pipeline(config.data.test.pipeline)
    preprocessing = moved_inside(described) if args.preprocessing else described
    weights, _ = read_checkpoint(args.checkpoint)
    built = build_model(config, weights, "cpu", args.threads)
    certainty, known = read_certainty(args.certainty) if args.certainty else None, args.known and read_known(args.known)
    classifier = Classifier(built, described, args.preprocessing, known, len(classes)).eval()
    paths = [args.images / file for file in reference.files]
    few = onnx_parity.prepared(preprocessing, paths[: onnx_parity.BATCH_SIZE])
    height, width = few.shape[1:3] if args.preprocessing else few.shape[2:]
    metadata = {
        "class_names": json.dumps(classes, ensure_ascii=False),
        "image_size": json.dumps({"height": height, "width": width}),
        "checkpoint_sha256": sha256_of(args.checkpoint),
        **preprocessing.metadata(),
        **({CERTAINTY: certainty_text(certainty)} if certainty else {}),
    }

    def predict(images: np.ndarray) -> np.ndarray:
        return onnx_parity.answer_of(classifier, images)[0]

    with torch.no_grad(), atomic_path(args.output) as temporary:
        export(classifier, np.resize(few, (2, *few.shape[1:])), temporary, name)
        finish(temporary, metadata, name)
        model = OnnxModel(temporary, args.threads)
        onnx_parity.check_batches(model, few, name)
        onnx_parity.check_distances(model, classifier, few, name)
        probabilities = onnx_parity.predictions_of(model, paths)
        parity = onnx_parity.compare(probabilities, reference)
        if not parity.holds:
            worst = paths[parity.worst]
            here = predict(onnx_parity.prepared(preprocessing, [worst]))[0]
            raise onnx_parity.explain_difference(parity, str(worst), probabilities[parity.worst], here, name)
        speed = onnx_parity.measure({"torch": predict, "onnxruntime": model.predict}, few)
    report = describe_export(args.output, model, parity, speed)
    write_json(args.report, report)
    program = example(preprocessing, certainty)
    if args.example:
        write_text(args.example, program)
    if args.html:
        write_text(args.html, export_page(report, program))
    logger.info(
        "%s: opset %d, %.1f MB; %d of %d predictions are the checkpoint's, no probability is more than %.1e away",
        *(args.output, OPSET, report["model"]["bytes"] / 1e6, parity.same, parity.images, parity.largest),
    )
    times = ", ".join(f"{engine} {speeds['milliseconds_single']:.1f} ms" for engine, speeds in speed.items())
    logger.info("one image on %d CPU threads: %s", args.threads, times)


def check_reference(reference: Predictions, file: Path, classes: Path, split: Path) -> None:
    """Raise UserError unless the predictions of *file* are of these classes and images."""
    if reference.classes != read_lines(classes):
        raise UserError(f"{file}: its classes are not those of {classes}; make it again")
    if reference.files != [line.rpartition(" ")[0] for line in read_lines(split)]:
        raise UserError(f"{file}: its images are not those of {split}; make it again")


def describe_export(
    path: Path, model: OnnxModel, parity: onnx_parity.Parity, speed: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what goes into export.json; *speed* as :func:`onnx_parity.measure` returns it."""
    return {
        "model": {
            "file": path.name,
            "bytes": path.stat().st_size,
            "sha256": sha256_of(path),
            "opset": OPSET,
            "input": describe_tensor(model.session.get_inputs()[0]),
            "output": ", ".join(map(describe_tensor, model.session.get_outputs())),
            "certainty": model.certainty.as_json() if model.certainty else None,
            "preprocessing": asdict(model.preprocessing),
        },
        "parity": {"images": parity.images, "same_prediction": parity.same, "largest_difference": parity.largest},
        "speed": {
            "cpu": describe_machine()["cpu"],
            "threads": torch.get_num_threads(),
            "batch_size": onnx_parity.BATCH_SIZE,
            "engines": {engine: {"version": version(engine), **speeds} for engine, speeds in speed.items()},
        },
    }


def export_page(record: Mapping[str, Any], program: str) -> str:
    """Return export.json as a page, and how to use the model; *program* is the text of onnx_example.py."""
    preprocessing = record["model"]["preprocessing"]
    steps = [
        (step["step"], ", ".join(f"{key} {value}" for key, value in step.items() if key != "step"))
        for step in preprocessing["steps"]
    ]
    normalisation = [
        (key.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list) else value)
        for key, value in preprocessing.items()
        if key != "steps"
    ]
    return templates.page(
        "export.html", language.tr("Exported model"), **record, preprocessing=[*steps, *normalisation], program=program
    )


def describe_tensor(tensor: Any) -> str:
    """Return onnxruntime's description of an input or output, as ``images: float of shape (batch, 3, 160, 160)``."""
    kind = re.sub(r"tensor\((\w+)\)", r"\1", tensor.type)
    return f"{tensor.name}: {kind} of shape ({', '.join(map(str, tensor.shape))})"


if __name__ == "__main__":
    run_cli(build_parser, main)
