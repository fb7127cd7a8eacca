"""Changes that turn a base config for ImageNet into one for the user's images: pure functions on plain dicts."""

from __future__ import annotations

import difflib
import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.lib.base.problems import UserError
from scripts.lib.data.reading import USUAL, Reading
from scripts.lib.runs.config_file import Config, nodes, plain

#: Images in ImageNet-1k's train split (Russakovsky et al., 2015): base schedules that count iterations count these.
IMAGENET_TRAIN_IMAGES = 1_281_167
#: Sizes of images that base configs read from pickled data sets rather than from files.
PICKLED_IMAGE_SIZE = {"CIFAR10": 32, "CIFAR100": 32, "MNIST": 28, "FashionMNIST": 28}
#: Steps that read an image's file: ours, and mmcls's, which decodes otherwise in some environments.
LOADERS = ("LoadImage", "LoadImageFromFile")
#: Arguments of the loaders that mmcls makes, which a config need not have.
LOADER_KEYS = (
    "persistent_workers", "pin_memory", "prefetch_factor", "timeout", "train_dataloader", "val_dataloader",
    "test_dataloader",
)  # fmt: skip
#: What mmcls takes as a tuple only, which YAML does not have: sizes and ranges of pipelines, k of top-k, thresholds.
TUPLES = ("size", "crop_size", "scale", "ratio", "img_scale", "topk", "thrs", "betas")
#: Keys that name a file of weights.
WEIGHTS_KEYS = ("load_from", "resume_from", "pretrained", "checkpoint")
#: What mmcls's train.py, mmcv's runner and mim's test read; all else in a base config is an intermediate variable.
TOP_LEVEL_KEYS = (
    "custom_imports", "model", "data", "sampler", "optimizer", "optimizer_config", "lr_config", "momentum_config",
    "runner", "fp16", "evaluation", "checkpoint_config", "log_config", "custom_hooks", "load_from", "resume_from",
    "workflow", "dist_params", "find_unused_parameters", "opencv_num_threads", "mp_start_method", "log_level",
    "seed",
)  # fmt: skip


def top_k(num_classes: int) -> tuple[int, ...]:
    """Return the k for which top-k accuracy is defined: mmcls fails on a k above the number of classes."""
    return (1, 5) if num_classes >= 5 else (1,)


def patch_model(model: Config, num_classes: int) -> None:
    """Set the number of classes wherever it stands, and drop what would be downloaded during training.

    It stands not only in heads: VGG and LeNet have it in the backbone, mixup and cutmix in ``train_cfg.augments``,
    some losses have it too.

    Raises
    ------
    UserError : no part of the model knows a number of classes.
    """
    counting = [node for node in nodes(model) if "num_classes" in node]
    if not counting:
        raise UserError(f"base_config: no part of its model ({model.get('type')}) takes num_classes: choose another")
    for node in counting:
        node["num_classes"] = num_classes
    for node in nodes(model):
        if _is_pretrained(node.get("init_cfg")):
            del node["init_cfg"]  # the network belongs to fetch_checkpoint; `load_from` brings the weights
    if isinstance(model.get("pretrained"), str):
        model["pretrained"] = None
    if model["head"]["type"] == "MultiLabelLinearClsHead":  # of mixup and cutmix; for labels that exclude each other
        model["head"]["type"] = "LinearClsHead"  # the same layer and loss, and softmax in the place of sigmoid
    model["head"]["topk"] = top_k(num_classes)


def _is_pretrained(init_cfg: Any) -> bool:
    items = init_cfg if isinstance(init_cfg, list | tuple) else [init_cfg]
    return any(isinstance(item, Mapping) and item.get("type") == "Pretrained" for item in items)


def pipelines(data: Config, reading: Reading = USUAL) -> tuple[list[Config], list[Config]]:
    """Return (train, test) pipelines of a base config, able to start from image files, which ``LoadImage`` reads.

    CIFAR's and MNIST's start from arrays that a pickle holds: loading, and their fixed size, are put in front.
    """
    train, test = unwrapped(data["train"]), unwrapped(data["test"])
    size = PICKLED_IMAGE_SIZE.get(train["type"])
    result = []
    for steps in (plain(train["pipeline"]), plain(test["pipeline"])):
        load = load_step(reading)
        if steps[0]["type"] in LOADERS:
            load |= {"color_type": steps[0]["color_type"]} if "color_type" in steps[0] else {}
            steps = [load, *steps[1:]]
        else:
            if any(step["type"] == "Normalize" and len(step["mean"]) == 1 for step in steps):
                load["color_type"] = "grayscale"
                for step in steps:
                    if step["type"] == "Normalize":
                        step["to_rgb"] = False  # OpenCV cannot swap the channels of an image that has one
            steps = [load, *([{"type": "Resize", "size": size}] if size else []), *steps]
        result.append(steps)
    return result[0], result[1]


def load_step(reading: Reading = USUAL) -> Config:
    """Return the step that reads an image's file."""
    return {"type": "LoadImage", **reading.as_arguments()}


def unwrapped(dataset: Config) -> Config:
    """Return the data set inside of others that repeat or balance it."""
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    return dataset


def input_size(test_pipeline: Sequence[Config]) -> int:
    """Return the pixels a side that the network sees: what the last step of the test pipeline that sets it says."""
    sizes = [step[key] for step in test_pipeline for key in ("size", "crop_size") if key in step]
    if not sizes:
        raise UserError("base_config: its test pipeline sets no image size: choose another base, or use overrides")
    last = sizes[-1]
    return int(last if isinstance(last, int) else last[0])


def resize_pipeline(steps: Sequence[Config], scale: float) -> None:
    """Scale every size in a pipeline, so that e.g. (256, -1) then 224 becomes (146, -1) then 128."""
    for step in steps:
        for key in ("size", "crop_size"):
            if key in step:
                value = step[key]
                step[key] = _scaled(value, scale) if isinstance(value, int) else tuple(_scaled(v, scale) for v in value)


def _scaled(value: int, scale: float) -> int:
    return value if value < 0 else max(1, round(value * scale))


def show_whole_images(data: Config, fit: str, reading: Reading) -> None:
    """Have all of an image reach the network, in place, for `fit: pad` and `fit: squash`.

    For val and test, all of the image becomes what the last step that sets a size made of a part of it. For training,
    crops are taken from all of it, at up to twice the size that the network sees: an image may be elongated at will.
    """
    size = input_size(data["test"]["pipeline"])
    step: Config = {"type": "MakeSquare", "fit": fit}
    background = {key: value for key, value in reading.as_arguments().items() if key == "background"}
    data["train"]["pipeline"].insert(1, {**step, "most": 2 * size, **background})
    for split in ("val", "test"):
        steps = data[split]["pipeline"]
        last = max(number for number, other in enumerate(steps) if other["type"] in ("CenterCrop", "Resize"))
        filters = {key: steps[last][key] for key in ("interpolation",) if key in steps[last]}
        steps[last] = {**step, "size": size, **filters, **background}


def set_backbone_size(model: Config, image_size: int, accepts: Callable[[Config, str], bool]) -> None:
    """Tell a backbone whose layers depend on it (ViT, Swin, Mixer, ...) the new image size."""
    is_timm = model["backbone"]["type"] == "TimmFeatures"  # of which only those that need it have it
    if "img_size" in model["backbone"] or (accepts(model["backbone"], "img_size") and not is_timm):
        model["backbone"]["img_size"] = image_size
    if accepts(model["backbone"], "pad_small_map"):
        model["backbone"]["pad_small_map"] = True  # Swin refuses maps smaller than its windows otherwise


def datasets(
    train_pipeline: Sequence[Config],
    test_pipeline: Sequence[Config],
    classes: Sequence[str],
    images: str,
    splits: str,
    seed: int,
    shuffle_labels: bool = False,
) -> dict[str, Config]:
    """Return the train, val and test data sets: one class order and one image folder for all three.

    Parameters
    ----------
    shuffle_labels : of train and val, for a control: choosing the best epoch on val is learning from its labels too.
        Only then is the key there: other configs stay as they are.
    """

    def dataset(split: str, pipeline: Sequence[Config]) -> Config:
        return {
            "type": "SeededCustomDataset",
            "data_prefix": images,
            "ann_file": f"{splits}/{split}.txt",
            "classes": list(classes),
            "seed": seed,
            "pipeline": plain(list(pipeline)),
        }

    control = {"shuffle_labels": True} if shuffle_labels else {}
    return {
        "train": {**dataset("train", train_pipeline), **control},
        "val": {**dataset("val", test_pipeline), "test_mode": True, **control},
        "test": {**dataset("test", test_pipeline), "test_mode": True},
    }


def balance_classes(config: Config, balance: str, train_counts: Sequence[int]) -> None:
    """Have all classes count the same, in place: in training by *balance*, and where val chooses the best epoch.

    Parameters
    ----------
    balance : ``sampler`` or ``loss``.
    train_counts : training images of each class.

    Raises
    ------
    UserError : the base's loss has no place for weights.
    """
    config["runner"]["balanced_validation"] = True
    if balance == "sampler":
        config["sampler"]["balanced"] = True
        return
    head = config["model"]["head"]
    loss = head.setdefault("loss", {"type": "CrossEntropyLoss", "loss_weight": 1.0})  # as mmcls's heads have it
    # A sigmoid's loss asks of every class whether it is there, so weights of classes would leave them as unequal.
    if loss["type"] not in ("CrossEntropyLoss", "LabelSmoothLoss") or loss.get("use_sigmoid"):
        sigmoid = " with use_sigmoid" if loss.get("use_sigmoid") else ""
        raise UserError(
            f"balance: loss: the loss of this base_config ({loss['type']}{sigmoid}) cannot weigh images by their class:"
            " set balance: sampler"
        )
    if loss["type"] == "LabelSmoothLoss":
        loss["type"] = "WeightedLabelSmoothLoss"
    loss["class_weight"] = class_weights(train_counts)


def class_weights(counts: Sequence[int]) -> list[float]:
    """Return the weight of an image of each class: inverse to the class's images, 1 on average over all images.

    n / (K n_c), for n images of K classes: the weighting of King & Zeng (2001), "Logistic Regression in Rare Events
    Data", for equally frequent classes. It is what drawing the classes equally often is on average. The "effective
    number" of Cui et al. (2019) comes to the same for up to some thousand images a class, and has one more parameter.

    Parameters
    ----------
    counts : images of each class. One without any weighs 0 and is not among the K.
    """
    present = sum(count > 0 for count in counts)
    return [sum(counts) / (present * count) if count else 0.0 for count in counts]


def scale_schedule(lr_config: Config, base_epochs: int, epochs: int, base_iterations: int, iterations: int) -> Config:
    """Return *lr_config* with milestones, cool-down and warm-up at the same fractions of the new schedule.

    A whole number as ``step`` is a decay every so many epochs and stays, as the tutorial keeps it.

    Parameters
    ----------
    base_epochs, epochs : length of the base config's schedule and of the new one.
    base_iterations, iterations : the same in training steps.
    """
    new = plain(lr_config)
    if isinstance(new.get("step"), list | tuple):
        new["step"] = sorted({max(1, round(step * epochs / base_epochs)) for step in new["step"]})
    if "cool_down_time" in new:
        new["cool_down_time"] = round(new["cool_down_time"] * epochs / base_epochs)
    if new.get("warmup"):
        length = base_epochs if new.pop("warmup_by_epoch", False) else base_iterations
        # In iterations, since a fraction of a short schedule is less than an epoch.
        new["warmup_iters"] = max(1, math.ceil(new["warmup_iters"] / length * iterations))
    return new


def scale_hooks(hooks: Sequence[Config], base_iterations: int, iterations: int) -> list[Config]:
    """Return custom hooks with an exponential moving average that spans the same fraction of the new schedule.

    ConvNeXt's momentum of 4e-5 averages over 25,000 steps. In a run of 100 steps that average never leaves its
    start, and a head that starts random would be evaluated as it started.
    """
    new = [plain(hook) for hook in hooks]
    for hook in new:
        if hook["type"] == "EMAHook":
            hook["momentum"] = min(0.5, hook.get("momentum", 0.0002) * base_iterations / iterations)
    return new


def check_weights(config: Config, start: str | None) -> None:
    """Make sure that all weights that a config names, at any depth, are local files of tensors only.

    The trainer reads them in the same way (``replace_loaders``); here a mistake costs no GPU.

    Parameters
    ----------
    start : the weights that mimflow fetched itself.

    Raises
    ------
    UserError : an address, no such file, or one that is damaged or holds more than weights.
    """
    from scripts.lib.model.checkpoint_file import read_foreign  # late: it loads torch

    for node in nodes(config):
        for key in WEIGHTS_KEYS:
            value = node.get(key)
            if not isinstance(value, str) or value == start:
                continue
            if not (path := Path(value).expanduser()).is_file():
                remedy = "give a local file, or let mimflow fetch it: checkpoint: {url: ...}"
                raise UserError(f"overrides: {key}: there is no file {value}", remedy)
            read_foreign(path, f"overrides: {key}: {value}")


def apply_override(config: Config, key: str, value: Any, accepts: Callable[[Config, str], bool]) -> None:
    """Set a dotted *key* of *config*; numbers index lists.

    Parameters
    ----------
    accepts : tells whether the class that a dict's ``type`` names takes an argument that the dict does not have.

    Raises
    ------
    UserError : there is no such key.
    """
    node: Any = config
    *parents, last = key.split(".")
    value = _with_tuples(last, value)
    for depth, name in enumerate(parents):
        node = _child(node, name, ".".join(parents[: depth + 1]), key)
    if isinstance(node, list):
        _child(node, last, key, key)
        node[int(last)] = value
        return
    if not isinstance(node, dict):
        raise UserError(f"overrides.{key}: {'.'.join(parents)} is {node!r}, which has no keys; override it as a whole")
    is_known = last in (TOP_LEVEL_KEYS if node is config else LOADER_KEYS if parents == ["data"] else ())
    if last not in node and not is_known and not accepts(node, last):
        raise UserError(f"overrides.{key}: there is no such key; {_choices(last, node)}")
    node[last] = value


def fill_in(config: Config, num_classes: int) -> None:
    """Add, in place, what mmcls's own defaults have wrong for what overrides replaced.

    Raises
    ------
    UserError : they set another number of classes than the data have.
    """
    for node in nodes(config["model"]):
        if (number := node.get("num_classes", num_classes)) != num_classes:
            what = f"overrides: num_classes is {number} within model, but the data have {num_classes} classes"
            raise UserError(what, f"leave it out, or set {num_classes}")
    if config["data"].get("workers_per_gpu") == 0:
        config["data"].setdefault("persistent_workers", False)  # mmcls asks for them, and torch has none to keep then
    if isinstance(evaluation := config.get("evaluation"), dict):
        options = evaluation.setdefault("metric_options", {})
        if isinstance(options, dict):
            options.setdefault("topk", top_k(num_classes))  # mmcls's own, 1 and 5, fail on fewer classes


def _with_tuples(key: str, value: Any) -> Any:
    """Return *value* with tuples in the place of lists of numbers, where mmcls takes nothing else."""
    if isinstance(value, dict):
        return {name: _with_tuples(name, item) for name, item in value.items()}
    if not isinstance(value, list):
        return value
    if key in TUPLES and all(isinstance(item, int | float) for item in value):
        return tuple(value)
    return [_with_tuples("", item) for item in value]


def _child(node: Any, name: str, path: str, key: str) -> Any:
    if isinstance(node, list | tuple):
        if re.fullmatch(r"\d+", name) and int(name) < len(node):
            return node[int(name)]
        raise UserError(f"overrides.{key}: {path} must be a number from 0 to {len(node) - 1}")
    if isinstance(node, dict) and name in node:
        return node[name]
    choices = _choices(name, node) if isinstance(node, dict) else "its parent is no section"
    raise UserError(f"overrides.{key}: there is no {path}; {choices}")


def _choices(name: str, node: Config) -> str:
    close = difflib.get_close_matches(name, list(node), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"keys there: {', '.join(map(str, node))}"


def registered_class(type_name: str) -> type | None:
    """Return the class that mmcls, mmcv or torch would build for a config's ``type``, or None."""
    from mmcls.datasets import DATASETS, PIPELINES, SAMPLERS
    from mmcls.models.builder import MODELS
    from mmcv.runner import HOOKS, RUNNERS
    from mmcv.runner.optimizer.builder import OPTIMIZERS

    import scripts.mmcls_plugins  # noqa: F401  (registers ours)

    registries = (MODELS, DATASETS, PIPELINES, SAMPLERS, HOOKS, RUNNERS, OPTIMIZERS)
    return next((registered for registry in registries if (registered := registry.get(type_name))), None)


def class_accepts(node: Config, argument: str) -> bool:
    """Tell whether the class that a dict names has *argument* in the signature of it or of a base class.

    The dict names it by ``type``, or as a schedule by ``policy``. mmcv takes some arguments off before it builds:
    how the learning rate differs between parameters, and the priority of a hook.
    """
    from mmcv.runner import Hook
    from torch.optim import Optimizer

    name, policy = node.get("type"), node.get("policy")
    if not name and isinstance(policy, str):  # named as mmcv's BaseRunner.register_lr_hook does
        name = f"{policy.title() if policy == policy.lower() else policy}LrUpdaterHook"
    registered = registered_class(name) if isinstance(name, str) else None
    if registered is None:
        return False
    taken_off = ((Optimizer, ("paramwise_cfg", "constructor")), (Hook, ("priority",)))
    if any(issubclass(registered, kind) and argument in names for kind, names in taken_off):
        return True
    return any(
        argument in inspect.signature(vars(base)["__init__"]).parameters
        for base in registered.__mro__
        if "__init__" in vars(base) and base is not object
    )
