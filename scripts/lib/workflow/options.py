"""What each rule tells its script: the options of the shell lines, quoted, and the settings as JSON."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scripts.lib.base import long_values
from scripts.lib.data.reading import WHITE, colour
from scripts.lib.settings.dataset import Source
from scripts.lib.settings.schema import Settings, Site
from scripts.lib.workflow.layout import Layout

#: Keys of a source that unpack_archive needs and fetch_archive does not.
UNPACKED_BY = {"labels", "label", "split", "folders"}


def option(name: str, *values: str) -> str:
    """Return an option and its values for a shell line; "" where there is none, or only empty ones.

    >>> option("license", "CC BY 4.0")
    "--license 'CC BY 4.0'"
    """
    words = [value for value in values if value]
    return shlex.join([f"--{name}", *words]) if words else ""


def to_json(value: Any) -> str:
    """Return *value* for an option: as JSON in which names of any script stay readable, or as a file that holds it."""
    return long_values.pass_on(json.dumps(value, ensure_ascii=False))


class RuleOptions:
    """The options as rules take them: Snakemake searches a text for wildcards, but not what a function returns.

    So a pattern such as ``([0-9]{2})`` or a class ``{c1}`` reaches its script as it was written.
    """

    def __init__(self, options: Options) -> None:
        self._options = options

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._options, name)
        return (lambda wildcards: value) if isinstance(value, str) else value


class Options:
    """The options of one configuration; a method that takes ``wildcards`` is a params function of Snakemake."""

    def __init__(self, settings: Settings, site: Site, layout: Layout) -> None:
        self.settings = settings
        self.site = site
        self.layout = layout

    # -- data ---------------------------------------------------------------------------------------------------------

    def source_json(self, wildcards: Any) -> str:
        """Return a ``source`` section for fetch_archive, without what only unpack_archive must know."""
        source = self.layout.source_of(wildcards)
        if isinstance(source, str):
            return to_json({"file": source})
        return long_values.pass_on(
            source.model_dump_json(exclude_none=True, exclude_defaults=True, exclude=UNPACKED_BY)
        )

    @property
    def sources(self) -> str:
        """What unpack_archive is told of each archive."""
        sources = [self._source_for_unpacking(source) for source in self.layout.sources]
        return option("sources", to_json(sources)) if any(sources) else ""

    def _source_for_unpacking(self, source: Source) -> dict[str, Any]:
        values = source.model_dump(include=UNPACKED_BY, exclude_none=True)
        copies = self.layout.label_files
        if kept := {name: copies[name] for name in source.label_files() if name in copies}:
            values["kept"] = kept
        if len(self.layout.sources) > 1 and not (source.split or source.labels):
            values["name"] = Path(source.path or urlsplit(source.url or "").path).name  # train.zip, test.zip
        if source.in_place:
            values["folder"] = source.path
        if encoding := self.settings.dataset.encoding:
            values["encoding"] = encoding
        return values

    @property
    def labels(self) -> str:
        """The files of labels that are in no archive."""
        return option("labels", *self.layout.label_files.values())

    @property
    def corrections(self) -> str:
        """The user's file of decisions on labels."""
        return option("corrections", *self.layout.corrections())

    @property
    def kept_corrections(self) -> str:
        """The copy of it that stays with the results."""
        return option("corrections", f"{self.layout.dataset}/corrections.csv" if self.layout.corrections() else "")

    @property
    def classes(self) -> str:
        """The user's choice and order of classes."""
        classes = self.settings.dataset.classes
        return option("classes", to_json(classes)) if classes else ""

    @property
    def group_by(self) -> str:
        """The pattern of known groups; in one word with its option, since a pattern may begin with a dash."""
        pattern = self.settings.dataset.split.group_by
        return f"--group-by={shlex.quote(pattern)}" if pattern else ""

    @property
    def reading(self) -> str:
        """How the images' files become pixels, where the user says so."""
        depth = option("bit-depth", str(self.settings.dataset.bit_depth or ""))
        return " ".join(filter(None, (depth, self.background)))

    @property
    def background(self) -> str:
        """What shows through transparent images, where it is not white."""
        background = self.settings.dataset.background
        return option("background", background if colour(background) != WHITE else "")

    @property
    def folds(self) -> str:
        """The number of folds."""
        return option("folds", str(self.layout.folds or ""))

    @property
    def license(self) -> str:
        """The license of the images."""
        return option("license", self.settings.dataset.license or "")

    @property
    def language(self) -> str:
        """The language of what is drawn, where it is not English."""
        language = self.settings.report.language
        return option("language", language if language != "en" else "")

    # -- runs ---------------------------------------------------------------------------------------------------------

    def checkpoint_json(self, wildcards: Any) -> str:
        """Return the checkpoint setting for fetch_checkpoint; equal for all experiments that share the file."""
        request = self.layout.first_user_of(wildcards).checkpoint_request()
        return long_values.pass_on(json.dumps(request, sort_keys=True))

    def checkpoint_base(self, wildcards: Any) -> str:
        """Return the base config that decides what the ``zoo`` checkpoint is."""
        return self.layout.first_user_of(wildcards).base_config

    def checkpoint(self, wildcards: Any) -> str:
        """Return the weights that a run starts from."""
        return option("checkpoint", *self.layout.checkpoint_of(wildcards))

    def pixel_cache(self, wildcards: Any) -> str:
        """Return the pixel cache that a run trains on."""
        return option("pixel-cache", *self.layout.pixel_cache_of(wildcards))

    def export(self, wildcards: Any) -> str:
        """Return what is known of a run's model.onnx."""
        return option("export", *self.layout.export_of(wildcards))

    def optional(self, wildcards: Any) -> str:
        """Return that a checkpoint may be missing, where only candidates want it."""
        return "--optional" if self.layout.can_do_without(wildcards) else ""

    def choice(self, wildcards: Any) -> str:
        """Return the choice that a run with `base_config: auto` trains."""
        return option("choice", *self.layout.choice_of(wildcards))

    def candidate_json(self, wildcards: Any) -> str:
        """Return the settings of a candidate for probe_candidate."""
        return long_values.pass_on(self.layout.candidate_of(wildcards).model_dump_json(exclude_defaults=True))

    @property
    def label_judge(self) -> str:
        """The experiment whose backbone judges the labels, by its name and settings."""
        if not (judge := self.layout.label_judge):
            return ""
        name, experiment = judge
        settings = long_values.pass_on(experiment.model_dump_json(exclude_defaults=True))
        return f"{option('name', name)} {option('experiment', settings)}"

    @property
    def label_suspects(self) -> str:
        """What is known of labels that may be wrong, where they were judged."""
        return option("label-suspects", *self.layout.suspects_of_data("json"))

    @property
    def labels_page(self) -> str:
        """The name of the page of labels that may be wrong, where there will be one."""
        return option("labels-page", *(Path(page).name for page in self.layout.suspects_of_data("html")))

    def probe_seconds(self, wildcards: Any) -> str:
        """Return what the look of a candidate at all images may take: all together half of the budget."""
        minutes = self._minutes(wildcards)
        candidates = len(self.layout.searches[wildcards.experiment])
        return option("seconds", f"{60 * minutes / 2 / candidates:g}" if minutes else "")

    def search_minutes(self, wildcards: Any) -> str:
        """Return the budget of a search in minutes."""
        minutes = self._minutes(wildcards)
        return option("minutes", f"{minutes:g}" if minutes else "")

    def _minutes(self, wildcards: Any) -> float | None:
        budget = self.settings.experiments[wildcards.experiment].budget
        return budget.minutes if budget else None

    def fold(self, wildcards: Any) -> str:
        """Return the fold that a run tests on."""
        return option("fold", wildcards.fold) if self.layout.folds else ""

    @property
    def price(self) -> str:
        """The site's price of a GPU."""
        price = self.site.price_per_gpu_hour
        return "" if price is None else f"{option('price', str(price))} {option('currency', self.site.currency)}"

    def experiment_json(self, wildcards: Any) -> str:
        """Return the settings of an experiment for patch_config."""
        return long_values.pass_on(
            self.settings.experiments[wildcards.experiment].model_dump_json(exclude_defaults=True)
        )

    def run_json(self, wildcards: Any) -> str:
        """Return the part of the settings that is one run's, for its provenance: as a whole configuration.

        With folds it names their number; which of them the run is, its folder says, as a target that Snakemake makes.
        """
        experiment = self.settings.experiments[wildcards.experiment].model_dump(mode="json", exclude_defaults=True)
        dataset = self.settings.dataset.model_dump(mode="json", exclude_none=True)
        return to_json(
            {"dataset": dataset, "experiments": {wildcards.experiment: experiment}, "seeds": [int(wildcards.seed)]}
        )
