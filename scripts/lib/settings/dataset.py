"""The section `dataset` of configs/*.yaml: every key, its default, its meaning and its limits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Discriminator, Field, StrictBool, StrictInt, Tag, field_validator, model_validator

from scripts.lib.data.image_paths import group_pattern
from scripts.lib.data.reading import colour
from scripts.lib.data.splits import FEWEST_FOLDS, MOST_FOLDS
from scripts.lib.settings.sections import (
    Auto,
    Encoding,
    FileName,
    Fraction,
    LocalPath,
    Name,
    Section,
    Seed,
    Sha256,
    Text,
    Url,
)

#: Suffixes by which an archive is recognised in a url or path; the content decides what it is.
ARCHIVE_SUFFIXES = (".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tgz", ".tar", ".zip")


class Sample(Section):
    """Parameters of the embedded generator of rendered fruit photographs."""

    images_per_class: Annotated[StrictInt, Field(ge=4)] = Field(
        100, description="Images of each class; any number, as the generator also serves tests of scale."
    )
    size: Annotated[StrictInt, Field(ge=32, le=2048)] = Field(320, description="Width and height in pixels.")
    seed: Seed = Field(0, description="Another seed renders other photographs.")


class LabelFiles(Section):
    """Annotation files in the format of mmcls, one per split, with lines `path label`."""

    train: FileName | None = Field(None, description="File of the training images.")
    val: FileName | None = Field(None, description="File of the validation images.")
    test: FileName | None = Field(None, description="File of the test images.")
    classes: FileName | None = Field(
        None,
        description="Names of the classes, one per line, if the labels are indices into it, counted from 0. Alone: "
        "of the numbers in the `.cls` files of WebDataset.",
    )

    @model_validator(mode="after")
    def _some_images(self) -> LabelFiles:
        if not (self.train or self.val or self.test or self.classes):
            raise ValueError("name a file for train, val or test")
        return self


Labels = Annotated[
    Annotated[FileName, Tag("file")] | Annotated[LabelFiles, Tag("section")],
    Discriminator(lambda value: "section" if isinstance(value, dict | LabelFiles) else "file"),
]


Names = FileName | Annotated[list[FileName], Field(min_length=1)]


class SplitFolders(Section):
    """The folders of each split, by name or path. What is in none is left out or, if `train` is not named, is train."""

    train: Names | None = Field(
        None, description="Folders of the training images, from which missing splits are taken."
    )
    val: Names | None = Field(None, description="Folders of the validation images.")
    test: Names | None = Field(None, description="Folders of the test images.")

    @model_validator(mode="after")
    def _differ(self) -> SplitFolders:
        values = [value for value in (self.train, self.val, self.test) if value is not None]
        names = [name for value in values for name in ([value] if isinstance(value, str) else value)]
        if not names:
            raise ValueError("name a folder for train, val or test")
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"the folder {twice[0]!r} stands there twice")
        return self


Folders = Annotated[
    Annotated[Literal["outer", "inner"], Tag("word")] | Annotated[SplitFolders, Tag("section")],
    Discriminator(lambda value: "section" if isinstance(value, dict | SplitFolders) else "word"),
]


class Source(Section):
    """Where an archive comes from: exactly one of `url`, `path` and `sample`; and what its folders do not tell."""

    OLD_KEYS: ClassVar = {"part": "split"}  # aliases

    url: Url | None = Field(None, description="http(s) address of a zip or tar archive.")
    mirrors: list[Url] = Field([], description="Other addresses of the same file, tried in order when `url` fails.")
    sha256: Sha256 | None = Field(
        None, description="Hash of the archive. Without it, the first download records it and later ones must match."
    )
    path: LocalPath | None = Field(None, description="A local archive, or a folder with one folder per class.")
    sample: Sample | None = Field(None, description="Render a data set instead: parameters of the generator.")
    in_place: StrictBool | None = Field(
        None,
        description="true: the folder `path` is not copied; images/ holds links to its files. "
        "Of tar shards (WebDataset) the images are read where they lie too, where the shards are not compressed.",
    )
    labels: Labels | None = Field(
        None,
        description="If folders are not classes: a CSV file with columns `file`, `label` and optionally `split`, or a "
        "file with lines `path label`; a local file, else one in the archive.",
    )
    label: Text | None = Field(None, description="All images have this class: for one archive per class.")
    folders: Folders | None = Field(
        None,
        description="What the folders are, if their names do not tell: the folders of each split; `outer` or `inner`: "
        "of two levels of folders that may both be the classes, this one is.",
    )
    split: Literal["train", "val", "test"] | None = Field(
        None, description="All images belong to this split: for one archive per split."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Source:
        origins = [name for name in ("url", "path", "sample") if getattr(self, name) is not None]
        if len(origins) != 1:
            raise ValueError(f"give exactly one of url, path and sample (given: {', '.join(origins) or 'none'})")
        if self.mirrors and self.url is None:
            raise ValueError("mirrors go with url")
        if self.path is not None and not Path(self.path).expanduser().exists():
            raise ValueError(f"there is no file or folder {self.path!r}: check dataset.source.path")
        if self.in_place and (self.path is None or not Path(self.path).expanduser().is_dir()):
            raise ValueError("in_place: true reads a folder where it is: give it as path")
        if self.labels is not None and self.label is not None:
            raise ValueError("labels say the class of each image, label one class of them all: give one of the two")
        if self.folders is not None and self.labels is not None:
            raise ValueError("labels say the class of each image, folders what the folders are: give one of the two")
        if isinstance(self.folders, SplitFolders) and self.split is not None:
            raise ValueError("split is that of all images, folders name those of each split: give one of the two")
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


Sources = Annotated[
    Annotated[Source, Tag("one")] | Annotated[list[Source], Field(min_length=1), Tag("several")],
    Discriminator(lambda value: "several" if isinstance(value, list | tuple) else "one"),
]
Pattern = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(lambda text: group_pattern(text).pattern)]


class Splitting(Section):
    """How images are divided if the archive has no such split of its own."""

    val: Fraction = Field(0.1, description="Fraction of all images for validation, which chooses the best epoch.")
    test: Fraction = Field(
        0.2, description="Fraction of all images for the test, which is read once at the end. Unused with `folds`."
    )
    seed: Seed = Field(0, description="Another seed chooses another split.")
    folds: Annotated[StrictInt, Field(ge=FEWEST_FOLDS, le=MOST_FOLDS)] | None = Field(
        None,
        description="Cross-validation in 2 to 20 folds: each image is in test in exactly one of them. Refused where the"
        " images have a val or test split of their own.",
    )
    group_by: Pattern | None = Field(
        None,
        description="A Python regular expression, searched in an image's path relative to `images/`. Images for which"
        " its capture group (or, without one, its whole match) is the same stay in one split: photos of one patient,"
        " frames of one video. An image that does not match is a group of its own.",
    )

    @model_validator(mode="after")
    def _train_remains(self) -> Splitting:
        if self.folds is None and self.val + self.test >= 1:
            raise ValueError(f"val + test is {self.val + self.test:g}: it must stay below 1, so that train has images")
        if self.folds is not None and self.val + 1 / self.folds >= 1:
            raise ValueError(f"val and one of {self.folds} folds as test leave nothing to train: make val smaller")
        return self


DataShards = Annotated[
    Annotated[StrictInt, Field(ge=1, le=1000)] | Auto,
    Field(
        description="Jobs among which the audit and the pixel cache are divided, for hundreds of thousands of images "
        "on a cluster; `auto`: by the number of images (docs/data-audit.md). The results do not depend on it."
    ),
]


class Dataset(Section):
    """The labelled images."""

    OLD_KEYS: ClassVar = {"licence": "license"}  # aliases

    name: Name = Field(description="Name of results/<name>/: letters, digits, `.`, `_` and `-`.")
    source: Sources = Field(description="Where the images come from; a list where they are in several archives.")
    split: Splitting = Field(Splitting(), description="How they are divided.")
    classes: list[Annotated[str, Field(min_length=1)]] | None = Field(
        None, min_length=2, description="The classes to use, in label order. Default: every class folder, sorted."
    )
    encoding: Encoding | None = Field(
        None,
        description="Encoding of names in archives and of files of labels that are not in Unicode: `gb18030`, `cp932`,"
        " `cp949`, `cp950`, `cp1252`, `cp437`, `cp1251`, `cp866` or any other of Python. Default: the most plausible"
        " one, which the log and the page of the data name.",
    )
    on_bad_image: Literal["set_aside", "fail"] = Field(
        "set_aside",
        description="Images that cannot be read, do not fit into memory, or are in two classes: `set_aside` "
        "leaves them out and lists them in audit.csv, `fail` stops before anything is trained.",
    )
    bit_depth: Annotated[StrictInt, Field(ge=9, le=16)] | None = Field(
        None,
        description="Bits that images of 16 bits a channel use: 12 for those of many microscopes and cameras. Larger"
        " values become white. Default: 16; where those of most images fit in 14 bits, so that these would be black,"
        " mimflow stops and names the number to write here.",
    )
    background: str = Field(
        "white",
        description="What shows through where an image is transparent: the name of a colour, or its number in quotes,"
        " such as `'#808080'`.",
    )
    corrections: LocalPath | None = Field(
        None,
        description="A file of decisions on labels: `corrections.csv`, as the page of the label suspects saves it."
        " Images are found by their content, and are never altered (docs/data-audit.md).",
    )
    license: str | None = Field(
        None, max_length=10_000, description="License of the images, as recorded in the provenance. Alias: `licence`."
    )

    def sources(self) -> list[Source]:
        """Return the sources, one an archive."""
        return [self.source] if isinstance(self.source, Source) else list(self.source)

    @field_validator("corrections")
    @classmethod
    def _corrections_are_there(cls, corrections: str | None) -> str | None:
        if corrections is not None and not Path(corrections).expanduser().is_file():
            raise ValueError(f"there is no file {corrections!r}: check dataset.corrections")
        return corrections

    @field_validator("background", mode="before")
    @classmethod
    def _is_colour(cls, background: Any) -> Any:
        if background is None:  # YAML takes what follows a # for a comment
            raise ValueError("say a colour; a number stands in quotes: '#808080'")
        if isinstance(background, str):
            try:
                colour(background)
            except ValueError as error:
                raise ValueError(f"{error}: say a name, such as white, or a number in quotes: '#808080'") from None
        return background

    @field_validator("classes")
    @classmethod
    def _classes_differ(cls, classes: list[str] | None) -> list[str] | None:
        if classes and len(set(classes)) != len(classes):
            raise ValueError("a class is named twice")
        return classes
