"""What training is made of beside the network, built once on the CPU: data, optimizer, schedules, hooks, evaluation.

Each is built as mim's ``train.py`` does it and used once, on a few small images of noise, so that a value which the
trainer would stop at, or which only the end of the first epoch would, is refused when config.py is written.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import logging
import os
import random
import re
import tempfile
import traceback
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from mmcls.datasets import build_dataloader, build_dataset
from mmcls.models import build_classifier
from mmcv.runner import EpochBasedRunner, EvalHook, Fp16OptimizerHook, TensorboardLoggerHook, build_optimizer
from PIL import Image
from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import nn

from scripts.lib.base.console import one_line
from scripts.lib.base.environment import Variable
from scripts.lib.base.problems import UserError
from scripts.lib.model.dry_step import ENOUGH, FAILURES, WORDS, OnMeta, guilty_of, size_error
from scripts.lib.runs.config_file import Config, nodes
from scripts.mmcls_plugins.dataset import EpochSampler
from scripts.mmcls_plugins.runner import ReproducibleRunner

#: Text that reads as a number.
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
SPLITS = ("train", "val", "test")
#: Width and height of the images of noise, of a side that no step of a pipeline exceeds: the images of a batch have to
#: be made one size.
SHAPES = ((1.5, 1.0), (1.0, 1.5), (1.0, 1.0), (1.2, 1.1))
#: What is raised beside dry_step's own.
MORE_FAILURES = (ImportError, OSError, SystemExit, cv2.error)
#: Keys of ``data`` that are no arguments of its loaders.
_NO_ARGUMENTS = (*SPLITS, *(f"{split}_dataloader" for split in SPLITS))
_STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True)


@dataclass(frozen=True)
class Failure:
    """What would end a training: the section of the config, as a dotted key, and what was raised."""

    section: str
    reason: str


class _Refused(ValueError):
    """A value that nothing raises at when it is built, in words of our own."""


def check(config: Config, steps: int, rebuild: Callable[..., Config], overrides: Mapping[str, Any]) -> None:
    """Make sure that all that training is made of can be built and used.

    Parameters
    ----------
    steps : of an epoch.
    rebuild : makes the config with other values of the experiment's keys, which are given by name.
    overrides : the experiment's, of which those are named that are at fault.

    Raises
    ------
    UserError : it cannot.
    """
    failure = failure_of(config, steps)
    if failure is None:
        return
    reason = f"({failure.reason[:WORDS]})"
    keys = guilty_of(overrides, rebuild, lambda other: failure_of(other, steps) is None)
    if not keys:
        if failure_of(rebuild(image_size="auto"), steps) is None:
            raise size_error(config, ENOUGH, rebuild, reason)
        raise UserError(f"base_config: its {failure.section} cannot be used {reason}", "choose another")
    values = [value for key, value in overrides.items() if f"overrides.{key}" in keys.split(" and ")]
    numbers = [text for text in _texts(values) if NUMBER.fullmatch(text)]
    remedy = f"write {numbers[0]} without quotes" if numbers else "correct it"
    raise UserError(f"{keys}: training could not use it {reason}", remedy)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from _texts(item)


def failure_of(config: Config, steps: int) -> Failure | None:
    """Return what would end a training with *config* beside its network, or None; nothing is left behind.

    Parameters
    ----------
    steps : of an epoch.
    """
    states = torch.random.get_rng_state(), np.random.get_state(), random.getstate()
    threads = torch.get_num_threads()
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for section, use in _uses(copy.deepcopy(config), steps, Path(folder)):
                try:
                    use()
                except (*FAILURES, *MORE_FAILURES) as error:
                    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                        raise  # of the folder for temporary files
                    return Failure(section, _reason(error))
    finally:
        logging.disable(level)
        torch.set_num_threads(threads)
        torch.random.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
    return None


def _reason(error: BaseException) -> str:
    """Return the words of an error, and where an assertion has none, what it asserts."""
    text = one_line(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if isinstance(error, AssertionError) and (not text or text.endswith(":")):
        origin: BaseException = error
        while origin.__context__ is not None:  # mmcv's registries raise anew, with the class before the words
            origin = origin.__context__
        text = f"{text} {traceback.extract_tb(origin.__traceback__)[-1].line}".strip()
    return text or type(error).__name__


def _uses(config: Config, steps: int, folder: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield each section with what builds and uses it, some of which takes what those before it have made."""
    made: dict[str, Any] = {}
    files = _write_images(folder, _largest(config["data"]))
    for split in SPLITS:
        yield f"data.{split}", partial(_use_data, config, split, folder, files, made)
    yield "data", partial(_build_loaders, config, made)
    yield "sampler", partial(_use_sampler, config, made)
    yield "evaluation", partial(_evaluate, config, made)
    yield "model", partial(_build_network, config, made)
    yield "optimizer", partial(_build_optimizer, config, made)
    yield "runner", partial(_build_runner, config, steps, folder, made)
    yield "lr_config", lambda: _use_schedule(made["runner"].register_lr_hook, config.get("lr_config"), made["runner"])
    yield (
        "momentum_config",
        lambda: _use_schedule(made["runner"].register_momentum_hook, config.get("momentum_config"), made["runner"]),
    )
    yield "fp16", partial(_build_scaler, config)
    yield "optimizer_config", partial(_clip, config, made)
    yield "checkpoint_config", lambda: made["runner"].register_checkpoint_hook(config.get("checkpoint_config"))
    yield "log_config", partial(_build_loggers, config, made)
    yield "custom_hooks", lambda: made["runner"].register_custom_hooks(config.get("custom_hooks"))
    yield "workflow", partial(_check_workflow, config)
    yield "log_level", lambda: logging.Logger("level").setLevel(config.get("log_level", "INFO"))


def _largest(data: Config) -> int:
    """Return the largest size in pixels that a step of a pipeline names."""
    values = [step[key] for step in nodes(data) for key in ("size", "crop_size") if key in step]
    numbers = [number for value in values for number in (value if isinstance(value, list | tuple) else (value,))]
    return max([64, *(number for number in numbers if isinstance(number, int) and number <= 2048)])


def _write_images(folder: Path, pixels: int) -> list[Path]:
    noise = np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(len(SHAPES))]
    for path, (wide, high) in zip(paths, SHAPES, strict=True):
        noise_pixels = noise.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(noise_pixels).resize((round(wide * pixels), round(high * pixels))).save(path, compress_level=1)
    return paths


def _use_data(config: Config, split: str, folder: Path, files: list[Path], made: dict[str, Any]) -> None:
    """Build the data set of a split on the images of noise, and a batch of it, as the trainer's loader makes it."""
    section = copy.deepcopy(config["data"][split])
    lines = folder / f"{split}.txt"
    lines.write_text("".join(f"{path.name} {number % 2}\n" for number, path in enumerate(files)), encoding="utf-8")
    for node in nodes(section):
        if "ann_file" in node or "data_prefix" in node:
            node |= {"ann_file": str(lines), "data_prefix": str(folder)}
        if node.get("type") == "LoadPackedImage":
            node.pop("folder", None)
            node["type"] = "LoadImage"
    with _without_images_of_jobs():
        dataset = build_dataset(section)
        samples = [dataset[number] for number in range(len(files))]
    for key in ("img", "gt_label") if split == "train" else ("img",):
        if any(not torch.is_tensor(sample.get(key)) for sample in samples):
            raise _Refused(f"its pipeline hands on no tensor {key}: ImageToTensor, ToTensor and Collect end one")
    shapes = {" x ".join(map(str, sample["img"].shape)): sample["img"] for sample in samples}
    if len(shapes) > 1:
        raise _Refused(f"its pipeline gives images of different sizes: {' and '.join(sorted(shapes))}")
    if not all(sample["img"].isfinite().all() for sample in samples):
        raise _Refused("its pipeline gives pixels that are no finite numbers: see std of its Normalize")
    # mim's own test.py reads the test split, without our runner.
    comes_as_bytes = split != "test" and bool(config["runner"].get("normalize"))
    if samples[0]["img"].is_floating_point() == comes_as_bytes:
        raise _Refused("its pipeline has to give images that are normalised once: see Normalize and runner.normalize")
    made[split] = dataset


@contextlib.contextmanager
def _without_images_of_jobs() -> Iterator[None]:
    """Have data sets read where their config says: a job's fast copy has none of the images of noise."""
    kept = os.environ.pop(Variable.IMAGES, None)
    try:
        yield
    finally:
        if kept is not None:
            os.environ[Variable.IMAGES] = kept


def _loader_options(config: Config, split: str) -> Config:
    """Return the arguments of a loader, as mmcls's ``train_model`` puts them together."""
    shared = {key: value for key, value in config["data"].items() if key not in _NO_ARGUMENTS}
    usual = {"num_gpus": 1, "dist": False, "round_up": True, "seed": config.get("seed")}
    mine = {} if split == "train" else {"shuffle": False, "sampler_cfg": None, "drop_last": False}
    sampler = {"sampler_cfg": copy.deepcopy(config.get("sampler"))}
    return {**usual, **sampler, **shared, **mine, **config["data"].get(f"{split}_dataloader", {})}


def _build_loaders(config: Config, made: dict[str, Any]) -> None:
    for key in ("samples_per_gpu", "workers_per_gpu"):
        _check_type(key, config["data"].get(key), int)
    for split in ("val", "test"):
        made[f"{split} loader"] = build_dataloader(made[split], **_loader_options(config, split))
    options = {**_loader_options(config, "train"), "sampler_cfg": None}
    build_dataloader(made["train"], **options)


def _use_sampler(config: Config, made: dict[str, Any]) -> None:
    loader = build_dataloader(made["train"], **_loader_options(config, "train"))
    if not isinstance(loader.sampler, EpochSampler):
        raise _Refused("ReproducibleRunner needs a sampler of type EpochSampler")
    next(iter(loader.sampler))


def _evaluate(config: Config, made: dict[str, Any]) -> None:
    hook = EvalHook(made["val loader"], **{**config.get("evaluation", {}), "by_epoch": True})
    classes = len(config["data"]["val"].get("classes") or made["val"].CLASSES)
    probabilities = [np.full(classes, 1 / classes, np.float32) for _ in range(len(made["val"]))]
    metrics = made["val"].evaluate(probabilities, logger=None, **hook.eval_kwargs)
    for value in metrics.values():
        float(value)


def _build_network(config: Config, made: dict[str, Any]) -> None:
    try:
        with OnMeta():
            made["network"] = build_classifier(copy.deepcopy(config["model"])).to("meta")
    except FAILURES as error:
        if "meta" not in str(error):
            raise
        made["network"] = build_classifier(copy.deepcopy(config["model"])).to("meta")


def _build_optimizer(config: Config, made: dict[str, Any]) -> None:
    made["optimizer"] = build_optimizer(made["network"], copy.deepcopy(config["optimizer"]))
    for group in made["optimizer"].param_groups:
        _check_type("lr", group["lr"], float)


def _build_runner(config: Config, steps: int, folder: Path, made: dict[str, Any]) -> None:
    options = copy.deepcopy(config["runner"])
    name = options.pop("type", None)
    if name != "ReproducibleRunner":
        raise _Refused(f"type: {name!r}: a run of mimflow is trained by ReproducibleRunner")
    hints = {"max_epochs": int, "keep_states": int, "balanced_validation": bool}
    hints |= typing.get_type_hints(ReproducibleRunner.__init__)
    for key, value in options.items():
        _check_type(key, value, hints.get(key, Any))
    # Here: without several processes, and without settings of the whole process.
    usual = {"device": "meta", "deterministic": False, "gpus": 1, "nodes": 1}
    quiet = logging.getLogger("mimflow.dry_training")
    made["runner"] = runner = ReproducibleRunner(
        **{**options, **usual},
        model=made["network"],
        optimizer=made["optimizer"],
        work_dir=str(folder / "work"),
        logger=quiet,
    )
    runner.data_loader = cast(Any, range(steps))  # of a loader, schedules ask the length
    runner.mode = "train"
    runner._max_iters = runner._max_epochs * steps


def _use_schedule(register: Callable[[Any], None], section: Any, runner: EpochBasedRunner) -> None:
    """Register a hook that changes the learning rate or the momentum, and ask it for the first and the last step."""
    known = list(runner.hooks)
    register(section)
    for hook in [hook for hook in runner.hooks if hook not in known]:
        hook.before_run(runner)
        last = (max(0, runner._max_epochs - 1), max(0, runner._max_iters - 1))
        for runner._epoch, runner._iter in ((0, 0), last):
            hook.before_train_epoch(runner)
            hook.before_train_iter(runner)
    runner._epoch = runner._iter = 0


def _build_scaler(config: Config) -> None:
    if (section := config.get("fp16")) is None:
        return
    scale = section["loss_scale"]
    if scale != "dynamic" and not isinstance(scale, int | float | dict):
        raise _Refused(f"loss_scale: {scale!r} is neither a number nor dynamic")
    Fp16OptimizerHook(loss_scale=scale)


def _clip(config: Config, made: dict[str, Any]) -> None:
    """Register the hook that takes a step, and have it clip the gradient of one number."""
    section = copy.deepcopy(config["optimizer_config"])
    known = list(made["runner"].hooks)
    made["runner"].register_optimizer_hook(section)
    number = nn.Parameter(torch.ones(1))
    number.grad = torch.ones(1)
    for hook in [hook for hook in made["runner"].hooks if hook not in known]:
        if getattr(hook, "grad_clip", None) is not None:
            hook.clip_grads([number])


def _build_loggers(config: Config, made: dict[str, Any]) -> None:
    known = list(made["runner"].hooks)
    made["runner"].register_logger_hooks(config.get("log_config"))
    for hook in [hook for hook in made["runner"].hooks if hook not in known]:
        _check_type("interval", hook.interval, int)
        if isinstance(hook, TensorboardLoggerHook):
            from torch.utils.tensorboard import SummaryWriter  # noqa: F401  (as the hook does when training begins)


def _check_workflow(config: Config) -> None:
    for mode, epochs in config.get("workflow", [("train", 1)]):
        if (mode, epochs) != ("train", 1):
            raise _Refused("only [('train', 1)] is trained: evaluation has a section of its own")


def _check_type(key: str, value: Any, wanted: Any) -> None:
    try:
        TypeAdapter(wanted, config=_STRICT).validate_python(value)
    except ValidationError as error:
        raise _Refused(f"{key}: {value!r}: {error.errors()[0]['msg'].lower()}") from error
