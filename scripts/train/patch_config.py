"""Write a run's config.py, which plain mim trains: a base config of mmcls or a model of timm, for the user's images."""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from scripts.lib.base import long_values
from scripts.lib.base.console import run_cli
from scripts.lib.base.environment import Variable
from scripts.lib.base.files import read_json, read_lines
from scripts.lib.base.problems import UserError
from scripts.lib.base.units import plural
from scripts.lib.cluster.gpus import Gpus
from scripts.lib.data import reading
from scripts.lib.data.reading import USUAL, Reading
from scripts.lib.data.splits import Split
from scripts.lib.model import config_patches as patches
from scripts.lib.model import config_reader, fast_recipe, model_zoo, timm_models
from scripts.lib.model.fast_recipe import FAST, TUTORIAL
from scripts.lib.runs import config_file
from scripts.lib.runs.config_file import write_config
from scripts.lib.runs.few_steps import FEW_STEPS, REMEDY
from scripts.lib.runs.run_folder import RunFolder
from scripts.lib.settings.schema import Experiment

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """What the config of a run is made from, beside the base config.

    Attributes
    ----------
    experiment : the user's settings.
    classes : class names in label order.
    n_train : training images; their number gives the steps of an epoch.
    images, splits : folders, relative to the repository root.
    checkpoint : weights that training starts from (fast: those with a fitted head), or None to train from scratch.
    seed : the run's seed.
    device : ``cpu`` or ``cuda``, resolved.
    pixel_cache : folder of the pixel cache, for the fast recipe.
    train_counts : training images of each class, for ``balance``.
    reading : how the images' files become pixels.
    """

    experiment: Experiment
    classes: Sequence[str]
    n_train: int
    images: str
    splits: str
    checkpoint: str | None
    seed: int
    device: str
    pixel_cache: str | None = None
    train_counts: Sequence[int] = ()
    reading: Reading = USUAL

    @property
    def is_fast(self) -> bool:
        """Whether the recipe is fast."""
        return self.experiment.chosen_recipe() == "fast"

    @property
    def epochs(self) -> int:
        """Epochs: the user's, or those of a config file of the user's, or the recipe's."""
        if self.experiment.epochs == "auto" and not self.is_fast and config_reader.is_file(self.experiment.base_config):
            return config_reader.max_epochs(self.experiment.base_config)
        recipe = FAST if self.is_fast else TUTORIAL
        return recipe.epochs if self.experiment.epochs == "auto" else self.experiment.epochs

    @property
    def batch_size(self) -> int:
        """Images a step on each GPU: the user's, or those of a config file of the user's, or the recipe's."""
        recipe = FAST if self.is_fast else TUTORIAL
        base_config = self.experiment.base_config
        if self.experiment.batch_size == "auto" and not self.is_fast and config_reader.is_file(base_config):
            return config_reader.samples_per_gpu(base_config) or recipe.batch_size
        return recipe.batch_size if self.experiment.batch_size == "auto" else self.experiment.batch_size

    @property
    def effective_batch(self) -> int:
        """Images a step on all GPUs together."""
        return self.batch_size * self.experiment.processes


@dataclass(frozen=True)
class Schedule:
    """How long training is, and how long the base config's own is.

    Attributes
    ----------
    drop_last : the rest of an epoch that fills no batch is left out.
    iterations_of_epoch, iterations : training steps.
    """

    epochs: int
    iterations_of_epoch: int
    drop_last: bool
    base_epochs: int
    base_iterations: int

    @property
    def iterations(self) -> int:
        """Training steps in all."""
        return self.epochs * self.iterations_of_epoch

    @classmethod
    def of(cls, base: config_file.Config, inputs: Inputs) -> Schedule:
        """Return the schedule of a run."""
        batch_size = inputs.batch_size
        # Of EpochSampler: each process has as many images as the others; a few come twice if it does not divide evenly.
        per_process = math.ceil(inputs.n_train / inputs.experiment.processes)
        # Batch normalisation has no variance over one image: a rest of one is left out, another one each epoch.
        rest_of_one = per_process % batch_size == 1 and batch_size > 1
        # Of the fast recipe every batch is whole: steps of one size, and another rest is left out each epoch.
        drop_last = rest_of_one or (inputs.is_fast and per_process >= batch_size)
        steps = per_process // batch_size if drop_last else math.ceil(per_process / batch_size)
        base_epochs = base["runner"]["max_epochs"]
        base_batch = model_zoo.base_batch_size(inputs.experiment.base_config) or inputs.effective_batch
        base_iterations = base_epochs * math.ceil(patches.IMAGENET_TRAIN_IMAGES / base_batch)
        if config_reader.is_file(inputs.experiment.base_config):
            base_iterations = base_epochs * steps  # it was written for these images, not for ImageNet
        return cls(inputs.epochs, steps, drop_last, base_epochs, base_iterations)


def build_config(base: config_file.Config, inputs: Inputs) -> config_file.Config:
    """Return the complete config of one run as plain values.

    Parameters
    ----------
    base : the base config, resolved (no ``_base_`` left).

    Raises
    ------
    UserError : a batch larger than the data, an override of a key that does not exist, a base that cannot be used.
    """
    if "ipu_model_cfg" in base or base["runner"]["type"] != "EpochBasedRunner":
        raise UserError("base_config: it was made for Graphcore IPUs and counts iterations: choose another base")
    _refuse_too_large_batch(inputs)
    experiment, schedule = inputs.experiment, Schedule.of(base, inputs)
    config = {key: config_file.plain(base[key]) for key in patches.TOP_LEVEL_KEYS if key in base}
    patches.patch_model(config["model"], len(inputs.classes))
    config["data"] = _data(base, config["model"], inputs, schedule)
    config["optimizer"]["lr"] = learning_rate(experiment, config, inputs.effective_batch)
    lengths = (schedule.base_epochs, schedule.epochs, schedule.base_iterations, schedule.iterations)
    config["lr_config"] = patches.scale_schedule(config["lr_config"], *lengths)
    hooks = config.get("custom_hooks") or []
    config["custom_hooks"] = patches.scale_hooks(hooks, schedule.base_iterations, schedule.iterations)
    config |= _training(inputs, base.get("fp16"))
    if inputs.is_fast:
        size = experiment.size_seen()
        assert size is not None and inputs.pixel_cache is not None
        fast_recipe.make_fast(config, size, inputs.pixel_cache, schedule.iterations_of_epoch)
    if experiment.fit != "crop":
        patches.show_whole_images(config["data"], experiment.fit, inputs.reading)
    if experiment.balance != "none":
        patches.balance_classes(config, experiment.balance, inputs.train_counts)
    config = {key: config[key] for key in patches.TOP_LEVEL_KEYS if config.get(key) is not None or key in _KEPT_EMPTY}
    keys = list(experiment.overrides)
    for number, key in enumerate(keys):
        if lost := [earlier for earlier in keys[:number] if earlier.startswith(f"{key}.")]:
            raise UserError(
                f"overrides.{key} replaces overrides.{lost[0]}, which stands before it", "change their order"
            )
    for key, value in experiment.overrides.items():
        patches.apply_override(config, key, value, patches.class_accepts)
    patches.fill_in(config, len(inputs.classes))
    if experiment.balance == "loss" and "class_weight" not in config["model"]["head"]["loss"]:
        raise UserError(
            "overrides.model.head.loss: it takes away the weights of `balance: loss`: add class_weight to it"
        )
    return config


def _data(
    base: config_file.Config, model: config_file.Config, inputs: Inputs, schedule: Schedule
) -> config_file.Config:
    """Return the config's ``data``; where the user sets a size of image, *model* is told too."""
    train_pipeline, test_pipeline = patches.pipelines(base["data"], inputs.reading)
    image_size = inputs.experiment.size_seen()
    if image_size is not None:
        scale = image_size / patches.input_size(test_pipeline)
        patches.resize_pipeline(train_pipeline, scale)
        patches.resize_pipeline(test_pipeline, scale)
        patches.set_backbone_size(model, image_size, patches.class_accepts)
    return {
        "samples_per_gpu": inputs.batch_size,
        "workers_per_gpu": TUTORIAL.workers,
        **({"train_dataloader": {"drop_last": True}} if schedule.drop_last else {}),
        **patches.datasets(
            train_pipeline,
            test_pipeline,
            inputs.classes,
            inputs.images,
            inputs.splits,
            inputs.seed,
            shuffle_labels=inputs.experiment.shuffle_labels,
        ),
    }


def _training(inputs: Inputs, base_fp16: Any) -> config_file.Config:
    """Return the sections of the config that say how training runs, not what is trained."""
    experiment = inputs.experiment
    topk = patches.top_k(len(inputs.classes))
    return {
        "custom_imports": {"imports": ["scripts.mmcls_plugins"], "allow_failed_imports": False},
        "sampler": {"type": "EpochSampler"},
        "runner": {
            "type": "ReproducibleRunner",
            "max_epochs": inputs.epochs,
            "threads": experiment.threads,
            "deterministic": experiment.deterministic,
            "device": inputs.device,
            # Only where it is not 1, so that the configs of one process stay what they were before there was this key.
            **({"gpus": experiment.gpus} if experiment.gpus > 1 else {}),
            **({"nodes": experiment.nodes} if experiment.nodes > 1 else {}),
        },
        "fp16": mixed_precision(experiment, base_fp16, inputs.device),
        "evaluation": {"interval": 1, "metric": "accuracy", "metric_options": {"topk": topk}},
        "checkpoint_config": {"interval": 5},
        "log_config": {"interval": 10, "hooks": [{"type": "TextLoggerHook"}]},
        "load_from": inputs.checkpoint,
        "resume_from": None,
        "workflow": [("train", 1)],
        "seed": inputs.seed,
    }


#: Read by attribute in mmcls's train.py or mmcv, so they must be there even where they are None.
_KEPT_EMPTY = ("load_from", "resume_from", "optimizer_config")


def _refuse_too_large_batch(inputs: Inputs) -> None:
    if inputs.effective_batch <= inputs.n_train:
        return
    experiment = inputs.experiment
    times = "".join(
        f" times {name}: {count}"
        for name, count in (("gpus", experiment.gpus), ("nodes", experiment.nodes))
        if count > 1
    )
    most = inputs.n_train // experiment.processes
    raise UserError(
        f"batch_size: {inputs.batch_size}{times} is larger than the {inputs.n_train} training images: "
        + (f"set it to {most} or less" if most else "lower gpus" if experiment.nodes == 1 else "lower gpus or nodes")
    )


def learning_rate(experiment: Experiment, config: config_file.Config, effective_batch: int) -> float:
    """Return the learning rate: the user's, or the recipe's (tutorial: for MobileNetV2, else the base's), scaled.

    Linear scaling by the effective batch, which is that of all GPUs together: Goyal et al. 2017, "Accurate, Large
    Minibatch SGD".
    """
    if experiment.learning_rate != "auto":
        return experiment.learning_rate
    is_timm = timm_models.is_timm(experiment.base_config)
    if experiment.chosen_recipe() == "fast" and not is_timm:
        return fast_recipe.learning_rate(experiment.base_config) * effective_batch / FAST.batch_size
    is_file = config_reader.is_file(experiment.base_config)
    if config["model"]["backbone"]["type"] == "MobileNetV2" and not is_file:
        return TUTORIAL.learning_rate * effective_batch / TUTORIAL.batch_size
    base_batch = model_zoo.base_batch_size(experiment.base_config)
    assert base_batch is not None, "settings.py refuses auto where the base batch is unknown"
    return config["optimizer"]["lr"] * effective_batch / base_batch


def mixed_precision(experiment: Experiment, base_fp16: Any, device: str) -> dict[str, Any] | None:
    """Return mmcls's ``fp16`` section: on a GPU the base's (tutorial) or a dynamic loss scale, none on a CPU.

    Raises
    ------
    UserError : amp is asked for on a CPU.
    """
    if device == "cpu":
        if experiment.amp is True:
            raise UserError("amp: true needs a GPU, but this run is on the CPU: set amp: auto, or run it on a GPU")
        return None
    if experiment.amp == "auto" and experiment.chosen_recipe() == "tutorial":
        return config_file.plain(base_fp16) if base_fp16 else None
    return {"loss_scale": "dynamic"} if experiment.amp else None


def training_command(config_file: Path, seed: int, device: str, deterministic: bool, processes: int = 1) -> str:
    """Return the command that trains a config by hand, from the repository root, into a work_dir of its own.

    Several processes are not started by mim: its ``--launcher pytorch`` works with torch 1 only.
    """
    words = ["mim", "train", "mmcls", str(config_file), "--gpus", "0" if device == "cpu" else "1"]
    if processes > 1:
        words = ["python", "-m", "scripts.train_distributed", str(config_file)]
    words += ["--work-dir", str(config_file.parent / "by_hand"), "--seed", str(seed)]
    return shlex.join(words + (["--deterministic"] if deterministic else []))


def resolve_device(device: str) -> str:
    """Return ``cpu`` or ``cuda``: the one thing that is read off the machine, and then stands in config.py.

    Raises
    ------
    UserError : there is a GPU that torch cannot use; training on the CPU instead would waste hours unnoticed.
    """
    if device == "cpu":
        return device
    import torch  # late: it takes seconds, and --help should not

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda" or Gpus.of(os.environ):
        raise UserError(
            f"device: {device}: torch {torch.__version__} cannot use this machine's GPU: `make doctor` says why;"
            " to train on the CPU all the same, set device: cpu"
        )
    return "cpu"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command."""
    parser = argparse.ArgumentParser(prog="python -m scripts.train.patch_config", description=__doc__)
    parser.add_argument("--experiment", required=True, metavar="JSON", help="the experiment's section of the settings")
    parser.add_argument("--name", default="", help="the experiment's name, for messages")
    parser.add_argument("--seed", type=int, required=True, help="the run's seed")
    parser.add_argument("--classes", type=Path, required=True, help="classes.txt")
    parser.add_argument("--splits", type=Path, required=True, help="folder of train.txt, val.txt and test.txt")
    parser.add_argument("--images", type=Path, required=True, help="folder of the images")
    parser.add_argument("--checkpoint", type=Path, help="weights to start from; without it, training starts at random")
    parser.add_argument(
        "--pixel-cache",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="what pack_images made (recipe: fast); of several, the one of the size that is chosen is taken",
    )
    parser.add_argument("--choice", type=Path, metavar="FILE", help="of base_config: auto: which candidate it is")
    reading.add_options(parser)
    parser.add_argument("--output", type=Path, required=True, help="config.py to write")
    return parser


def main(args: argparse.Namespace) -> None:
    """Patch the base config; a mistake in the settings is told with its file and key."""
    try:
        experiment = chosen(Experiment.model_validate(json.loads(long_values.take(args.experiment))), args.choice)
        start = args.output.with_name(RunFolder.init.name) if experiment.chosen_recipe() == "fast" else args.checkpoint
        write(args.output, gather(args, experiment, start))
    except UserError as error:
        # The settings' file comes by the environment: as a parameter of the rule, a renamed file would train anew.
        key = f"{os.environ.get(Variable.CONFIG_FILES, '')}: experiments.{args.name}." if args.name else ""
        raise UserError(f"{key.removeprefix(': ')}{error}") from error


def gather(args: argparse.Namespace, experiment: Experiment, start: Path | None) -> Inputs:
    """Return what a config is made from, by the options of a command: of several pixel caches that of its size.

    Parameters
    ----------
    start : weights that training starts from; None: from scratch.
    """
    short_side = str(experiment.cached_short_side())
    caches = [path for path in args.pixel_cache if len(args.pixel_cache) == 1 or path.name == short_side]
    classes, train = read_lines(args.classes), Split.read(args.splits / "train.txt")
    images_of = train.counts()
    return Inputs(
        experiment,
        classes=classes,
        n_train=len(train.images),
        images=str(args.images),
        splits=str(args.splits),
        checkpoint=str(start) if start else None,
        seed=args.seed,
        device=resolve_device(experiment.device),
        pixel_cache=str(caches[0]) if caches else None,
        train_counts=[images_of[label] for label in range(len(classes))],
        reading=reading.of_options(args),
    )


def chosen(experiment: Experiment, choice: Path | None) -> Experiment:
    """Return what an experiment trains: of `base_config: auto` the chosen candidate, else itself."""
    return experiment.candidate_experiments()[read_json(choice)["chosen"]] if choice else experiment


def write(output: Path, inputs: Inputs) -> None:
    """Write the config of a run."""
    from scripts.lib.model import base_configs, dry_step, dry_training  # late: it takes seconds, and --help should not

    experiment = inputs.experiment
    base = base_configs.load(experiment.base_config, pretrained=inputs.checkpoint is not None)
    config = build_config(base, inputs)
    patches.check_weights(config, inputs.checkpoint)
    dry_step.import_modules(config)
    rebuild, schedule = partial(_rebuilt, base, inputs), Schedule.of(base, inputs)
    dry_training.check(config, schedule.iterations_of_epoch, rebuild, experiment.overrides)
    dry_step.check(config, smallest_batch(config, inputs), rebuild, experiment.overrides)
    steps = schedule.iterations
    if steps < FEW_STEPS and not inputs.is_fast:
        logger.warning("training takes %s in all, too few to mean much: %s", plural(steps, "step"), REMEDY)
    command = training_command(output, inputs.seed, inputs.device, experiment.deterministic, experiment.processes)
    write_config(output, config, command, experiment.base_config)
    logger.info("%s: %s on %s", output, experiment.base_config, inputs.device)


def smallest_batch(config: config_file.Config, inputs: Inputs) -> int:
    """Return the images of the smallest batch of an epoch, on one GPU."""
    batch = int(config["data"]["samples_per_gpu"])
    rest = math.ceil(inputs.n_train / inputs.experiment.processes) % batch
    return rest if rest and not config["data"].get("train_dataloader", {}).get("drop_last") else batch


def _rebuilt(base: config_file.Config, inputs: Inputs, **values: Any) -> config_file.Config:
    experiment = inputs.experiment.model_copy(update=values)
    return build_config(copy.deepcopy(base), replace(inputs, experiment=experiment))


if __name__ == "__main__":
    run_cli(build_parser, main)
